//! What a proof asked of real software beyond what a machine shows by itself: a vCPU, QEMU's models.

use std::collections::BTreeMap;

use crate::{CpuidEntry, KvmCpuidEntry, ModelExpansion, Snapshot};

/// All that a proof asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures {
    /// A vCPU that executed CPUID.
    pub vcpu: Option<VcpuCapture>,
    /// What each QEMU said of its models with each accelerator.
    pub surveys: Vec<SurveyCapture>,
    /// A guest that was booted.
    pub guest: Option<GuestCapture>,
}

/// A vCPU that was made by hand, and what it read and took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VcpuCapture {
    /// The table of `KVM_SET_CPUID2`.
    pub table: Vec<KvmCpuidEntry>,
    /// Why KVM refused the table, if it did.
    pub refused: Option<String>,
    /// What CPUID returned to the guest; empty if it did not come to its end.
    pub answers: Vec<CpuidEntry>,
    /// Why there are no answers.
    pub failed: Option<String>,
    /// MSRs that were written from outside: index, value, and whether KVM took it.
    pub msrs: Vec<(u32, u64, bool)>,
}

/// What a QEMU said of its CPU models.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SurveyCapture {
    /// The version.
    pub version: String,
    /// Whether KVM was the accelerator; else it was TCG.
    pub kvm: bool,
    /// `query-cpu-model-expansion`, full, without a machine.
    pub expansions: Vec<ModelExpansion>,
    /// Machines that were paused before their first instruction.
    pub machines: Vec<MachineCapture>,
}

/// A paused machine's first vCPU, as QEMU tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineCapture {
    /// `-machine`
    pub machine: String,
    /// `-cpu`
    pub cpu: String,
    /// The vCPU's properties with two values.
    pub properties: BTreeMap<String, bool>,
    /// What QEMU said on stderr, without the program's name; with `warning: ` before what is one.
    pub lines: Vec<String>,
    /// Why there is no such machine: how QEMU ended.
    pub failed: Option<String>,
}

/// A guest that QEMU booted, as its own first process saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestCapture {
    /// QEMU's version.
    pub version: String,
    /// Whether KVM was the accelerator; else it was TCG.
    pub kvm: bool,
    /// `-machine`
    pub machine: String,
    /// `-cpu`
    pub cpu: String,
    /// What it saw.
    pub snapshot: Snapshot,
}
