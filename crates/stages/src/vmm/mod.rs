//! The VMMs that stand in QEMU's place and hand on what KVM offers: Firecracker and Cloud Hypervisor.
//!
//! QEMU builds a CPU out of feature words and models and asks KVM what of it can be had. These two go the other way: they
//! take the whole of `KVM_GET_SUPPORTED_CPUID`, change what a guest cannot use or what depends on the number of vCPUs, and
//! give the rest to `KVM_SET_CPUID2` as it is. Both read some leaves from the host's CPU itself.
//!
//! ```
//! use cpusieve_knowledge::vmm::Vmm;
//! use cpusieve_model::{KvmCpuidEntry, KvmView, Registers};
//! use cpusieve_stages::vmm::{Options, Question, cloud_hypervisor, configure};
//!
//! let entry = |leaf, ecx| KvmCpuidEntry { leaf, subleaf: 0, flags: 0, registers: Registers { ecx, ..Registers::default() } };
//! let kvm = KvmView { supported: Some(vec![entry(0, 0), entry(1, 1)]), ..KvmView::default() };
//! let question = Question {
//!     release: Vmm::CloudHypervisor.newest(),
//!     options: Options::CloudHypervisor(cloud_hypervisor::Options::default()),
//!     host: None,
//!     kvm: &kvm,
//!     cpus: 1,
//!     cpu: 0,
//! };
//! let output = configure(&question);
//! // SSE3 is handed on; the hypervisor bit and the TSC deadline timer are added.
//! assert_eq!(output.cpuid[1].registers.ecx, 1 << 31 | 1 << 24 | 1);
//! assert!(output.steps.iter().any(|step| step.feature == "hypervisor" && step.rule.0 == "CLH0002"));
//! ```

pub mod cloud_hypervisor;
mod edits;
mod error;
pub mod firecracker;
mod table;
mod template;
mod topology;
mod xstate;

use std::collections::BTreeMap;

use cpusieve_knowledge::vmm::{Vmm, boot_msrs};
use cpusieve_model::{CpuidTable, KvmCpuidEntry, KvmView, Registers, Step, Vendor};

pub use error::Error;
use table::Table;
pub use topology::Topology;

/// What decides what a vCPU gets.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The release, a position in [`Vmm::releases`].
    pub release: usize,
    /// Which VMM, and what was asked of it.
    pub options: Options<'a>,
    /// The host's own CPUID, on the CPU on which the VMM runs; `None` if it was not seen.
    pub host: Option<&'a CpuidTable>,
    /// The answers of `/dev/kvm`.
    pub kvm: &'a KvmView,
    /// The number of vCPUs at start.
    pub cpus: u32,
    /// The vCPU that is asked for, from 0.
    pub cpu: u32,
}

/// Which VMM, and what was asked of it.
#[derive(Clone, Copy, Debug)]
pub enum Options<'a> {
    /// Firecracker.
    Firecracker(firecracker::Options<'a>),
    /// Cloud Hypervisor.
    CloudHypervisor(cloud_hypervisor::Options),
}

impl Options<'_> {
    /// Which VMM.
    #[must_use]
    pub const fn vmm(&self) -> Vmm {
        match self {
            Self::Firecracker(_) => Vmm::Firecracker,
            Self::CloudHypervisor(_) => Vmm::CloudHypervisor,
        }
    }
}

/// What was not seen and had to be taken to be something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assumption {
    /// What: `host's leaf 80000005H`.
    pub what: String,
    /// What it was taken to be.
    pub value: String,
    /// Why.
    pub because: &'static str,
}

/// What a vCPU gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// What is given to `KVM_SET_CPUID2`, in the VMM's order; empty if there is an error.
    pub cpuid: Vec<KvmCpuidEntry>,
    /// The MSRs that are written before the guest starts, with the values that are known.
    pub msrs: BTreeMap<u32, u64>,
    /// What the VMM logs about the CPU, in our words.
    pub warnings: Vec<String>,
    /// Why the virtual machine does not start.
    pub error: Option<Error>,
    /// For every named bit that came in or goes out, what was done to it.
    pub steps: Vec<Step>,
    /// What was not seen.
    pub assumed: Vec<Assumption>,
}

/// A vCPU on its way: the table, and all that is said on the way.
struct Vcpu<'a> {
    question: &'a Question<'a>,
    table: Table,
    msrs: BTreeMap<u32, u64>,
    warnings: Vec<String>,
    assumed: Vec<Assumption>,
}

impl Vcpu<'_> {
    fn assume(&mut self, what: impl Into<String>, value: impl Into<String>, because: &'static str) {
        self.assumed.push(Assumption { what: what.into(), value: value.into(), because });
    }
}

/// The vendor that leaf 0 tells.
fn vendor(leaf: Registers) -> Vendor {
    let mut table = CpuidTable::default();
    table.insert(0, 0, leaf);
    table.vendor().unwrap_or(Vendor::Other)
}

/// What this VMM gives to a vCPU.
#[must_use]
pub fn configure(question: &Question<'_>) -> Output {
    let Some(supported) = &question.kvm.supported else {
        return Output { error: Some(Error::KvmNotSeen), ..Output::default() };
    };
    let mut vcpu = Vcpu {
        question,
        table: Table::new(supported),
        msrs: BTreeMap::new(),
        warnings: Vec::new(),
        assumed: Vec::new(),
    };
    let done = match &question.options {
        Options::Firecracker(options) => firecracker::configure(&mut vcpu, options),
        Options::CloudHypervisor(options) => cloud_hypervisor::configure(&mut vcpu, options),
    };
    if let Err(error) = done {
        return Output { error: Some(error), warnings: vcpu.warnings, assumed: vcpu.assumed, ..Output::default() };
    }
    let vmm = question.options.vmm();
    vcpu.msrs.extend(boot_msrs(vmm, question.release).map(|msr| (msr.index, msr.value)));
    Output {
        steps: table::steps(vmm, supported, &vcpu.table),
        cpuid: vcpu.table.into_entries(),
        msrs: vcpu.msrs,
        warnings: vcpu.warnings,
        error: None,
        assumed: vcpu.assumed,
    }
}

#[cfg(test)]
mod tests;
