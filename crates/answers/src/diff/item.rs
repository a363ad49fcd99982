//! One flag's answer, read off the steps of its way.

use std::borrow::Cow;

use cpusieve_knowledge::kvm::{self, Handling};
use cpusieve_knowledge::rules::{self, RemedyKind};
use cpusieve_knowledge::{linux, x86};
use cpusieve_model::{Effect, Evidence, Grounds, Place, RuleId, Stage, State, Step};
use cpusieve_stages::linux::kernel;
use cpusieve_stages::{Machine, Passage, World};

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

/// Another way, by a rule.
pub(super) fn other(rule: Option<&'static rules::Rule>, at: Stage) -> Option<Other> {
    let rule = rule?;
    Some(Other { at, rule: rule.id, cause: rule.cause.to_owned(), cite: rule.cite })
}

/// The answer for a passage, whatever it came to.
pub(crate) fn decided(world: &World<'_>, passage: Passage) -> Item {
    if passage.outcome == State::Present {
        return super::gained::added(world, passage);
    }
    let (confidence, group) = (confidence(world, &passage), group(world, &passage));
    build(world, passage, confidence, group)
}

/// The answer that the deciding step gives.
pub(super) fn build(world: &World<'_>, passage: Passage, confidence: Confidence, group: Group) -> Item {
    let Some(step) = passage.culprit().cloned() else { return no_rule(passage, "No step decided it.") };
    let words = reason::of_step(&step, world.host_tree);
    let mut built = item(passage, Some(step.at), words, confidence, group);
    if let Some(follows) = &built.follows {
        let last = built.steps.last().filter(|last| last.at == Stage::Guest);
        built.others.extend(last.and_then(|last| other(rules::rule(last.rule.0), last.at)));
        built.cause = format!("It follows from {follows}. {}", built.cause);
        built.remedy = of_parent(world, built.rule, follows).unwrap_or(built.remedy);
    }
    built
}

/// What brings back a feature that was cleared together with its parent: what brings the parent back.
pub(crate) fn of_parent(world: &World<'_>, rule: RuleId, parent: &str) -> Option<Remedy> {
    rules::rule(rule.0).filter(|rule| rule.when == Some("dependency"))?;
    let passage = world.pass(parent);
    let step = passage.culprit().filter(|step| step.effect == Effect::Dropped)?;
    Some(reason::of_step(step, world.host_tree).remedy)
}

/// A step that nobody took, but that would explain what was seen.
pub(super) fn supposed(passage: &Passage, at: Stage, rule: &'static rules::Rule) -> Step {
    Step {
        feature: passage.feature.clone(),
        place: passage.place,
        at,
        effect: Effect::Dropped,
        rule: rule.id,
        cite: rule.cite,
        because: Grounds::NONE,
    }
}

pub(super) fn item(passage: Passage, at: Option<Stage>, words: Reason, confidence: Confidence, group: Group) -> Item {
    let Reason { rule, title, cause, cite, remedy } = words;
    let Passage { feature, place, steps, follows, .. } = passage;
    let (flag, follows) = (feature.into_owned(), follows.map(Cow::into_owned));
    Item { flag, place, at, rule, title, cause, cite, confidence, remedy, others: Vec::new(), group, follows, steps }
}

/// How sure a decided passage is.
pub(super) fn confidence(world: &World<'_>, passage: &Passage) -> Confidence {
    let Some(step) = passage.culprit() else { return Confidence::Possible };
    if passage.assumed {
        return Confidence::Likely;
    }
    if step.because.iter().any(|evidence| proves(step, evidence)) {
        return Confidence::Certain;
    }
    if step.effect == Effect::Unknown || passage.outcome == State::Unknown {
        return Confidence::Likely;
    }
    let release_told = |machine: &Machine<'_>| machine.trees().iter().count() == 1;
    let of_release = match step.at {
        Stage::Kvm => !release_told(world.host) && (!in_every_kernel(step) || handed_on(world, step)),
        Stage::Guest => world.guest.is_some_and(|guest| !release_told(guest) && !everywhere(step, guest)),
        Stage::Qemu => !release_told(world.host) && may_be_kvms(world, step),
        _ => false,
    };
    if of_release { Confidence::Likely } else { Confidence::Certain }
}

/// Whether a captured register proves what a stage did: the host's own CPUID is what goes into KVM, not what comes out.
fn proves(step: &Step, evidence: &Evidence) -> bool {
    let Evidence::Register { of, answer, .. } = evidence else { return false };
    !(step.at == Stage::Kvm && *of == Stage::Host.name() && *answer == "CPUID")
}

/// Whether KVM of every release drops the bit.
fn in_every_kernel(step: &Step) -> bool {
    step.place.and_then(Place::cpuid).is_some_and(|bit| kvm::trees_offering(bit).is_empty())
}

/// Whether KVM of some kernel that may run on the host hands the bit on as the CPU has it.
fn handed_on(world: &World<'_>, step: &Step) -> bool {
    let raw = |bit| world.host.trees().iter().any(|tree| kvm::handling(tree, bit) == Handling::Raw);
    step.place.and_then(Place::cpuid).is_some_and(raw)
}

/// Whether KVM of some kernel that may run on the host offers what QEMU added, or lacks what QEMU dropped.
fn may_be_kvms(world: &World<'_>, step: &Step) -> bool {
    let Some(bit) = step.place.and_then(Place::cpuid).filter(|_| world.host.kvm_supported().is_none()) else {
        return false;
    };
    let offers = |tree| kvm::offers(tree, bit) || kvm::handling(tree, bit) == Handling::Raw;
    world.host.trees().iter().any(|tree| offers(tree) == (step.effect == Effect::Added))
}

/// Whether a rule holds for every kernel, and a name is missing from every kernel that may run here.
fn everywhere(step: &Step, guest: &Machine<'_>) -> bool {
    let Some(rule) = rules::rule(step.rule.0) else { return false };
    let naming = matches!(rule.when, Some("hidden" | "no-name"));
    let prints = |tree| kernel::prints(tree, &step.feature);
    let differs = naming && guest.trees().iter().any(prints) || kernel::differs(guest.trees(), &step.feature);
    rule.trees.iter().count() == linux::TREES.len() && !differs
}

pub(super) fn group(world: &World<'_>, passage: &Passage) -> Group {
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
        rule: RuleId(""),
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
