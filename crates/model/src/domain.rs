//! A virtual machine as libvirt's domain XML defines it, as far as its CPU hangs on it.

use std::collections::BTreeMap;

/// A domain. What is `None` or empty was not written, and libvirt chooses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Domain {
    /// `<name>`
    pub name: Option<String>,
    /// The attribute `type` of `<domain>`: `kvm`, `qemu`.
    pub kind: Option<String>,
    /// `<os><type machine='..'>`
    pub machine: Option<String>,
    /// `<os><type arch='..'>`
    pub arch: Option<String>,
    /// `<vcpu>`: the most vCPUs.
    pub vcpus: Option<u32>,
    /// `<vcpu current='..'>`: those at the start.
    pub current: Option<u32>,
    /// `<cpu>`; `None` if there is none.
    pub cpu: Option<DomainCpu>,
    /// `<features>` that have a state, by a path: `pmu`, `kvm/hidden`, `hyperv/relaxed`, `hyperv/spinlocks`.
    pub features: BTreeMap<String, DomainFeature>,
    /// `<clock><timer>`, by name.
    pub timers: BTreeMap<String, DomainTimer>,
    /// `<qemu:commandline><qemu:arg>`, in their order.
    pub arguments: Vec<String>,
}

/// `<cpu>` of a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainCpu {
    /// `mode`: `custom` if it is not written.
    pub mode: Option<String>,
    /// `check`: `none`, `partial`, `full`.
    pub check: Option<String>,
    /// `migratable`
    pub migratable: Option<bool>,
    /// `<model>`
    pub model: Option<String>,
    /// `<feature>`: name and policy, in their order.
    pub features: Vec<(String, DomainPolicy)>,
    /// `<topology>`
    pub topology: Option<DomainTopology>,
    /// `<maxphysaddr>`: its mode, and `bits` or `limit`.
    pub phys_bits: Option<(String, Option<u32>)>,
    /// `<cache>`: its mode and level.
    pub cache: Option<(String, Option<u32>)>,
}

/// What a domain wants of a CPU feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainPolicy {
    /// The guest has it, whether the host does or not.
    Force,
    /// The guest has it, and does not start without.
    Require,
    /// The guest has it if the host does.
    Optional,
    /// The guest does not have it.
    Disable,
    /// The guest does not start where the host has it.
    Forbid,
}

/// `<topology>`; a part that is not written is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainTopology {
    /// Packages.
    pub sockets: u32,
    /// Dies of a package.
    pub dies: u32,
    /// Clusters of a die.
    pub clusters: u32,
    /// Cores of a cluster.
    pub cores: u32,
    /// Threads of a core.
    pub threads: u32,
}

/// One of `<features>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainFeature {
    /// `state`, or for `<apic>` the attribute `eoi`.
    pub state: Option<bool>,
    /// What else is given: `retries` of spinlocks, `value` of a vendor id, `mode` of Hyper-V.
    pub value: Option<String>,
}

/// One of `<timer>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DomainTimer {
    /// `present`
    pub present: Option<bool>,
    /// `frequency`, in Hz.
    pub frequency: Option<u64>,
}
