//! Counting, finding and gathering single bits: POPCNT, LZCNT, BMI1, BMI2, AVX512_VPOPCNTDQ.

use std::arch::x86_64::_pext_u64;

use crate::work::{Kernel, Unit, Way, Work, noise};

/// Words that one run works on: 16 KiB, half of a first-level cache.
const WORDS: usize = 2048;

const fn work(id: &'static str, feature: &'static str, title: &'static str, with: Way, without: Way) -> Work {
    Work {
        id,
        feature,
        title,
        with,
        without,
        unit: Unit::Bytes,
        amount: 8 * WORDS as u64,
        make: || Kernel::boxed(Bits::new, count_popcnt, count_plain, Bits::found, Bits::ones),
    }
}

pub(super) const WORKS: &[Work] = &[
    work(
        "popcount",
        "popcnt",
        "bits counted",
        Way { name: "POPCNT", needs: &["popcnt"] },
        Way { name: "SSE2 shifts and masks", needs: &[] },
    ),
    Work {
        make: || Kernel::boxed(Bits::new, count_vpopcnt, count_avx2, Bits::found, Bits::ones),
        ..work(
            "popcount-vector",
            "avx512_vpopcntdq",
            "bits counted",
            Way { name: "VPOPCNTQ", needs: &["avx512_vpopcntdq", "avx512f"] },
            Way { name: "AVX2 look-ups of four bits", needs: &["avx2"] },
        )
    },
    Work {
        make: || Kernel::boxed(Bits::new, positions_bmi, positions_plain, Bits::found, Bits::positions),
        ..work(
            "set-bits",
            "bmi1",
            "positions of the bits set",
            Way { name: "TZCNT, BLSR", needs: &["bmi1"] },
            Way { name: "BSF, subtract and mask", needs: &[] },
        )
    },
    Work {
        unit: Unit::Operations("words"),
        amount: WORDS as u64,
        make: || Kernel::boxed(Bits::new, logarithms_lzcnt, logarithms_plain, Bits::found, Bits::logarithms),
        ..work(
            "logarithm",
            "abm",
            "highest bit of each word",
            Way { name: "LZCNT", needs: &["abm"] },
            Way { name: "BSR", needs: &[] },
        )
    },
    Work {
        unit: Unit::Operations("words"),
        amount: WORDS as u64,
        make: || Kernel::boxed(Bits::new, gather_pext, gather_plain, Bits::found, Bits::gathered),
        ..work(
            "gather-bits",
            "bmi2",
            "bits gathered under a mask",
            Way { name: "PEXT", needs: &["bmi2"] },
            Way { name: "six steps of shifts and masks", needs: &[] },
        )
    },
];

/// Words, masks, and what was found in them.
struct Bits {
    words: Vec<u64>,
    masks: Vec<u64>,
    found: u64,
}

impl Bits {
    fn new() -> Self {
        // A third of the highest bits is zero, so that logarithms differ.
        let words = noise(1).take(WORDS).map(|word| word >> (word % 48)).collect();
        Self { words, masks: noise(2).take(WORDS).collect(), found: 0 }
    }

    fn found(&self) -> u64 {
        self.found
    }

    fn ones(&self) -> u64 {
        self.words.iter().flat_map(|word| (0..64).map(move |bit| word >> bit & 1)).sum()
    }

    fn positions(&self) -> u64 {
        let set = |word: &u64| (0..64).filter(|bit| word >> bit & 1 == 1).collect::<Vec<u64>>();
        self.words.iter().flat_map(set).fold(0, mixed)
    }

    fn logarithms(&self) -> u64 {
        self.words.iter().map(|word| (0..64).filter(|bit| word >> bit != 0).count() as u64).fold(0, mixed)
    }

    fn gathered(&self) -> u64 {
        let gather = |(word, mask): (&u64, &u64)| {
            let bits = (0..64).filter(|bit| mask >> bit & 1 == 1).map(|bit| word >> bit & 1);
            bits.enumerate().fold(0, |sum, (place, bit)| sum | bit << place)
        };
        self.words.iter().zip(&self.masks).map(gather).fold(0, mixed)
    }
}

/// One number out of many, so that each of them and their order matter.
#[inline(always)]
fn mixed(sum: u64, value: u64) -> u64 {
    sum.rotate_left(1) ^ value
}

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

#[target_feature(enable = "avx512f,avx512vpopcntdq")]
fn count_vpopcnt(bits: &mut Bits) {
    count(bits);
}

#[target_feature(enable = "avx2")]
fn count_avx2(bits: &mut Bits) {
    count(bits);
}

#[inline(always)]
fn positions(bits: &mut Bits) {
    bits.found = bits.words.iter().fold(0, |mut sum, &word| {
        let mut left = word;
        while left != 0 {
            sum = mixed(sum, u64::from(left.trailing_zeros()));
            left &= left - 1;
        }
        sum
    });
}

#[target_feature(enable = "bmi1")]
fn positions_bmi(bits: &mut Bits) {
    positions(bits);
}

fn positions_plain(bits: &mut Bits) {
    positions(bits);
}

#[inline(always)]
fn logarithms(bits: &mut Bits) {
    bits.found = bits.words.iter().fold(0, |sum, word| mixed(sum, u64::from(64 - word.leading_zeros())));
}

#[target_feature(enable = "lzcnt")]
fn logarithms_lzcnt(bits: &mut Bits) {
    logarithms(bits);
}

fn logarithms_plain(bits: &mut Bits) {
    logarithms(bits);
}

#[target_feature(enable = "bmi2")]
fn gather_pext(bits: &mut Bits) {
    let gathered = bits.words.iter().zip(&bits.masks).map(|(&word, &mask)| _pext_u64(word, mask));
    let mut sum = 0;
    for value in gathered {
        sum = mixed(sum, value);
    }
    bits.found = sum;
}

/// Henry Warren, Hacker's Delight, 7-4: each bit moves right by the number of mask bits missing below it, a power of two
/// at a time.
fn gather_plain(bits: &mut Bits) {
    bits.found = bits.words.iter().zip(&bits.masks).fold(0, |sum, (&word, &mask)| {
        let (mut word, mut mask) = (word & mask, mask);
        let mut missing = !mask << 1;
        for step in 0..6 {
            let mut parity = missing;
            for shift in [1, 2, 4, 8, 16, 32] {
                parity ^= parity << shift;
            }
            let moving = parity & mask;
            mask = (mask ^ moving) | moving >> (1 << step);
            let bits = word & moving;
            word = (word ^ bits) | bits >> (1 << step);
            missing &= !parity;
        }
        mixed(sum, word)
    });
}
