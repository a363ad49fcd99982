//! The steps of this stage: which of QEMU's steps kept, dropped or added each bit, read off the words after each.

use std::borrow::Cow;

use cpusieve_knowledge::qemu::{self, FixupEffect, WORD_ORDER, Word};
use cpusieve_knowledge::rules::{self, Rule, Software};
use cpusieve_knowledge::x86;
use cpusieve_model::{Cite, CpuidBit, Effect, Evidence, Place, Register, Stage, Step};

use super::history::Phase;
use super::output::{Trace, has};
use super::words::{AMD_ALIASES, FEAT_8000_0001_EDX, Words};

/// One bit on its way through QEMU.
struct Passage<'t> {
    trace: &'t Trace,
    /// The position of its word; `None` if no release has one.
    at: Option<usize>,
    place: Place,
    /// Whether the accelerator offers it.
    came: bool,
    /// Whether the guest is told it.
    told: bool,
}

/// What happened to a bit: the situation that a rule speaks of, and where it happens if several rules speak of it.
struct Reason {
    when: &'static str,
    cite: Option<&'static str>,
}

impl From<&'static str> for Reason {
    fn from(when: &'static str) -> Self {
        Self { when, cite: None }
    }
}

/// The steps of all bits that were offered, asked for or told.
pub(super) fn steps(trace: &Trace) -> Vec<Step> {
    let mut steps = Vec::with_capacity(320);
    for (at, word) in WORD_ORDER.into_iter().enumerate() {
        let of = |words: &Words| words.get(at).copied().unwrap_or(0);
        let asked = trace.history.steps().iter().fold(0, |mask, (_, words)| mask | of(words));
        let (came, told) = (of(&trace.offered), of(&trace.told));
        let mask = came | told | if qemu::has_word(trace.release, at) { asked } else { 0 };
        for bit in (0..64).filter(|bit| mask >> bit & 1 == 1) {
            let (came, told) = (came >> bit & 1 == 1, told >> bit & 1 == 1);
            steps.extend(Passage { trace, at: Some(at), place: word.bit(bit), came, told }.step());
        }
    }
    for &(place, came, told) in &trace.elsewhere {
        steps.extend(Passage { trace, at: None, place, came, told }.step());
    }
    steps
}

impl Passage<'_> {
    fn step(&self) -> Option<Step> {
        let reason = self.reason();
        let effect = match (self.came, self.told) {
            (true, true) => Effect::Kept,
            (_, false) => Effect::Dropped,
            (false, true) if reason.when == "forced" => Effect::Forced,
            (false, true) => Effect::Added,
        };
        let feature = x86::by_place(self.place);
        let rule = rule(feature.map(|feature| feature.id), self.trace.release, &reason)?;
        Some(Step {
            feature: self.name(feature),
            place: Some(self.place),
            at: Stage::Qemu,
            effect,
            rule: rule.id,
            cite: reason.cite.map_or(rule.cite, Cite),
            because: self.because(&reason),
        })
    }

    /// The feature's id, else QEMU's name, else the bit itself.
    fn name(&self, feature: Option<&'static x86::Feature>) -> Cow<'static, str> {
        match (feature, qemu::name(self.trace.release, self.place)) {
            (Some(feature), _) => Cow::Borrowed(feature.id),
            (None, Some(name)) => Cow::Borrowed(name),
            (None, None) => Cow::Owned(format!("{:#}", self.place)),
        }
    }

    fn because(&self, reason: &Reason) -> Vec<Evidence> {
        let mut because = Vec::new();
        if let (Place::Cpuid(bit), true) = (self.place, self.trace.kvm) {
            let answer = "KVM_GET_SUPPORTED_CPUID";
            because.push(Evidence::Register { of: "host", answer, bit, value: self.trace.offered_register(bit) });
        }
        if matches!(reason.when, "asked" | "switched-off" | "forced" | "paravirtual-off") {
            because.push(Evidence::Setting { source: "-cpu", text: self.trace.cpu.clone() });
        }
        if matches!(reason.when, "machine" | "machine-adds") {
            because.push(Evidence::Setting { source: "-machine", text: self.trace.machine.to_owned() });
        }
        because
    }

    /// The word's bit in one state of all words.
    fn is_set(&self, words: &Words) -> bool {
        has(words, self.place)
    }

    fn reason(&self) -> Reason {
        let known = self.at.is_some_and(|at| qemu::has_word(self.trace.release, at));
        let on = known && self.is_set(&self.trace.words);
        match (known, on, self.told) {
            (false, _, true) => "passed".into(),
            (false, _, false) => self.unknown_register(),
            (true, false, true) => "topology-adds".into(),
            (true, true, false) => self.hidden(),
            (true, true, true) => self.why_on(),
            (true, false, false) => self.why_off(),
        }
    }

    /// A register without a word: QEMU fills it by itself, or leaves it out.
    fn unknown_register(&self) -> Reason {
        let constant = |row: &qemu::Constant| {
            row.releases.contains(self.trace.release) && Some(row.word) == Word::of(self.place)
        };
        if qemu::CONSTANTS.iter().any(constant) { "constant-leaf".into() } else { "word-unknown".into() }
    }

    /// On in the word, off in the leaf: PDCM without a PMU before 10.1, else a leaf above the level.
    fn hidden(&self) -> Reason {
        let pdcm = self.place == Place::Cpuid(CpuidBit::new(1, 0, Register::Ecx, 15));
        if pdcm { "model".into() } else { "level".into() }
    }

    /// The last step that changed the bit, and whether it set it.
    fn last_change(&self) -> Option<Phase> {
        let mut before = false;
        let mut last = None;
        for (phase, words) in self.trace.history.steps() {
            let now = self.is_set(words);
            if now != before {
                last = Some(*phase);
            }
            before = now;
        }
        last
    }

    fn why_on(&self) -> Reason {
        let last = self.last_change();
        if !self.is_set(&self.trace.supported) {
            match last {
                Some(Phase::Topology) => return "topology-adds".into(),
                Some(Phase::Alias) => return "alias".into(),
                Some(Phase::CpuPm) => return "asked".into(),
                _ if self.trace.forced => return "forced".into(),
                _ => {}
            }
        }
        match last {
            Some(Phase::Topology) if !self.came => "topology-adds".into(),
            Some(Phase::Alias) => "alias".into(),
            Some(Phase::Asked | Phase::CpuPm) => "asked".into(),
            Some(Phase::Machine) => "machine-adds".into(),
            _ if self.came => "passed".into(),
            _ => self.fixup("fixup-adds"),
        }
    }

    fn why_off(&self) -> Reason {
        match self.last_change() {
            None => self.never_on(),
            Some(Phase::Model | Phase::Defaults | Phase::Version | Phase::Pmu) => "model".into(),
            Some(Phase::Machine) => "machine".into(),
            Some(Phase::Asked) => "switched-off".into(),
            Some(Phase::Dependency) => "dependency".into(),
            Some(Phase::Paravirtual) => "paravirtual-off".into(),
            Some(Phase::Conflict) => "conflict".into(),
            Some(Phase::Xsave) => "xsave-component".into(),
            Some(Phase::Level) => "level".into(),
            Some(Phase::LbrFmt) => "switched-off".into(),
            Some(Phase::Alias) => "alias".into(),
            Some(Phase::Filter) if self.came => self.fixup("fixup-removes"),
            Some(Phase::Max | Phase::Topology | Phase::CpuPm | Phase::Filter | Phase::ProcessorTrace) => {
                self.not_offered()
            }
        }
    }

    fn not_offered(&self) -> Reason {
        if self.trace.kvm { "not-offered".into() } else { "not-in-tcg".into() }
    }

    /// Offered, and never asked for.
    fn never_on(&self) -> Reason {
        let release = self.trace.release;
        if !self.trace.max {
            return if self.in_later_version() { "model-version".into() } else { "model".into() };
        }
        if self.is_set(&self.trace.machine_touched) {
            "machine".into()
        } else if self.is_set(&self.trace.touched) {
            "switched-off".into()
        } else if !self.is_set(&self.trace.supported) {
            self.fixup("fixup-removes")
        } else if qemu::no_autoenable(release, self.place) {
            "no-autoenable".into()
        } else if self.trace.migratable && qemu::name(release, self.place).is_none() {
            "unnamed".into()
        } else if self.trace.migratable && qemu::unmigratable(release, self.place) {
            "unmigratable".into()
        } else {
            self.fixup("fixup-removes")
        }
    }

    fn in_later_version(&self) -> bool {
        let Some(model) = self.trace.model else { return false };
        let mut names = model.versions(self.trace.release).flat_map(|version| version.properties);
        names.any(|&(name, value)| {
            value == "on" && qemu::places(self.trace.release, name).any(|place| place == self.place)
        })
    }

    /// The fix-up that made or took the bit, of which the last in the code wins.
    fn fixup(&self, when: &'static str) -> Reason {
        let wanted = if when == "fixup-adds" { FixupEffect::Adds } else { FixupEffect::Removes };
        let here = |fixup: &&qemu::Fixup| fixup.effect == wanted || fixup.effect == FixupEffect::Replaces;
        let cite = qemu::fixups(self.trace.release, self.place).filter(here).last().map(|fixup| fixup.cite);
        let alias = self.at == Some(FEAT_8000_0001_EDX.0) && matches!(self.place, Place::Cpuid(bit) if AMD_ALIASES >> bit.bit & 1 == 1);
        match cite {
            Some(_) if alias => Reason { when: "alias", cite: None },
            _ => Reason { when, cite },
        }
    }
}

/// The rule that speaks of this feature in this situation, of several the one about the same function; else the generic
/// one.
fn rule(feature: Option<&str>, release: usize, reason: &Reason) -> Option<&'static Rule> {
    let named = feature.into_iter().flat_map(|feature| rules::of_feature(Software::Qemu, feature));
    let fits = named.filter(|rule| rule.trees.contains(release) && rule.when == Some(reason.when));
    let best = fits.max_by_key(|rule| reason.cite.is_some_and(|cite| rule.cite == Cite(cite)));
    best.or_else(|| rules::generic(Software::Qemu, reason.when))
}
