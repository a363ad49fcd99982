//! What KVM makes of one CPUID bit: its masks, its adjustments, its constant leaves, or its own captured answer.

pub mod answer;
pub mod answered;
mod condition;
mod home;
pub mod msrs;

use cpusieve_knowledge::kvm::{self, Adjust, By, Cap, CapKind, Handling, Op, Shape};
use cpusieve_knowledge::own;
use cpusieve_knowledge::rules::{self, Rule, RuleEffect, Software};
use cpusieve_model::{
    Cite, CpuidBit, CpuidTable, Effect, Grounds, Place, Register, RuleId, Stage, State, Step, Vendor,
};

use self::answered::Answered;
pub use self::home::home;
use crate::Machine;
use crate::linux::conditions::{Observed, all};
use crate::machine::known_name;

/// One decision of a stage about one bit.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The bit as it leaves the stage.
    pub state: State,
    /// What was done to it, and by which rule.
    pub step: Step,
    /// Whether the rule leaves it open, and only the outcome tells: the condition hangs on what nobody saw.
    pub open: bool,
}

/// The upper half of the number of Centaur's and Zhaoxin's leaves.
const CENTAUR: u32 = 0xc000;

/// KVM's own features (`KVM_CPUID_FEATURES`).
const PARAVIRTUAL: u32 = 0x4000_0001;

/// What the tables say before any captured answer is looked at.
struct Predicted {
    state: State,
    rule: RuleId,
    cite: Cite,
    because: Grounds,
}

/// What KVM of this tree offers of a bit, on this host.
///
/// KVM's captured answer decides if there is one; the tables then give the reason. `feature` is the kernel's id.
#[must_use]
pub fn offer(host: &Machine<'_>, tree: usize, feature: &str, bit: CpuidBit, incoming: State) -> Decision {
    decide(host, tree, feature, bit, in_long_mode(host, bit, incoming), None)
}

/// The same, where the whole KVM of the tree was run on the host's CPUID: what it did stands, unless it hangs on
/// something that nobody saw.
#[must_use]
pub fn offer_exactly(host: &Machine<'_>, tree: usize, feature: &str, bit: CpuidBit, incoming: State) -> Decision {
    decide(host, tree, feature, bit, in_long_mode(host, bit, incoming), host.answered(tree))
}

fn decide(
    host: &Machine<'_>,
    tree: usize,
    feature: &str,
    bit: CpuidBit,
    incoming: State,
    answered: Option<&Answered>,
) -> Decision {
    let captured = host.kvm_supported().filter(|table| !table.is_empty());
    let exact = answered.and_then(|answered| exactly(answered, bit, captured));
    let predicted = match (host.other_kvm_backend(), exact) {
        // Its tables are its own: without its answer nothing is known.
        (Some(_), _) => generic("own-answer", State::Unknown),
        (None, Some(exact)) => exact,
        (None, None) => {
            let predicted = predict(host, tree, feature, bit, incoming);
            let lacks = answered.is_some_and(|answered| answered.step(bit).is_none());
            // The whole answer has no such leaf.
            if lacks && predicted.state == State::Present { generic("above-limit", State::Absent) } else { predicted }
        }
    };
    // A leaf that is missing from KVM's answer is not offered.
    let Some(table) = captured else { return decision(feature, bit, tree, incoming, predicted) };
    let (seen, evidence) = (table.state(bit), host.register_evidence("KVM_GET_SUPPORTED_CPUID", table, bit));
    let agrees = predicted.state == State::Unknown || (predicted.state == State::Present) == (seen == State::Present);
    let mut proved = if agrees { predicted } else { own_answer(predicted) };
    proved.state = State::from_bit(seen == State::Present);
    proved.because.push(evidence);
    decision(feature, bit, tree, incoming, proved)
}

/// What the whole KVM did, unless that is not sure: it hangs on something that nobody saw, and no captured answer bears it
/// out.
fn exactly(answered: &Answered, bit: CpuidBit, captured: Option<&CpuidTable>) -> Option<Predicted> {
    let (step, state) = (answered.step(bit)?, answered.state(bit));
    let borne_out = captured.is_some_and(|table| (table.state(bit) == State::Present) == (state == State::Present));
    let sure = borne_out || !answered.is_open(bit);
    sure.then(|| Predicted { state, rule: step.rule, cite: step.cite, because: step.because.clone() })
}

fn decision(feature: &str, bit: CpuidBit, tree: usize, incoming: State, predicted: Predicted) -> Decision {
    let open = predicted.state == State::Unknown;
    let effect = match (incoming.known(), predicted.state.known()) {
        (_, None) => Effect::Unknown,
        (Some(false), Some(true)) => Effect::Added,
        (None, Some(true)) => Effect::Kept,
        (Some(true), Some(true)) => Effect::Kept,
        (_, Some(false)) => Effect::Dropped,
    };
    let step = Step {
        feature: known_name(feature),
        place: Some(Place::Cpuid(bit)),
        at: Stage::Kvm,
        effect,
        rule: predicted.rule,
        cite: home(predicted.cite, tree),
        because: predicted.because,
    };
    Decision { state: predicted.state, step, open }
}

/// CPUID shows SYSCALL only in 64-bit mode (Intel SDM volume 2A, CPUID, 80000001H:EDX\[11\]): a dump that was taken in
/// another lacks it, the kernel that runs KVM does not.
fn in_long_mode(host: &Machine<'_>, bit: CpuidBit, incoming: State) -> State {
    const SYSCALL: CpuidBit = CpuidBit::new(0x8000_0001, 0, Register::Edx, 11);
    const LONG_MODE: CpuidBit = CpuidBit::new(0x8000_0001, 0, Register::Edx, 29);
    let dumped = bit == SYSCALL && incoming != State::Present && host.concluded_for.is_some();
    let has_long_mode = || host.cpuid().is_some_and(|table| table.state(LONG_MODE) == State::Present);
    if dumped && has_long_mode() { State::Present } else { incoming }
}

/// Where the vendor module adjusts: conditions that both modules have cite one of them.
fn vendor_home(cite: Cite, by: By, tree: usize) -> Cite {
    if by != By::Amd || !cite.file().starts_with("arch/x86/kvm/vmx") {
        return cite;
    }
    match kvm::shape(tree) {
        Some(Shape::ConstMasks) => Cite("arch/x86/kvm/svm.c:svm_set_supported_cpuid"),
        _ => Cite("arch/x86/kvm/svm/svm.c:svm_set_cpu_caps"),
    }
}

/// The captured answer contradicts the tables: the answer stands, and so does the doubt about the reason.
fn own_answer(predicted: Predicted) -> Predicted {
    let rule = rules::generic(Software::Kvm, "own-answer");
    Predicted {
        rule: rule.map_or(predicted.rule, |rule| rule.id),
        cite: rule.map_or(predicted.cite, |rule| rule.cite),
        ..predicted
    }
}

fn predict(host: &Machine<'_>, tree: usize, feature: &str, bit: CpuidBit, incoming: State) -> Predicted {
    if let Some(predicted) = by_own_rule(host, tree, feature) {
        return predicted;
    }
    if (bit.leaf, bit.register) == (PARAVIRTUAL, Register::Eax) {
        let offered = kvm::pv_features(tree).any(|feature| feature.bit == bit.bit);
        return generic(if offered { "emulated" } else { "masked-here" }, State::from_bit(offered));
    }
    if bit.leaf >> 16 == CENTAUR && host.vendor().is_some_and(|vendor| !has_centaur_leaves(vendor)) {
        return Predicted { cite: Cite("arch/x86/kvm/cpuid.c:get_cpuid_func"), ..generic("zero-leaf", State::Absent) };
    }
    match kvm::handling(tree, bit) {
        Handling::Constant(registers) => {
            return generic("constant-leaf", State::from_bit(registers.get(bit.register) >> bit.bit & 1 == 1));
        }
        Handling::Zero if offered_later(tree, bit) => return generic("masked-here", State::Absent),
        Handling::Zero => return generic("zero-leaf", State::Absent),
        Handling::Raw => return generic("raw-leaf", incoming),
        Handling::Masked | Handling::Computed => {}
    }
    match kvm::cap(tree, bit) {
        None => generic(if offered_later(tree, bit) { "masked-here" } else { "masked-always" }, State::Absent),
        Some(cap) => answered(host, tree, bit, by_cap(host, tree, cap, incoming)),
    }
}

/// The leaves that only Centaur's and Zhaoxin's CPUs have: KVM asks no other CPU for them.
const fn has_centaur_leaves(vendor: Vendor) -> bool {
    !matches!(vendor, Vendor::Intel | Vendor::Amd | Vendor::Hygon)
}

/// A bit of KVM's words reaches the answer only if its leaf does.
fn answered(host: &Machine<'_>, tree: usize, bit: CpuidBit, listed: Predicted) -> Predicted {
    if listed.state.known() == Some(false) {
        return listed;
    }
    if condition::above_limit(host, tree, bit) {
        return generic("above-limit", State::Absent);
    }
    let offered = |name: &str| match kvm::caps(tree).find(|cap| cap.macro_name == name) {
        Some(cap) => by_cap(host, tree, cap, condition::capability(host, tree, name)).state,
        None => State::Unknown,
    };
    match condition::gates(host, tree, bit, offered).known() {
        Some(true) => listed,
        Some(false) => generic("gated-leaf", State::Absent),
        None if listed.state == State::Present => generic("gated-leaf", State::Unknown),
        None => listed,
    }
}

/// Whether a later KVM offers the bit.
fn offered_later(tree: usize, bit: CpuidBit) -> bool {
    kvm::trees_offering(bit).iter().any(|other| other > own::compiled(tree))
}

/// A rule that speaks of this feature by name, if its conditions surely hold.
fn by_own_rule(host: &Machine<'_>, tree: usize, feature: &str) -> Option<Predicted> {
    let observed = Observed { machine: host, tree };
    rules::of_feature(Software::Kvm, feature).filter(|rule| rule.trees.contains(tree)).find_map(|rule| {
        if rule.only == Some("hybrid") && host.hybrid() != State::Present {
            return None;
        }
        let verdict = all(&observed, rule.needs);
        (verdict.state == State::Present).then(|| Predicted {
            state: State::from_bit(rule.effect != RuleEffect::Clears),
            rule: rule.id,
            cite: rule.cite,
            because: verdict.because,
        })
    })
}

/// What KVM does to a field of CPUID that a flag is derived from, where its answer does not have it; and whether it never
/// does, on this host.
pub(crate) fn unmet(host: &Machine<'_>, tree: usize, feature: &str, bit: CpuidBit, because: Grounds) -> (Step, bool) {
    /// The performance monitoring unit.
    const PMU: u32 = 0xa;
    let own = by_own_rule(host, tree, feature).filter(|own| own.state == State::Absent);
    let (predicted, never) = match (own, kvm::handling(tree, bit)) {
        (Some(own), _) => (own, true),
        (None, _) if condition::above_limit(host, tree, bit) => (generic("above-limit", State::Absent), true),
        (None, Handling::Constant(_)) => (generic("constant-leaf", State::Absent), true),
        (None, Handling::Zero) => (generic("zero-leaf", State::Absent), true),
        (None, _) if bit.leaf == PMU => (generic("pmu-leaf", State::Absent), false),
        (None, Handling::Masked | Handling::Computed) => (generic("computed-leaf", State::Absent), false),
        (None, Handling::Raw) => (generic("raw-leaf", State::Absent), false),
    };
    let decision = decision(feature, bit, tree, State::Present, predicted);
    (Step { place: None, because, ..decision.step }, never)
}

fn generic(when: &str, state: State) -> Predicted {
    let rule: Option<&Rule> = rules::generic(Software::Kvm, when);
    Predicted {
        state,
        rule: rule.map_or(RuleId(""), |rule| rule.id),
        cite: rule.map_or(Cite(""), |rule| rule.cite),
        because: Grounds::NONE,
    }
}

/// A bit that KVM's tables list: by its kind, then by the adjustments that vendor code makes.
fn by_cap(host: &Machine<'_>, tree: usize, cap: &Cap, incoming: State) -> Predicted {
    let listed = match cap.kind {
        CapKind::Runtime => generic("runtime", State::Absent),
        CapKind::Emulated | CapKind::SynthesizedUnconditional => generic("emulated", State::Present),
        CapKind::Synthesized => generic("synthesized", by_kernel(host, tree, cap, incoming)),
        CapKind::AdjustOnly | CapKind::Vendor => generic("set-by-condition", State::Absent),
        _ => generic("listed", incoming),
    };
    let listed = in_mask(host, tree, cap, listed);
    let adjustments = kvm::adjustments_of(tree, cap.macro_name).filter(|adjust| adjust.place == cap.place);
    adjustments.filter(|adjust| runs(host, adjust.by)).fold(listed, |so_far, adjust| {
        let target = match adjust.op {
            Op::Set => State::Present,
            Op::CheckAndSet => by_kernel(host, tree, cap, incoming),
            Op::SetFromRaw => incoming,
            Op::Clear => State::Absent,
        };
        adjusted(host, so_far, adjust, tree, target)
    })
}

/// A bit that the mask has under a condition only.
fn in_mask(host: &Machine<'_>, tree: usize, cap: &Cap, listed: Predicted) -> Predicted {
    let Some(c) = cap.condition.filter(|_| listed.state.known() != Some(false)) else { return listed };
    let holds = condition::holds(host, tree, c);
    let Some(explained) = rules::kvm_condition(c, tree).filter(|_| holds != State::Present) else { return listed };
    let state = if holds.known().is_some() { State::Absent } else { State::Unknown };
    Predicted { state, rule: explained.id, cite: explained.cite, because: listed.because }
}

/// The kernel's capability, which it may have without the bit.
fn by_kernel(host: &Machine<'_>, tree: usize, cap: &Cap, incoming: State) -> State {
    if incoming == State::Present { incoming } else { condition::capability(host, tree, cap.macro_name) }
}

/// Whether an adjustment is code of this host's vendor module.
fn runs(host: &Machine<'_>, by: By) -> bool {
    match (by, host.vendor()) {
        // kvm_intel loads wherever the CPU has VMX.
        (By::Intel, Some(vendor)) => !matches!(vendor, Vendor::Amd | Vendor::Hygon),
        (By::Amd, Some(vendor)) => matches!(vendor, Vendor::Amd | Vendor::Hygon),
        (By::Common | By::CommonLate, _) | (_, None) => true,
    }
}

/// One adjustment. Under a condition that nobody saw, what it would change becomes unknown, and the condition is named.
fn adjusted(host: &Machine<'_>, so_far: Predicted, adjust: &Adjust, tree: usize, target: State) -> Predicted {
    if so_far.state == target {
        return so_far;
    }
    let mut undecided = None;
    for c in adjust.conditions {
        match condition::holds(host, tree, c).known() {
            Some(true) => {}
            // What only a condition could have brought is missing because of it.
            Some(false) if so_far.rule == generic("set-by-condition", State::Absent).rule => {
                return named(so_far, State::Absent, adjust, tree, c);
            }
            Some(false) => return so_far,
            None => undecided = undecided.or(Some(*c)),
        }
    }
    match (undecided, adjust.conditions.last()) {
        (Some(c), _) => named(so_far, State::Unknown, adjust, tree, c),
        (None, Some(c)) => named(so_far, target, adjust, tree, c),
        (None, None) if adjust.op == Op::Set => generic("emulated", target),
        (None, None) => Predicted { state: target, ..so_far },
    }
}

/// What came of an adjustment, explained by one of its conditions.
fn named(so_far: Predicted, state: State, adjust: &Adjust, tree: usize, condition: &str) -> Predicted {
    match rules::kvm_condition(condition, tree) {
        None => Predicted { state, ..so_far },
        Some(condition) => {
            let cite = vendor_home(condition.cite, adjust.by, tree);
            Predicted { state, rule: condition.id, cite, because: so_far.because }
        }
    }
}
