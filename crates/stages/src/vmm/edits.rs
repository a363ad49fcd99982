//! The bits of `knowledge/vmm/bits.tsv`: set or cleared whatever KVM said.

use cpusieve_knowledge::vmm::{BitEdit, Condition, bit_edits};
use cpusieve_model::Vendor;

use super::Vcpu;

/// What the conditions of an edit are about.
#[derive(Clone, Copy)]
pub(super) struct Setting {
    pub(super) vendor: Vendor,
    /// More than one vCPU.
    pub(super) smp: bool,
    /// AMX was asked for.
    pub(super) amx: bool,
    /// Nested virtualization is not switched off.
    pub(super) nested: bool,
}

impl Setting {
    fn holds(self, condition: Condition) -> bool {
        match condition {
            Condition::Intel => self.vendor == Vendor::Intel,
            Condition::Amd => self.vendor == Vendor::Amd,
            Condition::Smp(smp) => self.smp == smp,
            Condition::WithoutAmx => !self.amx,
            Condition::WithoutNested => !self.nested,
        }
    }
}

/// Makes the edits that `which` picks and whose conditions hold; entries that KVM does not list are left alone.
pub(super) fn apply(vcpu: &mut Vcpu<'_>, setting: Setting, which: impl Fn(&BitEdit) -> bool) {
    let edits = bit_edits(vcpu.question.options.vmm(), vcpu.question.release);
    for edit in edits.filter(|edit| which(edit) && edit.conditions.iter().all(|&condition| setting.holds(condition))) {
        let mask = 1_u32.checked_shl(edit.bit.bit.into()).unwrap_or(0);
        let value = if edit.sets { mask } else { 0 };
        vcpu.table.write((edit.bit.leaf, edit.bit.subleaf, edit.bit.register), mask, value, edit.rule);
    }
}
