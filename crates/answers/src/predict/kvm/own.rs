//! KVM's own answer, where the input holds it: it stands, whatever the tables say.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use cpusieve_knowledge::rules::{self, Software};
use cpusieve_knowledge::x86;
use cpusieve_model::{CpuidBit, CpuidTable, Effect, Evidence, Grounds, KvmView, Place, Register, Stage, State, Step};

/// Takes a seen answer in place of the predicted one; whether there was one.
pub(super) fn replace<T: Clone>(predicted: &mut Option<T>, seen: Option<&T>) -> bool {
    if let Some(seen) = seen {
        *predicted = Some(seen.clone());
    }
    seen.is_some()
}

/// The feature MSRs that were seen, in KVM's order as far as it is known.
pub(super) fn in_order(predicted: &[(u32, Option<u64>)], seen: &KvmView) -> Vec<(u32, Option<u64>)> {
    let mut rest: BTreeMap<u32, u64> = seen.msr_features.clone().unwrap_or_default();
    let mut ordered: Vec<(u32, Option<u64>)> =
        predicted.iter().filter_map(|(index, _)| Some((*index, Some(rest.remove(index)?)))).collect();
    ordered.extend(rest.into_iter().map(|(index, value)| (index, Some(value))));
    ordered
}

/// The predicted steps, where the answer that was seen does not contradict them; the rule that says so, where it does.
pub(super) fn steps(
    predicted: Vec<Step>,
    cpuid: &CpuidTable,
    table: Option<&CpuidTable>,
    seen: &CpuidTable,
) -> Vec<Step> {
    let mut told: Vec<CpuidBit> = predicted.iter().filter_map(|step| step.place?.cpuid()).collect();
    told.sort_unstable();
    let agrees = |bit: CpuidBit| table.is_some_and(|table| set(table, bit) == set(seen, bit));
    let mut steps: Vec<Step> = predicted
        .into_iter()
        .filter_map(|step| match step.place.and_then(Place::cpuid) {
            Some(bit) if !agrees(bit) => own_answer(cpuid, seen, bit, step.feature),
            _ => Some(step),
        })
        .collect();
    // What no step speaks of: bits that KVM hands on as they are, and all bits where nothing is predicted.
    let places: BTreeSet<(u32, u32)> =
        cpuid.entries().iter().chain(seen.entries()).map(|entry| (entry.leaf, entry.subleaf)).collect();
    for (leaf, subleaf) in places {
        let of = |table: &CpuidTable| table.get(leaf, subleaf).unwrap_or_default();
        let (came, goes, ours) = (of(cpuid), of(seen), table.map(of));
        for register in Register::ALL {
            let (came, goes) = (came.get(register), goes.get(register));
            let differ = ours.map_or(u32::MAX, |ours| ours.get(register) ^ goes);
            let bits = (0..32).filter(|bit| (came | goes) & differ & 1 << bit != 0);
            for bit in bits
                .map(|bit| CpuidBit::new(leaf, subleaf, register, bit))
                .filter(|bit| told.binary_search(bit).is_err())
            {
                if let Some(feature) = x86::by_place(Place::Cpuid(bit)) {
                    steps.extend(own_answer(cpuid, seen, bit, Cow::Borrowed(feature.id)));
                }
            }
        }
    }
    steps
}

fn set(table: &CpuidTable, bit: CpuidBit) -> bool {
    table.get(bit.leaf, bit.subleaf).is_some_and(|registers| registers.get(bit.register) >> bit.bit & 1 == 1)
}

fn own_answer(cpuid: &CpuidTable, seen: &CpuidTable, bit: CpuidBit, feature: Cow<'static, str>) -> Option<Step> {
    let rule = rules::generic(Software::Kvm, "own-answer")?;
    let effect = match (cpuid.state(bit) == State::Present, set(seen, bit)) {
        (true, true) => Effect::Kept,
        (false, true) => Effect::Added,
        (true, false) => Effect::Dropped,
        (false, false) => return None,
    };
    let value = seen.get(bit.leaf, bit.subleaf).map(|registers| registers.get(bit.register));
    let because = Grounds::one(Evidence::Register { of: "host", answer: "KVM_GET_SUPPORTED_CPUID", bit, value });
    let place = Some(Place::Cpuid(bit));
    Some(Step { feature, place, at: Stage::Kvm, effect, rule: rule.id, cite: rule.cite, because })
}
