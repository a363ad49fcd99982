//! Cache lines sent to memory, as persistent memory and devices need it: CLFLUSHOPT and CLWB.

use std::arch::asm;
use std::arch::x86_64::{_mm_clflush, _mm_mfence, _mm_sfence};

use crate::memory::Buffer;
use crate::work::{Kernel, Unit, Way, Work};

/// Lines that one run writes and sends.
const LINES: usize = 128;

const OPTIMISED: Way = Way { name: "CLFLUSHOPT", needs: &["clflushopt"] };

pub(super) const WORKS: &[Work] = &[
    Work {
        id: "flush-lines",
        feature: "clflushopt",
        title: "lines written and flushed",
        with: OPTIMISED,
        without: Way { name: "CLFLUSH", needs: &["clflush"] },
        unit: Unit::Operations("lines"),
        amount: LINES as u64,
        make: || Kernel::boxed(Lines::new, flush_optimised, flush_plain, Lines::written, Lines::reference),
    },
    Work {
        id: "write-back-lines",
        feature: "clwb",
        title: "lines written back, read again",
        with: Way { name: "CLWB", needs: &["clwb"] },
        without: OPTIMISED,
        unit: Unit::Operations("lines"),
        amount: LINES as u64,
        make: || Kernel::boxed(Lines::new, write_back, flush_and_read, Lines::written, Lines::reference),
    },
];

struct Lines {
    lines: Buffer,
    sum: u64,
}

impl Lines {
    fn new() -> Self {
        Self { lines: Buffer::zeroed(64 * LINES), sum: 0 }
    }

    fn written(&self) -> Vec<u8> {
        self.lines.bytes().to_vec()
    }

    fn reference(&self) -> Vec<u8> {
        (0..64 * LINES).map(|place| u8::from(place % 64 == 0)).collect()
    }

    /// Writes to each line and then sends it.
    #[inline(always)]
    fn send(&mut self, send: impl Fn(*const u8)) {
        for line in self.lines.bytes_mut().as_chunks_mut::<64>().0 {
            line[0] = line[0].wrapping_add(1) | 1;
            send(line.as_ptr());
        }
    }

    #[inline(always)]
    fn read(&mut self) {
        self.sum = self.lines.bytes().as_chunks::<64>().0.iter().map(|line| u64::from(line[0])).sum();
        std::hint::black_box(self.sum);
    }
}

fn optimised(line: *const u8) {
    // SAFETY: the line belongs to a buffer; the instruction changes no byte of it. The ways that come here need it.
    unsafe { asm!("clflushopt [{line}]", line = in(reg) line, options(nostack, preserves_flags)) };
}

fn flush_optimised(lines: &mut Lines) {
    lines.send(optimised);
    // SAFETY: SFENCE is part of SSE, which x86-64 has.
    unsafe { _mm_sfence() };
}

fn flush_plain(lines: &mut Lines) {
    // SAFETY: the line belongs to a buffer; the instruction changes no byte of it.
    lines.send(|line| unsafe { _mm_clflush(line) });
    // SAFETY: SFENCE is part of SSE, which x86-64 has.
    unsafe { _mm_sfence() };
}

fn write_back(lines: &mut Lines) {
    // SAFETY: as in `optimised`.
    lines.send(|line| unsafe { asm!("clwb [{line}]", line = in(reg) line, options(nostack, preserves_flags)) });
    // SAFETY: MFENCE is part of SSE2, which x86-64 has.
    unsafe { _mm_mfence() };
    lines.read();
}

fn flush_and_read(lines: &mut Lines) {
    lines.send(optimised);
    // SAFETY: MFENCE is part of SSE2, which x86-64 has.
    unsafe { _mm_mfence() };
    lines.read();
}
