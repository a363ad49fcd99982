//! Counting, finding and moving single bits.

use crate::work::{Kernel, Unit, Way, Work, noise};

/// Words that one run works on: 16 KiB, half of a first-level cache.
const WORDS: usize = 2048;

const BASE: Way = Way { name: "shifts and masks", needs: &[] };

pub(super) const WORKS: &[Work] = &[Work {
    id: "popcount-words",
    feature: "popcnt",
    title: "bits set in each word, 16 KiB",
    with: Way { name: "POPCNT", needs: &["popcnt"] },
    without: BASE,
    unit: Unit::Bytes,
    amount: 8 * WORDS as u64,
    make: || Kernel::boxed(words, count_popcnt, count_plain, sum, |bits| bits.words.iter().map(ones).sum()),
}];

/// Words, and what was found in them.
struct Bits {
    words: Vec<u64>,
    found: u64,
}

fn words() -> Bits {
    Bits { words: noise(1).take(WORDS).collect(), found: 0 }
}

fn sum(bits: &Bits) -> u64 {
    bits.found
}

/// Bit by bit.
fn ones(word: &u64) -> u64 {
    (0..64).map(|bit| word >> bit & 1).sum()
}

/// Each count is the next one's input, as where one asks for the rank of one position.
#[inline(always)]
fn count(bits: &mut Bits) {
    bits.found = bits.words.iter().map(|word| u64::from(word.count_ones())).sum();
}

#[target_feature(enable = "popcnt")]
fn count_popcnt(bits: &mut Bits) {
    count(bits);
}

fn count_plain(bits: &mut Bits) {
    count(bits);
}
