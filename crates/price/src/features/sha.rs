//! SHA-256: SHA-NI. Source: FIPS 180-4.

mod bmi;

use std::arch::x86_64::*;

use crate::memory::Buffer;
use crate::work::{Kernel, Unit, Way, Work, noise_bytes};

/// The bytes of one run.
const LENGTH: usize = 16 * 1024;

pub(super) const WORKS: &[Work] = &[Work {
    id: "sha-256",
    feature: "sha_ni",
    title: "SHA-256",
    with: Way { name: "SHA-NI", needs: &["sha_ni", "ssse3", "sse4_1"] },
    without: Way { name: "32-bit words, schedule by AVX2 where it is", needs: &[] },
    unit: Unit::Bytes,
    amount: LENGTH as u64,
    make: || Kernel::boxed(Message::new, hash_ni, hash_words, |message| message.state, Message::reference),
}];

/// The fractional parts of the cube roots of the first 64 primes, 32 bits of each.
const CONSTANTS: Constants = Constants([
    0x428a_2f98,
    0x7137_4491,
    0xb5c0_fbcf,
    0xe9b5_dba5,
    0x3956_c25b,
    0x59f1_11f1,
    0x923f_82a4,
    0xab1c_5ed5,
    0xd807_aa98,
    0x1283_5b01,
    0x2431_85be,
    0x550c_7dc3,
    0x72be_5d74,
    0x80de_b1fe,
    0x9bdc_06a7,
    0xc19b_f174,
    0xe49b_69c1,
    0xefbe_4786,
    0x0fc1_9dc6,
    0x240c_a1cc,
    0x2de9_2c6f,
    0x4a74_84aa,
    0x5cb0_a9dc,
    0x76f9_88da,
    0x983e_5152,
    0xa831_c66d,
    0xb003_27c8,
    0xbf59_7fc7,
    0xc6e0_0bf3,
    0xd5a7_9147,
    0x06ca_6351,
    0x1429_2967,
    0x27b7_0a85,
    0x2e1b_2138,
    0x4d2c_6dfc,
    0x5338_0d13,
    0x650a_7354,
    0x766a_0abb,
    0x81c2_c92e,
    0x9272_2c85,
    0xa2bf_e8a1,
    0xa81a_664b,
    0xc24b_8b70,
    0xc76c_51a3,
    0xd192_e819,
    0xd699_0624,
    0xf40e_3585,
    0x106a_a070,
    0x19a4_c116,
    0x1e37_6c08,
    0x2748_774c,
    0x34b0_bcb5,
    0x391c_0cb3,
    0x4ed8_aa4a,
    0x5b9c_ca4f,
    0x682e_6ff3,
    0x748f_82ee,
    0x78a5_636f,
    0x84c8_7814,
    0x8cc7_0208,
    0x90be_fffa,
    0xa450_6ceb,
    0xbef9_a3f7,
    0xc671_78f2,
]);

#[repr(C, align(64))]
struct Constants([u32; 64]);

/// The fractional parts of the square roots of the first eight primes.
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// Whole blocks of a message, and the state after them. Padding is not part of the work.
struct Message {
    blocks: Buffer,
    state: [u32; 8],
}

impl Message {
    fn new() -> Self {
        Self { blocks: Buffer::of(&noise_bytes(3, LENGTH)), state: [0; 8] }
    }

    /// As the standard writes it, a word after the other.
    fn reference(&self) -> [u32; 8] {
        self.blocks.bytes().as_chunks().0.iter().fold(INITIAL, compress_plainly)
    }
}

fn compress_plainly(state: [u32; 8], block: &[u8; 64]) -> [u32; 8] {
    let mut words: Vec<u32> = block.as_chunks().0.iter().map(|word| u32::from_be_bytes(*word)).collect();
    for t in 16..64 {
        let (two, fifteen) = (words[t - 2], words[t - 15]);
        let one = two.rotate_right(17) ^ two.rotate_right(19) ^ two >> 10;
        let zero = fifteen.rotate_right(7) ^ fifteen.rotate_right(18) ^ fifteen >> 3;
        words.push(one.wrapping_add(words[t - 7]).wrapping_add(zero).wrapping_add(words[t - 16]));
    }
    let mut now = state;
    for (word, constant) in words.iter().zip(CONSTANTS.0) {
        now = round(now, word.wrapping_add(constant));
    }
    std::array::from_fn(|index| state[index].wrapping_add(now[index]))
}

#[inline(always)]
fn round([a, b, c, d, e, f, g, h]: [u32; 8], input: u32) -> [u32; 8] {
    let big = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
    let first = h.wrapping_add(big).wrapping_add(g ^ (e & (f ^ g))).wrapping_add(input);
    let big = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
    let second = big.wrapping_add((a & b) | (c & (a | b)));
    [first.wrapping_add(second), a, b, c, d.wrapping_add(first), e, f, g]
}

/// The word of the schedule at `t`, which takes the place of the one sixteen before.
#[inline(always)]
fn scheduled(ring: &mut [u32; 16], t: usize, first: bool) -> u32 {
    if !first {
        let (two, fifteen) = (ring[(t + 14) & 15], ring[(t + 1) & 15]);
        let one = two.rotate_right(17) ^ two.rotate_right(19) ^ two >> 10;
        let zero = fifteen.rotate_right(7) ^ fifteen.rotate_right(18) ^ fifteen >> 3;
        ring[t] = ring[t].wrapping_add(one).wrapping_add(zero).wrapping_add(ring[(t + 9) & 15]);
    }
    ring[t]
}

/// One round in which no word moves: the next round names them otherwise.
macro_rules! round {
    ($a:ident $b:ident $c:ident $d:ident $e:ident $f:ident $g:ident $h:ident, $input:expr) => {
        let big = $e.rotate_right(6) ^ $e.rotate_right(11) ^ $e.rotate_right(25);
        $h = $h.wrapping_add($input).wrapping_add($g ^ ($e & ($f ^ $g))).wrapping_add(big);
        $d = $d.wrapping_add($h);
        let big = $a.rotate_right(2) ^ $a.rotate_right(13) ^ $a.rotate_right(22);
        $h = $h.wrapping_add(big).wrapping_add(($a & $b).wrapping_add($c & ($a ^ $b)));
    };
}

/// Sixteen rounds, whose inputs are words of the schedule with their constants added.
#[inline(always)]
fn sixteen(state: [u32; 8], mut input: impl FnMut(usize) -> u32) -> [u32; 8] {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = state;
    round!(a b c d e f g h, input(0));
    round!(h a b c d e f g, input(1));
    round!(g h a b c d e f, input(2));
    round!(f g h a b c d e, input(3));
    round!(e f g h a b c d, input(4));
    round!(d e f g h a b c, input(5));
    round!(c d e f g h a b, input(6));
    round!(b c d e f g h a, input(7));
    round!(a b c d e f g h, input(8));
    round!(h a b c d e f g, input(9));
    round!(g h a b c d e f, input(10));
    round!(f g h a b c d e, input(11));
    round!(e f g h a b c d, input(12));
    round!(d e f g h a b c, input(13));
    round!(c d e f g h a b, input(14));
    round!(b c d e f g h a, input(15));
    [a, b, c, d, e, f, g, h]
}

fn hash_words(message: &mut Message) {
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("bmi2") {
        // SAFETY: both were asked for.
        unsafe { bmi::hash_avx2(message) };
    } else {
        hash_plain(message);
    }
}

/// With the words of the schedule in a ring of sixteen.
fn hash_plain(message: &mut Message) {
    let mut state = INITIAL;
    for block in message.blocks.bytes().as_chunks::<64>().0 {
        let mut ring = [0; 16];
        for (word, bytes) in ring.iter_mut().zip(block.as_chunks().0) {
            *word = u32::from_be_bytes(*bytes);
        }
        let before = state;
        for (turn, constants) in CONSTANTS.0.as_chunks::<16>().0.iter().enumerate() {
            state = sixteen(state, |t| scheduled(&mut ring, t, turn == 0).wrapping_add(constants[t]));
        }
        state = added(before, state);
    }
    message.state = state;
}

#[inline(always)]
fn added(a: [u32; 8], b: [u32; 8]) -> [u32; 8] {
    std::array::from_fn(|index| a[index].wrapping_add(b[index]))
}

/// Four rounds, and the four words of the schedule that are needed sixteen rounds later.
macro_rules! four_rounds {
    ($abef:ident $cdgh:ident, $now:ident $next:ident $third:ident $last:ident, $constants:expr, $more:expr) => {
        // SAFETY: the constants are four words.
        let input = _mm_add_epi32($now, unsafe { _mm_loadu_si128($constants.cast()) });
        $cdgh = _mm_sha256rnds2_epu32($cdgh, $abef, input);
        $abef = _mm_sha256rnds2_epu32($abef, $cdgh, _mm_shuffle_epi32::<0x0e>(input));
        if $more {
            let sum = _mm_add_epi32(_mm_sha256msg1_epu32($now, $next), _mm_alignr_epi8::<4>($last, $third));
            $now = _mm_sha256msg2_epu32(sum, $last);
        }
    };
}

/// With two rounds an instruction; the state lies as ABEF and CDGH.
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn hash_ni(message: &mut Message) {
    let [a, b, c, d, e, f, g, h] = INITIAL.map(u32::cast_signed);
    let (mut abef, mut cdgh) = (_mm_set_epi32(a, b, e, f), _mm_set_epi32(c, d, g, h));
    let big_endian = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    for block in message.blocks.bytes().as_chunks::<64>().0 {
        let (before_abef, before_cdgh) = (abef, cdgh);
        let mut words = [_mm_setzero_si128(); 4];
        for (words, bytes) in words.iter_mut().zip(block.as_chunks::<16>().0) {
            // SAFETY: sixteen bytes.
            *words = _mm_shuffle_epi8(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }, big_endian);
        }
        let [mut first, mut second, mut third, mut fourth] = words;
        for (turn, constants) in CONSTANTS.0.as_chunks::<16>().0.iter().enumerate() {
            let [one, two, three, four] = [0, 1, 2, 3].map(|group| constants.as_ptr().wrapping_add(4 * group));
            four_rounds!(abef cdgh, first second third fourth, one, turn < 3);
            four_rounds!(abef cdgh, second third fourth first, two, turn < 3);
            four_rounds!(abef cdgh, third fourth first second, three, turn < 3);
            four_rounds!(abef cdgh, fourth first second third, four, turn < 3);
        }
        abef = _mm_add_epi32(abef, before_abef);
        cdgh = _mm_add_epi32(cdgh, before_cdgh);
    }
    let word = |value: i32| value.cast_unsigned();
    message.state = [
        word(_mm_extract_epi32::<3>(abef)),
        word(_mm_extract_epi32::<2>(abef)),
        word(_mm_extract_epi32::<3>(cdgh)),
        word(_mm_extract_epi32::<2>(cdgh)),
        word(_mm_extract_epi32::<1>(abef)),
        word(_mm_extract_epi32::<0>(abef)),
        word(_mm_extract_epi32::<1>(cdgh)),
        word(_mm_extract_epi32::<0>(cdgh)),
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_fips_180s() {
        let mut block = [0; 64];
        block[..4].copy_from_slice(b"abc\x80");
        block[63] = 24;
        let expected =
            [0xba78_16bf, 0x8f01_cfea, 0x4141_40de, 0x5dae_2223, 0xb003_61a3, 0x9617_7a9c, 0xb410_ff61, 0xf200_15ad];
        assert_eq!(compress_plainly(INITIAL, &block), expected);
    }
}
