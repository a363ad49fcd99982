//! The feature words after each of QEMU's steps, from which the steps of the output are read.

use super::words::Words;

/// What QEMU did last to the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// `x86_cpu_load_model`: the base definition.
    Model,
    /// `x86_cpu_apply_version_props`
    Version,
    /// `kvm_default_props`, `x86_tcg_default_props`
    Defaults,
    /// Properties of the machine type.
    Machine,
    /// `-cpu` itself.
    Asked,
    /// `host` and `max` took what the accelerator supports.
    Max,
    /// HT and CMP_LEGACY by the number of threads.
    Topology,
    /// PDCM and architectural LBRs without a PMU.
    Pmu,
    /// `feature_dependencies`
    Dependency,
    /// `kvm=off`, or another accelerator.
    Paravirtual,
    /// MPX and APX together.
    Conflict,
    /// `x86_cpu_enable_xsave_components`
    Xsave,
    /// `intel-pt` below leaf 14H.
    Level,
    /// `lbr-fmt`
    LbrFmt,
    /// `x86_cpu_filter_features`, feature words.
    Filter,
    /// `x86_cpu_filter_features`, Processor Trace.
    ProcessorTrace,
    /// 80000001.EDX follows 1.EDX on AMD.
    Alias,
    /// `-overcommit cpu-pm=on`
    CpuPm,
}

/// The words after each step, in QEMU's order.
#[derive(Clone, Debug)]
pub(crate) struct History {
    steps: Vec<(Phase, Words)>,
}

impl History {
    pub(super) fn new() -> Self {
        Self { steps: Vec::with_capacity(20) }
    }

    /// Keeps the words as `phase` left them, if it changed any.
    pub(super) fn record(&mut self, phase: Phase, words: &Words) {
        let same = match self.steps.last() {
            Some((_, last)) => last == words,
            None => words.iter().all(|&word| word == 0),
        };
        if !same {
            self.steps.push((phase, *words));
        }
    }

    /// The steps that changed something.
    pub(super) fn steps(&self) -> &[(Phase, Words)] {
        &self.steps
    }
}
