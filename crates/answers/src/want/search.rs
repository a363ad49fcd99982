//! The search by rising cost.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use cpusieve_model::Snapshot;

use super::Wish;
use super::change::Change;
use super::propose::proposals;
use super::settings::Settings;
use super::view::View;

/// How many virtual machines are put to the stages at most.
const MOST_TRIED: usize = 400;
/// How many solutions are looked for.
const SOLUTIONS: usize = 3;
/// How many changes one solution may have.
const MOST_CHANGES: usize = 6;
/// What a further solution may cost beyond the cheapest: the dearest upgrade.
const FURTHER: u32 = 90;

/// What is searched.
#[derive(Clone, Copy)]
pub(super) struct Ground<'a> {
    pub snapshot: &'a Snapshot,
    pub start: &'a Settings,
    pub wishes: &'a [Wish],
    /// Whether the guest's kernel boots at the start, and so has to.
    pub boots: bool,
}

/// What a search came to.
pub(super) struct Found {
    pub reached: Vec<Reached>,
    pub ended_early: bool,
    pub tried: usize,
    /// Whether something was left out, because this host's own KVM answers otherwise than is predicted of it.
    pub doubted: bool,
}

/// A set of changes under which all wishes are granted.
pub(super) struct Reached {
    pub changes: Vec<Change>,
    pub settings: Settings,
    pub view: View,
    /// Changes of parameters whose value nobody saw: that they have another one now is supposed.
    pub supposed: Vec<Change>,
}

type Changes = BTreeSet<Change>;

fn cost(changes: &Changes) -> u32 {
    changes.iter().map(Change::cost).sum()
}

/// Looks for the cheapest sets of changes.
pub(super) fn search(ground: &Ground<'_>) -> Found {
    let mut open = BinaryHeap::from([Reverse((0, 0, Changes::new()))]);
    let mut known: BTreeSet<Changes> = BTreeSet::from([Changes::new()]);
    let mut found = Found { reached: Vec::new(), ended_early: false, tried: 0, doubted: false };
    while let Some(Reverse((spent, _, changes))) = open.pop() {
        let cheapest = found.reached.first().map(|first| first.cost());
        if cheapest.is_some_and(|cheapest| spent > cheapest + FURTHER) || found.reached.len() >= SOLUTIONS {
            break;
        }
        if found.tried >= MOST_TRIED {
            found.ended_early = true;
            break;
        }
        if found.reached.iter().any(|known| known.changes.iter().all(|change| changes.contains(change))) {
            continue;
        }
        let settings = ground.start.with(&changes, ground.snapshot);
        found.tried += 1;
        // What QEMU refuses is a dead end, and so is what no kernel boots on, unless the question begins there.
        let Ok(view) = View::of(ground.snapshot, &settings) else { continue };
        if ground.boots && !view.boots() {
            continue;
        }
        let unmet = ground.wishes.iter().copied().find(|wish| !view.grants(*wish));
        let Some(wish) = unmet else {
            let least = least(ground, changes, &mut found.tried);
            match is_new(&found.reached, &least).then(|| supposed(ground, &least)) {
                Some(Some(supposed)) => found.reached.extend(reached(ground, least, supposed)),
                Some(None) => found.doubted = true,
                None => {}
            }
            continue;
        };
        if changes.len() >= MOST_CHANGES {
            continue;
        }
        // Every solution grants the first wish that is not granted, so it is enough to go on from there.
        for change in proposals(ground.snapshot, &settings, &view, wish) {
            let slot = change.slot();
            let free = changes.iter().all(|other| other.slot() != slot);
            let mut next = changes.clone();
            next.insert(change);
            if free && known.insert(next.clone()) {
                open.push(Reverse((cost(&next), known.len(), next)));
            }
        }
    }
    found.reached.sort_by_key(Reached::cost);
    found
}

impl Reached {
    fn cost(&self) -> u32 {
        self.changes.iter().map(Change::cost).sum()
    }
}

/// Leaves out every change without which all wishes are granted as well, the dearest first.
fn least(ground: &Ground<'_>, mut changes: Changes, tried: &mut usize) -> Changes {
    let mut dearest: Vec<Change> = changes.iter().cloned().collect();
    dearest.sort_by_key(|change| Reverse(change.cost()));
    for change in dearest {
        let mut fewer = changes.clone();
        fewer.remove(&change);
        *tried += 1;
        if grants(ground, &fewer) {
            changes = fewer;
        }
    }
    changes
}

fn grants(ground: &Ground<'_>, changes: &Changes) -> bool {
    let view = View::of(ground.snapshot, &ground.start.with(changes, ground.snapshot));
    view.is_ok_and(|view| ground.wishes.iter().all(|wish| view.grants(*wish)))
}

/// Whether nothing like it was found before. The same kinds of changes with other models or releases are no news; more
/// than another needs is none; nor is a part of another with something more disturbing in the place of the rest.
fn is_new(reached: &[Reached], changes: &Changes) -> bool {
    let gist = |changes: &mut dyn Iterator<Item = &Change>| changes.map(Change::gist).collect::<BTreeSet<String>>();
    let disturbance = |changes: &mut dyn Iterator<Item = &Change>| changes.map(Change::disturbance).max();
    let own = gist(&mut changes.iter());
    reached.iter().all(|known| {
        let mixed = known.changes.iter().any(|change| changes.contains(change))
            && disturbance(&mut changes.iter()) > disturbance(&mut known.changes.iter());
        !mixed && !gist(&mut known.changes.iter()).is_subset(&own)
    })
}

/// The changes of a solution that rest on a supposition; none if it is no solution.
///
/// With another host kernel, command line or parameter KVM's captured answer does not hold any more, and a predicted one
/// stands in its place. Where the two differ, a change may seem to help that does nothing but replace the one by the
/// other. So it must make the difference in prediction as well; or else be a parameter whose value nobody saw, and
/// with another value of which the prediction is as the capture.
fn supposed(ground: &Ground<'_>, changes: &Changes) -> Option<Vec<Change>> {
    let predicted = Settings { kvm_predicted: true, ..ground.start.clone() };
    let grants = |changes: &Changes| {
        let view = View::of(ground.snapshot, &predicted.with(changes, ground.snapshot));
        view.is_ok_and(|view| ground.wishes.iter().all(|wish| view.grants(*wish)))
    };
    let mut supposed = Vec::new();
    for change in changes.iter().filter(|change| change.is_below_qemu()) {
        let mut without = changes.clone();
        without.remove(change);
        if !grants(&without) {
            continue;
        }
        without.insert(unseen_opposite(ground, change)?);
        if grants(&without) {
            return None;
        }
        supposed.push(change.clone());
    }
    Some(supposed)
}

/// A switch of which nobody saw the value, the other way round.
fn unseen_opposite(ground: &Ground<'_>, change: &Change) -> Option<Change> {
    let Change::Param { name, value } = change else { return None };
    let bare = name.rsplit('.').next();
    let given = ground.start.kvm_params.iter().any(|(known, _)| known.rsplit('.').next() == bare);
    let seen = ground.snapshot.kvm.as_ref().is_some_and(|kvm| kvm.params.contains_key(name));
    let opposite = match value.as_str() {
        "1" => "0",
        "0" => "1",
        _ => return None,
    };
    (!given && !seen).then(|| Change::Param { name: name.clone(), value: opposite.to_owned() })
}

fn reached(ground: &Ground<'_>, changes: Changes, supposed: Vec<Change>) -> Option<Reached> {
    let settings = ground.start.with(&changes, ground.snapshot);
    let view = View::of(ground.snapshot, &settings).ok()?;
    let mut changes: Vec<Change> = changes.into_iter().collect();
    changes.sort_by_key(Change::cost);
    Some(Reached { changes, settings, view, supposed })
}
