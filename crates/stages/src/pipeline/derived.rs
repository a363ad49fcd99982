//! Who took a flag that Linux derives: the first sieve whose output lacks what the kernel's rule needs.
//!
//! A rule that fails because the guest is a guest, by its vendor, family or model, or by an option, a parameter or the
//! kernel's own judgement, is the kernel's decision, whatever else it lacks. Where several rules could have set the flag on the host, it is gone only once
//! the last of them fails.

use std::borrow::Cow;

use cpusieve_knowledge::linux;
use cpusieve_knowledge::rules::{self, Condition, Field, Need, Rule, RuleEffect, Software};
use cpusieve_model::{
    Cite, CpuidBit, CpuidTable, Effect, Evidence, Grounds, MsrBit, Place, RuleId, Stage, State, Step,
};

use super::{DEPTH, Way, World};
use crate::kvm;
use crate::linux::conditions::{self, Observed, all, compares};
use crate::linux::setup::{self, Ruling};
use crate::machine::known_name;
use crate::qemu::CpuArgument;
use crate::vcpu;

/// What made a rule of the guest's kernel fail.
pub(super) struct Cause {
    /// The steps that lead there.
    pub(super) steps: Vec<Step>,
    /// The position of the one that decided.
    pub(super) decided: usize,
    /// The flag from whose loss it follows.
    pub(super) follows: Option<Cow<'static, str>>,
    /// Whether it hangs on something that nobody saw.
    pub(super) assumed: bool,
}

impl Cause {
    fn one(step: Step, assumed: bool) -> Self {
        Self { steps: vec![step], decided: 0, follows: None, assumed }
    }

    fn at(&self) -> Option<Stage> {
        self.steps.get(self.decided).map(|step| step.at)
    }
}

impl Way<'_> {
    /// The sieve before the guest's kernel that took what a flag is derived from; `None` if the kernel itself decided.
    pub(super) fn cause(&self, id: &str, ruling: &Ruling, on_host: State) -> Option<Cause> {
        let World { host, host_tree, guest_tree, .. } = self.world;
        let decided = ruling.exact.as_ref().is_some_and(|exact| exact.step.is_some());
        if decided || self.depth >= DEPTH {
            return None;
        }
        let observed = Observed { machine: host, tree: host_tree };
        let ways = setup::of_tree(id, guest_tree).filter(|rule| rule.effect != RuleEffect::Clears);
        let came =
            |rule: &&'static Rule| on_host == State::Present && all(&observed, rule.needs).state != State::Absent;
        let mut rules: Vec<&'static Rule> = ways.filter(came).collect();
        // If no rule could have set it on the host, the two kernels go by different rules.
        if on_host != State::Present {
            rules.extend(ruling.rule);
        }
        let mut last: Option<Cause> = None;
        for rule in rules {
            let cause = self.of_rule(id, rule, on_host)?;
            if last.as_ref().is_none_or(|last| last.at() < cause.at()) {
                last = Some(cause);
            }
        }
        last
    }

    /// Whether the host's kernel has a capability though its CPU lacks the bit: a rule made it.
    pub(super) fn made_without(&self, id: &str, bit: CpuidBit, seen: State) -> bool {
        let lacks = || self.world.host.cpuid().is_some_and(|table| table.state(bit).known() == Some(false));
        seen == State::Present && vcpu::mirrored(bit).is_none() && lacks() && self.may_be_made(id, 0)
    }

    /// Whether a kernel that may run on the host may have made a capability by a rule, without its bit.
    pub(super) fn may_be_made(&self, id: &str, depth: u8) -> bool {
        let World { host, host_tree, .. } = self.world;
        let observed = Observed { machine: host, tree: host_tree };
        let runs = |rule: &&Rule| !rule.trees.intersection(host.trees()).is_empty();
        let mut sets =
            rules::of_feature(Software::Linux, id).filter(runs).filter(|rule| rule.effect != RuleEffect::Clears);
        let fails = |need: &Need| match (need.condition, conditions::holds(&observed, need).state.known()) {
            // A generation that the flags betray is a guess.
            (Condition::Signature(_), _) if host.family_model().is_none() => false,
            // What no line shows and no bit announces must itself have been made.
            (Condition::Flag(flag), None) if !need.negated && depth < DEPTH => {
                let row = linux::feature_by_id(host_tree, flag);
                let announced = row.and_then(|row| linux::place(host_tree, row)?.cpuid()).is_some();
                !announced && !self.may_be_made(flag, depth + 1)
            }
            (_, state) => state == Some(false),
        };
        sets.any(|rule| !rule.needs.iter().any(fails))
    }

    /// The first sieve that makes one rule fail.
    fn of_rule(&self, id: &str, rule: &'static Rule, on_host: State) -> Option<Cause> {
        let states: Vec<_> =
            rule.needs.iter().map(|need| (need, conditions::holds(self, need).state.known())).collect();
        let fails = states.iter().any(|(_, state)| *state == Some(false));
        let unknown = states.iter().find(|(_, state)| state.is_none()).map(|(need, _)| *need);
        let mut first: Option<Cause> = None;
        for (need, state) in states {
            let cause = match state {
                Some(true) => continue,
                Some(false) => Some(self.of_need(id, need, on_host)?),
                // A leaf or a register that the guest was not seen to have may be missing since an earlier sieve.
                None if matches!(need.condition, Condition::Field(_) | Condition::Msr(_)) => {
                    self.of_need(id, need, on_host)
                }
                None if !fails && unknown == Some(need) => Some(self.of_need(id, need, on_host)?),
                None => None,
            };
            let earlier = |cause: &Cause| first.as_ref().is_none_or(|first| cause.at() < first.at());
            first = cause.filter(earlier).or(first);
        }
        // A leaf or a register of which nothing is known may be missing since an earlier sieve.
        let blind = self.world.kvm_table().is_none() && unknown.is_some();
        first.map(|cause| Cause { assumed: cause.assumed || blind, ..cause })
    }

    /// The sieve that made a condition fail; `None` if it is for the kernel to judge.
    fn of_need(&self, id: &str, need: &'static Need, on_host: State) -> Option<Cause> {
        match need.condition {
            _ if need.negated => None,
            Condition::Cpuid(bit) => self.of_bit(id, bit, on_host),
            Condition::Flag(flag) => self.of_flag(flag),
            Condition::Field(field) => self.of_field(id, field),
            Condition::Msr(bit) => self.of_msr(id, bit),
            _ => None,
        }
    }

    fn of_bit(&self, flag: &str, bit: CpuidBit, on_host: State) -> Option<Cause> {
        let World { host, host_tree, .. } = self.world;
        let incoming = host.bit(host_tree, bit).0;
        // The host's kernel made the same flag of the same bit.
        let same_bit = incoming == State::Unknown && on_host == State::Present;
        let incoming = if same_bit { State::Present } else { incoming };
        let named = linux::at(host_tree, Place::Cpuid(bit)).map(linux::Feature::id);
        let decisions = self.vcpu(named.unwrap_or(flag), bit, incoming);
        let lacks = decisions.iter().position(|decision| decision.state.known() == Some(false));
        let decided = lacks.or_else(|| decisions.iter().position(|decision| decision.open))?;
        let assumed = decisions.iter().take(decided + 1).any(|decision| decision.open);
        let steps = decisions.into_iter().map(|decision| decision.step).collect();
        Some(Cause { steps, decided, follows: None, assumed })
    }

    fn of_flag(&self, flag: &str) -> Option<Cause> {
        let cause = Way { depth: self.depth + 1, ..*self }.pass(flag);
        let hidden = rules::generic(Software::Linux, "hidden").map(|rule| rule.id);
        // The capability has no name, so no line shows whether it is there. What would follow from it is not: QEMU left
        // the bit out.
        if cause.culprit().is_some_and(|step| Some(step.rule) == hidden) {
            let step = step_of(flag, Stage::Qemu, rules::generic(Software::Qemu, "model"));
            let step = Step { place: cause.place, ..step };
            return Some(Cause { follows: Some(cause.feature), ..Cause::one(step, true) });
        }
        let gone = cause.outcome.known() == Some(false);
        let open = |step: &&Step| step.effect == Effect::Unknown && step.at < Stage::Guest;
        let step = cause.culprit().filter(|step| gone || open(step))?.clone();
        let follows = Some(cause.follows.unwrap_or(cause.feature));
        Some(Cause { follows, ..Cause::one(step, cause.assumed || !gone) })
    }

    /// A field of CPUID: KVM's answer lacks it, or else QEMU's table.
    fn of_field(&self, id: &str, field: Field) -> Option<Cause> {
        let World { host, host_tree, guest, .. } = self.world;
        let has = |table: &CpuidTable| compares(table, field) == State::Present;
        let lacks = |of, answer, table: &CpuidTable| {
            let value = table.get(field.low.leaf, field.low.subleaf).map(|leaf| leaf.get(field.low.register));
            Grounds::one(Evidence::Register { of, answer, bit: field.low, value })
        };
        let answer = self.world.kvm_table();
        if let Some((table, captured)) = answer.filter(|(table, _)| !has(table)) {
            let because = if captured { lacks(host.role, "KVM_GET_SUPPORTED_CPUID", table) } else { Grounds::NONE };
            let (step, always) = kvm::unmet(host, host_tree, id, field.low, because);
            return Some(Cause::one(step, !captured && !always));
        }
        if answer.is_none() {
            let (step, always) = kvm::unmet(host, host_tree, id, field.low, Grounds::NONE);
            if always {
                return Some(Cause::one(step, true));
            }
        }
        let seen = guest.and_then(|guest| Some((guest.role, guest.cpuid()?)));
        if let Some((role, table)) = seen.filter(|(_, table)| !table.is_empty()) {
            let because = lacks(role, "CPUID", table);
            return (!has(table)).then(|| Cause::one(self.qemu_step(id, Some(table), field.low, because), false));
        }
        match self.world.realized() {
            Some(realized) if has(&realized.table) => None,
            Some(realized) => {
                Some(Cause::one(self.qemu_step(id, Some(&realized.table), field.low, Grounds::NONE), true))
            }
            // A named model may lack anything.
            None if self.world.cpu == CpuArgument::Other => {
                Some(Cause::one(self.qemu_step(id, None, field.low, Grounds::NONE), true))
            }
            None => None,
        }
    }

    /// QEMU fills a register by itself, or its CPU model has no such leaf.
    fn qemu_step(&self, id: &str, table: Option<&CpuidTable>, bit: CpuidBit, because: Grounds) -> Step {
        /// The performance monitoring unit, which QEMU passes on with `pmu=on`.
        const PMU: u32 = 0xa;
        let when = match table {
            Some(table) if table.maximum(bit.leaf).is_some_and(|maximum| bit.leaf > maximum) => "level",
            Some(_) if bit.leaf != PMU => "constant-leaf",
            _ => "model",
        };
        Step { because, ..step_of(id, Stage::Qemu, rules::generic(Software::Qemu, when)) }
    }

    /// A bit of a feature MSR: KVM does not list it, or QEMU did not write it.
    fn of_msr(&self, id: &str, bit: MsrBit) -> Option<Cause> {
        let World { host, guest, .. } = self.world;
        let answered = self.world.answered()?;
        let captured = host.snapshot.kvm.as_ref().is_some_and(|kvm| kvm.msr_features.is_some());
        match answered.msr(bit).known()? {
            false => {
                let step = step_of(id, Stage::Kvm, rules::generic(Software::Kvm, "msr-dropped"));
                Some(Cause::one(step, !captured && answered.assumes_msrs()))
            }
            true => {
                let step = step_of(id, Stage::Qemu, rules::generic(Software::Qemu, "model"));
                let seen = guest.map(|guest| guest.msr(bit)).and_then(State::known);
                let written = || {
                    let realized = self.world.realized()?;
                    Some(realized.output.msrs.get(&bit.index).is_some_and(|value| value >> bit.bit & 1 == 1))
                };
                let known = seen.is_some() || self.world.command.is_some();
                (!seen.or_else(written)?).then(|| Cause::one(step, !captured || !known))
            }
        }
    }
}

/// A step that dropped what a flag is derived from.
fn step_of(id: &str, at: Stage, rule: Option<&Rule>) -> Step {
    Step {
        feature: known_name(id),
        place: None,
        at,
        effect: Effect::Dropped,
        rule: rule.map_or(RuleId(""), |rule| rule.id),
        cite: rule.map_or(Cite(""), |rule| rule.cite),
        because: Grounds::NONE,
    }
}
