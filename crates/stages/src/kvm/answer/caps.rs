//! The capability words: masks first, then the adjustments of common code and of the vendor module, in their order
//! (`cpuid.c:kvm_set_cpu_caps`, `vmx.c:vmx_set_cpu_caps`, `svm.c:svm_set_cpu_caps`).

use cpusieve_knowledge::kvm::{self, By, CapKind, Op, Shape};
use cpusieve_model::Vendor;

use super::module::{Backend, Module};
use super::plan::{Adjustment, Home, Row};
use super::steps::Why;
use super::xstate;

/// Computes the words, and marks what decided where a condition did.
pub(super) fn set_cpu_caps(module: &mut Module<'_>) {
    let plan = module.plan;
    let raw: Vec<u32> = plan.registers.iter().map(|&home| module.raw_cpuid_get(home)).collect();
    module.caps = vec![0; plan.registers.len()];
    module.marks = vec![None; plan.rows.len()];
    for (index, row) in plan.rows.iter().enumerate() {
        module.touched.set(0);
        let (offered, mark) = in_mask(module, row, &raw);
        hang(module, index);
        if offered {
            row.slot.put(&mut module.caps, true);
        }
        if let (Some(mark), Some(slot)) = (mark, module.marks.get_mut(index)) {
            *slot = Some(mark);
        }
    }
    let backend = module.backend;
    for adjustment in plan.adjustments.iter().filter(|adjustment| runs(backend, adjustment.adjust.by)) {
        module.touched.set(0);
        adjust(module, adjustment, &raw);
        hang(module, adjustment.row);
    }
    finish_xss(module);
}

/// What was just decided hangs on the assumptions that were asked.
fn hang(module: &Module<'_>, row: usize) {
    let on = module.touched.get();
    if let Some(row) = module.plan.rows.get(row).filter(|_| on != 0) {
        module.hang(row.id, on);
    }
}

/// Whether an adjustment is code of this vendor module.
const fn runs(backend: Backend, by: By) -> bool {
    match by {
        By::Common | By::CommonLate => true,
        By::Intel => matches!(backend, Backend::Intel),
        By::Amd => matches!(backend, Backend::Amd),
    }
}

/// What the masks leave of a bit, and the condition that kept it out.
fn in_mask(module: &Module<'_>, row: &Row, raw: &[u32]) -> (bool, Option<Why>) {
    let kernel = || module.kernel.bit(row.kernel);
    let raw = || row.slot.is_set(raw);
    let offered = match row.cap.kind {
        CapKind::Plain | CapKind::X86_64 | CapKind::Scattered | CapKind::Alias1Edx => kernel() && raw(),
        CapKind::Raw | CapKind::Passthrough => raw(),
        CapKind::Emulated | CapKind::SynthesizedUnconditional => true,
        CapKind::Synthesized => kernel(),
        CapKind::Vendor | CapKind::AdjustOnly | CapKind::Runtime => false,
    };
    match &row.condition {
        Some(condition) if offered && !condition.formula.holds(module) => (false, condition.why(module.tree)),
        _ => (offered, None),
    }
}

impl Module<'_> {
    /// `cpuid.c:raw_cpuid_get`: a register of the CPU's CPUID; zero if its leaf lies above the maximum. Before 6.14 nothing
    /// looks at the maximum (`__kvm_cpu_cap_mask`), and what the CPU answers beyond it goes through the mask.
    fn raw_cpuid_get(&self, (leaf, subleaf, register): Home) -> u32 {
        let maximum = self.cpuid(leaf & 0xffff_0000, 0).eax;
        if maximum >= leaf {
            return self.cpuid(leaf, subleaf).get(register);
        }
        if kvm::shape(self.tree) != Some(Shape::CapMask) || !self.answers_beyond() {
            return 0;
        }
        self.cpuid(self.cpuid(0, 0).eax, subleaf).get(register)
    }

    /// Whether the CPU answers leaves beyond the maximum with the highest basic one: Intel's do, and those that QEMU's TCG
    /// plays (`target/i386/cpu.c:cpu_x86_cpuid`), whatever their vendor.
    fn answers_beyond(&self) -> bool {
        self.vendor() == Vendor::Intel || self.cpuid(0x4000_0000, 0).ebx == u32::from_le_bytes(*b"TCGT")
    }
}

/// One adjustment, if it changes anything. What only a condition could have brought is missing because of it.
fn adjust(module: &mut Module<'_>, adjustment: &Adjustment, raw: &[u32]) {
    let set = match adjustment.adjust.op {
        Op::Set => true,
        Op::Clear => false,
        Op::CheckAndSet if module.kernel.bit(adjustment.kernel) => true,
        Op::SetFromRaw if adjustment.slot.is_set(raw) => true,
        Op::CheckAndSet | Op::SetFromRaw => return,
    };
    if adjustment.slot.is_set(&module.caps) == set {
        return;
    }
    let failing = adjustment.conditions.iter().find(|condition| !condition.formula.holds(module));
    let mark = match (failing, adjustment.conditions.last()) {
        (Some(condition), _) => {
            let waits = |row: &Row| matches!(row.cap.kind, CapKind::Vendor | CapKind::AdjustOnly);
            let waits = set && module.plan.rows.get(adjustment.row).is_some_and(waits);
            if waits { condition.why(module.tree) } else { None }
        }
        (None, Some(condition)) => condition.why(module.tree),
        (None, None) if adjustment.adjust.op == Op::Set => Some(module.plan.generic.emulated),
        (None, None) => None,
    };
    if let (Some(mark), Some(slot)) = (mark, module.marks.get_mut(adjustment.row)) {
        *slot = Some(mark);
    }
    if failing.is_none() {
        adjustment.slot.put(&mut module.caps, set);
    }
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
