//! What one tree calls by name, and what a line prints. A prediction looks up hundreds of names, so they are hashed.

use std::collections::HashMap;
use std::hash::BuildHasher;

use cpusieve_model::FlagList;
use foldhash::fast::{FixedState, RandomState};

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
}

/// Where the names of a flags line stand in it, by hash: a set that owns nothing, for a line has hundreds of names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Printed {
    hasher: RandomState,
    /// Positions in the line plus one, 0 for an empty slot; at least every second is empty, and the length is a power of
    /// two.
    slots: Vec<u32>,
}

impl Printed {
    /// The names of a line.
    pub(crate) fn new(flags: &FlagList) -> Self {
        let slots = vec![0; (flags.len() * 2).next_power_of_two()];
        let mut printed = Self { hasher: RandomState::default(), slots };
        for (name, number) in flags.iter().zip(1..) {
            let free = printed.probe(name).find(|&slot| printed.slots.get(slot) == Some(&0));
            if let Some(slot) = free.and_then(|slot| printed.slots.get_mut(slot)) {
                *slot = number;
            }
        }
        printed
    }

    /// Whether this line, the one that it was made of, has a name.
    pub(crate) fn contains(&self, flags: &FlagList, name: &str) -> bool {
        let numbers = self.probe(name).map_while(|slot| self.slots.get(slot).filter(|&&number| number != 0));
        numbers.into_iter().any(|&number| flags.get(number as usize - 1) == Some(name))
    }

    /// The slots in which a name may stand, in the order in which they are tried.
    fn probe(&self, name: &str) -> impl Iterator<Item = usize> + use<> {
        let length = self.slots.len();
        let first = self.hasher.hash_one(name) as usize & length.wrapping_sub(1);
        (first..length).chain(0..first.min(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_prints_its_names_and_no_others() {
        let line: Vec<String> = (0..300).map(|number| format!("flag{number}")).collect();
        let flags = FlagList::from_line(&(line.join(" ") + " flag7"));
        let printed = Printed::new(&flags);
        assert!(line.iter().all(|name| printed.contains(&flags, name)));
        assert!((300..600).all(|number| !printed.contains(&flags, &format!("flag{number}"))));
        let none = FlagList::default();
        assert!(!Printed::default().contains(&none, "fpu") && !Printed::new(&none).contains(&none, "fpu"));
    }
}
