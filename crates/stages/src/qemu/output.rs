//! What comes out of QEMU for one virtual machine.

use std::collections::BTreeMap;

use cpusieve_knowledge::qemu;
use cpusieve_model::{KvmCpuidEntry, Place, Step};

use super::assume::assumptions;
use super::instance::{Instance, Line};
use super::realize;
use super::refusal::Refusal;
use super::steps::steps;
use super::trace::Trace;
use super::words::Words;
use crate::linux::boot::Assumption;

/// What QEMU gives to the first vCPU, and what it prints on the way.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// The table of `KVM_SET_CPUID2` of vCPU 0, in QEMU's order; empty where QEMU ends before.
    pub cpuid: Vec<KvmCpuidEntry>,
    /// The feature MSRs that QEMU writes to vCPU 0; under TCG the microcode's revision, the one that its RDMSR
    /// answers with more than zero. Empty where QEMU ends before.
    pub msrs: BTreeMap<u32, u64>,
    /// The lines on standard error, without the program's name before them, the refusal excepted.
    pub warnings: Vec<String>,
    /// Why QEMU ends, if it does.
    pub error: Option<Refusal>,
    /// What was not seen and taken for granted.
    pub assumed: Vec<Assumption>,
    /// What the steps are read from; `None` where there was no CPU.
    pub(super) trace: Option<Trace>,
}

impl Output {
    /// Every feature property of the release, and whether it is on, as QMP's `qom-get` says of the CPU; empty where
    /// there was no CPU. A property of two bits is on if both are.
    #[must_use]
    pub fn properties(&self) -> BTreeMap<&'static str, bool> {
        let Some(trace) = &self.trace else { return BTreeMap::new() };
        let named = qemu::named_bits().filter(|(_, bit)| bit.named.contains(trace.release));
        let mut values: Vec<(&'static str, bool)> = Vec::with_capacity(512);
        for (name, bit) in named {
            let on = has(&trace.words, bit.place);
            match values.last_mut() {
                Some((last, all)) if *last == name => *all &= on,
                _ => values.push((name, on)),
            }
        }
        values.into_iter().collect()
    }

    /// What QEMU did to each bit that the accelerator offers, that was asked for, or that the vCPU is told; empty where
    /// there was no CPU.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        self.trace.as_ref().map(|trace| steps(trace, &self.cpuid)).unwrap_or_default()
    }

    /// The feature words of the vCPU (`env->features`), by position in [`qemu::WORD_ORDER`]; `None` where there was no CPU.
    #[must_use]
    pub fn words(&self) -> Option<&[u64; qemu::WORD_COUNT]> {
        self.trace.as_ref().map(|trace| &trace.words)
    }

    /// The bits that QEMU took out (`cpu->filtered_features`), by position in [`qemu::WORD_ORDER`]; `None` where there was
    /// no CPU.
    #[must_use]
    pub fn filtered_words(&self) -> Option<&[u64; qemu::WORD_COUNT]> {
        self.trace.as_ref().map(|trace| &trace.filtered)
    }

    /// The bits that were asked for and that QEMU took out (`filtered-features`), in the order of its words.
    pub fn filtered(&self) -> impl Iterator<Item = Place> {
        self.trace.iter().flat_map(|trace| set_bits(&trace.filtered))
    }

    /// The bits of QEMU's words that the vCPU has at the end (`feature-words`), in the order of its words; none where
    /// there was no CPU.
    pub fn features(&self) -> impl Iterator<Item = Place> {
        self.trace.iter().flat_map(|trace| set_bits(&trace.words))
    }
}

/// The bits that are set, in the order of the words.
pub(super) fn set_bits(words: &Words) -> impl Iterator<Item = Place> {
    qemu::WORD_ORDER
        .into_iter()
        .zip(words)
        .flat_map(|(word, &mask)| (0..64).filter(move |bit| mask >> bit & 1 == 1).map(move |bit| word.bit(bit)))
}

/// Whether a bit is set.
pub(super) fn has(words: &Words, place: Place) -> bool {
    let bit = match place {
        Place::Cpuid(bit) => bit.bit,
        Place::Msr(bit) => bit.bit,
        Place::Linux(_) => return false,
    };
    let at = qemu::Word::of(place).and_then(qemu::word_position);
    at.and_then(|at| words.get(at)).is_some_and(|word| word >> bit & 1 == 1)
}

/// The output of a QEMU that ends before it has a CPU.
pub(super) fn refused(warnings: Vec<String>, refusal: Refusal) -> Output {
    Output { warnings, error: Some(refusal), ..Output::default() }
}

/// The output of CPUs that were realized, or refused on the way; `last` is said when all of them are there.
pub(super) fn of(
    instance: Instance<'_>,
    mut warnings: Vec<String>,
    error: Option<Refusal>,
    (vcpus, last): (u32, Option<String>),
) -> Output {
    append(&mut warnings, &instance.lines, vcpus);
    warnings.extend(last);
    let mut output = Output { warnings, error, assumed: assumptions(&instance), ..Output::default() };
    if output.error.is_none() {
        match realize::vcpu(&instance) {
            Ok((cpuid, msrs)) => (output.cpuid, output.msrs) = (cpuid, msrs),
            Err(refusal) => output.error = Some(refusal),
        }
    }
    output.trace = Some(Trace::of(instance));
    output
}

/// The most lines that are repeated for vCPUs; more are cut off.
const MOST_LINES: usize = 100_000;

/// The first vCPU prints all lines, every other one those that repeat.
fn append(warnings: &mut Vec<String>, lines: &[Line], vcpus: u32) {
    warnings.extend(lines.iter().map(|line| line.text.clone()));
    let repeated = lines.iter().filter(|line| line.repeats);
    if repeated.clone().next().is_none() {
        return;
    }
    for _ in 1..vcpus {
        if warnings.len() >= MOST_LINES {
            return;
        }
        warnings.extend(repeated.clone().map(|line| line.text.clone()));
    }
}
