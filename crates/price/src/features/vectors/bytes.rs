//! Whole numbers of eight and sixteen bits: sums and the dot products of neural networks.

use std::arch::x86_64::*;

use super::{AVX2, AVX512, SIDE, multiply, row};
use crate::memory::Buffer;
use crate::work::{Kernel, Unit, Way, Work, noise};

/// The length of each vector.
const LENGTH: usize = 8 * 1024;
const EACH: (Unit, u64) = (Unit::Operations("multiply-adds"), LENGTH as u64);

const SSSE3: Way = Way { name: "SSSE3 PMADDUBSW", needs: &["ssse3"] };
const WIDE: Way = Way { name: "AVX-512 VPMADDUBSW", ..AVX512 };

/// Multiplications and additions of one product of matrices.
const STEPS: (Unit, u64) = (Unit::Operations("multiply-adds"), 4 * (SIDE * SIDE * SIDE) as u64);

/// Ids and title.
const MATRIX: [&str; 5] = ["int8-avx2", "int8-avx512", "int8-vnni", "int8-avx-vnni", "8-bit matrix product"];
const DOT: (&str, &str, &str) = ("dot-avx2", "avx2", "8-bit dot product");

pub(crate) const WORKS: &[Work] = &[
    row((DOT.0, "avx2", DOT.2), Way { name: "AVX2 VPMADDUBSW", ..AVX2 }, SSSE3, EACH, || {
        Kernel::boxed(Vectors::new, dot_avx2, dot_ssse3, Vectors::sum, Vectors::reference)
    }),
    row(("dot-ssse3", "ssse3", DOT.2), SSSE3, Way { name: "SSE2 PMADDWD", needs: &[] }, EACH, || {
        Kernel::boxed(Vectors::new, dot_ssse3, dot_sse2, Vectors::sum, Vectors::reference)
    }),
    row((MATRIX[0], "avx2", MATRIX[4]), Way { name: "AVX2 VPMADDUBSW", ..AVX2 }, SSSE3, STEPS, || {
        Kernel::boxed(Matrices::new, multiply_avx2, multiply_ssse3, Matrices::product, Matrices::reference)
    }),
    row((MATRIX[1], "avx512bw", MATRIX[4]), WIDE, Way { name: "AVX2 VPMADDUBSW", ..AVX2 }, STEPS, || {
        Kernel::boxed(Matrices::new, multiply_avx512, multiply_avx2, Matrices::product, Matrices::reference)
    }),
    row(
        (MATRIX[2], "avx512_vnni", MATRIX[4]),
        Way { name: "VPDPBUSD, 64 bytes a register", needs: &["avx512_vnni", "avx512f"] },
        WIDE,
        STEPS,
        || Kernel::boxed(Matrices::new, multiply_vnni, multiply_avx512, Matrices::product, Matrices::reference),
    ),
    row(
        (MATRIX[3], "avx_vnni", MATRIX[4]),
        Way { name: "VPDPBUSD, 32 bytes a register", needs: &["avx_vnni", "avx2"] },
        Way { name: "AVX2 VPMADDUBSW", ..AVX2 },
        STEPS,
        || Kernel::boxed(Matrices::new, multiply_avx_vnni, multiply_avx2, Matrices::product, Matrices::reference),
    ),
    row(
        ("sum-avx2", "avx2", "sum of 32-bit numbers"),
        AVX2,
        Way { name: "SSE2", needs: &[] },
        (Unit::Operations("numbers"), LENGTH as u64 / 4),
        || Kernel::boxed(Vectors::new, sum_avx2, sum_sse2, Vectors::sum, Vectors::sum_of_words),
    ),
    row(
        ("sum-avx512", "avx512f", "sum of 32-bit numbers"),
        Way { name: "AVX-512", needs: &["avx512f"] },
        AVX2,
        (Unit::Operations("numbers"), LENGTH as u64 / 4),
        || Kernel::boxed(Vectors::new, sum_avx512, sum_avx2, Vectors::sum, Vectors::sum_of_words),
    ),
];

/// Unsigned bytes up to 127 and signed ones between -64 and 63: two products of them fit into sixteen bits, as those who use
/// VPMADDUBSW take care that they do.
struct Vectors {
    a: Buffer,
    b: Buffer,
    sum: i32,
}

impl Vectors {
    fn new() -> Self {
        let a: Vec<u8> = noise(10).take(LENGTH).map(|value| value as u8 & 127).collect();
        let b: Vec<u8> = noise(11).take(LENGTH).map(|value| (value as u8 & 127).wrapping_sub(64)).collect();
        Self { a: Buffer::of(&a), b: Buffer::of(&b), sum: 0 }
    }

    fn sum(&self) -> i32 {
        self.sum
    }

    fn reference(&self) -> i32 {
        let products = self.a.bytes().iter().zip(self.b.bytes());
        products.map(|(a, b)| i32::from(*a) * i32::from(b.cast_signed())).sum()
    }

    fn sum_of_words(&self) -> i32 {
        let words = self.a.bytes().as_chunks().0.iter().map(|word| i32::from_le_bytes(*word));
        words.fold(0, i32::wrapping_add)
    }
}

/// Goes through both vectors in steps of four registers, each with a sum of its own.
macro_rules! dot {
    ($name:ident, $features:literal, $bytes:literal, $register:ty, $load:ident, $zero:ident, $add:ident, $step:expr) => {
        #[target_feature(enable = $features)]
        fn $name(vectors: &mut Vectors) {
            let mut sums = [$zero(); 4];
            let (a, b) = (vectors.a.bytes().as_chunks::<{ 4 * $bytes }>().0, vectors.b.bytes().as_chunks().0);
            for (a, b) in a.iter().zip(b) {
                let b: &[u8; 4 * $bytes] = b;
                for (place, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: `place` is below four, and each array holds four registers.
                    let (a, b): ($register, $register) = unsafe {
                        ($load(a.as_ptr().add(place * $bytes).cast()), $load(b.as_ptr().add(place * $bytes).cast()))
                    };
                    *sum = $step(*sum, a, b);
                }
            }
            let [first, second, third, fourth] = sums;
            let sum = $add($add(first, second), $add(third, fourth));
            // SAFETY: a register is as many whole numbers as fit into it.
            let numbers: [i32; $bytes / 4] = unsafe { std::mem::transmute::<$register, _>(sum) };
            vectors.sum = numbers.into_iter().fold(0, i32::wrapping_add);
        }
    };
}

dot!(dot_sse2, "sse2", 16, __m128i, _mm_loadu_si128, _mm_setzero_si128, _mm_add_epi32, |sum, a, b| {
    let zero = _mm_setzero_si128();
    let sign = _mm_cmpgt_epi8(zero, b);
    let low = _mm_madd_epi16(_mm_unpacklo_epi8(a, zero), _mm_unpacklo_epi8(b, sign));
    let high = _mm_madd_epi16(_mm_unpackhi_epi8(a, zero), _mm_unpackhi_epi8(b, sign));
    _mm_add_epi32(sum, _mm_add_epi32(low, high))
});
dot!(dot_ssse3, "ssse3", 16, __m128i, _mm_loadu_si128, _mm_setzero_si128, _mm_add_epi32, |sum, a, b| {
    _mm_add_epi32(sum, _mm_madd_epi16(_mm_maddubs_epi16(a, b), _mm_set1_epi16(1)))
});
dot!(dot_avx2, "avx2", 32, __m256i, _mm256_loadu_si256, _mm256_setzero_si256, _mm256_add_epi32, |sum, a, b| {
    _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)))
});
/// Two matrices of bytes. An element is four bytes, of a row of the first, and of a column of the second; their product is the
/// sum of the four products.
struct Matrices {
    a: Buffer,
    b: Buffer,
    product: Buffer,
}

impl Matrices {
    fn new() -> Self {
        let a: Vec<u8> = noise(22).take(4 * SIDE * SIDE).map(|value| value as u8 & 127).collect();
        let b: Vec<u8> = noise(23).take(4 * SIDE * SIDE).map(|value| (value as u8 & 127).wrapping_sub(64)).collect();
        Self { a: Buffer::of(&a), b: Buffer::of(&b), product: Buffer::zeroed(4 * SIDE * SIDE) }
    }

    fn product(&self) -> Vec<i32> {
        self.product.bytes().as_chunks().0.iter().map(|word| i32::from_le_bytes(*word)).collect()
    }

    fn reference(&self) -> Vec<i32> {
        let (a, b) = (self.a.bytes(), self.b.bytes());
        let cell = |index: usize| {
            let (row, column) = (index / SIDE, index % SIDE);
            let pair = |step: usize| {
                let (a, b) = (a[4 * row * SIDE + step], b[4 * (step / 4 * SIDE + column) + step % 4]);
                i32::from(a) * i32::from(b.cast_signed())
            };
            (0..4 * SIDE).map(pair).sum()
        };
        (0..SIDE * SIDE).map(cell).collect()
    }

    fn pointers(&mut self) -> [*mut u8; 3] {
        [&mut self.a, &mut self.b, &mut self.product].map(|buffer| buffer.bytes_mut().as_mut_ptr())
    }
}

multiply!(
    multiply_ssse3,
    "ssse3",
    i32,
    4,
    _mm_setzero_si128,
    _mm_loadu_si128,
    _mm_set1_epi32,
    _mm_storeu_si128,
    |a, b, sum| _mm_add_epi32(sum, _mm_madd_epi16(_mm_maddubs_epi16(a, b), _mm_set1_epi16(1)))
);
multiply!(
    multiply_avx2,
    "avx2",
    i32,
    8,
    _mm256_setzero_si256,
    _mm256_loadu_si256,
    _mm256_set1_epi32,
    _mm256_storeu_si256,
    |a, b, sum| _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)))
);
multiply!(
    multiply_avx512,
    "avx512f,avx512bw",
    i32,
    16,
    _mm512_setzero_si512,
    _mm512_loadu_si512,
    _mm512_set1_epi32,
    _mm512_storeu_si512,
    |a, b, sum| _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_maddubs_epi16(a, b), _mm512_set1_epi16(1)))
);
multiply!(
    multiply_vnni,
    "avx512f,avx512vnni",
    i32,
    16,
    _mm512_setzero_si512,
    _mm512_loadu_si512,
    _mm512_set1_epi32,
    _mm512_storeu_si512,
    |a, b, sum| _mm512_dpbusd_epi32(sum, a, b)
);
multiply!(
    multiply_avx_vnni,
    "avx2,avxvnni",
    i32,
    8,
    _mm256_setzero_si256,
    _mm256_loadu_si256,
    _mm256_set1_epi32,
    _mm256_storeu_si256,
    |a, b, sum| _mm256_dpbusd_avx_epi32(sum, a, b)
);

/// The same additions, as wide as the compiler may make them.
#[inline(always)]
fn sum(vectors: &mut Vectors) {
    let words = vectors.a.bytes().as_chunks().0.iter().map(|word| i32::from_le_bytes(*word));
    vectors.sum = words.fold(0, i32::wrapping_add);
}

fn sum_sse2(vectors: &mut Vectors) {
    sum(vectors);
}

#[target_feature(enable = "avx2")]
fn sum_avx2(vectors: &mut Vectors) {
    sum(vectors);
}

#[target_feature(enable = "avx512f")]
fn sum_avx512(vectors: &mut Vectors) {
    sum(vectors);
}
