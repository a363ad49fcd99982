//! `knowledge/qemu/`: releases, feature words, their bits, aliases, fix-ups and constants; models, machines and
//! properties in modules of their own.

mod cpu;
mod machines;
mod models;
mod names;
pub(crate) mod place;

use std::fmt::Write as _;

use cpusieve_import::tables::TreeList;

use self::names::Names;
use self::place::{Bit, Word};
use crate::{Result, Tables, slots};

pub(crate) fn generate(tables: &Tables) -> Result<String> {
    let releases = TreeList::parse("qemu/releases.tsv", &tables.read("qemu/releases.tsv")?)?;
    let mut out = String::new();
    writeln!(out, "/// The QEMU releases that the tables were read from, oldest first.")?;
    crate::releases(&mut out, "pub static RELEASES", &releases)?;
    words(tables, &releases, &mut out)?;
    bits(tables, &releases, &mut out)?;
    aliases(tables, &mut out)?;
    fixups(tables, &releases, &mut out)?;
    constants(tables, &releases, &mut out)?;
    let source = Source { tables, releases: &releases, names: Names::new(&bit_rows(tables)?) };
    models::generate(&source, &mut out)?;
    machines::generate(&source, &mut out)?;
    cpu::generate(&source, &mut out)?;
    Ok(out)
}

/// What the tables that name releases and bits are read with.
struct Source<'a> {
    tables: &'a Tables,
    releases: &'a TreeList,
    names: Names,
}

/// One row of `bits.tsv`: where, QEMU's name, and the five sets of releases.
pub(crate) struct BitRow {
    pub(crate) place: Bit,
    pub(crate) name: Option<String>,
    sets: [String; 5],
}

pub(crate) fn bit_rows(tables: &Tables) -> Result<Vec<BitRow>> {
    let mut found = Vec::new();
    tables.each("qemu/bits.tsv", |[place, name, named, unmigratable, migratable, no_autoenable, tcg]| {
        let place = Bit::parse(place)?;
        let sets = [named, unmigratable, migratable, no_autoenable, tcg].map(str::to_owned);
        found.push(BitRow { place, name: (name != "-").then(|| name.to_owned()), sets });
        Ok(())
    })?;
    Ok(found)
}

/// Second names of properties, by `aliases.tsv`: alias, name.
pub(crate) fn alias_rows(tables: &Tables) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    tables.each("qemu/aliases.tsv", |[alias, name]| {
        found.push((alias.to_owned(), name.to_owned()));
        Ok(())
    })?;
    found.sort();
    Ok(found)
}

fn set(releases: &TreeList, text: &str) -> Result<String> {
    let bits = if text == "-" { 0 } else { releases.parse_set(text)?.0 };
    Ok(format!("TreeSet({bits:#x})"))
}

fn words(tables: &Tables, releases: &TreeList, out: &mut String) -> Result<()> {
    let mut order = Vec::new();
    tables.slice(out, "static WORDS: &[FeatureWord]", "qemu/words.tsv", |[word, present]| {
        let word = Word::parse(word)?;
        order.push(word);
        Ok(format!("FeatureWord {{ word: {}, releases: {} }}", word.expression(), set(releases, present)?))
    })?;
    let mut by_word: Vec<usize> = (0..order.len()).collect();
    by_word.sort_by_key(|&index| order[index]);
    writeln!(out, "static WORDS_SORTED: &[u8] = &{by_word:?};")?;
    writeln!(out, "/// The feature words of all releases, in the order of QEMU's enumeration.")?;
    writeln!(out, "pub const WORD_ORDER: [Word; {}] = [", order.len())?;
    for word in &order {
        writeln!(out, "{},", word.expression())?;
    }
    writeln!(out, "];")?;
    Ok(())
}

fn bits(tables: &Tables, releases: &TreeList, out: &mut String) -> Result<()> {
    let mut found = bit_rows(tables)?;
    found.sort_by_key(|row| row.place);
    writeln!(out, "static BITS: &[Bit] = &[")?;
    for row in &found {
        let [named, unmigratable, migratable, no_autoenable, tcg] = &row.sets;
        writeln!(
            out,
            "Bit {{ place: {}, name: {:?}, named: {}, unmigratable: {}, migratable_unnamed: {}, \
             no_autoenable: {}, tcg: {} }},",
            row.place.expression(),
            row.name,
            set(releases, named)?,
            set(releases, unmigratable)?,
            set(releases, migratable)?,
            set(releases, no_autoenable)?,
            set(releases, tcg)?,
        )?;
    }
    writeln!(out, "];")?;
    let mut by_name: Vec<(&str, usize)> =
        found.iter().enumerate().filter_map(|(index, row)| Some((row.name.as_deref()?, index))).collect();
    by_name.sort_unstable();
    writeln!(out, "static BY_NAME: &[(&str, u16)] = &{by_name:?};")?;
    slots::write(out, "BY_NAME", by_name.iter().map(|(name, _)| *name))
}

fn aliases(tables: &Tables, out: &mut String) -> Result<()> {
    writeln!(out, "static ALIASES: &[(&str, &str)] = &{:?};", alias_rows(tables)?)?;
    Ok(())
}

fn fixups(tables: &Tables, releases: &TreeList, out: &mut String) -> Result<()> {
    let mut found = Vec::new();
    tables.each("qemu/fixups.tsv", |[place, effect, present, condition, cite]| {
        let (word, mask) = match place.ends_with(']') {
            true => Bit::parse(place).map(|bit| (bit.word, 1_u64 << bit.bit))?,
            false => (Word::parse(place)?, u64::MAX),
        };
        let effect = match effect {
            "adds" => "FixupEffect::Adds",
            "removes" => "FixupEffect::Removes",
            "replaces" => "FixupEffect::Replaces",
            _ => return Err(format!("`{effect}` is no effect").into()),
        };
        let conditions = conditions(condition)?;
        let fixup = format!(
            "Fixup {{ word: {}, mask: {mask:#x}, effect: {effect}, releases: {}, \
             conditions: &[{conditions}], cite: {cite:?} }},",
            word.expression(),
            set(releases, present)?,
        );
        found.push((word, fixup));
        Ok(())
    })?;
    // Stable: the fix-ups of one register stay in the order of the code.
    found.sort_by_key(|(word, _)| *word);
    writeln!(
        out,
        "/// What QEMU adds to and removes from KVM's answer by itself, by register, then in the order of its code."
    )?;
    writeln!(out, "pub static FIXUPS: &[Fixup] = &[")?;
    found.iter().try_for_each(|(_, fixup)| writeln!(out, "{fixup}"))?;
    writeln!(out, "];")?;
    Ok(())
}

fn conditions(text: &str) -> Result<String> {
    let mut found = Vec::new();
    for part in text.split('+').filter(|&part| part != "always") {
        let hexadecimal = |text: &str| u32::from_str_radix(text, 16).map_err(|error| format!("`{text}`: {error}"));
        found.push(match (part, part.split_once(':')) {
            ("raw", _) => "Condition::HostHasBit".to_owned(),
            ("irqchip:kernel", _) => "Condition::IrqchipInKernel(true)".to_owned(),
            ("!irqchip:kernel", _) => "Condition::IrqchipInKernel(false)".to_owned(),
            ("irqchip:split", _) => "Condition::IrqchipSplit".to_owned(),
            ("cpu-pm", _) => "Condition::CpuPm(true)".to_owned(),
            ("!cpu-pm", _) => "Condition::CpuPm(false)".to_owned(),
            ("haswell-tsx", _) => "Condition::HaswellTsx".to_owned(),
            ("host-model", _) => "Condition::HostModel".to_owned(),
            ("vendor:amd", _) => "Condition::VendorAmd(true)".to_owned(),
            ("!vendor:amd", _) => "Condition::VendorAmd(false)".to_owned(),
            ("!machine:pc", _) => "Condition::NotPcMachine".to_owned(),
            ("immune:stale-data", _) => "Condition::ImmuneToStaleData".to_owned(),
            (_, Some(("cap", number))) => format!("Condition::Capability({})", number.parse::<u32>()?),
            (_, Some(("!msr-index", index))) => format!("Condition::NotInMsrIndex({:#x})", hexadecimal(index)?),
            (_, Some(("!prop", name))) => format!("Condition::PropertyOff({name:?})"),
            (_, Some(("supported", bit))) => format!("Condition::Supported({})", Bit::parse(bit)?.expression()),
            _ => return Err(format!("`{part}` is no condition").into()),
        });
    }
    Ok(found.join(", "))
}

fn constants(tables: &Tables, releases: &TreeList, out: &mut String) -> Result<()> {
    writeln!(out, "/// Registers that QEMU fills by itself, of leaves that features live in.")?;
    tables.slice(
        out,
        "pub static CONSTANTS: &[Constant]",
        "qemu/constants.tsv",
        |[word, value, present, condition, cite]| {
            let value = match value {
                "word" => "ConstantValue::FeatureWord".to_owned(),
                _ => format!("ConstantValue::Fixed({:#x})", u32::from_str_radix(value, 16)?),
            };
            Ok(format!(
                "Constant {{ word: {}, value: {value}, releases: {}, conditions: &[{}], cite: {cite:?} }}",
                Word::parse(word)?.expression(),
                set(releases, present)?,
                conditions(condition)?
            ))
        },
    )
}
