//! From a diff of two ends to a page.

use cpusieve_answers::diff::{self, Assumption, Diff, Item, Kept, NoDiff, Relation};
use cpusieve_model::{Snapshot, Stage};

use crate::hosts::last_part;
use crate::page::{Assumed, Body, Figure, Page, Tone};
use crate::prediction::end_of;
use crate::way::{Cause, Fate, Way, Ways};

/// Two ends with what the user calls them.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'a> {
    /// The first, as `diff` takes it.
    pub first: (&'a str, &'a Snapshot),
    /// The second.
    pub second: (&'a str, &'a Snapshot),
}

/// The page of a comparison; `json` is the answer of `diff --json`.
///
/// # Errors
/// If one of the ends holds neither a flags line nor CPUID.
pub fn of_diff(ends: &Ends<'_>, json: String) -> Result<Page, NoDiff> {
    let found = diff::diff(ends.first.1, ends.second.1)?;
    let kept = diff::kept(ends.first.1, ends.second.1)?;
    let ways = ways(&found, kept, ends);
    Ok(Page {
        title: format!("{} → {}", last_part(ends.first.0), last_part(ends.second.0)),
        lead: lead(&found),
        figures: figures(found.lost.len(), found.gained.len(), found.kept, ways.count(Fate::Open)),
        facts: found.assumed.iter().map(|assumed| (assumed.what.clone(), assumed.value.clone())).collect(),
        body: Body::Ways(ways),
        assumed: found.assumed.iter().map(assumed).collect(),
        doubts: doubts(&found),
        sheets: Vec::new(),
        json: ("cpusieve-diff.json".to_owned(), json),
    })
}

pub(crate) fn figures(lost: usize, gained: usize, kept: usize, open: usize) -> Vec<Figure> {
    let figure = |count, what: &str, tone| Figure { count, what: what.to_owned(), tone };
    let mut figures = vec![
        figure(lost, "lost", Tone::Lost),
        figure(gained, "gained", Tone::Gained),
        figure(kept, "kept", Tone::Kept),
    ];
    if open > 0 {
        figures.push(figure(open, "open", Tone::Plain));
    }
    figures
}

fn lead(found: &Diff) -> String {
    let relation = found.relation.describe();
    let mut taken: Vec<(usize, &str)> = Vec::new();
    for stage in Stage::ALL {
        let count = found.lost.iter().filter(|item| item.at == Some(stage)).count();
        if count > 0 {
            taken.push((count, stage.name()));
        }
    }
    let by: Vec<String> = taken.iter().map(|(count, stage)| format!("{count} at {}", proper(stage))).collect();
    match (found.lost.is_empty(), found.gained.is_empty()) {
        (true, true) => format!("{}.", sentence(relation)),
        (true, false) => format!("{}. Nothing was lost.", sentence(relation)),
        _ => format!("{}. Lost: {}.", sentence(relation), by.join(", ")),
    }
}

pub(crate) fn proper(stage: &str) -> &str {
    match stage {
        "kvm" => "KVM",
        "qemu" => "QEMU",
        "vcpu" => "the vCPU",
        "host" => "the host's kernel",
        "guest" => "the guest's kernel",
        other => other,
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn assumed(assumed: &Assumption) -> Assumed {
    Assumed {
        what: assumed.what.clone(),
        value: assumed.value.clone(),
        because: assumed.because.clone(),
        hangs: Vec::new(),
        hosts: None,
    }
}

fn doubts(found: &Diff) -> Vec<String> {
    let mut doubts = Vec::new();
    let unsure: Vec<&str> = found
        .lost
        .iter()
        .chain(&found.gained)
        .filter(|item| item.confidence != cpusieve_answers::reason::Confidence::Certain)
        .map(|item| item.flag.as_str())
        .collect();
    if !unsure.is_empty() {
        doubts.push(format!("concluded rather than seen: {}", unsure.join(" ")));
    }
    if !found.unknown.is_empty() {
        doubts.push(format!("no kernel known to cpusieve prints: {}", found.unknown.join(" ")));
    }
    if !found.undecided.is_empty() {
        doubts.push(format!("one end shows these and the other cannot tell: {}", found.undecided.join(" ")));
    }
    doubts
}

/// Whether the second end is the host, so that what was lost was added on the way.
fn is_backwards(relation: Relation) -> bool {
    matches!(relation, Relation::GuestAndHost | Relation::InnerAndOuter)
}

fn ways(found: &Diff, kept: Vec<Kept>, ends: &Ends<'_>) -> Ways {
    let backwards = is_backwards(found.relation);
    let mut ways: Vec<Way> = Vec::new();
    ways.extend(found.lost.iter().map(|item| of_item(item, Fate::Lost, backwards)));
    ways.extend(found.gained.iter().map(|item| of_item(item, Fate::Gained, !backwards)));
    ways.extend(kept.into_iter().map(of_kept));
    ways.extend(found.undecided.iter().map(|flag| undecided(flag)));
    let between = found.relation == Relation::HostAndGuest || found.relation == Relation::GuestAndHost;
    let nested = matches!(found.relation, Relation::OuterAndInner | Relation::InnerAndOuter);
    let last = ways.iter().filter_map(|way| way.leaves.as_ref().or(way.enters.as_ref())?.at).max();
    let until = if between || nested { Stage::Guest } else { last.unwrap_or(Stage::Host).max(Stage::Host) };
    let (mut first, mut second) =
        (end_of(ends.first.0, "first", ends.first.1), end_of(ends.second.0, "second", ends.second.1));
    for (end, own) in [(&mut first, Fate::Lost), (&mut second, Fate::Gained)] {
        // Without a line of its own, an end shows what was concluded.
        if end.flags.is_empty() {
            let shown = ways.iter().filter(|way| way.fate == own || way.fate == Fate::Kept);
            end.flags = shown.map(|way| way.feature.clone()).collect();
        }
    }
    if between {
        (first.name, second.name) =
            if backwards { ("guest".into(), "host".into()) } else { ("host".into(), "guest".into()) };
    }
    let from_to = match (between || nested, backwards) {
        (true, true) => (second.name.clone(), first.name.clone()),
        _ => (first.name.clone(), second.name.clone()),
    };
    Ways { ways, sieves: sieves(&found.assumed), until, from_to, ends: vec![first, second] }
}

/// What stands in each sieve's place, as far as it was concluded.
fn sieves(assumed: &[Assumption]) -> [String; 6] {
    let of = |what: &str| assumed.iter().find(|known| known.what == what).map(|known| known.value.as_str());
    let linux = |what: &str| of(what).map_or_else(String::new, |value| format!("Linux {value}"));
    [
        of("CPU").unwrap_or_default().to_owned(),
        linux("host kernel"),
        String::new(),
        of("QEMU").unwrap_or_default().to_owned(),
        String::new(),
        linux("guest kernel"),
    ]
}

/// A flag that one end shows. What ends on its way and what begins there is the same item in the two directions.
pub(crate) fn of_item(item: &Item, fate: Fate, begins: bool) -> Way {
    let cause = Cause::of_item(item);
    // Where the host's kernel made it up, its way begins there.
    let made = Way::first_added(&item.steps).filter(|step| Some(step.at) < item.at);
    let made = made.map(|step| Cause::of_step(step, cpusieve_knowledge::linux::TREES.len() - 1));
    let (enters, leaves) = if begins { (Some(cause), None) } else { (made, Some(cause)) };
    Way { feature: item.flag.clone(), place: item.place, fate, steps: item.steps.clone(), enters, leaves, price: None }
}

fn of_kept(kept: Kept) -> Way {
    let made = Way::first_added(&kept.steps);
    let enters = made.map(|step| Cause::of_step(step, cpusieve_knowledge::linux::TREES.len() - 1));
    Way {
        feature: kept.flag,
        place: kept.place,
        fate: Fate::Kept,
        steps: kept.steps,
        enters,
        leaves: None,
        price: None,
    }
}

fn undecided(flag: &str) -> Way {
    let cause = Cause {
        at: None,
        rule: String::new(),
        title: "one end cannot tell".to_owned(),
        text: "One end shows it; the other was concluded from CPUID, and cannot tell whether its kernel would."
            .to_owned(),
        cite: String::new(),
        confidence: None,
        remedy: None,
        follows: None,
        others: Vec::new(),
    };
    let place = cpusieve_knowledge::x86::feature(flag).and_then(cpusieve_knowledge::x86::Feature::place);
    let feature = flag.to_owned();
    Way { feature, place, fate: Fate::Open, steps: Vec::new(), enters: None, leaves: Some(cause), price: None }
}
