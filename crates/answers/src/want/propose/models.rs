//! Other CPU models, and other versions of the same.

use cpusieve_knowledge::qemu::{self, DefaultCpuVersion, Model, Resolved, Word};
use cpusieve_model::{Place, Vendor};

use super::Proposer;
use crate::predict::way::Accel;
use crate::want::change::{Change, ModelKind};

/// How many other models are tried for one bit: those that differ least from the one at hand.
const OTHER_MODELS: usize = 2;

impl Proposer<'_> {
    /// Models and versions that have a bit, or lack it.
    pub(super) fn models(&mut self, place: Place, on: bool) {
        let release = self.view.release();
        let Some(here) = qemu::resolve(release, &self.cpu.model) else { return };
        let default = self.view.found.vcpu.machine.default_cpu_version;
        let number = here.version_on(release, default).unwrap_or(1);
        let versions = here.model.versions(release).map(|version| version.number).filter(|&other| other != number);
        let fits = |&version: &u8| has(here.model, release, Some(version), place) == on;
        // The nearest version: one that is newer, else the last before.
        let mut versions: Vec<u8> = versions.filter(fits).collect();
        versions.sort_by_key(|&version| (version < number, version.abs_diff(number)));
        if let Some(version) = versions.first() {
            let to = format!("{}-v{version}", here.model.name);
            self.change(Change::Model { to, kind: ModelKind::Version });
        }
        self.other_models(release, default, here, place, on);
        if on {
            self.host_model();
        }
    }

    /// Models of the guest's vendor: those with which the fewest features are asked for in vain or given up, and of these
    /// the most similar.
    fn other_models(&mut self, release: usize, default: DefaultCpuVersion, here: Resolved, place: Place, on: bool) {
        let vendor = self.view.found.cpuid.vendor();
        let version = |model: &'static Model| Resolved { model, version: None }.version_on(release, default);
        let fitting = qemu::models(release).filter(|other| {
            Some(Vendor::from_string(other.vendor)) == vendor
                && other.name != here.model.name
                && other.deprecated.is_none()
                && has(other, release, version(other), place) == on
        });
        let mut fitting: Vec<(u32, u32, &str)> = fitting
            .map(|other| (self.lacking(other) + lost(here.model, other), distance(here.model, other), other.name))
            .collect();
        fitting.sort_unstable();
        for (.., name) in fitting.into_iter().take(OTHER_MODELS) {
            self.change(Change::Model { to: name.to_owned(), kind: ModelKind::Other });
        }
    }

    /// How many bits of a model KVM does not offer. The words of VMX are left out: KVM says of them what may be on, and
    /// what must.
    fn lacking(&self, model: &Model) -> u32 {
        const VMX: std::ops::RangeInclusive<u32> = 0x480..=0x491;
        let Some(kvm) = &self.view.found.vcpu.kvm else { return 0 };
        let Some(table) = kvm.view.supported_table() else { return 0 };
        let msrs = kvm.view.msr_features.as_ref();
        let offered = |word: Word| match word {
            Word::Cpuid { leaf, subleaf, register } => {
                u64::from(table.get(leaf, subleaf).map_or(0, |registers| registers.get(register)))
            }
            Word::Msr { index } if VMX.contains(&index) => u64::MAX,
            Word::Msr { index } => msrs.and_then(|msrs| msrs.get(&index)).copied().unwrap_or(0),
        };
        model.words.iter().map(|&(word, value)| (value & !offered(word)).count_ones()).sum()
    }

    /// `-cpu host`, which KVM alone has.
    pub(super) fn host_model(&mut self) {
        if self.settings.accel == Accel::Kvm && !matches!(self.cpu.model.as_str(), "host" | "max") {
            self.change(Change::Model { to: "host".to_owned(), kind: ModelKind::Host });
        }
    }
}

/// Whether a model has a bit in a version: by its definition, then by the properties of versions up to that one.
fn has(model: &Model, release: usize, version: Option<u8>, place: Place) -> bool {
    let position = match place {
        Place::Cpuid(bit) => bit.bit,
        Place::Msr(bit) => bit.bit,
        Place::Linux(_) => return false,
    };
    let defined = Word::of(place).is_some_and(|word| model.word(word) >> position & 1 == 1);
    let up_to = model.versions(release).filter(|known| version.is_some_and(|version| known.number <= version));
    let properties = up_to.flat_map(|version| version.properties);
    let said = properties.filter(|(name, _)| qemu::places(release, name).any(|other| other == place));
    said.last().map_or(defined, |(_, value)| *value == "on")
}

/// The words of either of two models.
fn words(one: &Model, other: &Model) -> Vec<Word> {
    let mut words: Vec<Word> = one.words.iter().chain(other.words).map(|(word, _)| *word).collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// In how many bits of their definitions two models differ.
fn distance(one: &Model, other: &Model) -> u32 {
    words(one, other).into_iter().map(|word| (one.word(word) ^ other.word(word)).count_ones()).sum()
}

/// How many bits one model has and the other lacks.
fn lost(one: &Model, other: &Model) -> u32 {
    words(one, other).into_iter().map(|word| (one.word(word) & !other.word(word)).count_ones()).sum()
}
