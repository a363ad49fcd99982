//! The tables of `knowledge/qemu` that a source tree and a binary tell: rows of cells with the releases for which they hold.
//!
//! A release is imported row by row: what the tree says is looked for among the rows, and its release put in; what is
//! new becomes a row; what it no longer says loses the release. So an import of what is known changes nothing.

mod binary;

use std::collections::BTreeMap;

use super::{TableError, Tree, TreeList, TreeSet, aligned, rows};
use crate::qemu::{FeatureWord, QemuFacts, Register};

pub use binary::{BinaryFacts, BinaryMachine, BinaryModel, BinaryProperty};

/// How a table is laid out.
struct Layout {
    file: &'static str,
    /// The cells that are sets of releases.
    sets: &'static [usize],
    /// The first cells, of those that are no sets, that say what a row is about: a changed row stands by its elder.
    key: usize,
    /// Whether the order of the rows is QEMU's.
    ordered: bool,
}

const WORDS: usize = 0;
const BITS: usize = 1;
const MACHINES: usize = 11;
const PROPERTIES: usize = 12;
const LAYOUTS: [Layout; 13] = [
    Layout { file: "words.tsv", sets: &[1], key: 1, ordered: true },
    Layout { file: "bits.tsv", sets: &[2, 3, 4, 5, 6], key: 1, ordered: false },
    Layout { file: "models.tsv", sets: &[1], key: 1, ordered: true },
    Layout { file: "model-words.tsv", sets: &[2], key: 2, ordered: false },
    Layout { file: "versions.tsv", sets: &[2], key: 2, ordered: false },
    Layout { file: "caches.tsv", sets: &[2], key: 2, ordered: false },
    Layout { file: "dependencies.tsv", sets: &[4], key: 4, ordered: true },
    Layout { file: "defaults.tsv", sets: &[5], key: 2, ordered: false },
    Layout { file: "compat.tsv", sets: &[4], key: 3, ordered: true },
    Layout { file: "descriptors.tsv", sets: &[6], key: 1, ordered: false },
    Layout { file: "hyperv.tsv", sets: &[5], key: 1, ordered: true },
    // From here on what binaries tell.
    Layout { file: "machines.tsv", sets: &[1], key: 1, ordered: true },
    Layout { file: "properties.tsv", sets: &[4], key: 1, ordered: false },
];

/// The list of releases.
const RELEASES: &str = "releases.tsv";
/// The second names of features, written by hand.
const ALIASES: &str = "aliases.tsv";

/// A row: its cells without the sets, and the sets.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SheetRow {
    cells: Vec<String>,
    sets: Vec<TreeSet>,
}

/// A table: its comment lines, and its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sheet {
    header: String,
    rows: Vec<SheetRow>,
}

/// The tables of `knowledge/qemu` that come out of source trees and binaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuTables {
    releases: TreeList,
    releases_header: String,
    sheets: Vec<Sheet>,
    /// Second names of features.
    aliases: Vec<String>,
}

/// What an import cannot put into the tables.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum QemuImportError {
    /// There are 64 releases already.
    #[error("there is room for 64 releases, and all are taken")]
    Full,
    /// A bit has another name than in other releases.
    #[error("{place} is called {new}, and {old} in another release")]
    Renamed {
        /// The bit.
        place: String,
        /// Its name here.
        new: String,
        /// Its name elsewhere.
        old: String,
    },
    /// A binary is of a release whose sources were not read.
    #[error("there are no tables of QEMU {0}: its source tree must be imported first")]
    NoRelease(String),
    /// Two releases have two rows in opposite orders.
    #[error("{0}: the order of rows contradicts that of other releases")]
    Order(&'static str),
}

/// The comment lines at the start of a table.
fn header(text: &str) -> String {
    text.lines().take_while(|line| line.starts_with('#')).flat_map(|line| [line, "\n"]).collect()
}

impl Sheet {
    fn parse(releases: &TreeList, layout: &Layout, text: &str) -> Result<Self, TableError> {
        let mut found = Vec::new();
        for (line, cells) in rows(text) {
            let fail = |what: String| TableError { file: layout.file.to_owned(), line, what };
            let mut row = SheetRow { cells: Vec::new(), sets: Vec::new() };
            for (index, cell) in cells.iter().enumerate() {
                match (layout.sets.contains(&index), *cell) {
                    (false, cell) => row.cells.push(cell.to_owned()),
                    (true, "-") => row.sets.push(TreeSet::default()),
                    (true, set) => row.sets.push(releases.parse_set(set).map_err(|error| fail(error.to_string()))?),
                }
            }
            if row.sets.len() != layout.sets.len() {
                return Err(fail(format!("{} cells are too few", cells.len())));
            }
            found.push(row);
        }
        Ok(Self { header: header(text), rows: found })
    }

    fn print(&self, releases: &TreeList, layout: &Layout) -> String {
        let line = |row: &SheetRow| {
            let (mut cells, mut sets) = (row.cells.iter(), row.sets.iter());
            let mut line = Vec::new();
            for index in 0..row.cells.len() + row.sets.len() {
                line.extend(match layout.sets.contains(&index) {
                    true => sets.next().map(|&set| match set == TreeSet::default() {
                        true => "-".to_owned(),
                        false => releases.print_set(set),
                    }),
                    false => cells.next().cloned(),
                });
            }
            line
        };
        format!("{}{}", self.header, aligned(&self.rows.iter().map(line).collect::<Vec<_>>()))
    }

    /// Makes the rows of `release`, as far as they are `governed`, those of `facts`.
    fn merge(
        &mut self,
        layout: &Layout,
        release: usize,
        facts: &[Vec<String>],
        governed: impl Fn(&[String]) -> bool,
    ) -> Result<(), QemuImportError> {
        self.rows.iter_mut().filter(|row| governed(&row.cells)).for_each(|row| row.remove(release));
        let mut next = 0;
        for cells in facts {
            let known = self.rows.iter().position(|row| row.cells == *cells && !row.holds(release));
            let at = known.unwrap_or_else(|| {
                let elder = self.rows.iter().rposition(|row| row.cells.get(..layout.key) == cells.get(..layout.key));
                let at = elder.map_or(next, |elder| elder + 1);
                self.rows.insert(at, SheetRow { cells: cells.clone(), sets: vec![TreeSet::default()] });
                at
            });
            if let Some(set) = self.rows.get_mut(at).and_then(|row| row.sets.first_mut()) {
                set.insert(release);
            }
            next = at + 1;
        }
        self.rows.retain(|row| row.sets.iter().any(|set| *set != TreeSet::default()));
        let now = self.rows.iter().filter(|row| row.holds(release) && governed(&row.cells)).map(|row| &row.cells);
        if layout.ordered && !now.eq(facts) {
            return Err(QemuImportError::Order(layout.file));
        }
        Ok(())
    }
}

impl SheetRow {
    fn holds(&self, release: usize) -> bool {
        self.sets.iter().any(|set| set.contains(release))
    }

    fn remove(&mut self, release: usize) {
        self.sets.iter_mut().for_each(|set| set.remove(release));
    }
}

impl QemuTables {
    /// Reads the tables; `read` gives the text of a file in `knowledge/qemu`.
    ///
    /// # Errors
    /// The first table that is missing, or the first row that cannot be read.
    pub fn parse(read: impl Fn(&str) -> Result<String, TableError>) -> Result<Self, TableError> {
        let text = read(RELEASES)?;
        let releases = TreeList::parse(RELEASES, &text)?;
        let sheets = LAYOUTS.iter().map(|layout| Sheet::parse(&releases, layout, &read(layout.file)?));
        let sheets = sheets.collect::<Result<_, _>>()?;
        let names = read(ALIASES)?;
        let aliases = rows(&names).filter_map(|(_, cells)| cells.first().map(|name| (*name).to_owned())).collect();
        Ok(Self { sheets, releases, releases_header: header(&text), aliases })
    }

    /// The canonical text of every table, by its file.
    #[must_use]
    pub fn print(&self) -> Vec<(&'static str, String)> {
        let row = |tree: &Tree| vec![tree.label.clone(), tree.version.clone(), tree.source.clone()];
        let list = aligned(&self.releases.trees.iter().map(row).collect::<Vec<_>>());
        let mut files = vec![(RELEASES, format!("{}{list}", self.releases_header))];
        files.extend(LAYOUTS.iter().zip(&self.sheets).map(|(layout, sheet)| {
            let text = sheet.print(&self.releases, layout);
            (layout.file, text)
        }));
        files
    }

    /// The releases.
    #[must_use]
    pub const fn releases(&self) -> &TreeList {
        &self.releases
    }

    /// Puts a release's facts in, or replaces them.
    ///
    /// # Errors
    /// There is no room for the release, or its facts do not fit those of others.
    pub fn import(&mut self, tree: Tree, facts: &QemuFacts) -> Result<(), QemuImportError> {
        let release = self.position(tree)?;
        self.merge(
            WORDS,
            release,
            &facts.words.iter().map(|word| vec![word.register.to_string()]).collect::<Vec<_>>(),
        )?;
        self.bits(release, facts)?;
        let names = self.names();
        for (index, rows) in [
            models(facts),
            model_words(facts, &names),
            versions(facts),
            caches(facts),
            dependencies(facts, &names),
            self.defaults(facts),
            facts.compat.iter().map(|cells| cells.to_vec()).collect(),
            facts.descriptors.iter().map(|row| prepend(format!("{:02X}", row.code), &row.cells)).collect(),
            facts.hyperv.iter().map(|row| row.cells.to_vec()).collect(),
        ]
        .into_iter()
        .enumerate()
        {
            self.merge(BITS + 1 + index, release, &rows)?;
        }
        Ok(())
    }

    /// Where the release stands, after it was put in or its entry renewed.
    fn position(&mut self, tree: Tree) -> Result<usize, QemuImportError> {
        if let Some(release) = self.releases.position(&tree.label) {
            if let Some(entry) = self.releases.trees.get_mut(release) {
                *entry = tree;
            }
            return Ok(release);
        }
        let release = self.releases.insert(tree).ok_or(QemuImportError::Full)?;
        let low = (1_u64 << release) - 1;
        for set in self.sheets.iter_mut().flat_map(|sheet| &mut sheet.rows).flat_map(|row| &mut row.sets) {
            set.0 = (set.0 & !low) << 1 | set.0 & low;
        }
        Ok(release)
    }

    fn merge(&mut self, index: usize, release: usize, facts: &[Vec<String>]) -> Result<(), QemuImportError> {
        let (Some(layout), Some(sheet)) = (LAYOUTS.get(index), self.sheets.get_mut(index)) else { return Ok(()) };
        let legacy = |cells: &[String]| cells.first().is_some_and(|table| table.starts_with("legacy_"));
        match layout.file {
            // Before 10.2 the legacy caches were no tables; what the tables say of them stays.
            "caches.tsv" if !facts.iter().any(|row| legacy(row)) => {
                sheet.merge(layout, release, facts, |cells| !legacy(cells))
            }
            // What depends on the interrupt controller is set by code.
            "defaults.tsv" => {
                sheet.merge(layout, release, facts, |cells| cells.get(3).is_some_and(|when| when == "always"))
            }
            _ => sheet.merge(layout, release, facts, |_| true),
        }
    }

    /// One row a bit, with five sets: named, unmigratable, migratable, not auto-enabled, TCG.
    fn bits(&mut self, release: usize, facts: &QemuFacts) -> Result<(), QemuImportError> {
        let order: Vec<String> = self
            .sheets
            .get(WORDS)
            .map(|sheet| sheet.rows.iter().flat_map(|row| row.cells.clone()).collect())
            .unwrap_or_default();
        let rank = |place: &str| -> (usize, u8) {
            let (word, bit) = place.trim_end_matches(']').split_once('[').unwrap_or((place, "0"));
            (order.iter().position(|known| known == word).unwrap_or(usize::MAX), bit.parse().unwrap_or(0))
        };
        let Some(sheet) = self.sheets.get_mut(BITS) else { return Ok(()) };
        sheet.rows.iter_mut().for_each(|row| row.remove(release));
        for (place, name, holds) in facts.words.iter().flat_map(bit_rows) {
            let at = sheet.rows.iter().position(|row| row.cells.first() == Some(&place));
            let at = at.unwrap_or_else(|| {
                let at =
                    sheet.rows.partition_point(|row| row.cells.first().is_some_and(|known| rank(known) < rank(&place)));
                let cells = vec![place.clone(), "-".to_owned()];
                sheet.rows.insert(at, SheetRow { cells, sets: vec![TreeSet::default(); holds.len()] });
                at
            });
            let Some(row) = sheet.rows.get_mut(at) else { continue };
            if let (Some(new), Some(old)) = (name, row.cells.get_mut(1)) {
                match old.as_str() {
                    "-" => *old = new,
                    known if *known == new => {}
                    _ => return Err(QemuImportError::Renamed { place, new, old: old.clone() }),
                }
            }
            for (set, holds) in row.sets.iter_mut().zip(holds) {
                if holds {
                    set.insert(release);
                }
            }
        }
        sheet.rows.retain(|row| row.sets.iter().any(|set| *set != TreeSet::default()));
        Ok(())
    }

    /// The names of bits in any release, by register.
    fn names(&self) -> Names {
        let mut found = Names::new();
        for row in self.sheets.get(BITS).map(|sheet| sheet.rows.as_slice()).unwrap_or_default() {
            let [place, name] = &row.cells[..] else { continue };
            let Some((word, bit)) = place.trim_end_matches(']').split_once('[') else { continue };
            if let (Ok(bit), true) = (bit.parse(), name != "-") {
                found.entry(word.to_owned()).or_default().insert(bit, name.clone());
            }
        }
        found
    }

    /// The rows that always hold; which machines take them back is said by rows that are there already.
    fn defaults(&self, facts: &QemuFacts) -> Vec<Vec<String>> {
        let known = LAYOUTS.iter().zip(&self.sheets).find(|(layout, _)| layout.file == "defaults.tsv");
        let known = known.map(|(_, sheet)| sheet.rows.as_slice()).unwrap_or_default();
        let row = |(accelerator, property, value): &(String, String, String)| {
            let start = [accelerator, property, value].map(String::clone);
            let elder = known.iter().find(|row| row.cells.starts_with(&start));
            let except = elder.and_then(|row| row.cells.get(4)).map_or("-", String::as_str);
            start.into_iter().chain(["always".to_owned(), except.to_owned()]).collect()
        };
        facts.defaults.iter().map(row).collect()
    }
}

/// Names of bits by register and bit.
type Names = BTreeMap<String, BTreeMap<u8, String>>;

/// Place, name, and the five attributes of every bit that has any.
fn bit_rows(word: &FeatureWord) -> impl Iterator<Item = (String, Option<String>, [bool; 5])> {
    (0..64).filter_map(move |bit| {
        let name = word.names.iter().find(|(known, _)| *known == bit).map(|(_, name)| name.clone());
        let has = |mask: u64| mask >> bit & 1 == 1;
        let rest = [has(word.unmigratable), has(word.migratable), has(word.no_autoenable), has(word.tcg)];
        let [unmigratable, migratable, no_autoenable, tcg] = rest;
        let holds = [name.is_some(), unmigratable, migratable, no_autoenable, tcg];
        holds.contains(&true).then(|| (format!("{}[{bit}]", word.register), name, holds))
    })
}

fn prepend(first: String, rest: &[String]) -> Vec<String> {
    std::iter::once(first).chain(rest.iter().cloned()).collect()
}

fn or_dash(text: Option<&String>) -> String {
    text.cloned().unwrap_or_else(|| "-".to_owned())
}

fn models(facts: &QemuFacts) -> Vec<Vec<String>> {
    let row = |model: &crate::qemu::Model| {
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

fn model_words(facts: &QemuFacts, names: &Names) -> Vec<Vec<String>> {
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

fn versions(facts: &QemuFacts) -> Vec<Vec<String>> {
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

fn caches(facts: &QemuFacts) -> Vec<Vec<String>> {
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

fn dependencies(facts: &QemuFacts, names: &Names) -> Vec<Vec<String>> {
    let side = |(index, value): (usize, u64)| {
        let register = facts.words.get(index).map(|word| &word.register);
        register.map(|register| [register.to_string(), mask(names, register, value)])
    };
    let rows = facts.dependencies.iter().filter_map(|row| Some([side(row.from)?, side(row.to)?].concat()));
    rows.collect()
}
