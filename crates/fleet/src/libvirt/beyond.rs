//! Beside libvirt's names, QEMU's: what a definition is on its command line, and what its model has there beyond the map.

use cpusieve_knowledge::libvirt::{self, FEATURES, Set};
use cpusieve_knowledge::qemu::{self, Model, WORD_COUNT};

use super::cpu::{Cpu, Policy};
use crate::catalogue::{Catalogue, Property};
use crate::naming::Named;
use crate::offer::{Words, bit};

/// The model of a definition with its differences, in QEMU's words; `None` if it names no model. What QEMU has no name for
/// keeps libvirt's.
#[must_use]
pub fn named(cpu: &Cpu, catalogue: &Catalogue) -> Option<Named> {
    let name = cpu.model.clone()?;
    let property = |name: &str| -> Option<&'static str> {
        let known = FEATURES.iter().find(|feature| feature.name() == name)?;
        let found = catalogue.properties().iter().find(|property| property.places.contains(&known.place));
        Some(found.map_or(known.name(), |property| property.name))
    };
    let of = |wanted: [Policy; 2]| {
        let named = cpu.features.iter().filter(move |(_, policy)| wanted.contains(policy));
        named.filter_map(|(name, _)| property(name)).collect::<Vec<_>>()
    };
    let (plus, minus) = (of([Policy::Require, Policy::Force]), of([Policy::Disable, Policy::Forbid]));
    let signed = |sign: char, names: &[&str]| names.iter().map(|name| format!(",{sign}{name}")).collect::<String>();
    let command_line = format!("{name}{}{}", signed('+', &plus), signed('-', &minus));
    let vendor = None;
    Some(Named { cpu: command_line, name, plus, minus, vendor, words: [0; WORD_COUNT], given_up: Vec::new() })
}

/// libvirt's names of what QEMU's model of the same name has, and libvirt neither counts as the model's nor finds named in
/// the definition: a guest gets it all the same. Empty if QEMU has no such model; of a name without a version, its first.
#[must_use]
pub fn beyond(cpu: &Cpu, catalogue: &Catalogue, release: usize) -> Vec<&'static str> {
    let Some(name) = &cpu.model else { return Vec::new() };
    let Some(found) = qemu::resolve(catalogue.release, name) else { return Vec::new() };
    let words = words(found.model, found.version.unwrap_or(1), catalogue);
    let places = catalogue.in_words(&words).flat_map(|property: &Property| &property.places);
    let has: Set = places.filter_map(|&place| libvirt::at(release, place)).collect();
    let counted = libvirt::model(release, name).map_or(Set::EMPTY, |model| model.data);
    let named = |feature: &&str| cpu.features.contains_key(*feature);
    has.minus(&counted).names().filter(|feature| !named(feature)).collect()
}

/// The words of a version: the model's, changed by each version up to it.
fn words(model: &Model, version: u8, catalogue: &Catalogue) -> Words {
    let mut words = [0; WORD_COUNT];
    for &(word, value) in model.words {
        if let Some(slot) = qemu::word_position(word).and_then(|at| words.get_mut(at)) {
            *slot = value;
        }
    }
    let versions = model.versions(catalogue.release).filter(|known| known.number <= version);
    for &(name, value) in versions.flat_map(|version| version.properties) {
        for (at, mask) in qemu::places(catalogue.release, name).filter_map(bit) {
            words[at] = if value == "on" { words[at] | mask } else { words[at] & !mask };
        }
    }
    words
}
