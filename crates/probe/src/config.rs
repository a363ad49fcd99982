//! The user's configuration folder, with the kernel trees that were imported, and source trees that are to be.
//!
//! What lies in the folder is returned as text: it is not known here what it means.
//!
//! ```
//! use std::path::Path;
//!
//! use cpusieve_probe::config::Trees;
//!
//! let folder = std::env::temp_dir().join(format!("cpusieve-doc-{}", std::process::id()));
//! let trees = Trees::in_folder(Path::new(&folder));
//! assert_eq!(trees.labels().unwrap(), Vec::<String>::new());
//! trees.write("mine", "text\n").unwrap();
//! assert_eq!(trees.read("mine", 100).unwrap(), "text\n");
//! assert!(trees.remove("mine").unwrap() && !trees.remove("mine").unwrap());
//! # std::fs::remove_dir_all(&folder).unwrap();
//! ```

use std::env;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use crate::Refusal;
use crate::files::bounded;

/// How the file of a tree ends.
const ENDING: &str = ".tree";
/// The longest label.
const LONGEST: usize = 40;
/// The greatest number of files that are looked at.
const MOST_FILES: usize = 1024;
/// The greatest size of a source file, in bytes; the longest ones of a kernel that are read have 500 KiB.
const MOST_SOURCE: u64 = 8 << 20;

/// The configuration folder: the one that is asked for, else `$CPUSIEVE_CONFIG`, else `$XDG_CONFIG_HOME/cpusieve`, else
/// `~/.config/cpusieve`; none if not even a home is known. It need not exist.
#[must_use]
pub fn folder(asked: Option<&Path>) -> Option<PathBuf> {
    let named = |variable: &str| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let standard = || {
        // A relative path counts as none: XDG Base Directory Specification.
        let base = named("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
        base.or_else(|| named("HOME").map(|home| home.join(".config"))).map(|base| base.join("cpusieve"))
    };
    asked.map(Path::to_owned).or_else(|| named("CPUSIEVE_CONFIG")).or_else(standard)
}

/// The imported trees of a configuration folder, one file each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trees(PathBuf);

impl Trees {
    /// Those of a configuration folder, which need not exist.
    #[must_use]
    pub fn in_folder(config: &Path) -> Self {
        Self(config.join("trees"))
    }

    /// The labels of the trees that are there, sorted. None, if the folder does not exist.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn labels(&self) -> Result<Vec<String>, Refusal> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(Refusal::file(&self.0, error)),
        };
        let names = entries.take(MOST_FILES).flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut labels: Vec<String> = names
            .filter_map(|name| Some(name.strip_suffix(ENDING)?.to_owned()))
            .filter(|label| is_label(label))
            .collect();
        labels.sort_unstable();
        Ok(labels)
    }

    /// The file of a label.
    #[must_use]
    pub fn path(&self, label: &str) -> PathBuf {
        self.0.join(format!("{label}{ENDING}"))
    }

    /// The text of a tree: at most `limit` bytes.
    ///
    /// # Errors
    /// The file cannot be read, is too long, or is no file.
    pub fn read(&self, label: &str, limit: u64) -> Result<String, Refusal> {
        let path = self.path(label);
        let file = plain_file(&path)?;
        Ok(String::from_utf8_lossy(&bounded(file, &path, limit)?).into_owned())
    }

    /// Writes a tree, or replaces it as a whole, and says where it lies. Makes the folder if need be.
    ///
    /// # Errors
    /// What could not be written.
    pub fn write(&self, label: &str, text: &str) -> Result<PathBuf, Refusal> {
        fs::create_dir_all(&self.0).map_err(|error| Refusal::file(&self.0, error))?;
        let path = self.path(label);
        let new = self.0.join(format!(".{label}.{}", std::process::id()));
        let written =
            File::create(&new).and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
        // Whoever reads in the meantime sees the old tree or the new one, never a half.
        let placed = written.and_then(|()| fs::rename(&new, &path));
        placed.map(|()| path).map_err(|error| {
            // It may not even have been made.
            let _ = fs::remove_file(&new);
            Refusal::file(&new, error)
        })
    }

    /// Removes a tree; false if there was none.
    ///
    /// # Errors
    /// It is there and cannot be removed.
    pub fn remove(&self, label: &str) -> Result<bool, Refusal> {
        let path = self.path(label);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Refusal::file(&path, error)),
        }
    }
}

/// Whether a text can be a label: up to 40 letters, digits, dots, dashes, underscores and plus signs, a letter or digit
/// first.
#[must_use]
pub fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
    text.len() <= LONGEST && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(inner)
}

/// The text of a file of a source tree, by its path from the tree's root; none if it is not there or is no source.
#[must_use]
pub fn source_file(tree: &Path, path: &str) -> Option<String> {
    let path = tree.join(path);
    let bytes = bounded(plain_file(&path).ok()?, &path, MOST_SOURCE).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Opens a file, and nothing that would keep its reader waiting.
fn plain_file(path: &Path) -> Result<File, Refusal> {
    let metadata = fs::metadata(path).map_err(|error| Refusal::file(path, error))?;
    if !metadata.is_file() {
        return Err(Refusal::content(path, "file", "something else"));
    }
    File::open(path).map_err(|error| Refusal::file(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_names_of_files() {
        for label in ["mine", "6.12-mine", "a", "5.14.0-427.el9", "x+y_z"] {
            assert!(is_label(label), "{label}");
        }
        for text in ["", ".", "..", "a/b", "-x", ".hidden", "a b", "ä", &"x".repeat(41)] {
            assert!(!is_label(text), "{text}");
        }
    }

    #[test]
    fn what_is_asked_for_comes_first() {
        assert_eq!(folder(Some(Path::new("here"))), Some(PathBuf::from("here")));
    }

    #[test]
    fn a_folder_that_is_not_there_has_no_trees_and_other_files_are_none() {
        let folder = env::temp_dir().join(format!("cpusieve-config-{}", std::process::id()));
        let trees = Trees::in_folder(&folder);
        assert!(trees.labels().unwrap().is_empty());
        trees.write("b", "2").unwrap();
        trees.write("a", "1").unwrap();
        fs::write(folder.join("trees/notes.txt"), "").unwrap();
        fs::write(folder.join("trees/-x.tree"), "").unwrap();
        fs::create_dir(folder.join("trees/folder.tree")).unwrap();
        assert_eq!(trees.labels().unwrap(), ["a", "b", "folder"]);
        assert!(trees.read("folder", 10).is_err());
        assert!(matches!(trees.read("b", 0), Err(Refusal::TooLong { .. })));
        trees.write("b", "two").unwrap();
        assert_eq!(trees.read("b", 3).unwrap(), "two");
        fs::remove_dir_all(&folder).unwrap();
    }
}
