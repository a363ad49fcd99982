//! Changes to a vCPU's configuration, bit by bit: what Firecracker calls a CPU template.

use crate::Register;

/// Bits that are written, and with what; all others stay as they were. At most 32 bits for a register of CPUID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BitFilter {
    /// The bits that are written.
    pub mask: u64,
    /// Their values; no bit is set here that is not set in the mask.
    pub value: u64,
}

impl BitFilter {
    /// The value after the bits were written.
    ///
    /// ```
    /// let filter = cpusieve_model::BitFilter { mask: 0b0110, value: 0b0100 };
    /// assert_eq!(filter.apply(0b1011), 0b1101);
    /// ```
    #[must_use]
    pub const fn apply(self, value: u64) -> u64 {
        value & !self.mask | self.value
    }
}

/// A change of one register of CPUID output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CpuidModifier {
    /// EAX on input.
    pub leaf: u32,
    /// ECX on input.
    pub subleaf: u32,
    /// What `flags` of the `kvm_cpuid_entry2` becomes.
    pub flags: u32,
    /// The register, and the bits written to it; `None` if the entry is named and only its flags change.
    pub register: Option<(Register, BitFilter)>,
}

/// A change of one MSR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MsrModifier {
    /// The MSR.
    pub index: u32,
    /// The bits written to it.
    pub bits: BitFilter,
}

/// A capability of KVM that a template asks for, or asks not to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CapabilityCheck {
    /// This capability must be there too.
    Add(u32),
    /// This capability is not checked.
    Remove(u32),
}

/// A list of changes to a vCPU's configuration, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CpuTemplate {
    /// Capabilities of KVM.
    pub capabilities: Vec<CapabilityCheck>,
    /// Changes of CPUID.
    pub cpuid: Vec<CpuidModifier>,
    /// Changes of MSRs.
    pub msrs: Vec<MsrModifier>,
}
