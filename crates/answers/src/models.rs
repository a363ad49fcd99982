//! QEMU's CPU models: what their names mean on a machine type, which run on a host, what they lack, how they differ.
//!
//! ```
//! use cpusieve_answers::models::{Level, Setting, catalogue, compare};
//! use cpusieve_knowledge::qemu;
//! use cpusieve_stages::qemu::Accelerator;
//!
//! let release = qemu::nearest("10.0").release;
//! let q35 = qemu::machine(release, "q35").unwrap();
//! let setting = Setting { release, machine: q35, accelerator: Some(Accelerator::Tcg) };
//! let found = catalogue(&setting);
//! let haswell = found.entries.iter().find(|entry| entry.also.contains(&"Haswell-noTSX")).unwrap();
//! assert_eq!((haswell.name.as_str(), haswell.level), ("Haswell-v2", Some(Level::V3)));
//!
//! let differ = compare(&setting, "SandyBridge", &setting, "SandyBridge-IBRS").unwrap();
//! assert!(differ.left.is_empty());
//! assert_eq!(differ.right.iter().map(|feature| feature.name.as_str()).collect::<Vec<_>>(), ["spec-ctrl"]);
//! ```

mod card;
mod compare;
pub(crate) mod level;
mod told;

use std::sync::LazyLock;

use cpusieve_knowledge::TreeSet;
use cpusieve_knowledge::qemu::{self, CompatProperty, Machine, Model, RELEASES, UnknownMachine, Version, WORD_COUNT};
use cpusieve_knowledge::x86;
use cpusieve_model::{CpuidBit, CpuidTable, KvmView, Place, Register, Snapshot, Vendor};
use cpusieve_stages::qemu::{Accelerator, Irqchip, Protected, Question, Smp, realize};

pub use card::{Card, Lack, Meaning, Naming, card, means};
pub use compare::{Changed, Comparison, Feature, compare, shown};
pub use level::Level;
pub(crate) use level::of as level_of;
pub use told::differences;

use crate::predict::Assumption;
use crate::predict::way::{self, NoWay};

/// Where models are asked for: the QEMU, the machine type, and what runs the guest.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// A position in [`RELEASES`].
    pub release: usize,
    /// The machine type.
    pub machine: &'static Machine,
    /// What runs the guest; `None` if nothing is known of the host: what the models define under KVM is told then.
    pub accelerator: Option<Accelerator<'a>>,
}

/// A host of which nothing is known.
static UNKNOWN_HOST: LazyLock<(CpuidTable, KvmView)> = LazyLock::new(Default::default);

impl<'a> Setting<'a> {
    /// What QEMU is asked with `-cpu`.
    fn question(&self, cpu: &'a str) -> Question<'a> {
        let (host, kvm) = &*UNKNOWN_HOST;
        Question {
            release: self.release,
            machine: self.machine,
            accelerator: self.accelerator.unwrap_or(Accelerator::Kvm { host, kvm }),
            cpu,
            smp: Smp::default(),
            cpu_pm: false,
            irqchip: Irqchip::of(self.machine),
            protected: Protected::default(),
        }
    }
}

/// The QEMU release that was asked for, else the snapshot's first, else the newest known; and what was assumed.
///
/// # Errors
/// What was asked for is no version.
pub fn release(asked: Option<&str>, snapshot: Option<&Snapshot>) -> Result<(usize, Vec<Assumption>), NoWay> {
    let mut assumed = Vec::new();
    let nothing = Snapshot::default();
    let release = way::release(snapshot.unwrap_or(&nothing), asked, &mut assumed)?;
    Ok((release, assumed))
}

/// Why there is no answer about a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoModel {
    /// The release has no model of this name.
    #[error("QEMU {} has no CPU model `{name}`{}", label(*.release), elsewhere(*.known_in, .near))]
    Unknown {
        /// The name.
        name: String,
        /// The release.
        release: usize,
        /// The releases that have it.
        known_in: TreeSet,
        /// Names that come near, of any release.
        near: Vec<&'static str>,
    },
    /// The release has no such machine type.
    #[error(transparent)]
    NoMachine(#[from] UnknownMachine),
    /// QEMU refuses what else stands in the text.
    #[error("-cpu {cpu}: {message}")]
    Refused {
        /// The text.
        cpu: String,
        /// QEMU's words.
        message: String,
    },
}

fn label(release: usize) -> &'static str {
    RELEASES.get(release).map_or("?", |release| release.label)
}

fn elsewhere(known_in: TreeSet, near: &[&str]) -> String {
    if !known_in.is_empty() {
        return format!("; {} has", known_in.iter().map(label).collect::<Vec<_>>().join(", "));
    }
    if near.is_empty() { String::new() } else { format!("; perhaps {}", near.join(", ")) }
}

/// That a release does not have a model, with what helps.
fn unknown(release: usize, name: &str) -> NoModel {
    let has = |release: &usize| exists(*release, name);
    let known_in = TreeSet((0..RELEASES.len()).filter(has).fold(0, |set, release| set | 1 << release));
    let near = if known_in.is_empty() { qemu::near_cpu_names(name) } else { Vec::new() };
    NoModel::Unknown { name: name.chars().take(80).collect(), release, known_in, near }
}

/// Names that are no built-in models.
const CLASSES: [&str; 3] = ["max", "host", "base"];

fn exists(release: usize, name: &str) -> bool {
    CLASSES.contains(&name) || qemu::resolve(release, name).is_some()
}

/// All models of a release on a machine type.
#[derive(Clone, Debug)]
pub struct Catalogue {
    /// One entry for each CPU that a name stands for, in the order of QEMU's table, versions by rising number.
    pub entries: Vec<Entry>,
    /// The position of the entry that runs unfiltered with the most features, of the host's vendor if one does.
    pub best: Option<usize>,
    /// Of `max`, `host` and `base`, as far as the accelerator has them: how many features the guest has, counted as
    /// [`Entry::features`] are.
    pub classes: Vec<(&'static str, usize)>,
    /// What the machine type takes without `-cpu`.
    pub default_cpu: Option<&'static str>,
}

/// One CPU that names of `-cpu` stand for.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The name that always means it, `Haswell-v2`; or the model's name, where that means none of the versions.
    pub name: String,
    /// The model.
    pub model: &'static Model,
    /// The version; `None` is the definition without versions.
    pub version: Option<&'static Version>,
    /// The other names that mean it on this machine type.
    pub also: Vec<&'static str>,
    /// How many features the model has, before anything is filtered: named bits of CPUID, without
    /// XSAVE's state components.
    pub features: usize,
    /// The level of x86-64 that the model has, before anything is filtered; `None` for 32-bit models.
    pub level: Option<Level>,
    /// The bits that QEMU takes out here, in the order of its warnings; `None` if nothing is known of the host.
    pub lacks: Option<Vec<Place>>,
    /// Why QEMU does not start with it.
    pub refused: Option<String>,
}

impl Entry {
    /// Whether a guest gets all of it here; `None` if nothing is known of the host.
    #[must_use]
    pub fn runs(&self) -> Option<bool> {
        self.lacks.as_ref().map(|lacks| lacks.is_empty() && self.refused.is_none())
    }
}

/// All models of a release on a machine type, and what they lack.
#[must_use]
pub fn catalogue(setting: &Setting<'_>) -> Catalogue {
    let mut entries = Vec::with_capacity(160);
    qemu::models(setting.release).for_each(|model| catalogue_of(setting, model, &mut entries));
    let best = best(&entries, setting);
    let classes = CLASSES.iter().filter_map(|name| class(setting, name)).collect();
    Catalogue { entries, best, classes, default_cpu: setting.machine.default_cpu }
}

/// The CPUs that the names of one model stand for.
fn catalogue_of(setting: &Setting<'_>, model: &'static Model, entries: &mut Vec<Entry>) {
    let Setting { release, machine, .. } = *setting;
    // A machine type may say something of a name alone, not of what it means.
    let named = |name: &str| compat(setting, name).any(|property| property.driver == name);
    let first = entries.len();
    for version in model.versions(release) {
        entries.push(entry(setting, format!("{}-v{}", model.name, version.number), model, Some(version)));
    }
    let aliases = model.versions(release).filter_map(|version| version.alias);
    for name in std::iter::once(model.name).chain(aliases) {
        let version = means(release, machine, name)
            .and_then(|number| model.versions(release).find(|version| version.number == number));
        let same = entries.iter_mut().skip(first).find(|entry| version.is_some() && entry.version == version);
        match same {
            Some(entry) if !named(name) && !named(&entry.name) => entry.also.push(name),
            _ => entries.push(entry(setting, name.to_owned(), model, version)),
        }
    }
}

/// What the machine type sets on the CPU of this name, in the order in which it is applied.
fn compat(setting: &Setting<'_>, name: &str) -> impl Iterator<Item = &'static CompatProperty> {
    // `host` is a kind of `max`.
    qemu::compat(setting.release, setting.machine).filter(move |property| {
        property.driver.is_empty() || property.driver == name || property.driver == "max" && name == "host"
    })
}

fn entry(setting: &Setting<'_>, name: String, model: &'static Model, version: Option<&'static Version>) -> Entry {
    let Some(accelerator) = setting.accelerator else { return unseen(setting, name, model, version) };
    let output = realize(Setting { accelerator: Some(accelerator), ..*setting }.question(&name));
    let lacks: Vec<Place> = output.filtered().collect();
    let has = Bits::of(setting.release, output.features().chain(lacks.iter().copied()));
    Entry {
        features: has.features,
        level: level::of(|place| has.contains(place)),
        lacks: Some(lacks),
        refused: output.error.map(|error| error.message),
        also: Vec::new(),
        name,
        model,
        version,
    }
}

fn unseen(setting: &Setting<'_>, name: String, model: &'static Model, version: Option<&'static Version>) -> Entry {
    let defined = cpusieve_stages::qemu::definition(setting.question(&name));
    let (has, refused) = match defined {
        Ok(defined) => (Bits::of(setting.release, defined.features()), None),
        Err(refusal) => (Bits::of(setting.release, std::iter::empty()), Some(refusal.message)),
    };
    let level = level::of(|place| has.contains(place));
    Entry { features: has.features, level, lacks: None, refused, also: Vec::new(), name, model, version }
}

/// A set of bits of feature words.
struct Bits {
    words: [u64; WORD_COUNT],
    /// How many of them are features of CPUID.
    features: usize,
}

impl Bits {
    fn of(release: usize, places: impl Iterator<Item = Place>) -> Self {
        let mut bits = Self { words: [0; WORD_COUNT], features: 0 };
        for place in places {
            bits.features += usize::from(is_feature(release, place));
            if let Some((at, mask)) = position(place)
                && let Some(word) = bits.words.get_mut(at)
            {
                *word |= mask;
            }
        }
        bits
    }

    fn contains(&self, place: Place) -> bool {
        position(place).is_some_and(|(at, mask)| self.words.get(at).is_some_and(|word| word & mask != 0))
    }
}

/// Whether a bit of CPUID is a feature: it has a name, which AMD's second copies of leaf 1 have not, and is no state
/// component of XSAVE, which follows from features.
fn is_feature(release: usize, place: Place) -> bool {
    matches!(place, Place::Cpuid(bit) if !is_component(bit)) && qemu::name(release, place).is_some()
}

/// Leaf 0DH subleaf 0, and ECX and EDX of subleaf 1: XCR0 and IA32_XSS.
const fn is_component(bit: CpuidBit) -> bool {
    bit.leaf == 0xd && (bit.subleaf == 0 || matches!(bit.register, Register::Ecx | Register::Edx))
}

/// The word of a bit, and the bit in it.
fn position(place: Place) -> Option<(usize, u64)> {
    let bit = match place {
        Place::Cpuid(bit) => bit.bit,
        Place::Msr(bit) => bit.bit,
        Place::Linux(_) => return None,
    };
    Some((qemu::Word::of(place).and_then(qemu::word_position)?, 1_u64.checked_shl(bit.into())?))
}

/// Of those that run unfiltered the one with the most features; of several the last, which is the newest. Under KVM a
/// guest has the host's vendor, and family and model of another vendor's CPU would mislead it.
fn best(entries: &[Entry], setting: &Setting<'_>) -> Option<usize> {
    let own = match setting.accelerator {
        Some(Accelerator::Kvm { host, .. }) => host.vendor(),
        _ => None,
    };
    let rank = |entry: &Entry| {
        let foreign = own.is_some() && vendor_of(entry.model) != own;
        (!foreign, entry.features)
    };
    let running = entries.iter().enumerate().filter(|(_, entry)| entry.runs() == Some(true));
    running.max_by_key(|(at, entry)| (rank(entry), *at)).map(|(at, _)| at)
}

/// The vendor whose CPUs a model describes.
fn vendor_of(model: &Model) -> Option<Vendor> {
    Some(Vendor::from_string(model.vendor))
}

/// How many features a guest has with `max`, `host` or `base`; `None` where the accelerator has no such class.
fn class(setting: &Setting<'_>, name: &'static str) -> Option<(&'static str, usize)> {
    let accelerator = setting.accelerator?;
    if name == "host" && !accelerator.is_kvm() {
        return None;
    }
    let output = realize(setting.question(name));
    output
        .error
        .is_none()
        .then(|| (name, output.features().filter(|&place| is_feature(setting.release, place)).count()))
}

/// What a bit is called: QEMU's name in this release or any, the feature's id, or where it is.
#[must_use]
pub fn name_of(release: usize, place: Place) -> String {
    let own = qemu::name(release, place).or_else(|| qemu::bit(place).and_then(|bit| bit.name));
    let name = own.or_else(|| x86::by_place(place).map(|feature| feature.id));
    name.map_or_else(|| format!("{place:#}"), str::to_owned)
}
