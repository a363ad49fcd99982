//! Memory that always begins at a cache line, so that a buffer's place decides as little as possible.

/// A cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Bytes that begin at a cache line, all of them touched.
#[derive(Clone, Debug)]
pub(crate) struct Buffer {
    lines: Vec<Line>,
    length: usize,
}

impl Buffer {
    /// The bytes of a slice.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut buffer = Self::zeroed(bytes.len());
        buffer.bytes_mut().copy_from_slice(bytes);
        buffer
    }

    /// Zeroes, written so that their pages are there.
    pub(crate) fn zeroed(length: usize) -> Self {
        let mut lines = Vec::with_capacity(length.div_ceil(64));
        lines.resize(length.div_ceil(64), Line([0; 64]));
        let mut buffer = Self { lines, length };
        for byte in buffer.bytes_mut().iter_mut().step_by(1024) {
            // The page is touched here and not when the clock runs.
            std::hint::black_box(std::mem::replace(byte, 1));
            *byte = 0;
        }
        buffer
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the lines are plain bytes without gaps, and there are at least `length` of them.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.length) }
    }
}
