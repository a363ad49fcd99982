//! The bits on which a feature hangs, for those who set bits themselves.

use cpusieve_knowledge::linux;
use cpusieve_knowledge::rules::{self, Condition, Rule, RuleEffect, Software};
use cpusieve_knowledge::x86::{self, Feature};
use cpusieve_model::{Place, Vendor};

/// How deep a flag that Linux makes of other flags is followed.
const DEEPEST: usize = 3;

/// The bits of CPUID and of MSRs that make a kernel of this tree show a feature on a CPU of this vendor; those of the
/// first rule that sets it, for a flag that Linux makes up. Empty if none does.
#[must_use]
pub fn bits(feature: &Feature, tree: usize, vendor: Option<Vendor>) -> Vec<Place> {
    of_id(feature.id, feature.places, tree, vendor, 0)
}

fn of_id(id: &str, places: &[Place], tree: usize, vendor: Option<Vendor>, depth: usize) -> Vec<Place> {
    let known = linux::feature_by_id(tree, id).map_or(places, |row| linux::places(tree, row));
    let real = known.iter().filter(|place| !matches!(place, Place::Linux(_))).copied();
    let real: Vec<Place> = real.collect();
    if !real.is_empty() || depth >= DEEPEST {
        return real;
    }
    let sets = |rule: &&Rule| rule.trees.contains(tree) && rule.effect != RuleEffect::Clears;
    let rule = rules::of_feature(Software::Linux, id).filter(sets).find(|rule| is_for(rule, vendor));
    let needs = rule.into_iter().flat_map(|rule| rule.needs).filter(|need| !need.negated);
    let bits = needs.flat_map(|need| match need.condition {
        Condition::Cpuid(bit) => vec![Place::Cpuid(bit)],
        Condition::Msr(bit) => vec![Place::Msr(bit)],
        Condition::Flag(id) => {
            let places = x86::feature(id).map_or(&[][..], |feature| feature.places);
            of_id(id, places, tree, vendor, depth + 1)
        }
        _ => Vec::new(),
    });
    bits.collect()
}

/// Whether a rule speaks of CPUs of this vendor, as far as it names vendors.
pub(super) fn is_for(rule: &Rule, vendor: Option<Vendor>) -> bool {
    rule.needs.iter().all(|need| match need.condition {
        Condition::Vendor(vendors) => vendor.is_none_or(|vendor| vendors.contains(&vendor) != need.negated),
        _ => true,
    })
}
