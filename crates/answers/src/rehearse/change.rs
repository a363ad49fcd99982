//! What differs between a guest's CPU before and after, which piece of software does it, and since which release.

use cpusieve_knowledge::linux;
use cpusieve_knowledge::own;
use cpusieve_knowledge::qemu::{self, Word};
use cpusieve_knowledge::x86;
use cpusieve_model::{Cite, CpuidBit, Place, Register, Stage, Step};

use super::view::View;

/// Which part of the upgrade does it: each part was tried alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The host's kernel with its KVM, a parameter or the microcode, whatever the VMM.
    Host,
    /// QEMU or another VMM, whatever the kernel.
    Vmm,
    /// Both are needed.
    Both,
    /// Either would do.
    Either,
    /// Another machine type, because the name in the definition stands for the newest one.
    Machine,
}

impl Cause {
    /// The word of the JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Vmm => "vmm",
            Self::Both => "both",
            Self::Either => "either",
            Self::Machine => "machine",
        }
    }
}

/// Two neighbouring releases between which it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Since {
    /// The last known release with which it is as before.
    pub without: String,
    /// The first known release with which it is as after.
    pub with: String,
}

/// A bit of CPUID or of a feature MSR that a guest has before and not after, or the other way round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where it lives.
    pub place: Place,
    /// The feature's id; `None` for a bit without a name.
    pub feature: Option<&'static str>,
    /// Whether the guest has it after.
    pub gained: bool,
    /// The sieve whose output changes first.
    pub at: Stage,
    /// Which part of the upgrade does it.
    pub cause: Cause,
    /// Between which releases.
    pub since: Option<Since>,
    /// What that sieve does to it before.
    pub before: Option<Step>,
    /// What that sieve does to it after.
    pub after: Option<Step>,
    /// The property of `-cpu` that sets it after the upgrade.
    pub property: Option<&'static str>,
    /// The name under which the guest's kernel prints it.
    pub flag: Option<&'static str>,
    /// Whether the VMM is QEMU.
    qemu: bool,
}

impl Change {
    /// The step that tells why it is there, or why it is not, and whether it is that of before: the side that takes or adds
    /// it, where the other lets it be.
    #[must_use]
    pub fn telling(&self) -> Option<(&Step, bool)> {
        use cpusieve_model::Effect::{Added, Dropped, Forced};
        let sides = || [(self.after.as_ref(), false), (self.before.as_ref(), true)].into_iter();
        let steps = || sides().filter_map(|(step, before)| Some((step?, before)));
        steps().find(|(step, _)| matches!(step.effect, Dropped | Added | Forced)).or_else(|| steps().next())
    }

    /// Where it is decided: the step's place, or for a bit without a name the function that makes its register.
    #[must_use]
    pub fn cite(&self) -> Option<Cite> {
        let of_register = || {
            let bit = self.place.cpuid()?;
            made_in(self.at, (bit.leaf, bit.register), self.qemu)
        };
        self.telling().map(|(step, _)| step.cite).filter(|cite| !cite.0.is_empty()).or_else(of_register)
    }

    /// The id, or the bit if it has no name.
    #[must_use]
    pub fn name(&self) -> String {
        self.feature.map_or_else(|| format!("{:#}", self.place), str::to_owned)
    }
}

/// A register that is no set of features, with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// EAX on input.
    pub leaf: u32,
    /// ECX on input.
    pub subleaf: u32,
    /// The register.
    pub register: Register,
    /// Before; 0 if the leaf is not there.
    pub before: u32,
    /// After; 0 if the leaf is not there.
    pub after: u32,
    /// The sieve whose output changes first.
    pub at: Stage,
    /// Which part of the upgrade does it.
    pub cause: Cause,
    /// Where it is made: KVM's answer, or QEMU's table; `None` with another VMM.
    pub cite: Option<Cite>,
}

impl Value {
    /// The register in the short form: `D.0.EBX`.
    #[must_use]
    pub fn name(&self) -> String {
        let bit = format!("{:#}", CpuidBit::new(self.leaf, self.subleaf, self.register, 0));
        bit.trim_end_matches("[0]").to_owned()
    }
}

/// A guest on stacks between those before and after.
pub(super) struct Between {
    /// Before.
    pub before: View,
    /// After, started again with the definition as it is.
    pub after: View,
    /// After, on the machine type that it has before.
    pub on_machine: Option<View>,
    /// With the host's side of the upgrade alone.
    pub host: Option<View>,
    /// With the VMM's side alone.
    pub vmm: Option<View>,
}

/// A stack with one of the releases on the way.
pub(super) type Waypoint = (String, View);

impl Between {
    /// What changes.
    pub(super) fn changes(&self) -> (Vec<Change>, Vec<Value>) {
        let (mut changes, mut values): (Vec<Change>, Vec<Value>) = (Vec::new(), Vec::new());
        for place in self.before.differing(&self.after) {
            match place {
                Place::Cpuid(bit) if !is_feature(place) => {
                    let same = |value: &Value| {
                        (value.leaf, value.subleaf, value.register) == (bit.leaf, bit.subleaf, bit.register)
                    };
                    if !values.iter().any(same) {
                        values.push(self.value(bit));
                    }
                }
                _ => changes.push(self.change(place)),
            }
        }
        (changes, values)
    }

    fn value(&self, bit: CpuidBit) -> Value {
        let CpuidBit { leaf, subleaf, register, .. } = bit;
        let read = |view: &View| view.table.get(leaf, subleaf).unwrap_or_default().get(register);
        let (before, after) = (read(&self.before), read(&self.after));
        let offered = |view: &View| view.offered.as_ref()?.get(leaf, subleaf).map(|registers| registers.get(register));
        let at = if offered(&self.before) == offered(&self.after) { Stage::Qemu } else { Stage::Kvm };
        let cite = made_in(at, (leaf, register), self.after.release.is_some());
        Value { leaf, subleaf, register, before, after, at, cause: self.cause(read), cite }
    }

    fn change(&self, place: Place) -> Change {
        let gained = self.after.has(place);
        let at = if self.before.offers(place) == self.after.offers(place) { Stage::Qemu } else { Stage::Kvm };
        let feature = x86::by_place(place).map(|feature| feature.id);
        let tree = self.after.guest.as_ref().or(self.before.guest.as_ref()).map(|guest| guest.tree);
        Change {
            place,
            feature,
            gained,
            at,
            cause: self.cause(|view| view.has(place)),
            since: None,
            before: self.before.step(at, place).cloned(),
            after: self.after.step(at, place).cloned(),
            property: self.after.release.and_then(|release| qemu::name(release, place)),
            flag: tree.and_then(|tree| linux::at(tree, place)).and_then(|row| row.shown),
            qemu: self.after.release.is_some(),
        }
    }

    /// Which part of the upgrade changes what is read of a view.
    fn cause<T: PartialEq>(&self, read: impl Fn(&View) -> T) -> Cause {
        let (before, after) = (read(&self.before), read(&self.after));
        if self.on_machine.as_ref().is_some_and(|view| read(view) == before) {
            return Cause::Machine;
        }
        let is_after =
            |view: &Option<View>| view.as_ref().is_some_and(|view| view.error.is_none() && read(view) == after);
        match (is_after(&self.host), is_after(&self.vmm)) {
            (true, true) => Cause::Either,
            (true, false) => Cause::Host,
            (false, true) => Cause::Vmm,
            // With one part alone nothing could be had, or nothing changes.
            (false, false) if self.vmm.is_none() => Cause::Host,
            (false, false) if self.host.is_none() => Cause::Vmm,
            (false, false) => Cause::Both,
        }
    }

    /// Says since which release, by the stacks on the way: those with kernels and those with VMMs, from before to after.
    pub(super) fn date(&self, changes: &mut [Change], kernels: &[Waypoint], vmms: &[Waypoint]) {
        for change in changes {
            let way = match change.cause {
                Cause::Host => kernels,
                Cause::Vmm => vmms,
                _ => continue,
            };
            let last = way.iter().rposition(|(_, view)| view.has(change.place) != change.gained);
            let (Some(without), Some(with)) =
                (last.and_then(|at| way.get(at)), last.and_then(|at| way.get(at.checked_add(1)?)))
            else {
                continue;
            };
            change.since = Some(Since { without: without.0.clone(), with: with.0.clone() });
        }
    }
}

/// The function that makes a register.
fn made_in(at: Stage, (leaf, register): (u32, Register), qemu: bool) -> Option<Cite> {
    Some(Cite(match at {
        Stage::Kvm => "arch/x86/kvm/cpuid.c:__do_cpuid_func",
        // The size of what the guest switched on, which KVM writes into the vCPU's table.
        _ if (leaf, register) == (0xd, Register::Ebx) => "arch/x86/kvm/cpuid.c:kvm_update_cpuid_runtime",
        _ if qemu => "target/i386/cpu.c:cpu_x86_cpuid",
        _ => return None,
    }))
}

/// Whether a bit is one of features, and not of a number.
pub(super) fn is_feature(place: Place) -> bool {
    x86::by_place(place).is_some() || Word::of(place).and_then(qemu::word_position).is_some()
}

/// The kernel trees from one to another, both included. A tree of the user's own stands in the place of the compiled-in one
/// that it is nearest to.
pub(super) fn kernels(from: usize, to: usize) -> Vec<usize> {
    let compiled = way(own::compiled(from), own::compiled(to));
    let between = compiled.filter(|&tree| tree != own::compiled(from) && tree != own::compiled(to));
    let last = (from != to).then_some(to);
    std::iter::once(from).chain(between).chain(last).collect()
}

/// The positions from one release to another, both included, in the order of the upgrade.
pub(super) fn way(from: usize, to: usize) -> impl Iterator<Item = usize> {
    let (low, high) = (from.min(to), from.max(to));
    (low..=high).map(move |step| if from <= to { step } else { high.saturating_sub(step.saturating_sub(low)) })
}
