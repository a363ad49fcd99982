//! libvirt's CPU map: what its names of x86 features and models mean, release by release.
//!
//! A feature is one bit of CPUID or of an MSR, and a model a set of features. What a model lists as `added` (in the
//! hypervisor's model from the start, in the map later) or as `removed` does not count in libvirt's arithmetic
//! (`src/cpu/cpu_x86.c:x86ModelParseFeatures`), so it stands apart here. QEMU's models of the same names stand in
//! [`crate::qemu`], and may have more.
//!
//! ```
//! use cpusieve_knowledge::libvirt;
//!
//! let release = libvirt::newest();
//! let penryn = libvirt::model(release, "Penryn").unwrap();
//! let ssse3 = libvirt::feature(release, "ssse3").unwrap();
//! assert!(penryn.data.contains(ssse3));
//! let flexpriority = libvirt::feature(release, "vmx-flexpriority").unwrap();
//! assert!(penryn.added.contains(flexpriority) && !penryn.data.contains(flexpriority));
//! assert_eq!(penryn.vendor().unwrap().name, "Intel");
//! ```

use cpusieve_model::{CpuidBit, MsrBit, Place, Register};

use crate::TreeSet;
use crate::qemu::Fit;
use crate::slots::Slots;
use crate::x86;

include!(concat!(env!("OUT_DIR"), "/libvirt.rs"));

/// A release of libvirt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// The name by which the tables call it: `11.3`.
    pub label: &'static str,
    /// The full version: `11.3.0`.
    pub version: &'static str,
    /// Where it comes from.
    pub source: &'static str,
    first: u16,
    models: u16,
}

/// A vendor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vendor {
    /// libvirt's name: `Intel`.
    pub name: &'static str,
    /// What CPUID shows: `GenuineIntel`.
    pub string: &'static str,
}

/// A name, in the one text that holds all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    start: u16,
    len: u8,
}

impl Name {
    fn get(self) -> &'static str {
        let start = usize::from(self.start);
        NAMES.get(start..start + usize::from(self.len)).unwrap_or("")
    }
}

/// A feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    name: Name,
    /// Its bit.
    pub place: Place,
    /// Whether libvirt migrates a guest that has it.
    pub migratable: bool,
    /// The releases that know it.
    pub releases: TreeSet,
}

impl Feature {
    /// libvirt's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name.get()
    }
}

/// A set of features, by their positions in [`FEATURES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Set([u64; SET_WORDS]);

impl Set {
    /// No feature.
    pub const EMPTY: Self = Self([0; SET_WORDS]);

    /// Whether a feature is in it.
    #[must_use]
    pub fn contains(&self, feature: usize) -> bool {
        self.0.get(feature / 64).is_some_and(|word| word >> (feature % 64) & 1 == 1)
    }

    /// Puts a feature in; a position beyond [`FEATURES`] is passed over.
    pub fn insert(&mut self, feature: usize) {
        if let Some(word) = self.0.get_mut(feature / 64).filter(|_| feature < FEATURES.len()) {
            *word |= 1 << (feature % 64);
        }
    }

    /// Takes a feature out.
    pub fn remove(&mut self, feature: usize) {
        if let Some(word) = self.0.get_mut(feature / 64) {
            *word &= !(1 << (feature % 64));
        }
    }

    fn with(&self, other: &Self, op: impl Fn(u64, u64) -> u64) -> Self {
        let mut both = self.0.iter().zip(&other.0).map(|(one, other)| op(*one, *other));
        Self([(); SET_WORDS].map(|()| both.next().unwrap_or(0)))
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.with(other, |one, other| one | other)
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.with(other, |one, other| one & other)
    }

    /// What is in the first and not in the second.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        self.with(other, |one, other| one & !other)
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::EMPTY
    }

    /// How many features are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The positions of its features, by bit.
    pub fn iter(&self) -> impl Iterator<Item = usize> + use<> {
        let set = *self;
        (0..FEATURES.len()).filter(move |&feature| set.contains(feature))
    }

    /// libvirt's names of its features, by bit.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.iter().filter_map(|feature| FEATURES.get(feature)).map(Feature::name)
    }
}

impl FromIterator<usize> for Set {
    fn from_iter<I: IntoIterator<Item = usize>>(features: I) -> Self {
        let mut set = Self::EMPTY;
        features.into_iter().for_each(|feature| set.insert(feature));
        set
    }
}

/// A CPU model of one release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    name: Name,
    vendor: Option<u8>,
    /// Whether libvirt may call a host so.
    pub host: bool,
    /// Whether libvirt may call a guest's CPU so when it chooses the name.
    pub guest: bool,
    /// What counts as the model's features, those of the models that it is made of among them.
    pub data: Set,
    /// What is in the hypervisor's model and does not count.
    pub added: Set,
    /// What once was in the model; guests have it turned off, unless they name it.
    pub removed: Set,
    first: u16,
    signatures: u8,
}

/// The CPUs of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Display family.
    pub family: u16,
    /// Display model.
    pub model: u8,
    /// The steppings: bit n stands for stepping n.
    pub steppings: u16,
}

impl Model {
    /// The name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name.get()
    }

    /// The vendor, if it is one vendor's.
    #[must_use]
    pub fn vendor(&self) -> Option<&'static Vendor> {
        VENDORS.get(usize::from(self.vendor?))
    }

    /// The CPUs that it stands for.
    #[must_use]
    pub fn signatures(&self) -> &'static [Signature] {
        let first = usize::from(self.first);
        SIGNATURES.get(first..first + usize::from(self.signatures)).unwrap_or(&[])
    }

    /// Whether it stands for a CPU of this family, model and stepping (`virCPUx86SignaturesMatch`).
    #[must_use]
    pub fn stands_for(&self, family: u16, model: u8, stepping: u8) -> bool {
        let fits = |signature: &Signature| {
            (signature.family, signature.model) == (family, model)
                && signature.steppings.checked_shr(stepping.into()).is_some_and(|rest| rest & 1 == 1)
        };
        self.signatures().iter().any(fits)
    }
}

/// The newest release, a position in [`RELEASES`].
#[must_use]
pub fn newest() -> usize {
    RELEASES.len().saturating_sub(1)
}

/// The release that answers for a version, and how well: the same major and minor number if it is known, else the nearest
/// older one, else the oldest; the newest for what is no version.
#[must_use]
pub fn nearest(version: &str) -> (usize, Fit) {
    let numbers = |text: &str| -> Option<(u32, u32)> {
        let mut parts = text.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    let Some(wanted) = numbers(version) else { return (newest(), Fit::Unreadable) };
    let known = |release: &Release| numbers(release.label).unwrap_or_default();
    match RELEASES.iter().rposition(|release| known(release) <= wanted) {
        None => (0, Fit::Oldest),
        Some(release) => {
            let same = RELEASES.get(release).is_some_and(|found| known(found) == wanted);
            (release, if same { Fit::Same } else { Fit::Older })
        }
    }
}

/// The position of a feature by libvirt's name; `None` if the release does not know it.
#[must_use]
pub fn feature(release: usize, name: &str) -> Option<usize> {
    let found = FEATURES_SLOTS.find(name, |position| FEATURES.get(position).map(Feature::name))?;
    FEATURES.get(found).filter(|feature| feature.releases.contains(release)).map(|_| found)
}

/// The feature at a bit; `None` if the release has none there.
#[must_use]
pub fn at(release: usize, place: Place) -> Option<usize> {
    let found = FEATURES.binary_search_by(|feature| feature.place.cmp(&place)).ok()?;
    FEATURES.get(found).filter(|feature| feature.releases.contains(release)).map(|_| found)
}

/// The features of a release, with their positions, by bit.
pub fn features(release: usize) -> impl Iterator<Item = (usize, &'static Feature)> {
    FEATURES.iter().enumerate().filter(move |(_, feature)| feature.releases.contains(release))
}

/// The models of a release, in the order of its map.
#[must_use]
pub fn models(release: usize) -> &'static [Model] {
    let Some(known) = RELEASES.get(release) else { return &[] };
    let first = usize::from(known.first);
    MODELS.get(first..first + usize::from(known.models)).unwrap_or(&[])
}

/// A model of a release by its name.
#[must_use]
pub fn model(release: usize, name: &str) -> Option<&'static Model> {
    models(release).iter().find(|model| model.name() == name)
}

/// The model of a release with the name most like this one; `None` if none is near.
#[must_use]
pub fn similar_model(release: usize, name: &str) -> Option<&'static str> {
    similar(name, models(release).iter().map(Model::name))
}

/// The feature of a release with the name most like this one; `None` if none is near.
#[must_use]
pub fn similar_feature(release: usize, name: &str) -> Option<&'static str> {
    similar(name, features(release).map(|(_, feature)| feature.name()))
}

/// Names longer than this are no slip of the pen.
const LONGEST: usize = 64;

fn similar(name: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    if name.is_empty() || name.len() > LONGEST {
        return None;
    }
    let folded = |name: &str| name.to_ascii_lowercase().replace(['_', '.'], "-");
    let (wanted, limit) = (folded(name), (name.len() / 4).max(1));
    let near = known.map(|known| (x86::distance(wanted.as_bytes(), folded(known).as_bytes()), known));
    near.filter(|(distance, _)| *distance <= limit).min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_is_found_by_name_and_bit() {
        assert!(FEATURES.is_sorted_by_key(|feature| feature.place));
        for release in 0..RELEASES.len() {
            for (position, known) in features(release) {
                assert_eq!(feature(release, known.name()), Some(position));
                assert_eq!(at(release, known.place), Some(position));
            }
            assert_eq!((feature(release, "nosuch"), feature(release, "")), (None, None));
        }
        let blockers: Vec<&str> = FEATURES.iter().filter(|known| !known.migratable).map(Feature::name).collect();
        assert_eq!(blockers, ["xsaves", "invtsc"]);
    }

    #[test]
    fn a_version_made_of_another_has_its_features() {
        let (newest, oldest) = (newest(), 0);
        let (base, same) = (model(newest, "Skylake-Server-IBRS").unwrap(), model(newest, "Skylake-Server-v2").unwrap());
        assert_eq!((base.data, base.signatures(), base.vendor()), (same.data, same.signatures(), same.vendor()));
        assert!(base.guest && !same.guest && same.host);
        assert!(base.stands_for(6, 85, 4) && !base.stands_for(6, 85, 7));
        assert_eq!(model(oldest, "Skylake-Server-v2"), None);
        // What was removed from a model does not count, and nobody lists it twice.
        for release in 0..RELEASES.len() {
            for model in models(release) {
                assert!(model.data.intersection(&model.removed).is_empty(), "{}", model.name());
                assert!(!model.name().is_empty() && !model.data.is_empty());
            }
        }
    }

    #[test]
    fn sets_are_sets() {
        let last = FEATURES.len() - 1;
        let (one, two): (Set, Set) =
            ([0, 63, 64, last].into_iter().collect(), [63, last, last + 1].into_iter().collect());
        assert_eq!((one.len(), two.len()), (4, 2));
        assert_eq!(one.intersection(&two), two);
        assert_eq!(one.minus(&two).iter().collect::<Vec<_>>(), [0, 64]);
        assert_eq!(one.minus(&two).union(&two), one);
        assert!(!one.contains(last + 1) && Set::EMPTY.is_empty());
    }

    #[test]
    fn slips_of_the_pen_find_what_was_meant() {
        assert_eq!(similar_model(newest(), "skylake-server-ibrs"), Some("Skylake-Server-IBRS"));
        assert_eq!(similar_feature(newest(), "sse4_1"), Some("sse4.1"));
        assert_eq!((similar_model(newest(), "Bogus"), similar_feature(newest(), "")), (None, None));
    }

    #[test]
    fn versions_find_their_release() {
        let find = |text| nearest(text);
        assert_eq!(find("11.3.0"), (newest(), Fit::Same));
        assert_eq!((find("10.0"), find("8.5"), find("git").1), ((0, Fit::Older), (0, Fit::Oldest), Fit::Unreadable));
    }
}
