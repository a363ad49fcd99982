//! What QEMU changes by itself, before models and options: `target/i386/kvm/kvm.c:kvm_arch_get_supported_cpuid` and its
//! neighbours, and the registers that `target/i386/cpu.c:cpu_x86_cpuid` fills with constants.

use std::fmt;

use cpusieve_model::Place;

use super::{FIXUPS, Word};
use crate::TreeSet;

/// What a fix-up does to the bits of its mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FixupEffect {
    /// Sets them.
    Adds,
    /// Clears them.
    Removes,
    /// Takes the register from the device attribute `KVM_X86_XCOMP_GUEST_SUPP` instead (low half in EAX, high in EDX).
    Replaces,
}

/// What must hold for a fix-up to be made. All conditions of one fix-up must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The host's own CPUID has the bit.
    HostHasBit,
    /// KVM's answer, with the fix-ups, has this bit.
    Supported(Place),
    /// The interrupt controller is in the kernel, wholly or split (`true`), or in QEMU (`false`).
    IrqchipInKernel(bool),
    /// The interrupt controller is split between kernel and QEMU.
    IrqchipSplit,
    /// KVM has the capability of this number (`KVM_CHECK_EXTENSION`); of 143, disabled exits, its bit 0 (MWAIT).
    Capability(u32),
    /// `-overcommit cpu-pm=on` was given (`true`) or not (`false`).
    CpuPm(bool),
    /// `KVM_GET_MSR_INDEX_LIST` lacks this MSR.
    NotInMsrIndex(u32),
    /// The host is a Haswell whose transactions are broken: Intel family 6 model 60, 69, 70, or model 63 before
    /// stepping 4.
    HaswellTsx,
    /// `-cpu host` or `max` is being expanded; filtering of a model does not ask.
    HostModel,
    /// The guest's vendor is AMD (`true`) or not (`false`).
    VendorAmd(bool),
    /// The machine type is neither of the i440FX nor of the Q35 kind.
    NotPcMachine,
    /// IA32_ARCH_CAPABILITIES has MDS_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO and PSDP_NO.
    ImmuneToStaleData,
    /// This property of the CPU is off.
    PropertyOff(&'static str),
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostHasBit => f.write_str("the host's own CPUID has the bit"),
            Self::Supported(place) => write!(f, "KVM offers {place:#}"),
            Self::IrqchipInKernel(true) => f.write_str("the interrupt controller is in the kernel"),
            Self::IrqchipInKernel(false) => f.write_str("the interrupt controller is in QEMU"),
            Self::IrqchipSplit => f.write_str("the interrupt controller is split"),
            Self::Capability(number) => write!(f, "KVM has capability {number}"),
            Self::CpuPm(true) => f.write_str("`-overcommit cpu-pm=on` was given"),
            Self::CpuPm(false) => f.write_str("`-overcommit cpu-pm=on` was not given"),
            Self::NotInMsrIndex(index) => write!(f, "KVM does not list MSR {index:X}H"),
            Self::HaswellTsx => f.write_str("the host is a Haswell with broken transactions"),
            Self::HostModel => f.write_str("the model is `host` or `max`"),
            Self::VendorAmd(true) => f.write_str("the guest's vendor is AMD"),
            Self::VendorAmd(false) => f.write_str("the guest's vendor is not AMD"),
            Self::NotPcMachine => f.write_str("the machine type is no PC"),
            Self::ImmuneToStaleData => f.write_str("the CPU is immune to MDS, TAA and stale MMIO data"),
            Self::PropertyOff(name) => write!(f, "`{name}` is off"),
        }
    }
}

/// A change that QEMU makes to what KVM supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixup {
    /// The register.
    pub word: Word,
    /// The bits; all ones if the whole register is meant.
    pub mask: u64,
    /// What happens to them.
    pub effect: FixupEffect,
    /// The releases that do it.
    pub releases: TreeSet,
    /// What must hold; empty if it is always done.
    pub conditions: &'static [Condition],
    /// File and function, as of the newest release in the set.
    pub cite: &'static str,
}

/// The value of a register that QEMU fills by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConstantValue {
    /// Always this.
    Fixed(u32),
    /// The feature word of that register, so the bits that QEMU knows and kept.
    FeatureWord,
}

/// A register that QEMU fills by itself, whatever the host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Constant {
    /// The register.
    pub word: Word,
    /// Its value.
    pub value: ConstantValue,
    /// The releases that do it.
    pub releases: TreeSet,
    /// What must hold.
    pub conditions: &'static [Condition],
    /// File and function.
    pub cite: &'static str,
}

/// The fix-ups of `release` that touch this bit, in the order of the code.
pub fn fixups(release: usize, place: Place) -> impl Iterator<Item = &'static Fixup> {
    let bit = match place {
        Place::Cpuid(bit) => bit.bit,
        Place::Msr(bit) => bit.bit,
        Place::Linux(bit) => bit.bit,
    };
    let of_word = Word::of(place).into_iter().flat_map(move |word| word_fixups(release, word));
    of_word.filter(move |fixup| fixup.mask >> bit & 1 == 1)
}

/// The fix-ups of `release` that touch this word, in the order of the code.
pub fn word_fixups(release: usize, word: Word) -> impl Iterator<Item = &'static Fixup> {
    let start = FIXUPS.partition_point(|fixup| fixup.word < word);
    let end = FIXUPS.partition_point(|fixup| fixup.word <= word);
    FIXUPS.get(start..end).unwrap_or(&[]).iter().filter(move |fixup| fixup.releases.contains(release))
}
