//! SHA-256 without SHA-NI, as good software does it: AVX2 makes the schedules of two blocks at once, BMI2 the rounds.

use std::arch::asm;
use std::arch::x86_64::*;

use super::{CONSTANTS, INITIAL, Message, added};

/// Four words of the schedule of each of two blocks, from the sixteen before.
#[inline]
#[target_feature(enable = "avx2")]
fn schedule(words: &[__m256i; 16], group: usize) -> __m256i {
    let [first, second, third, last] = [0, 1, 2, 3].map(|before| words[(group + before) & 15]);
    let fifteen = _mm256_alignr_epi8::<4>(second, first);
    let left = _mm256_xor_si256(_mm256_slli_epi32::<25>(fifteen), _mm256_slli_epi32::<14>(fifteen));
    let right = _mm256_xor_si256(_mm256_srli_epi32::<7>(fifteen), _mm256_srli_epi32::<18>(fifteen));
    let zero = _mm256_xor_si256(_mm256_xor_si256(left, right), _mm256_srli_epi32::<3>(fifteen));
    let sum = _mm256_add_epi32(_mm256_add_epi32(first, zero), _mm256_alignr_epi8::<4>(last, third));
    // Two words each lie twice in a quadword, whose shift is then their rotation: first two old ones, then two new ones.
    let one = |twice| {
        let rotated = _mm256_xor_si256(_mm256_srli_epi64::<17>(twice), _mm256_srli_epi64::<19>(twice));
        _mm256_xor_si256(rotated, _mm256_srli_epi32::<10>(twice))
    };
    let low = _mm256_shuffle_epi32::<0x80>(one(_mm256_shuffle_epi32::<0xfa>(last)));
    let sum = _mm256_add_epi32(sum, _mm256_bsrli_epi128::<8>(low));
    let high = _mm256_shuffle_epi32::<0x08>(one(_mm256_shuffle_epi32::<0x50>(sum)));
    _mm256_add_epi32(sum, _mm256_bslli_epi128::<8>(high))
}

/// Four words of each of two blocks.
#[inline]
#[target_feature(enable = "avx2")]
fn first_words(blocks: &[u8; 128], group: usize) -> __m256i {
    let big_endian = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    let [first, second] = [16 * group, 16 * group + 64].map(|place| blocks[place..place + 16].as_ptr());
    // SAFETY: sixteen bytes of each block.
    let (first, second) = unsafe { (_mm_loadu_si128(first.cast()), _mm_loadu_si128(second.cast())) };
    let both = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(first), second);
    _mm256_shuffle_epi8(both, _mm256_broadcastsi128_si256(big_endian))
}

/// Adds the constants of four rounds.
#[inline]
#[target_feature(enable = "avx2")]
fn store_inputs(inputs: &mut [u32; 8], words: __m256i, group: usize) {
    let constants = CONSTANTS.0.as_chunks::<4>().0[group].as_ptr();
    // SAFETY: four constants, and place for eight inputs.
    unsafe {
        let constants = _mm256_broadcastsi128_si256(_mm_loadu_si128(constants.cast()));
        _mm256_storeu_si256(inputs.as_mut_ptr().cast(), _mm256_add_epi32(words, constants));
    }
}

/// One round as text for the assembler: compilers move words through memory, for want of registers, and lose a third.
/// `$x` holds what is different between the two words before `$c`, and then between `$a` and `$b`.
macro_rules! round_text {
    ($a:literal $b:literal $c:literal $d:literal $e:literal $f:literal $g:literal $h:literal, $x:literal $t:literal, $place:literal) => {
        concat!(
            "add {",
            $h,
            ":e}, dword ptr [{inputs} + ",
            $place,
            "]\n",
            "andn {",
            $t,
            ":e}, {",
            $e,
            ":e}, {",
            $g,
            ":e}\n",
            "rorx {u:e}, {",
            $e,
            ":e}, 25\n",
            "add {",
            $h,
            ":e}, {",
            $t,
            ":e}\n",
            "rorx {",
            $t,
            ":e}, {",
            $e,
            ":e}, 11\n",
            "xor {u:e}, {",
            $t,
            ":e}\n",
            "mov {",
            $t,
            ":e}, {",
            $e,
            ":e}\n",
            "and {",
            $t,
            ":e}, {",
            $f,
            ":e}\n",
            "add {",
            $h,
            ":e}, {",
            $t,
            ":e}\n",
            "rorx {",
            $t,
            ":e}, {",
            $e,
            ":e}, 6\n",
            "xor {u:e}, {",
            $t,
            ":e}\n",
            "add {",
            $h,
            ":e}, {u:e}\n",
            "add {",
            $d,
            ":e}, {",
            $h,
            ":e}\n",
            "rorx {u:e}, {",
            $a,
            ":e}, 22\n",
            "rorx {",
            $t,
            ":e}, {",
            $a,
            ":e}, 13\n",
            "xor {u:e}, {",
            $t,
            ":e}\n",
            "rorx {",
            $t,
            ":e}, {",
            $a,
            ":e}, 2\n",
            "xor {u:e}, {",
            $t,
            ":e}\n",
            "add {",
            $h,
            ":e}, {u:e}\n",
            "mov {",
            $t,
            ":e}, {",
            $a,
            ":e}\n",
            "xor {",
            $t,
            ":e}, {",
            $b,
            ":e}\n",
            "and {",
            $x,
            ":e}, {",
            $t,
            ":e}\n",
            "xor {",
            $x,
            ":e}, {",
            $b,
            ":e}\n",
            "add {",
            $h,
            ":e}, {",
            $x,
            ":e}\n",
        )
    };
}

/// Eight rounds of one of two blocks.
#[inline]
#[target_feature(enable = "bmi1,bmi2")]
fn eight_bmi(state: [u32; 8], inputs: &[[u32; 8]; 2], block: usize) -> [u32; 8] {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = state;
    // SAFETY: reads four words of each of the two rows of inputs, from the block's half on, and changes the registers that
    // are declared.
    unsafe {
        asm!(
            round_text!("a" "b" "c" "d" "e" "f" "g" "h", "x" "t", "0"),
            round_text!("h" "a" "b" "c" "d" "e" "f" "g", "t" "x", "4"),
            round_text!("g" "h" "a" "b" "c" "d" "e" "f", "x" "t", "8"),
            round_text!("f" "g" "h" "a" "b" "c" "d" "e", "t" "x", "12"),
            round_text!("e" "f" "g" "h" "a" "b" "c" "d", "x" "t", "32"),
            round_text!("d" "e" "f" "g" "h" "a" "b" "c", "t" "x", "36"),
            round_text!("c" "d" "e" "f" "g" "h" "a" "b", "x" "t", "40"),
            round_text!("b" "c" "d" "e" "f" "g" "h" "a", "t" "x", "44"),
            a = inout(reg) a,
            b = inout(reg) b,
            c = inout(reg) c,
            d = inout(reg) d,
            e = inout(reg) e,
            f = inout(reg) f,
            g = inout(reg) g,
            h = inout(reg) h,
            x = inout(reg) b ^ c => _,
            t = out(reg) _,
            u = out(reg) _,
            inputs = in(reg) inputs.as_flattened().as_ptr().wrapping_add(4 * (block & 1)),
            options(nostack, readonly),
        );
    }
    [a, b, c, d, e, f, g, h]
}

/// With the schedules of two blocks in the two halves of registers, and rotations that write to another register.
#[target_feature(enable = "avx2,bmi1,bmi2")]
pub(super) fn hash_avx2(message: &mut Message) {
    let mut state = INITIAL;
    for blocks in message.blocks.bytes().as_chunks::<128>().0 {
        let mut words = [_mm256_setzero_si256(); 16];
        let mut inputs = [[0_u32; 8]; 16];
        for group in 0..4 {
            words[group] = first_words(blocks, group);
            store_inputs(&mut inputs[group], words[group], group);
        }
        let mut before = state;
        for step in 0..8 {
            // What comes 16 rounds later is made ready meanwhile: rounds wait for each other, and leave room beside them.
            for group in 2 * step + 4..(2 * step + 6).min(16) {
                words[group] = schedule(&words, group - 4);
                store_inputs(&mut inputs[group], words[group], group);
            }
            state = eight_bmi(state, &inputs.as_chunks().0[step], 0);
        }
        state = added(before, state);
        before = state;
        for inputs in inputs.as_chunks::<2>().0 {
            state = eight_bmi(state, inputs, 1);
        }
        state = added(before, state);
    }
    message.state = state;
}
