//! Names found in one or two steps: a prediction looks hundreds up, and a search through sorted names compares ten of them
//! for each.

use crate::hash::hash;

/// For each slot where the entries of a name begin in a list, plus one; 0 for an empty slot. The length is a power of two,
/// and a name stands in the slot of its hash or in the next that was free.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slots(pub(crate) &'static [u16]);

impl Slots {
    /// Where the entries of a name begin; `named` tells the name at a position.
    pub(crate) fn find(self, name: &str, named: impl Fn(usize) -> Option<&'static str>) -> Option<usize> {
        let mask = self.0.len().checked_sub(1)?;
        let first = hash(name) & mask;
        for slot in (first..self.0.len()).chain(0..first) {
            let position = usize::from(*self.0.get(slot)?).checked_sub(1)?;
            if named(position) == Some(name) {
                return Some(position);
            }
        }
        None
    }
}
