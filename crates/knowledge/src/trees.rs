//! Releases, and sets of them.

use std::ops::Deref;

use crate::own;

/// A set of releases (kernel trees or QEMU releases): bit n stands for the n-th of the list it belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TreeSet(pub u64);

impl TreeSet {
    /// No release.
    pub const EMPTY: Self = Self(0);

    /// Whether the `index`-th release is in the set.
    #[must_use]
    pub const fn contains(self, index: usize) -> bool {
        self.0 >> index & 1 == 1
    }

    /// Whether no release is in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether one release alone is in the set.
    #[must_use]
    pub const fn is_single(self) -> bool {
        self.0.count_ones() == 1
    }

    /// The releases that are in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The releases that are in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The positions of the releases in the set, oldest first.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let first = (rest != 0).then_some(rest.trailing_zeros() as usize)?;
            rest &= rest - 1;
            Some(first)
        })
    }

    /// The oldest release in the set.
    #[must_use]
    pub fn first(self) -> Option<usize> {
        (!self.is_empty()).then(|| self.0.trailing_zeros() as usize)
    }

    /// The newest release in the set.
    #[must_use]
    pub fn last(self) -> Option<usize> {
        (!self.is_empty()).then(|| 63 - self.0.leading_zeros() as usize)
    }
}

/// The releases for which a hand-written row holds.
///
/// As a [`TreeSet`] these are the compiled-in ones. A registered tree ([`crate::own`]) has the rows of the nearest
/// compiled-in tree, since nobody has written any for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RuleTrees(pub TreeSet);

impl RuleTrees {
    /// Whether the row holds for the `index`-th release.
    #[must_use]
    pub fn contains(self, index: usize) -> bool {
        self.0.contains(own::compiled(index))
    }

    /// Those of some releases for which the row holds.
    #[must_use]
    pub fn intersection(self, others: TreeSet) -> TreeSet {
        if others.0 >> own::FIRST == 0 {
            return self.0.intersection(others);
        }
        TreeSet(others.iter().filter(|&index| self.contains(index)).fold(0, |set, index| set | 1 << index))
    }
}

impl Deref for RuleTrees {
    type Target = TreeSet;

    fn deref(&self) -> &TreeSet {
        &self.0
    }
}
