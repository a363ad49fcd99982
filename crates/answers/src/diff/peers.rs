//! Two ends of which neither is the other's guest: two machines, or one under two kernels.

use cpusieve_knowledge::rules::{self, Software};
use cpusieve_knowledge::x86::{self, Scope};
use cpusieve_knowledge::{TreeSet, linux};
use cpusieve_model::{Cite, Effect, Place, RuleId, Stage, State, Step, Vendor};
use cpusieve_stages::Machine;
use cpusieve_stages::linux::conditions::Observed;
use cpusieve_stages::linux::kernel;
use cpusieve_stages::linux::setup::{self, Ruling};

use super::{Assumption, Diff, Group, Item, Other, Relation, split};
use crate::reason::{self, Confidence, Remedy};

pub(super) fn diff(relation: Relation, first: &Machine<'_>, second: &Machine<'_>) -> Diff {
    let (lost, gained, kept) = split(first, second);
    let unknown = first.kernel.unknown.iter().chain(&second.kernel.unknown).cloned().collect::<Vec<_>>();
    let assumed = [first, second].into_iter().filter(|_| relation != Relation::Equal).map(assumption).collect();
    Diff {
        relation,
        assumed,
        lost: lost.iter().map(|flag| lacking(relation, flag, second)).collect(),
        gained: gained.iter().map(|flag| lacking(relation, flag, first)).collect(),
        kept,
        unknown,
    }
}

fn assumption(machine: &Machine<'_>) -> Assumption {
    let because = match &machine.kernel.because {
        kernel::Because::Release(_) => "the input names it",
        kernel::Because::NearRelease(_) => "the input names it; the nearest known tree stands for it",
        kernel::Because::Flags => "the names in its flags line and their order",
        kernel::Because::Nothing => "nothing tells the release",
    };
    Assumption {
        what: format!("{} kernel", machine.role),
        value: machine.kernel.describe(),
        because: because.to_owned(),
    }
}

/// Why this machine does not show the flag that its peer shows.
fn lacking(relation: Relation, flag: &str, machine: &Machine<'_>) -> Item {
    let trees = machine.trees();
    let tree = trees.last().unwrap_or(linux::TREES.len() - 1);
    let place = linux::by_id(flag).last().and_then(|row| {
        let at = if row.trees.contains(tree) { tree } else { row.trees.last().unwrap_or(tree) };
        linux::place(at, row)
    });
    let base = Item {
        flag: flag.to_owned(),
        place,
        at: None,
        rule: RuleId(""),
        title: format!("no kernel that cpusieve knows prints `{flag}`"),
        cause: format!("No kernel that cpusieve knows prints `{flag}`."),
        cite: Cite(""),
        confidence: Confidence::Possible,
        remedy: Remedy { kind: rules::RemedyKind::None, text: "none is known".to_owned(), cpu: None },
        others: Vec::new(),
        group: Group::Unexplained,
        follows: None,
        steps: Vec::new(),
    };
    if super::item::unheard_of(flag) {
        return base;
    }
    if trees.iter().all(|tree| !kernel::prints(tree, flag)) {
        return nameless(base, trees);
    }
    if relation == Relation::DifferentVendors && !makes(machine.vendor(), flag) {
        return other_vendor(base, machine);
    }
    let observed = Observed { machine, tree };
    match place {
        Some(Place::Cpuid(bit)) => {
            let state = machine.cpuid().map_or(State::Unknown, |table| table.state(bit));
            let evidence = machine.cpuid().map(|table| machine.register_evidence("CPUID", table, bit));
            let ruling = setup::announced(&observed, tree, flag, State::Present);
            match (state.known(), ruling.rule) {
                (Some(false), _) => not_in_silicon(base, evidence, Confidence::Certain, &[]),
                (Some(true), _) | (None, Some(_)) => by_ruling(base, ruling, tree),
                (None, None) => not_in_silicon(base, None, Confidence::Likely, &ruling.perhaps),
            }
        }
        _ => by_ruling(base, setup::invented(&observed, None, tree, flag), tree),
    }
}

/// Whether a vendor makes CPUs with this feature.
fn makes(vendor: Option<Vendor>, flag: &str) -> bool {
    let (Some(vendor), Some(feature)) = (vendor, x86::feature(flag)) else { return true };
    match feature.vendor {
        Scope::Intel => matches!(vendor, Vendor::Intel | Vendor::Zhaoxin | Vendor::Centaur),
        Scope::Amd => matches!(vendor, Vendor::Amd | Vendor::Hygon),
        Scope::Via => matches!(vendor, Vendor::Zhaoxin | Vendor::Centaur),
        _ => true,
    }
}

fn generic(mut item: Item, when: &str, at: Stage, trees: TreeSet) -> Item {
    let software = if at == Stage::Silicon { Software::Silicon } else { Software::Linux };
    let Some(rule) = rules::generic(software, when) else { return item };
    let step = Step {
        feature: item.flag.clone().into(),
        place: item.place,
        at,
        effect: Effect::Dropped,
        rule: rule.id,
        cite: rule.cite,
        because: Vec::new(),
    };
    let words = reason::of_step(&step, trees.last().unwrap_or(0));
    item.at = Some(at);
    item.rule = words.rule;
    item.title = words.title;
    item.cause = words.cause;
    item.cite = words.cite;
    item.remedy = words.remedy;
    item.steps.push(step);
    item
}

/// Its kernel has no name for the feature.
fn nameless(item: Item, trees: TreeSet) -> Item {
    let known = trees.iter().any(|tree| linux::feature_by_id(tree, &item.flag).is_some());
    let mut item = generic(item, if known { "hidden" } else { "no-name" }, Stage::Host, trees);
    item.group = Group::Naming;
    item.confidence = if trees.iter().count() == 1 { Confidence::Certain } else { Confidence::Likely };
    item
}

fn other_vendor(item: Item, machine: &Machine<'_>) -> Item {
    let vendor = machine.vendor().map_or("this vendor", Vendor::name);
    let mut item = generic(item, "not-in-silicon", Stage::Silicon, machine.trees());
    item.cause =
        format!("{vendor} does not make CPUs with this feature, or its kernel code does not set the flag for them.");
    item.group = Group::Silicon;
    item.confidence = Confidence::Certain;
    item
}

fn not_in_silicon(
    item: Item,
    evidence: Option<cpusieve_model::Evidence>,
    confidence: Confidence,
    perhaps: &[&'static rules::Rule],
) -> Item {
    let mut item = generic(item, "not-in-silicon", Stage::Silicon, TreeSet::EMPTY);
    item.group = Group::Silicon;
    item.confidence = confidence;
    if let (Some(step), Some(evidence)) = (item.steps.last_mut(), evidence) {
        step.because.push(evidence);
    }
    item.others = perhaps.iter().map(|rule| other(rule)).collect();
    item
}

fn other(rule: &'static rules::Rule) -> Other {
    Other { at: Stage::Host, rule: rule.id, cause: rule.cause.to_owned(), cite: rule.cite }
}

/// A rule of its kernel decided, or may have.
fn by_ruling(mut item: Item, ruling: Ruling, tree: usize) -> Item {
    let rule = ruling.rule.or_else(|| ruling.perhaps.first().copied());
    let Some(rule) = rule else { return not_in_silicon(item, None, Confidence::Possible, &[]) };
    let decided = ruling.state == State::Absent && ruling.rule.is_some();
    let step = Step {
        feature: item.flag.clone().into(),
        place: item.place,
        at: Stage::Host,
        effect: if decided { Effect::Dropped } else { Effect::Unknown },
        rule: rule.id,
        cite: rule.cite,
        because: ruling.verdict.map(|verdict| verdict.because).unwrap_or_default(),
    };
    let words = reason::of_step(&step, tree);
    item.at = Some(Stage::Host);
    item.rule = words.rule;
    item.title = words.title;
    item.cause = words.cause;
    item.cite = words.cite;
    item.remedy = words.remedy;
    item.group = Group::GuestKernel;
    item.confidence = if decided { Confidence::Likely } else { Confidence::Possible };
    item.others = ruling.perhaps.iter().filter(|other| other.id != rule.id).map(|rule| other(rule)).collect();
    item.steps.push(step);
    item
}
