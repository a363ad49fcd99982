//! The captured values on which a step rests: one, nearly always.

use std::ops::{Deref, DerefMut};

use crate::Evidence;

/// Pieces of evidence, in their order; to be used as a slice.
///
/// The first is kept in place as long as it is the only one: a prediction makes more than a thousand steps, and an
/// allocation for each would cost more than the rest of it.
#[derive(Clone, Debug, Default)]
pub struct Grounds(Held);

#[derive(Clone, Debug, Default)]
enum Held {
    #[default]
    None,
    One(Evidence),
    Many(Vec<Evidence>),
}

impl Grounds {
    /// No evidence.
    pub const NONE: Self = Self(Held::None);

    /// One piece of evidence.
    #[must_use]
    pub const fn one(evidence: Evidence) -> Self {
        Self(Held::One(evidence))
    }

    /// Adds a piece of evidence at the end.
    pub fn push(&mut self, evidence: Evidence) {
        self.0 = match std::mem::take(&mut self.0) {
            Held::None => Held::One(evidence),
            Held::One(first) => Held::Many(vec![first, evidence]),
            Held::Many(mut all) => {
                all.push(evidence);
                Held::Many(all)
            }
        };
    }
}

impl Deref for Grounds {
    type Target = [Evidence];

    fn deref(&self) -> &[Evidence] {
        match &self.0 {
            Held::None => &[],
            Held::One(evidence) => std::slice::from_ref(evidence),
            Held::Many(all) => all,
        }
    }
}

impl DerefMut for Grounds {
    fn deref_mut(&mut self) -> &mut [Evidence] {
        match &mut self.0 {
            Held::None => &mut [],
            Held::One(evidence) => std::slice::from_mut(evidence),
            Held::Many(all) => all,
        }
    }
}

impl PartialEq for Grounds {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Grounds {}

impl std::hash::Hash for Grounds {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl Extend<Evidence> for Grounds {
    fn extend<I: IntoIterator<Item = Evidence>>(&mut self, more: I) {
        more.into_iter().for_each(|evidence| self.push(evidence));
    }
}

impl FromIterator<Evidence> for Grounds {
    fn from_iter<I: IntoIterator<Item = Evidence>>(all: I) -> Self {
        let mut grounds = Self::NONE;
        grounds.extend(all);
        grounds
    }
}

impl<'a> IntoIterator for &'a Grounds {
    type Item = &'a Evidence;
    type IntoIter = std::slice::Iter<'a, Evidence>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a> IntoIterator for &'a mut Grounds {
    type Item = &'a mut Evidence;
    type IntoIter = std::slice::IterMut<'a, Evidence>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flag(name: &'static str) -> Evidence {
        Evidence::Flag { of: "host", name: name.into(), printed: true }
    }

    #[test]
    fn what_was_pushed_is_there_in_its_order() {
        let mut grounds = Grounds::default();
        for (length, name) in ["a", "b", "c"].into_iter().enumerate() {
            assert_eq!(grounds.len(), length);
            grounds.push(flag(name));
        }
        assert_eq!(*grounds, [flag("a"), flag("b"), flag("c")]);
        assert_eq!(["a", "b", "c"].map(flag).into_iter().collect::<Grounds>(), grounds);
        assert_eq!(Grounds::one(flag("a")), ["a"].map(flag).into_iter().collect());
        assert_ne!(Grounds::one(flag("a")), Grounds::NONE);
    }

    #[test]
    fn evidence_can_be_changed_in_place() {
        for names in [&["a"][..], &["a", "b"]] {
            let mut grounds: Grounds = names.iter().map(|name| flag(name)).collect();
            grounds.iter_mut().for_each(|evidence| *evidence = flag("z"));
            assert!(grounds.iter().all(|evidence| *evidence == flag("z")));
            assert_eq!(grounds.len(), names.len());
        }
    }
}
