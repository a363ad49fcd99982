//! Sets of bits as the tables write them: `vmx`, `[3]`, `[0..31]`, `*`.

use std::collections::BTreeMap;

use super::BitRow;
use super::place::Word;
use crate::Result;

/// QEMU's names of the bits of every register.
pub(crate) struct Names(BTreeMap<Word, BTreeMap<String, Vec<u8>>>);

impl Names {
    pub(crate) fn new(rows: &[BitRow]) -> Self {
        let mut found: BTreeMap<Word, BTreeMap<String, Vec<u8>>> = BTreeMap::new();
        for row in rows {
            if let Some(name) = &row.name {
                found.entry(row.place.word).or_default().entry(name.clone()).or_default().push(row.place.bit);
            }
        }
        Self(found)
    }

    /// The mask that a cell stands for. A name that two bits of the register share is ambiguous and refused.
    pub(crate) fn mask(&self, word: Word, text: &str) -> Result<u64> {
        if text == "*" {
            return Ok(u64::MAX);
        }
        text.split_whitespace().try_fold(0, |mask, part| Ok(mask | self.part(word, part)?))
    }

    fn part(&self, word: Word, part: &str) -> Result<u64> {
        let wrong = || format!("`{part}` is no bit of that register");
        let Some(range) = part.strip_prefix('[').and_then(|part| part.strip_suffix(']')) else {
            let bits = self.0.get(&word).and_then(|names| names.get(part)).ok_or_else(wrong)?;
            let [bit] = bits[..] else { return Err(format!("`{part}` stands for several bits").into()) };
            return Ok(1 << bit);
        };
        let (first, last) = range.split_once("..").unwrap_or((range, range));
        let (first, last): (u8, u8) = (first.parse()?, last.parse()?);
        if first > last || last > 63 {
            return Err(wrong().into());
        }
        Ok((first..=last).fold(0, |mask, bit| mask | 1 << bit))
    }
}
