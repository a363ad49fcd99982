//! `cargo xtask import qemu`: from QEMU's source tree into `knowledge/qemu`.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use cpusieve_import::qemu::{self, QemuFacts};
use cpusieve_import::tables::qemu::QemuTables;
use cpusieve_import::tables::{TableError, Tree};

use super::{Request, Result, differing, finish, release};

/// The tables in `knowledge/qemu`.
pub(super) fn tables(root: &Path) -> Result<QemuTables> {
    let tables = QemuTables::parse(|file| {
        let fail = |error| TableError { file: file.to_owned(), line: 0, what: format!("cannot be read: {error}") };
        fs::read_to_string(root.join("qemu").join(file)).map_err(fail)
    })?;
    Ok(tables)
}

/// Reads a tree and writes what it changes, or says it.
pub(super) fn import(root: &Path, request: &Request) -> Result<ExitCode> {
    let source =
        |path: &str| fs::read(request.folder.join(path)).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let mut tables = tables(root)?;
    let version = qemu::version(&source);
    let label = match (&request.label, &version) {
        (Some(label), _) => label.clone(),
        (None, Ok(version)) => release(version),
        (None, Err(error)) => return Err(format!("{error}; --label names the release").into()),
    };
    let known = tables.releases().position(&label).and_then(|at| tables.releases().trees.get(at)).cloned();
    let entry = Tree {
        version: known.as_ref().map_or_else(|| version.unwrap_or_else(|_| label.clone()), |tree| tree.version.clone()),
        source: match (&request.source, &known) {
            (Some(source), _) => source.clone(),
            (None, Some(tree)) => tree.source.clone(),
            (None, None) => "local tree".to_owned(),
        },
        label,
    };
    tables.import(entry.clone(), &QemuFacts::read(&source)?)?;
    let differences = write(root, &tables, request.check)?;
    Ok(finish(&entry, &differences, request.check))
}

/// Writes the tables that changed, unless it is only to be said what would change; gives the differences.
pub(super) fn write(root: &Path, tables: &QemuTables, check: bool) -> Result<Vec<String>> {
    let mut differences = Vec::new();
    for (file, new) in tables.print() {
        let path = root.join("qemu").join(file);
        let old = fs::read_to_string(&path).unwrap_or_default();
        differences.extend(differing(&format!("qemu/{file}"), &old, &new));
        if old != new && !check {
            fs::write(path, new)?;
        }
    }
    Ok(differences)
}
