//! Copies: ERMS and FSRM say that REP MOVSB is fast, for long and for short copies; MOVDIR64B writes a line past the cache.

use std::arch::asm;
use std::arch::x86_64::*;

use crate::memory::Buffer;
use crate::work::{Kernel, Pair, Refused, Unit, Way, Work, noise, noise_bytes};

/// The longest of the short copies.
const SHORT: usize = 128;

/// How many short copies one run does.
const COPIES: usize = 256;

const LOOP: Way = Way { name: "AVX loads and stores", needs: &["avx"] };

const fn work(
    (id, feature, title): (&'static str, &'static str, &'static str),
    with: Way,
    (unit, amount): (Unit, u64),
    make: unsafe fn() -> Result<Box<dyn Pair>, Refused>,
) -> Work {
    Work { id, feature, title, with, without: LOOP, unit, amount, make }
}

const fn long<const SIZE: usize>(id: &'static str, title: &'static str) -> Work {
    let with = Way { name: "REP MOVSB", needs: &["erms"] };
    work((id, "erms", title), with, (Unit::Bytes, SIZE as u64), || {
        Kernel::boxed(Copies::long::<SIZE>, copy_rep, copy_avx, Copies::copied, Copies::reference)
    })
}

pub(super) const WORKS: &[Work] = &[
    work(
        ("copy-short", "fsrm", "copies of 1 to 128 bytes"),
        Way { name: "REP MOVSB", needs: &["fsrm"] },
        (Unit::Operations("copies"), COPIES as u64),
        || Kernel::boxed(Copies::short, copy_rep, copy_avx, Copies::copied, Copies::reference),
    ),
    long::<512>("copy-512", "copies of 512 bytes"),
    long::<4096>("copy-4k", "copies of 4 KiB"),
    long::<65_536>("copy-64k", "copies of 64 KiB"),
    long::<1_048_576>("copy-1m", "copies of 1 MiB"),
    Work {
        without: Way { name: "AVX stores past the cache", needs: &["avx"] },
        ..work(
            ("direct-store", "movdir64b", "64 KiB past the cache"),
            Way { name: "MOVDIR64B", needs: &["movdir64b"] },
            (Unit::Bytes, 65_536),
            || Kernel::boxed(Copies::long::<65_536>, copy_direct, copy_stream, Copies::copied, Copies::reference),
        )
    },
];

/// What is copied where. Each copy is a place and a length, the same in both buffers.
struct Copies {
    from: Buffer,
    to: Buffer,
    copies: Vec<(usize, usize)>,
}

impl Copies {
    fn long<const SIZE: usize>() -> Self {
        Self { from: Buffer::of(&noise_bytes(18, SIZE)), to: Buffer::zeroed(SIZE), copies: vec![(0, SIZE)] }
    }

    fn short() -> Self {
        let lengths = noise(19).map(|value| value as usize % SHORT + 1);
        let copies = lengths.take(COPIES).enumerate().map(|(index, length)| (index % 32 * SHORT, length)).collect();
        Self { from: Buffer::of(&noise_bytes(20, 32 * SHORT)), to: Buffer::zeroed(32 * SHORT), copies }
    }

    fn copied(&self) -> Vec<u8> {
        self.to.bytes().to_vec()
    }

    fn reference(&self) -> Vec<u8> {
        let mut to = vec![0; self.to.bytes().len()];
        for (place, length) in &self.copies {
            for (to, from) in to.iter_mut().zip(self.from.bytes()).skip(*place).take(*length) {
                *to = *from;
            }
        }
        to
    }
}

fn copy_rep(copies: &mut Copies) {
    let (from, to) = (copies.from.bytes(), copies.to.bytes_mut());
    for &(place, length) in &copies.copies {
        let (Some(from), Some(to)) = (from.get(place..place + length), to.get_mut(place..place + length)) else {
            continue;
        };
        // SAFETY: both are `length` bytes and do not overlap; the direction flag is clear, as the ABI demands.
        unsafe {
            asm!(
                "rep movsb",
                inout("rcx") length => _,
                inout("rsi") from.as_ptr() => _,
                inout("rdi") to.as_mut_ptr() => _,
                options(nostack, preserves_flags),
            );
        }
    }
}

/// As C libraries do: two registers that overlap where they suffice, else a loop and a last part that overlaps it.
#[target_feature(enable = "avx")]
fn copy_avx(copies: &mut Copies) {
    let (from, to) = (copies.from.bytes(), copies.to.bytes_mut());
    for &(place, length) in &copies.copies {
        let (Some(from), Some(to)) = (from.get(place..place + length), to.get_mut(place..place + length)) else {
            continue;
        };
        let (from, to) = (from.as_ptr(), to.as_mut_ptr());
        // SAFETY: every register begins and ends within the `length` bytes of both.
        unsafe {
            match length {
                0 => {}
                1 => *to = *from,
                2..4 => overlapping::<u16>(from, to, length),
                4..8 => overlapping::<u32>(from, to, length),
                8..16 => overlapping::<u64>(from, to, length),
                16..32 => overlapping::<__m128i>(from, to, length),
                32..65 => overlapping::<__m256i>(from, to, length),
                _ => {
                    let last = length - 32;
                    let end = _mm256_loadu_si256(from.add(last).cast());
                    let mut at = 0;
                    while at + 128 <= length {
                        let some: [__m256i; 4] = from.add(at).cast::<[__m256i; 4]>().read_unaligned();
                        to.add(at).cast::<[__m256i; 4]>().write_unaligned(some);
                        at += 128;
                    }
                    while at < last {
                        _mm256_storeu_si256(to.add(at).cast(), _mm256_loadu_si256(from.add(at).cast()));
                        at += 32;
                    }
                    _mm256_storeu_si256(to.add(last).cast(), end);
                }
            }
        }
    }
}

/// Copies with two moves that may overlap.
///
/// # Safety
///
/// Both places hold `length` bytes, at least as many as a `T` has and at most twice as many.
#[inline(always)]
unsafe fn overlapping<T: Copy>(from: *const u8, to: *mut u8, length: usize) {
    let last = length - size_of::<T>();
    // SAFETY: by the contract, both moves lie within the `length` bytes.
    unsafe {
        let (first, second) = (from.cast::<T>().read_unaligned(), from.add(last).cast::<T>().read_unaligned());
        to.cast::<T>().write_unaligned(first);
        to.add(last).cast::<T>().write_unaligned(second);
    }
}

/// The feature must be there; the name of the instruction is all that the assembler knows of it.
fn copy_direct(copies: &mut Copies) {
    let (from, to) = (copies.from.bytes().as_chunks::<64>().0, copies.to.bytes_mut().as_chunks_mut::<64>().0);
    for (from, to) in from.iter().zip(to) {
        // SAFETY: 64 bytes each, and a buffer's lines are aligned to 64 bytes.
        unsafe {
            asm!("movdir64b {to}, [{from}]", to = in(reg) to.as_mut_ptr(), from = in(reg) from.as_ptr(), options(nostack));
        }
    }
    // SAFETY: SFENCE is part of SSE, which x86-64 has.
    unsafe { _mm_sfence() };
}

#[target_feature(enable = "avx")]
fn copy_stream(copies: &mut Copies) {
    let (from, to) = (copies.from.bytes().as_chunks::<32>().0, copies.to.bytes_mut().as_chunks_mut::<32>().0);
    for (from, to) in from.iter().zip(to) {
        // SAFETY: 32 bytes each, and a buffer's lines are aligned to 64 bytes.
        unsafe { _mm256_stream_si256(to.as_mut_ptr().cast(), _mm256_loadu_si256(from.as_ptr().cast())) };
    }
    _mm_sfence();
}
