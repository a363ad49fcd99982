//! A feature's names in every system, its bits, where it is hidden, and the releases it needs.

use cpusieve_knowledge::kvm::{self, By, CapKind, Op};
use cpusieve_knowledge::rules::{self, Condition, RuleEffect, Software};
use cpusieve_knowledge::x86::{Feature, System};
use cpusieve_knowledge::{TreeSet, linux, own, qemu};
use cpusieve_model::{Place, Register};

/// All that is known of one feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// The feature.
    pub feature: &'static Feature,
    /// What Linux makes of it, by kernel tree: oldest first, equal neighbours joined.
    pub linux: Vec<InLinux>,
    /// What KVM of each tree can report of its bits.
    pub kvm: Vec<InKvm>,
    /// What QEMU calls its bits.
    pub qemu: Vec<InQemu>,
    /// Names elsewhere: the system, and the name.
    pub elsewhere: Vec<(&'static str, &'static str)>,
    /// Flags that Linux sets because of this one.
    pub causes: Vec<&'static str>,
    /// Features that the newest kernel clears together with this one.
    pub dependents: Vec<&'static str>,
}

/// A feature in some kernel trees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InLinux {
    /// The macro of `cpufeatures.h`, without `X86_FEATURE_`.
    pub macro_name: &'static str,
    /// The word in `/proc/cpuinfo`; `None` if it is hidden.
    pub shown: Option<&'static str>,
    /// The capability word and bit.
    pub position: (u8, u8),
    /// The trees.
    pub trees: TreeSet,
}

/// A bit in KVM's tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InKvm {
    /// The bit.
    pub place: Place,
    /// How KVM comes to report it.
    pub kind: CapKind,
    /// Whether that hangs on a condition: hardware, or a module parameter.
    pub conditional: bool,
    /// The kernel trees.
    pub trees: TreeSet,
}

/// A bit in QEMU's feature words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InQemu {
    /// The bit.
    pub place: Place,
    /// The property of `-cpu`; `None` if QEMU has the word but no name for the bit.
    pub name: Option<&'static str>,
    /// The releases that name it.
    pub named: TreeSet,
    /// The releases in which `migratable=on` drops it.
    pub unmigratable: TreeSet,
}

/// A word for the way in which KVM comes to report a bit.
#[must_use]
pub const fn kind(kind: CapKind) -> &'static str {
    match kind {
        CapKind::Plain => "if kernel and CPU have it",
        CapKind::X86_64 => "if kernel and CPU have it, on 64-bit kernels",
        CapKind::Scattered => "if kernel and CPU have it; scattered",
        CapKind::Raw => "if the CPU has it",
        CapKind::Passthrough => "if the CPU has it, whatever the kernel says",
        CapKind::Emulated => "always, whatever the CPU has",
        CapKind::Synthesized => "if the kernel has it, with or without the CPU",
        CapKind::SynthesizedUnconditional => "always: synthesized",
        CapKind::Alias1Edx => "as a copy of leaf 1, on AMD",
        CapKind::Vendor | CapKind::AdjustOnly => "if vendor code adds it",
        CapKind::Runtime => "never by itself: set in the running guest",
    }
}

/// The card of a feature.
#[must_use]
pub fn card(feature: &'static Feature) -> Card {
    let bits = || feature.places.iter().copied();
    let system = |system: System| match system {
        System::Intel => "Intel manual",
        System::Amd => "AMD manual",
        System::Libvirt => "libvirt",
        System::LinuxVmx => "vmx flags line",
        System::OldLinux => "Linux, formerly",
        System::Kvm => "KVM",
        System::Also => "also typed",
    };
    let caps = bits().filter_map(Place::cpuid).flat_map(kvm::caps_everywhere);
    Card {
        feature,
        linux: in_linux(feature),
        kvm: in_kvm(caps).into_iter().chain(bits().filter_map(paravirtual)).collect(),
        qemu: bits()
            .filter_map(qemu::bit)
            .map(|bit| InQemu { place: bit.place, name: bit.name, named: bit.named, unmigratable: bit.unmigratable })
            .collect(),
        elsewhere: feature.names.iter().map(|&(from, name)| (system(from), name)).collect(),
        causes: causes(feature),
        dependents: dependents(feature),
    }
}

/// A feature of KVM's own leaf, 40000001H:EAX.
fn paravirtual(place: Place) -> Option<InKvm> {
    let bit = place.cpuid().filter(|bit| (bit.leaf, bit.register) == (0x4000_0001, Register::Eax))?;
    let offers = |tree: &usize| kvm::pv_features(*tree).any(|feature| feature.bit == bit.bit);
    let trees =
        TreeSet((0..linux::TREES.len()).chain(own::positions()).filter(offers).fold(0, |set, tree| set | 1 << tree));
    (!trees.is_empty()).then_some(InKvm { place, kind: CapKind::Emulated, conditional: false, trees })
}

/// Rows that say the same in words stand together.
fn in_kvm<'a>(caps: impl Iterator<Item = &'a kvm::Cap>) -> Vec<InKvm> {
    let mut rows: Vec<InKvm> = Vec::new();
    for cap in caps {
        let tree = cap.trees.first().unwrap_or_default();
        let mut adjustments = kvm::adjustments_of(tree, cap.macro_name).filter(|adjust| adjust.place == cap.place);
        let always =
            adjustments.any(|adjust| adjust.op == Op::Set && adjust.conditions.is_empty() && adjust.by == By::Common);
        let row = InKvm {
            place: Place::Cpuid(cap.place),
            kind: if always { CapKind::Emulated } else { cap.kind },
            conditional: cap.conditional,
            trees: cap.trees,
        };
        let same = |other: &&mut InKvm| {
            (other.place, kind(other.kind), other.conditional) == (row.place, kind(row.kind), row.conditional)
        };
        match rows.iter_mut().find(same) {
            Some(other) => other.trees = other.trees.union(row.trees),
            None => rows.push(row),
        }
    }
    rows
}

fn in_linux(feature: &Feature) -> Vec<InLinux> {
    let mut rows: Vec<InLinux> = Vec::new();
    for row in linux::by_id(feature.id) {
        let (macro_name, shown, position) = (row.macro_name, row.shown, (row.word, row.bit));
        // An imported tree mostly says what the known ones say.
        let same =
            |other: &&mut InLinux| (other.macro_name, other.shown, other.position) == (macro_name, shown, position);
        match rows.iter_mut().find(same) {
            Some(other) => other.trees = other.trees.union(row.trees),
            None => rows.push(InLinux { macro_name, shown, position, trees: row.trees }),
        }
    }
    rows
}

/// Flags with a rule that sets them and that needs this feature.
fn causes(feature: &Feature) -> Vec<&'static str> {
    let needs_it = |rule: &&rules::Rule| {
        rule.software == Software::Linux
            && rule.effect != RuleEffect::Clears
            && rule.needs.iter().any(|need| {
                !need.negated
                    && match need.condition {
                        Condition::Flag(id) => id == feature.id,
                        Condition::Cpuid(bit) => feature.places.contains(&Place::Cpuid(bit)),
                        _ => false,
                    }
            })
    };
    let mut causes: Vec<&str> = rules::RULES.iter().filter(needs_it).flat_map(|rule| rule.features).copied().collect();
    causes.retain(|&cause| cause != feature.id);
    causes.sort_unstable();
    causes.dedup();
    causes
}

fn dependents(feature: &Feature) -> Vec<&'static str> {
    let newest = linux::TREES.len() - 1;
    let Some(row) = linux::feature_by_id(newest, feature.id) else { return Vec::new() };
    let macros = linux::dependents(newest, row.macro_name).iter();
    let mut ids: Vec<&'static str> =
        macros.filter_map(|name| linux::feature(newest, name)).filter_map(|row| row.shown).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
