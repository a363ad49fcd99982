//! What came out of a boot: the lines, the steps and the assumptions.

use std::borrow::Cow;

use cpusieve_knowledge::rules::{Condition, Need, RULES, Rule};
use cpusieve_model::{CpuidBit, Effect, Evidence, Grounds, Place, Registers, Step};

use super::Output;
use super::capabilities::Capabilities;
use super::program::Row;
use super::state::{Boot, Mark, Marks};

/// Reads the result off a boot.
pub(super) fn output(boot: Boot<'_>) -> Output {
    let capabilities = Capabilities { words: boot.caps.0, bugs: boot.final_bugs() };
    let mut output = Output { bugs: boot.bug_names(), vmx_flags: boot.vmx_flags(), capabilities, ..Output::default() };
    output.steps.reserve(512);
    output.flags.reserve(256);
    output.hidden.reserve(64);
    let mut registers = Latest { boot: &boot, key: (0, 0), registers: None };
    for row in &boot.program.features {
        let present = boot.caps.has(row.number);
        if present && !row.feature.shadowed {
            match row.feature.shown {
                Some(name) => output.flags.push(name),
                None => output.hidden.push(row.feature.id()),
            }
        }
        push_step(&mut registers, row, present, &mut output.steps);
    }
    output.assumed = assumptions(boot);
    output
}

/// Adds the step of one capability; none for what CPUID does not announce and the kernel never had.
///
/// Steps are written where they stay: moving each twice would take longer than all the rest of a boot.
fn push_step(registers: &mut Latest<'_, '_>, row: &Row, present: bool, steps: &mut Vec<Step>) {
    let boot = registers.boot;
    let announced = boot.announced.has(row.number);
    let Some(&Marks { now: mark, open, .. }) = boot.marks.get(usize::from(row.number)) else { return };
    let (mark, effect) = match (announced, present) {
        (false, false) if open != Mark::None => (open, Effect::Unknown),
        // What the kernel had set by itself was cleared again.
        (false, false) if mark != Mark::None => (mark, Effect::Dropped),
        (false, false) => return,
        (true, false) => (mark, Effect::Dropped),
        (true, true) => (mark, Effect::Kept),
        (false, true) if boot.forced.has(row.number) => (mark, Effect::Forced),
        (false, true) => (mark, Effect::Added),
    };
    let Some(rule) = rule_of(boot, mark) else { return };
    let (feature, at) = (Cow::Borrowed(row.feature.id()), boot.input.at);
    let (rule_id, cite) = (rule.id, rule.cite);
    match row.place {
        Place::Cpuid(bit) if announced => {
            let (of, value) = (boot.input.of, registers.value(bit));
            let because = Grounds::one(Evidence::Register { of, answer: "CPUID", bit, value });
            steps.push(Step { feature, place: Some(row.place), at, effect, rule: rule_id, cite, because });
        }
        place => {
            let because = Grounds::NONE;
            steps.push(Step { feature, place: Some(place), at, effect, rule: rule_id, cite, because });
        }
    }
    let further = !matches!(mark, Mark::None | Mark::Word | Mark::Scattered);
    if let Some(step) = steps.last_mut().filter(|_| further) {
        add_because(registers, mark, rule, &mut step.because);
    }
}

/// The rule that a mark stands for.
fn rule_of(boot: &Boot<'_>, mark: Mark) -> Option<&'static Rule> {
    let generic = &boot.program.generic;
    match mark {
        Mark::None => None,
        Mark::Rule(index) => RULES.get(usize::from(index)),
        Mark::Word => generic.word,
        Mark::Scattered => generic.scattered,
        Mark::With(_) => generic.dependency,
        Mark::Level => generic.level,
        Mark::ClearCpuid => generic.clearcpuid,
        Mark::SetCpuid => generic.setcpuid,
    }
}

/// Adds the captured values on which a step rests beside what CPUID announced.
fn add_because(registers: &mut Latest<'_, '_>, mark: Mark, rule: &'static Rule, because: &mut Grounds) {
    let boot = registers.boot;
    let setting = |text: String| Evidence::Setting { source: "kernel command line", text };
    match mark {
        Mark::With(parent) => {
            let name = boot.program.row(parent).map(|row| row.feature.id());
            because.extend(name.map(|name| Evidence::Flag { of: boot.input.of, name: name.into(), printed: false }));
        }
        Mark::Level => because.push(Evidence::Setting {
            source: "CPUID",
            text: format!("0.EAX announces no leaf above {:X}H", boot.levels.0),
        }),
        Mark::ClearCpuid => {
            because.push(setting(format!("clearcpuid={}", boot.cmdline.value("clearcpuid").unwrap_or(""))))
        }
        Mark::SetCpuid => because.push(setting(format!("setcpuid={}", boot.cmdline.value("setcpuid").unwrap_or("")))),
        Mark::Rule(_) => because.extend(rule.needs.iter().filter_map(|need| evidence(registers, need))),
        Mark::None | Mark::Word | Mark::Scattered => {}
    }
}

/// What was seen of one condition, if it is something that a capture shows.
fn evidence(registers: &mut Latest<'_, '_>, need: &Need) -> Option<Evidence> {
    match need.condition {
        Condition::Cpuid(bit) => Some(registers.evidence(bit)),
        Condition::Field(field) => Some(registers.evidence(field.low)),
        Condition::Flag(id) => {
            Some(Evidence::Flag { of: registers.boot.input.of, name: id.into(), printed: !need.negated })
        }
        Condition::Vm => Some(registers.evidence(CpuidBit::new(1, 0, cpusieve_model::Register::Ecx, 31))),
        Condition::Param(words) if !need.negated => {
            Some(Evidence::Setting { source: "kernel command line", text: words.to_owned() })
        }
        _ => None,
    }
}

/// The registers that were asked last: neighbours in a word come from the same.
struct Latest<'b, 'a> {
    boot: &'b Boot<'a>,
    key: (u32, u32),
    registers: Option<Registers>,
}

impl Latest<'_, '_> {
    /// The register of a bit; `None` if its leaf was not seen.
    fn value(&mut self, bit: CpuidBit) -> Option<u32> {
        let key = (bit.leaf, bit.subleaf);
        if self.key != key || self.registers.is_none() {
            self.key = key;
            self.registers = self.boot.input.cpuid.get(bit.leaf, bit.subleaf);
        }
        self.registers.map(|registers| registers.get(bit.register))
    }

    fn evidence(&mut self, bit: CpuidBit) -> Evidence {
        let value = self.value(bit);
        Evidence::Register { of: self.boot.input.of, answer: "CPUID", bit, value }
    }
}

/// The assumptions, each with what hangs on it; those on which nothing hangs in the end are left out.
fn assumptions(mut boot: Boot<'_>) -> Vec<super::Assumption> {
    let noted = std::mem::take(&mut boot.assumptions.0);
    let mut assumed: Vec<super::Assumption> = noted.into_iter().map(|(_, assumption)| assumption).collect();
    let mut hang = |mut on: u64, id: &'static str| {
        while on != 0 {
            if let Some(assumption) = assumed.get_mut(on.trailing_zeros() as usize) {
                assumption.hangs.push(id);
            }
            on &= on - 1;
        }
    };
    for row in &boot.program.features {
        hang(boot.hangs(row.number), row.feature.id());
    }
    for &(bugs, on) in &boot.bug_hangs {
        let hanging = boot.program.bugs.iter().take(64).enumerate().filter(|(index, _)| bugs >> index & 1 == 1);
        hanging.filter_map(|(_, bug)| bug.shown).for_each(|name| hang(on, name));
    }
    assumed.retain(|assumption| !assumption.hangs.is_empty());
    assumed
}
