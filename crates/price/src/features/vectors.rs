//! Arithmetic on vectors: AVX, AVX2, FMA, F16C, AVX-512, VNNI, BF16, SSE4.1, SSSE3.
//!
//! All numbers are small whole ones, also the floating-point ones: sums are exact whatever the order of additions, so every
//! way must give the reference's result to the bit.

mod bytes;
mod floats;

use crate::work::{Unit, Way, Work};

pub(super) use bytes::WORKS as BYTES;
pub(super) use floats::WORKS as FLOATS;

const AVX2: Way = Way { name: "AVX2", needs: &["avx2"] };
const AVX512: Way = Way { name: "AVX-512", needs: &["avx512f", "avx512bw"] };

/// A row whose ways are filled in by the tables.
const fn row(
    (id, feature, title): (&'static str, &'static str, &'static str),
    with: Way,
    without: Way,
    (unit, amount): (Unit, u64),
    make: unsafe fn() -> Result<Box<dyn crate::work::Pair>, crate::work::Refused>,
) -> Work {
    Work { id, feature, title, with, without, unit, amount, make }
}
