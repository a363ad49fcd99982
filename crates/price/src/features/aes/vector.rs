//! AES by vector permutation: SSSE3's PSHUFB looks up sixteen bytes at once in the tables of [`super::tower`].

use std::arch::x86_64::*;

use super::reference::ROUNDS;
use super::tower::{Schedule, Table};

/// A table in a register.
#[inline]
fn load(table: &Table) -> __m128i {
    // SAFETY: a table is sixteen bytes, aligned to sixteen; SSE2 is part of x86-64.
    unsafe { _mm_load_si128(table.0.as_ptr().cast()) }
}

/// The high four bits of each byte.
#[inline]
fn high(x: __m128i) -> __m128i {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { _mm_and_si128(_mm_srli_epi16::<4>(x), _mm_set1_epi8(15)) }
}

/// u and v of [`super::tower`], from the digits.
#[inline]
#[target_feature(enable = "ssse3")]
fn invert<const OUTPUTS: usize>(schedule: &Schedule<OUTPUTS>, state: __m128i) -> (__m128i, __m128i) {
    let (inverse, scaled) = (load(&schedule.inverse), load(&schedule.scaled));
    let i = high(state);
    let k = _mm_and_si128(state, _mm_set1_epi8(15));
    let j = _mm_xor_si128(i, k);
    let ak = _mm_shuffle_epi8(scaled, k);
    let iak = _mm_xor_si128(_mm_shuffle_epi8(inverse, i), ak);
    let jak = _mm_xor_si128(_mm_shuffle_epi8(inverse, j), ak);
    (_mm_xor_si128(_mm_shuffle_epi8(inverse, iak), j), _mm_xor_si128(_mm_shuffle_epi8(inverse, jak), i))
}

#[inline]
#[target_feature(enable = "ssse3")]
fn look_up(tables: &[Table; 2], u: __m128i, v: __m128i) -> __m128i {
    let [of_u, of_v] = tables;
    _mm_xor_si128(_mm_shuffle_epi8(load(of_u), u), _mm_shuffle_epi8(load(of_v), v))
}

/// What comes before the first round.
#[inline]
#[target_feature(enable = "ssse3")]
fn begin<const OUTPUTS: usize>(schedule: &Schedule<OUTPUTS>, block: __m128i) -> __m128i {
    let low = _mm_and_si128(block, _mm_set1_epi8(15));
    _mm_xor_si128(look_up(&schedule.input, low, high(block)), load(&schedule.keys[0]))
}

/// The last round.
#[inline]
#[target_feature(enable = "ssse3")]
fn end<const OUTPUTS: usize>(schedule: &Schedule<OUTPUTS>, state: __m128i) -> __m128i {
    let (u, v) = invert(schedule, state);
    let state = _mm_xor_si128(look_up(&schedule.last, u, v), load(&schedule.keys[ROUNDS]));
    _mm_shuffle_epi8(state, load(&schedule.unshift))
}

/// Encrypts some blocks side by side.
#[inline]
#[target_feature(enable = "ssse3")]
pub(super) fn encrypt<const N: usize>(schedule: &Schedule<2>, mut blocks: [__m128i; N]) -> [__m128i; N] {
    for block in &mut blocks {
        *block = begin(schedule, *block);
    }
    for round in 1..ROUNDS {
        let (next, before) = (load(&schedule.next_row[(round - 1) & 3]), load(&schedule.row_before[(round - 1) & 3]));
        let key = load(&schedule.keys[round]);
        for block in &mut blocks {
            let (u, v) = invert(schedule, *block);
            let [once, twice] = &schedule.outputs;
            let (once, twice) = (look_up(once, u, v), look_up(twice, u, v));
            // 2 a + b, and the same of the next row, and d: together 2 a + 3 b + c + d.
            let half = _mm_xor_si128(twice, _mm_shuffle_epi8(once, next));
            let whole = _mm_xor_si128(half, _mm_shuffle_epi8(half, next));
            *block = _mm_xor_si128(_mm_xor_si128(whole, _mm_shuffle_epi8(once, before)), key);
        }
    }
    for block in &mut blocks {
        *block = end(schedule, *block);
    }
    blocks
}

/// Decrypts some blocks side by side.
#[inline]
#[target_feature(enable = "ssse3")]
pub(super) fn decrypt<const N: usize>(schedule: &Schedule<4>, mut blocks: [__m128i; N]) -> [__m128i; N] {
    for block in &mut blocks {
        *block = begin(schedule, *block);
    }
    for round in 1..ROUNDS {
        let next = load(&schedule.next_row[(round - 1) & 3]);
        let key = load(&schedule.keys[round]);
        for block in &mut blocks {
            let (u, v) = invert(schedule, *block);
            let [nine, thirteen, eleven, fourteen] = &schedule.outputs;
            // Horner: 14 a + 11 b + 13 c + 9 d.
            let sum = _mm_shuffle_epi8(look_up(nine, u, v), next);
            let sum = _mm_shuffle_epi8(_mm_xor_si128(sum, look_up(thirteen, u, v)), next);
            let sum = _mm_shuffle_epi8(_mm_xor_si128(sum, look_up(eleven, u, v)), next);
            *block = _mm_xor_si128(_mm_xor_si128(sum, look_up(fourteen, u, v)), key);
        }
    }
    for block in &mut blocks {
        *block = end(schedule, *block);
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::super::reference;
    use super::super::tower;
    use super::*;

    #[test]
    fn blocks_are_the_references() {
        if !std::arch::is_x86_feature_detected!("ssse3") {
            eprintln!("skipped: this CPU lacks ssse3");
            return;
        }
        let keys = reference::expand(&std::array::from_fn(|index| index as u8 ^ 0x5a));
        let (encryption, decryption) = (tower::encryption(&keys), tower::decryption(&keys));
        for seed in 0..=255_u8 {
            let block: [u8; 16] = std::array::from_fn(|index| seed.wrapping_mul(index as u8 + 1) ^ seed);
            let expected = reference::encrypt(&keys, block);
            // SAFETY: SSSE3 was asked for; both are plain sixteen bytes.
            let (there, back): ([u8; 16], [u8; 16]) = unsafe {
                let [there] = encrypt(&encryption, [std::mem::transmute::<[u8; 16], __m128i>(block)]);
                let [back] = decrypt(&decryption, [there]);
                (std::mem::transmute::<__m128i, [u8; 16]>(there), std::mem::transmute::<__m128i, [u8; 16]>(back))
            };
            assert_eq!(there, expected);
            assert_eq!(back, block);
        }
    }
}
