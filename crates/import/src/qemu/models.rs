//! `builtin_x86_defs`, the cache tables, and the descriptors of leaf 2.

use super::initializer::{Element, field, list, nested};
use super::words::FeatureWord;
use super::{CPU_C, Caches, Descriptor, Model, Result, Source, Version, no_table, unreadable};

pub(super) fn read(source: &Source, words: &[FeatureWord]) -> Result<Vec<Model>> {
    let table = "builtin_x86_defs[] =";
    let rows = list(&source.cpu, table).ok_or_else(|| no_table(CPU_C, table))?;
    rows.iter()
        .map(|row| {
            let fields = nested(row.value).ok_or_else(|| unreadable(table, row.value))?;
            let name = field(&fields, ".name").and_then(|name| source.macros.string(name));
            model(source, words, name.ok_or_else(|| unreadable(table, row.value))?, &fields)
        })
        .collect()
}

fn model(source: &Source, words: &[FeatureWord], name: String, fields: &[Element<'_>]) -> Result<Model> {
    let mut model = Model {
        name: name.clone(),
        level: 0,
        xlevel: 0,
        vendor: String::new(),
        family: 0,
        model: 0,
        stepping: 0,
        model_id: String::new(),
        words: Vec::new(),
        caches: None,
        avx10_version: 0,
        deprecated: None,
        versions: vec![Version { number: 1, alias: None, note: None, properties: Vec::new(), caches: None }],
    };
    for &Element { designator, value } in fields {
        let wrong = || unreadable(format!("model {name}"), &format!("{designator} = {value}"));
        let text = || source.macros.string(value).ok_or_else(wrong);
        let wide = || source.macros.value(value).ok_or_else(wrong);
        let number = || wide().and_then(|number| u32::try_from(number).map_err(|_| wrong()));
        match designator {
            ".name" => {}
            ".level" => model.level = number()?,
            ".xlevel" => model.xlevel = number()?,
            ".vendor" => model.vendor = text()?,
            ".family" => model.family = number()?,
            ".model" => model.model = number()?,
            ".stepping" => model.stepping = number()?,
            ".model_id" => model.model_id = text()?,
            ".avx10_version" => model.avx10_version = number()?,
            ".deprecation_note" => model.deprecated = Some(text()?),
            ".cache_info" => model.caches = Some(reference(value).ok_or_else(wrong)?),
            ".versions" => model.versions = versions(source, value).ok_or_else(wrong)?,
            _ => {
                let id = designator.strip_prefix(".features[").and_then(|id| id.strip_suffix(']')).ok_or_else(wrong)?;
                let index = words.iter().position(|word| word.id == id).ok_or_else(wrong)?;
                let bits = wide()?;
                // A word that is named twice has the last value, as in C.
                model.words.retain(|(known, _)| *known != index);
                if bits != 0 {
                    model.words.push((index, bits));
                }
            }
        }
    }
    model.words.sort_unstable();
    Ok(model)
}

fn reference(value: &str) -> Option<String> {
    value.strip_prefix('&').map(|name| name.trim().to_owned())
}

fn versions(source: &Source, value: &str) -> Option<Vec<Version>> {
    let text = |value: &str| source.macros.string(value);
    let mut found = Vec::new();
    for row in nested(value)? {
        let fields = nested(row.value)?;
        if fields.is_empty() {
            continue;
        }
        let mut version = Version { number: 0, alias: None, note: None, properties: Vec::new(), caches: None };
        for Element { designator, value } in fields {
            match designator {
                ".version" => version.number = u32::try_from(source.macros.value(value)?).ok()?,
                ".alias" => version.alias = Some(text(value)?),
                ".note" => version.note = Some(text(value)?),
                ".cache_info" => version.caches = Some(reference(value)?),
                ".props" => version.properties = properties(source, value)?,
                _ => return None,
            }
        }
        found.push(version);
    }
    Some(found)
}

/// The pairs of a `PropValue[]`; an empty pair ends it.
pub(super) fn properties(source: &Source, value: &str) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    for row in nested(value)? {
        match nested(row.value)?[..] {
            [] => {}
            [end, _] if end.value == "NULL" => {}
            [name, value] => found.push((source.macros.string(name.value)?, source.macros.string(value.value)?)),
            _ => return None,
        }
    }
    Some(found)
}

/// The properties of a cache, as the field in QEMU and the word in the table.
const CACHE_PROPERTIES: [(&str, &str); 4] = [
    (".self_init", "self-init"),
    (".no_invd_sharing", "no-invd-sharing"),
    (".inclusive", "inclusive"),
    (".complex_indexing", "complex-indexing"),
];

pub(super) fn caches(source: &Source) -> Result<Vec<Caches>> {
    let mut found = Vec::new();
    let mut rest = source.cpu.as_str();
    while let Some((_, after)) = rest.split_once("CPUCaches ") {
        rest = after;
        let Some((name, _)) = after.split_once(" = {").filter(|(name, _)| name.chars().all(crate::c::is_word)) else {
            continue;
        };
        let wrong = || unreadable(name, after);
        let fields = list(after, "=").ok_or_else(wrong)?;
        let mut caches = Vec::new();
        for short in ["l1d", "l1i", "l2", "l3"] {
            let cache = field(&fields, &format!(".{short}_cache")).and_then(nested).ok_or_else(wrong)?;
            caches.push((short.to_owned(), cache_cells(source, short, &cache).ok_or_else(wrong)?));
        }
        found.push(Caches { name: name.to_owned(), caches });
    }
    Ok(found)
}

/// Size, line size, ways, partitions, sets, lines per tag, level at which it is shared, properties.
fn cache_cells(source: &Source, short: &str, cache: &[Element<'_>]) -> Option<[String; 8]> {
    let value = |name: &str| field(cache, name).map_or(Some(0), |text| source.macros.value(text));
    let number = |name: &str| value(name).map(|value| value.to_string());
    // Up to 8.2 the code has the level, and not the table.
    let shared = match field(cache, ".share_level") {
        Some(level) => level.strip_prefix("CPU_TOPOLOGY_LEVEL_")?.to_ascii_lowercase(),
        None => if short == "l3" { "die" } else { "core" }.to_owned(),
    };
    let mut properties = Vec::new();
    for (name, word) in CACHE_PROPERTIES {
        if value(name)? != 0 {
            properties.push(word);
        }
    }
    Some([
        size(value(".size")?)?,
        number(".line_size")?,
        number(".associativity")?,
        number(".partitions")?,
        number(".sets")?,
        number(".lines_per_tag")?,
        shared,
        if properties.is_empty() { "-".to_owned() } else { properties.join(",") },
    ])
}

/// Bytes as the tables write them: `32K`, `16M`.
fn size(bytes: u64) -> Option<String> {
    match (bytes % (1 << 20), bytes % (1 << 10)) {
        (0, _) => Some(format!("{}M", bytes >> 20)),
        (_, 0) => Some(format!("{}K", bytes >> 10)),
        _ => None,
    }
}

pub(super) fn descriptors(source: &Source) -> Result<Vec<Descriptor>> {
    let table = "cpuid2_cache_descriptors[] =";
    let rows = list(&source.cpu, table).ok_or_else(|| no_table(CPU_C, table))?;
    let mut found = Vec::new();
    for row in rows {
        found.push(descriptor(source, row).ok_or_else(|| unreadable(table, row.value))?);
    }
    found.sort();
    Ok(found)
}

fn descriptor(source: &Source, row: Element<'_>) -> Option<Descriptor> {
    let code = source.macros.value(row.designator.strip_prefix('[')?.strip_suffix(']')?)?;
    let fields = nested(row.value)?;
    let number = |name: &str| Some(source.macros.value(field(&fields, name)?)?.to_string());
    let kind = field(&fields, ".type")?.strip_suffix("_CACHE")?.to_ascii_lowercase();
    let bytes = field(&fields, ".size")?;
    // One size is written as `1.5 * MiB`.
    let bytes = match bytes.split_once('.') {
        None => source.macros.value(bytes)?,
        Some((whole, rest)) => {
            let half = rest.strip_prefix('5')?;
            source.macros.value(&format!("({whole} * 2 + 1){half}"))? / 2
        }
    };
    let cells = [kind, number(".level")?, size(bytes)?, number(".associativity")?, number(".line_size")?];
    Some(Descriptor { code: u8::try_from(code).ok()?, cells })
}
