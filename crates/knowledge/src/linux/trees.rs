//! The list of kernel trees.

use std::ops::{Deref, Index};

use super::{COMPILED, Tree};
use crate::own;

/// The kernel trees, oldest release first.
///
/// As a slice these are the compiled-in trees. [`Trees::get`] and indexing also answer for the positions of registered
/// ones ([`crate::own`]), which no search and no hypothesis meets.
pub static TREES: Trees = Trees(COMPILED);

/// The type of [`TREES`].
#[derive(Clone, Copy, Debug)]
pub struct Trees(&'static [Tree]);

impl Trees {
    /// The tree at a position.
    #[must_use]
    pub fn get(&self, tree: usize) -> Option<&'static Tree> {
        self.0.get(tree).or_else(|| own::get(tree).map(|own| &own.tree))
    }
}

impl Deref for Trees {
    type Target = [Tree];

    fn deref(&self) -> &[Tree] {
        self.0
    }
}

impl Index<usize> for Trees {
    type Output = Tree;

    fn index(&self, tree: usize) -> &Tree {
        own::get(tree).map_or_else(|| &self.0[tree], |own| &own.tree)
    }
}

impl IntoIterator for Trees {
    type Item = &'static Tree;
    type IntoIter = std::slice::Iter<'static, Tree>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}
