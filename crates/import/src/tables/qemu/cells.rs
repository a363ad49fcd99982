//! What a release's facts are in the cells of the tables, without the sets of releases.

use std::collections::BTreeMap;

use crate::qemu::{FeatureWord, Model, QemuFacts, Register};

/// Names of bits by register and bit.
pub(super) type Names = BTreeMap<String, BTreeMap<u8, String>>;

/// Place, name, and the five attributes of every bit that has any.
pub(super) fn bit_rows(word: &FeatureWord) -> impl Iterator<Item = (String, Option<String>, [bool; 5])> {
    (0..64).filter_map(move |bit| {
        let name = word.names.iter().find(|(known, _)| *known == bit).map(|(_, name)| name.clone());
        let has = |mask: u64| mask >> bit & 1 == 1;
        let rest = [has(word.unmigratable), has(word.migratable), has(word.no_autoenable), has(word.tcg)];
        let [unmigratable, migratable, no_autoenable, tcg] = rest;
        let holds = [name.is_some(), unmigratable, migratable, no_autoenable, tcg];
        holds.contains(&true).then(|| (format!("{}[{bit}]", word.register), name, holds))
    })
}

/// A cell, and others behind it.
pub(super) fn prepend(first: String, rest: &[String]) -> Vec<String> {
    std::iter::once(first).chain(rest.iter().cloned()).collect()
}

fn or_dash(text: Option<&String>) -> String {
    text.cloned().unwrap_or_else(|| "-".to_owned())
}

/// `models.tsv`: what only a binary shows, that leaf 1F is forced, is `-`.
pub(super) fn models(facts: &QemuFacts) -> Vec<Vec<String>> {
    let row = |model: &Model| {
        vec![
            model.name.clone(),
            model.vendor.clone(),
            model.family.to_string(),
            model.model.to_string(),
            model.stepping.to_string(),
            format!("{:X}", model.level),
            format!("{:X}", model.xlevel),
            or_dash(model.caches.as_ref()),
            model.avx10_version.to_string(),
            "-".to_owned(),
            model.model_id.clone(),
            or_dash(model.deprecated.as_ref()),
        ]
    };
    facts.models.iter().map(row).collect()
}

/// `model-words.tsv`.
pub(super) fn model_words(facts: &QemuFacts, names: &Names) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for model in &facts.models {
        for (index, value) in &model.words {
            let Some(word) = facts.words.get(*index) else { continue };
            let register = word.register.to_string();
            let bits = bits(names, &register, *value);
            found.push(vec![model.name.clone(), register, bits]);
        }
    }
    found
}

/// A value as the tables write it: names, `[3]` or `[5..7]` where there is none, `*` for all bits.
fn bits(names: &Names, register: &str, value: u64) -> String {
    if value == u64::MAX {
        return "*".to_owned();
    }
    let known = names.get(register);
    let name = |bit: u8| {
        let known = known?;
        let name = known.get(&bit)?;
        (known.values().filter(|other| *other == name).count() == 1).then_some(name)
    };
    let set = |bit: u8| bit < 64 && value >> bit & 1 == 1;
    let mut parts = Vec::new();
    let mut bit = 0;
    while bit < 64 {
        if !set(bit) {
            bit += 1;
            continue;
        }
        if let Some(name) = name(bit) {
            parts.push(name.clone());
            bit += 1;
            continue;
        }
        let first = bit;
        while set(bit + 1) && name(bit + 1).is_none() {
            bit += 1;
        }
        parts.push(if first == bit { format!("[{bit}]") } else { format!("[{first}..{bit}]") });
        bit += 1;
    }
    parts.join(" ")
}

/// `versions.tsv`.
pub(super) fn versions(facts: &QemuFacts) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for model in &facts.models {
        for version in &model.versions {
            let pairs: Vec<String> = version.properties.iter().map(|(name, value)| format!("{name}={value}")).collect();
            found.push(vec![
                model.name.clone(),
                version.number.to_string(),
                or_dash(version.alias.as_ref()),
                or_dash(version.caches.as_ref()),
                or_dash(version.note.as_ref()),
                if pairs.is_empty() { "-".to_owned() } else { pairs.join(" | ") },
            ]);
        }
    }
    found
}

/// `caches.tsv`: the tables that a model or version uses, and the legacy ones.
pub(super) fn caches(facts: &QemuFacts) -> Vec<Vec<String>> {
    let used = |name: &String| {
        let models = facts.models.iter();
        let mut uses =
            models.flat_map(|model| model.versions.iter().map(|version| &version.caches).chain([&model.caches]));
        name.starts_with("legacy_") || uses.any(|cache| cache.as_ref() == Some(name))
    };
    let tables = facts.caches.iter().filter(|table| used(&table.name));
    let rows = tables.flat_map(|table| table.caches.iter().map(|(cache, cells)| (table.name.clone(), cache, cells)));
    rows.map(|(name, cache, cells)| prepend(name, &prepend(cache.clone(), cells))).collect()
}

/// A mask as the tables write it: a run of more than four bits is a range, whatever the bits are called.
fn mask(names: &Names, register: &Register, value: u64) -> String {
    let (first, count) = (value.trailing_zeros(), value.count_ones());
    let run = value != u64::MAX && count > 4 && value >> first == (1 << count) - 1;
    if run { format!("[{first}..{}]", first + count - 1) } else { bits(names, &register.to_string(), value) }
}

/// `dependencies.tsv`.
pub(super) fn dependencies(facts: &QemuFacts, names: &Names) -> Vec<Vec<String>> {
    let side = |(index, value): (usize, u64)| {
        let register = facts.words.get(index).map(|word| &word.register);
        register.map(|register| [register.to_string(), mask(names, register, value)])
    };
    let rows = facts.dependencies.iter().filter_map(|row| Some([side(row.from)?, side(row.to)?].concat()));
    rows.collect()
}
