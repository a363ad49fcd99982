//! Source trees, and sets of them.

use std::fmt;

use super::{TableError, rows};

const HEADER: &str = "\
# The kernel trees that the tables of knowledge/linux and knowledge/kvm were read from, oldest release first.
";

/// A kernel source tree that facts were read from. A release is a tree, not a number: stable kernels carry backports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The label by which tables name the tree: `6.1`.
    pub label: String,
    /// The full version: `6.1.176`.
    pub version: String,
    /// Where the tree comes from: `Debian linux-source-6.1`.
    pub source: String,
}

/// All trees, oldest release first. At most 64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeList {
    /// The trees.
    pub trees: Vec<Tree>,
}

/// A set of trees: bit n stands for the n-th tree of the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreeSet(pub u64);

/// A set of trees that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TreesError {
    /// A label that `trees.tsv` does not have.
    #[error("no tree has the label `{0}`")]
    UnknownLabel(String),
    /// A range whose end is older than its start.
    #[error("the range `{0}` runs backwards")]
    Backwards(String),
}

impl TreeList {
    /// Reads `trees.tsv`: label, version, source.
    ///
    /// # Errors
    /// A row without exactly three cells, or more than 64 rows.
    pub fn parse(file: &str, text: &str) -> Result<Self, TableError> {
        let mut trees = Vec::new();
        for (line, cells) in rows(text) {
            let fail = |what: &str| TableError { file: file.to_owned(), line, what: what.to_owned() };
            let [label, version, source] = cells[..] else {
                return Err(fail("expected label, version and source"));
            };
            if trees.len() == 64 {
                return Err(fail("more than 64 trees"));
            }
            trees.push(Tree { label: label.to_owned(), version: version.to_owned(), source: source.to_owned() });
        }
        Ok(Self { trees })
    }

    /// Writes `trees.tsv`, the inverse of [`TreeList::parse`].
    #[must_use]
    pub fn print(&self) -> String {
        let title = ["# label", "version", "source"].map(str::to_owned).to_vec();
        let row = |tree: &Tree| vec![tree.label.clone(), tree.version.clone(), tree.source.clone()];
        let rows: Vec<_> = std::iter::once(title).chain(self.trees.iter().map(row)).collect();
        // The title line is aligned with the rows; its first cell must not be quoted for its blank.
        format!("{HEADER}{}", super::aligned(&rows).replacen("\"# label\"", "# label", 1))
    }

    /// Puts a tree in, behind all trees of its own and older releases; where it then stands. None if the list is full.
    ///
    /// The positions of all newer trees grow by one, so sets that were read before must be read again.
    pub fn insert(&mut self, tree: Tree) -> Option<usize> {
        let release = tree.release();
        let at = self.trees.iter().rposition(|old| old.release() <= release).map_or(0, |last| last + 1);
        (self.trees.len() < 64).then(|| self.trees.insert(at, tree))?;
        Some(at)
    }

    /// The position of a label.
    #[must_use]
    pub fn position(&self, label: &str) -> Option<usize> {
        self.trees.iter().position(|tree| tree.label == label)
    }

    /// The set of all trees.
    #[must_use]
    pub fn all(&self) -> TreeSet {
        TreeSet(u64::MAX.checked_shr(64 - u32::try_from(self.trees.len()).unwrap_or(64)).unwrap_or(0))
    }

    /// Reads a set: `*`, or labels and ranges separated by commas.
    ///
    /// # Errors
    /// An unknown label, or a range that runs backwards.
    pub fn parse_set(&self, text: &str) -> Result<TreeSet, TreesError> {
        if text == "*" {
            return Ok(self.all());
        }
        let find = |label: &str| self.position(label).ok_or_else(|| TreesError::UnknownLabel(label.to_owned()));
        let mut set = TreeSet::default();
        for part in text.split(',') {
            let (first, last) = match part.split_once("..") {
                None => (find(part)?, find(part)?),
                Some((first, "")) => (find(first)?, self.trees.len() - 1),
                Some((first, last)) => (find(first)?, find(last)?),
            };
            if first > last {
                return Err(TreesError::Backwards(part.to_owned()));
            }
            (first..=last).for_each(|index| set.insert(index));
        }
        Ok(set)
    }

    /// Writes a set in its shortest form, the inverse of [`TreeList::parse_set`].
    #[must_use]
    pub fn print_set(&self, set: TreeSet) -> String {
        if set == self.all() {
            return "*".to_owned();
        }
        let newest = self.trees.len().saturating_sub(1);
        let mut parts = Vec::new();
        let mut index = 0;
        while index <= newest {
            if !set.contains(index) {
                index += 1;
                continue;
            }
            let first = index;
            while index < newest && set.contains(index + 1) {
                index += 1;
            }
            let label = |at: usize| self.trees[at].label.as_str();
            parts.push(match index {
                last if last == newest => format!("{}..", label(first)),
                last if last == first => label(first).to_owned(),
                last => format!("{}..{}", label(first), label(last)),
            });
            index += 1;
        }
        parts.join(",")
    }
}

impl TreeSet {
    /// The set of one tree.
    #[must_use]
    pub const fn one(index: usize) -> Self {
        Self(1 << index)
    }

    /// Whether the `index`-th tree is in the set.
    #[must_use]
    pub const fn contains(self, index: usize) -> bool {
        self.0 >> index & 1 == 1
    }

    /// Puts the `index`-th tree in.
    pub const fn insert(&mut self, index: usize) {
        self.0 |= 1 << index;
    }

    /// Takes the `index`-th tree out.
    pub const fn remove(&mut self, index: usize) {
        self.0 &= !(1 << index);
    }
}

impl Tree {
    /// The first two numbers of the version; zero where there is none.
    #[must_use]
    pub fn release(&self) -> (u16, u16) {
        let mut numbers = self.version.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.label, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> TreeList {
        TreeList::parse("trees.tsv", "4.14 4.14.67 a\n5.4 5.4.1 b\n6.1 6.1.2 c\n6.12 6.12.3 d\n7.3 7.3.4 e\n").unwrap()
    }

    #[test]
    fn sets_are_read_back_as_they_were_written() {
        let list = list();
        for bits in 0..32 {
            let set = TreeSet(bits);
            if bits == 0 {
                assert_eq!(list.print_set(set), "");
            } else {
                assert_eq!(list.parse_set(&list.print_set(set)), Ok(set));
            }
        }
        assert_eq!(list.print_set(TreeSet(0b11111)), "*");
        assert_eq!(list.print_set(TreeSet(0b11101)), "4.14,6.1..");
        assert_eq!(list.print_set(TreeSet(0b00110)), "5.4..6.1");
    }

    #[test]
    fn trees_stand_in_release_order() {
        let mut list = list();
        let tree = |version: &str| Tree {
            label: version.to_owned(),
            version: version.to_owned(),
            source: "two words".to_owned(),
        };
        assert_eq!(list.insert(tree("6.1.9")), Some(3));
        assert_eq!(list.insert(tree("3.10")), Some(0));
        assert_eq!(list.insert(tree("7.4-rc1")), Some(7));
        assert_eq!(TreeList::parse("trees.tsv", &list.print()), Ok(list));
    }

    #[test]
    fn wrong_sets_are_named() {
        assert_eq!(list().parse_set("6.13"), Err(TreesError::UnknownLabel("6.13".to_owned())));
        assert_eq!(list().parse_set("6.1..5.4"), Err(TreesError::Backwards("6.1..5.4".to_owned())));
    }
}
