//! One kernel tree of a user's own, as a file: what was read from it, in the words of the tables.
//!
//! The file begins with what the tree is; then each table stands under its name in brackets, `[linux/features.tsv]`, in
//! the form that `knowledge/` has it. Such a file lies in the user's configuration folder, and whoever writes there may
//! have damaged it: what is read is bounded, and held against the laws that every tree obeys.
//!
//! ```
//! use cpusieve_import::stored::StoredTree;
//!
//! let error = StoredTree::parse("format 1\nversion 6.12.1\n[linux/nonsense.tsv]\n").unwrap_err();
//! assert_eq!(error.to_string(), "line 3: there is no table `linux/nonsense.tsv`");
//! ```

mod limits;

use crate::SourceTree;
use crate::kvm::{KvmError, KvmFacts};
use crate::linux::{self, LinuxFacts, ReadError};
use crate::tables::kvm::{self as kvm_tables, KvmTables};
use crate::tables::linux::LinuxTables;
use crate::tables::{TableError, Tree, TreeList, rows};

/// The format that is written, and the only one that is read.
pub const FORMAT: u32 = 1;

/// The greatest size of a file, in bytes; the tables of a kernel take about 60 KiB.
pub const MOST_BYTES: usize = 1 << 20;

const HEADER: &str = "\
# A kernel tree's tables, written by `cpusieve import` and read by all verbs. It may be deleted; what is edited by hand is
# lost when the tree is imported again.
";

/// What was read from one kernel tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTree {
    /// The version that its `Makefile` states: `6.12.30`.
    pub version: String,
    /// What `uname -r` says of the kernel that was built there, if one was: `6.12.30-mine`.
    pub release: Option<String>,
    /// Where it was read from, for people.
    pub source: String,
    /// What Linux knows; none if only KVM was read.
    pub linux: Option<LinuxFacts>,
    /// What KVM offers; none if only Linux was read.
    pub kvm: Option<KvmFacts>,
}

/// A file of a tree that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoredError {
    /// It is larger than any.
    #[error("{0} bytes, but {MOST_BYTES} at most are read")]
    TooLarge(usize),
    /// A line is not as it should be.
    #[error("line {line}: {what}")]
    Line {
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what was expected.
        what: String,
    },
    /// Something is missing, or the tables contradict each other.
    #[error("{0}")]
    Whole(String),
}

/// A source tree that cannot be imported.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ImportError {
    /// Linux's half cannot be read.
    #[error(transparent)]
    Linux(#[from] ReadError),
    /// KVM's half cannot be read.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// What was read cannot be used.
    #[error("{0}")]
    Unusable(StoredError),
}

/// Which half of a source tree is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// What Linux knows of features.
    Linux,
    /// What KVM offers.
    Kvm,
}

impl StoredTree {
    /// Reads a half of a source tree; `source` says where it lies.
    ///
    /// # Errors
    /// What is missing from the tree or is not as any release has it, and what breaks a law.
    pub fn import(tree: &dyn SourceTree, half: Half, source: &str) -> Result<Self, ImportError> {
        let stored = Self {
            version: linux::version(tree)?,
            release: linux::built_release(tree),
            // In a cell there are neither quotes nor line ends.
            source: source.chars().map(|c| if c == '"' || c.is_control() { '?' } else { c }).collect(),
            linux: if half == Half::Linux { Some(LinuxFacts::read(tree)?) } else { None },
            kvm: if half == Half::Kvm { Some(KvmFacts::read(tree)?) } else { None },
        };
        stored.check().map_err(ImportError::Unusable)?;
        Ok(stored)
    }

    /// Whether these facts can be used and stored.
    ///
    /// # Errors
    /// The first law that is broken, or that the text would not be read back.
    pub fn check(&self) -> Result<(), StoredError> {
        limits::check(self)?;
        match Self::parse(&self.print())? == *self {
            true => Ok(()),
            false => Err(StoredError::Whole("the tables have words that cannot be written as a table".to_owned())),
        }
    }

    /// The text of the file.
    #[must_use]
    pub fn print(&self) -> String {
        let trees = list();
        let mut text = format!("{HEADER}format   {FORMAT}\nversion  \"{}\"\n", self.version);
        if let Some(release) = &self.release {
            text.push_str(&format!("release  \"{release}\"\n"));
        }
        text.push_str(&format!("source   \"{}\"\n", self.source));
        let mut tables = |folder: &str, tables: Vec<(&'static str, String)>| {
            for (name, table) in tables {
                text.push_str(&format!("[{folder}/{name}]\n"));
                table.lines().filter(|line| !line.starts_with('#')).for_each(|line| {
                    text.push_str(line);
                    text.push('\n');
                });
            }
        };
        if let Some(facts) = &self.linux {
            tables("linux", LinuxTables::of(std::slice::from_ref(facts)).print(&trees));
        }
        if self.kvm.is_some() {
            tables("kvm", KvmTables::of(std::slice::from_ref(&self.kvm)).print(&trees));
        }
        text
    }

    /// Reads a file, the inverse of [`StoredTree::print`].
    ///
    /// # Errors
    /// The first line that cannot be read, or what the tables lack or break as a whole.
    pub fn parse(text: &str) -> Result<Self, StoredError> {
        if text.len() > MOST_BYTES {
            return Err(StoredError::TooLarge(text.len()));
        }
        let sections = sections(text)?;
        let mut stored = Self { version: String::new(), release: None, source: String::new(), linux: None, kvm: None };
        stored.read_head(sections.first().map_or("", |head| head.text))?;
        let trees = list();
        let has = |folder: &str| sections.iter().any(|section| section.name.starts_with(folder));
        if has("linux/") {
            let file = |name: &str| find(&sections, "linux", name).map(|section| section.text.to_owned());
            let tables = LinuxTables::parse(&trees, &file);
            // Rows that stand out of their order are put into it: that of the flags line is that of the rows.
            let facts = tables.and_then(|tables| LinuxTables::of(&[tables.facts(0)?]).facts(0));
            stored.linux = Some(facts.map_err(|error| place(&sections, "linux", error))?);
        }
        if has("kvm/") {
            let file = |name: &str| {
                let found = find(&sections, "kvm", name).map(|section| section.text.to_owned());
                found.ok_or_else(|| TableError { file: name.to_owned(), line: 0, what: "no such table".to_owned() })
            };
            let tables = KvmTables::parse(&trees, file).map_err(|error| place(&sections, "kvm", error))?;
            let shapeless = || StoredError::Whole("[kvm/shapes.tsv] is empty".to_owned());
            stored.kvm = Some(KvmTables::of(&[tables.facts(0)]).facts(0).ok_or_else(shapeless)?);
        }
        limits::check(&stored)?;
        Ok(stored)
    }

    /// What must hold for any text: what is read is printed and read back, and what follows from it is found in bounded
    /// time. For the fuzz target and for the ordinary tests.
    ///
    /// # Errors
    /// The invariant that does not hold, in words.
    pub fn check_any(bytes: &[u8]) -> Result<(), String> {
        let text = String::from_utf8_lossy(bytes);
        let Ok(read) = Self::parse(&text) else { return Ok(()) };
        if Self::parse(&read.print()).as_ref() != Ok(&read) {
            return Err("what is printed is not read back".to_owned());
        }
        let Some(facts) = &read.linux else { return Ok(()) };
        let followed = |name: &str| facts.dependents(name).len() <= facts.dependencies.len();
        let places = facts.features.iter().all(|flag| !facts.places(flag).is_empty());
        match places && facts.dependencies.iter().all(|pair| followed(&pair.needs)) {
            true => Ok(()),
            false => Err("a feature without a place, or more dependents than dependencies".to_owned()),
        }
    }

    fn read_head(&mut self, text: &str) -> Result<(), StoredError> {
        let mut format = None;
        for (line, cells) in rows(text) {
            let fail = |what: String| StoredError::Line { line, what };
            match cells[..] {
                ["format", number] => format = Some(number),
                ["version", version] => self.version = version.to_owned(),
                ["release", release] => self.release = Some(release.to_owned()),
                ["source", source] => self.source = source.to_owned(),
                _ => return Err(fail("expected format, version, release or source, and one value".to_owned())),
            }
        }
        match format {
            Some(number) if number == FORMAT.to_string() => Ok(()),
            Some(number) => Err(StoredError::Whole(format!("format {number}: this program reads format {FORMAT}"))),
            None => Err(StoredError::Whole("no format: this is not an imported tree".to_owned())),
        }
    }
}

/// A list of one tree: in these tables, all sets are `*`.
fn list() -> TreeList {
    let one = Tree { label: "this".to_owned(), version: String::new(), source: String::new() };
    TreeList { trees: vec![one] }
}

/// A table, or what stands before the first one.
struct Section<'a> {
    name: &'a str,
    /// How many lines stand before its text.
    before: usize,
    text: &'a str,
}

/// The parts of a file: the head, which has no name, then the tables.
fn sections(text: &str) -> Result<Vec<Section<'_>>, StoredError> {
    let mut all: Vec<Section<'_>> = vec![Section { name: "", before: 0, text: "" }];
    let (mut start, mut at) = (0, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let next = at + line.len();
        if let Some(name) = line.trim_end().strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            let fail = |what: String| StoredError::Line { line: index + 1, what };
            if !is_table(name) {
                return Err(fail(format!("there is no table `{name}`")));
            }
            if all.iter().any(|section| section.name == name) {
                return Err(fail(format!("`{name}` stands twice")));
            }
            if let Some(last) = all.last_mut() {
                last.text = text.get(start..at).unwrap_or("");
            }
            all.push(Section { name, before: index + 1, text: "" });
            start = next;
        }
        at = next;
    }
    if let Some(last) = all.last_mut() {
        last.text = text.get(start..).unwrap_or("");
    }
    Ok(all)
}

fn is_table(name: &str) -> bool {
    match name.split_once('/') {
        Some(("linux", file)) => LinuxTables::FILES.contains(&file),
        Some(("kvm", file)) => kvm_tables::FILES.contains(&file),
        _ => false,
    }
}

fn find<'a, 'b>(sections: &'b [Section<'a>], folder: &str, name: &str) -> Option<&'b Section<'a>> {
    sections.iter().find(|section| section.name.split_once('/') == Some((folder, name)))
}

/// An error of a table, with its line in the whole file.
fn place(sections: &[Section<'_>], folder: &str, error: TableError) -> StoredError {
    let TableError { file, line, what } = error;
    match find(sections, folder, &file) {
        Some(section) if line > 0 => StoredError::Line { line: section.before + line, what },
        _ => StoredError::Whole(format!("[{folder}/{file}]: {what}")),
    }
}

#[cfg(test)]
mod tests;
