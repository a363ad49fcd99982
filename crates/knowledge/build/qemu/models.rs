//! `models.tsv`, `model-words.tsv`, `versions.tsv`, `caches.tsv`.

use std::fmt::Write as _;

use super::Source;
use super::place::Word;
use crate::Result;

pub(crate) fn generate(source: &Source, out: &mut String) -> Result<()> {
    let caches = caches(source, out)?;
    let words = words(source)?;
    let versions = versions(source, &caches)?;
    let models = models(source, &caches, &words, &versions, out)?;
    resolve(&models, &versions, out)
}

/// A cache table: name, releases, and its four caches as expressions.
struct Caches {
    name: String,
    releases: u64,
    caches: Vec<(String, String)>,
}

fn caches(source: &Source, out: &mut String) -> Result<Vec<Caches>> {
    let mut found: Vec<Caches> = Vec::new();
    source.tables.each(
        "qemu/caches.tsv",
        |[table, cache, present, size, line, ways, partitions, sets, lines_per_tag, shared, properties]| {
            let expression =
                cache_expression(cache, size, line, ways, partitions, sets, lines_per_tag, shared, properties)?;
            let releases = source.set_bits(present)?;
            match found
                .last_mut()
                .filter(|last| last.name == table && last.releases == releases && last.caches.len() < 4)
            {
                Some(last) => last.caches.push((cache.to_owned(), expression)),
                None => {
                    let caches = vec![(cache.to_owned(), expression)];
                    found.push(Caches { name: table.to_owned(), releases, caches });
                }
            }
            Ok(())
        },
    )?;
    writeln!(out, "/// Every cache table of any release.\npub static CACHES: &[Caches] = &[")?;
    for table in &found {
        let names: Vec<&str> = table.caches.iter().map(|(name, _)| name.as_str()).collect();
        if names != ["l1d", "l1i", "l2", "l3"] {
            return Err(format!("qemu/caches.tsv: {}: expected l1d, l1i, l2, l3, found {names:?}", table.name).into());
        }
        write!(out, "Caches {{ name: {:?}, releases: TreeSet({:#x}), ", table.name, table.releases)?;
        table.caches.iter().try_for_each(|(name, cache)| write!(out, "{name}: {cache}, "))?;
        writeln!(out, "}},")?;
    }
    writeln!(out, "];")?;
    for (constant, name, what) in [
        ("LEGACY_INTEL_CACHES", "legacy_intel_cache_info", "leaf 4 of a model without a cache table shows"),
        ("LEGACY_INTEL_CPUID2_CACHES", "legacy_intel_cpuid2_cache_info", "leaf 2 of a model without one shows"),
        ("LEGACY_AMD_CACHES", "legacy_amd_cache_info", "AMD's leaves of a model without one show"),
    ] {
        let index = found.iter().position(|table| table.name == name).ok_or_else(|| format!("no table {name}"))?;
        writeln!(out, "/// The caches that {what} (`target/i386/cpu.c`, in 10.2 `{name}`).")?;
        writeln!(out, "pub static {constant}: &Caches = &CACHES[{index}];")?;
    }
    Ok(found)
}

#[expect(clippy::too_many_arguments, reason = "the cells of a row")]
fn cache_expression(
    cache: &str,
    size: &str,
    line: &str,
    ways: &str,
    partitions: &str,
    sets: &str,
    lines_per_tag: &str,
    shared: &str,
    properties: &str,
) -> Result<String> {
    let (kind, level) = match cache {
        "l1d" => ("Data", 1),
        "l1i" => ("Instruction", 1),
        "l2" => ("Unified", 2),
        "l3" => ("Unified", 3),
        _ => return Err(format!("`{cache}` is no cache").into()),
    };
    let share = match shared {
        "thread" => "Thread",
        "core" => "Core",
        "module" => "Module",
        "die" => "Die",
        "socket" => "Socket",
        _ => return Err(format!("`{shared}` is no level of the topology").into()),
    };
    let number = |text: &str| text.parse::<u32>();
    let mut text = format!(
        "Cache {{ kind: CacheKind::{kind}, level: {level}, size: {}, line_size: {}, associativity: {}, partitions: {}, \
         sets: {}, lines_per_tag: {}, share_level: ShareLevel::{share}",
        bytes(size)?,
        number(line)?,
        number(ways)?,
        number(partitions)?,
        number(sets)?,
        number(lines_per_tag)?
    );
    let mut left: Vec<&str> = properties.split(',').filter(|&part| part != "-").collect();
    for name in ["self-init", "no-invd-sharing", "inclusive", "complex-indexing"] {
        let has = left.iter().position(|&part| part == name).map(|at| left.remove(at)).is_some();
        write!(text, ", {}: {has}", name.replace('-', "_"))?;
    }
    match left[..] {
        [] => Ok(text + " }"),
        [unknown, ..] => Err(format!("`{unknown}` is no property of a cache").into()),
    }
}

/// `32K` or `16M`, in bytes.
pub(super) fn bytes(text: &str) -> Result<u32> {
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).unwrap_or_default();
    let unit = match unit {
        "K" => 1 << 10,
        "M" => 1 << 20,
        _ => return Err(format!("`{text}` is no size").into()),
    };
    Ok(number.parse::<u32>()?.checked_mul(unit).ok_or("a size above 4 GiB")?)
}

/// A feature word of a model: model, releases, word, value.
struct WordRow {
    model: String,
    releases: u64,
    word: Word,
    value: u64,
}

fn words(source: &Source) -> Result<Vec<WordRow>> {
    let mut found = Vec::new();
    source.tables.each("qemu/model-words.tsv", |[model, word, present, bits]| {
        let word = Word::parse(word)?;
        let value = source.names.mask(word, bits)?;
        found.push(WordRow { model: model.to_owned(), releases: source.set_bits(present)?, word, value });
        Ok(())
    })?;
    Ok(found)
}

/// A version of a model, as an expression and with what `resolve` needs.
struct VersionRow {
    model: String,
    number: u8,
    alias: Option<String>,
    releases: u64,
    expression: String,
}

fn versions(source: &Source, caches: &[Caches]) -> Result<Vec<VersionRow>> {
    let mut found: Vec<VersionRow> = Vec::new();
    source.tables.each("qemu/versions.tsv", |[model, number, present, alias, table, note, properties]| {
        let (number, releases) = (number.parse::<u8>()?, source.set_bits(present)?);
        let alias = (alias != "-").then(|| alias.to_owned());
        let note = (note != "-").then_some(note);
        let mut pairs = Vec::new();
        for property in properties.split(" | ").filter(|&part| part != "-") {
            pairs.push(property.split_once('=').ok_or_else(|| format!("`{property}` is no property=value"))?);
        }
        let expression = format!(
            "Version {{ number: {number}, alias: {alias:?}, note: {note:?}, properties: &{pairs:?}, caches: {}, \
             releases: TreeSet({releases:#x}) }}",
            table_expression(caches, table, releases)?,
        );
        found.push(VersionRow { model: model.to_owned(), number, alias, releases, expression });
        Ok(())
    })?;
    Ok(found)
}

/// `None`, or the cache table of that name which all of `releases` have.
fn table_expression(caches: &[Caches], name: &str, releases: u64) -> Result<String> {
    if name == "-" {
        return Ok("None".to_owned());
    }
    let found = caches.iter().position(|table| table.name == name && releases & !table.releases == 0);
    let index = found.ok_or_else(|| format!("no cache table `{name}` of these releases"))?;
    Ok(format!("Some(&CACHES[{index}])"))
}

/// Name and releases of every row of `models.tsv`.
type ModelRows = Vec<(String, u64)>;

fn models(
    source: &Source,
    caches: &[Caches],
    words: &[WordRow],
    versions: &[VersionRow],
    out: &mut String,
) -> Result<ModelRows> {
    let mut found: ModelRows = Vec::new();
    source.tables.slice(
        out,
        "static MODELS: &[Model]",
        "qemu/models.tsv",
        |[
            name,
            present,
            vendor,
            family,
            model,
            stepping,
            level,
            xlevel,
            table,
            avx10,
            leaf_1f,
            model_id,
            deprecated,
        ]| {
            let releases = source.set_bits(present)?;
            let values = values(words, name, releases)?;
            let own = versions.iter().filter(|row| row.model == name);
            let versions: Vec<&str> = own.map(|row| row.expression.as_str()).collect();
            found.push((name.to_owned(), releases));
            Ok(format!(
                "Model {{ name: {name:?}, level: {:#x}, xlevel: {:#x}, vendor: {vendor:?}, family: {}, model: {}, \
             stepping: {}, model_id: {model_id:?}, words: &[{}], caches: {}, avx10_version: {}, \
             force_cpuid_0x1f: {}, deprecated: {:?}, releases: TreeSet({releases:#x}), versions: &[{}] }}",
                u32::from_str_radix(level, 16)?,
                u32::from_str_radix(xlevel, 16)?,
                family.parse::<u32>()?,
                model.parse::<u32>()?,
                stepping.parse::<u32>()?,
                values,
                table_expression(caches, table, releases)?,
                avx10.parse::<u8>()?,
                leaf_1f == "yes",
                (deprecated != "-").then_some(deprecated),
                versions.join(", "),
            ))
        },
    )?;
    for row in words.iter().map(|row| &row.model).chain(versions.iter().map(|row| &row.model)) {
        if !found.iter().any(|(name, _)| name == row) {
            return Err(format!("qemu/models.tsv has no model `{row}`").into());
        }
    }
    let mut by_name: Vec<(&str, usize)> =
        found.iter().enumerate().map(|(index, (name, _))| (name.as_str(), index)).collect();
    by_name.sort_unstable();
    writeln!(out, "static MODELS_BY_NAME: &[(&str, u16)] = &{by_name:?};")?;
    Ok(found)
}

/// The words of one definition of a model, as expressions.
fn values(words: &[WordRow], model: &str, releases: u64) -> Result<String> {
    let mut found = Vec::new();
    for row in words.iter().filter(|row| row.model == model && row.releases & releases != 0) {
        if releases & !row.releases != 0 {
            return Err(format!("{model}: a word holds for some of the releases of one definition").into());
        }
        found.push(format!("({}, {:#x})", row.word.expression(), row.value));
    }
    Ok(found.join(", "))
}

/// Every name that `-cpu` takes for a built-in model: name, model, version, releases.
fn resolve(models: &ModelRows, versions: &[VersionRow], out: &mut String) -> Result<()> {
    let mut found: Vec<(String, &str, Option<u8>, u64)> =
        models.iter().map(|(name, releases)| (name.clone(), name.as_str(), None, *releases)).collect();
    for row in versions {
        let number = Some(row.number);
        found.push((format!("{}-v{}", row.model, row.number), &row.model, number, row.releases));
        found.extend(row.alias.iter().map(|alias| (alias.clone(), row.model.as_str(), number, row.releases)));
    }
    found.sort();
    writeln!(out, "static CPU_NAMES: &[(&str, &str, Option<u8>, TreeSet)] = &[")?;
    for (name, model, version, releases) in found {
        writeln!(out, "({name:?}, {model:?}, {version:?}, TreeSet({releases:#x})),")?;
    }
    writeln!(out, "];")?;
    Ok(())
}

impl Source<'_> {
    /// The set of releases in a cell, as bits.
    pub(super) fn set_bits(&self, text: &str) -> Result<u64> {
        Ok(self.releases.parse_set(text)?.0)
    }

    /// The set of releases in a cell, as an expression.
    pub(super) fn set(&self, text: &str) -> Result<String> {
        super::set(self.releases, text)
    }
}
