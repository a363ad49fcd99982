//! What comes out of QEMU for one virtual machine.

use std::collections::BTreeMap;

use cpusieve_knowledge::qemu::{self, Model, Word};
use cpusieve_knowledge::x86;
use cpusieve_model::{CpuidBit, KvmCpuidEntry, Place, Step};

use super::assume::assumptions;
use super::history::History;
use super::instance::{Class, Instance, Line};
use super::realize;
use super::refusal::Refusal;
use super::steps::steps;
use super::words::{W, Words};
use crate::linux::boot::Assumption;

/// What QEMU gives to the first vCPU, and what it prints on the way.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// The table of `KVM_SET_CPUID2` of vCPU 0, in QEMU's order; empty where QEMU ends before.
    pub cpuid: Vec<KvmCpuidEntry>,
    /// The feature MSRs that QEMU writes to vCPU 0; empty under TCG and where QEMU ends before.
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

/// The words of a CPU from its model to its vCPU.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    pub release: usize,
    /// Whether KVM is the accelerator.
    pub kvm: bool,
    /// The text of `-cpu`.
    pub cpu: String,
    /// The machine type's name.
    pub machine: &'static str,
    /// The built-in model.
    pub model: Option<&'static Model>,
    /// Whether the model is `host` or `max`.
    pub max: bool,
    /// `migratable=on`
    pub migratable: bool,
    /// `x-force-features=on`
    pub forced: bool,
    /// What the accelerator itself offers.
    pub offered: Words,
    /// What the accelerator supports once QEMU has made its changes.
    pub supported: Words,
    /// The bits that the machine type set or cleared.
    pub machine_touched: Words,
    /// The bits that machine type or `-cpu` set or cleared.
    pub touched: Words,
    /// `env->features` at the end.
    pub words: Words,
    /// What the vCPU is told.
    pub told: Words,
    /// Bits of registers without a word: whether KVM offers them, whether the vCPU is told them.
    pub elsewhere: Vec<(Place, bool, bool)>,
    /// `cpu->filtered_features`
    pub filtered: Words,
    pub history: History,
}

impl Output {
    /// Every feature property of the release, and whether it is on, as QMP's `qom-get` says of the CPU; empty where
    /// there was no CPU. A property of two bits is on if both are.
    #[must_use]
    pub fn properties(&self) -> BTreeMap<&'static str, bool> {
        let mut properties = BTreeMap::new();
        let Some(trace) = &self.trace else { return properties };
        for bit in qemu::bits().iter().filter(|bit| bit.named.contains(trace.release)) {
            if let Some(name) = bit.name {
                let on = has(&trace.words, bit.place);
                properties.entry(name).and_modify(|all| *all &= on).or_insert(on);
            }
        }
        properties
    }

    /// What QEMU did to each bit that the accelerator offers, that was asked for, or that the vCPU is told; empty where
    /// there was no CPU.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        self.trace.as_ref().map(steps).unwrap_or_default()
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

/// The output of a CPU that was realized, or refused on the way.
pub(super) fn of(instance: Instance<'_>, mut warnings: Vec<String>, error: Option<Refusal>) -> Output {
    let vcpus = if error.is_some() { 1 } else { instance.cpu.question.smp.cpus.max(1) };
    append(&mut warnings, &instance.lines, vcpus);
    let mut output = Output { warnings, error, assumed: assumptions(&instance), ..Output::default() };
    if output.error.is_none() {
        match realize::vcpu(&instance) {
            Ok((cpuid, msrs)) => (output.cpuid, output.msrs) = (cpuid, msrs),
            Err(refusal) => output.error = Some(refusal),
        }
    }
    output.trace = Some(trace(instance, &output.cpuid));
    output
}

/// Takes an instance apart.
fn trace(instance: Instance<'_>, table: &[KvmCpuidEntry]) -> Trace {
    let told = told(&instance, table);
    let offered = std::array::from_fn(|at| instance.offer.offered(instance.program, W(at)));
    let question = instance.cpu.question;
    Trace {
        release: question.release,
        kvm: instance.is_kvm(),
        cpu: question.cpu.to_owned(),
        machine: question.machine.name,
        model: match instance.class {
            Class::Model(resolved) => Some(resolved.model),
            _ => None,
        },
        max: instance.is_max(),
        migratable: instance.cpu.properties.migratable,
        forced: instance.cpu.properties.force_features,
        offered,
        supported: instance.supported,
        machine_touched: instance.machine_touched,
        touched: instance.user,
        words: instance.cpu.words,
        told,
        elsewhere: elsewhere(&instance, table),
        filtered: instance.filtered,
        history: instance.history,
    }
}

/// The words as the vCPU is told them: CPUID as the table has it, MSRs as the words are. Without a table, the words.
fn told(instance: &Instance<'_>, table: &[KvmCpuidEntry]) -> Words {
    let mut told = instance.cpu.words;
    if table.is_empty() {
        return told;
    }
    for (slot, word) in told.iter_mut().zip(qemu::WORD_ORDER) {
        if let Word::Cpuid { leaf, subleaf, register } = word {
            *slot = entry(table, leaf, subleaf).map_or(0, |entry| u64::from(entry.registers.get(register)));
        }
    }
    told
}

/// The table's entry of a leaf. With Hyper-V's leaves in their place KVM's own start at 40000100H.
fn entry(table: &[KvmCpuidEntry], leaf: u32, subleaf: u32) -> Option<&KvmCpuidEntry> {
    let find = |leaf| table.iter().find(|entry| entry.leaf == leaf && entry.subleaf == subleaf);
    let moved = if leaf == 0x4000_0001 { find(0x4000_0101) } else { None };
    moved.or_else(|| find(leaf))
}

/// The features that live in registers without a word in any release.
fn elsewhere(instance: &Instance<'_>, table: &[KvmCpuidEntry]) -> Vec<(Place, bool, bool)> {
    let places = x86::FEATURES.iter().filter_map(x86::Feature::place);
    let bits = places.filter_map(|place| match place {
        Place::Cpuid(bit) if Word::of(place).and_then(qemu::word_position).is_none() => {
            let came = instance.offer.host.offered(bit.leaf, bit.subleaf, bit.register) >> bit.bit & 1 == 1;
            let told = entry(table, bit.leaf, bit.subleaf);
            let told = told.is_some_and(|entry| entry.registers.get(bit.register) >> bit.bit & 1 == 1);
            (came || told).then_some((place, came, told))
        }
        _ => None,
    });
    bits.collect()
}

impl Trace {
    /// KVM's value of the register in which a bit lies.
    pub fn offered_register(&self, bit: CpuidBit) -> Option<u32> {
        let word = Word::Cpuid { leaf: bit.leaf, subleaf: bit.subleaf, register: bit.register };
        let value = *self.offered.get(qemu::word_position(word)?)?;
        u32::try_from(value).ok()
    }
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
