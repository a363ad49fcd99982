//! What a running binary tells over QMP: machine types and properties, which it puts into the tables, and models, which it
//! is held against.
//!
//! A binary does not tell everything that stands in a row: which version of a CPU model a machine type takes, where its
//! interrupt controller is, why it is deprecated, which property is an alias or cannot be set. Those cells are taken from
//! the row that was there, or from the next machine type of its family.

use std::collections::{BTreeMap, BTreeSet};

use super::{LAYOUTS, MACHINES, PROPERTIES, QemuImportError, QemuTables, SheetRow};

/// What one binary tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BinaryFacts {
    /// `query-machines`
    pub machines: Vec<BinaryMachine>,
    /// Properties of the types `base` and `max`, and of the abstract type of all CPUs; each name once.
    pub properties: Vec<BinaryProperty>,
    /// `query-cpu-definitions`
    pub models: Vec<BinaryModel>,
}

/// A machine type as a binary tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BinaryMachine {
    /// `pc-q35-10.0`
    pub name: String,
    /// `q35`
    pub alias: Option<String>,
    /// The type of its CPU without `-cpu`, as `-cpu` names it.
    pub default_cpu: Option<String>,
    /// The most CPUs.
    pub max_cpus: u64,
    /// Whether it is deprecated.
    pub deprecated: bool,
}

/// A property as a binary tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BinaryProperty {
    /// `hv-spinlocks`
    pub name: String,
    /// QOM's word for its type.
    pub kind: String,
    /// Its default as JSON text.
    pub default: Option<String>,
    /// Whether `max` has it and `base` has not.
    pub max_only: bool,
}

/// A CPU model as a binary tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BinaryModel {
    /// `SandyBridge-IBRS`
    pub name: String,
    /// Whether QEMU advises against it.
    pub deprecated: bool,
}

/// Names that are no built-in models.
const CLASSES: [&str; 3] = ["base", "host", "max"];

/// A cell that neither the binary nor another row tells.
const UNTOLD: &str = "?";

impl QemuTables {
    /// Puts what a binary of a release tells into the tables of machine types and properties, and says in sentences where
    /// the tables of models and bits, which come from sources, tell otherwise.
    ///
    /// # Errors
    /// The release has no tables yet: its source tree is imported first.
    pub fn import_binary(&mut self, label: &str, facts: &BinaryFacts) -> Result<Vec<String>, QemuImportError> {
        let unknown = || QemuImportError::NoRelease(label.to_owned());
        let release = self.releases.position(label).ok_or_else(unknown)?;
        let machines = self.machine_rows(release, facts);
        let reasonless = machines.iter().filter(|row| row.last().is_some_and(|reason| reason == UNTOLD));
        let names = reasonless.filter_map(|row| row.first());
        let mut said: Vec<String> =
            names.map(|name| format!("machines: {name} is deprecated, and the binary does not tell why")).collect();
        self.merge(MACHINES, release, &machines)?;
        let properties = self.property_rows(release, facts);
        self.merge(PROPERTIES, release, &properties)?;
        said.extend(self.contradictions(release, facts));
        Ok(said)
    }

    /// The rows of a table.
    fn rows_of(&self, file: &str) -> &[SheetRow] {
        let found = LAYOUTS.iter().zip(&self.sheets).find(|(layout, _)| layout.file == file);
        found.map(|(_, sheet)| sheet.rows.as_slice()).unwrap_or_default()
    }

    /// The machine types in the order of the table; a new one stands before the others of its family.
    fn machine_rows(&self, release: usize, facts: &BinaryFacts) -> Vec<Vec<String>> {
        let known = self.rows_of("machines.tsv");
        let rank = |machine: &BinaryMachine| {
            let (family, _) = family(&machine.name);
            let own = known.iter().position(|row| row.cells.first() == Some(&machine.name));
            let kin = known.iter().position(|row| row.cells.first().is_some_and(|name| self::family(name).0 == family));
            own.map(|at| (at, 1)).or_else(|| kin.map(|at| (at, 0))).unwrap_or((usize::MAX, 0))
        };
        let mut machines: Vec<&BinaryMachine> = facts.machines.iter().collect();
        // Newest first among those that are new.
        machines.sort_by(|one, other| (rank(one), version(&other.name)).cmp(&(rank(other), version(&one.name))));
        machines.into_iter().map(|machine| machine_row(known, release, machine)).collect()
    }

    fn property_rows(&self, release: usize, facts: &BinaryFacts) -> Vec<Vec<String>> {
        let known = self.rows_of("properties.tsv");
        let features = self.feature_names();
        let mut own: Vec<&BinaryProperty> =
            facts.properties.iter().filter(|property| !features.contains(property.name.as_str())).collect();
        own.sort_by(|one, other| one.name.cmp(&other.name));
        own.into_iter().map(|property| property_row(known, release, property)).collect()
    }

    /// The names of feature bits, in any release, and QEMU's second names for them, which are those with underscores and
    /// some words (`target/i386/cpu.c:x86_cpu_initfn`).
    fn feature_names(&self) -> BTreeSet<&str> {
        let bits = self.rows_of("bits.tsv").iter().filter_map(|row| row.cells.get(1)).map(String::as_str);
        let aliases = self.rows_of("aliases.tsv").iter().filter_map(|row| row.cells.first()).map(String::as_str);
        bits.chain(aliases).collect()
    }

    /// Where the models' tables and the binary disagree.
    fn contradictions(&self, release: usize, facts: &BinaryFacts) -> Vec<String> {
        let mut own: BTreeMap<String, bool> = CLASSES.iter().map(|name| ((*name).to_owned(), false)).collect();
        let mut deprecated = BTreeMap::new();
        for row in self.rows_of("models.tsv").iter().filter(|row| row.holds(release)) {
            if let (Some(name), Some(note)) = (row.cells.first(), row.cells.last()) {
                deprecated.insert(name.as_str(), note != "-");
                own.insert(name.clone(), note != "-");
            }
        }
        for row in self.rows_of("versions.tsv").iter().filter(|row| row.holds(release)) {
            let [model, number, alias, ..] = row.cells.as_slice() else { continue };
            let note = deprecated.get(model.as_str()).copied().unwrap_or(false);
            own.insert(format!("{model}-v{number}"), note);
            if alias != "-" {
                own.insert(alias.clone(), note);
            }
        }
        let told: BTreeMap<&str, bool> =
            facts.models.iter().map(|model| (model.name.as_str(), model.deprecated)).collect();
        let mut found: Vec<String> = Vec::new();
        for (name, note) in &own {
            match told.get(name.as_str()) {
                // A binary without KVM has no `host`.
                None if name == "host" => {}
                None => found.push(format!("models: the binary has no {name}")),
                Some(told) if told != note => {
                    found.push(format!("models: the binary says of {name}: deprecated {told}"))
                }
                Some(_) => {}
            }
        }
        found.extend(
            told.keys().filter(|name| !own.contains_key(**name)).map(|name| format!("models: {name} is in no table")),
        );
        found
    }
}

/// `pc-q35-10.0` as `pc-q35` and `10.0`; the second is empty for a name without a version.
fn family(name: &str) -> (&str, &str) {
    match name.rsplit_once('-') {
        Some((family, version)) if version.starts_with(|c: char| c.is_ascii_digit()) => (family, version),
        _ => (name, ""),
    }
}

fn version(name: &str) -> Vec<u32> {
    family(name).1.split('.').filter_map(|part| part.parse().ok()).collect()
}

/// The row of this name that stands for this release, else the newest.
fn elder<'r>(known: &'r [SheetRow], release: usize, name: &str) -> Option<&'r SheetRow> {
    let mut named = known.iter().filter(|row| row.cells.first().is_some_and(|own| own == name));
    let newest = named.clone().next_back();
    named.find(|row| row.holds(release)).or(newest)
}

fn machine_row(known: &[SheetRow], release: usize, machine: &BinaryMachine) -> Vec<String> {
    let (own_family, own_version) = family(&machine.name);
    let kin = || known.iter().find(|row| row.cells.first().is_some_and(|name| family(name).0 == own_family));
    let own = elder(known, release, &machine.name);
    let old = own.or_else(kin).map(|row| row.cells.as_slice()).unwrap_or_default();
    let cell = |at: usize, otherwise: &str| old.get(at).map_or_else(|| otherwise.to_owned(), String::clone);
    let version = match own {
        Some(_) => cell(2, "-"),
        None if own_version.is_empty() => "-".to_owned(),
        None => own_version.to_owned(),
    };
    // The row of a release in which it was not deprecated yet has no reason; every deprecated one gives the same.
    let reason = || {
        let reasons = known.iter().filter(|row| row.holds(release)).filter_map(|row| row.cells.get(8));
        reasons.into_iter().find(|reason| *reason != "-").map_or_else(|| UNTOLD.to_owned(), String::clone)
    };
    let deprecated = match (machine.deprecated, cell(8, "-").as_str()) {
        (false, _) => "-".to_owned(),
        (true, "-") => reason(),
        (true, told) => told.to_owned(),
    };
    let alias = machine.alias.clone().unwrap_or_else(|| "-".to_owned());
    let default_cpu = machine.default_cpu.clone().unwrap_or_else(|| "-".to_owned());
    vec![
        machine.name.clone(),
        cell(1, "other"),
        version,
        alias,
        cell(4, "1"),
        default_cpu,
        cell(6, "-"),
        machine.max_cpus.to_string(),
        deprecated,
    ]
}

/// A property without a kind of its own in the tables.
fn kind(told: &str) -> &str {
    match told {
        "int" => "int64",
        "string" => "str",
        "OnOffAuto" => "on-off-auto",
        "GuestPanicInformation" | "X86CPUFeatureWordInfo" | "strList" => "read-only",
        told if told.starts_with("link<") => "link",
        told => told,
    }
}

fn property_row(known: &[SheetRow], release: usize, property: &BinaryProperty) -> Vec<String> {
    let row = elder(known, release, &property.name);
    let cell = |row: Option<&'_ SheetRow>, at| row.and_then(|row| row.cells.get(at)).cloned();
    let old = cell(row, 1).unwrap_or_default();
    let alias = old.starts_with("alias:");
    let kind = if alias || old == "read-only" { old.as_str() } else { kind(&property.kind) };
    // Old releases do not tell a default that code sets; the sources do.
    let read = cell(row.filter(|row| row.holds(release)), 2);
    let default = match property.default.as_deref().filter(|_| !alias) {
        None => read.as_deref().unwrap_or("-"),
        Some("true") => "on",
        Some("false") => "off",
        Some(text) => text.trim_matches('"'),
    };
    let types = if property.max_only { "max" } else { "*" };
    [&property.name, kind, default, types].map(str::to_owned).to_vec()
}
