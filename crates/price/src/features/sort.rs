//! Sorting: AVX-512's VPCOMPRESSD splits sixteen numbers in one step.

use std::arch::x86_64::*;

use crate::work::{Kernel, Unit, Way, Work, noise};

/// Numbers that one run sorts: 8 KiB.
const NUMBERS: usize = 2048;

/// From how many numbers on splitting is worth its while.
const FEW: usize = 128;

pub(super) const WORKS: &[Work] = &[Work {
    id: "sort",
    feature: "avx512f",
    title: "2048 32-bit numbers sorted",
    with: Way { name: "quicksort that splits with VPCOMPRESSD", needs: &["avx512f"] },
    without: Way { name: "the standard library's unstable sort", needs: &[] },
    unit: Unit::Operations("numbers"),
    amount: NUMBERS as u64,
    make: || Kernel::boxed(Numbers::new, sort_avx512, sort_std, |numbers| numbers.sorted.clone(), Numbers::reference),
}];

struct Numbers {
    given: Vec<u32>,
    sorted: Vec<u32>,
    /// Room for the greater part of a split.
    greater: Vec<u32>,
}

impl Numbers {
    fn new() -> Self {
        let given = noise(17).take(NUMBERS).map(|value| value as u32).collect();
        Self { given, sorted: vec![0; NUMBERS], greater: vec![0; NUMBERS + 16] }
    }

    /// By counting how many are smaller, 8 bits at a time.
    fn reference(&self) -> Vec<u32> {
        let mut sorted = self.given.clone();
        for shift in [0, 8, 16, 24] {
            let mut piles = vec![Vec::new(); 256];
            for number in sorted {
                piles[(number >> shift & 255) as usize].push(number);
            }
            sorted = piles.concat();
        }
        sorted
    }
}

fn sort_std(numbers: &mut Numbers) {
    numbers.sorted.copy_from_slice(&numbers.given);
    numbers.sorted.sort_unstable();
}

#[target_feature(enable = "avx512f")]
fn sort_avx512(numbers: &mut Numbers) {
    numbers.sorted.copy_from_slice(&numbers.given);
    // Splits that do not halve are bounded, as in every quicksort.
    quicksort(&mut numbers.sorted, &mut numbers.greater, 2 * NUMBERS.ilog2());
}

#[target_feature(enable = "avx512f")]
fn quicksort(numbers: &mut [u32], room: &mut [u32], depth: u32) {
    if numbers.len() <= FEW || depth == 0 {
        numbers.sort_unstable();
        return;
    }
    let sample = |place: usize| numbers[place * (numbers.len() - 1) / 8];
    let mut samples = [0, 1, 2, 3, 4, 5, 6, 7, 8].map(sample);
    samples.sort_unstable();
    let pivot = samples[4];
    let smaller = split(numbers, room, pivot);
    let (low, high) = numbers.split_at_mut(smaller);
    quicksort(low, room, depth - 1);
    quicksort(high, room, depth - 1);
}

/// Puts the numbers below the pivot first, returns how many they are. The others wait in `room`, which has place for
/// sixteen more than there are numbers.
#[target_feature(enable = "avx512f")]
fn split(numbers: &mut [u32], room: &mut [u32], pivot: u32) -> usize {
    let pivots = _mm512_set1_epi32(pivot.cast_signed());
    let (start, waiting) = (numbers.as_mut_ptr(), room.as_mut_ptr());
    let (mut smaller, mut others) = (0, 0);
    let whole = numbers.len() / 16 * 16;
    for place in (0..whole).step_by(16) {
        // SAFETY: sixteen numbers are read before as many or fewer are written over them or over earlier ones; `room` holds
        // all numbers and sixteen more.
        unsafe {
            let some = _mm512_loadu_si512(start.add(place).cast());
            let below = _mm512_cmplt_epu32_mask(some, pivots);
            _mm512_storeu_si512(start.add(smaller).cast(), _mm512_maskz_compress_epi32(below, some));
            _mm512_storeu_si512(waiting.add(others).cast(), _mm512_maskz_compress_epi32(!below, some));
            smaller += below.count_ones() as usize;
            others += below.count_zeros() as usize;
        }
    }
    for place in whole..numbers.len() {
        let number = numbers[place];
        if number < pivot {
            numbers[smaller] = number;
            smaller += 1;
        } else {
            room[others] = number;
            others += 1;
        }
    }
    numbers[smaller..].copy_from_slice(&room[..others]);
    smaller
}
