//! What a kernel's set-up code makes of one capability: the rules that set it, and the rules that clear it.

use cpusieve_knowledge::rules::{self, Condition, Need, Rule, RuleEffect, Software};
use cpusieve_model::State;

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
}

/// The rules of one tree about one capability.
fn of_tree(id: &str, tree: usize) -> impl Iterator<Item = &'static Rule> {
    rules::of_feature(Software::Linux, id).filter(move |rule| rule.trees.contains(tree))
}

/// An invented capability: some rule must set it, and none may clear it.
///
/// If no rule does, the ruling names the one that comes nearest. `elsewhere` is a machine that has the capability (the
/// host of a guest that lacks it): a rule by which it cannot have come there explains nothing.
#[must_use]
pub fn invented(inputs: &dyn Inputs, elsewhere: Option<&dyn Inputs>, tree: usize, id: &str) -> Ruling {
    let ways = of_tree(id, tree).filter(|rule| rule.effect != RuleEffect::Clears);
    let ranked = ways.map(|rule| {
        let verdict = all(inputs, rule.needs);
        let there = elsewhere.filter(|_| verdict.state != State::Present);
        let there = there.map_or(0, |elsewhere| how_it_came(elsewhere, rule.needs));
        ((distance(&verdict), there), rule, verdict)
    });
    let Some((_, rule, verdict)) = ranked.min_by_key(|(rank, ..)| *rank) else {
        return Ruling { state: State::Unknown, rule: None, verdict: None, perhaps: Vec::new() };
    };
    let set = Ruling { state: verdict.state, rule: Some(rule), verdict: Some(verdict), perhaps: Vec::new() };
    if set.state == State::Absent || rule.effect == RuleEffect::Forces { set } else { cleared(inputs, tree, id, set) }
}

/// How far a rule is from setting its capability: 0 if it does.
fn distance(verdict: &Verdict) -> u8 {
    match (verdict.state, verdict.deciding.map(|need| need.condition)) {
        (State::Present, _) => 0,
        (State::Unknown, _) => 1,
        // A rule for another vendor or family does not explain why a flag is missing on this one.
        (_, Some(Condition::Vendor(_) | Condition::Family(..) | Condition::Hypervisor(_))) => 4,
        (_, Some(Condition::Vm)) => 2,
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
    let mut perhaps_set = None;
    for rule in of_tree(id, tree).filter(|rule| rule.effect != RuleEffect::Clears) {
        let verdict = all(inputs, rule.needs);
        let matters = rule.effect == RuleEffect::Forces || bit != State::Present;
        match verdict.state {
            State::Present if matters => {
                return Ruling { state: State::Present, rule: Some(rule), verdict: Some(verdict), perhaps: Vec::new() };
            }
            State::Unknown if bit.known() == Some(false) => {
                perhaps_set.get_or_insert((rule, verdict));
            }
            _ => {}
        }
    }
    if let Some((rule, verdict)) = perhaps_set {
        return Ruling { state: State::Unknown, rule: Some(rule), verdict: Some(verdict), perhaps: Vec::new() };
    }
    let set = Ruling { state: bit, rule: None, verdict: None, perhaps: Vec::new() };
    if bit == State::Present { cleared(inputs, tree, id, set) } else { set }
}

/// Applies the rules that clear a capability.
fn cleared(inputs: &dyn Inputs, tree: usize, id: &str, mut set: Ruling) -> Ruling {
    for rule in of_tree(id, tree).filter(|rule| rule.effect == RuleEffect::Clears) {
        let verdict = all(inputs, rule.needs);
        match verdict.state {
            State::Present => {
                return Ruling { state: State::Absent, rule: Some(rule), verdict: Some(verdict), perhaps: set.perhaps };
            }
            State::Unknown => set.perhaps.push(rule),
            _ => {}
        }
    }
    set
}
