//! Which changes may help: read off the stage and the rule that took a feature, or that gave it.
//!
//! Nothing is promised here. A proposal is a question for the stages, which answer it exactly; so a proposal too many
//! costs a run of them, and one too few a solution.

mod kernel;
mod kvm;
mod models;
mod qemu;

use cpusieve_knowledge::rules::{self, Condition, Rule};
use cpusieve_knowledge::{linux, own};
use cpusieve_model::{Place, Snapshot, Stage, Step};

use super::change::{self, Change, Word};
use super::settings::Settings;
use super::view::{View, is_printed};
use super::{Wish, cpu_text::CpuText};

/// Something that would have to be otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// A capability of the host's or the guest's kernel.
    Flag { at: Stage, id: &'static str, on: bool },
    /// A bit that the vCPU is told.
    Bit { place: Place, on: bool },
}

/// The most that is aimed at for one wish: chains of conditions are short, and this ends those that are not.
const MOST_AIMS: usize = 48;

/// The proposals under way.
pub(super) struct Proposer<'a> {
    pub snapshot: &'a Snapshot,
    pub settings: &'a Settings,
    pub view: &'a View,
    cpu: CpuText,
    aims: Vec<Aim>,
    pub found: Vec<Change>,
}

/// The changes that may bring a wish nearer, from what the stages did under these settings.
pub(super) fn proposals(snapshot: &Snapshot, settings: &Settings, view: &View, wish: Wish) -> Vec<Change> {
    let (aims, found) = (Vec::new(), Vec::new());
    let mut proposer = Proposer { snapshot, settings, view, cpu: settings.cpu(), aims, found };
    proposer.wish(wish);
    proposer.found
}

impl Proposer<'_> {
    /// Notes a change, once.
    fn change(&mut self, change: Change) {
        if !self.found.contains(&change) {
            self.found.push(change);
        }
    }

    /// Takes aim, once.
    fn aim(&mut self, aim: Aim) {
        if self.aims.contains(&aim) || self.aims.len() >= MOST_AIMS {
            return;
        }
        self.aims.push(aim);
        match aim {
            Aim::Flag { at, id, on: true } => self.flag_on(at, id),
            Aim::Flag { at, id, on: false } => self.flag_off(at, id),
            Aim::Bit { place, on: true } => self.bit_on(place),
            Aim::Bit { place, on: false } => self.bit_off(place),
        }
    }

    fn wish(&mut self, wish: Wish) {
        let feature = wish.feature;
        let tree = self.view.found.guest.tree;
        let known = linux::feature_by_id(tree, feature.id);
        if known.is_some() {
            self.aim(Aim::Flag { at: Stage::Guest, id: feature.id, on: wish.present });
        }
        if is_printed(feature) && known.is_none_or(|row| row.shown.is_none()) && wish.present {
            self.kernels(Stage::Guest, |tree| {
                linux::feature_by_id(tree, feature.id).is_some_and(|row| row.shown.is_some())
            });
        }
        if known.is_none() || !is_printed(feature) {
            for &place in feature.places {
                self.aim(Aim::Bit { place, on: wish.present });
            }
        }
    }

    /// Makes a condition of a rule hold, or not hold.
    fn fulfil(&mut self, at: Stage, condition: &Condition, holds: bool) {
        match *condition {
            Condition::Cpuid(bit) => self.vcpu_bit(at, Place::Cpuid(bit), holds),
            Condition::Msr(bit) => self.vcpu_bit(at, Place::Msr(bit), holds),
            // A field that must not be zero is there when its leaf is.
            Condition::Field(field) => self.vcpu_bit(at, Place::Cpuid(field.low), holds),
            Condition::Flag(id) => self.aim(Aim::Flag { at, id, on: holds }),
            Condition::Param(word) if !word.contains(' ') => self.word(at, word, holds),
            Condition::Hypervisor("kvm") => self.property(at, "kvm", holds),
            Condition::Vm => self.property(at, "hypervisor", holds),
            _ => {}
        }
    }

    /// Only what the guest's kernel reads can be changed: the host's CPU is as it is.
    fn vcpu_bit(&mut self, at: Stage, place: Place, on: bool) {
        if at == Stage::Guest {
            self.aim(Aim::Bit { place, on });
        }
    }

    fn property(&mut self, at: Stage, name: &str, on: bool) {
        if at == Stage::Guest {
            self.switch(name, on);
        }
    }

    /// Puts a word on a kernel's command line, or takes it off.
    fn word(&mut self, at: Stage, word: &str, given: bool) {
        let line = self.cmdline(at);
        let there = line.split_ascii_whitespace().any(|other| other == word);
        let change = match (there, given) {
            (true, false) => Word::Remove(word.to_owned()),
            (false, true) => Word::Add(word.to_owned()),
            _ => return,
        };
        self.on_cmdline(at, change);
    }

    fn on_cmdline(&mut self, at: Stage, word: Word) {
        self.change(if at == Stage::Guest { Change::GuestCmdline(word) } else { Change::HostCmdline(word) });
    }

    fn cmdline(&self, at: Stage) -> &str {
        let line = match at {
            Stage::Guest => self.settings.guest_cmdline.as_deref(),
            _ => self.settings.host_cmdline(self.snapshot),
        };
        line.unwrap_or_default()
    }

    /// The nearest newer kernel that is so, and the nearest older one.
    fn kernels(&mut self, at: Stage, is_so: impl Fn(usize) -> bool) {
        self.kernels_since(at, is_so, None);
    }

    /// The same; of a newer one of the host it is known since which release it is so.
    fn kernels_since(&mut self, at: Stage, is_so: impl Fn(usize) -> bool, since: Option<String>) {
        let Some((here, _)) = self.view.kernel(at) else { return };
        let newest = linux::TREES.len();
        // A tree of the user's own stands beside the compiled-in one that it is nearest to, and that may be so.
        let (before, behind) =
            if own::is_own(here) { (own::compiled(here) + 1, own::compiled(here)) } else { (here, here) };
        let newer = (behind + 1..newest).find(|&tree| is_so(tree)).map(|tree| (tree, true));
        let older = (0..before).rev().find(|&tree| is_so(tree)).map(|tree| (tree, false));
        // A tree that was imported is proposed where no known release will do.
        let known = newer.or(older).is_some();
        let imported = own::positions().find(|&tree| !known && tree != here && is_so(tree)).map(|tree| (tree, true));
        for (tree, newer) in newer.into_iter().chain(older).chain(imported) {
            let onwards = newer && tree < newest && (tree..newest).all(&is_so);
            let since = since.clone().filter(|since| newer && since != change::kernel(tree));
            self.change(match at {
                Stage::Guest => Change::GuestKernel { tree, newer, onwards },
                _ => Change::HostKernel { tree, newer, onwards, since },
            });
        }
    }
}

/// The rule of a step, if it is one of the rule book.
fn rule_of(step: &Step) -> Option<&'static Rule> {
    rules::rule(step.rule.0)
}

/// The situation that a step's rule speaks of; empty if it has none.
fn situation(step: Option<&Step>) -> &'static str {
    step.and_then(rule_of).and_then(|rule| rule.when).unwrap_or("")
}
