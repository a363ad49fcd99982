//! A flag that the host shows and the guest does not.

use cpusieve_knowledge::qemu;
use cpusieve_knowledge::rules::{self, Condition, Rule, Software};
use cpusieve_model::{Effect, Evidence, Place, Stage, State};
use cpusieve_stages::linux::conditions::{self, Observed};
use cpusieve_stages::linux::setup;
use cpusieve_stages::qemu::CpuArgument;
use cpusieve_stages::{Machine, Passage, World};

use super::hypothesis::Chosen;
use super::item::{self, Group, other};
use super::{Item, Other};
use crate::reason::{self, Confidence};

/// The answer for one flag.
pub(super) fn lost(chosen: &Chosen<'_>, flag: &str) -> Item {
    let (world, passage, rivals) = most_common(chosen, flag);
    if item::unheard_of(flag) {
        return item::unheard(flag, passage);
    }
    let culprit = passage.culprit().filter(|step| step.effect != Effect::Kept);
    let Some(step) = culprit.filter(|_| passage.outcome != State::Present) else {
        return kept_by_all(&world, passage);
    };
    let proved = step.because.iter().any(|evidence| matches!(evidence, Evidence::Register { .. }));
    let open = step.effect == Effect::Unknown && !proved && !arrived(&world, &passage);
    if open && world.cpu == CpuArgument::Other && named_by_qemu(&world, &passage) {
        return lacks_in_model(&world, passage);
    }
    let (confidence, group) = (item::confidence(&world, &passage), item::group(&world, &passage));
    let confidence = if rivals.is_empty() { confidence } else { confidence.max(Confidence::Likely) };
    let mut built = item::build(&world, passage, confidence, group);
    built.others.extend(rivals);
    built
}

/// Where several host kernels fit equally well, the answer that most of them give, and the others beside it.
fn most_common<'a>(chosen: &Chosen<'a>, flag: &str) -> (World<'a>, Passage, Vec<Other>) {
    let mut answers: Vec<(usize, World<'a>, Passage)> = Vec::new();
    for world in chosen.worlds(flag) {
        let passage = world.pass(flag);
        let of = |passage: &Passage| passage.culprit().map(|step| (step.at, step.rule));
        match answers.iter_mut().find(|(.., other)| of(other) == of(&passage)) {
            Some((count, ..)) => *count += 1,
            None => answers.push((1, world, passage)),
        }
    }
    // Of equals, the first: that of the oldest kernel.
    let most = answers.iter().map(|(count, ..)| *count).max().unwrap_or(0);
    let index = answers.iter().position(|(count, ..)| *count == most).unwrap_or(0);
    if answers.is_empty() {
        return (chosen.world, chosen.world.pass(flag), Vec::new());
    }
    let (_, world, passage) = answers.swap_remove(index);
    let rivals = answers.iter().filter_map(|(_, world, passage)| {
        let step = passage.culprit()?;
        let words = reason::of_step(step, world.host_tree);
        Some(Other { at: step.at, rule: step.rule, cause: words.cause, cite: words.cite })
    });
    (world, passage, rivals.collect())
}

/// Whether QEMU has a name for the bit, so that a model or an option can be what lacks it.
fn named_by_qemu(world: &World<'_>, passage: &Passage) -> bool {
    passage.place.is_some_and(|place| qemu::name(world.qemu, place).is_some())
}

/// Whether the guest's CPUID has the bit, so that only its kernel can have dropped it.
fn arrived(world: &World<'_>, passage: &Passage) -> bool {
    let seen = world.guest.and_then(Machine::cpuid).zip(passage.place.and_then(Place::cpuid));
    seen.is_some_and(|(table, bit)| table.state(bit) == State::Present)
}

/// All sieves would have kept it: the guest's kernel cleared it by an erratum of just this CPU, or `-cpu` left it out.
fn kept_by_all(world: &World<'_>, passage: Passage) -> Item {
    let perhaps = perhaps(world, &passage.feature);
    match perhaps.iter().position(|rule| is_about_this_cpu(world, rule)) {
        Some(index) => cleared_by_guest(world, passage, index, &perhaps),
        None if passage.place.and_then(Place::cpuid).is_some() && !arrived(world, &passage) => {
            let mut item = lacks_in_model(world, passage);
            item.others.extend(perhaps.iter().filter_map(|rule| other(Some(rule), Stage::Guest)));
            item
        }
        None if !perhaps.is_empty() => cleared_by_guest(world, passage, 0, &perhaps),
        None => item::no_rule(passage, "By all that is known the guest's kernel would show this flag."),
    }
}

fn cleared_by_guest(world: &World<'_>, mut passage: Passage, index: usize, perhaps: &[&'static Rule]) -> Item {
    passage.steps.retain(|step| step.at != Stage::Guest);
    passage.steps.push(item::supposed(&passage, Stage::Guest, perhaps[index]));
    passage.decided = Some(passage.steps.len() - 1);
    let mut built = item::build(world, passage, Confidence::Possible, Group::GuestKernel);
    built.others.extend(other(rules::generic(Software::Qemu, "model"), Stage::Qemu));
    let rest = perhaps.iter().enumerate().filter(|(other, _)| *other != index);
    built.others.extend(rest.filter_map(|(_, rule)| other(Some(rule), Stage::Guest)));
    built
}

/// The `-cpu` argument leaves it out: a named model without it, or `-FLAG`.
fn lacks_in_model(world: &World<'_>, mut passage: Passage) -> Item {
    let open = passage.culprit().filter(|step| step.effect == Effect::Unknown).cloned();
    let Some(rule) = rules::generic(Software::Qemu, "model") else {
        return item::no_rule(passage, "`-cpu` leaves it out.");
    };
    let step = item::supposed(&passage, Stage::Qemu, rule);
    passage.steps.retain(|step| step.at < Stage::Qemu);
    passage.steps.push(step);
    passage.decided = Some(passage.steps.len() - 1);
    let likely = if world.cpu == CpuArgument::Other { Confidence::Likely } else { Confidence::Possible };
    let mut built = item::build(world, passage, likely, Group::QemuPolicy);
    built.others.extend(open.map(|step| {
        let words = reason::of_step(&step, world.host_tree);
        Other { at: step.at, rule: step.rule, cause: words.cause, cite: words.cite }
    }));
    built
}

/// Rules by which the guest's kernel may have cleared a feature.
fn perhaps(world: &World<'_>, flag: &str) -> Vec<&'static Rule> {
    let Some(machine) = world.guest else { return Vec::new() };
    let observed = Observed { machine, tree: world.guest_tree };
    setup::announced(&observed, world.guest_tree, flag, State::Present).perhaps
}

/// Whether a rule names families and models, and this guest's is among them.
fn is_about_this_cpu(world: &World<'_>, rule: &'static Rule) -> bool {
    let Some(machine) = world.guest else { return false };
    let observed = Observed { machine, tree: world.guest_tree };
    let mut named = rule.needs.iter().filter(|need| matches!(need.condition, Condition::Signature(_)));
    named.any(|need| !need.negated && conditions::holds(&observed, need).state == State::Present)
}
