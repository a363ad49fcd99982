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

/// Rows and columns of matrices of four-byte elements: three of 16 KiB.
const SIDE: usize = 64;

/// Four rows by two registers of the product at a time, so that the additions do not wait for each other.
macro_rules! multiply {
    ($name:ident, $features:literal, $element:ty, $lanes:literal, $zero:ident, $load:ident, $spread:ident, $store:ident, $step:expr) => {
        #[target_feature(enable = $features)]
        fn $name(matrices: &mut Matrices) {
            let [a, b, product] = matrices.pointers().map(|pointer| pointer.cast::<$element>());
            for row in (0..SIDE).step_by(4) {
                for column in (0..SIDE).step_by(2 * $lanes) {
                    let mut sums = [[$zero(); 2]; 4];
                    for step in 0..SIDE {
                        // SAFETY: `row` + 3, `step` and the registers' columns lie within the matrices, and an element is four bytes.
                        unsafe {
                            let first = $load(b.add(step * SIDE + column).cast());
                            let second = $load(b.add(step * SIDE + column + $lanes).cast());
                            for (below, sums) in sums.iter_mut().enumerate() {
                                let factor = $spread(*a.add((row + below) * SIDE + step));
                                sums[0] = $step(factor, first, sums[0]);
                                sums[1] = $step(factor, second, sums[1]);
                            }
                        }
                    }
                    for (below, [first, second]) in sums.into_iter().enumerate() {
                        // SAFETY: as above.
                        unsafe {
                            let place = product.add((row + below) * SIDE + column);
                            $store(place.cast(), first);
                            $store(place.add($lanes).cast(), second);
                        }
                    }
                }
            }
        }
    };
}

use multiply;

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
