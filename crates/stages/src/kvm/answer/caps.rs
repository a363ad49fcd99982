//! The capability words: masks first, then the adjustments of common code and of the vendor module, in their order
//! (`cpuid.c:kvm_set_cpu_caps`, `vmx.c:vmx_set_cpu_caps`, `svm.c:svm_set_cpu_caps`).

use cpusieve_knowledge::kvm::{By, CapKind, Op};

use super::module::{Backend, Module};
use super::plan::{Adjustment, Row};
use super::xstate;

/// Computes the words.
pub(super) fn set_cpu_caps(module: &mut Module<'_>) {
    let plan = module.plan;
    module.caps = vec![0; plan.registers.len()];
    for row in &plan.rows {
        if in_mask(module, row) {
            row.slot.put(&mut module.caps, true);
        }
    }
    for adjustment in &plan.adjustments {
        if runs(module.backend, adjustment.adjust.by) && adjustment.conditions.iter().all(|(_, c)| c.holds(module)) {
            adjust(module, adjustment);
        }
    }
    finish_xss(module);
}

/// Whether an adjustment is code of this vendor module.
pub(super) const fn runs(backend: Backend, by: By) -> bool {
    match by {
        By::Common | By::CommonLate => true,
        By::Intel => matches!(backend, Backend::Intel),
        By::Amd => matches!(backend, Backend::Amd),
    }
}

/// What the masks leave of a bit.
pub(super) fn in_mask(module: &Module<'_>, row: &Row) -> bool {
    let kernel = || module.kernel.bit(row.kernel);
    let offered = match row.cap.kind {
        CapKind::Plain | CapKind::X86_64 | CapKind::Scattered | CapKind::Alias1Edx => kernel() && raw(module, row),
        CapKind::Raw | CapKind::Passthrough => raw(module, row),
        CapKind::Emulated | CapKind::SynthesizedUnconditional => true,
        CapKind::Synthesized => kernel(),
        CapKind::Vendor | CapKind::AdjustOnly | CapKind::Runtime => false,
    };
    offered && row.condition.as_ref().is_none_or(|condition| condition.holds(module))
}

/// `cpuid.c:raw_cpuid_get`.
pub(super) fn raw(module: &Module<'_>, row: &Row) -> bool {
    let place = row.cap.place;
    module.raw_bit(place)
}

impl Module<'_> {
    /// A bit of the CPU's CPUID; clear if its leaf lies above the maximum.
    pub(super) fn raw_bit(&self, place: cpusieve_model::CpuidBit) -> bool {
        let maximum = self.cpuid(place.leaf & 0xffff_0000, 0).eax;
        maximum >= place.leaf && self.cpuid(place.leaf, place.subleaf).get(place.register) >> place.bit & 1 == 1
    }
}

fn adjust(module: &mut Module<'_>, adjustment: &Adjustment) {
    let set = match adjustment.adjust.op {
        Op::Set => true,
        Op::Clear => false,
        Op::CheckAndSet if module.kernel.bit(adjustment.kernel) => true,
        Op::SetFromRaw if module.raw_bit(adjustment.adjust.place) => true,
        Op::CheckAndSet | Op::SetFromRaw => return,
    };
    adjustment.slot.put(&mut module.caps, set);
}

/// `x86.c:kvm_setup_xss_caps`: components without their features, or without XSAVES, are not for guests.
fn finish_xss(module: &mut Module<'_>) {
    let has_cet = module.has("SHSTK") || module.has("IBT");
    if !module.has("XSAVES") {
        module.supported_xss = 0;
    }
    if !has_cet || module.supported_xss & xstate::CET != xstate::CET {
        module.supported_xss &= !xstate::CET;
    }
}
