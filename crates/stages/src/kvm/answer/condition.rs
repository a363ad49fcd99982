//! The C conditions of masks and adjustments, parsed once and decided on a loaded module.

use super::module::{Backend, Module};
use super::plan::Slot;
use super::pmu::AMD64_NUM_COUNTERS_CORE;
use super::setup::Switch;
use super::xstate;
use crate::linux::boot::capabilities;
use cpusieve_model::{MsrBit, State, Vendor};

/// A condition.
#[derive(Debug)]
pub(super) enum Formula {
    /// All hold.
    All(Vec<Formula>),
    /// One holds.
    Any(Vec<Formula>),
    /// It does not hold.
    Not(Box<Formula>),
    /// The kernel has a capability.
    Kernel(u16),
    /// The kernel has a bug.
    Bug(u64),
    /// KVM offers a feature.
    Cap(Option<Slot>),
    /// A variable that a module parameter shows.
    Switch(Switch),
    /// One of [`CALLS`].
    Call(Decide),
    /// Words that nothing decides; they do not hold.
    Unknown,
}

/// Decides a condition on a loaded module.
type Decide = fn(&Module<'_>) -> bool;

/// Everything else that a condition says, in the importer's spelling.
const CALLS: [(&str, Decide); 24] = [
    ("cpuid_ecx(7) & F(LA57)", |module| module.cpuid(7, 0).ecx >> 16 & 1 == 1),
    ("(kvm_caps.supported_xss & XFEATURE_MASK_CET_ALL) != XFEATURE_MASK_CET_ALL", |module| {
        module.supported_xss & xstate::CET != xstate::CET || !module.has("XSAVES")
    }),
    ("!(kvm_pmu_cap.num_counters_gp < AMD64_NUM_COUNTERS_CORE)", |module| {
        module.pmu.counters >= AMD64_NUM_COUNTERS_CORE
    }),
    ("kvm_pmu_cap.version != 2 || !kvm_cpu_cap_has(X86_FEATURE_PERFCTR_CORE)", |module| {
        module.pmu.version != 2 || !module.has("PERFCTR_CORE")
    }),
    (
        "WARN_ON((kvm_cpu_cap_has(X86_FEATURE_RDTSCP) || kvm_cpu_cap_has(X86_FEATURE_RDPID)) && \
         !kvm_is_supported_user_return_msr(MSR_TSC_AUX))",
        cannot_write_tsc_aux,
    ),
    ("(kvm_x86_ops->get_lpage_level() == PT_PDPE_LEVEL)", |module| {
        module.backend == Backend::Amd || !module.switch(Switch::Ept) || module.vmx_ept(17)
    }),
    ("kvm_x86_ops->rdtscp_supported()", |module| match module.backend {
        Backend::Amd => module.boot_cpu_has("RDTSCP"),
        Backend::Intel => module.vmx_secondary(3),
    }),
    ("kvm_x86_ops->invpcid_supported()", |module| {
        module.backend == Backend::Intel && module.vmx_secondary(12) && module.switch(Switch::Ept)
    }),
    ("kvm_x86_ops->xsaves_supported()", |module| module.backend == Backend::Intel && module.vmx_secondary(20)),
    ("kvm_x86_ops->umip_emulated()", |module| module.backend == Backend::Intel && module.vmx_secondary(2)),
    ("kvm_x86_ops->pku_supported()", |module| module.backend == Backend::Intel && module.boot_cpu_has("PKU")),
    ("kvm_x86_ops->pt_supported()", |module| module.switch(Switch::PtMode)),
    ("kvm_mpx_supported()", |module| module.supported_xcr0 & xstate::BOUNDS == xstate::BOUNDS),
    // A 64-bit kernel sets EFER.NXE wherever CPUID has the bit (`arch/x86/kernel/head_64.S:secondary_startup_64`).
    ("is_efer_nx()", |module| module.boot_cpu_has("NX")),
    ("vmx_pt_mode_is_host_guest()", |module| module.switch(Switch::PtMode)),
    ("vmx_umip_emulated()", |module| module.vmx_secondary(2)),
    ("vmx_pebs_supported()", vmx_pebs_supported),
    ("cpu_has_vmx_rdtscp()", |module| module.vmx_secondary(3)),
    ("cpu_has_vmx_invpcid()", |module| module.vmx_secondary(12)),
    ("cpu_has_vmx_xsaves()", |module| module.vmx_secondary(20)),
    ("cpu_has_vmx_waitpkg()", |module| module.vmx_secondary(26)),
    ("cpu_has_vmx_basic_no_hw_errcode_cc()", |module| module.vmx_basic(56)),
    ("cpu_has_load_cet_ctrl()", |module| module.vmx_load_cet()),
    ("IS_ENABLED(CONFIG_X86_64)", |_| true),
];

impl Formula {
    /// Reads a condition as the importer writes it; `slot` finds KVM's features.
    pub(super) fn parse(c: &str, tree: usize, slot: &impl Fn(&str) -> Option<Slot>) -> Self {
        let whole = CALLS.iter().find(|(words, _)| *words == c);
        if let Some((_, call)) = whole {
            return Self::Call(*call);
        }
        if c.contains(" || ") {
            return Self::Any(c.split(" || ").map(|part| Self::parse(part, tree, slot)).collect());
        }
        if c.contains(" && ") {
            return Self::All(c.split(" && ").map(|part| Self::parse(part, tree, slot)).collect());
        }
        if let Some(rest) = c.strip_prefix('!') {
            return Self::Not(Box::new(Self::parse(rest, tree, slot)));
        }
        let Some((function, argument)) = c.strip_suffix(')').and_then(|call| call.split_once('(')) else {
            return Switch::of_variable(c).map_or(Self::Unknown, Self::Switch);
        };
        match (function, argument.strip_prefix("X86_FEATURE_"), argument.strip_prefix("X86_BUG_")) {
            ("boot_cpu_has" | "static_cpu_has" | "cpu_feature_enabled", Some(name), _) => {
                Self::Kernel(capabilities::number(tree, name))
            }
            ("kvm_cpu_cap_has", Some(name), _) => Self::Cap(slot(name)),
            ("boot_cpu_has_bug" | "static_cpu_has_bug", _, Some(name)) => Self::Bug(capabilities::bug(tree, name)),
            _ => Self::Unknown,
        }
    }

    /// Whether it holds.
    pub(super) fn holds(&self, module: &Module<'_>) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(module)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(module)),
            Self::Not(part) => !part.holds(module),
            Self::Kernel(number) => module.kernel.bit(*number),
            Self::Bug(bug) => module.kernel.any_bug(*bug),
            Self::Cap(slot) => slot.is_some_and(|slot| slot.is_set(&module.caps)),
            Self::Switch(switch) => module.switch(*switch),
            Self::Call(call) => call(module),
            Self::Unknown => false,
        }
    }

    /// Whether nothing in it is undecided.
    fn is_known(&self) -> bool {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().all(Self::is_known),
            Self::Not(part) => part.is_known(),
            Self::Unknown => false,
            _ => true,
        }
    }
}

/// Whether a condition, as the importer writes it, says something that can be decided; any other does not hold.
#[must_use]
pub fn is_decided(c: &str, tree: usize) -> bool {
    Formula::parse(c, tree, &|_| None).is_known()
}

/// `vmx/capabilities.h:vmx_pebs_supported`.
fn vmx_pebs_supported(module: &Module<'_>) -> bool {
    module.touch(module.pebs_hangs);
    module.boot_cpu_has("PEBS") && module.pmu.pebs_in_guests && !module.switch(Switch::MediatedPmu)
}

/// Only an outer hypervisor with a defect lacks IA32_TSC_AUX on a CPU that has RDTSCP or RDPID.
fn cannot_write_tsc_aux(module: &Module<'_>) -> bool {
    let tsc_aux = MsrBit { index: 0xc000_0103, bit: 0 };
    let refused = module.input.msrs.state(tsc_aux) == State::Unreadable;
    refused && (module.has("RDTSCP") || module.has("RDPID"))
}

impl Module<'_> {
    /// Whether a leaf of Centaur's and Zhaoxin's range is asked for (`cpuid.c:get_cpuid_func`).
    pub(super) fn asks_centaur_leaves(&self) -> bool {
        match self.vendor() {
            Vendor::Centaur => true,
            // Zhaoxin's CPUs got theirs in 6.18.
            Vendor::Zhaoxin => self.release() >= (6, 18),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use cpusieve_knowledge::kvm;
    use cpusieve_knowledge::linux::TREES;

    use super::Formula;

    #[test]
    fn every_condition_of_every_tree_is_understood() {
        let slot = |_: &str| None;
        for (tree, known) in TREES.iter().enumerate() {
            let masks = kvm::caps(tree).filter_map(|cap| cap.condition);
            let adjusts = kvm::adjustments(tree).flat_map(|adjust| adjust.conditions.iter().copied());
            for c in masks.chain(adjusts) {
                assert!(Formula::parse(c, tree, &slot).is_known(), "{}: {c}", known.label);
            }
        }
    }
}
