//! A CPU model's name, and what is to be added to it and taken from it, for a set of features.

use cpusieve_knowledge::qemu::{self, Model};
use cpusieve_model::{CpuidBit, Place, Register, Vendor};
use cpusieve_stages::qemu::realize;

use crate::catalogue::{Catalogue, Property};
use crate::fleet::{Fleet, Kind};
use crate::host::{Ground, Setting};
use crate::offer::{Offer, VMX, Words, and, bit, closed};

/// The models that are no vendor's, by their brand strings.
const GENERIC: [&str; 3] = ["QEMU Virtual CPU", "Common KVM processor", "Common 32-bit KVM processor"];

/// How many names are tried on the hosts before a feature is given up.
const TRIES: usize = 6;

/// How often features are given up before there is no name.
const ROUNDS: usize = 16;

/// A model with its differences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The model, with its version: `Skylake-Server-v4`.
    pub name: String,
    /// QEMU's `-cpu`.
    pub cpu: String,
    /// The properties that are added, in the order of QEMU's words.
    pub plus: Vec<&'static str>,
    /// The properties that are taken away.
    pub minus: Vec<&'static str>,
    /// The vendor in the model's definition; KVM shows the host's instead.
    pub vendor: Option<Vendor>,
    /// The features of the guest: those that were wanted, and those of the model that every host has.
    pub words: Words,
    /// The ids of features that all hosts offer and that QEMU would not give with any model tried.
    pub given_up: Vec<&'static str>,
}

/// A model before it was tried.
struct Candidate {
    name: String,
    vendor: Option<Vendor>,
    plus: Vec<&'static str>,
    minus: Vec<&'static str>,
}

impl Candidate {
    fn cpu(&self) -> String {
        let mut cpu = self.name.clone();
        for (sign, names) in [('+', &self.plus), ('-', &self.minus)] {
            for name in names {
                cpu.push(',');
                cpu.push(sign);
                cpu.push_str(name);
            }
        }
        cpu
    }
}

/// Intel PT, the one feature that QEMU's filter judges by more than its word
/// (`target/i386/cpu.c:x86_cpu_filter_features`): 7.0.EBX\[25\].
const INTEL_PT: Place = Place::Cpuid(CpuidBit::new(7, 0, Register::Ebx, 25));

/// The feature on which those of leaf 8000000AH hang: 8000_0001H.ECX\[2\].
const SVM: Place = Place::Cpuid(CpuidBit::new(0x8000_0001, 0, Register::Ecx, 2));

/// Whom a name is for.
#[derive(Clone, Debug)]
pub struct Hosts<'f> {
    /// The hosts that QEMU is asked on, one of each kind.
    grounds: Vec<&'f Ground>,
    /// The vendor, if all have the same.
    vendor: Option<Vendor>,
    /// What the hosts offer together that QEMU cannot be asked on.
    beyond: Option<Offer>,
}

impl<'f> Hosts<'f> {
    /// Some kinds of hosts.
    #[must_use]
    pub fn of_kinds(kinds: &[&'f Kind]) -> Self {
        let grounds = kinds.iter().filter_map(|kind| kind.ground.as_ref()).collect();
        let vendor = kinds.first().map(|kind| kind.vendor);
        let vendor = vendor.filter(|&vendor| kinds.iter().all(|kind| kind.vendor == vendor));
        let beyond = Fleet::common(kinds.iter().copied().filter(|kind| kind.ground.is_none()));
        Self { grounds, vendor, beyond }
    }

    /// All hosts of a fleet.
    #[must_use]
    pub fn of_fleet(fleet: &'f Fleet) -> Self {
        let mut hosts = Self::of_kinds(&fleet.kinds().iter().collect::<Vec<_>>());
        let mut vendors = fleet.vendors().into_keys();
        hosts.vendor = vendors.next().filter(|_| vendors.next().is_none());
        if let Some(rest) = fleet.rest() {
            hosts.grounds.extend(&rest.grounds);
            hosts.beyond = Some(hosts.beyond.map_or_else(|| rest.all.clone(), |offer| offer.and(&rest.all)));
        }
        hosts
    }

    /// Whether QEMU can be asked on none of them.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.grounds.is_empty()
    }

    /// What QEMU takes out of a guest that asks for these words on the hosts that it cannot be asked on: what they do not
    /// support, word by word. Intel PT hangs on more than its word; [`Offer::own`] says what came of that.
    fn filtered_beyond(&self, asked: &Words) -> Words {
        let Some(beyond) = &self.beyond else { return [0; qemu::WORD_COUNT] };
        let mut filtered: Words = std::array::from_fn(|at| asked[at] & !beyond.words[at]);
        if let Some((at, mask)) = bit(INTEL_PT) {
            filtered[at] |= asked[at] & !beyond.own[at] & mask;
        }
        filtered
    }
}

/// The name with the fewest differences under which a guest with the `wanted` features starts unfiltered on all hosts;
/// of several the one that stands first in QEMU's table, which has older models first.
///
/// `offered` are the words that all of them offer. `None` if QEMU can be asked on none of them, or no model runs there.
#[must_use]
pub fn name(
    hosts: &Hosts<'_>,
    catalogue: &Catalogue,
    setting: &Setting<'_>,
    wanted: &Words,
    offered: &Words,
) -> Option<Named> {
    let wants = |place| bit(place).is_some_and(|(at, mask)| wanted[at] & mask != 0);
    let nested = [("vmx", VMX), ("svm", SVM)].into_iter().find(|(_, place)| wants(*place));
    let models = asked(hosts, setting, nested);
    let mut wanted = *wanted;
    let mut offered = *offered;
    let mut given_up = Vec::new();
    for _ in 0..ROUNDS {
        let mut candidates = models.with(catalogue, &wanted, &offered);
        candidates.sort_by_key(|candidate| candidate.plus.len() + candidate.minus.len());
        let mut first_refused = None;
        for candidate in candidates.into_iter().take(TRIES) {
            let cpu = candidate.cpu();
            match run(hosts, setting, &cpu) {
                Trial::Runs(words) => {
                    let Candidate { name, vendor, plus, minus } = candidate;
                    return Some(Named { name, cpu, plus, minus, vendor, words, given_up });
                }
                Trial::Filtered(words) => first_refused = first_refused.or(Some(words)),
                Trial::Ends => {}
            }
        }
        let refused = first_refused?;
        let lost: Vec<&Property> =
            catalogue.properties().iter().filter(|property| property.touches(&and(&refused, &offered))).collect();
        if lost.is_empty() {
            return None;
        }
        for property in lost {
            given_up.push(property.id);
            property.clear(&mut wanted);
            property.clear(&mut offered);
        }
        wanted = closed(wanted, catalogue.release);
    }
    None
}

/// The built-in models that may be named, and what each asks for.
struct Models(Vec<(String, Option<Vendor>, Words)>);

impl Models {
    /// Each with its differences from what is wanted, in the order of QEMU's table.
    fn with(&self, catalogue: &Catalogue, wanted: &Words, offered: &Words) -> Vec<Candidate> {
        let lacking = |asked: &Words| -> Words { std::array::from_fn(|at| asked[at] & !offered[at]) };
        self.0
            .iter()
            .map(|(name, vendor, asked)| {
                let lacking = lacking(asked);
                let minus: Vec<_> =
                    catalogue.properties().iter().filter(|p| p.touches(&lacking)).map(|p| p.name).collect();
                let plus = catalogue.in_words(wanted).filter(|p| !p.is_in(asked)).map(|p| p.name);
                let plus = plus.filter(|name| !minus.contains(name)).collect();
                Candidate { name: name.clone(), vendor: *vendor, plus, minus }
            })
            .collect()
    }
}

/// What each version of each model that fits the vendors asks for on the first host.
fn asked(hosts: &Hosts<'_>, setting: &Setting<'_>, nested: Option<(&str, Place)>) -> Models {
    let Some(first) = hosts.grounds.first() else { return Models(Vec::new()) };
    let vendor = hosts.vendor;
    let fits = |model: &Model| {
        let generic = GENERIC.iter().any(|brand| model.model_id.starts_with(brand));
        generic || vendor.is_some() && vendor == Some(Vendor::from_string(model.vendor))
    };
    let mut models = Vec::new();
    for model in qemu::models(setting.release).filter(|model| fits(model)) {
        for version in model.versions(setting.release) {
            let name = format!("{}-v{}", model.name, version.number);
            let Some(asked) = asks_for(first, setting, &name, nested) else { continue };
            let generic = GENERIC.iter().any(|brand| model.model_id.starts_with(brand));
            let vendor = (!generic).then(|| Vendor::from_string(model.vendor));
            models.push((name, vendor, asked));
        }
    }
    Models(models)
}

/// What a model turns on, whether the host has it or not. Its words of VMX and of SVM take effect with `vmx` and `svm` alone,
/// which no model has by itself under KVM: they count if guests are to be `nested` by the one or the other.
fn asks_for(ground: &Ground, setting: &Setting<'_>, name: &str, nested: Option<(&str, Place)>) -> Option<Words> {
    let of = |cpu: &str| -> Option<Words> {
        let output = realize(ground.question(setting, cpu));
        let (words, filtered) = (output.words()?, output.filtered_words()?);
        Some(std::array::from_fn(|at| words[at] | filtered[at]))
    };
    let alone = of(name)?;
    let Some((property, place)) = nested else { return Some(alone) };
    let mut with = of(&format!("{name},+{property}"))?;
    if let Some((at, mask)) = bit(place) {
        with[at] &= alone[at] | !mask;
    }
    Some(with)
}

/// What QEMU does with a `-cpu` on some hosts.
enum Trial {
    /// It starts everywhere, and takes nothing out; the words are the guest's on the first host.
    Runs(Words),
    /// It takes these bits out somewhere.
    Filtered(Words),
    /// It ends with an error somewhere.
    Ends,
}

fn run(hosts: &Hosts<'_>, setting: &Setting<'_>, cpu: &str) -> Trial {
    let mut words = None;
    let mut filtered: Option<Words> = None;
    for ground in &hosts.grounds {
        let output = realize(ground.question(setting, cpu));
        let (Some(has), Some(taken), None) = (output.words(), output.filtered_words(), &output.error) else {
            return Trial::Ends;
        };
        let beyond = hosts.filtered_beyond(&std::array::from_fn(|at| has[at] | taken[at]));
        let taken: Words = std::array::from_fn(|at| taken[at] | beyond[at]);
        if taken.iter().any(|&word| word != 0) {
            let before = filtered.unwrap_or([0; qemu::WORD_COUNT]);
            filtered = Some(std::array::from_fn(|at| before[at] | taken[at]));
        }
        words.get_or_insert(*has);
    }
    match (filtered, words) {
        (Some(filtered), _) => Trial::Filtered(filtered),
        (None, Some(words)) => Trial::Runs(words),
        (None, None) => Trial::Ends,
    }
}
