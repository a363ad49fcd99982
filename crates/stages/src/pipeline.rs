//! One feature on its way through every sieve.

mod derived;
mod inputs;
mod sieves;

use std::borrow::Cow;

use cpusieve_knowledge::rules::{self, Rule, RuleEffect, Software};
use cpusieve_knowledge::x86;
use cpusieve_knowledge::{linux, qemu};
use cpusieve_model::{Cite, CpuidBit, Effect, Evidence, Grounds, Place, RuleId, Stage, State, Step};

use crate::kvm::Decision;
use crate::linux::booted::Exact;
use crate::linux::conditions::{Inputs, Observed, Sight};
use crate::linux::kernel;
use crate::linux::setup::{self, Ruling};
use crate::machine::known_name;
use crate::qemu::{Command, CpuArgument};
use crate::{Machine, vcpu};

/// How deep one flag may follow from another.
const DEPTH: u8 = 6;

/// A host, the software between, and a guest that was seen or is being predicted.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// The host.
    pub host: &'a Machine<'a>,
    /// The guest, if it was seen. What was seen of it stands; the rest is predicted.
    pub guest: Option<&'a Machine<'a>>,
    /// The host's kernel tree, an index into [`linux::TREES`].
    pub host_tree: usize,
    /// The QEMU release, an index into [`qemu::RELEASES`].
    pub qemu: usize,
    /// The guest's kernel tree.
    pub guest_tree: usize,
    /// What QEMU was asked for.
    pub cpu: CpuArgument,
    /// Whether the guest's CPUID, or a flag that it prints, proves that its bit arrived. A hypothesis that is being
    /// tested must not take what it ought to predict for proved.
    pub guest_proves: bool,
    /// QEMU's command line, if it is known. Otherwise [`World::cpu`] says what is supposed.
    pub command: Option<Command<'a>>,
    /// Whether KVM and QEMU are run whole where the host's CPUID is known. Of many hypotheses, only the one that is
    /// chosen is worth it.
    pub whole: bool,
}

/// One feature's way: every step, and what came of it.
#[derive(Clone, Debug)]
pub struct Passage {
    /// The feature, in the kernel's lower case.
    pub feature: Cow<'static, str>,
    /// Where it lives on the host's kernel tree, or on the guest's if the host's does not know it.
    pub place: Option<Place>,
    /// The steps, in machine order.
    pub steps: Vec<Step>,
    /// What the guest's kernel ends up with.
    pub outcome: State,
    /// The index of the step that decided the outcome.
    pub decided: Option<usize>,
    /// The flag from whose loss (or gain) this one follows.
    pub follows: Option<Cow<'static, str>>,
    /// Whether what decided hangs on something that nobody saw: the guest's kernel lacks it by an assumption that its flags
    /// line bears out, or what it is derived from was taken on one.
    pub assumed: bool,
}

impl Passage {
    /// The step that decided the outcome.
    #[must_use]
    pub fn culprit(&self) -> Option<&Step> {
        self.steps.get(self.decided?)
    }
}

impl<'a> World<'a> {
    /// A host, the newest QEMU that is known, `-cpu host`, and a guest with the host's kernel.
    #[must_use]
    pub fn of_host(host: &'a Machine<'a>) -> Self {
        let tree = host.trees().last().unwrap_or(linux::TREES.len() - 1);
        Self {
            host,
            guest: None,
            host_tree: tree,
            qemu: qemu::RELEASES.len() - 1,
            guest_tree: tree,
            cpu: CpuArgument::Host { migratable: true },
            guest_proves: true,
            command: None,
            whole: true,
        }
    }

    /// Sends one feature through every sieve. `feature` is the kernel's id.
    #[must_use]
    pub fn pass(&self, feature: &str) -> Passage {
        Way { world: *self, depth: 0 }.pass(feature)
    }
}

impl World<'_> {
    /// What KVM offers of a bit, by the feature that the host's kernel makes of it.
    #[must_use]
    pub fn offered(&self, feature: &str, bit: CpuidBit) -> State {
        let incoming = Way { world: *self, depth: 0 }.incoming(feature, bit);
        Way { world: *self, depth: 0 }.offered(feature, bit, incoming).state
    }

    /// What QEMU gives of a bit that KVM offers, whatever was seen of the guest.
    #[must_use]
    pub fn given(&self, feature: &str, bit: CpuidBit, offered: State) -> State {
        Way { world: *self, depth: 0 }.given(feature, bit, offered).state
    }

    /// What reaches the vCPU of a bit, by the feature that the host's kernel makes of it.
    #[must_use]
    pub fn delivered(&self, feature: &str, bit: CpuidBit) -> State {
        let way = Way { world: *self, depth: 0 };
        let steps = way.vcpu(feature, bit, way.incoming(feature, bit));
        steps.last().map_or(State::Unknown, |decision| decision.state)
    }
}

/// A world, and how many flags we followed to get here.
#[derive(Clone, Copy)]
struct Way<'a> {
    world: World<'a>,
    depth: u8,
}

impl Way<'_> {
    fn pass(&self, id: &str) -> Passage {
        let World { host, host_tree, guest_tree, .. } = self.world;
        let of = |tree| linux::feature_by_id(tree, id).and_then(|row| linux::place(tree, row));
        let (on_host, on_guest) = (of(host_tree), of(guest_tree));
        let mut passage = Passage {
            feature: known_name(id),
            place: on_host.or(on_guest),
            steps: Vec::new(),
            outcome: State::Unknown,
            decided: None,
            follows: None,
            assumed: false,
        };
        let seen = Observed { machine: host, tree: host_tree }.capability(id);
        // What no kernel tree knows may still be a bit that KVM and QEMU know.
        let elsewhere = || x86::feature(id).and_then(x86::Feature::place).filter(|place| place.cpuid().is_some());
        passage.place = passage.place.or_else(elsewhere);
        match passage.place.filter(|_| on_guest.is_none()).or(on_guest) {
            Some(Place::Cpuid(bit)) if self.made_without(id, bit, seen.state) => {
                self.host_step(&mut passage, on_host, &seen);
                self.invented(&mut passage, id, seen.state);
            }
            Some(Place::Cpuid(bit)) => self.announced(&mut passage, id, bit, seen),
            Some(Place::Linux(_) | Place::Msr(_)) => {
                self.host_step(&mut passage, on_host, &seen);
                self.invented(&mut passage, id, seen.state);
            }
            None => self.host_step(&mut passage, None, &seen),
        }
        passage
    }

    /// The host's CPU, if its CPUID was seen to lack the bit.
    fn silicon_step(&self, passage: &mut Passage, bit: CpuidBit, incoming: State) {
        let table = self.world.host.cpuid().filter(|table| table.state(bit).known() == Some(false));
        let rule = rules::generic(Software::Silicon, "not-in-silicon");
        if let Some((table, rule)) = table.zip(rule).filter(|_| incoming.known() == Some(false)) {
            passage.steps.push(Step {
                feature: passage.feature.clone(),
                place: Some(Place::Cpuid(bit)),
                at: Stage::Silicon,
                effect: Effect::Dropped,
                rule: rule.id,
                cite: rule.cite,
                because: Grounds::one(self.world.host.register_evidence("CPUID", table, bit)),
            });
        }
    }

    /// The host's kernel: what it does with its CPUID, or that its flags line shows the flag.
    fn host_step(&self, passage: &mut Passage, place: Option<Place>, seen: &Sight) {
        let World { host, host_tree, .. } = self.world;
        let exact = host.exact(host_tree, &passage.feature, Stage::Host, true).and_then(|exact| exact.step);
        if let Some(mut step) = exact.or_else(|| host.supposed(host_tree, &passage.feature, Stage::Host)) {
            step.because.extend(seen.evidence.clone());
            passage.steps.push(step);
        } else if seen.state == State::Present {
            let because = seen.evidence.clone().into_iter().collect();
            let step = self.linux_step(Stage::Host, passage, place, Effect::Kept, None, because);
            passage.steps.push(step);
        }
    }

    /// A feature that CPUID announces.
    fn announced(&self, passage: &mut Passage, id: &str, bit: CpuidBit, seen: Sight) {
        let World { host, host_tree, guest, guest_tree, .. } = self.world;
        let place = Some(Place::Cpuid(bit));
        let seen_present = seen.state == State::Present;
        let incoming = self.incoming(id, bit);
        self.silicon_step(passage, bit, incoming);
        self.host_step(passage, place, &seen);
        let vcpu = self.vcpu(id, bit, incoming);
        let delivered = vcpu.last().map_or(State::Unknown, |decision| decision.state);
        let culprit =
            vcpu.iter().position(|decision| decision.step.effect == Effect::Dropped && decision.state == State::Absent);
        let open = vcpu.iter().position(|decision| decision.open);
        let added = vcpu.iter().rposition(|decision| decision.step.effect == Effect::Added);
        let unsure = culprit.is_some_and(|culprit| vcpu.iter().take(culprit + 1).any(|decision| decision.open));
        let offset = passage.steps.len();
        passage.steps.extend(vcpu.into_iter().map(|decision| decision.step));

        let ruling = setup::announced(self, guest_tree, id, delivered);
        passage.outcome = ruling.state;
        if let Some(source) = vcpu::mirrored(bit).filter(|_| delivered == State::Absent) {
            passage.follows = linux::at(host_tree, Place::Cpuid(source)).map(|row| Cow::Borrowed(row.id()));
        }
        passage.decided = match delivered {
            State::Present => added,
            State::Unknown => open,
            _ => culprit,
        }
        .map(|index| offset + index);
        if delivered.known() == Some(false) {
            passage.decided = before_kvm(passage).or(passage.decided);
        }
        let made = host.cpuid().is_none() && seen_present && self.may_be_made(id, 0);
        passage.assumed = (unsure || made) && delivered.known() == Some(false);
        if ruling.rule.is_some() {
            self.guest_step(passage, place, delivered, &ruling);
            passage.follows = ruling.exact.as_ref().and_then(Exact::cleared_with).or(passage.follows.take());
            // A rule that may set the flag without the bit does not explain why it is missing: the sieve does that took
            // the bit.
            if ruling.state != State::Unknown || passage.decided.is_none() {
                passage.decided = Some(passage.steps.len() - 1);
                passage.assumed = hangs(&ruling);
            }
        } else if delivered == State::Present {
            let evidence = guest.and_then(|guest| guest.capability(guest_tree, id).evidence);
            self.printed(passage, id, place, ruling.exact.and_then(|exact| exact.step), evidence);
        }
    }

    /// What KVM starts from: the kernel's capability where its line shows it, which is never more than the register's
    /// bit; else the bit, unless the kernel cleared it.
    fn incoming(&self, id: &str, bit: CpuidBit) -> State {
        let World { host, host_tree, .. } = self.world;
        let shown = host.capability(host_tree, id).state;
        if shown.known().is_some() {
            return shown;
        }
        match host.exactly(host_tree, id, true) {
            State::Absent => State::Absent,
            _ => host.bit(host_tree, bit).0,
        }
    }

    /// The name: a kernel that has the bit may not print it.
    fn printed(
        &self,
        passage: &mut Passage,
        id: &str,
        place: Option<Place>,
        exact: Option<Step>,
        evidence: Option<Evidence>,
    ) {
        let tree = self.world.guest_tree;
        if kernel::prints(tree, id) {
            let kept = || self.linux_step(Stage::Guest, passage, place, Effect::Kept, None, Grounds::NONE);
            let mut step = exact.unwrap_or_else(kept);
            step.because.extend(evidence);
            passage.steps.push(step);
            return;
        }
        let known = linux::feature_by_id(tree, id).is_some();
        let rule = rules::generic(Software::Linux, if known { "hidden" } else { "no-name" });
        let step = self.linux_step(Stage::Guest, passage, place, Effect::Dropped, rule, Grounds::NONE);
        passage.steps.push(step);
        passage.outcome = State::Absent;
        passage.decided = Some(passage.steps.len() - 1);
    }

    /// A flag that Linux invents.
    fn invented(&self, passage: &mut Passage, id: &str, on_host: State) {
        let tree = self.world.guest_tree;
        let place = linux::feature_by_id(tree, id).and_then(|row| linux::place(tree, row));
        if place.is_none() {
            return self.printed(passage, id, None, None, None);
        }
        let host = Observed { machine: self.world.host, tree: self.world.host_tree };
        let elsewhere = (on_host == State::Present).then_some(&host as &dyn Inputs);
        let ruling = setup::invented(self, elsewhere, tree, id);
        passage.outcome = ruling.state;
        passage.assumed = hangs(&ruling);
        if ruling.state == State::Present {
            self.printed(passage, id, place, None, None);
            if passage.outcome == State::Absent {
                return;
            }
            passage.steps.pop();
        }
        if ruling.state != State::Present
            && let Some(cause) = self.cause(id, &ruling, on_host)
        {
            passage.decided = Some(passage.steps.len() + cause.decided);
            passage.steps.extend(cause.steps);
            passage.follows = cause.follows;
            passage.assumed = cause.assumed;
            passage.outcome = State::Absent;
        }
        let host = State::from_bit(on_host == State::Present);
        self.guest_step(passage, place, host, &ruling);
        passage.decided = passage.decided.or(Some(passage.steps.len() - 1));
    }

    /// Whether a bit arrived in a guest that was seen: its CPUID says so; a flag that it prints proves it.
    fn arrived(&self, guest: &Machine<'_>, bit: CpuidBit) -> Option<(bool, Evidence)> {
        if !self.world.guest_proves {
            return None;
        }
        if let Some(table) = guest.cpuid()
            && let Some(known) = table.state(bit).known()
        {
            return Some((known, guest.register_evidence("CPUID", table, bit)));
        }
        let (state, evidence) = guest.bit(self.world.guest_tree, bit);
        (state == State::Present).then_some((true, evidence?))
    }

    /// A bit through KVM and QEMU to the vCPU; a captured CPUID of the guest decides.
    fn vcpu(&self, id: &str, bit: CpuidBit, incoming: State) -> Vec<Decision> {
        if let Some(source) = vcpu::mirrored(bit) {
            return vec![vcpu::edit(id, bit, self.bit(source).state)];
        }
        let mut offered = self.offered(id, bit, incoming);
        let mut given = self.given(id, bit, offered.state);
        let guest = self.world.guest;
        if let Some((known, evidence)) = guest.and_then(|guest| self.arrived(guest, bit)) {
            if !known && offered.open && self.rather_kvm(id, bit) {
                offered.state = State::Absent;
                offered.step.effect = Effect::Dropped;
            }
            given = observed(given, offered.state, known, evidence);
        }
        vec![offered, given]
    }

    fn guest_step(&self, passage: &mut Passage, place: Option<Place>, incoming: State, ruling: &Ruling) {
        if let Some(step) = ruling.exact.as_ref().and_then(|exact| exact.step.clone()) {
            passage.steps.push(step);
            return;
        }
        let effect = match (incoming.known(), ruling.state.known()) {
            (_, None) => Effect::Unknown,
            (Some(true), Some(true)) => Effect::Kept,
            (_, Some(true)) if ruling.rule.is_some_and(|rule| rule.effect == RuleEffect::Forces) => Effect::Forced,
            (_, Some(true)) => Effect::Added,
            (_, Some(false)) => Effect::Dropped,
        };
        let because = ruling.verdict.as_ref().map(|verdict| verdict.because.clone()).unwrap_or_default();
        let step = self.linux_step(Stage::Guest, passage, place, effect, ruling.rule, because);
        passage.steps.push(step);
    }

    fn linux_step(
        &self,
        at: Stage,
        passage: &Passage,
        place: Option<Place>,
        effect: Effect,
        rule: Option<&'static Rule>,
        because: Grounds,
    ) -> Step {
        let rule = rule.or_else(|| rules::generic(Software::Linux, "word"));
        Step {
            feature: passage.feature.clone(),
            place,
            at,
            effect,
            rule: rule.map_or(RuleId(""), |rule| rule.id),
            cite: rule.map_or(Cite(""), |rule| rule.cite),
            because,
        }
    }
}

/// The step of the CPU or of the host's kernel that took a bit, if all that KVM did was to ask those two.
fn before_kvm(passage: &Passage) -> Option<usize> {
    let listed = rules::generic(Software::Kvm, "listed").map(|rule| rule.id);
    let asked = passage.culprit().is_some_and(|step| step.at == Stage::Kvm && Some(step.rule) == listed);
    let took = |step: &Step| step.at < Stage::Kvm && step.effect == Effect::Dropped;
    passage.steps.iter().position(took).filter(|_| asked)
}

/// Whether a flag is missing by an assumption; where it is there, the assumption is borne out.
fn hangs(ruling: &Ruling) -> bool {
    ruling.exact.as_ref().is_some_and(|exact| exact.assumed && exact.state == State::Absent)
}

/// The guest's CPUID was seen: the step that leads to it is corrected, and rests on what was seen.
fn observed(mut given: Decision, offered: State, known: bool, evidence: Evidence) -> Decision {
    let predicted = given.state.known();
    given.state = State::from_bit(known);
    given.open = false;
    given.step.because.push(evidence);
    given.step.effect = match (offered.known(), known) {
        (Some(false), true) => Effect::Added,
        (_, true) => Effect::Kept,
        (_, false) => Effect::Dropped,
    };
    if predicted.is_some_and(|predicted| predicted != known)
        && let Some(rule) = rules::generic(Software::Qemu, if known { "asked" } else { "model" })
    {
        given.step.rule = rule.id;
        given.step.cite = rule.cite;
    }
    given
}
