//! What a guest that is started here would lose and gain.

use cpusieve_knowledge::{linux, qemu};
use cpusieve_model::{Effect, State};
use cpusieve_stages::{Machine, World};

use crate::diff::{Assumption, Item, item};

/// What a guest with `-cpu host` would show, against its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// What was assumed.
    pub assumed: Vec<Assumption>,
    /// Flags that it would surely lose.
    pub lost: Vec<Item>,
    /// Flags that it would surely gain.
    pub gained: Vec<Item>,
    /// Flags of the host that hang on something nobody saw.
    pub open: Vec<Item>,
    /// How many flags it would keep.
    pub kept: usize,
}

/// Predicts a guest with `-cpu host`, the QEMU that the host has (else the newest known) and the host's own kernel.
#[must_use]
pub fn expected(host: &Machine<'_>) -> Expected {
    let mut world = World::of_host(host);
    let installed = host.snapshot.qemu.first();
    if let Some(binary) = installed {
        world.qemu = qemu::nearest(&binary.version).release;
    }
    let mut expected =
        Expected { assumed: assumed(&world), lost: Vec::new(), gained: Vec::new(), open: Vec::new(), kept: 0 };
    for flag in host.flags().into_iter().flat_map(cpusieve_model::FlagList::iter) {
        let passage = world.pass(flag);
        match passage.outcome.known() {
            Some(true) => expected.kept += 1,
            Some(false) => expected.lost.push(item::decided(&world, passage)),
            None => expected.open.push(item::decided(&world, passage)),
        }
    }
    let names = linux::features(world.guest_tree).filter_map(|feature| feature.shown);
    for flag in names.filter(|name| host.prints(name) == Some(false)) {
        let passage = world.pass(flag);
        let added = passage.culprit().is_some_and(|step| matches!(step.effect, Effect::Added | Effect::Forced));
        if passage.outcome == State::Present && added {
            expected.gained.push(item::decided(&world, passage));
        }
    }
    expected
}

fn assumed(world: &World<'_>) -> Vec<Assumption> {
    let add = |what: &str, value: String, because: &str| Assumption {
        what: what.to_owned(),
        value,
        because: because.to_owned(),
    };
    let release = qemu::RELEASES[world.qemu].label;
    let qemu = match world.host.snapshot.qemu.first() {
        Some(binary) => add("QEMU", binary.version.clone(), "the first that was found"),
        None => add("QEMU", release.to_owned(), "none was found; this is the newest that is known"),
    };
    let kernel = linux::TREES[world.guest_tree].label.to_owned();
    vec![qemu, add("guest kernel", kernel, "the host's own, or the nearest that is known")]
}
