//! Why a bit of a feature MSR is as it is, told by the row that decided it.

use std::borrow::Cow;

use cpusieve_knowledge::kvm::msrs::{self, MsrEffect};
use cpusieve_knowledge::rules::{self, Software};
use cpusieve_knowledge::x86;
use cpusieve_model::{Cite, Effect, MsrBit, Place, Stage, Step};

use super::Making;

/// Registers of VMX controls: the low half says which must be 1, the high half which may be, and features are counted in
/// the latter.
const CONTROLS: [u32; 9] = [0x481, 0x482, 0x483, 0x484, 0x48b, 0x48d, 0x48e, 0x48f, 0x490];

/// Adds the steps of one register.
pub(super) fn of_msr(making: &Making<'_, '_>, index: u32, value: Option<u64>, steps: &mut Vec<Step>) {
    let Some(value) = value else { return };
    let hardware = making.module.input.msrs.get(index).unwrap_or(0);
    let half = if CONTROLS.contains(&index) { 32 } else { 0 };
    for bit in (half..64).filter(|bit| (value | hardware) >> bit & 1 == 1) {
        let place = Place::Msr(MsrBit { index, bit: bit - half });
        let Some(feature) = x86::by_place(place) else { continue };
        let (came, goes) = (hardware >> bit & 1 == 1, value >> bit & 1 == 1);
        if let Some(step) = step(making.module.tree, feature.id, index, bit, (came, goes)) {
            steps.push(Step { place: Some(place), ..step });
        }
    }
}

fn step(tree: usize, feature: &'static str, index: u32, bit: u8, (came, goes): (bool, bool)) -> Option<Step> {
    let always = || {
        let mut rows = msrs::feature_bits(tree, index).filter(|row| row.mask >> bit & 1 == 1);
        rows.any(|row| row.effect == MsrEffect::Set && row.needs.is_empty())
    };
    let (effect, when) = match (came, goes) {
        (true, true) => (Effect::Kept, "msr-kept"),
        (false, true) if always() => (Effect::Forced, "msr-set"),
        (false, true) => (Effect::Added, "msr-set"),
        (true, false) => (Effect::Dropped, "msr-dropped"),
        (false, false) => return None,
    };
    let rule = rules::generic(Software::Kvm, when)?;
    Some(Step {
        feature: Cow::Borrowed(feature),
        place: None,
        at: Stage::Kvm,
        effect,
        rule: rule.id,
        cite: home(index),
        because: Vec::new(),
    })
}

/// The function that makes a register.
fn home(index: u32) -> Cite {
    Cite(match index {
        0x10a => "arch/x86/kvm/x86.c:kvm_get_arch_capabilities",
        0x345 => "arch/x86/kvm/vmx/vmx.c:vmx_get_perf_capabilities",
        0x480..=0x491 => "arch/x86/kvm/vmx/nested.c:nested_vmx_setup_ctls_msrs",
        0xc001_1029 => "arch/x86/kvm/svm/svm.c:svm_get_feature_msr",
        _ => "arch/x86/kvm/x86.c:kvm_get_feature_msr",
    })
}
