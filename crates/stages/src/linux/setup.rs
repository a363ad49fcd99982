//! What a kernel's set-up code makes of one capability: the rules that set it, and the rules that clear it.
//!
//! Where CPUID was seen, the exact kernel decides ([`super::booted`]). Otherwise each rule is asked by itself whether its
//! conditions hold, do not hold, or are not known; the same for a bit that is only supposed to be there, and to find out
//! which rule comes nearest to setting what the exact kernel does not have.

use cpusieve_knowledge::linux;
use cpusieve_knowledge::rules::{self, Condition, Need, Rule, RuleEffect, Software};
use cpusieve_model::{Effect, Place, State};

use super::booted::Exact;
use super::conditions::{self, Inputs, Verdict, all};

/// How one capability came out, and the rule that decided.
#[derive(Clone, Debug)]
pub struct Ruling {
    /// Whether the capability is there.
    pub state: State,
    /// The rule that decided; `None` if no rule is about this capability.
    pub rule: Option<&'static Rule>,
    /// How its conditions came out.
    pub verdict: Option<Verdict>,
    /// Rules that might have cleared it, if what nobody saw is so.
    pub perhaps: Vec<&'static Rule>,
    /// What the exact kernel did, if that is what decided.
    pub exact: Option<Exact>,
}

impl Ruling {
    /// No rule speaks of it.
    const fn none(state: State) -> Self {
        Self { state, rule: None, verdict: None, perhaps: Vec::new(), exact: None }
    }

    /// One rule decides, or may.
    fn by(rule: &'static Rule, verdict: Verdict) -> Self {
        Self { state: verdict.state, rule: Some(rule), verdict: Some(verdict), ..Self::none(State::Unknown) }
    }

    /// The exact kernel decided; a step that only kept what came in is no rule's doing.
    fn exactly(exact: Exact) -> Self {
        let step = exact.step.as_ref().filter(|step| step.effect != Effect::Kept);
        let because = step.map(|step| step.because.clone());
        Self {
            rule: step.and_then(|step| rules::rule(step.rule.0)),
            verdict: because.map(|because| Verdict { state: exact.state, deciding: None, because }),
            exact: Some(exact.clone()),
            ..Self::none(exact.state)
        }
    }
}

/// The rules of one tree about one capability.
pub(crate) fn of_tree(id: &str, tree: usize) -> impl Iterator<Item = &'static Rule> {
    rules::of_feature(Software::Linux, id).filter(move |rule| rule.trees.contains(tree))
}

/// An invented capability: some rule must set it, and none may clear it.
///
/// If no rule does, the ruling names the one that comes nearest. `elsewhere` is a machine that has the capability (the
/// host of a guest that lacks it): a rule by which it cannot have come there explains nothing.
#[must_use]
pub fn invented(inputs: &dyn Inputs, elsewhere: Option<&dyn Inputs>, tree: usize, id: &str) -> Ruling {
    let exact = inputs.exact(id);
    if let Some(exact) = exact.clone().filter(|exact| exact.step.is_some()) {
        return Ruling::exactly(exact);
    }
    let ways = of_tree(id, tree).filter(|rule| rule.effect != RuleEffect::Clears);
    let ranked = ways.map(|rule| {
        let verdict = all(inputs, rule.needs);
        let there = elsewhere.filter(|_| verdict.state != State::Present);
        let there = there.map_or(0, |elsewhere| how_it_came(elsewhere, rule.needs));
        ((distance(&verdict), there), rule, verdict)
    });
    let nearest = ranked.filter(|(.., verdict)| exact.is_none() || verdict.state != State::Present);
    let nearest = nearest.min_by_key(|(rank, ..)| *rank).map(|(_, rule, verdict)| (rule, verdict));
    match (exact, nearest) {
        (Some(exact), None) => Ruling { exact: Some(exact), ..Ruling::none(State::Absent) },
        (Some(exact), Some((rule, verdict))) => {
            Ruling { exact: Some(exact), ..Ruling::by(rule, Verdict { state: State::Absent, ..verdict }) }
        }
        (None, None) => Ruling::none(State::Unknown),
        (None, Some((rule, verdict))) => {
            let set = Ruling::by(rule, verdict);
            let stays = set.state == State::Absent || rule.effect == RuleEffect::Forces;
            if stays { set } else { cleared(inputs, tree, id, set) }
        }
    }
}

/// How far a rule is from setting its capability: 0 if it does.
fn distance(verdict: &Verdict) -> u8 {
    let not_bare_metal = verdict.deciding.is_some_and(|need| need.negated);
    match (verdict.state, verdict.deciding.map(|need| need.condition)) {
        (State::Present, _) => 0,
        (State::Unknown, _) => 1,
        // A rule for another vendor or family does not explain why a flag is missing on this one.
        (_, Some(Condition::Vendor(_) | Condition::Family(..) | Condition::Hypervisor(_))) => 4,
        (_, Some(Condition::Vm)) if not_bare_metal => 2,
        _ => 3,
    }
}

/// How many of a rule's conditions surely fail on a machine that has the capability; 0 if it may have come by this rule.
fn how_it_came(machine: &dyn Inputs, needs: &'static [Need]) -> usize {
    needs.iter().filter(|need| conditions::holds(machine, need).state.known() == Some(false)).count()
}

/// A capability that CPUID announces: it is there unless a rule clears it, and some rules force it.
#[must_use]
pub fn announced(inputs: &dyn Inputs, tree: usize, id: &str, bit: State) -> Ruling {
    if is_so(inputs, tree, id, bit)
        && let Some(exact) = inputs.exact(id)
    {
        return Ruling::exactly(exact);
    }
    let mut perhaps_set = None;
    for rule in of_tree(id, tree).filter(|rule| rule.effect != RuleEffect::Clears) {
        let verdict = all(inputs, rule.needs);
        let matters = rule.effect == RuleEffect::Forces || bit != State::Present;
        match verdict.state {
            State::Present if matters => return Ruling::by(rule, verdict),
            State::Unknown if bit.known() == Some(false) => {
                perhaps_set.get_or_insert((rule, verdict));
            }
            _ => {}
        }
    }
    if let Some((rule, verdict)) = perhaps_set {
        return Ruling::by(rule, verdict);
    }
    let set = Ruling::none(bit);
    if bit == State::Present { cleared(inputs, tree, id, set) } else { set }
}

/// Whether CPUID announces a capability as it is supposed to.
fn is_so(inputs: &dyn Inputs, tree: usize, id: &str, supposed: State) -> bool {
    let place = linux::feature_by_id(tree, id).and_then(|row| linux::place(tree, row));
    let bit = place.and_then(Place::cpuid);
    bit.is_some_and(|bit| supposed.known().is_some() && inputs.bit(bit).state.known() == supposed.known())
}

/// Applies the rules that clear a capability.
fn cleared(inputs: &dyn Inputs, tree: usize, id: &str, mut set: Ruling) -> Ruling {
    for rule in of_tree(id, tree).filter(|rule| rule.effect == RuleEffect::Clears) {
        let verdict = all(inputs, rule.needs);
        match verdict.state {
            State::Present => {
                let verdict = Verdict { state: State::Absent, ..verdict };
                return Ruling { perhaps: set.perhaps, ..Ruling::by(rule, verdict) };
            }
            State::Unknown => set.perhaps.push(rule),
            _ => {}
        }
    }
    set
}
