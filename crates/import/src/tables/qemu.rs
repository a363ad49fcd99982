//! The tables of `knowledge/qemu` that a source tree or a binary tells: rows of cells with the releases for which they hold.
//!
//! A release is imported row by row: what the tree says is looked for among the rows, and its release put in; what is
//! new becomes a row; what it no longer says loses the release. So an import of what is known changes nothing.

mod binary;
mod cells;

use super::{TableError, Tree, TreeList, TreeSet, aligned, rows};
use crate::qemu::QemuFacts;
use cells::{Names, bit_rows, caches, dependencies, model_words, models, prepend, versions};

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
const LAYOUTS: [Layout; 14] = [
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
    // The second names of features, written by hand.
    Layout { file: "aliases.tsv", sets: &[], key: 1, ordered: false },
];

/// The list of releases.
const RELEASES: &str = "releases.tsv";

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

/// The tables of `knowledge/qemu` that come out of source trees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuTables {
    releases: TreeList,
    releases_header: String,
    sheets: Vec<Sheet>,
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
        Ok(Self { sheets: sheets.collect::<Result<_, _>>()?, releases, releases_header: header(&text) })
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
