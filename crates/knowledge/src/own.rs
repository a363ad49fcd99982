//! Kernel trees of a user's own, imported and registered while the program runs.
//!
//! A registered tree has a position like the compiled-in ones ([`linux::TREES`](crate::linux::TREES)), from [`FIRST`] on:
//! it answers wherever a position is given, but it is in no set of compiled trees and stands for no release but its own,
//! so nothing is ever supposed to run it. What was imported is the tree's alone; everything else, the hand-written rules
//! before all, is that of the nearest compiled-in tree ([`compiled`]).
//!
//! ```
//! use cpusieve_import::stored::StoredTree;
//! use cpusieve_knowledge::{kvm, linux, own};
//!
//! // KVM of 6.12 with one leaf; Linux's half was not imported.
//! let text = "format 1\nversion 6.12.30\n[kvm/shapes.tsv]\ncap-mask *\n[kvm/caps.tsv]\n[kvm/adjusts.tsv]\n\
//!             [kvm/limits.tsv]\n[kvm/pv.tsv]\n[kvm/handled.tsv]\n0x7 *\n";
//! let tree = own::register("mine", &StoredTree::parse(text).unwrap()).unwrap();
//! assert_eq!(linux::nearest("mine").tree, tree);
//! assert_eq!(linux::TREES[own::compiled(tree)].label, "6.12");
//! assert!(kvm::has_case(tree, 7) && !kvm::has_case(tree, 0xd));
//! assert!(linux::feature(tree, "AVX").is_some());
//! ```

mod kvm;
mod linux;

use std::sync::{Mutex, OnceLock, PoisonError};

use cpusieve_import::stored::StoredTree;

use crate::linux::Tree;
pub(crate) use kvm::OwnKvm;
pub(crate) use linux::OwnLinux;

/// The position of the first registered tree. All compiled-in ones stand before it.
pub const FIRST: usize = 56;

/// How many trees can be registered. A set has 64 positions.
pub const MOST: usize = 64 - FIRST;

const _: () =
    assert!(crate::linux::COMPILED.len() <= FIRST, "compiled-in trees reach into the positions of registered ones");

/// A tree that was registered.
pub(crate) struct Own {
    pub(crate) tree: Tree,
    /// What `uname -r` says of the kernel built there.
    pub(crate) release: Option<&'static str>,
    /// The nearest compiled-in tree.
    pub(crate) compiled: usize,
    pub(crate) linux: Option<OwnLinux>,
    pub(crate) kvm: Option<OwnKvm>,
}

static REGISTERED: [OnceLock<Own>; MOST] = [const { OnceLock::new() }; MOST];

/// Why a tree cannot be registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// A compiled-in or registered tree has this label.
    #[error("another kernel tree is called `{0}`")]
    LabelTaken(String),
    /// All positions are taken.
    #[error("there is room for {MOST} kernel trees, and all are taken")]
    Full,
}

/// Registers a tree for the rest of the process; its position.
///
/// # Errors
/// A label that is taken, or no room.
pub fn register(label: &str, stored: &StoredTree) -> Result<usize, RegisterError> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let taken =
        crate::linux::TREES.iter().any(|tree| tree.label == label) || all().any(|(_, own)| own.tree.label == label);
    if taken {
        return Err(RegisterError::LabelTaken(label.to_owned()));
    }
    let (slot, free) =
        REGISTERED.iter().enumerate().find(|(_, slot)| slot.get().is_none()).ok_or(RegisterError::Full)?;
    let position = FIRST + slot;
    // Nobody else fills a slot: the lock is held.
    let _ = free.set(Own::new(label, stored, position));
    Ok(position)
}

/// The positions of the registered trees.
pub fn positions() -> impl Iterator<Item = usize> {
    all().map(|(position, _)| position)
}

/// The compiled-in tree whose rules hold for a tree: the tree itself, or the nearest one for a registered tree.
#[must_use]
pub fn compiled(tree: usize) -> usize {
    if tree < FIRST { tree } else { get(tree).map_or(crate::linux::TREES.len() - 1, |own| own.compiled) }
}

/// Whether a tree is a registered one.
#[must_use]
pub fn is_own(tree: usize) -> bool {
    get(tree).is_some()
}

/// Which halves of a tree were imported: Linux's, KVM's. Neither of a compiled-in one.
#[must_use]
pub fn halves(tree: usize) -> (bool, bool) {
    get(tree).map_or((false, false), |own| (own.linux.is_some(), own.kvm.is_some()))
}

/// The registered tree at a position.
#[inline]
pub(crate) fn get(tree: usize) -> Option<&'static Own> {
    REGISTERED.get(tree.checked_sub(FIRST)?)?.get()
}

/// Linux's half of a registered tree, where that was imported.
#[inline]
pub(crate) fn linux(tree: usize) -> Option<&'static OwnLinux> {
    get(tree)?.linux.as_ref()
}

/// KVM's half of a registered tree, where that was imported.
#[inline]
pub(crate) fn kvm(tree: usize) -> Option<&'static OwnKvm> {
    get(tree)?.kvm.as_ref()
}

/// The registered trees by position.
pub(crate) fn all() -> impl Iterator<Item = (usize, &'static Own)> {
    REGISTERED.iter().map_while(OnceLock::get).enumerate().map(|(slot, own)| (FIRST + slot, own))
}

impl Own {
    fn new(label: &str, stored: &StoredTree, position: usize) -> Self {
        let compiled = crate::linux::nearest_compiled(&stored.version).tree;
        let version = text(&stored.version);
        let base = crate::linux::TREES[compiled];
        let numbers = crate::linux::numbers(version).unwrap_or(base.release);
        let mut tree = Tree { label: text(label), version, source: text(&stored.source), release: numbers, ..base };
        if let Some(facts) = &stored.linux {
            tree.naming = linux::naming(facts.naming);
            (tree.ncapints, tree.nbugints, tree.nvmxints) = (facts.ncapints, facts.nbugints, facts.nvmxints);
        }
        Self {
            tree,
            release: stored.release.as_deref().map(text),
            compiled,
            linux: stored.linux.as_ref().map(|facts| OwnLinux::new(label, facts, position)),
            kvm: stored.kvm.as_ref().map(|facts| OwnKvm::new(facts, position)),
        }
    }
}

/// A copy that lives as long as the process: there are [`MOST`] trees at most.
fn text(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

fn list<T>(items: impl Iterator<Item = T>) -> &'static [T] {
    Box::leak(items.collect::<Vec<T>>().into_boxed_slice())
}
