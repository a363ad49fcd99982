//! CBC, counter, XTS and GCM modes over any cipher of blocks in SSE registers.
//!
//! These are inlined into the ways, which carry the features, and use SSE2 alone themselves.

use std::arch::x86_64::*;

use super::reference::Block;
use super::{GROUP, Text};

/// A block in a register.
#[inline(always)]
pub(super) fn load(block: &Block) -> __m128i {
    // SAFETY: the block is sixteen bytes; SSE2 is part of x86-64.
    unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
}

/// A register as a block.
#[inline(always)]
pub(super) fn store(block: &mut Block, value: __m128i) {
    // SAFETY: as above.
    unsafe { _mm_storeu_si128(block.as_mut_ptr().cast(), value) }
}

/// The exclusive or.
#[inline(always)]
pub(super) fn add(a: __m128i, b: __m128i) -> __m128i {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { _mm_xor_si128(a, b) }
}

/// A group of blocks in registers.
#[inline(always)]
fn load_group(group: &[u8; 16 * GROUP]) -> [__m128i; GROUP] {
    let (blocks, _) = group.as_chunks();
    std::array::from_fn(|index| load(&blocks[index]))
}

#[inline(always)]
fn store_group(group: &mut [u8; 16 * GROUP], values: [__m128i; GROUP]) {
    let (blocks, _) = group.as_chunks_mut();
    for (block, value) in blocks.iter_mut().zip(values) {
        store(block, value);
    }
}

/// Encrypts in CBC mode: each block waits for the one before.
#[inline(always)]
pub(super) fn cbc_encrypt(text: &mut Text, cipher: impl Fn([__m128i; 1]) -> [__m128i; 1]) {
    let mut last = load(&text.iv);
    let (blocks, outputs) = (text.input.bytes().as_chunks().0, text.output.bytes_mut().as_chunks_mut().0);
    for (block, output) in blocks.iter().zip(outputs) {
        [last] = cipher([add(last, load(block))]);
        store(output, last);
    }
}

/// Decrypts in CBC mode: blocks side by side.
#[inline(always)]
pub(super) fn cbc_decrypt(text: &mut Text, cipher: impl Fn([__m128i; GROUP]) -> [__m128i; GROUP]) {
    let mut last = load(&text.iv);
    let (groups, outputs) = (text.input.bytes().as_chunks().0, text.output.bytes_mut().as_chunks_mut().0);
    for (group, output) in groups.iter().zip(outputs) {
        let blocks = load_group(group);
        let mut plain = cipher(blocks);
        for (plain, block) in plain.iter_mut().zip(blocks) {
            *plain = add(*plain, last);
            last = block;
        }
        store_group(output, plain);
    }
}

/// Counter blocks, one after the other: the first twelve bytes stand, the last four count, big end first.
pub(super) struct Counter {
    fixed: __m128i,
    count: u32,
}

impl Counter {
    #[inline(always)]
    pub(super) fn new(first: &Block) -> Self {
        let mut fixed = *first;
        let mut count = [0; 4];
        count.copy_from_slice(&fixed[12..]);
        fixed[12..].fill(0);
        Self { fixed: load(&fixed), count: u32::from_be_bytes(count) }
    }

    #[inline(always)]
    pub(super) fn next(&mut self) -> __m128i {
        let count = self.count.swap_bytes().cast_signed();
        self.count = self.count.wrapping_add(1);
        // SAFETY: SSE2 is part of x86-64.
        add(self.fixed, unsafe { _mm_slli_si128::<12>(_mm_cvtsi32_si128(count)) })
    }
}

/// Encrypts in counter mode.
#[inline(always)]
pub(super) fn ctr(text: &mut Text, cipher: impl Fn([__m128i; GROUP]) -> [__m128i; GROUP]) {
    let mut counter = Counter::new(&text.second);
    let (groups, outputs) = (text.input.bytes().as_chunks().0, text.output.bytes_mut().as_chunks_mut().0);
    for (group, output) in groups.iter().zip(outputs) {
        let stream = cipher(std::array::from_fn(|_| counter.next()));
        let blocks = load_group(group);
        store_group(output, std::array::from_fn(|index| add(blocks[index], stream[index])));
    }
}

/// The next tweak: multiplied by x, where x^128 is x^7 + x^2 + x + 1.
#[inline(always)]
pub(super) fn next_tweak(tweak: __m128i) -> __m128i {
    // SAFETY: SSE2 is part of x86-64.
    unsafe {
        let signs = _mm_srai_epi32::<31>(_mm_shuffle_epi32::<0b01_01_00_11>(tweak));
        add(_mm_add_epi64(tweak, tweak), _mm_and_si128(signs, _mm_set_epi32(0, 1, 0, 0x87)))
    }
}

/// Encrypts sectors in XTS mode.
#[inline(always)]
pub(super) fn xts(
    text: &mut Text,
    sector: usize,
    tweaks: impl Fn([__m128i; 1]) -> [__m128i; 1],
    cipher: impl Fn([__m128i; GROUP]) -> [__m128i; GROUP],
) {
    let sectors = text.input.bytes().chunks_exact(sector).zip(text.output.bytes_mut().chunks_exact_mut(sector));
    for (number, (input, output)) in sectors.enumerate() {
        let [mut tweak] = tweaks([load(&(number as u128).to_le_bytes())]);
        for (group, output) in input.as_chunks().0.iter().zip(output.as_chunks_mut().0) {
            let masks: [__m128i; GROUP] = std::array::from_fn(|_| {
                let mask = tweak;
                tweak = next_tweak(tweak);
                mask
            });
            let blocks = load_group(group);
            let blocks = cipher(std::array::from_fn(|index| add(blocks[index], masks[index])));
            store_group(output, std::array::from_fn(|index| add(blocks[index], masks[index])));
        }
    }
}

/// Encrypts in counter mode, hashes the ciphertext group by group with `hash`, and leaves the tag.
///
/// `hash` gets what was hashed so far and a group; `finish` gets it with the block of lengths, and gives the hash.
#[inline(always)]
pub(super) fn gcm<A: Copy + Default>(
    text: &mut Text,
    cipher: impl Fn([__m128i; GROUP]) -> [__m128i; GROUP],
    hash: impl Fn(A, &[Block; GROUP]) -> A,
    finish: impl Fn(A, &Block) -> Block,
) {
    let mut counter = Counter::new(&text.second);
    let mut hashed = A::default();
    let (groups, outputs) = (text.input.bytes().as_chunks().0, text.output.bytes_mut().as_chunks_mut().0);
    for (group, output) in groups.iter().zip(outputs) {
        let stream = cipher(std::array::from_fn(|_| counter.next()));
        let blocks = load_group(group);
        store_group(output, std::array::from_fn(|index| add(blocks[index], stream[index])));
        if let Some(blocks) = output.as_chunks().0.first_chunk() {
            hashed = hash(hashed, blocks);
        }
    }
    let lengths = (text.input.bytes().len() as u128 * 8).to_be_bytes();
    store(&mut text.tag, add(load(&finish(hashed, &lengths)), load(&text.mask)));
}
