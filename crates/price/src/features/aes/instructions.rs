//! AES with the CPU's own instructions: AES-NI on one block a register, VAES on two.

use std::arch::x86_64::*;
use std::hint::black_box;

use super::ghash::{Powers, finish, hash, reduce};
use super::modes::{self, Counter, load, store};
use super::reference::{ROUNDS, RoundKeys};
use super::{GROUP, Text};

/// Round keys, aligned so that instructions can take them from memory.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Keys(pub(super) RoundKeys);

/// Encrypts some blocks side by side.
#[inline]
#[target_feature(enable = "aes")]
pub(super) fn encrypt<const N: usize>(keys: &Keys, mut blocks: [__m128i; N]) -> [__m128i; N] {
    // Else the keys' registers are loaded before the loop over the text, are too many, and spill.
    let keys = black_box(keys);
    // Loops and no `map`: a closure keeps the feature, the library function that calls it lacks it and is not inlined.
    for block in &mut blocks {
        *block = modes::add(*block, load(&keys.0[0]));
    }
    for key in &keys.0[1..ROUNDS] {
        for block in &mut blocks {
            *block = _mm_aesenc_si128(*block, load(key));
        }
    }
    for block in &mut blocks {
        *block = _mm_aesenclast_si128(*block, load(&keys.0[ROUNDS]));
    }
    blocks
}

/// Decrypts some blocks side by side; the keys are those of the equivalent inverse cipher.
#[inline]
#[target_feature(enable = "aes")]
pub(super) fn decrypt<const N: usize>(keys: &Keys, mut blocks: [__m128i; N]) -> [__m128i; N] {
    // Else the keys' registers are loaded before the loop over the text, are too many, and spill.
    let keys = black_box(keys);
    // Loops and no `map`: a closure keeps the feature, the library function that calls it lacks it and is not inlined.
    for block in &mut blocks {
        *block = modes::add(*block, load(&keys.0[0]));
    }
    for key in &keys.0[1..ROUNDS] {
        for block in &mut blocks {
            *block = _mm_aesdec_si128(*block, load(key));
        }
    }
    for block in &mut blocks {
        *block = _mm_aesdeclast_si128(*block, load(&keys.0[ROUNDS]));
    }
    blocks
}

/// Registers of two blocks that are worked on side by side.
const WIDE: usize = 8;

/// Encrypts 16 blocks side by side, two a register.
#[inline]
#[target_feature(enable = "avx2,vaes")]
fn encrypt_wide(keys: &Keys, mut blocks: [__m256i; WIDE]) -> [__m256i; WIDE] {
    for (round, key) in keys.0.iter().enumerate() {
        let key = _mm256_broadcastsi128_si256(load(key));
        for block in &mut blocks {
            *block = match round {
                0 => _mm256_xor_si256(*block, key),
                ROUNDS => _mm256_aesenclast_epi128(*block, key),
                _ => _mm256_aesenc_epi128(*block, key),
            };
        }
    }
    blocks
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_wide(blocks: &[u8; 32 * WIDE]) -> [__m256i; WIDE] {
    let mut loaded = [_mm256_setzero_si256(); WIDE];
    for (loaded, block) in loaded.iter_mut().zip(blocks.as_chunks::<32>().0) {
        // SAFETY: each is 32 bytes.
        *loaded = unsafe { _mm256_loadu_si256(block.as_ptr().cast()) };
    }
    loaded
}

/// Encrypts one group of 16 blocks in counter mode.
#[inline]
#[target_feature(enable = "avx2,vaes")]
fn ctr_wide(keys: &Keys, counter: &mut Counter, input: &[u8; 32 * WIDE], output: &mut [u8; 32 * WIDE]) {
    let mut counters = [_mm256_setzero_si256(); WIDE];
    for counters in &mut counters {
        let low = counter.next();
        *counters = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), counter.next());
    }
    let stream = encrypt_wide(keys, counters);
    let blocks = load_wide(input);
    for ((output, block), stream) in output.as_chunks_mut::<32>().0.iter_mut().zip(blocks).zip(stream) {
        // SAFETY: each is 32 bytes.
        unsafe { _mm256_storeu_si256(output.as_mut_ptr().cast(), _mm256_xor_si256(block, stream)) };
    }
}

/// Encrypts in counter mode, 16 blocks side by side.
#[target_feature(enable = "avx2,vaes")]
pub(super) fn ctr_vaes(text: &mut Text) {
    let mut counter = Counter::new(&text.second);
    let (groups, outputs) = (text.input.bytes().as_chunks().0, text.output.bytes_mut().as_chunks_mut().0);
    for (group, output) in groups.iter().zip(outputs) {
        ctr_wide(&text.keys, &mut counter, group, output);
    }
}

/// Hashes 8 blocks, two a register.
#[inline]
#[target_feature(enable = "avx2,vpclmulqdq,pclmulqdq")]
fn hash_wide(powers: &Powers, hashed: __m128i, blocks: &[u8; 128]) -> __m128i {
    let reverse = _mm256_broadcastsi128_si256(_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    let mut sums = [_mm256_setzero_si256(); 3];
    let mut carried = _mm256_zextsi128_si256(hashed);
    let (blocks, _) = blocks.as_chunks::<32>();
    let powers = powers.blocks().as_flattened().as_chunks::<32>().0;
    for (block, power) in blocks.iter().zip(powers) {
        // SAFETY: both are 32 bytes.
        let (block, power) =
            unsafe { (_mm256_loadu_si256(block.as_ptr().cast()), _mm256_loadu_si256(power.as_ptr().cast())) };
        let block = _mm256_xor_si256(_mm256_shuffle_epi8(block, reverse), carried);
        carried = _mm256_setzero_si256();
        let halves = |value| _mm256_xor_si256(value, _mm256_shuffle_epi32::<0b01_00_11_10>(value));
        sums[0] = _mm256_xor_si256(sums[0], _mm256_clmulepi64_epi128::<0x00>(block, power));
        sums[1] = _mm256_xor_si256(sums[1], _mm256_clmulepi64_epi128::<0x11>(block, power));
        sums[2] = _mm256_xor_si256(sums[2], _mm256_clmulepi64_epi128::<0x00>(halves(block), halves(power)));
    }
    let mut folded = [_mm_setzero_si128(); 3];
    for (folded, sum) in folded.iter_mut().zip(sums) {
        *folded = modes::add(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    }
    let [low, high, middle] = folded;
    let middle = modes::add(middle, modes::add(low, high));
    reduce(modes::add(low, _mm_slli_si128::<8>(middle)), modes::add(high, _mm_srli_si128::<8>(middle)))
}

/// Encrypts and authenticates in GCM, 16 blocks side by side.
#[target_feature(enable = "avx2,vaes,vpclmulqdq,pclmulqdq")]
pub(super) fn gcm_vaes(text: &mut Text) {
    let powers = text.powers;
    gcm(text, |hashed, half| hash_wide(&powers, hashed, half));
}

/// The same, but hashed one block a register.
#[target_feature(enable = "avx2,vaes,pclmulqdq")]
pub(super) fn gcm_vaes_narrow(text: &mut Text) {
    let powers = text.powers;
    gcm(text, |hashed, half| match half.as_chunks().0.first_chunk() {
        Some(blocks) => hash::<GROUP>(&powers, hashed, blocks),
        None => hashed,
    });
}

#[inline]
#[target_feature(enable = "avx2,vaes,pclmulqdq")]
fn gcm(text: &mut Text, hash: impl Fn(__m128i, &[u8; 16 * GROUP]) -> __m128i) {
    let mut counter = Counter::new(&text.second);
    let mut hashed = _mm_setzero_si128();
    let (groups, outputs) = (text.input.bytes().as_chunks().0, text.output.bytes_mut().as_chunks_mut().0);
    for (group, output) in groups.iter().zip(outputs) {
        ctr_wide(&text.keys, &mut counter, group, output);
        for half in output.as_chunks().0 {
            hashed = hash(hashed, half);
        }
    }
    let lengths = (text.input.bytes().len() as u128 * 8).to_be_bytes();
    let tag = finish(&text.powers, hashed, &lengths);
    store(&mut text.tag, modes::add(load(&tag), load(&text.mask)));
}
