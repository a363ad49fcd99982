//! `feature_word_info` and `feature_dependencies`.

use std::fmt;

use cpusieve_model::has_subleaves;

use super::initializer::{Element, field, list, nested};
use super::{CPU_C, CPU_H, Dependency, Result, Source, no_table, unreadable};

/// A feature word of QEMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureWord {
    /// Its name in `enum FeatureWord`.
    pub id: String,
    /// The register.
    pub register: Register,
    /// The names of its bits: bit and name, by bit.
    pub names: Vec<(u8, String)>,
    /// The bits that are unmigratable although they have a name.
    pub unmigratable: u64,
    /// The bits that are migratable although they have none.
    pub migratable: u64,
    /// The bits that `-cpu host` and `max` do not turn on by themselves.
    pub no_autoenable: u64,
    /// The bits that TCG implements.
    pub tcg: u64,
}

/// A register that holds features. Displays as the tables of `knowledge/` write it: `7.0.EBX`, `MSR 10A`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Register {
    /// A register of CPUID output.
    Cpuid {
        /// EAX on input.
        leaf: u32,
        /// ECX on input.
        subleaf: u32,
        /// `EAX` to `EDX`.
        name: String,
    },
    /// An MSR, by its index.
    Msr(u32),
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpuid { leaf, subleaf, name } if has_subleaves(*leaf) => write!(f, "{leaf:X}.{subleaf:X}.{name}"),
            Self::Cpuid { leaf, name, .. } => write!(f, "{leaf:X}.{name}"),
            Self::Msr(index) => write!(f, "MSR {index:X}"),
        }
    }
}

pub(super) fn read(source: &Source, header: &str) -> Result<Vec<FeatureWord>> {
    let order = list(header, "enum FeatureWord").ok_or_else(|| no_table(CPU_H, "enum FeatureWord"))?;
    let table = "feature_word_info[FEATURE_WORDS] =";
    let rows = list(&source.cpu, table).ok_or_else(|| no_table(CPU_C, table))?;
    let mut found = Vec::new();
    for id in order.iter().map(|element| element.value).filter(|&id| id != "FEATURE_WORDS") {
        let row = field(&rows, &format!("[{id}]")).and_then(nested).ok_or_else(|| unreadable(id, "no row"))?;
        found.push(word(source, id, &row)?);
    }
    Ok(found)
}

fn word(source: &Source, id: &str, row: &[Element<'_>]) -> Result<FeatureWord> {
    let number = |text: &str| source.macros.value(text).ok_or_else(|| unreadable(id, text));
    let small = |text: &str| number(text).and_then(|value| u32::try_from(value).map_err(|_| unreadable(id, text)));
    let mask = |name: &str| field(row, name).map_or(Ok(0), number);
    let part = |name: &str| field(row, name).and_then(nested);
    let register = match (part(".cpuid"), part(".msr")) {
        (Some(cpuid), None) => {
            let register = field(&cpuid, ".reg").and_then(|register| register.strip_prefix("R_"));
            let name = register.ok_or_else(|| unreadable(id, "no register"))?.to_owned();
            let leaf = small(field(&cpuid, ".eax").unwrap_or("0"))?;
            Register::Cpuid { leaf, subleaf: small(field(&cpuid, ".ecx").unwrap_or("0"))?, name }
        }
        (None, Some(msr)) => Register::Msr(small(field(&msr, ".index").unwrap_or("no index"))?),
        _ => return Err(unreadable(id, "neither CPUID nor MSR")),
    };
    let width = if matches!(register, Register::Msr(_)) { u64::MAX } else { 0xffff_ffff };
    Ok(FeatureWord {
        id: id.to_owned(),
        register,
        names: names(source, id, part(".feat_names").unwrap_or_default())?,
        unmigratable: mask(".unmigratable_flags")? & width,
        migratable: mask(".migratable_flags")? & width,
        no_autoenable: mask(".no_autoenable_flags")? & width,
        tcg: mask(".tcg_features")? & width,
    })
}

fn names(source: &Source, id: &str, elements: Vec<Element<'_>>) -> Result<Vec<(u8, String)>> {
    let mut found = Vec::new();
    let mut bit = 0_u8;
    for Element { designator, value } in elements {
        if let Some(index) = designator.strip_prefix('[').and_then(|index| index.strip_suffix(']')) {
            let index = source.macros.value(index).and_then(|index| u8::try_from(index).ok());
            bit = index.filter(|&index| index < 64).ok_or_else(|| unreadable(id, designator))?;
        }
        if value != "NULL" {
            found.push((bit, source.macros.string(value).ok_or_else(|| unreadable(id, value))?));
        }
        bit = bit.saturating_add(1);
    }
    found.sort();
    Ok(found)
}

pub(super) fn dependencies(source: &Source, words: &[FeatureWord]) -> Result<Vec<Dependency>> {
    let table = "feature_dependencies[] =";
    let rows = list(&source.cpu, table).ok_or_else(|| no_table(CPU_C, table))?;
    let side = |row: &[Element<'_>], name: &str| -> Option<(usize, u64)> {
        let pair = nested(field(row, name)?)?;
        let [word, mask] = pair[..] else { return None };
        let index = words.iter().position(|known| known.id == word.value)?;
        Some((index, source.macros.value(mask.value)?))
    };
    rows.iter()
        .map(|row| {
            let wrong = || unreadable(table, row.value);
            let parts = nested(row.value).ok_or_else(wrong)?;
            let (from, to) = (side(&parts, ".from"), side(&parts, ".to"));
            Ok(Dependency { from: from.ok_or_else(wrong)?, to: to.ok_or_else(wrong)? })
        })
        .collect()
}
