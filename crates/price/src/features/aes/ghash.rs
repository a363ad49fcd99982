//! GHASH, with carry-less multiplication and without.
//!
//! With PCLMULQDQ it is computed as POLYVAL of bytes in reverse order (RFC 8452, appendix A), whose reduction is two more
//! multiplications by a constant (Montgomery's). Eight blocks are multiplied by eight powers of the key, and reduced once.

use std::arch::x86_64::*;

use super::GROUP;
use super::modes::{add, load, store};
use super::reference::{Block, ghash_multiply};

/// The powers of a key, each as POLYVAL needs it: the highest first.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Powers([[u8; 16]; GROUP]);

impl Powers {
    /// Those of GHASH's key.
    pub(super) fn new(key: u128) -> Self {
        let mut power = key;
        let mut powers = [[0; 16]; GROUP];
        for place in powers.iter_mut().rev() {
            // The key times x: in POLYVAL's order of bits that is a shift to the left.
            let shifted = (power << 1) ^ if power >> 127 == 1 { (0xc2 << 120) | 1 } else { 0 };
            *place = shifted.to_le_bytes();
            power = ghash_multiply(power, key);
        }
        Self(powers)
    }

    /// The last so many powers, in pairs for registers of two blocks, or one by one.
    pub(super) fn blocks(&self) -> &[Block; GROUP] {
        &self.0
    }
}

/// The order of bytes reversed.
#[inline]
#[target_feature(enable = "ssse3")]
pub(super) fn reverse(block: __m128i) -> __m128i {
    _mm_shuffle_epi8(block, _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15))
}

/// 256 bits reduced to 128, divided by x^128.
#[inline]
#[target_feature(enable = "pclmulqdq")]
pub(super) fn reduce(low: __m128i, high: __m128i) -> __m128i {
    let constant = _mm_set_epi64x(0, 0xc200_0000_0000_0000_u64.cast_signed());
    let swap = |value| _mm_shuffle_epi32::<0b01_00_11_10>(value);
    let low = add(swap(low), _mm_clmulepi64_si128::<0>(low, constant));
    add(add(high, swap(low)), _mm_clmulepi64_si128::<0>(low, constant))
}

/// Hashes `N` blocks with the last `N` powers.
#[inline]
#[target_feature(enable = "pclmulqdq,ssse3")]
pub(super) fn hash<const N: usize>(powers: &Powers, hashed: __m128i, blocks: &[Block; N]) -> __m128i {
    let mut sums = [_mm_setzero_si128(); 3];
    let mut carried = hashed;
    for (block, power) in blocks.iter().zip(&powers.0[GROUP - N..]) {
        let (block, power) = (add(reverse(load(block)), carried), load(power));
        carried = _mm_setzero_si128();
        let halves = |value| add(value, _mm_shuffle_epi32::<0b01_00_11_10>(value));
        sums[0] = add(sums[0], _mm_clmulepi64_si128::<0x00>(block, power));
        sums[1] = add(sums[1], _mm_clmulepi64_si128::<0x11>(block, power));
        // Karatsuba: the two middle products from one.
        sums[2] = add(sums[2], _mm_clmulepi64_si128::<0x00>(halves(block), halves(power)));
    }
    let [low, high, middle] = sums;
    let middle = add(middle, add(low, high));
    reduce(add(low, _mm_slli_si128::<8>(middle)), add(high, _mm_srli_si128::<8>(middle)))
}

/// The hash after a last block.
#[inline]
#[target_feature(enable = "pclmulqdq,ssse3")]
pub(super) fn finish(powers: &Powers, hashed: __m128i, block: &Block) -> Block {
    let mut hash_of_all = [0; 16];
    store(&mut hash_of_all, reverse(hash(powers, hashed, &[*block])));
    hash_of_all
}

/// The multiples of a key by all bytes, for CPUs without carry-less multiplication (Shoup's tables, 4 KiB).
#[derive(Clone, Debug)]
pub(super) struct Multiples {
    of_bytes: [[u64; 2]; 256],
    /// What a byte that is shifted out at the end brings in at the beginning: never more than the first sixteen bits.
    carried: [u16; 256],
}

/// The high and the low half.
fn halves(value: u128) -> [u64; 2] {
    [(value >> 64) as u64, value as u64]
}

impl Multiples {
    /// Those of GHASH's key.
    pub(super) fn new(key: u128) -> Self {
        let of_bytes = std::array::from_fn(|byte| halves(ghash_multiply((byte as u128) << 120, key)));
        // x^8 times a block whose last byte alone is not zero.
        let carried = std::array::from_fn(|byte| (ghash_multiply(byte as u128, 1 << 119) >> 112) as u16);
        Self { of_bytes, carried }
    }

    /// Hashes one block, the last byte first.
    #[inline(always)]
    pub(super) fn hash(&self, hashed: u128, block: &Block) -> u128 {
        let bytes = (hashed ^ u128::from_be_bytes(*block)).to_le_bytes();
        // In halves, because what is carried never comes near the low one.
        let [mut high, mut low] = [0, 0];
        for byte in bytes {
            let carried = u64::from(self.carried[usize::from(low as u8)]) << 48;
            let [of_high, of_low] = self.of_bytes[usize::from(byte)];
            low = (low >> 8 | high << 56) ^ of_low;
            high = (high >> 8) ^ carried ^ of_high;
        }
        u128::from(high) << 64 | u128::from(low)
    }
}
