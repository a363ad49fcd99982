//! What one tree calls by name: macros, functions. A prediction looks up hundreds, so they are hashed.

use std::collections::HashMap;

use foldhash::fast::FixedState;

/// Values by name. Of several with the same name the first counts.
#[derive(Debug)]
pub(crate) struct Names<T>(HashMap<&'static str, T, FixedState>);

impl<T> Names<T> {
    pub(crate) fn new(all: impl Iterator<Item = (&'static str, T)>) -> Self {
        let mut names = HashMap::with_capacity_and_hasher(all.size_hint().0, FixedState::default());
        for (name, value) in all {
            names.entry(name).or_insert(value);
        }
        Self(names)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&T> {
        self.0.get(name)
    }

    #[cfg(test)]
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }
}
