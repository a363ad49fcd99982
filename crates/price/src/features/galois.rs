//! Reed-Solomon's inner loop, as RAID 6 and erasure codes run it: GFNI.

use std::arch::x86_64::*;

use crate::memory::Buffer;
use crate::work::{Kernel, Unit, Way, Work, noise_bytes};

/// The bytes of one run.
const LENGTH: usize = 8 * 1024;

/// RAID 6's polynomial, x^8 + x^4 + x^3 + x^2 + 1, without x^8.
const POLYNOMIAL: u8 = 0x1d;

/// What the data is multiplied with.
const FACTOR: u8 = 0x8e;

pub(super) const WORKS: &[Work] = &[Work {
    id: "reed-solomon",
    feature: "gfni",
    title: "Reed-Solomon, multiply and add",
    with: Way { name: "GF2P8AFFINEQB, 32 bytes a register", needs: &["gfni", "avx2"] },
    without: Way { name: "AVX2 look-ups of four bits", needs: &["avx2"] },
    unit: Unit::Bytes,
    amount: LENGTH as u64,
    make: || Kernel::boxed(Stripe::new, add_gfni, add_avx2, |stripe| stripe.parity.bytes().to_vec(), Stripe::reference),
}];

struct Stripe {
    data: Buffer,
    /// Starts as noise; each run adds the data's multiple once more.
    parity: Buffer,
    /// The multiples of the sixteen low and of the sixteen high halves of a byte.
    tables: [[u8; 16]; 2],
    /// The multiplication as a matrix of bits.
    matrix: u64,
}

fn multiply(a: u8, b: u8) -> u8 {
    let step = |(sum, power): (u8, u8), bit: u8| {
        let next = (power << 1) ^ if power >> 7 == 1 { POLYNOMIAL } else { 0 };
        (if b >> bit & 1 == 1 { sum ^ power } else { sum }, next)
    };
    (0..8).fold((0, a), step).0
}

impl Stripe {
    fn new() -> Self {
        let table = |shift: u32| std::array::from_fn(|half| multiply((half as u8) << shift, FACTOR));
        // Row 7 - i of the matrix, bit by bit, says which bits of the input make bit i.
        let row = |bit: u8| (0..8).fold(0_u8, |row, input| row | (multiply(1 << input, FACTOR) >> bit & 1) << input);
        let matrix = u64::from_le_bytes(std::array::from_fn(|place| row(7 - place as u8)));
        Self {
            data: Buffer::of(&noise_bytes(12, LENGTH)),
            parity: Buffer::of(&noise_bytes(13, LENGTH)),
            tables: [table(0), table(4)],
            matrix,
        }
    }

    fn reference(&self) -> Vec<u8> {
        self.parity
            .bytes()
            .iter()
            .zip(self.data.bytes())
            .map(|(parity, data)| parity ^ multiply(*data, FACTOR))
            .collect()
    }
}

#[target_feature(enable = "gfni,avx2")]
fn add_gfni(stripe: &mut Stripe) {
    let matrix = _mm256_set1_epi64x(stripe.matrix.cast_signed());
    for (data, parity) in
        stripe.data.bytes().as_chunks::<32>().0.iter().zip(stripe.parity.bytes_mut().as_chunks_mut::<32>().0)
    {
        // SAFETY: 32 bytes each.
        unsafe {
            let product = _mm256_gf2p8affine_epi64_epi8::<0>(_mm256_loadu_si256(data.as_ptr().cast()), matrix);
            let sum = _mm256_xor_si256(product, _mm256_loadu_si256(parity.as_ptr().cast()));
            _mm256_storeu_si256(parity.as_mut_ptr().cast(), sum);
        }
    }
}

#[target_feature(enable = "avx2")]
fn add_avx2(stripe: &mut Stripe) {
    let mut tables = [_mm256_setzero_si256(); 2];
    for (register, table) in tables.iter_mut().zip(&stripe.tables) {
        // SAFETY: sixteen bytes.
        *register = _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(table.as_ptr().cast()) });
    }
    let [low, high] = tables;
    let mask = _mm256_set1_epi8(15);
    for (data, parity) in
        stripe.data.bytes().as_chunks::<32>().0.iter().zip(stripe.parity.bytes_mut().as_chunks_mut::<32>().0)
    {
        // SAFETY: 32 bytes each.
        unsafe {
            let data = _mm256_loadu_si256(data.as_ptr().cast());
            let of_low = _mm256_shuffle_epi8(low, _mm256_and_si256(data, mask));
            let of_high = _mm256_shuffle_epi8(high, _mm256_and_si256(_mm256_srli_epi16::<4>(data), mask));
            let product = _mm256_xor_si256(of_low, of_high);
            let sum = _mm256_xor_si256(product, _mm256_loadu_si256(parity.as_ptr().cast()));
            _mm256_storeu_si256(parity.as_mut_ptr().cast(), sum);
        }
    }
}
