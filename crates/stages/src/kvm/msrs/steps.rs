//! Why a bit of a feature MSR is as it is, told by the row that decided it.

use std::borrow::Cow;

use cpusieve_knowledge::rules::{self, Rule, Software};
use cpusieve_knowledge::x86;
use cpusieve_model::{Cite, Effect, Grounds, MsrBit, Place, Stage, Step};

use super::Making;
use super::plan::Listed;
use crate::kvm::home::home;

/// Registers of VMX controls: the low half says which must be 1, the high half which may be, and features are counted in
/// the latter.
const CONTROLS: [u32; 9] = [0x481, 0x482, 0x483, 0x484, 0x48b, 0x48d, 0x48e, 0x48f, 0x490];

/// The generic rules, looked up once.
pub(super) struct Rules {
    kept: Option<&'static Rule>,
    set: Option<&'static Rule>,
    dropped: Option<&'static Rule>,
}

impl Rules {
    pub(super) fn new() -> Self {
        let of = |when: &str| rules::generic(Software::Kvm, when);
        Self { kept: of("msr-kept"), set: of("msr-set"), dropped: of("msr-dropped") }
    }
}

/// Adds the steps of one register.
pub(super) fn of_msr(
    making: &Making<'_, '_>,
    rules: &Rules,
    (listed, value): (&Listed, Option<u64>),
    steps: &mut Vec<Step>,
) {
    let Some(value) = value else { return };
    let &Listed { index, forced, cite, .. } = listed;
    let hardware = making.module.input.msrs.get(index).unwrap_or(0);
    let half: u32 = if CONTROLS.contains(&index) { 32 } else { 0 };
    if (value | hardware) >> half == 0 {
        return;
    }
    for (place, feature) in x86::of_register(Place::Msr(MsrBit { index, bit: 0 })) {
        let Place::Msr(MsrBit { bit, .. }) = place else { continue };
        let is = |value: u64| value.checked_shr(u32::from(bit) + half).is_some_and(|value| value & 1 == 1);
        let (effect, rule) = match (is(hardware), is(value)) {
            (true, true) => (Effect::Kept, rules.kept),
            (false, true) if is(forced) => (Effect::Forced, rules.set),
            (false, true) => (Effect::Added, rules.set),
            (true, false) => (Effect::Dropped, rules.dropped),
            (false, false) => continue,
        };
        let Some(rule) = rule.map(|rule| rule.id) else { continue };
        let (feature, place, because) = (Cow::Borrowed(feature.id), Some(place), Grounds::NONE);
        steps.push(Step { feature, place, at: Stage::Kvm, effect, rule, cite, because });
    }
}

/// The function that makes a register in this tree.
pub(super) fn cite(tree: usize, index: u32) -> Cite {
    home(maker(index), tree)
}

/// The function that makes a register.
const fn maker(index: u32) -> Cite {
    Cite(match index {
        0x10a => "arch/x86/kvm/x86.c:kvm_get_arch_capabilities",
        0x345 => "arch/x86/kvm/vmx/vmx.c:vmx_get_perf_capabilities",
        0x480..=0x491 => "arch/x86/kvm/vmx/nested.c:nested_vmx_setup_ctls_msrs",
        0xc001_1029 => "arch/x86/kvm/svm/svm.c:svm_get_feature_msr",
        _ => "arch/x86/kvm/x86.c:kvm_get_feature_msr",
    })
}
