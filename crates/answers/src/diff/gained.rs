//! A flag that the guest shows and the host does not.

use cpusieve_knowledge::rules::{self, RemedyKind, Software};
use cpusieve_knowledge::{linux, qemu};
use cpusieve_model::{Effect, Stage, State, Step};
use cpusieve_stages::linux::conditions::Observed;
use cpusieve_stages::linux::kernel;
use cpusieve_stages::linux::setup;
use cpusieve_stages::{Passage, World};

use super::Item;
use super::hypothesis::Chosen;
use super::item::{self, Group};
use crate::reason::{self, Confidence, Remedy};

/// The answer for one flag.
pub(super) fn gained(chosen: &Chosen<'_>, flag: &str) -> Item {
    let world = &chosen.world;
    let mut passage = world.pass(flag);
    if item::unheard_of(flag) {
        return item::unheard(flag, passage);
    }
    if passage.culprit().is_some_and(adds) && passage.outcome == State::Present {
        return added(world, passage);
    }
    // A sieve that adds it under a condition that nobody saw: it did, or the guest would not show it.
    let may_add = |step: &Step| step.at != Stage::Host && (adds(step) || step.effect == Effect::Unknown);
    if !nameless_on_host(world, flag)
        && let Some(index) = passage.steps.iter().position(may_add)
    {
        passage.decided = Some(index);
        passage.steps[index].effect = Effect::Added;
        let mut item = added(world, passage);
        item.confidence = Confidence::Likely;
        return item;
    }
    host_hides(world, passage)
}

fn adds(step: &Step) -> bool {
    matches!(step.effect, Effect::Added | Effect::Forced)
}

/// A sieve added it. What takes it away again stands in the place of the remedy.
pub(super) fn added(world: &World<'_>, passage: Passage) -> Item {
    let confidence = item::confidence(world, &passage);
    let name = passage.place.and_then(|place| qemu::name(world.qemu, place));
    let mut built = item::build(world, passage, confidence, Group::Added);
    // Titles of conditions say what is lost without them; the first sentence of the cause says what they do.
    if rules::condition(built.rule.0).is_some() {
        built.title = built.cause.split_inclusive(". ").next().unwrap_or_default().trim_end_matches(". ").to_owned();
    }
    let removes = built.remedy.kind == RemedyKind::Qemu && built.remedy.text.contains("removes");
    if !removes {
        built.remedy = match name.filter(|_| matches!(built.at, Some(Stage::Kvm | Stage::Qemu))) {
            Some(name) => Remedy {
                kind: RemedyKind::Qemu,
                text: format!("-cpu host,-{name} removes it"),
                cpu: Some(format!("host,-{name}")),
            },
            None => Remedy {
                kind: RemedyKind::None,
                text: "nothing removes it but another guest kernel".to_owned(),
                cpu: None,
            },
        };
    }
    built
}

fn nameless_on_host(world: &World<'_>, flag: &str) -> bool {
    !kernel::prints(world.host_tree, flag)
}

/// The host's kernel may have the feature and not show it: no name, or cleared there and passed by KVM all the same.
fn host_hides(world: &World<'_>, passage: Passage) -> Item {
    let tree = world.host_tree;
    let nameless = nameless_on_host(world, &passage.feature);
    let rule = if nameless {
        let known = linux::feature_by_id(tree, &passage.feature).is_some();
        rules::generic(Software::Linux, if known { "hidden" } else { "no-name" })
    } else {
        let observed = Observed { machine: world.host, tree };
        let ruling = setup::announced(&observed, tree, &passage.feature, State::Present);
        ruling.rule.or_else(|| ruling.perhaps.first().copied())
    };
    let Some(rule) = rule else {
        return item::no_rule(
            passage,
            "The host's kernel would print this flag if the CPU had it, and no sieve adds it: the guest may run on another host.",
        );
    };
    let words = reason::of_step(&item::supposed(&passage, Stage::Host, rule), tree);
    let (confidence, group) =
        if nameless { (Confidence::Certain, Group::Naming) } else { (Confidence::Possible, Group::GuestKernel) };
    item::item(passage, Some(Stage::Host), words, confidence, group)
}
