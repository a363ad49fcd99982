//! Why a pass-through VMM does not start a virtual machine.

/// Why the virtual machine does not start. Displayed in our words, with the values that the VMM itself names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing can be said, because KVM's answer was not seen.
    #[error("what KVM offers was not seen")]
    KvmNotSeen,
    /// The number of vCPUs is not one that the VMM takes.
    #[error("{0} vCPUs: {1}")]
    Cpus(u32, &'static str),
    /// The vCPU asked for does not exist.
    #[error("there is no vCPU {0}")]
    NoSuchCpu(u32),
    /// A leaf that the VMM writes to is missing from KVM's answer.
    #[error("leaf {leaf:#x} subleaf {subleaf:#x} is missing from what KVM offers")]
    MissingLeaf {
        /// The leaf.
        leaf: u32,
        /// The subleaf.
        subleaf: u32,
    },
    /// Firecracker runs on Intel and AMD alone.
    #[error("the vendor is neither GenuineIntel nor AuthenticAMD")]
    UnsupportedVendor,
    /// A second or later subleaf of leaf 0BH, which KVM has not offered since 6.2 (Firecracker 1.12).
    #[error("KVM offers leaf 0xb subleaf {0:#x}, which was not expected")]
    UnexpectedSubleaf(u32),
    /// There is no static template of this name.
    #[error("there is no CPU template {0}")]
    NoSuchTemplate(String),
    /// The static template is for another vendor.
    #[error("the CPU template {0} is for another vendor")]
    TemplateVendor(String),
    /// The static template is not for this CPU.
    #[error("the CPU template {template} is not for a CPU with signature {signature:#x}")]
    TemplateHost {
        /// The template.
        template: String,
        /// Leaf 1 EAX of the host.
        signature: u32,
    },
    /// The template changes an entry that KVM does not offer.
    #[error("the CPU template changes leaf {leaf:#x} subleaf {subleaf:#x}, which KVM does not offer")]
    TemplateLeaf {
        /// The leaf.
        leaf: u32,
        /// The subleaf.
        subleaf: u32,
    },
    /// The template changes an MSR that KVM does not have.
    #[error("the CPU template changes MSR {0:#x}, which KVM does not have")]
    TemplateMsr(u32),
    /// The template asks for a capability that KVM does not have.
    #[error("the CPU template asks for capability {0}, which KVM does not have")]
    TemplateCapability(u32),
    /// AMX was asked for and cannot be had.
    #[error("AMX was asked for, but {0}")]
    Amx(&'static str),
    /// The topology has an empty level or too many CPUs.
    #[error("threads, cores, dies and packages must be 1 or more, and fewer than 65536 in all")]
    Topology,
}
