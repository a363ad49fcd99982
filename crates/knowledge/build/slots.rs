//! The tables by which names are found.

use std::fmt::Write as _;

use crate::Result;
use crate::hash::hash;

/// A table of slots for a list: each name of it with the position where its entries begin. Of several positions with the
/// same name the first counts.
pub(crate) fn write<'a>(out: &mut String, of: &str, names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut firsts: Vec<(&str, usize)> = Vec::new();
    for (position, name) in names.enumerate() {
        if firsts.last().is_none_or(|(last, _)| *last != name) {
            firsts.push((name, position));
        }
    }
    let mut slots = vec![0_u16; (firsts.len() * 2 + 1).next_power_of_two()];
    let mask = slots.len() - 1;
    for (name, position) in firsts {
        let mut slot = hash(name) & mask;
        while slots[slot] != 0 {
            slot = (slot + 1) & mask;
        }
        slots[slot] = u16::try_from(position + 1)?;
    }
    writeln!(out, "/// Where names begin in [`{of}`].\nstatic {of}_SLOTS: Slots = Slots(&{slots:?});")?;
    Ok(())
}
