//! Why a wish cannot be granted.

use cpusieve_knowledge::kvm::{self, CapKind};
use cpusieve_knowledge::rules::{self, Condition, RemedyKind, RuleEffect, Software};
use cpusieve_knowledge::{linux, qemu, x86};
use cpusieve_model::{Cite, CpuidBit, Effect, Grounds, Place, RuleId, Stage, Step};

use super::Wish;
use super::bits::is_for;
use super::search::{Ground, search};
use super::view::{REQUIRED, View, is_set};
use crate::predict::way::Accel;
use crate::reason::{self, Reason, Remedy};

/// Why a wish cannot be granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hindrance {
    /// The wish.
    pub wish: Wish,
    /// The stage that stands in the way; none if no single one does.
    pub at: Option<Stage>,
    /// The reason.
    pub reason: Reason,
    /// The bit, or the flag, that is missing in its place, if the wish hangs on another.
    pub needs: Option<String>,
    /// The generations of CPUs that all have the feature, where silicon lacks it.
    pub generations: Vec<&'static str>,
}

/// How deep conditions are followed.
const DEEPEST: usize = 4;

/// The reasons for the wishes that cannot be granted even alone; for all, if each of them can.
pub(super) fn hindrances(ground: &Ground<'_>, view: &View, unmet: &[Wish]) -> Vec<Hindrance> {
    let alone = |wish: &&Wish| {
        let wishes = std::slice::from_ref(*wish);
        let ground = Ground { wishes, ..*ground };
        unmet.len() == 1 || search(&ground).reached.is_empty()
    };
    let found: Vec<Hindrance> = unmet.iter().filter(alone).map(|wish| hindrance(ground, view, *wish)).collect();
    if found.is_empty() { unmet.iter().map(|wish| exclusive(*wish)).collect() } else { found }
}

/// Each wish can be granted alone.
fn exclusive(wish: Wish) -> Hindrance {
    plain(wish, "It can be had, but not together with the rest.", "drop one of the wishes")
}

/// A reason without a rule.
fn plain(wish: Wish, cause: &str, remedy: &str) -> Hindrance {
    let reason = Reason {
        rule: RuleId(""),
        title: String::new(),
        cause: cause.to_owned(),
        cite: Cite(""),
        remedy: Remedy { kind: RemedyKind::None, text: remedy.to_owned(), cpu: None },
    };
    Hindrance { wish, at: None, reason, needs: None, generations: Vec::new() }
}

fn hindrance(ground: &Ground<'_>, view: &View, wish: Wish) -> Hindrance {
    if !wish.present && REQUIRED.contains(&wish.feature.id) {
        let mut needed = plain(wish, "A 64-bit Linux does not boot without it.", "none: it is needed");
        needed.at = Some(Stage::Guest);
        needed.reason.cite = Cite("arch/x86/kernel/verify_cpu.S:verify_cpu");
        return needed;
    }
    let looked = if wish.present {
        missing(ground, view, wish.feature.id, wish.feature.places, 0)
    } else {
        wish.feature.places.iter().filter_map(|&place| Some((view.qemu_step(place)?.clone(), None))).next()
    };
    let Some((step, needs)) = looked else {
        return plain(wish, "No change that cpusieve knows of would bring it about.", "none is known");
    };
    let tree =
        view.kernel(if step.at == Stage::Guest { Stage::Guest } else { Stage::Host }).map_or(0, |(tree, _)| tree);
    let reason = reason::of_step(&step, tree);
    let at = Some(step.at);
    let generations =
        if step.at == Stage::Silicon { generations(needs.as_deref().unwrap_or(wish.feature.id)) } else { Vec::new() };
    let reason = match at {
        Some(Stage::Kvm) => never_by_kvm(reason, step.place),
        _ => reason,
    };
    Hindrance { wish, at, reason, needs, generations }
}

/// The step that stands in the way of a feature, and the feature that it is about if that is another.
fn missing(
    ground: &Ground<'_>,
    view: &View,
    id: &str,
    places: &[Place],
    depth: usize,
) -> Option<(Step, Option<String>)> {
    let (tree, boot) = view.kernel(Stage::Guest)?;
    let row = linux::feature_by_id(tree, id);
    let bits = row
        .map_or(places, |row| linux::places(tree, row))
        .iter()
        .copied()
        .filter(|place| !matches!(place, Place::Linux(_)));
    let bits: Vec<Place> = bits.collect();
    if let Some(&place) = bits.iter().find(|&&place| !view.vcpu_has(place)) {
        let step = of_place(ground, view, place)?;
        return Some((step, None));
    }
    let taken = boot.steps.iter().find(|step| step.feature == id && step.effect == Effect::Dropped);
    if let Some(step) = taken {
        return Some((step.clone(), None));
    }
    if depth >= DEEPEST {
        return None;
    }
    // A flag of the kernel's own: the first condition of the first rule that does not hold.
    let vendor = view.found.cpuid.vendor();
    let sets = rules::of_feature(Software::Linux, id)
        .filter(|rule| rule.trees.contains(tree) && rule.effect != RuleEffect::Clears && is_for(rule, vendor));
    for need in sets.flat_map(|rule| rule.needs).filter(|need| !need.negated) {
        let (id, places): (&str, Vec<Place>) = match need.condition {
            Condition::Cpuid(bit) => {
                let place = Place::Cpuid(bit);
                (x86::by_place(place).map_or("", |feature| feature.id), vec![place])
            }
            Condition::Flag(id) if !view.has(Stage::Guest, id) => {
                (id, x86::feature(id).map_or_else(Vec::new, |feature| feature.places.to_vec()))
            }
            _ => continue,
        };
        if let Some((step, deeper)) = missing(ground, view, id, &places, depth + 1) {
            return Some((step, deeper.or_else(|| Some(id.to_owned()))));
        }
    }
    None
}

/// The first stage that stands in the way of a bit.
fn of_place(ground: &Ground<'_>, view: &View, place: Place) -> Option<Step> {
    let feature = x86::by_place(place).map_or("", |feature| feature.id);
    let generic = |software, when, at| {
        let rule = rules::generic(software, when)?;
        let place = Some(place);
        Some(Step {
            feature: feature.into(),
            place,
            at,
            effect: Effect::Dropped,
            rule: rule.id,
            cite: rule.cite,
            because: Grounds::default(),
        })
    };
    let by_qemu = view.qemu_step(place).filter(|step| step.effect == Effect::Dropped).cloned();
    let Place::Cpuid(bit) = place else { return by_qemu };
    if ground.start.accel == Accel::Tcg || view.offered(bit) {
        return by_qemu;
    }
    let tree = view.kernel(Stage::Host).map_or(0, |(tree, _)| tree);
    let hangs_on_cpu = kvm::cap(tree, bit).is_none_or(|cap| hangs_on_cpu(cap.kind));
    let in_silicon = ground.snapshot.first_cpuid().is_some_and(|cpu| is_set(&cpu.cpuid, bit));
    let offering = kvm::trees_offering(bit);
    if !in_silicon && !offering.is_empty() && hangs_on_cpu {
        return generic(Software::Silicon, "not-in-silicon", Stage::Silicon);
    }
    if kvm::offers(tree, bit) && !hangs_on_cpu {
        return generic(Software::Kvm, "own-answer", Stage::Kvm);
    }
    let by_kvm = view.kvm_step(bit).filter(|step| step.effect == Effect::Dropped).cloned();
    let when = if offering.is_empty() { "masked-always" } else { "masked-here" };
    by_kvm.or_else(|| generic(Software::Kvm, when, Stage::Kvm)).or(by_qemu)
}

/// Whether KVM offers a bit of this kind only if the CPU has it.
const fn hangs_on_cpu(kind: CapKind) -> bool {
    !matches!(kind, CapKind::Emulated | CapKind::Synthesized | CapKind::SynthesizedUnconditional | CapKind::Runtime)
}

/// That no known KVM offers a bit, in so many words, where it is so.
fn never_by_kvm(mut reason: Reason, place: Option<Place>) -> Reason {
    let bit: Option<CpuidBit> = place.and_then(Place::cpuid);
    if bit.is_some_and(|bit| kvm::trees_offering(bit).is_empty()) && !reason.cause.contains("None of the") {
        let label = |tree: Option<&linux::Tree>| tree.map_or("", |tree| tree.label);
        let (first, last) = (label(linux::TREES.first()), label(linux::TREES.last()));
        reason.cause = format!("{} No known KVM offers it, Linux {first} to {last}.", reason.cause.trim());
    }
    if place.is_some_and(|place| !qemu::word_exists(qemu::RELEASES.len() - 1, place)) {
        reason.cause.push_str(" No known QEMU has the register among its feature words.");
    }
    reason
}

/// The generations of which every CPU has a feature, where that is known.
fn generations(id: &str) -> Vec<&'static str> {
    x86::GENERATIONS.iter().filter(|one| one.has().any(|flag| flag == id)).map(|one| one.name).collect()
}
