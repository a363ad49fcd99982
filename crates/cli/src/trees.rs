//! Kernel trees that the user imported, made known to all verbs before one runs.

use std::io::ErrorKind;
use std::path::Path;

use cpusieve_import::stored::{MOST_BYTES, StoredError, StoredTree};
use cpusieve_knowledge::own::{self, RegisterError};
use cpusieve_probe::Refusal;
use cpusieve_probe::config::{self, Trees};

use crate::page;

/// Why an imported tree cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Refusal),
    /// It is not what `import` wrote.
    #[error("{path}: {error}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        error: StoredError,
    },
    /// It cannot be registered.
    #[error(transparent)]
    Refused(#[from] RegisterError),
}

/// Registers all imported trees. Without a folder of them this costs one system call; a tree that cannot be used is said
/// and left out.
pub(crate) fn register(config: Option<&Path>) {
    let Some(trees) = config::folder(config).map(|folder| Trees::in_folder(&folder)) else { return };
    let labels = match trees.labels() {
        Ok(labels) => labels,
        // Somebody else's home, as `sudo -u` leaves it in the environment.
        Err(refusal) if config.is_none() && refusal.kind() == Some(ErrorKind::PermissionDenied) => return,
        // A folder that cannot be read is no reason to fail.
        Err(refusal) => return page::warn(&format!("imported kernel trees are left out: {refusal}")),
    };
    for label in labels {
        if let Err(error) = read(&trees, &label).and_then(|stored| Ok(own::register(&label, &stored)?)) {
            page::warn(&format!("the imported kernel tree {label} is left out: {error}"));
        }
    }
}

/// An imported tree, as it was stored.
pub(crate) fn read(trees: &Trees, label: &str) -> Result<StoredTree, Unusable> {
    let text = trees.read(label, MOST_BYTES as u64)?;
    let damaged = |error| Unusable::Damaged { path: trees.path(label).display().to_string(), error };
    StoredTree::parse(&text).map_err(damaged)
}
