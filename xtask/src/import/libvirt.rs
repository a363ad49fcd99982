//! `cargo xtask import libvirt`: from libvirt's source tree into `knowledge/libvirt`.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use cpusieve_import::libvirt::{self, LibvirtFacts};
use cpusieve_import::tables::libvirt::{LibvirtTables, RELEASES, print_releases};
use cpusieve_import::tables::{Tree, TreeList};

use super::{Request, Result, differing, finish, release, text};

/// Everything in `knowledge/libvirt`; the n-th facts are those of the n-th release.
pub(super) struct Libvirt {
    releases: TreeList,
    facts: Vec<LibvirtFacts>,
}

impl Libvirt {
    pub(super) fn read(root: &Path) -> Result<Self> {
        let folder = root.join("libvirt");
        let releases = TreeList::parse(RELEASES, &text(&folder.join(RELEASES))?)?;
        let tables = LibvirtTables::parse(&releases, &|file: &str| fs::read_to_string(folder.join(file)).ok())?;
        let facts = (0..releases.trees.len()).map(|release| tables.facts(release)).collect();
        Ok(Self { releases, facts })
    }

    /// The canonical text of every table, by its path below `knowledge/`.
    pub(super) fn files(&self) -> Vec<(String, String)> {
        let tables = LibvirtTables::of(&self.facts).print(&self.releases);
        let files = tables.into_iter().map(|(file, text)| (format!("libvirt/{file}"), text));
        [(format!("libvirt/{RELEASES}"), print_releases(&self.releases))].into_iter().chain(files).collect()
    }

    /// What is wrong with the facts of any release.
    pub(super) fn faults(&self) -> Vec<String> {
        let all = self.releases.trees.iter().zip(&self.facts);
        all.flat_map(|(tree, facts)| facts.broken_laws().into_iter().map(move |law| format!("libvirt, {tree}: {law}")))
            .collect()
    }

    /// Puts a release's facts in, or replaces them.
    fn put(&mut self, request: &Request, facts: LibvirtFacts, version: String) -> Result<Tree> {
        let label = request.label.clone().unwrap_or_else(|| release(&version));
        let at = match self.releases.position(&label) {
            Some(at) => {
                self.facts[at] = facts;
                at
            }
            None => {
                let source = "local tree".to_owned();
                let at = self.releases.insert(Tree { label, version: version.clone(), source });
                let at = at.ok_or("there is room for 64 releases, and all are taken")?;
                self.facts.insert(at, facts);
                at
            }
        };
        let entry = &mut self.releases.trees[at];
        entry.version = version;
        if let Some(source) = &request.source {
            entry.source.clone_from(source);
        }
        Ok(entry.clone())
    }
}

/// Reads a tree and writes what it changes, or says it.
pub(super) fn import(root: &Path, request: &Request) -> Result<ExitCode> {
    let source =
        |path: &str| fs::read(request.folder.join(path)).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let version = libvirt::version(&source)?;
    let facts = LibvirtFacts::read(&source)?;
    if let [first, ..] = &facts.broken_laws()[..] {
        return Err(format!("the tree was misread: {first}").into());
    }
    let mut known = Libvirt::read(root)?;
    let tree = known.put(request, facts, version)?;
    let mut differences = Vec::new();
    for (path, new) in known.files() {
        let old = fs::read_to_string(root.join(&path)).unwrap_or_default();
        differences.extend(differing(&path, &old, &new));
        if old != new && !request.check {
            fs::write(root.join(&path), new)?;
        }
    }
    Ok(finish(&tree, &differences, request.check))
}
