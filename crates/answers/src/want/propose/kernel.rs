//! What the host's or the guest's kernel does to a capability, and what would keep it from doing so.

use cpusieve_knowledge::linux::{self, Feature};
use cpusieve_knowledge::rules::{self, Rule, RuleEffect, Software};
use cpusieve_model::{Place, Stage};

use super::{Aim, Proposer, rule_of, situation};
use crate::want::change::Word;
use crate::want::view::is_set;

/// From this release on `clearcpuid=` takes the names that `/proc/cpuinfo` prints, and not numbers alone.
const NAMES_IN_CLEARCPUID: (u16, u16) = (5, 18);

impl Proposer<'_> {
    /// The kernel lacks a capability that it should have.
    pub(super) fn flag_on(&mut self, at: Stage, id: &'static str) {
        let Some((tree, _)) = self.view.kernel(at) else { return };
        if self.view.has(at, id) {
            return;
        }
        let Some(row) = linux::feature_by_id(tree, id) else {
            self.kernels(at, |tree| linux::feature_by_id(tree, id).is_some());
            return;
        };
        let arrived = self.arrived(at, tree, row);
        if !arrived {
            for &place in linux::places(tree, row) {
                self.vcpu_bit(at, place, true);
            }
        }
        self.uncleared(at);
        for rule in rules::of_feature(Software::Linux, id).filter(|rule| rule.trees.contains(tree)) {
            match rule.effect {
                RuleEffect::Sets | RuleEffect::Forces => {
                    rule.needs.iter().for_each(|need| self.fulfil(at, &need.condition, !need.negated));
                }
                RuleEffect::Clears => {
                    rule.needs.iter().for_each(|need| self.fulfil(at, &need.condition, need.negated));
                }
            }
        }
        self.by_step(at, tree, row, arrived);
    }

    /// What the step says that took the capability: a parent that is missing, a leaf that is too high, a release.
    fn by_step(&mut self, at: Stage, tree: usize, row: &Feature, arrived: bool) {
        let step = self.view.kernel(at).and_then(|(_, boot)| boot.steps.iter().find(|step| step.feature == row.id()));
        let situation = situation(step);
        let rule = step.and_then(rule_of);
        if arrived && situation == "level" && at == Stage::Guest {
            self.without_levels();
        }
        if situation == "dependency" {
            let parents = linux::dependencies(tree).filter(|pair| pair.feature == row.macro_name);
            let parents: Vec<&'static str> =
                parents.filter_map(|pair| linux::feature(tree, pair.needs)).map(Feature::id).collect();
            parents.into_iter().for_each(|id| self.aim(Aim::Flag { at, id, on: true }));
        }
        // A rule of some releases alone: others do not do it.
        let here_alone = |rule: &&Rule| rule.when.is_none() && rule.effect == RuleEffect::Clears;
        if let Some(rule) = rule.filter(here_alone) {
            let id = row.id();
            self.kernels(at, |other| !rule.trees.contains(other) && linux::feature_by_id(other, id).is_some());
        }
    }

    /// Whether the kernel was told of the capability by CPUID.
    fn arrived(&self, at: Stage, tree: usize, row: &Feature) -> bool {
        let Some(cpuid) = self.view.cpuid_of(at, self.snapshot) else { return false };
        let bits = linux::places(tree, row).iter().filter_map(|place| place.cpuid());
        bits.into_iter().any(|bit| is_set(cpuid, bit))
    }

    /// Takes every item out of `clearcpuid=`: which one took a capability with it shows when it is gone.
    fn uncleared(&mut self, at: Stage) {
        const KEY: &str = "clearcpuid";
        let words: Vec<String> = self.cmdline(at).split_ascii_whitespace().map(str::to_owned).collect();
        let lists = words.iter().filter_map(|word| word.strip_prefix(KEY)?.strip_prefix('='));
        for item in lists.flat_map(|list| list.split(',')).filter(|item| !item.is_empty()) {
            self.on_cmdline(at, Word::Unlist { key: KEY.to_owned(), item: item.to_owned() });
        }
    }

    /// The kernel has a capability that it should not have.
    pub(super) fn flag_off(&mut self, at: Stage, id: &'static str) {
        let Some((tree, _)) = self.view.kernel(at) else { return };
        let Some(row) = linux::feature_by_id(tree, id).filter(|_| self.view.has(at, id)) else { return };
        for &place in linux::places(tree, row) {
            if matches!(place, Place::Cpuid(_)) {
                self.vcpu_bit(at, place, false);
            }
        }
        if at == Stage::Guest {
            self.clear(tree, row);
        }
        for rule in rules::of_feature(Software::Linux, id).filter(|rule| rule.trees.contains(tree)) {
            match rule.effect {
                RuleEffect::Sets | RuleEffect::Forces => {
                    rule.needs.iter().for_each(|need| self.fulfil(at, &need.condition, need.negated));
                }
                RuleEffect::Clears => {
                    rule.needs.iter().for_each(|need| self.fulfil(at, &need.condition, !need.negated));
                }
            }
        }
    }

    /// `clearcpuid=` in the guest.
    fn clear(&mut self, tree: usize, row: &Feature) {
        let named = linux::TREES.get(tree).is_some_and(|tree| tree.release >= NAMES_IN_CLEARCPUID);
        let item = match row.shown.filter(|_| named) {
            Some(name) => name.to_owned(),
            None => row.number().to_string(),
        };
        self.on_cmdline(Stage::Guest, Word::Add(format!("clearcpuid={item}")));
    }
}
