//! From a place in the input to its line, without walking the input for every diagnostic.

use std::cell::OnceCell;

/// Bytes between two counted places: small enough that one diagnostic is cheap, large enough that the index is small.
const STRIDE: usize = 4096;

/// The line numbers of one input. The index is made when the first line is asked for.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    bytes: &'a [u8],
    /// Line feeds before each multiple of [`STRIDE`].
    before: OnceCell<Vec<u32>>,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, before: OnceCell::new() }
    }

    /// The line, counted from 1, in which a byte lies; past the end, the last line.
    pub(crate) fn at(&self, offset: usize) -> u32 {
        let offset = offset.min(self.bytes.len());
        let before = self.before.get_or_init(|| {
            let counts = self.bytes.chunks(STRIDE).scan(0, |total, chunk| {
                let start = *total;
                *total += line_feeds(chunk);
                Some(start)
            });
            counts.collect()
        });
        let chunk = (offset / STRIDE).min(before.len().saturating_sub(1));
        let rest = self.bytes.get(chunk * STRIDE..offset).unwrap_or_default();
        before.get(chunk).copied().unwrap_or(0) + line_feeds(rest) + 1
    }
}

fn line_feeds(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.iter().filter(|&&byte| byte == b'\n').count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_counting() {
        for size in [0, 1, STRIDE - 1, STRIDE, STRIDE + 1, 3 * STRIDE] {
            let bytes: Vec<u8> = (0..size).map(|n| if n % 97 == 0 { b'\n' } else { b'x' }).collect();
            let lines = Lines::new(&bytes);
            for offset in (0..=size + 2).rev().step_by(13) {
                assert_eq!(lines.at(offset), line_feeds(&bytes[..offset.min(size)]) + 1, "{size} {offset}");
            }
        }
    }
}
