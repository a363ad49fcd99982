//! `import`: a kernel tree of the user's own becomes knowledge.

mod json;
mod text;

use std::path::Path;

use cpusieve_answers::trees::{self, Differences};
use cpusieve_import::stored::{Half, ImportError, StoredTree};
use cpusieve_knowledge::{linux, own};
use cpusieve_probe::config::{self, Trees};
use serde_json::json;

use super::{Done, Failure};
use crate::args::{ImportOptions, ImportVerb, ReadOptions};
use crate::trees::read;
use crate::{json as print_json, page};

/// Why `import` did nothing.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("no folder for imported trees: neither --config, CPUSIEVE_CONFIG, XDG_CONFIG_HOME nor HOME names one")]
    NoFolder,
    #[error("`{0}` cannot be a name: up to 40 letters, digits, dots, dashes, underscores and plus signs can")]
    NoLabel(String),
    #[error("`{0}` is the name or version of a kernel tree that is compiled in; choose another, such as {0}-mine")]
    Taken(String),
    #[error("{number} trees are imported, and there is no room for more; `cpusieve import remove` makes some")]
    Full { number: usize },
    #[error("{folder}: {error}")]
    NotATree { folder: String, error: ImportError },
    #[error("no imported tree is called `{label}`{others}")]
    Unknown { label: String, others: String },
}

pub(crate) fn run(options: &ImportOptions, folder: Option<&Path>, as_json: bool) -> Result<Done, Failure> {
    let trees = Trees::in_folder(&config::folder(folder).ok_or(Refused::NoFolder)?);
    match &options.verb {
        ImportVerb::Linux(options) => import(&trees, options, Half::Linux, as_json),
        ImportVerb::Kvm(options) => import(&trees, options, Half::Kvm, as_json),
        ImportVerb::List => list(&trees, as_json),
        ImportVerb::Remove { label } => remove(&trees, label, as_json),
    }
}

/// A tree that was just imported.
struct Imported<'a> {
    label: &'a str,
    /// The source tree, as it was named.
    folder: String,
    stored: &'a StoredTree,
    file: String,
    /// Its position.
    tree: usize,
    differences: Differences,
    /// Why KVM's half is not there, though its files are.
    no_kvm: Option<String>,
}

fn import(trees: &Trees, options: &ReadOptions, half: Half, as_json: bool) -> Result<Done, Failure> {
    let label = options.label.as_str();
    let others = free(trees, label)?;
    let source = |path: &str| config::source_file(&options.folder, path);
    let folder = options.folder.canonicalize().unwrap_or_else(|_| options.folder.clone()).display().to_string();
    let refuse = |error| Refused::NotATree { folder: page::tame(&folder), error };
    let mut stored = StoredTree::import(&source, half, &folder).map_err(refuse)?;
    let mut no_kvm = None;
    if half == Half::Linux && source("arch/x86/kvm/cpuid.c").is_some() {
        match StoredTree::import(&source, Half::Kvm, &folder) {
            Ok(found) => stored.kvm = found.kvm,
            Err(error) => no_kvm = Some(error.to_string()),
        }
    }
    // KVM's half beside the Linux half that was imported before, if that is of the same version.
    let before = others.iter().any(|other| other == label).then(|| read(trees, label).ok()).flatten();
    if let Some(before) = before.filter(|before| half == Half::Kvm && before.version == stored.version) {
        stored.linux = before.linux;
    }
    let file = trees.write(label, &stored.print())?.display().to_string();
    let tree = own::register(label, &stored)?;
    let differences = trees::compare(own::compiled(tree), tree);
    let folder = page::tame(&options.folder.display().to_string());
    let imported = Imported { label, folder, stored: &stored, file, tree, differences, no_kvm };
    if as_json {
        page::print(&print_json::pretty(&json::imported(&imported)))?;
    } else {
        page::print(&text::imported(&imported, page::width()))?;
    }
    Ok(if imported.no_kvm.is_some() { Done::InPart } else { Done::Same })
}

/// The labels that there are; an error if a new tree cannot have this one.
fn free(trees: &Trees, label: &str) -> Result<Vec<String>, Failure> {
    if !config::is_label(label) {
        return Err(Refused::NoLabel(page::tame(label)).into());
    }
    if linux::TREES.iter().any(|tree| tree.label == label || tree.version == label) {
        return Err(Refused::Taken(label.to_owned()).into());
    }
    let labels = trees.labels()?;
    if labels.len() >= own::MOST && !labels.iter().any(|other| other == label) {
        return Err(Refused::Full { number: labels.len() }.into());
    }
    Ok(labels)
}

fn list(trees: &Trees, as_json: bool) -> Result<Done, Failure> {
    let labels = trees.labels()?;
    let all: Vec<_> = labels.iter().map(|label| (label.as_str(), read(trees, label))).collect();
    let damaged = all.iter().any(|(_, stored)| stored.is_err());
    if as_json {
        page::print(&print_json::pretty(&json::list(trees, &all)))?;
    } else {
        page::print(&text::list(&all, page::width()))?;
    }
    Ok(if damaged { Done::InPart } else { Done::Same })
}

fn remove(trees: &Trees, label: &str, as_json: bool) -> Result<Done, Failure> {
    let labels = trees.labels()?;
    // What is no label is no file either, wherever it may lead.
    if !labels.iter().any(|other| other == label) || !trees.remove(label)? {
        let others = if labels.is_empty() { String::new() } else { format!("; there are {}", labels.join(", ")) };
        return Err(Refused::Unknown { label: page::tame(label), others }.into());
    }
    if as_json {
        page::print(&print_json::pretty(&json!({"format": 1, "removed": label})))?;
    } else {
        page::print(&format!("{label}: forgotten\n"))?;
    }
    Ok(Done::Same)
}
