//! The tables of `knowledge/libvirt/`: [`LibvirtFacts`] of all releases, one topic a file.

use cpusieve_model::{CpuidBit, MsrBit, Place};

use super::facts::{Fact, Row, cells_of, of_tree, or_dash, ordered, parse, print, sorted};
use super::linux::parse_bit;
use super::{TableError, TreeList, aligned, rows};
use crate::SourceTree;
use crate::libvirt::{Feature, LibvirtFacts, Mark, Model, ModelWord, Signature, Vendor, print_place};

/// The tables of `knowledge/libvirt/`, as rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the table of the same name")]
pub struct LibvirtTables {
    pub vendors: Vec<Row<Vendor>>,
    pub features: Vec<Row<Feature>>,
    pub models: Vec<Row<Model>>,
    pub words: Vec<Row<ModelWord>>,
}

const VENDORS: (&str, &str) = (
    "vendors.tsv",
    "\
# The vendors of libvirt's CPU map: src/cpu_map/x86_vendors.xml.
# name  cpuid  releases
",
);
const FEATURES: (&str, &str) = (
    "features.tsv",
    "\
# The features of libvirt's CPU map: src/cpu_map/x86_features.xml, by bit. `no`: a guest that has it is not migrated.
# name  bit  migratable  releases
",
);
const MODELS: (&str, &str) = (
    "models.tsv",
    "\
# The models of libvirt's CPU map: src/cpu_map/x86_*.xml in the order of index.xml. The base's features, vendor and
# signatures are the model's too, unless it names its own. named: whose CPU libvirt may call so by itself. signatures:
# display family, model and steppings.
# model  base  vendor  named  signatures  releases
",
);
const WORDS: (&str, &str) = (
    "model-words.tsv",
    "\
# The features that a model lists itself: src/cpu_map/x86_*.xml, by register. `added`: in the hypervisor's model from the
# start, and put into the map later; `removed`: once in it, and gone. Neither counts as a feature of the model.
# model  mark  register  releases  features
",
);

/// The list of releases.
pub const RELEASES: &str = "releases.tsv";

const RELEASES_HEADER: &str = "\
# The libvirt releases that the tables of knowledge/libvirt were read from, oldest first.
# label  version  source
";

/// Writes the list of releases.
#[must_use]
pub fn print_releases(releases: &TreeList) -> String {
    let row = |tree: &super::Tree| vec![tree.label.clone(), tree.version.clone(), tree.source.clone()];
    format!("{RELEASES_HEADER}{}", aligned(&releases.trees.iter().map(row).collect::<Vec<_>>()))
}

impl LibvirtTables {
    /// Reads all tables; `files` is the folder `knowledge/libvirt/`.
    ///
    /// # Errors
    /// The first row that cannot be read, or the first file that is not there.
    pub fn parse(releases: &TreeList, files: &dyn SourceTree) -> Result<Self, TableError> {
        let missing = |file: &str| TableError { file: file.to_owned(), line: 0, what: "no such table".to_owned() };
        let read = |file: &str| files.read(file).ok_or_else(|| missing(file));
        Ok(Self {
            vendors: parse(releases, VENDORS.0, &read(VENDORS.0)?)?,
            features: parse(releases, FEATURES.0, &read(FEATURES.0)?)?,
            models: parse(releases, MODELS.0, &read(MODELS.0)?)?,
            words: parse_words(releases, &read(WORDS.0)?)?,
        })
    }

    /// The files and their text, the inverse of [`LibvirtTables::parse`].
    #[must_use]
    pub fn print(&self, releases: &TreeList) -> Vec<(&'static str, String)> {
        vec![
            (VENDORS.0, print(releases, VENDORS.1, &self.vendors)),
            (FEATURES.0, print(releases, FEATURES.1, &self.features)),
            (MODELS.0, print(releases, MODELS.1, &self.models)),
            (WORDS.0, print_words(releases, &self.words)),
        ]
    }

    /// Tables out of the facts of all releases, in canonical order; the n-th facts are those of the n-th release.
    #[must_use]
    pub fn of(facts: &[LibvirtFacts]) -> Self {
        fn lists<T>(facts: &[LibvirtFacts], list: impl Fn(&LibvirtFacts) -> Vec<T>) -> Vec<Vec<T>> {
            facts.iter().map(list).collect()
        }
        Self {
            vendors: ordered(&lists(facts, |facts| facts.vendors.clone())),
            features: sorted(&lists(facts, |facts| facts.features.clone())),
            models: ordered(&lists(facts, |facts| facts.models.clone())),
            words: ordered(&lists(facts, |facts| facts.words.clone())),
        }
    }

    /// The facts of one release.
    #[must_use]
    pub fn facts(&self, release: usize) -> LibvirtFacts {
        LibvirtFacts {
            vendors: of_tree(&self.vendors, release).cloned().collect(),
            features: of_tree(&self.features, release).cloned().collect(),
            models: of_tree(&self.models, release).cloned().collect(),
            words: of_tree(&self.words, release).cloned().collect(),
        }
    }
}

/// The table whose last cell is long: the releases stand before it.
fn parse_words(releases: &TreeList, text: &str) -> Result<Vec<Row<ModelWord>>, TableError> {
    let mut all = Vec::new();
    for (line, cells) in rows(text) {
        let fail = |what: String| TableError { file: WORDS.0.to_owned(), line, what };
        let [model, mark, register, set, features] = cells[..] else {
            return Err(fail(format!("expected 5 cells, found {}", cells.len())));
        };
        let trees = releases.parse_set(set).map_err(|error| fail(error.to_string()))?;
        all.push(Row { fact: ModelWord::from_cells(&[model, mark, register, features]).map_err(fail)?, trees });
    }
    Ok(all)
}

fn print_words(releases: &TreeList, all: &[Row<ModelWord>]) -> String {
    let cells = all.iter().map(|row| {
        let mut cells = row.fact.cells();
        cells.insert(3, releases.print_set(row.trees));
        cells
    });
    format!("{}{}", WORDS.1, aligned(&cells.collect::<Vec<_>>()))
}

fn unless_dash(text: &str) -> Option<String> {
    (text != "-").then(|| text.to_owned())
}

impl Fact for Vendor {
    const CELLS: usize = 2;

    fn cells(&self) -> Vec<String> {
        vec![self.name.clone(), self.string.clone()]
    }

    fn from_cells(cells: &[&str]) -> Result<Self, String> {
        let [name, string] = cells_of(cells)?;
        Ok(Self { name: name.to_owned(), string: string.to_owned() })
    }
}

impl Fact for Feature {
    const CELLS: usize = 3;

    fn cells(&self) -> Vec<String> {
        let migratable = if self.migratable { "yes" } else { "no" };
        vec![self.name.clone(), print_place(self.place), migratable.to_owned()]
    }

    fn from_cells(cells: &[&str]) -> Result<Self, String> {
        let [name, bit, migratable] = cells_of(cells)?;
        let place = parse_place(bit).ok_or_else(|| format!("`{bit}` is no bit such as 7.0.EBX[16] or MSR 10A[1]"))?;
        Ok(Self { place, name: name.to_owned(), migratable: migratable != "no" })
    }
}

/// Reads a place, the inverse of [`print_place`].
fn parse_place(text: &str) -> Option<Place> {
    let Some(msr) = text.strip_prefix("MSR ") else {
        return parse_bit(text).map(|bit: CpuidBit| Place::Cpuid(bit));
    };
    let (index, bit) = msr.strip_suffix(']')?.split_once('[')?;
    let bit = bit.parse().ok().filter(|&bit: &u8| bit < 64)?;
    Some(Place::Msr(MsrBit { index: u32::from_str_radix(index, 16).ok()?, bit }))
}

impl Fact for Model {
    const CELLS: usize = 5;

    fn cells(&self) -> Vec<String> {
        let named = match (self.host, self.guest) {
            (true, true) => "host,guest",
            (true, false) => "host",
            (false, true) => "guest",
            (false, false) => "-",
        };
        let signature = |signature: &Signature| {
            let Signature { family, model, steppings } = signature;
            if steppings.is_empty() { format!("{family}/{model}") } else { format!("{family}/{model}/{steppings}") }
        };
        let signatures: Vec<String> = self.signatures.iter().map(signature).collect();
        let signatures = if signatures.is_empty() { "-".to_owned() } else { signatures.join(" ") };
        vec![
            self.name.clone(),
            or_dash(self.base.as_ref()),
            or_dash(self.vendor.as_ref()),
            named.to_owned(),
            signatures,
        ]
    }

    fn from_cells(cells: &[&str]) -> Result<Self, String> {
        let [name, base, vendor, named, signatures] = cells_of(cells)?;
        let signature = |text: &str| {
            let mut parts = text.splitn(3, '/');
            let (family, model) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            Some(Signature { family, model, steppings: parts.next().unwrap_or("").to_owned() })
        };
        let all = signatures.split(' ').filter(|text| *text != "-").map(signature);
        Ok(Self {
            name: name.to_owned(),
            base: unless_dash(base),
            vendor: unless_dash(vendor),
            host: named.contains("host"),
            guest: named.contains("guest"),
            signatures: all
                .collect::<Option<_>>()
                .ok_or_else(|| format!("`{signatures}` is no list of signatures such as 6/85/0-4"))?,
        })
    }
}

impl Fact for ModelWord {
    const CELLS: usize = 4;

    fn cells(&self) -> Vec<String> {
        let (mark, features) = (self.mark.name().to_owned(), self.features.join(" "));
        vec![self.model.clone(), mark, self.register.clone(), features]
    }

    fn from_cells(cells: &[&str]) -> Result<Self, String> {
        let [model, mark, register, features] = cells_of(cells)?;
        let known = Mark::ALL.into_iter().find(|known| known.name() == mark);
        Ok(Self {
            model: model.to_owned(),
            mark: known.ok_or_else(|| format!("`{mark}` is no mark: own, added or removed"))?,
            register: register.to_owned(),
            features: features.split(' ').map(str::to_owned).collect(),
        })
    }
}
