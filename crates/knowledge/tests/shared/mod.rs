//! Data outside the repository, which a checkout may lack.
#![allow(clippy::disallowed_methods, clippy::print_stderr, reason = "tests read files and say why they are skipped")]

use std::path::PathBuf;

/// A folder of the data: below `$CPUSIEVE_SHARED`, or below `shared` beside the repository. If it is missing, says so.
pub(crate) fn folder(name: &str) -> Option<PathBuf> {
    let root = std::env::var("CPUSIEVE_SHARED")
        .map_or_else(|_| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let folder = root.join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: {} is missing (CPUSIEVE_SHARED names another place)", folder.display());
    None
}
