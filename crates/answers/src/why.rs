//! One feature through every sieve: on a given host and guest, or in general, release by release.

use cpusieve_knowledge::x86::{Feature, Scope};
use cpusieve_knowledge::{TreeSet, linux, own};
use cpusieve_model::{Cpu, CpuIdentity, Cpuinfo, Effect, FlagList, LinuxView, Snapshot, State};
use cpusieve_stages::{Machine, Passage, World};

use crate::diff;
use crate::reason::{self, Reason};

/// The answer for one feature.
#[derive(Clone, Debug)]
pub struct Why {
    /// The feature.
    pub feature: &'static Feature,
    /// Its way through the sieves in the releases at hand.
    pub passage: Passage,
    /// The reason, if a sieve dropped it, added it, or leaves it open.
    pub reason: Option<Reason>,
    /// The same question over all host kernels, oldest first, equal neighbours joined; empty if a host was given.
    pub over_time: Vec<Era>,
}

/// Host kernels under which the same happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Era {
    /// The kernel trees.
    pub trees: TreeSet,
    /// What the guest's kernel ends up with.
    pub outcome: State,
    /// Why.
    pub reason: Option<Reason>,
}

/// On a given host, and a guest if one was seen.
#[must_use]
pub fn on<'a>(host: &'a Machine<'a>, guest: Option<&'a Machine<'a>>, feature: &'static Feature) -> Why {
    let world = match guest {
        Some(guest) if guest.flags().is_some() => diff::world(host, guest),
        _ => World { guest, ..World::of_host(host) },
    };
    let mut passage = world.pass(feature.id);
    // What the guest shows stands, whatever was predicted.
    if let Some(guest) = guest {
        let seen = guest.capability(world.guest_tree, feature.id).state;
        passage.outcome = if seen == State::Unknown { passage.outcome } else { seen };
    }
    let mut reason = reason_of(&passage, world.host_tree).filter(|_| passage.outcome != State::Present);
    if let (Some(reason), Some(parent)) = (&mut reason, &passage.follows)
        && let Some(remedy) = diff::item::of_parent(&world, reason.rule, parent)
    {
        reason.remedy = remedy;
    }
    Why { feature, passage, reason, over_time: Vec::new() }
}

/// In general: on a host that has the feature, with the newest QEMU, `-cpu host` and a guest with the newest kernel.
#[must_use]
pub fn in_general(feature: &'static Feature) -> Why {
    let mut over_time: Vec<Era> = Vec::new();
    let mut last = None;
    let newest = linux::TREES.len() - 1;
    // What no known release has, an imported kernel may.
    let known = (0..=newest).any(|tree| linux::feature_by_id(tree, feature.id).is_some());
    let imported = || own::positions().find(|&tree| linux::feature_by_id(tree, feature.id).is_some());
    let guest_tree = if known { newest } else { imported().unwrap_or(newest) };
    for tree in (0..=newest).chain(own::positions()) {
        let host = host_with(feature, tree);
        let machine = Machine::new("host", &host).partly_known();
        let world = World { host_tree: tree, guest_tree, ..World::of_host(&machine) };
        let passage = world.pass(feature.id);
        let reason = reason_of(&passage, tree);
        let era = Era { trees: TreeSet(1 << tree), outcome: passage.outcome, reason };
        match over_time.last_mut() {
            Some(before) if before.outcome == era.outcome && same(before, &era) => {
                before.trees = before.trees.union(era.trees);
                before.reason = era.reason;
            }
            _ => over_time.push(era),
        }
        if tree == newest || tree == guest_tree {
            last = Some((passage, over_time.last().and_then(|era| era.reason.clone())));
        }
    }
    let (passage, reason) = last.unwrap_or_else(|| (unseen(feature), None));
    Why { feature, passage, reason, over_time }
}

/// The way of a feature of which nothing is known.
fn unseen(feature: &'static Feature) -> Passage {
    Passage {
        feature: feature.id.into(),
        place: feature.place(),
        steps: Vec::new(),
        outcome: State::Unknown,
        decided: None,
        follows: None,
        assumed: false,
    }
}

fn same(one: &Era, other: &Era) -> bool {
    let rule = |era: &Era| era.reason.as_ref().map(|reason| reason.rule);
    rule(one) == rule(other)
}

/// Words for the step that decided, unless all it did was to keep the feature.
fn reason_of(passage: &Passage, tree: usize) -> Option<Reason> {
    let step = passage.culprit().filter(|step| step.effect != Effect::Kept)?;
    Some(reason::of_step(step, tree))
}

/// A host of a vendor that makes the feature, whose flags line shows it.
fn host_with(feature: &Feature, tree: usize) -> Snapshot {
    let vendor = match feature.vendor {
        Scope::Amd => "AuthenticAMD",
        Scope::Via => "CentaurHauls",
        Scope::Transmeta => "GenuineTMx86",
        Scope::Intel | Scope::Any => "GenuineIntel",
    };
    let cpuinfo = Cpuinfo {
        identity: CpuIdentity { vendor: Some(vendor.to_owned()), ..CpuIdentity::default() },
        flags: Some(FlagList::from_line(feature.id)),
        ..Cpuinfo::default()
    };
    Snapshot {
        cpus: vec![Cpu { cpuinfo: Some(cpuinfo), ..Cpu::default() }],
        linux: Some(LinuxView { release: Some(linux::TREES[tree].label.to_owned()), ..LinuxView::default() }),
        ..Snapshot::default()
    }
}
