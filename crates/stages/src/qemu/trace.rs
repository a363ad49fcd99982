//! What the steps are read from: the words of a CPU from its model to its vCPU.

use std::sync::LazyLock;

use cpusieve_knowledge::qemu::{self, Model, WORD_COUNT, Word};
use cpusieve_knowledge::x86::{self, Feature};
use cpusieve_model::{CpuidBit, CpuidEntry, CpuidTable, KvmCpuidEntry, Place, Registers};

use super::history::{History, Phase};
use super::instance::{Class, Instance};
use super::words::{W, Words};

/// A CPU object after QEMU is done with it.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    pub release: usize,
    /// Whether KVM is the accelerator.
    pub kvm: bool,
    /// The text of `-cpu`.
    pub cpu: String,
    /// The machine type's name.
    pub machine: &'static str,
    /// The built-in model, and the version of it.
    model: Option<(&'static Model, u8)>,
    /// Whether the model is `host` or `max`.
    pub max: bool,
    /// `migratable=on`
    pub migratable: bool,
    /// `x-force-features=on`
    pub forced: bool,
    /// `KVM_GET_SUPPORTED_CPUID`
    kvm_table: CpuidTable,
    /// What the accelerator itself offers of MSRs, and TCG of everything.
    other_offers: Words,
    /// What the accelerator supports once QEMU has made its changes.
    pub supported: Words,
    /// The bits that the machine type set or cleared.
    pub machine_touched: Words,
    /// The bits that machine type or `-cpu` set or cleared.
    pub touched: Words,
    /// `env->features` at the end.
    pub words: Words,
    /// `cpu->filtered_features`
    pub filtered: Words,
    history: History,
}

/// A register, or one bit of it: as the accelerator offers it, and as the vCPU is told it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Register {
    pub came: u64,
    pub told: u64,
}

impl Trace {
    /// Takes an instance apart.
    pub(super) fn of(instance: Instance<'_>) -> Self {
        let question = instance.cpu.question;
        let version = |resolved: qemu::Resolved| {
            resolved.version_on(question.release, question.machine.default_cpu_version).unwrap_or(0)
        };
        let supported = instance.offer.host.kvm().and_then(|kvm| kvm.supported.as_deref());
        let kvm = instance.is_kvm();
        let offer = |at: usize| match qemu::WORD_ORDER.get(at) {
            Some(Word::Cpuid { .. }) if kvm => 0,
            _ => instance.offer.offered(instance.program, W(at)),
        };
        Self {
            release: question.release,
            kvm,
            cpu: question.cpu.to_owned(),
            machine: question.machine.name,
            model: match instance.class {
                Class::Model(resolved) => Some((resolved.model, version(resolved))),
                _ => None,
            },
            max: instance.is_max(),
            migratable: instance.cpu.properties.migratable,
            forced: instance.cpu.properties.force_features,
            kvm_table: first_entries(supported.unwrap_or_default()),
            other_offers: std::array::from_fn(offer),
            supported: instance.supported,
            machine_touched: instance.machine_touched,
            touched: instance.user,
            words: instance.cpu.words,
            filtered: instance.filtered,
            history: instance.history,
        }
    }

    /// KVM's own answer to a leaf, the first entry of it.
    pub(super) fn offered(&self, leaf: u32, subleaf: u32) -> Option<Registers> {
        self.kvm_table.get(leaf, subleaf)
    }

    /// A word: of CPUID as KVM's table and the vCPU's have it, else as the words are. Where QEMU ended before it had a
    /// table, what it would have told.
    pub(super) fn word(&self, at: usize, word: Word, table: &CpuidTable) -> Register {
        let of = |words: &Words| words.get(at).copied().unwrap_or(0);
        let (mut came, mut told) = (of(&self.other_offers), of(&self.words));
        if let Word::Cpuid { leaf, subleaf, register } = word {
            let value = |registers: Registers| u64::from(registers.get(register));
            if self.kvm {
                came = self.offered(leaf, subleaf).map_or(0, value);
            }
            if !table.is_empty() {
                told = entry(table, leaf, subleaf).map_or(0, value);
            }
        }
        Register { came, told }
    }

    /// The features of CPUID that live in registers without a word in any release, where either side has them.
    pub(super) fn elsewhere(&self, table: &CpuidTable) -> Vec<(CpuidBit, &'static Feature, Register)> {
        let mut found = Vec::new();
        let mut last = None;
        for &(bit, feature) in WORDLESS.iter() {
            let CpuidBit { leaf, subleaf, register, .. } = bit;
            let word = Word::Cpuid { leaf, subleaf, register };
            let values = match last {
                Some((same, values)) if same == word => values,
                _ => self.word(WORD_COUNT, word, table),
            };
            last = Some((word, values));
            if (values.came | values.told) >> bit.bit & 1 == 1 {
                found.push((bit, feature, values));
            }
        }
        found
    }

    /// The bits of a word that were on after any step.
    pub(super) fn ever_asked(&self, at: usize) -> u64 {
        let word = |words: &Words| words.get(at).copied().unwrap_or(0);
        self.history.steps().iter().fold(0, |mask, (_, words)| mask | word(words))
    }

    /// The last step that changed each bit of a word; `None` if it was never on.
    pub(super) fn last_changes(&self, at: usize) -> [Option<Phase>; 64] {
        let mut last = [None; 64];
        let mut before = 0;
        for (phase, words) in self.history.steps() {
            let now = words.get(at).copied().unwrap_or(0);
            let mut changed: u64 = before ^ now;
            while changed != 0 {
                if let Some(slot) = last.get_mut(changed.trailing_zeros() as usize) {
                    *slot = Some(*phase);
                }
                changed &= changed - 1;
            }
            before = now;
        }
        last
    }

    /// The bits that versions of the model set which are later than the one that was asked for.
    pub(super) fn later_versions(&self) -> Words {
        let mut later = [0; WORD_COUNT];
        let Some((model, version)) = self.model else { return later };
        let versions = model.versions(self.release).filter(|known| known.number > version);
        for (name, _) in versions.flat_map(|known| known.properties).filter(|(_, value)| *value == "on") {
            for place in qemu::places(self.release, name) {
                let bit = match place {
                    Place::Cpuid(bit) => bit.bit,
                    Place::Msr(bit) => bit.bit,
                    Place::Linux(_) => continue,
                };
                let at = Word::of(place).and_then(qemu::word_position);
                if let Some(slot) = at.and_then(|at| later.get_mut(at)) {
                    *slot |= 1 << bit;
                }
            }
        }
        later
    }
}

/// The table's entry of a leaf. With Hyper-V's leaves in their place KVM's own start at 40000100H.
fn entry(table: &CpuidTable, leaf: u32, subleaf: u32) -> Option<Registers> {
    let moved = if leaf == 0x4000_0001 { table.get(0x4000_0101, subleaf) } else { None };
    moved.or_else(|| table.get(leaf, subleaf))
}

/// Entries by leaf and subleaf; of several for the same, the first.
pub(super) fn first_entries(entries: &[KvmCpuidEntry]) -> CpuidTable {
    let plain =
        |entry: &KvmCpuidEntry| CpuidEntry { leaf: entry.leaf, subleaf: entry.subleaf, registers: entry.registers };
    let mut sorted: Vec<CpuidEntry> = entries.iter().map(plain).collect();
    // The sort keeps the order of equals.
    sorted.sort_by_key(|entry| (entry.leaf, entry.subleaf));
    sorted.dedup_by_key(|entry| (entry.leaf, entry.subleaf));
    sorted.into_iter().collect()
}

/// The features of CPUID that live in registers without a word in any release, by place.
static WORDLESS: LazyLock<Vec<(CpuidBit, &'static Feature)>> = LazyLock::new(|| {
    let mut found = Vec::new();
    let mut last = None;
    for (place, feature) in x86::places() {
        let Some(bit) = place.cpuid() else { continue };
        let word = Word::of(place);
        // Places stand in their order: neighbours are mostly of the same word.
        let wordless = match last {
            Some((same, wordless)) if same == word => wordless,
            _ => word.and_then(qemu::word_position).is_none(),
        };
        last = Some((word, wordless));
        if wordless {
            found.push((bit, feature));
        }
    }
    found
});
