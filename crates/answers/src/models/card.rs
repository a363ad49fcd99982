//! One name of `-cpu`: what it means, what is in it, what is taken from it here, and why.

use cpusieve_knowledge::qemu::{self, Caches, CompatProperty, DefaultCpuVersion, Machine, Model, RELEASES, Version};
use cpusieve_knowledge::rules::{self, Software};
use cpusieve_model::{Effect, Evidence, Grounds, Place, Stage, State, Step};
use cpusieve_stages::qemu::{Accelerator, Definition, Output, definition, realize};

use super::compare::{Comparison, Feature, compare, features};
use super::level::{self, Level};
use super::{Entry, NoModel, Setting, catalogue_of, compat, exists, name_of, unknown};
use crate::predict::kvm::KvmPrediction;
use crate::reason::{self, Reason};

/// What a name says of the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// It is in the name: `Haswell-v2`.
    Version,
    /// It is the version's own second name: `Haswell-noTSX`.
    Alias,
    /// Nothing: the machine type decides.
    Machine,
}

/// What a name of `-cpu` stands for.
#[derive(Clone, Copy, Debug)]
pub enum Meaning {
    /// A built-in model.
    Model {
        /// The model.
        model: &'static Model,
        /// Its version; `None` is the definition without versions.
        version: Option<&'static Version>,
        /// What says so.
        naming: Naming,
    },
    /// All that the accelerator has.
    Max,
    /// All that the host's KVM has.
    Host,
    /// Nothing but what is asked for by name.
    Base,
}

/// The number of the version that a name means on a machine type; `None` is the definition without versions, and a name
/// that is no built-in model.
#[must_use]
pub fn means(release: usize, machine: &Machine, name: &str) -> Option<u8> {
    qemu::resolve(release, name)?.version_on(release, machine.default_cpu_version)
}

/// Everything about one name of `-cpu`.
#[derive(Clone, Debug)]
pub struct Card {
    /// What was asked: the name, perhaps with properties behind it.
    pub cpu: String,
    /// What the name stands for.
    pub meaning: Meaning,
    /// The oldest known release that has the name.
    pub first: Option<usize>,
    /// Where the machine type decides: each choice, and the machine types of the release that make it, newest first.
    pub by_machine: Vec<(Option<u8>, Vec<&'static str>)>,
    /// What is in it, before anything is filtered.
    pub definition: Definition,
    /// Its features, by QEMU's name; `None` for `max` and `host` where nothing is known of the host.
    pub features: Option<Vec<Feature>>,
    /// Its level of x86-64; `None` for 32-bit models too.
    pub level: Option<Level>,
    /// What the machine type sets on it, in the order in which it is applied: the last of one name wins.
    pub compat: Vec<&'static CompatProperty>,
    /// The newest machine type of the same family, and what differs there (on the right).
    pub newest: Option<(&'static Machine, Comparison)>,
    /// What QEMU takes out here, in the order of its warnings; `None` if nothing is known of the host.
    pub lacks: Option<Vec<Lack>>,
    /// Text for `-cpu` that asks for nothing that is taken out; `None` if nothing is, or a bit has no name.
    pub without: Option<String>,
    /// Other versions of the model that run here unfiltered.
    pub instead: Vec<String>,
    /// Why QEMU does not start with it.
    pub refused: Option<String>,
}

/// A bit that is asked for and that the guest does not get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// The bit.
    pub feature: Feature,
    /// Who took it.
    pub at: Stage,
    /// Why, and what brings it back.
    pub reason: Reason,
    /// What was seen.
    pub because: Vec<Evidence>,
}

impl Card {
    /// The cache table that the guest is shown; `None` is the legacy ones.
    #[must_use]
    pub const fn caches(&self) -> Option<&'static Caches> {
        self.definition.caches
    }
}

/// What a name means in a setting. `kvm` is what is known of why KVM offers what it offers.
///
/// # Errors
/// The release does not have it, or QEMU refuses the properties behind it.
pub fn card(setting: &Setting<'_>, cpu: &str, kvm: Option<&KvmPrediction>) -> Result<Card, NoModel> {
    let Setting { release, machine, .. } = *setting;
    let name = cpu.split_once(',').map_or(cpu, |(name, _)| name);
    let defined = define(setting, cpu)?;
    let meaning = meaning(release, machine, name);
    let known = setting.accelerator.is_some() || !matches!(meaning, Meaning::Max | Meaning::Host);
    let newest = qemu::machines(release).find(|other| other.kind == machine.kind && other.version > machine.version);
    let newest = newest.filter(|_| machine.version.is_some());
    let newest = match newest {
        Some(newest) => Some((newest, compare(setting, cpu, &Setting { machine: newest, ..*setting }, cpu)?)),
        None => None,
    };
    let output = setting.accelerator.map(|_| realize(setting.question(cpu)));
    let lacks: Option<Vec<Lack>> = output.as_ref().map(|output| lacks(setting, output, kvm));
    let taken = lacks.as_ref().is_some_and(|lacks| !lacks.is_empty());
    Ok(Card {
        meaning,
        first: (0..RELEASES.len()).find(|&release| exists(release, name)),
        by_machine: if decides(&meaning) { by_machine(release, name) } else { Vec::new() },
        features: known.then(|| features(release, defined.features())),
        level: level::of(|place| defined.has(place)).filter(|_| known),
        definition: defined,
        compat: compat(setting, name).collect(),
        newest,
        without: lacks.as_ref().filter(|_| taken).and_then(|lacks| without(release, cpu, lacks)),
        instead: if taken { instead(setting, &meaning) } else { Vec::new() },
        refused: output.and_then(|output| output.error).map(|error| error.message),
        lacks,
        cpu: cpu.to_owned(),
    })
}

/// What a text of `-cpu` defines.
pub(super) fn define(setting: &Setting<'_>, cpu: &str) -> Result<Definition, NoModel> {
    let name = cpu.split_once(',').map_or(cpu, |(name, _)| name);
    if !exists(setting.release, name) {
        return Err(unknown(setting.release, name));
    }
    let shown = || cpu.chars().take(80).collect();
    definition(setting.question(cpu)).map_err(|refusal| NoModel::Refused { cpu: shown(), message: refusal.message })
}

fn meaning(release: usize, machine: &Machine, name: &str) -> Meaning {
    match (qemu::resolve(release, name), name) {
        (Some(resolved), _) => {
            let number = resolved.version_on(release, machine.default_cpu_version);
            let mut versions = resolved.model.versions(release);
            let version = versions.find(|version| Some(version.number) == number);
            let alias = resolved.model.versions(release).any(|version| version.alias == Some(name));
            let naming = match (resolved.version, alias) {
                (None, _) => Naming::Machine,
                (Some(_), true) => Naming::Alias,
                (Some(_), false) => Naming::Version,
            };
            Meaning::Model { model: resolved.model, version, naming }
        }
        (None, "host") => Meaning::Host,
        (None, "max") => Meaning::Max,
        (None, _) => Meaning::Base,
    }
}

const fn decides(meaning: &Meaning) -> bool {
    matches!(meaning, Meaning::Model { naming: Naming::Machine, .. })
}

/// What the name means on each machine type that has a CPU.
fn by_machine(release: usize, name: &str) -> Vec<(Option<u8>, Vec<&'static str>)> {
    let mut choices: Vec<(DefaultCpuVersion, Vec<&'static str>)> = Vec::new();
    for machine in qemu::machines(release).filter(|machine| machine.kind != qemu::MachineKind::None) {
        match choices.iter_mut().find(|(choice, _)| *choice == machine.default_cpu_version) {
            Some((_, names)) => names.push(machine.name),
            None => choices.push((machine.default_cpu_version, vec![machine.name])),
        }
    }
    let number = |choice| qemu::resolve(release, name).and_then(|resolved| resolved.version_on(release, choice));
    choices.into_iter().map(|(choice, names)| (number(choice), names)).collect()
}

/// Who took each bit.
fn lacks(setting: &Setting<'_>, output: &Output, kvm: Option<&KvmPrediction>) -> Vec<Lack> {
    let filtered: Vec<Place> = output.filtered().collect();
    if filtered.is_empty() {
        return Vec::new();
    }
    let steps = output.steps();
    let lack = |place: Place| {
        let feature = Feature { name: name_of(setting.release, place), place };
        let of_kvm = kvm.and_then(|kvm| Some((kvm, taken_by_kvm(kvm, place)?)));
        if let Some((kvm, step)) = of_kvm {
            return Some(of_step(feature, step, kvm.host.tree));
        }
        if let Some(reason) = not_in_silicon(setting, place) {
            return Some(Lack { feature, at: Stage::Silicon, reason, because: Vec::new() });
        }
        let step = steps.iter().find(|step| step.place == Some(place))?;
        Some(of_step(feature, step, kvm.map_or(0, |kvm| kvm.host.tree)))
    };
    filtered.into_iter().filter_map(lack).collect()
}

fn of_step(feature: Feature, step: &Step, tree: usize) -> Lack {
    Lack { feature, at: step.at, reason: reason::of_step(step, tree), because: step.because.to_vec() }
}

fn taken_by_kvm(kvm: &KvmPrediction, place: Place) -> Option<&Step> {
    let taken = |step: &&Step| step.place == Some(place) && matches!(step.effect, Effect::Dropped | Effect::Unknown);
    kvm.steps.iter().find(taken)
}

/// The reason if the host's CPUID does not have the bit.
fn not_in_silicon(setting: &Setting<'_>, place: Place) -> Option<Reason> {
    let Some(Accelerator::Kvm { host, .. }) = setting.accelerator else { return None };
    if host.state(place.cpuid()?) != State::Absent {
        return None;
    }
    let rule = rules::generic(Software::Silicon, "not-in-silicon")?;
    let step = Step {
        feature: "".into(),
        place: Some(place),
        at: Stage::Silicon,
        effect: Effect::Dropped,
        rule: rule.id,
        cite: rule.cite,
        because: Grounds::default(),
    };
    Some(reason::of_step(&step, 0))
}

/// The text of `-cpu` with what is taken out switched off.
fn without(release: usize, cpu: &str, lacks: &[Lack]) -> Option<String> {
    let mut text = cpu.to_owned();
    let mut names: Vec<&str> = Vec::new();
    for lack in lacks {
        let name = qemu::name(release, lack.feature.place)?;
        if !names.contains(&name) {
            names.push(name);
            text.push_str(&format!(",-{name}"));
        }
    }
    Some(text)
}

/// The other versions of a model that run here unfiltered, newest first.
fn instead(setting: &Setting<'_>, meaning: &Meaning) -> Vec<String> {
    let Meaning::Model { model, .. } = meaning else { return Vec::new() };
    let mut entries = Vec::new();
    catalogue_of(setting, model, &mut entries);
    let running = entries.into_iter().rev().filter(|entry: &Entry| entry.runs() == Some(true));
    running.map(|entry| entry.also.first().map_or(entry.name.clone(), |name| (*name).to_owned())).collect()
}
