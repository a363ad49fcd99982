//! Machine types and properties: what a binary's answers are in the cells of the tables.
//!
//! An answer does not say all that the tables do. What it leaves out is taken from rows that are there already: what an
//! alias stands for, what cannot be set, the text that says why a machine is deprecated.

use std::cmp::Reverse;

use super::SheetRow;
use crate::qemu::{BinaryMachine, BinaryProperty};

/// Name, kind, version, alias, version of CPUs, default CPU, interrupt controller, most CPUs, why it is deprecated.
pub(super) fn machines(known: &[SheetRow], release: usize, machines: &[BinaryMachine]) -> Vec<Vec<String>> {
    let mut sorted: Vec<_> = machines.iter().map(|machine| (place(&machine.name), machine)).collect();
    sorted.sort_by(|(a, first), (b, second)| (a, &first.name).cmp(&(b, &second.name)));
    let text = why(known, release);
    let row = |((kind, Reverse(version)), machine): (Place, &BinaryMachine)| {
        let (kind, legacy) = (*KINDS.get(kind).unwrap_or(&"other"), version <= Some((4, 0)));
        let elder = known.iter().rev().find(|row| row.cells.first() == Some(&machine.name));
        let cell = |at: usize| elder.and_then(|row| row.cells.get(at)).cloned();
        let cpu_version = match kind {
            "microvm" => "latest",
            "isapc" => "legacy",
            "pc" | "q35" | "xenfv" if legacy => "legacy",
            _ => "1",
        };
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let version = version.and(machine.name.rsplit_once('-')).map(|(_, version)| version.to_owned());
        vec![
            machine.name.clone(),
            kind.to_owned(),
            or_dash(version),
            or_dash(machine.alias.clone()),
            cpu_version.to_owned(),
            or_dash(machine.default_cpu.clone()),
            or_dash(cell(6)),
            machine.max_cpus.to_string(),
            if machine.deprecated { text.clone() } else { "-".to_owned() },
        ]
    };
    sorted.into_iter().map(row).collect()
}

/// The kinds of machines, in the order of the table.
const KINDS: [&str; 7] = ["pc", "q35", "microvm", "isapc", "none", "xenfv", "other"];

/// Position among the kinds, and version, newest first.
type Place = (usize, Reverse<Option<(u16, u16)>>);

fn place(name: &str) -> Place {
    let numbers = name.rsplit_once('-').map(|(_, version)| version.split('.').map(str::parse::<u16>));
    let version = numbers.and_then(|mut numbers| Some((numbers.next()?.ok()?, numbers.next()?.ok()?)));
    let kind = match name {
        _ if name.starts_with("pc-q35-") => "q35",
        _ if name.starts_with("pc-") => "pc",
        _ if name.starts_with("xenfv") => "xenfv",
        _ => name,
    };
    (KINDS.iter().position(|known| *known == kind).unwrap_or(KINDS.len() - 1), Reverse(version))
}

/// Why machines of a release are deprecated: the same text for all; of a release that says none, that of the newest
/// release before it.
fn why(known: &[SheetRow], release: usize) -> String {
    let texts = |release: usize| {
        let rows = known.iter().filter(move |row| row.holds(release));
        rows.filter_map(|row| row.cells.get(8)).find(|text| *text != "-")
    };
    (0..=release).rev().find_map(texts).cloned().unwrap_or_else(|| "deprecated".to_owned())
}

/// Name, kind, default, types; of properties that stand for no feature bit.
pub(super) fn properties(
    known: &[SheetRow],
    release: usize,
    properties: &[BinaryProperty],
    is_feature: impl Fn(&str) -> bool,
) -> Vec<Vec<String>> {
    let mut sorted: Vec<&BinaryProperty> = properties.iter().filter(|property| !is_feature(&property.name)).collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let row = |property: &BinaryProperty| {
        let mut elders = known.iter().filter(|row| row.cells.first() == Some(&property.name));
        let now = elders.clone().find(|row| row.holds(release));
        let said = elders.find_map(|row| row.cells.get(1).filter(|kind| is_said(kind)));
        let default = now.and_then(|row| row.cells.get(2)).cloned();
        let default = match said {
            Some(_) => None,
            // Properties that the device hides tell no default; the source does.
            None => property.default.clone().or(default),
        };
        vec![
            property.name.clone(),
            said.cloned().unwrap_or_else(|| kind(&property.kind).to_owned()),
            default.unwrap_or_else(|| "-".to_owned()),
            if property.max_only { "max" } else { "*" }.to_owned(),
        ]
    };
    sorted.into_iter().map(row).collect()
}

/// Whether a kind is one that QMP does not show.
fn is_said(kind: &str) -> bool {
    kind == "read-only" || kind.starts_with("alias:")
}

/// The kind of a QMP type.
fn kind(text: &str) -> &str {
    match text {
        "bool" => "bool",
        "str" | "string" => "str",
        "int" => "int64",
        "OnOffAuto" => "on-off-auto",
        _ if text.starts_with("link<") => "link",
        _ if text.starts_with("uint") || text.starts_with("int") => text,
        // Lists and structures: they tell what came out of the CPU.
        _ => "read-only",
    }
}
