//! Floating-point numbers: matrices, half precision, rounding.

use std::arch::x86_64::*;

use super::{SIDE, multiply, row};
use crate::memory::Buffer;
use crate::work::{Kernel, Unit, Way, Work, noise};

/// Multiplications and additions of one product.
const STEPS: (Unit, u64) = (Unit::Operations("multiply-adds"), (SIDE * SIDE * SIDE) as u64);

/// Numbers that are converted or rounded in one run.
const NUMBERS: usize = 4096;
const EACH: (Unit, u64) = (Unit::Operations("numbers"), NUMBERS as u64);

const SSE: Way = Way { name: "SSE2, 4 numbers a register", needs: &[] };
const AVX: Way = Way { name: "AVX, multiply and add", needs: &["avx"] };
const FMA: Way = Way { name: "FMA, 8 numbers a register", needs: &["fma", "avx"] };
const WIDE: Way = Way { name: "AVX-512, 16 numbers a register", needs: &["avx512f"] };

pub(crate) const WORKS: &[Work] = &[
    row(("matrix-avx", "avx", "f32 matrix product"), AVX, SSE, STEPS, || {
        Kernel::boxed(Matrices::new, multiply_avx, multiply_sse, Matrices::product, Matrices::reference)
    }),
    row(("matrix-fma", "fma", "f32 matrix product"), FMA, AVX, STEPS, || {
        Kernel::boxed(Matrices::new, multiply_fma, multiply_avx, Matrices::product, Matrices::reference)
    }),
    row(("matrix-avx512", "avx512f", "f32 matrix product"), WIDE, FMA, STEPS, || {
        Kernel::boxed(Matrices::new, multiply_avx512, multiply_fma, Matrices::product, Matrices::reference)
    }),
    row(
        ("half-to-float", "f16c", "half precision to f32"),
        Way { name: "VCVTPH2PS", needs: &["f16c", "avx"] },
        Way { name: "AVX2 shifts and a multiplication", needs: &["avx2"] },
        EACH,
        || Kernel::boxed(Halves::new, to_float_f16c, to_float_avx2, Halves::bits, Halves::reference),
    ),
    row(
        ("floor", "sse4_1", "f32 rounded down"),
        Way { name: "ROUNDPS", needs: &["sse4_1"] },
        Way { name: "SSE2, to integer and back", needs: &[] },
        EACH,
        || Kernel::boxed(Floats::new, floor_sse41, floor_sse2, Floats::bits, Floats::reference),
    ),
];

/// The bits of the numbers in a buffer.
fn bits(buffer: &Buffer) -> Vec<u32> {
    buffer.bytes().as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect()
}

fn buffer(numbers: impl Iterator<Item = f32>) -> Buffer {
    Buffer::of(&numbers.flat_map(f32::to_le_bytes).collect::<Vec<u8>>())
}

struct Matrices {
    a: Buffer,
    b: Buffer,
    product: Buffer,
}

impl Matrices {
    fn new() -> Self {
        let numbers = |seed| noise(seed).take(SIDE * SIDE).map(|value| (value % 17) as f32 - 8.0);
        Self { a: buffer(numbers(6)), b: buffer(numbers(7)), product: Buffer::zeroed(4 * SIDE * SIDE) }
    }

    fn product(&self) -> Vec<u32> {
        bits(&self.product)
    }

    fn reference(&self) -> Vec<u32> {
        let number = |buffer: &[u32], row: usize, column: usize| f32::from_bits(buffer[row * SIDE + column]);
        let (a, b) = (bits(&self.a), bits(&self.b));
        let cell = |index: usize| {
            let (row, column) = (index / SIDE, index % SIDE);
            (0..SIDE).map(|step| number(&a, row, step) * number(&b, step, column)).sum::<f32>().to_bits()
        };
        // Minus zero and zero are the same sum.
        (0..SIDE * SIDE).map(cell).map(|bits| if bits == 1 << 31 { 0 } else { bits }).collect()
    }

    fn pointers(&mut self) -> [*mut u8; 3] {
        [&mut self.a, &mut self.b, &mut self.product].map(|buffer| buffer.bytes_mut().as_mut_ptr())
    }
}

multiply!(multiply_sse, "sse2", f32, 4, _mm_setzero_ps, _mm_loadu_ps, _mm_set1_ps, _mm_storeu_ps, |a, b, sum| {
    _mm_add_ps(_mm_mul_ps(a, b), sum)
});
multiply!(
    multiply_avx,
    "avx",
    f32,
    8,
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_set1_ps,
    _mm256_storeu_ps,
    |a, b, sum| { _mm256_add_ps(_mm256_mul_ps(a, b), sum) }
);
multiply!(
    multiply_fma,
    "avx,fma",
    f32,
    8,
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_set1_ps,
    _mm256_storeu_ps,
    |a, b, sum| _mm256_fmadd_ps(a, b, sum)
);
multiply!(
    multiply_avx512,
    "avx512f",
    f32,
    16,
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_set1_ps,
    _mm512_storeu_ps,
    |a, b, sum| _mm512_fmadd_ps(a, b, sum)
);

/// Half-precision numbers, 8 KiB, and room for them as f32.
struct Halves {
    halves: Buffer,
    floats: Buffer,
}

impl Halves {
    fn new() -> Self {
        // Normal numbers: on some CPUs a multiplication of subnormal ones takes a hundred cycles, and they are rare.
        let finite = |value: u64| (value as u16 & 0x83ff) | (((value >> 16) % 30 + 1) as u16 * 0x400);
        let halves: Vec<u8> = noise(8).take(NUMBERS).map(finite).flat_map(u16::to_le_bytes).collect();
        Self { halves: Buffer::of(&halves), floats: Buffer::zeroed(4 * NUMBERS) }
    }

    fn bits(&self) -> Vec<u32> {
        bits(&self.floats)
    }

    fn reference(&self) -> Vec<u32> {
        let float = |half: &[u8; 2]| {
            let half = u16::from_le_bytes(*half);
            let (exponent, fraction) = (i32::from(half >> 10 & 31), f32::from(half & 0x3ff) / 1024.0);
            let value =
                if exponent == 0 { fraction * 2_f32.powi(-14) } else { (1.0 + fraction) * 2_f32.powi(exponent - 15) };
            if half >> 15 == 1 { (-value).to_bits() } else { value.to_bits() }
        };
        self.halves.bytes().as_chunks().0.iter().map(float).collect()
    }
}

#[target_feature(enable = "avx,f16c")]
fn to_float_f16c(halves: &mut Halves) {
    let (input, output) =
        (halves.halves.bytes().as_chunks::<16>().0, halves.floats.bytes_mut().as_chunks_mut::<32>().0);
    for (input, output) in input.iter().zip(output) {
        // SAFETY: eight numbers each.
        unsafe {
            let half = _mm_loadu_si128(input.as_ptr().cast());
            _mm256_storeu_ps(output.as_mut_ptr().cast(), _mm256_cvtph_ps(half));
        }
    }
}

/// The exponent's bias is put right by a multiplication, which handles subnormal numbers too.
#[target_feature(enable = "avx2")]
fn to_float_avx2(halves: &mut Halves) {
    let (input, output) =
        (halves.halves.bytes().as_chunks::<16>().0, halves.floats.bytes_mut().as_chunks_mut::<32>().0);
    let factor = _mm256_set1_ps(f32::from_bits((127 + 112) << 23));
    for (input, output) in input.iter().zip(output) {
        // SAFETY: eight numbers each.
        unsafe {
            let half = _mm256_cvtepu16_epi32(_mm_loadu_si128(input.as_ptr().cast()));
            let sign = _mm256_slli_epi32::<16>(_mm256_and_si256(half, _mm256_set1_epi32(0x8000)));
            let rest = _mm256_slli_epi32::<13>(_mm256_and_si256(half, _mm256_set1_epi32(0x7fff)));
            let value = _mm256_mul_ps(_mm256_castsi256_ps(rest), factor);
            _mm256_storeu_ps(output.as_mut_ptr().cast(), _mm256_or_ps(value, _mm256_castsi256_ps(sign)));
        }
    }
}

/// Numbers with fractions, and room for them without.
struct Floats {
    input: Buffer,
    output: Buffer,
}

impl Floats {
    fn new() -> Self {
        let numbers = noise(9).take(NUMBERS).map(|value| (value % 20_000) as f32 / 16.0 - 600.5);
        Self { input: buffer(numbers), output: Buffer::zeroed(4 * NUMBERS) }
    }

    fn bits(&self) -> Vec<u32> {
        bits(&self.output).into_iter().map(|bits| if bits == 1 << 31 { 0 } else { bits }).collect()
    }

    fn reference(&self) -> Vec<u32> {
        let floor = |bits: u32| {
            let value = f32::from_bits(bits);
            let cut = value as i32 as f32;
            (if cut > value { cut - 1.0 } else { cut } + 0.0).to_bits()
        };
        bits(&self.input).into_iter().map(floor).collect()
    }
}

#[target_feature(enable = "sse4.1")]
fn floor_sse41(floats: &mut Floats) {
    let (input, output) = (floats.input.bytes().as_chunks::<16>().0, floats.output.bytes_mut().as_chunks_mut::<16>().0);
    for (input, output) in input.iter().zip(output) {
        // SAFETY: four numbers each.
        unsafe {
            let value = _mm_loadu_ps(input.as_ptr().cast());
            _mm_storeu_ps(output.as_mut_ptr().cast(), _mm_floor_ps(value));
        }
    }
}

/// Right for numbers that an i32 can hold, as these are.
fn floor_sse2(floats: &mut Floats) {
    let (input, output) = (floats.input.bytes().as_chunks::<16>().0, floats.output.bytes_mut().as_chunks_mut::<16>().0);
    for (input, output) in input.iter().zip(output) {
        // SAFETY: four numbers each; SSE2 is part of x86-64.
        unsafe {
            let value = _mm_loadu_ps(input.as_ptr().cast());
            let cut = _mm_cvtepi32_ps(_mm_cvttps_epi32(value));
            let less = _mm_and_ps(_mm_cmpgt_ps(cut, value), _mm_set1_ps(1.0));
            _mm_storeu_ps(output.as_mut_ptr().cast(), _mm_sub_ps(cut, less));
        }
    }
}
