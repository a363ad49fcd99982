//! The words of QEMU: which CPUID and MSR bits it knows, under which names, and what it does to them by itself.
//!
//! QEMU keeps features in words (`target/i386/cpu.c:feature_word_info`). A bit of a register that is no word of a
//! release never reaches a guest, and `-cpu host` drops every bit without a name unless `migratable=off` is given.
//! The tables stand in `knowledge/qemu/`, read out of running binaries. Releases are positions in [`RELEASES`].
//!
//! ```
//! use cpusieve_knowledge::qemu;
//! use cpusieve_model::{CpuidBit, Place, Register};
//!
//! let flush_l1d = Place::Cpuid(CpuidBit::new(7, 0, Register::Edx, 28));
//! let release = qemu::nearest("7.2.22").release;
//! assert_eq!(qemu::RELEASES[release].label, "7.2");
//! assert_eq!(qemu::name(release, flush_l1d), None);
//! assert_eq!(qemu::first_naming(flush_l1d).map(|release| qemu::RELEASES[release].label), Some("10.0"));
//! ```

mod cache;
mod feature;
mod fixup;
mod machine;
mod model;
mod property;
mod release;

use cpusieve_model::{CpuidBit, MsrBit, Place, Register};

use crate::TreeSet;
use crate::slots::Slots;

pub use cache::{Cache, CacheDescriptor, CacheKind, Caches, ShareLevel, cache_descriptors};
pub use feature::{Dependency, ExtSaveArea, HypervProperty, dependencies, ext_save_areas, hyperv_properties};
pub use fixup::{Condition, Constant, ConstantValue, Fixup, FixupEffect, fixups, word_fixups};
pub use machine::{
    Accelerator, CompatProperty, DefaultCpuVersion, DefaultProperty, Machine, MachineKind, MaxMoment, MaxProperty,
    UnknownMachine, compat, default_properties, machine, machines, max_properties,
};
pub use model::{Model, Resolved, Version, cpu_names, model, models, near_cpu_names, resolve, versions};
pub use property::{Property, PropertyKind, properties, property, property_aliases};
pub use release::{Fit, Nearest, Release, nearest};

use property::OtherProperty;

include!(concat!(env!("OUT_DIR"), "/qemu.rs"));

/// A register that QEMU keeps as a feature word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Word {
    /// A register of CPUID output.
    Cpuid {
        /// EAX on input.
        leaf: u32,
        /// ECX on input; 0 for leaves that do not look at it.
        subleaf: u32,
        /// The output register.
        register: Register,
    },
    /// A model-specific register, 64 bits.
    Msr {
        /// The MSR's index.
        index: u32,
    },
}

impl Word {
    /// The word in which a place lies; `None` for flags that Linux makes up.
    #[must_use]
    pub const fn of(place: Place) -> Option<Self> {
        match place {
            Place::Cpuid(CpuidBit { leaf, subleaf, register, .. }) => Some(Self::Cpuid { leaf, subleaf, register }),
            Place::Msr(bit) => Some(Self::Msr { index: bit.index }),
            Place::Linux(_) => None,
        }
    }

    /// The place of one bit of the word: 0 to 31 of a CPUID register, 0 to 63 of an MSR.
    #[must_use]
    pub const fn bit(self, bit: u8) -> Place {
        match self {
            Self::Cpuid { leaf, subleaf, register } => Place::Cpuid(CpuidBit::new(leaf, subleaf, register, bit)),
            Self::Msr { index } => Place::Msr(MsrBit { index, bit }),
        }
    }

    /// The bits of the word in `release` that are named there and not marked unmigratable, or marked migratable
    /// without a name: what `-cpu host,migratable=on` may keep (`target/i386/cpu.c:x86_cpu_get_migratable_flags`).
    #[must_use]
    pub fn migratable_mask(self, release: usize) -> u64 {
        self.mask(|bit| {
            bit.migratable_unnamed.contains(release)
                || bit.named.contains(release) && !bit.unmigratable.contains(release)
        })
    }

    /// The bits of the word that have a name in `release`.
    #[must_use]
    pub fn named_mask(self, release: usize) -> u64 {
        self.mask(|bit| bit.named.contains(release))
    }

    /// The bits of the word that TCG implements in `release`.
    #[must_use]
    pub fn tcg_mask(self, release: usize) -> u64 {
        self.mask(|bit| bit.tcg.contains(release))
    }

    /// The bits of the word that `-cpu host` and `-cpu max` never turn on by themselves in `release`.
    #[must_use]
    pub fn no_autoenable_mask(self, release: usize) -> u64 {
        self.mask(|bit| bit.no_autoenable.contains(release))
    }

    /// The bits of the word that are unmigratable in `release`.
    #[must_use]
    pub fn unmigratable_mask(self, release: usize) -> u64 {
        self.mask(|bit| bit.unmigratable.contains(release))
    }

    /// What the tables say of the bits of the word, in any release, by bit.
    #[must_use]
    pub fn bits(self) -> &'static [Bit] {
        let start = BITS.partition_point(|bit| bit.place < self.bit(0));
        let end = BITS.partition_point(|bit| bit.place <= self.bit(63));
        BITS.get(start..end).unwrap_or(&[])
    }

    fn mask(self, has: impl Fn(&Bit) -> bool) -> u64 {
        self.bits().iter().filter(|bit| has(bit)).fold(0, |mask, bit| mask | 1 << bit.position())
    }
}

/// A feature word and the releases that have it.
struct FeatureWord {
    word: Word,
    releases: TreeSet,
}

/// What QEMU says of one bit of a feature word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bit {
    /// The bit.
    pub place: Place,
    /// The property of `-cpu` that sets it.
    pub name: Option<&'static str>,
    /// The releases in which it has that name.
    pub named: TreeSet,
    /// The releases in which `migratable=on` drops it although it has a name.
    pub unmigratable: TreeSet,
    /// The releases in which `migratable=on` keeps it although it has no name.
    pub migratable_unnamed: TreeSet,
    /// The releases in which `-cpu host` and `-cpu max` do not turn it on unless asked to.
    pub no_autoenable: TreeSet,
    /// The releases whose TCG implements it.
    pub tcg: TreeSet,
}

impl Bit {
    /// Its bit in the word, 0 to 63.
    #[must_use]
    pub const fn position(&self) -> u8 {
        match self.place {
            Place::Cpuid(bit) => bit.bit,
            Place::Msr(bit) => bit.bit,
            Place::Linux(bit) => bit.bit,
        }
    }
}

/// The feature words of a release, in the order of its enumeration, which is the order of its warnings.
pub fn words(release: usize) -> impl Iterator<Item = Word> {
    WORDS.iter().filter(move |word| word.releases.contains(release)).map(|word| word.word)
}

/// The number of feature words of all releases together.
pub const WORD_COUNT: usize = WORD_ORDER.len();

/// The position of a word in [`WORD_ORDER`]; `None` if no release has it.
#[must_use]
pub fn word_position(word: Word) -> Option<usize> {
    let known = |index: &u8| WORD_ORDER.get(usize::from(*index)).copied();
    let found = WORDS_SORTED.binary_search_by_key(&Some(word), known).ok()?;
    WORDS_SORTED.get(found).map(|&index| usize::from(index))
}

/// Whether `release` has the word at this position of [`WORD_ORDER`].
#[must_use]
pub fn has_word(release: usize, position: usize) -> bool {
    WORDS.get(position).is_some_and(|word| word.releases.contains(release))
}

/// Every bit that has a name or an attribute in any release, sorted by place.
#[must_use]
pub fn bits() -> &'static [Bit] {
    BITS
}

/// What the tables say of one bit, in any release.
#[must_use]
pub fn bit(place: Place) -> Option<&'static Bit> {
    BITS.binary_search_by(|bit| bit.place.cmp(&place)).ok().and_then(|index| BITS.get(index))
}

/// Every bit that has a name in any release, with that name, by name.
pub fn named_bits() -> impl Iterator<Item = (&'static str, &'static Bit)> {
    BY_NAME.iter().filter_map(|&(name, index)| Some((name, BITS.get(usize::from(index))?)))
}

/// Whether the register of this place is a feature word of `release`. If not, the bit never reaches a guest.
#[must_use]
pub fn word_exists(release: usize, place: Place) -> bool {
    let Some(word) = Word::of(place) else { return false };
    let known = |index: &u8| WORDS.get(usize::from(*index));
    let found = WORDS_SORTED.binary_search_by_key(&Some(word), |index| known(index).map(|known| known.word));
    let known = found.ok().and_then(|position| known(&WORDS_SORTED[position]));
    known.is_some_and(|known| known.releases.contains(release))
}

/// The name of the property that stands for this bit in `release`.
#[must_use]
pub fn name(release: usize, place: Place) -> Option<&'static str> {
    bit(place).filter(|bit| bit.named.contains(release)).and_then(|bit| bit.name)
}

/// The name of the property behind a name that `-cpu` takes: aliases (`sse3`, `xd`, `tsc_adjust`) give their property's
/// name, every other name itself.
#[must_use]
pub fn canonical(name: &str) -> &str {
    match ALIASES.binary_search_by(|(alias, _)| (*alias).cmp(name)) {
        Ok(index) => ALIASES.get(index).map_or(name, |(_, name)| name),
        Err(_) => name,
    }
}

/// Second names of properties: alias and name, sorted by alias; the same in all releases.
#[must_use]
pub fn aliases() -> &'static [(&'static str, &'static str)] {
    ALIASES
}

/// The bits that a property name or alias stands for in any release; two for `kvmclock` and
/// `vmx-invept-single-context`.
pub fn by_name(name: &str) -> impl Iterator<Item = &'static Bit> {
    let name = canonical(name);
    let start = BY_NAME_SLOTS.find(name, |position| BY_NAME.get(position).map(|(known, _)| *known));
    let found = BY_NAME.get(start.unwrap_or(BY_NAME.len())..).unwrap_or(&[]).iter();
    found.take_while(move |(known, _)| *known == name).filter_map(|&(_, index)| BITS.get(usize::from(index)))
}

/// The places that a property name or alias stands for in `release`; none if the release has no such property.
pub fn places(release: usize, name: &str) -> impl Iterator<Item = Place> {
    by_name(name).filter(move |bit| bit.named.contains(release)).map(|bit| bit.place)
}

/// Whether `migratable=on`, the default of `-cpu host`, drops this bit in `release` although it has a name.
#[must_use]
pub fn unmigratable(release: usize, place: Place) -> bool {
    bit(place).is_some_and(|bit| bit.unmigratable.contains(release))
}

/// Whether `-cpu host` and `-cpu max` leave this bit off in `release` unless asked to set it.
#[must_use]
pub fn no_autoenable(release: usize, place: Place) -> bool {
    bit(place).is_some_and(|bit| bit.no_autoenable.contains(release))
}

/// Whether TCG implements this bit in `release`.
#[must_use]
pub fn tcg(release: usize, place: Place) -> bool {
    bit(place).is_some_and(|bit| bit.tcg.contains(release))
}

/// The oldest release of [`RELEASES`] in which this bit has a name. Releases between the listed ones are not known.
#[must_use]
pub fn first_naming(place: Place) -> Option<usize> {
    bit(place).and_then(|bit| bit.named.first())
}
