//! The feature properties of one QEMU release, and sets of them.

use std::collections::BTreeMap;

use cpusieve_knowledge::qemu::{self, WORD_ORDER};
use cpusieve_knowledge::x86;
use cpusieve_model::Place;

use crate::offer::{Words, bit};

/// A feature property of `-cpu`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// QEMU's name.
    pub name: &'static str,
    /// The feature's id, as Linux prints it; QEMU's name where nobody else has one.
    pub id: &'static str,
    /// The bits that it stands for: two for `kvmclock` and `vmx-invept-single-context`.
    pub places: Vec<Place>,
    bits: Vec<(usize, u64)>,
}

impl Property {
    /// Whether all its bits are set.
    #[must_use]
    pub fn is_in(&self, words: &Words) -> bool {
        self.bits.iter().all(|&(at, mask)| words[at] & mask == mask)
    }

    /// Whether one of its bits is set.
    #[must_use]
    pub fn touches(&self, words: &Words) -> bool {
        self.bits.iter().any(|&(at, mask)| words[at] & mask != 0)
    }

    /// Its bits: a word's position in [`WORD_ORDER`], and a mask.
    #[must_use]
    pub fn bits(&self) -> &[(usize, u64)] {
        &self.bits
    }

    pub(crate) fn clear(&self, words: &mut Words) {
        for &(at, mask) in &self.bits {
            words[at] &= !mask;
        }
    }
}

/// All feature properties of a release, in the order of QEMU's words.
#[derive(Clone, Debug)]
pub struct Catalogue {
    /// The release, a position in [`qemu::RELEASES`].
    pub release: usize,
    properties: Vec<Property>,
    named: Words,
    migratable: Words,
}

impl Catalogue {
    /// The properties of a release.
    #[must_use]
    pub fn of(release: usize) -> Self {
        let mut by_name: BTreeMap<&'static str, Vec<Place>> = BTreeMap::new();
        for (name, found) in qemu::named_bits().filter(|(_, found)| found.named.contains(release)) {
            by_name.entry(name).or_default().push(found.place);
        }
        let property = |(name, places): (&'static str, Vec<Place>)| {
            let id = places.first().and_then(|&place| x86::by_place(place)).map_or(name, |feature| feature.id);
            let bits: Vec<_> = places.iter().filter_map(|&place| bit(place)).collect();
            Property { name, id, places, bits }
        };
        let mut properties: Vec<Property> = by_name.into_iter().map(property).filter(|p| !p.bits.is_empty()).collect();
        properties.sort_by_key(|property| property.bits.first().copied());
        // State components have no names; they come and go with the features that need them.
        let state = |word| matches!(word, qemu::Word::Cpuid { leaf: 0xd, subleaf: 0, .. });
        let all = |word, mask| if state(word) { u64::MAX } else { mask };
        let masks =
            |mask: &dyn Fn(qemu::Word) -> u64| std::array::from_fn(|at| WORD_ORDER.get(at).map_or(0, |&w| mask(w)));
        Self {
            release,
            properties,
            named: masks(&|word| all(word, word.named_mask(release))),
            migratable: masks(&|word| all(word, word.migratable_mask(release))),
        }
    }

    /// Every property.
    #[must_use]
    pub fn properties(&self) -> &[Property] {
        &self.properties
    }

    /// The properties all of whose bits are set.
    pub fn in_words(&self, words: &Words) -> impl Iterator<Item = &Property> {
        self.properties.iter().filter(move |property| property.is_in(words))
    }

    /// The bits of some words that have a name; with `migratable`, those alone that QEMU migrates.
    #[must_use]
    pub fn wanted(&self, words: &Words, migratable: bool) -> Words {
        std::array::from_fn(|at| {
            let kept = if migratable { self.migratable[at] } else { u64::MAX };
            words[at] & self.named[at] & kept
        })
    }

    /// Whether every bit with a name is migratable.
    #[must_use]
    pub fn is_migratable(&self, words: &Words) -> bool {
        words.iter().enumerate().all(|(at, word)| word & self.named[at] & !self.migratable[at] == 0)
    }
}
