//! The steps of this stage: which of QEMU's functions kept, dropped or added each bit, read off the words after each.

use std::borrow::Cow;
use std::sync::LazyLock;

use cpusieve_knowledge::qemu::{self, Bit, FixupEffect, WORD_ORDER, Word};
use cpusieve_knowledge::rules::{self, Rule, Software};
use cpusieve_knowledge::x86::{self, Feature};
use cpusieve_model::{Cite, Effect, Evidence, Grounds, KvmCpuidEntry, Place, Stage, Step};

use super::history::Phase;
use super::home::home;
use super::trace::{Register, Trace, first_entries};
use super::words::{AMD_ALIASES, FEAT_1_ECX, FEAT_8000_0001_EDX};

/// A situation that rules speak of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Passed,
    WordUnknown,
    ConstantLeaf,
    TopologyAdds,
    Level,
    Model,
    ModelVersion,
    Alias,
    Asked,
    Forced,
    Machine,
    MachineAdds,
    FixupAdds,
    FixupRemoves,
    SwitchedOff,
    Dependency,
    ParavirtualOff,
    Conflict,
    XsaveComponent,
    NotOffered,
    NotInTcg,
    NoAutoenable,
    Unnamed,
    Unmigratable,
}

impl When {
    /// All, in their order, each with the word of the rules.
    const ALL: [(Self, &'static str); 24] = [
        (Self::Passed, "passed"),
        (Self::WordUnknown, "word-unknown"),
        (Self::ConstantLeaf, "constant-leaf"),
        (Self::TopologyAdds, "topology-adds"),
        (Self::Level, "level"),
        (Self::Model, "model"),
        (Self::ModelVersion, "model-version"),
        (Self::Alias, "alias"),
        (Self::Asked, "asked"),
        (Self::Forced, "forced"),
        (Self::Machine, "machine"),
        (Self::MachineAdds, "machine-adds"),
        (Self::FixupAdds, "fixup-adds"),
        (Self::FixupRemoves, "fixup-removes"),
        (Self::SwitchedOff, "switched-off"),
        (Self::Dependency, "dependency"),
        (Self::ParavirtualOff, "paravirtual-off"),
        (Self::Conflict, "conflict"),
        (Self::XsaveComponent, "xsave-component"),
        (Self::NotOffered, "not-offered"),
        (Self::NotInTcg, "not-in-tcg"),
        (Self::NoAutoenable, "no-autoenable"),
        (Self::Unnamed, "unnamed"),
        (Self::Unmigratable, "unmigratable"),
    ];
}

/// What happened to a bit: the situation, and where it happens if several rules speak of it.
#[derive(Clone, Copy)]
struct Reason {
    when: When,
    cite: Option<&'static str>,
}

impl From<When> for Reason {
    fn from(when: When) -> Self {
        Self { when, cite: None }
    }
}

/// One feature word on its way through QEMU.
struct Passage<'t> {
    trace: &'t Trace,
    /// Its position in [`WORD_ORDER`].
    at: usize,
    word: Word,
    /// Whether the release has it.
    known: bool,
    /// What the accelerator itself offers.
    came: u64,
    /// What the vCPU is told.
    told: u64,
    /// What is known of its bits.
    rows: &'static [Row; 64],
    /// The last step that changed each bit.
    changes: [Option<Phase>; 64],
    /// The bits that a version of the model sets which is later than the one that was asked for.
    later: u64,
}

/// The steps of all bits that were offered, asked for or told.
pub(super) fn steps(trace: &Trace, table: &[KvmCpuidEntry]) -> Vec<Step> {
    let mut steps = Vec::with_capacity(400);
    let later = trace.later_versions();
    let table = first_entries(table);
    for (at, (word, rows)) in WORD_ORDER.into_iter().zip(ROWS.iter()).enumerate() {
        let Register { came, told } = trace.word(at, word, &table);
        let known = qemu::has_word(trace.release, at);
        let asked = if known { trace.ever_asked(at) } else { 0 };
        let mask = came | told | asked;
        if mask == 0 {
            continue;
        }
        let (later, changes) = (later.get(at).copied().unwrap_or(0), trace.last_changes(at));
        let passage = Passage { trace, at, word, known, came, told, rows, changes, later };
        let mut rest: u64 = mask;
        while rest != 0 {
            passage.push_step(rest.trailing_zeros() as u8, &mut steps);
            rest &= rest - 1;
        }
    }
    for (place, feature, Register { came, told }) in trace.elsewhere(&table) {
        let (bit, place) = (place.bit, Place::Cpuid(place));
        let is_told = told >> bit & 1 == 1;
        let reason = if is_told { When::Passed.into() } else { unknown_register(trace.release, place) };
        let effect = effect(came >> bit & 1 == 1, is_told, reason);
        let named = Named { place, name: Cow::Borrowed(feature.id), feature: Some(feature), came };
        push_step(trace, named, effect, reason, &mut steps);
    }
    steps
}

impl Passage<'_> {
    fn push_step(&self, bit: u8, steps: &mut Vec<Step>) {
        let place = self.word.bit(bit);
        let reason = self.reason(bit, place);
        let effect = effect(self.came >> bit & 1 == 1, self.told >> bit & 1 == 1, reason);
        let feature = self.rows.get(usize::from(bit)).and_then(|row| row.feature);
        let name = match (feature, self.name(bit)) {
            (Some(feature), _) => Cow::Borrowed(feature.id),
            (None, Some(name)) => Cow::Borrowed(name),
            (None, None) => Cow::Owned(place.short()),
        };
        push_step(self.trace, Named { place, name, feature, came: self.came }, effect, reason, steps);
    }

    /// What the release's tables say of a bit.
    fn row(&self, bit: u8) -> Option<&'static Bit> {
        self.rows.get(usize::from(bit)).and_then(|row| row.bit)
    }

    /// QEMU's name for a bit in the release.
    fn name(&self, bit: u8) -> Option<&'static str> {
        self.row(bit).filter(|row| row.named.contains(self.trace.release)).and_then(|row| row.name)
    }

    /// The last step that changed a bit; `None` if it was never on.
    fn last_change(&self, bit: u8) -> Option<Phase> {
        self.changes.get(usize::from(bit)).copied().flatten()
    }

    fn reason(&self, bit: u8, place: Place) -> Reason {
        let is = |words: &super::words::Words| words.get(self.at).is_some_and(|word| word >> bit & 1 == 1);
        let told = self.told >> bit & 1 == 1;
        match (self.known, is(&self.trace.words), told) {
            (false, _, true) => When::Passed.into(),
            (false, _, false) => unknown_register(self.trace.release, place),
            (true, false, true) => When::TopologyAdds.into(),
            (true, true, false) => self.hidden(bit),
            (true, true, true) => self.why_on(bit, place, is(&self.trace.supported)),
            (true, false, false) => self.why_off(bit, place),
        }
    }

    /// On in the word, off in the leaf: PDCM without a PMU before 10.1, else a leaf above the level.
    fn hidden(&self, bit: u8) -> Reason {
        if self.at == FEAT_1_ECX.0 && bit == 15 { When::Model.into() } else { When::Level.into() }
    }

    fn why_on(&self, bit: u8, place: Place, supported: bool) -> Reason {
        let came = self.came >> bit & 1 == 1;
        match self.last_change(bit) {
            Some(Phase::Topology) if !came => When::TopologyAdds.into(),
            Some(Phase::Alias) => When::Alias.into(),
            Some(Phase::CpuPm) => When::Asked.into(),
            _ if !supported && self.trace.forced => When::Forced.into(),
            Some(Phase::Asked) => When::Asked.into(),
            Some(Phase::Machine) => When::MachineAdds.into(),
            _ if came => When::Passed.into(),
            _ => self.fixup(When::FixupAdds, bit, place),
        }
    }

    fn why_off(&self, bit: u8, place: Place) -> Reason {
        let came = self.came >> bit & 1 == 1;
        match self.last_change(bit) {
            None => self.never_on(bit, place),
            Some(Phase::Model | Phase::Defaults | Phase::Version | Phase::Pmu) => When::Model.into(),
            Some(Phase::Machine) => When::Machine.into(),
            Some(Phase::Asked | Phase::LbrFmt) => When::SwitchedOff.into(),
            Some(Phase::Dependency) => When::Dependency.into(),
            Some(Phase::Paravirtual) => When::ParavirtualOff.into(),
            Some(Phase::Conflict) => When::Conflict.into(),
            Some(Phase::Xsave) => When::XsaveComponent.into(),
            Some(Phase::Level) => When::Level.into(),
            Some(Phase::Alias) => When::Alias.into(),
            Some(Phase::Filter) if came => self.fixup(When::FixupRemoves, bit, place),
            Some(Phase::Max | Phase::Topology | Phase::CpuPm | Phase::Filter | Phase::ProcessorTrace) => {
                if self.trace.kvm { When::NotOffered.into() } else { When::NotInTcg.into() }
            }
        }
    }

    /// Offered, and never on.
    fn never_on(&self, bit: u8, place: Place) -> Reason {
        let trace = self.trace;
        let is = |words: &super::words::Words| words.get(self.at).is_some_and(|word| word >> bit & 1 == 1);
        let row = |set: fn(&Bit) -> cpusieve_knowledge::TreeSet| {
            self.row(bit).is_some_and(|row| set(row).contains(trace.release))
        };
        if !trace.max {
            if self.later >> bit & 1 == 1 { When::ModelVersion.into() } else { When::Model.into() }
        } else if is(&trace.machine_touched) {
            When::Machine.into()
        } else if is(&trace.touched) {
            When::SwitchedOff.into()
        } else if is(&trace.supported) && row(|row| row.no_autoenable) {
            When::NoAutoenable.into()
        } else if is(&trace.supported) && trace.migratable && self.name(bit).is_none() {
            When::Unnamed.into()
        } else if is(&trace.supported) && trace.migratable && row(|row| row.unmigratable) {
            When::Unmigratable.into()
        } else {
            self.fixup(When::FixupRemoves, bit, place)
        }
    }

    /// The fix-up that made or took the bit, of which the last in the code wins.
    fn fixup(&self, when: When, bit: u8, place: Place) -> Reason {
        if self.at == FEAT_8000_0001_EDX.0 && AMD_ALIASES >> bit & 1 == 1 {
            return When::Alias.into();
        }
        let wanted = if when == When::FixupAdds { FixupEffect::Adds } else { FixupEffect::Removes };
        let here = |fixup: &&qemu::Fixup| fixup.effect == wanted || fixup.effect == FixupEffect::Replaces;
        let cite = qemu::fixups(self.trace.release, place).filter(here).last().map(|fixup| fixup.cite);
        Reason { when, cite }
    }
}

fn effect(came: bool, told: bool, reason: Reason) -> Effect {
    match (came, told) {
        (true, true) => Effect::Kept,
        (_, false) => Effect::Dropped,
        (false, true) if reason.when == When::Forced => Effect::Forced,
        (false, true) => Effect::Added,
    }
}

/// A register without a word: QEMU fills it by itself, or leaves it out.
fn unknown_register(release: usize, place: Place) -> Reason {
    let constant = |row: &qemu::Constant| row.releases.contains(release) && Some(row.word) == Word::of(place);
    if qemu::CONSTANTS.iter().any(constant) { When::ConstantLeaf.into() } else { When::WordUnknown.into() }
}

/// A bit and what it is called.
struct Named {
    place: Place,
    name: Cow<'static, str>,
    feature: Option<&'static Feature>,
    /// The whole register, as the accelerator offers it.
    came: u64,
}

/// What the tables know of a bit of a word.
#[derive(Clone, Copy, Default)]
struct Row {
    /// What QEMU's say of it.
    bit: Option<&'static Bit>,
    /// What all software calls it.
    feature: Option<&'static Feature>,
}

/// The bits of each word, by its position in [`WORD_ORDER`].
static ROWS: LazyLock<Vec<[Row; 64]>> = LazyLock::new(|| {
    let rows = |word: Word| {
        let mut rows = [Row::default(); 64];
        for bit in word.bits() {
            if let Some(row) = rows.get_mut(usize::from(bit.position())) {
                row.bit = Some(bit);
            }
        }
        for (place, feature) in x86::of_register(word.bit(0)) {
            let bit = match place {
                Place::Cpuid(bit) => bit.bit,
                Place::Msr(bit) => bit.bit,
                Place::Linux(_) => continue,
            };
            if let Some(row) = rows.get_mut(usize::from(bit)) {
                row.feature = Some(feature);
            }
        }
        rows
    };
    WORD_ORDER.into_iter().map(rows).collect()
});

/// The rules of a situation.
#[derive(Clone, Copy)]
struct Situation {
    /// The word of the rules.
    word: &'static str,
    /// Whether rules of single features speak of it.
    named: bool,
    generic: Option<&'static Rule>,
}

/// What QEMU's rules say of each situation, in the order of [`When::ALL`].
static SITUATIONS: LazyLock<[Situation; When::ALL.len()]> = LazyLock::new(|| {
    let mut situations =
        When::ALL.map(|(_, word)| Situation { word, named: false, generic: rules::generic(Software::Qemu, word) });
    for rule in rules::RULES.iter().filter(|rule| rule.software == Software::Qemu && !rule.features.is_empty()) {
        let speaks = situations.iter_mut().filter(|situation| rule.when == Some(situation.word));
        speaks.for_each(|situation| situation.named = true);
    }
    situations
});

/// Adds a step, if a rule speaks of it. It is written where it stays, for moving it would take longer than deciding it.
fn push_step(trace: &Trace, named: Named, effect: Effect, reason: Reason, steps: &mut Vec<Step>) {
    let Some(rule) = rule(named.feature, trace.release, reason) else { return };
    let (feature, place, at) = (named.name, Some(named.place), Stage::Qemu);
    let (rule, cite) = (rule.id, home(reason.cite.map_or(rule.cite, Cite), trace.release));
    match named.place {
        Place::Cpuid(bit) if trace.kvm => {
            let value = u32::try_from(named.came).ok();
            let because =
                Grounds::one(Evidence::Register { of: "host", answer: "KVM_GET_SUPPORTED_CPUID", bit, value });
            steps.push(Step { feature, place, at, effect, rule, cite, because });
        }
        _ => steps.push(Step { feature, place, at, effect, rule, cite, because: Grounds::NONE }),
    }
    let setting = match reason.when {
        When::Asked | When::SwitchedOff | When::Forced | When::ParavirtualOff => ("-cpu", trace.cpu.as_str()),
        When::Machine | When::MachineAdds => ("-machine", trace.machine),
        _ => return,
    };
    if let Some(step) = steps.last_mut() {
        let (source, text) = setting;
        step.because.push(Evidence::Setting { source, text: text.to_owned() });
    }
}

/// The rule that speaks of this feature in this situation, of several the one about the same function; else the generic
/// one.
fn rule(feature: Option<&'static Feature>, release: usize, reason: Reason) -> Option<&'static Rule> {
    let Situation { word, named, generic } = SITUATIONS[reason.when as usize];
    let best = feature
        .filter(|_| named)
        .into_iter()
        .flat_map(|feature| rules::of_feature(Software::Qemu, feature.id))
        .filter(|rule| rule.trees.contains(release) && rule.when == Some(word))
        .max_by_key(|rule| reason.cite.is_some_and(|cite| rule.cite == Cite(cite)));
    best.or(generic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn situations_stand_at_their_place_and_rules_speak_of_each() {
        for (position, (when, word)) in When::ALL.into_iter().enumerate() {
            assert_eq!(when as usize, position, "{word}");
            assert!(
                rules::RULES.iter().any(|rule| rule.software == Software::Qemu && rule.when == Some(word)),
                "{word}"
            );
        }
    }
}
