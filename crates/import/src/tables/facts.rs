//! Facts that hold for sets of trees: from the facts of every tree to rows and back.
//!
//! A table has two honest forms: rows (a fact, and the trees that have it) and, for each tree, its list of facts. Rows
//! made out of the lists give the lists back exactly. So a file is canonical if reading it and writing it again changes
//! nothing.

use super::{TableError, TreeList, TreeSet, aligned, rows};

/// Something that a row of a table says.
pub trait Fact: Clone + Eq + Sized {
    /// The number of cells of a row, without the set of trees.
    const CELLS: usize;

    /// The cells of the row, without the set of trees.
    fn cells(&self) -> Vec<String>;

    /// The fact that exactly [`Fact::CELLS`] cells say.
    ///
    /// # Errors
    /// What was expected, as half a sentence.
    fn from_cells(cells: &[&str]) -> Result<Self, String>;
}

/// A fact and the trees for which it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row<T> {
    /// The fact.
    pub fact: T,
    /// The trees that have it; never empty in a table.
    pub trees: TreeSet,
}

/// Reads the rows of a table, in their order.
///
/// # Errors
/// The first row that cannot be read.
pub fn parse<T: Fact>(trees: &TreeList, file: &str, text: &str) -> Result<Vec<Row<T>>, TableError> {
    let mut all = Vec::new();
    for (line, cells) in rows(text) {
        let fail = |what: String| TableError { file: file.to_owned(), line, what };
        let (Some((set, cells)), true) = (cells.split_last(), cells.len() == T::CELLS + 1) else {
            return Err(fail(format!("expected {} cells, found {}", T::CELLS + 1, cells.len())));
        };
        let set = trees.parse_set(set).map_err(|error| fail(error.to_string()))?;
        all.push(Row { fact: T::from_cells(cells).map_err(fail)?, trees: set });
    }
    Ok(all)
}

/// Writes a table: its header, which is made of comment lines, and its rows.
#[must_use]
pub fn print<T: Fact>(trees: &TreeList, header: &str, rows: &[Row<T>]) -> String {
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let mut cells = row.fact.cells();
            cells.push(trees.print_set(row.trees));
            cells
        })
        .collect();
    format!("{header}{}", aligned(&cells))
}

/// The facts of one tree, in the order of the rows.
pub fn of_tree<T: Fact>(rows: &[Row<T>], tree: usize) -> impl Iterator<Item = &T> {
    rows.iter().filter(move |row| row.trees.contains(tree)).map(|row| &row.fact)
}

/// Rows out of the facts of all trees (the n-th list is that of the n-th tree), for a table sorted by its facts.
#[must_use]
pub fn sorted<T: Fact + Ord>(lists: &[Vec<T>]) -> Vec<Row<T>> {
    let mut all = std::collections::BTreeMap::<&T, TreeSet>::new();
    for (tree, list) in lists.iter().enumerate() {
        list.iter().for_each(|fact| all.entry(fact).or_default().insert(tree));
    }
    all.into_iter().map(|(fact, trees)| Row { fact: fact.clone(), trees }).collect()
}

/// Rows out of the facts of all trees, for a table in which each tree keeps the order of its facts.
///
/// Tree by tree, the facts are matched with the rows so far along a longest common subsequence; what has no match
/// becomes a row of its own behind its predecessor. A fact that another release moved thus stands in two rows.
#[must_use]
pub fn ordered<T: Fact>(lists: &[Vec<T>]) -> Vec<Row<T>> {
    let mut all: Vec<Row<T>> = Vec::new();
    for (tree, list) in lists.iter().enumerate() {
        let mut merged = Vec::with_capacity(all.len() + list.len());
        let mut old = all.iter().enumerate().peekable();
        for (fact, place) in list.iter().zip(matches(&all, list)) {
            let Some(place) = place else {
                merged.push(Row { fact: fact.clone(), trees: TreeSet::one(tree) });
                continue;
            };
            while let Some((_, row)) = old.next_if(|&(index, _)| index < place) {
                merged.push(row.clone());
            }
            if let Some((_, row)) = old.next() {
                let mut row = row.clone();
                row.trees.insert(tree);
                merged.push(row);
            }
        }
        merged.extend(old.map(|(_, row)| row.clone()));
        all = merged;
    }
    all
}

/// The cells of a row that must have `N`.
pub(super) fn cells_of<'c, const N: usize>(cells: &[&'c str]) -> Result<[&'c str; N], String> {
    cells.try_into().map_err(|_| format!("expected {N} cells, found {}", cells.len()))
}

/// A cell that may be empty.
pub(super) fn or_dash(text: Option<&String>) -> String {
    text.cloned().unwrap_or_else(|| "-".to_owned())
}

/// For each fact of the list, the row that matches it: a longest common subsequence, the earliest one.
fn matches<T: Fact>(all: &[Row<T>], list: &[T]) -> Vec<Option<usize>> {
    let width = all.len() + 1;
    // lengths[i * width + j]: how much the list from i on and the rows from j on have in common.
    let mut lengths = vec![0_usize; (list.len() + 1) * width];
    for (i, fact) in list.iter().enumerate().rev() {
        for (j, row) in all.iter().enumerate().rev() {
            lengths[i * width + j] = if row.fact == *fact {
                lengths[(i + 1) * width + j + 1] + 1
            } else {
                lengths[(i + 1) * width + j].max(lengths[i * width + j + 1])
            };
        }
    }
    let mut places = Vec::with_capacity(list.len());
    let mut j = 0;
    for (i, fact) in list.iter().enumerate() {
        // Rows are passed over for as long as nothing is lost by it.
        while j < all.len() && all[j].fact != *fact && lengths[i * width + j + 1] == lengths[i * width + j] {
            j += 1;
        }
        let here = j < all.len() && all[j].fact == *fact;
        places.push(here.then_some(j));
        j += usize::from(here);
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Fact for String {
        const CELLS: usize = 1;

        fn cells(&self) -> Vec<String> {
            vec![self.clone()]
        }

        fn from_cells(cells: &[&str]) -> Result<Self, String> {
            cells.first().map(|&cell| cell.to_owned()).ok_or_else(|| "a word".to_owned())
        }
    }

    fn lists(texts: &[&str]) -> Vec<Vec<String>> {
        texts.iter().map(|text| text.split_whitespace().map(str::to_owned).collect()).collect()
    }

    #[test]
    fn every_tree_gets_its_order_back() {
        for texts in [
            &["a b c", "a x b c", "a c b", "", "b b a", "z c x a b c a"][..],
            &["", "a"],
            &["a a", "a", "a b a", "b a a"],
            &["1 2 3 4 5 6", "6 5 4 3 2 1", "1 3 2 4 6 5", "2 4 6", "6 4 2 0"],
        ] {
            let lists = lists(texts);
            let rows = ordered(&lists);
            for (tree, list) in lists.iter().enumerate() {
                assert_eq!(&of_tree(&rows, tree).cloned().collect::<Vec<_>>(), list, "{texts:?}");
            }
            assert!(rows.iter().all(|row| row.trees != TreeSet::default()));
        }
    }

    #[test]
    fn a_tree_like_its_elder_adds_no_row() {
        let rows = ordered(&lists(&["a b c", "a b x c", "a b x c"]));
        assert_eq!(rows.len(), 4);
        assert_eq!(sorted(&lists(&["c a", "a b", "b"])).len(), 3);
    }

    #[test]
    fn tables_are_read_back() {
        let trees = TreeList::parse("t", "1 1 a\n2 2 b").unwrap();
        let rows = ordered(&lists(&["a b", "b c"]));
        let text = print(&trees, "# words\n", &rows);
        assert_eq!(parse::<String>(&trees, "w.tsv", &text).unwrap(), rows);
        assert_eq!(
            parse::<String>(&trees, "w.tsv", "a b *").unwrap_err().to_string(),
            "w.tsv:1: expected 2 cells, found 3"
        );
        assert_eq!(
            parse::<String>(&trees, "w.tsv", "\na 3").unwrap_err().to_string(),
            "w.tsv:2: no tree has the label `3`"
        );
    }
}
