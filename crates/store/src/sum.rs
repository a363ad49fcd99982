//! One pass over the columns: what all hosts have, what some have, and how many lack each bit.

use std::collections::{BTreeMap, BTreeSet};

use cpusieve_fleet::{Offer, Property, Rest, Unnamed};
use cpusieve_knowledge::qemu::{WORD_COUNT, WORD_ORDER};
use cpusieve_model::Vendor;

use crate::columns::{Set, column_name};
use crate::file::Part;
use crate::rows::span;
use crate::texts::Numbers;
use crate::{Error, Packed};

/// Rows that are looked at together: they stay in the first cache, and a byte counts to 255 in groups of [`LANES`].
const CHUNK: usize = 255 * LANES;

/// Rows that are counted side by side.
const LANES: usize = 4;

/// Kinds of CPU of a sum that QEMU is asked on.
const ASKED: usize = 32;

/// A packed fleet as a sum.
#[derive(Clone, Debug)]
pub struct Sum {
    /// The sum of the words.
    pub rest: Rest,
    /// What is kept of the hosts.
    pub unnamed: Unnamed,
}

/// How many hosts offer a feature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// The hosts.
    pub hosts: u64,
    /// Those that offer it.
    pub having: u64,
}

impl Packed {
    /// All rows as one sum. Memory does not grow with the rows.
    ///
    /// # Errors
    /// If a column is missing or damaged.
    pub fn sum(&self) -> Result<Sum, Error> {
        let mut folded = Folded::new();
        let (mut vendors, mut phys_bits, mut hosts, mut rows) = (BTreeMap::new(), None, 0_u64, 0);
        let mut unnamed: Option<Unnamed> = None;
        for part in self.parts() {
            let counts = part.numbers("hosts")?;
            for (column, at) in self.words() {
                folded.take(column.set, column.at, column.shift, part.word(at)?, counts);
            }
            hosts = counts.iter().fold(hosts, |sum, count| sum.saturating_add(count.into()));
            rows += part.rows();
            phys_bits = part.numbers("phys_bits")?.iter().chain(phys_bits).min();
            count_vendors(part, counts, &mut vendors)?;
            let of_part = of_members(part, counts)?;
            unnamed = Some(unnamed.map_or(of_part, |known| known.and(of_part)));
        }
        let phys_bits = phys_bits.and_then(|bits| u8::try_from(bits).ok()).unwrap_or(0);
        let rest = Rest {
            hosts,
            rows,
            vendors,
            without: folded.without(hosts),
            any: folded.any[Set::Host as usize],
            any_kvm: folded.any[Set::Kvm as usize],
            all: folded.all(rows, phys_bits),
            grounds: self.grounds()?,
        };
        Ok(Sum { rest, unnamed: unnamed.unwrap_or(Unnamed { tsc_khz: None, nested: 0 }) })
    }

    /// How many hosts offer a feature themselves ([`Offer::own`]). Looks at that feature's columns alone.
    ///
    /// # Errors
    /// If a column is missing or damaged.
    pub fn who(&self, property: &Property) -> Result<Who, Error> {
        let mut who = Who::default();
        for part in self.parts() {
            let counts = part.numbers("hosts")?;
            let mut columns = Vec::new();
            for &(at, mask) in property.bits() {
                let Some(&word) = WORD_ORDER.get(at) else { continue };
                for shift in [0, 32] {
                    let mask = u32::try_from(mask >> shift & u64::from(u32::MAX)).unwrap_or(0);
                    if mask != 0 {
                        columns.push((part.numbers(&column_name(Set::Host, word, shift))?, mask));
                    }
                }
            }
            let having = match columns.as_slice() {
                [] => continue,
                // The common case, without a word of memory.
                [(column, mask)] => {
                    let both = column.iter().zip(counts.iter());
                    both.map(|(word, count)| if word & mask == *mask { u64::from(count) } else { 0 }).sum()
                }
                [(first, mask), more @ ..] => {
                    let mut has: Vec<bool> = first.iter().map(|word| word & mask == *mask).collect();
                    for (column, mask) in more {
                        has.iter_mut().zip(column.iter()).for_each(|(has, word)| *has &= word & mask == *mask);
                    }
                    has.iter().zip(counts.iter()).map(|(has, count)| u64::from(*has) * u64::from(count)).sum::<u64>()
                }
            };
            who.having = who.having.saturating_add(having);
            who.hosts = counts.iter().fold(who.hosts, |sum, count| sum.saturating_add(count.into()));
        }
        Ok(who)
    }

    /// The first host of each vendor and signature that QEMU can be asked on.
    fn grounds(&self) -> Result<Vec<cpusieve_fleet::Ground>, Error> {
        let (mut met, mut grounds) = (BTreeSet::new(), Vec::new());
        for part in self.parts() {
            let (vendors, signatures, records) =
                (part.texts("vendor")?, part.numbers("signature")?, part.texts("record")?);
            for at in (0..part.rows()).filter(|&at| records.bytes(at).is_some()) {
                let key = (vendors.bytes(at), signatures.get(at));
                if grounds.len() < ASKED && met.insert(key) {
                    grounds.extend(crate::rows::ground(records, at));
                }
            }
        }
        Ok(grounds)
    }
}

/// What came of the columns so far.
struct Folded {
    all: [[u64; WORD_COUNT]; 3],
    any: [[u64; WORD_COUNT]; 3],
    /// How many hosts have each bit of [`Set::Host`].
    having: Box<[[u64; 64]; WORD_COUNT]>,
}

impl Folded {
    fn new() -> Self {
        let having = Box::new([[0; 64]; WORD_COUNT]);
        Self { all: [[u64::MAX; WORD_COUNT]; 3], any: [[0; WORD_COUNT]; 3], having }
    }

    fn take(&mut self, set: Set, at: usize, shift: u32, words: Numbers<'_>, counts: Numbers<'_>) {
        let (mut all, mut any) = (u32::MAX, 0);
        for (words, counts) in words.all().chunks(CHUNK).zip(counts.all().chunks(CHUNK)) {
            let (and, or) = and_or(words);
            (all, any) = (all & and, any | or);
            if set == Set::Host && or != 0 {
                let having = &mut self.having[at][shift as usize..][..32];
                count(having, words, counts, (and, or));
            }
        }
        self.all[set as usize][at] &= u64::from(all) << shift | !(u64::from(u32::MAX) << shift);
        self.any[set as usize][at] |= u64::from(any) << shift;
    }

    /// What all rows have. Of words without a column nobody has anything.
    fn all(&self, rows: usize, phys_bits: u8) -> Offer {
        let of = |set: Set| -> [u64; WORD_COUNT] {
            let (all, any) = (&self.all[set as usize], &self.any[set as usize]);
            std::array::from_fn(|at| if rows == 0 { 0 } else { all[at] & any[at] })
        };
        Offer { words: of(Set::Supported), own: of(Set::Host), kvm: of(Set::Kvm), phys_bits }
    }

    fn without(&self, hosts: u64) -> BTreeMap<(usize, u32), u64> {
        let (all, any) = (&self.all[Set::Host as usize], &self.any[Set::Host as usize]);
        let mut without = BTreeMap::new();
        for (at, having) in self.having.iter().enumerate() {
            for (bit, having) in (0..).zip(having).filter(|(bit, _)| (any[at] & !all[at]) >> bit & 1 == 1) {
                without.insert((at, bit), hosts.saturating_sub(*having));
            }
        }
        without
    }
}

fn and_or(words: &[[u8; 4]]) -> (u32, u32) {
    words.iter().fold((u32::MAX, 0), |(and, or), word| {
        let word = u32::from_le_bytes(*word);
        (and & word, or | word)
    })
}

/// Adds to each bit's count how many hosts of a chunk have it.
fn count(having: &mut [u64], words: &[[u8; 4]], counts: &[[u8; 4]], (and, or): (u32, u32)) {
    let hosts: u64 = counts.iter().map(|count| u64::from(u32::from_le_bytes(*count))).sum();
    let each = and_or(counts) == (1, 1);
    if and != or && each {
        let found = bits(words);
        for (having, found) in having.iter_mut().zip(found) {
            *having += u64::from(found);
        }
        return;
    }
    for (bit, having) in (0_u32..).zip(having).filter(|(bit, _)| or >> bit & 1 == 1) {
        let some = || {
            let both =
                words.iter().zip(counts).map(|(word, count)| (u32::from_le_bytes(*word), u32::from_le_bytes(*count)));
            both.map(|(word, count)| u64::from((word >> bit & 1) * count)).sum::<u64>()
        };
        *having = having.saturating_add(if and >> bit & 1 == 1 { hosts } else { some() });
    }
}

/// How many of at most [`CHUNK`] words have each bit: four bits at a time, each counted in a byte of its own.
fn bits(words: &[[u8; 4]]) -> [u32; 32] {
    let mut sums = [[0_u32; LANES]; 8];
    let (groups, left) = words.as_chunks::<LANES>();
    for group in groups {
        for (shift, sums) in (0..).zip(&mut sums) {
            for (sum, word) in sums.iter_mut().zip(group) {
                *sum += u32::from_le_bytes(*word) >> shift & 0x0101_0101;
            }
        }
    }
    let mut found = [0; 32];
    for (bit, found) in (0_u32..).zip(&mut found) {
        let counted = sums[bit as usize % 8].iter().map(|sum| sum >> (bit / 8 * 8) & 0xff).sum::<u32>();
        let more = left.iter().map(|word| u32::from_le_bytes(*word) >> bit & 1).sum::<u32>();
        *found = counted + more;
    }
    found
}

/// Neighbours often have the same vendor, so that its text is looked at once.
fn count_vendors(part: Part<'_>, counts: Numbers<'_>, vendors: &mut BTreeMap<Vendor, u64>) -> Result<(), Error> {
    let texts = part.texts("vendor")?;
    let mut known: (&[u8], u64) = (b"", 0);
    let mut note = |(text, hosts): (&[u8], u64)| {
        if hosts > 0 {
            *vendors.entry(Vendor::from_string(std::str::from_utf8(text).unwrap_or(""))).or_default() += hosts;
        }
    };
    for (at, count) in counts.iter().enumerate() {
        let text = texts.bytes(at).unwrap_or(b"");
        if text != known.0 {
            note(std::mem::replace(&mut known, (text, 0)));
        }
        known.1 = known.1.saturating_add(count.into());
    }
    note(known);
    Ok(())
}

/// What is kept of the hosts of a batch.
fn of_members(part: Part<'_>, counts: Numbers<'_>) -> Result<Unnamed, Error> {
    let (_, members) = part.members()?;
    let (khz, nested) = (members.numbers("tsc_khz")?, members.flags("nested")?);
    let hosts = counts.iter().fold(0_u64, |sum, count| sum.saturating_add(count.into()));
    let named = khz.all().len();
    let tsc_khz = if hosts == named as u64 { span(khz, 0..named) } else { None };
    Ok(Unnamed { tsc_khz, nested: nested.count() as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_counted_in_bytes_that_do_not_overflow() {
        let words: Vec<[u8; 4]> =
            (0..CHUNK as u32).map(|at| (at.wrapping_mul(0x9e37_79b9) | 1 << 31).to_le_bytes()).collect();
        for length in [0, 1, 3, 4, 1000, CHUNK] {
            let words = &words[..length];
            let found = bits(words);
            for (bit, found) in found.iter().enumerate() {
                let slow = words.iter().filter(|word| u32::from_le_bytes(**word) >> bit & 1 == 1).count();
                assert_eq!(*found, slow as u32, "{length} {bit}");
            }
        }
    }
}
