//! One flag's answer, read off the steps of its way.

use std::borrow::Cow;

use cpusieve_knowledge::kvm::{self, Handling};
use cpusieve_knowledge::rules::{self, RemedyKind, Software};
use cpusieve_knowledge::{linux, x86};
use cpusieve_model::{Effect, Evidence, Place, Stage, State, Step};
use cpusieve_stages::linux::kernel;
use cpusieve_stages::linux::setup;
use cpusieve_stages::{Machine, Passage, World};

use super::hypothesis::Chosen;
use super::{Item, Other};
use crate::reason::{self, Confidence, Reason, Remedy};

/// A cause that several flags share; the headings of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// KVM answers the whole leaf with a constant.
    ConstantLeaf,
    /// KVM masks the bit in every release.
    MaskedAlways,
    /// A later KVM offers the bit, or this one under a condition.
    Conditional,
    /// This KVM does not offer it, for reasons of its own.
    OwnAnswer,
    /// QEMU's policy.
    QemuPolicy,
    /// The guest's kernel does not set the flag in a virtual machine, or clears it.
    GuestKernel,
    /// It follows from another flag.
    Follows,
    /// The kernel that does not show it has no name for it.
    Naming,
    /// The two CPUs differ.
    Silicon,
    /// Added on the way.
    Added,
    /// Nothing explains it.
    Unexplained,
}

/// A flag that the host shows and the guest does not.
pub(super) fn lost(chosen: &Chosen<'_>, flag: &str) -> Item {
    let world = &chosen.world;
    let passage = world.pass(flag);
    if unheard_of(flag) {
        return unheard(flag, passage);
    }
    let explained =
        passage.outcome != State::Present && passage.culprit().is_some_and(|step| step.effect != Effect::Kept);
    if !explained {
        return unexplained_loss(world, passage);
    }
    let confidence = confidence(world, &passage);
    let group = group(world, &passage);
    build(world, passage, confidence, group)
}

/// A flag that the guest shows and the host does not.
pub(super) fn gained(chosen: &Chosen<'_>, flag: &str) -> Item {
    let world = &chosen.world;
    let passage = world.pass(flag);
    if unheard_of(flag) {
        return unheard(flag, passage);
    }
    let added = passage.culprit().is_some_and(|step| matches!(step.effect, Effect::Added | Effect::Forced));
    if added && passage.outcome == State::Present {
        let confidence = confidence(world, &passage);
        return build(world, passage, confidence, Group::Added);
    }
    host_hides(world, passage)
}

/// The host's kernel may have the feature and not show it: no name, or cleared there and passed by KVM all the same.
fn host_hides(world: &World<'_>, passage: Passage) -> Item {
    let flag = passage.feature.clone();
    let tree = world.host_tree;
    let known = linux::feature_by_id(tree, &flag).is_some();
    let nameless = !kernel::prints(tree, &flag);
    let rule = if nameless {
        rules::generic(Software::Linux, if known { "hidden" } else { "no-name" })
    } else {
        let observed = cpusieve_stages::linux::conditions::Observed { machine: world.host, tree };
        let ruling = setup::announced(&observed, tree, &flag, State::Present);
        ruling.rule.or_else(|| ruling.perhaps.first().copied())
    };
    let Some(rule) = rule else {
        return no_rule(
            passage,
            "The host's kernel would print this flag if the CPU had it, and KVM and QEMU add it to no guest: the guest may run on another host.",
        );
    };
    let step = Step {
        feature: flag.clone(),
        place: passage.place,
        at: Stage::Host,
        effect: Effect::Dropped,
        rule: rule.id,
        cite: rule.cite,
        because: Vec::new(),
    };
    let confidence = if nameless { Confidence::Certain } else { Confidence::Possible };
    let words = reason::of_step(&step, tree);
    let group = if nameless { Group::Naming } else { Group::GuestKernel };
    item(passage, Some(Stage::Host), words, confidence, group)
}

/// `-cpu host` would have kept it: something else was asked for, or the guest's kernel cleared it.
fn unexplained_loss(world: &World<'_>, mut passage: Passage) -> Item {
    let guest = Guest(world);
    let perhaps = guest.perhaps(&passage.feature);
    if let Some(rule) = perhaps.first() {
        passage.steps.retain(|step| step.at != Stage::Guest);
        let step = Step {
            feature: passage.feature.clone(),
            place: passage.place,
            at: Stage::Guest,
            effect: Effect::Dropped,
            rule: rule.id,
            cite: rule.cite,
            because: Vec::new(),
        };
        passage.steps.push(step);
        passage.decided = Some(passage.steps.len() - 1);
        let mut item = build(world, passage, Confidence::Possible, Group::GuestKernel);
        item.others.extend(other(rules::generic(Software::Qemu, "model"), Stage::Qemu));
        item.others.extend(perhaps[1..].iter().filter_map(|rule| other(Some(rule), Stage::Guest)));
        return item;
    }
    if passage.place.and_then(Place::cpuid).is_some()
        && let Some(rule) = rules::generic(Software::Qemu, "model")
        && let Some(index) = passage.steps.iter().position(|step| step.at == Stage::Qemu)
    {
        passage.steps[index].rule = rule.id;
        passage.steps[index].cite = rule.cite;
        passage.steps[index].effect = Effect::Dropped;
        passage.decided = Some(index);
        return build(world, passage, Confidence::Possible, Group::QemuPolicy);
    }
    no_rule(passage, "By all that is known the guest's kernel would show this flag.")
}

/// The answer for a passage, whatever it came to.
pub(crate) fn decided(world: &World<'_>, passage: Passage) -> Item {
    let confidence = confidence(world, &passage);
    let gained = passage.outcome == State::Present;
    let group = if gained { Group::Added } else { group(world, &passage) };
    build(world, passage, confidence, group)
}

struct Guest<'a>(&'a World<'a>);

impl Guest<'_> {
    /// Rules by which the guest's kernel may have cleared a feature.
    fn perhaps(&self, flag: &str) -> Vec<&'static rules::Rule> {
        let Some(guest) = self.0.guest else { return Vec::new() };
        let observed = cpusieve_stages::linux::conditions::Observed { machine: guest, tree: self.0.guest_tree };
        setup::announced(&observed, self.0.guest_tree, flag, State::Present).perhaps
    }
}

fn other(rule: Option<&'static rules::Rule>, at: Stage) -> Option<Other> {
    let rule = rule?;
    Some(Other { at, rule: rule.id, cause: rule.cause.to_owned(), cite: rule.cite })
}

fn build(world: &World<'_>, passage: Passage, confidence: Confidence, group: Group) -> Item {
    let Some(step) = passage.culprit().cloned() else { return no_rule(passage, "No step decided it.") };
    let words = reason::of_step(&step, world.host_tree);
    let mut built = item(passage, Some(step.at), words, confidence, group);
    if let Some(follows) = &built.follows {
        let last = built.steps.last().and_then(|step| rules::rule(step.rule.0));
        if let Some(rule) = last {
            built.others.push(Other { at: Stage::Guest, rule: rule.id, cause: rule.cause.to_owned(), cite: rule.cite });
        }
        built.cause = format!("It follows from {follows}. {}", built.cause);
    }
    built
}

fn item(passage: Passage, at: Option<Stage>, words: Reason, confidence: Confidence, group: Group) -> Item {
    let Reason { rule, title, cause, cite, remedy } = words;
    let Passage { feature, place, steps, follows, .. } = passage;
    let (flag, follows) = (feature.into_owned(), follows.map(Cow::into_owned));
    Item { flag, place, at, rule, title, cause, cite, confidence, remedy, others: Vec::new(), group, follows, steps }
}

/// How sure a decided passage is.
fn confidence(world: &World<'_>, passage: &Passage) -> Confidence {
    let Some(step) = passage.culprit() else { return Confidence::Possible };
    if step.because.iter().any(|evidence| matches!(evidence, Evidence::Register { .. })) {
        return Confidence::Certain;
    }
    if step.effect == Effect::Unknown || passage.outcome == State::Unknown {
        return Confidence::Likely;
    }
    let release_told = |machine: &Machine<'_>| machine.trees().iter().count() == 1;
    let of_release = match step.at {
        Stage::Kvm => !in_every_kernel(step) && !release_told(world.host),
        Stage::Guest => world.guest.is_some_and(|guest| !release_told(guest)) && !everywhere(step),
        _ => false,
    };
    if of_release { Confidence::Likely } else { Confidence::Certain }
}

/// Whether KVM of every release drops the bit.
fn in_every_kernel(step: &Step) -> bool {
    step.place.and_then(Place::cpuid).is_some_and(|bit| kvm::trees_offering(bit).is_empty())
}

/// Whether a rule holds for every kernel.
fn everywhere(step: &Step) -> bool {
    rules::rule(step.rule.0).is_some_and(|rule| rule.trees.iter().count() == linux::TREES.len())
}

fn group(world: &World<'_>, passage: &Passage) -> Group {
    if passage.follows.is_some() {
        return Group::Follows;
    }
    let Some(step) = passage.culprit() else { return Group::Unexplained };
    let bit = step.place.and_then(Place::cpuid);
    let constant = |bit| matches!(kvm::handling(world.host_tree, bit), Handling::Constant(_) | Handling::Zero);
    match (step.at, rules::rule(step.rule.0).and_then(|rule| rule.when)) {
        (Stage::Kvm, Some("own-answer")) => Group::OwnAnswer,
        (Stage::Kvm, _) if bit.is_some_and(constant) => Group::ConstantLeaf,
        (Stage::Kvm, _) if in_every_kernel(step) && !has_remedy(step) => Group::MaskedAlways,
        (Stage::Kvm | Stage::Silicon | Stage::Host, _) => Group::Conditional,
        (Stage::Qemu | Stage::Vcpu, _) => Group::QemuPolicy,
        (Stage::Guest, Some("hidden" | "no-name")) => Group::Naming,
        (Stage::Guest, _) => Group::GuestKernel,
    }
}

/// Whether a rule tells a way back.
fn has_remedy(step: &Step) -> bool {
    let remedy = rules::rule(step.rule.0).and_then(|rule| rule.remedy);
    remedy.is_some_and(|remedy| remedy.kind != RemedyKind::None)
}

/// Whether no kernel tree and no table knows the name.
pub(super) fn unheard_of(flag: &str) -> bool {
    linux::by_id(flag).next().is_none() && x86::feature(flag).is_none()
}

pub(super) fn unheard(flag: &str, passage: Passage) -> Item {
    let cause = format!("No kernel that cpusieve knows prints `{flag}`.");
    no_rule(passage, &cause)
}

pub(super) fn no_rule(passage: Passage, cause: &str) -> Item {
    let words = Reason {
        rule: cpusieve_model::RuleId(""),
        title: cause.to_owned(),
        cause: cause.to_owned(),
        cite: cpusieve_model::Cite(""),
        remedy: Remedy { kind: RemedyKind::None, text: "none is known".to_owned(), cpu: None },
    };
    item(passage, None, words, Confidence::Possible, Group::Unexplained)
}

/// Two guests that may be nested: nothing is certain.
pub(super) fn lower_confidence(item: &mut Item) {
    item.confidence = item.confidence.max(Confidence::Likely);
}
