//! The text form of `knowledge/`: one fact a line, with the trees for which it holds.
//!
//! A line is a row of cells, separated by blanks, aligned for people; `#` starts a comment line. The last cell of most
//! rows is a set of trees: `*` (all), or labels and ranges in the order of `trees.tsv`, `5.10,6.1..6.8,6.18..`, where a
//! range without end goes up to the newest tree. So a new tree that changes nothing changes no row.

pub mod facts;
pub mod kvm;
pub mod libvirt;
pub mod linux;
pub mod qemu;
mod trees;

pub use trees::{Tree, TreeList, TreeSet, TreesError};

/// A line of a table that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{file}:{line}: {what}")]
pub struct TableError {
    /// The file's name.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong, and what was expected.
    pub what: String,
}

/// The rows of a table: line number (from 1) and cells. A cell in double quotes may hold blanks.
pub fn rows(text: &str) -> impl Iterator<Item = (usize, Vec<&str>)> {
    text.lines().enumerate().filter_map(|(index, line)| {
        let line = line.trim_end();
        (!line.is_empty() && !line.starts_with('#')).then(|| (index + 1, cells(line)))
    })
}

fn cells(line: &str) -> Vec<&str> {
    let mut cells = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (cell, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_once([' ', '\t']).unwrap_or((rest, "")),
        };
        cells.push(cell);
        rest = after.trim_start();
    }
    cells
}

/// Writes rows with their columns aligned; cells that are empty or hold blanks are quoted.
#[must_use]
pub fn aligned(rows: &[Vec<String>]) -> String {
    let quoted: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let quote = |cell: &String| {
                if cell.is_empty() || cell.contains(char::is_whitespace) { format!("\"{cell}\"") } else { cell.clone() }
            };
            row.iter().map(quote).collect()
        })
        .collect();
    let columns = quoted.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| quoted.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in &quoted {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let table = vec![
            vec!["0*32+0".to_owned(), "FPU".to_owned(), "a b".to_owned(), "*".to_owned()],
            vec!["10*32+31".to_owned(), "LONGER".to_owned(), String::new(), "5.4..".to_owned()],
        ];
        let text = aligned(&table);
        let read: Vec<Vec<&str>> = rows(&text).map(|(_, cells)| cells).collect();
        assert_eq!(read, table);
    }
}
