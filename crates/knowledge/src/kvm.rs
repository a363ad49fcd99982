//! What KVM offers a guest, kernel tree by kernel tree: bits, adjustments, leaves.
//!
//! KVM answers `KVM_GET_SUPPORTED_CPUID` leaf by leaf ([`answer`]). Most feature registers come from its capability words
//! ([`How::Caps`]): first each bit by its kind ([`caps`]), then the adjustments in order ([`adjustments`]), those of
//! common code and of the one vendor module that is loaded. A tree is a position in [`crate::linux::TREES`]; for one that was
//! registered ([`crate::own`]), what is written by hand ([`answer`], [`msrs`], [`parameters`]) is that of the nearest
//! compiled-in tree.
//!
//! ```
//! use cpusieve_knowledge::kvm;
//! use cpusieve_model::{CpuidBit, Register, Registers};
//!
//! // No kernel ever offered ACPI thermal control; FLUSH_L1D came with 6.4.
//! let acpi = CpuidBit::new(1, 0, Register::Edx, 22);
//! let flush_l1d = CpuidBit::new(7, 0, Register::Edx, 28);
//! assert!(kvm::trees_offering(acpi).is_empty());
//! assert_eq!(kvm::since(flush_l1d), Some(kvm::Since::Release("6.4")));
//! ```

pub mod msrs;
pub mod parameters;
mod registered;

use cpusieve_model::{CpuidBit, Register, Registers};

use crate::{TreeSet, own};
pub use registered::{caps_everywhere, leaves_with_case, offers};

/// A bit that KVM can offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cap {
    /// The macro without `X86_FEATURE_`.
    pub macro_name: &'static str,
    /// Where it lives.
    pub place: CpuidBit,
    /// How it is offered.
    pub kind: CapKind,
    /// The C condition under which it is in the mask; none if it always is.
    pub condition: Option<&'static str>,
    /// Whether, in some of these trees, it hangs on a condition of the mask or of an adjustment.
    pub conditional: bool,
    /// The trees in which it is so.
    pub trees: TreeSet,
}

/// How a bit is offered. `kernel` is the host kernel's capability (the AND over all CPUs), `raw` the bit of the CPU that
/// loaded the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CapKind {
    /// `kernel & raw`.
    Plain,
    /// `kernel & raw`, on 64-bit kernels only.
    X86_64,
    /// `kernel & raw`, where Linux keeps the kernel's bit in a word of its own.
    Scattered,
    /// `raw`: the kernel has no say.
    Raw,
    /// `raw`, though Linux has a capability for it.
    Passthrough,
    /// Always: KVM emulates it.
    Emulated,
    /// `kernel`: Linux may have it without CPUID.
    Synthesized,
    /// Always: meant to be `kernel`, but these releases do not ask.
    SynthesizedUnconditional,
    /// `kernel & raw` of leaf 80000001H:EDX, for a bit that leaf 1 has too.
    Alias1Edx,
    /// Never by itself: an adjustment adds it (6.14 and later name such bits in their lists).
    Vendor,
    /// Never by itself: an adjustment adds it, and no list names it.
    AdjustOnly,
    /// Never: KVM sets it in the running guest.
    Runtime,
}

/// Something that is set or cleared after the masks, when the vendor module is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adjust {
    /// Whose code does it.
    pub by: By,
    /// What it does.
    pub op: Op,
    /// The macro without `X86_FEATURE_`.
    pub macro_name: &'static str,
    /// Where it lives.
    pub place: CpuidBit,
    /// C conditions, all of which must hold; [`crate::rules::kvm_condition`] explains each.
    pub conditions: &'static [&'static str],
    /// The trees in which it is so.
    pub trees: TreeSet,
}

/// Whose code adjusts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum By {
    /// Common code, before the vendor module's.
    Common,
    /// `kvm_intel`.
    Intel,
    /// `kvm_amd`.
    Amd,
    /// Common code that the vendor module calls last.
    CommonLate,
}

/// What an adjustment does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// The bit is offered.
    Set,
    /// The bit is not offered.
    Clear,
    /// The bit is offered if the host kernel has it.
    CheckAndSet,
    /// The bit is offered if raw CPUID and the mask have it, whatever the kernel says.
    SetFromRaw,
}

/// The shape of KVM's CPUID code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shape {
    /// Constant masks, applied at every call (up to 5.6).
    ConstMasks,
    /// `kvm_cpu_cap_mask()`, computed when the module is loaded (5.7 to 6.13).
    CapMask,
    /// `kvm_cpu_cap_init()`, where every feature says how it is offered (6.14 and later).
    CapInit,
}

/// A limit on EAX of a leaf that says how far something goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The leaf.
    pub leaf: u32,
    /// Which way.
    pub bound: Bound,
    /// The limit.
    pub value: u32,
    /// The trees in which it is so.
    pub trees: TreeSet,
}

/// Which way a limit works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bound {
    /// EAX is at most the value.
    AtMost,
    /// EAX is raised to the value at least. Only leaf 80000000H has it: if EAX is at least 8000001DH and the host kernel
    /// has LFENCE_RDTSC or not the bug NULL_SEG.
    AtLeast,
}

/// A feature of leaf 40000001H:EAX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PvFeature {
    /// The bit.
    pub bit: u8,
    /// The macro without `KVM_FEATURE_`.
    pub name: &'static str,
    /// The C condition under which it is offered; none if it always is.
    pub condition: Option<&'static str>,
    /// The trees in which it is so.
    pub trees: TreeSet,
}

/// How one register of a leaf is answered (`knowledge/kvm/leaves.tsv`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The leaf.
    pub leaf: u32,
    /// The first subleaf for which it holds.
    pub first_subleaf: u32,
    /// The last subleaf for which it holds; `u32::MAX` means as many as are answered.
    pub last_subleaf: u32,
    /// The register.
    pub register: Register,
    /// How.
    pub how: How,
    /// What must hold; the whole leaf is zero otherwise.
    pub gates: &'static [Gate],
    /// The trees in which it is so.
    pub trees: TreeSet,
}

/// How a register is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum How {
    /// As the CPU that executes the ioctl returns it.
    Raw,
    /// That, with only these bits kept.
    RawAnd(u32),
    /// The raw EBX, whatever the register: a mistake of 6.6 to 6.8.
    RawEbx,
    /// KVM's capability word.
    Caps,
    /// That, with only these bits kept.
    CapsAnd(u32),
    /// Raw, within the [`leaf_caps`].
    Limited,
    /// This value, whatever the CPU says.
    Constant(u32),
    /// What the host kernel's perf lets KVM have.
    Pmu,
    /// The [`pv_features`].
    Paravirtual,
    /// Raw, with only the bits of permitted user state components kept (low half).
    Xcr0Low,
    /// Raw, with only the bits of permitted user state components kept (high half).
    Xcr0High,
    /// Raw, with only the bits of permitted supervisor state components kept (low half).
    XssLow,
    /// Raw, with only the bits of permitted supervisor state components kept (high half).
    XssHigh,
    /// The size of the permitted user state components, standard format.
    XsaveSize,
    /// The size of all permitted state components, compacted format; 0 without XSAVES and XSAVEC.
    XsaveSizeCompacted,
    /// Raw for a permitted state component; one that is not permitted has no entry. In ECX, bit 2 is kept only if KVM
    /// offers XFD, from 6.0 on.
    StateComponent,
    /// The widths of physical, virtual and guest-physical addresses.
    AddressBits,
    /// The capability word and the version, limited to 1 (2 from 7.1 on).
    Avx10Version,
}

/// How a leaf, or one bit of it, is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Handling {
    /// KVM's capability words decide: [`cap`] and [`adjustments_of`].
    Masked,
    /// A constant, whatever the CPU says.
    Constant(Registers),
    /// As the CPU that executes the ioctl returns it.
    Raw,
    /// Zero.
    Zero,
    /// Computed: [`answer`] says how.
    Computed,
}

/// What must hold so that a leaf is answered at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gate {
    /// KVM offers this feature (macro).
    Cap(&'static str),
    /// The host kernel has this capability (macro).
    HostFlag(&'static str),
    /// KVM's `enable_pmu` is on, after all that turns it off.
    Pmu,
    /// The vendor module is `kvm_amd`.
    AmdModule,
    /// The gates of the leaf's other rows do not hold.
    Otherwise,
}

/// From when on KVM offers a bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Since {
    /// As long as the oldest tree.
    Always,
    /// From this mainline release on.
    Release(&'static str),
    /// Somewhere between these two trees: the newest that lacks it, and the next, since which all offer it.
    Between {
        /// The tree that lacks it.
        absent: usize,
        /// The tree that offers it.
        present: usize,
    },
}

impl Since {
    /// The mainline release, where it is known exactly.
    #[must_use]
    pub const fn release(self) -> Option<&'static str> {
        match self {
            Self::Release(release) => Some(release),
            Self::Always | Self::Between { .. } => None,
        }
    }
}

include!(concat!(env!("OUT_DIR"), "/kvm.rs"));

/// The rows of a hand-written table for a tree.
fn in_tree<T>(table: &'static [T], tree: usize, trees: fn(&T) -> TreeSet) -> impl Iterator<Item = &'static T> {
    let tree = own::compiled(tree);
    table.iter().filter(move |row| trees(row).contains(tree))
}

/// A tree's rows of an imported table: those of a registered tree, else those of the compiled-in one.
fn of_tree<T>(
    tree: usize,
    imported: impl FnOnce(&'static own::OwnKvm) -> &'static [T],
    compiled: &'static [T],
    trees: impl Fn(&T) -> TreeSet,
) -> impl Iterator<Item = &'static T> {
    let (table, tree) = own::kvm(tree).map_or((compiled, own::compiled(tree)), |own| (imported(own), tree));
    table.iter().filter(move |row| trees(row).contains(tree))
}

/// The shape of the code in this tree; none if KVM was never read from it.
#[must_use]
pub fn shape(tree: usize) -> Option<Shape> {
    let compiled = || in_tree(SHAPES, tree, |(_, trees)| *trees).next().map(|(shape, _)| *shape);
    own::kvm(tree).map(|own| own.shape).or_else(compiled)
}

/// The bits that KVM can offer in this tree, in the order of places.
pub fn caps(tree: usize) -> impl Iterator<Item = &'static Cap> {
    of_tree(tree, |own| own.caps, CAPS, |cap| cap.trees)
}

/// All that is known of a place in all compiled-in trees.
#[must_use]
pub fn caps_at(place: CpuidBit) -> &'static [Cap] {
    let start = CAPS.partition_point(|cap| cap.place < place);
    let end = CAPS.partition_point(|cap| cap.place <= place);
    CAPS.get(start..end).unwrap_or(&[])
}

/// How KVM offers this bit in this tree; none if it never does. A bit that is found here may still be answered with
/// zero, where its leaf is: see [`trees_offering`].
#[must_use]
pub fn cap(tree: usize, place: CpuidBit) -> Option<&'static Cap> {
    if let Some(own) = own::kvm(tree) {
        let start = own.caps.partition_point(|cap| cap.place < place);
        return own.caps.get(start).filter(|cap| cap.place == place);
    }
    let tree = own::compiled(tree);
    caps_at(place).iter().find(|cap| cap.trees.contains(tree))
}

/// The trees whose KVM offers this bit under some condition, in a leaf that it answers. Bits that KVM only sets in the
/// running guest do not count.
#[must_use]
pub fn trees_offering(place: CpuidBit) -> TreeSet {
    let found = OFFERED.binary_search_by(|(offered, _)| offered.cmp(&place));
    found.ok().and_then(|index| OFFERED.get(index)).map_or(TreeSet::EMPTY, |(_, trees)| *trees)
}

/// The adjustments of this tree in order, those of both vendor modules among them.
pub fn adjustments(tree: usize) -> impl Iterator<Item = &'static Adjust> {
    of_tree(tree, |own| own.adjusts, ADJUSTS, |adjust| adjust.trees)
}

/// The adjustments of one macro (without `X86_FEATURE_`) in this tree, in order.
pub fn adjustments_of(tree: usize, macro_name: &str) -> impl Iterator<Item = &'static Adjust> {
    let start = ADJUSTS_BY_MACRO.partition_point(|(other, _)| *other < macro_name);
    let end = ADJUSTS_BY_MACRO.partition_point(|(other, _)| *other <= macro_name);
    let of_macro = ADJUSTS_BY_MACRO.get(start..end).unwrap_or(&[]).iter();
    let imported = own::kvm(tree);
    let compiled = if imported.is_some() { [].iter() } else { of_macro };
    let tree = own::compiled(tree);
    compiled
        .filter_map(|&(_, index)| ADJUSTS.get(usize::from(index)))
        .filter(move |adjust| adjust.trees.contains(tree))
        .chain(imported.map_or(&[][..], |own| own.adjusts).iter().filter(move |adjust| adjust.macro_name == macro_name))
}

/// The limits on EAX of this tree.
pub fn leaf_caps(tree: usize) -> impl Iterator<Item = &'static Limit> {
    of_tree(tree, |own| own.limits, LIMITS, |limit| limit.trees)
}

/// The most that KVM lets EAX of this leaf say in this tree; none if it does not limit it.
#[must_use]
pub fn at_most(tree: usize, leaf: u32) -> Option<u32> {
    leaf_caps(tree).find(|limit| limit.leaf == leaf && limit.bound == Bound::AtMost).map(|limit| limit.value)
}

/// The features of leaf 40000001H:EAX in this tree, in the order of bits.
pub fn pv_features(tree: usize) -> impl Iterator<Item = &'static PvFeature> {
    of_tree(tree, |own| own.pv, PV_FEATURES, |feature| feature.trees)
}

/// Whether the function that answers leaves has a `case` for this leaf; all other leaves are zero.
#[must_use]
pub fn has_case(tree: usize, leaf: u32) -> bool {
    if let Some(own) = own::kvm(tree) {
        return own.handled.binary_search(&leaf).is_ok();
    }
    let tree = own::compiled(tree);
    let found = HANDLED.binary_search_by(|(handled, _)| handled.cmp(&leaf));
    found.ok().and_then(|index| HANDLED.get(index)).is_some_and(|(_, trees)| trees.contains(tree))
}

/// All that is known of how this leaf is answered in this tree; nothing for a leaf that is zero.
pub fn answers(tree: usize, leaf: u32) -> impl Iterator<Item = &'static Answer> {
    let start = ANSWERS.partition_point(|answer| answer.leaf < leaf);
    let end = ANSWERS.partition_point(|answer| answer.leaf <= leaf);
    in_tree(ANSWERS.get(start..end).unwrap_or(&[]), tree, |answer| answer.trees)
}

/// The answers of all leaves in all trees, in the order of leaves.
pub fn all_answers() -> impl Iterator<Item = &'static Answer> {
    ANSWERS.iter()
}

/// How this register is answered in this tree when the leaf's gates hold; none if it is zero.
#[must_use]
pub fn answer(tree: usize, leaf: u32, subleaf: u32, register: Register) -> Option<&'static Answer> {
    answers(tree, leaf).find(|answer| {
        answer.register == register
            && (answer.first_subleaf..=answer.last_subleaf).contains(&subleaf)
            && answer.gates != [Gate::Otherwise]
    })
}

/// How this bit is answered in this tree when the leaf's gates hold.
#[must_use]
pub fn handling(tree: usize, place: CpuidBit) -> Handling {
    if let Handling::Constant(registers) = handles(tree, place.leaf) {
        return Handling::Constant(registers);
    }
    let kept = |mask: u32| if mask >> place.bit & 1 == 1 { Handling::Raw } else { Handling::Zero };
    answer(tree, place.leaf, place.subleaf, place.register).map_or(Handling::Zero, |answer| match answer.how {
        How::Caps => Handling::Masked,
        How::CapsAnd(mask) if mask >> place.bit & 1 == 0 => Handling::Zero,
        How::CapsAnd(_) => Handling::Masked,
        How::Raw => Handling::Raw,
        How::RawAnd(mask) => kept(mask),
        _ => Handling::Computed,
    })
}

/// How this leaf is answered in this tree, as a whole: masked if any register is, and so on. See [`handling`] for one
/// bit, whose register may be answered differently.
#[must_use]
pub fn handles(tree: usize, leaf: u32) -> Handling {
    let mut summary = Handling::Zero;
    for answer in answers(tree, leaf) {
        summary = match (summary, answer.how) {
            (_, How::Caps | How::CapsAnd(_)) => return Handling::Masked,
            (Handling::Zero, How::Constant(value)) => {
                Handling::Constant(with(Registers::default(), answer.register, value))
            }
            (Handling::Constant(so_far), How::Constant(value)) => {
                Handling::Constant(with(so_far, answer.register, value))
            }
            (Handling::Zero | Handling::Raw, How::Raw | How::RawAnd(_) | How::RawEbx) => Handling::Raw,
            _ => Handling::Computed,
        };
    }
    summary
}

fn with(registers: Registers, register: Register, value: u32) -> Registers {
    match register {
        Register::Eax => Registers { eax: value, ..registers },
        Register::Ebx => Registers { ebx: value, ..registers },
        Register::Ecx => Registers { ecx: value, ..registers },
        Register::Edx => Registers { edx: value, ..registers },
    }
}

/// From when on KVM offers this bit; none if the newest tree does not.
#[must_use]
pub fn since(place: CpuidBit) -> Option<Since> {
    let offering = trees_offering(place);
    let newest = SHAPES.iter().filter_map(|(_, trees)| trees.last()).max()?;
    if !offering.contains(newest) {
        return None;
    }
    if let Ok(index) = RELEASES.binary_search_by(|(known, _)| known.cmp(&place)) {
        return RELEASES.get(index).map(|(_, release)| Since::Release(release));
    }
    let absent = (0..newest).rev().find(|&tree| !offering.contains(tree));
    Some(absent.map_or(Since::Always, |absent| Since::Between { absent, present: absent + 1 }))
}

#[cfg(test)]
mod tests;
