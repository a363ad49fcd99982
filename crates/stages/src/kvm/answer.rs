//! What KVM of one tree answers on one host, register by register.
//!
//! [`load`] does what loading the modules does: [`Module`] holds the parameters after the hardware was asked, the
//! capability words, the state components and the virtual PMU. [`answers`] then runs the two ioctls on it; [`answer`] does both. One small
//! function here stands for one case there, and everything is driven by the tables of `knowledge/kvm` and the rules of
//! `knowledge/rules/kvm.toml`, which also decide single bits where only a flags line is known ([`super::offer`]).
//!
//! What was not seen is assumed as a stock distribution's host would have it; [`Output::assumed`] lists it.

pub mod calls;
mod caps;
mod condition;
mod cpuid;
mod finding;
mod module;
mod plan;
mod pmu;
mod registers;
mod setup;
mod steps;
mod xstate;

use std::collections::BTreeMap;

use cpusieve_model::{CpuidTable, KvmView, MsrTable, Step};

use crate::linux::boot::{self, Assumption, Unlisted};
pub use calls::Call;
pub use condition::is_decided;
pub use cpuid::answers;
pub use finding::Finding;
pub use module::{Backend, Module, load};
pub(crate) use plan::{Slot, release, slot_of};
pub use pmu::PmuCapability;
pub(crate) use setup::Switch;
pub(crate) use xstate::{enabled_components, xstate_required_size};

/// What KVM finds when its modules are loaded and its ioctls are called.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Whose KVM it is, as evidence is to name it: `host`.
    pub of: &'static str,
    /// CPUID of the CPU that executes the ioctl. It also stands for the CPU that loaded the modules.
    pub cpuid: &'a CpuidTable,
    /// The MSRs of that CPU.
    pub msrs: &'a MsrTable,
    /// What is to be thought of an MSR that is not in the table.
    pub unlisted: Unlisted,
    /// What the host's kernel made of its CPUs, the boot CPU first: one for each that differs. KVM offers what all of them
    /// have.
    pub kernels: &'a [boot::Output],
    /// The host kernel's command line; `None` if it was not seen.
    pub cmdline: Option<&'a str>,
    /// The host kernel's configuration, `CONFIG_SCHED_INFO` to `y`; `None` if it was not seen.
    pub config: Option<&'a BTreeMap<String, String>>,
    /// Module parameters as `/sys/module` shows them or as they are asked for: `kvm_amd.nested` to `1`. One that is missing
    /// has its default value.
    pub params: &'a BTreeMap<String, String>,
    /// The dynamic user state components (bits of XCR0) that the calling process asked permission for, for its guests
    /// (`ARCH_REQ_XCOMP_GUEST_PERM`): 0, or bit 18 for AMX.
    pub permitted: u64,
}

/// What KVM answers, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The answers: `supported` and `emulated`; both are `None` where there is no prediction.
    pub view: KvmView,
    /// The calls of `do_host_cpuid` that one `KVM_GET_SUPPORTED_CPUID` makes, in their order.
    pub calls: Vec<Call>,
    /// One step for each feature bit that went in or came out.
    pub steps: Vec<Step>,
    /// What was not seen and had to be assumed.
    pub assumed: Vec<Assumption>,
    /// What is odd about this host.
    pub findings: Vec<Finding>,
}

impl From<Finding> for Output {
    /// No answer, because of this.
    fn from(finding: Finding) -> Self {
        Self { findings: vec![finding], ..Self::default() }
    }
}

/// The answers of KVM of a tree (a position in [`TREES`](cpusieve_knowledge::linux::TREES)) on a host.
///
/// ```
/// use std::collections::BTreeMap;
///
/// use cpusieve_knowledge::linux;
/// use cpusieve_model::{CpuidTable, MsrTable, Registers, Stage};
/// use cpusieve_stages::kvm::answer::{Input, answer};
/// use cpusieve_stages::linux::boot::{self, Unlisted, boot};
///
/// // AuthenticAMD, family 17H, with ACPI thermal control (1.EDX[22]), SVM (80000001.ECX[2]), NX and long mode.
/// let mut cpuid = CpuidTable::default();
/// cpuid.insert(0, 0, Registers { eax: 7, ebx: 0x6874_7541, ecx: 0x444d_4163, edx: 0x6974_6e65 });
/// cpuid.insert(1, 0, Registers { eax: 0x0083_0f10, edx: 0x0740_0011, ..Registers::default() });
/// cpuid.insert(0x8000_0000, 0, Registers { eax: 0x8000_0001, ..Registers::default() });
/// cpuid.insert(0x8000_0001, 0, Registers { ecx: 1 << 2, edx: 0x2010_0000, ..Registers::default() });
/// let (msrs, params, tree) = (MsrTable::default(), BTreeMap::new(), linux::nearest("6.12").tree);
/// let host = boot::Input {
///     of: "host",
///     at: Stage::Host,
///     cpuid: &cpuid,
///     msrs: &msrs,
///     unlisted: Unlisted::NotSeen,
///     microcode: None,
///     cmdline: None,
///     config: None,
/// };
/// let kernels = [boot(&host, tree)];
/// let input = Input {
///     of: "host",
///     cpuid: &cpuid,
///     msrs: &msrs,
///     unlisted: Unlisted::NotSeen,
///     kernels: &kernels,
///     cmdline: None,
///     config: None,
///     params: &params,
///     permitted: 0,
/// };
/// let output = answer(&input, tree);
/// let offered = output.view.supported_table().unwrap_or_default();
/// assert_eq!(offered.get(1, 0).map(|leaf| leaf.edx >> 22 & 1), Some(0), "no KVM offers ACPI thermal control");
/// assert!(output.steps.iter().any(|step| step.feature == "acpi" && step.rule.0 == "KVM0105"));
/// ```
#[must_use]
pub fn answer(input: &Input<'_>, tree: usize) -> Output {
    load(input, tree).map_or_else(Output::from, |module| answers(&module))
}
