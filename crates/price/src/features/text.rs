//! Text: searching, UTF-8, base64. The first two by maintained libraries whose ways can be chosen.

use std::arch::x86_64::*;

use memchr::arch::x86_64::{avx2, sse2};
use simdutf8::basic::imp::x86 as utf8;

use crate::memory::Buffer;
use crate::work::{Kernel, Refused, Unit, Way, Work, noise, noise_bytes};

/// The bytes of one run.
const LENGTH: usize = 16 * 1024;

const fn work(
    (id, feature, title): (&'static str, &'static str, &'static str),
    with: Way,
    without: Way,
    make: unsafe fn() -> Result<Box<dyn crate::work::Pair>, Refused>,
) -> Work {
    Work { id, feature, title, with, without, unit: Unit::Bytes, amount: LENGTH as u64, make }
}

const MEMCHR: &str = "memchr, 16 KiB";
const UTF8: &str = "UTF-8 validation, many scripts";
const BASE64: &str = "base64 encoding";

pub(super) const WORKS: &[Work] = &[
    work(
        ("memchr-avx2", "avx2", MEMCHR),
        Way { name: "the memchr crate, AVX2", needs: &["avx2"] },
        Way { name: "the memchr crate, SSE2", needs: &[] },
        || Kernel::boxed(Haystack::new, find_avx2, find_sse2, |haystack| haystack.found, Haystack::reference),
    ),
    work(
        ("memchr-avx512", "avx512bw", MEMCHR),
        Way { name: "AVX-512, 256 bytes a turn", needs: &["avx512bw", "avx512f"] },
        Way { name: "the memchr crate, AVX2", needs: &["avx2"] },
        || Kernel::boxed(Haystack::new, find_avx512, find_avx2, |haystack| haystack.found, Haystack::reference),
    ),
    work(
        ("utf8-sse4_2", "sse4_2", UTF8),
        Way { name: "the simdutf8 crate, SSE4.2", needs: &["sse4_2"] },
        Way { name: "the standard library, byte by byte", needs: &[] },
        || Kernel::boxed(Script::new, check_sse42, check_plain, |script| script.valid, |_| Some(true)),
    ),
    work(
        ("utf8-avx2", "avx2", UTF8),
        Way { name: "the simdutf8 crate, AVX2", needs: &["avx2"] },
        Way { name: "the simdutf8 crate, SSE4.2", needs: &["sse4_2"] },
        || Kernel::boxed(Script::new, check_avx2, check_sse42, |script| script.valid, |_| Some(true)),
    ),
    work(
        ("base64-ssse3", "ssse3", BASE64),
        Way { name: "PSHUFB, 12 bytes at once", needs: &["ssse3"] },
        Way { name: "tables, three bytes at once", needs: &[] },
        || Kernel::boxed(Base64::new, encode_ssse3, encode_tables, Base64::text, Base64::reference),
    ),
    work(
        ("base64-avx2", "avx2", BASE64),
        Way { name: "AVX2, 24 bytes at once", needs: &["avx2"] },
        Way { name: "PSHUFB, 12 bytes at once", needs: &["ssse3"] },
        || Kernel::boxed(Base64::new, encode_avx2, encode_ssse3, Base64::text, Base64::reference),
    ),
    work(
        ("base64-vbmi", "avx512vbmi", BASE64),
        Way { name: "VPERMB, VPMULTISHIFTQB, 48 bytes at once", needs: &["avx512vbmi", "avx512f"] },
        Way { name: "AVX2, 24 bytes at once", needs: &["avx2"] },
        || Kernel::boxed(Base64::new, encode_vbmi, encode_avx2, Base64::text, Base64::reference),
    ),
];

/// Bytes among which the one that is looked for comes last.
struct Haystack {
    bytes: Buffer,
    found: Option<usize>,
}

const NEEDLE: u8 = b'\n';

impl Haystack {
    fn new() -> Self {
        let mut bytes: Vec<u8> =
            noise_bytes(14, LENGTH).iter().map(|&byte| if byte == NEEDLE { b' ' } else { byte }).collect();
        bytes[LENGTH - 1] = NEEDLE;
        Self { bytes: Buffer::of(&bytes), found: None }
    }

    fn reference(&self) -> Option<usize> {
        self.bytes.bytes().iter().position(|&byte| byte == NEEDLE)
    }
}

fn find_sse2(haystack: &mut Haystack) {
    haystack.found = sse2::memchr::One::new(NEEDLE).and_then(|one| one.find(haystack.bytes.bytes()));
}

#[target_feature(enable = "avx2")]
fn find_avx2(haystack: &mut Haystack) {
    // SAFETY: AVX2 is among what this way needs.
    let one = unsafe { avx2::memchr::One::new_unchecked(NEEDLE) };
    haystack.found = one.find(haystack.bytes.bytes());
}

#[target_feature(enable = "avx512f,avx512bw")]
fn find_avx512(haystack: &mut Haystack) {
    let needle = _mm512_set1_epi8(NEEDLE.cast_signed());
    haystack.found = None;
    for (turn, bytes) in haystack.bytes.bytes().as_chunks::<256>().0.iter().enumerate() {
        let mut differences = [needle; 4];
        for (difference, bytes) in differences.iter_mut().zip(bytes.as_chunks::<64>().0) {
            // SAFETY: 64 bytes.
            *difference = _mm512_xor_si512(needle, unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) });
        }
        let [first, second, third, fourth] = differences;
        let least = _mm512_min_epu8(_mm512_min_epu8(first, second), _mm512_min_epu8(third, fourth));
        if _mm512_testn_epi8_mask(least, least) != 0 {
            // Once a call: bytes that do not differ are looked for in each register.
            let mut masks = [0; 4];
            for (mask, difference) in masks.iter_mut().zip(differences) {
                *mask = _mm512_testn_epi8_mask(difference, difference);
            }
            let place = masks.iter().enumerate().find(|(_, mask)| **mask != 0);
            haystack.found = place.map(|(place, mask)| 256 * turn + 64 * place + mask.trailing_zeros() as usize);
            return;
        }
    }
}

/// Text in several scripts.
struct Script {
    text: Buffer,
    valid: Option<bool>,
}

impl Script {
    fn new() -> Self {
        // Latin, Greek, Cyrillic, Chinese and a sign outside the basic plane: one to four bytes each.
        let signs: Vec<char> = "aeinrst .,αδεικ бгдиоя 中文字符 😀".chars().collect();
        let mut text = String::with_capacity(LENGTH + 4);
        for value in noise(15) {
            if text.len() + 4 > LENGTH {
                break;
            }
            text.push(signs[value as usize % signs.len()]);
        }
        while text.len() < LENGTH {
            text.push('.');
        }
        Self { text: Buffer::of(text.as_bytes()), valid: None }
    }
}

fn check_plain(script: &mut Script) {
    script.valid = Some(std::str::from_utf8(script.text.bytes()).is_ok());
}

#[target_feature(enable = "sse4.2")]
fn check_sse42(script: &mut Script) {
    // SAFETY: SSE4.2 is among what this way needs.
    script.valid = Some(unsafe { utf8::sse42::validate_utf8(script.text.bytes()) }.is_ok());
}

#[target_feature(enable = "avx2")]
fn check_avx2(script: &mut Script) {
    // SAFETY: AVX2 is among what this way needs.
    script.valid = Some(unsafe { utf8::avx2::validate_utf8(script.text.bytes()) }.is_ok());
}

/// Base64's digits (RFC 4648).
const DIGITS: [u8; 64] = *b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The bytes that are encoded: they become [`LENGTH`] digits.
const ENCODED: usize = LENGTH / 4 * 3;

/// Bytes behind those that are encoded, because registers read more than they use.
const BEHIND: usize = 64;

struct Base64 {
    bytes: Buffer,
    text: Buffer,
    /// The digits for each twelve bits.
    pairs: Box<[[u8; 2]; 4096]>,
}

impl Base64 {
    fn new() -> Self {
        let mut pairs = Box::new([[0; 2]; 4096]);
        for (bits, pair) in pairs.iter_mut().enumerate() {
            *pair = [DIGITS[bits >> 6], DIGITS[bits & 63]];
        }
        Self { bytes: Buffer::of(&noise_bytes(16, ENCODED + BEHIND)), text: Buffer::zeroed(LENGTH), pairs }
    }

    fn text(&self) -> Vec<u8> {
        self.text.bytes().to_vec()
    }

    fn reference(&self) -> Vec<u8> {
        let digits = |three: &[u8; 3]| {
            let bits = three.iter().fold(0_usize, |bits, &byte| bits << 8 | usize::from(byte));
            [18, 12, 6, 0].map(|shift| DIGITS[bits >> shift & 63])
        };
        self.bytes.bytes()[..ENCODED].as_chunks().0.iter().flat_map(digits).collect()
    }
}

fn encode_tables(base64: &mut Base64) {
    let (threes, _) = base64.bytes.bytes().as_chunks::<3>();
    for (three, four) in threes.iter().zip(base64.text.bytes_mut().as_chunks_mut::<4>().0) {
        let [a, b, c] = three.map(usize::from);
        let (first, second) = (base64.pairs[a << 4 | b >> 4], base64.pairs[(b & 15) << 8 | c]);
        *four = [first[0], first[1], second[0], second[1]];
    }
}

/// What is added to six bits to make the digit, by the kind of digit: Wojciech Muła and Daniel Lemire, "Faster Base64 Encoding
/// and Decoding Using AVX2 Instructions" (2018). Kind 0 is a small letter, 1 to 10 a figure, 11 and 12 the signs, 13 a
/// capital.
const OFFSETS: [i8; 16] = [71, -4, -4, -4, -4, -4, -4, -4, -4, -4, -4, -19, -16, 65, 0, 0];

/// Where the bytes of four digits come from: two, one, three, two of each three.
const SPREAD: [i8; 16] = [1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10];

#[target_feature(enable = "ssse3")]
fn encode_ssse3(base64: &mut Base64) {
    // SAFETY: sixteen bytes each.
    let (offsets, spread) =
        unsafe { (_mm_loadu_si128(OFFSETS.as_ptr().cast()), _mm_loadu_si128(SPREAD.as_ptr().cast())) };
    let bytes = base64.bytes.bytes().as_ptr();
    for (place, digits) in base64.text.bytes_mut().as_chunks_mut::<16>().0.iter_mut().enumerate() {
        // SAFETY: twelve bytes are used and sixteen read; behind the last twelve there are more than four.
        let input = _mm_shuffle_epi8(unsafe { _mm_loadu_si128(bytes.add(12 * place).cast()) }, spread);
        let odd = _mm_mulhi_epu16(_mm_and_si128(input, _mm_set1_epi32(0x0fc0_fc00)), _mm_set1_epi32(0x0400_0040));
        let even = _mm_mullo_epi16(_mm_and_si128(input, _mm_set1_epi32(0x003f_03f0)), _mm_set1_epi32(0x0100_0010));
        let sixes = _mm_or_si128(odd, even);
        let kind = _mm_subs_epu8(sixes, _mm_set1_epi8(51));
        let capital = _mm_and_si128(_mm_cmpgt_epi8(_mm_set1_epi8(26), sixes), _mm_set1_epi8(13));
        let text = _mm_add_epi8(sixes, _mm_shuffle_epi8(offsets, _mm_or_si128(kind, capital)));
        // SAFETY: sixteen bytes.
        unsafe { _mm_storeu_si128(digits.as_mut_ptr().cast(), text) };
    }
}

#[target_feature(enable = "avx2")]
fn encode_avx2(base64: &mut Base64) {
    // SAFETY: sixteen bytes each.
    let (offsets, spread) = unsafe {
        let of = |table: &[i8; 16]| _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
        (of(&OFFSETS), of(&SPREAD))
    };
    let bytes = base64.bytes.bytes().as_ptr();
    for (place, digits) in base64.text.bytes_mut().as_chunks_mut::<32>().0.iter_mut().enumerate() {
        // SAFETY: 24 bytes are used and 28 read; behind the last 24 there are more than four.
        let input = unsafe {
            let (low, high) = (bytes.add(24 * place), bytes.add(24 * place + 12));
            _mm256_inserti128_si256::<1>(
                _mm256_castsi128_si256(_mm_loadu_si128(low.cast())),
                _mm_loadu_si128(high.cast()),
            )
        };
        let input = _mm256_shuffle_epi8(input, spread);
        let odd = _mm256_and_si256(input, _mm256_set1_epi32(0x0fc0_fc00));
        let odd = _mm256_mulhi_epu16(odd, _mm256_set1_epi32(0x0400_0040));
        let even = _mm256_and_si256(input, _mm256_set1_epi32(0x003f_03f0));
        let even = _mm256_mullo_epi16(even, _mm256_set1_epi32(0x0100_0010));
        let sixes = _mm256_or_si256(odd, even);
        let kind = _mm256_subs_epu8(sixes, _mm256_set1_epi8(51));
        let capital = _mm256_and_si256(_mm256_cmpgt_epi8(_mm256_set1_epi8(26), sixes), _mm256_set1_epi8(13));
        let text = _mm256_add_epi8(sixes, _mm256_shuffle_epi8(offsets, _mm256_or_si256(kind, capital)));
        // SAFETY: 32 bytes.
        unsafe { _mm256_storeu_si256(digits.as_mut_ptr().cast(), text) };
    }
}

/// Where VPERMB takes the bytes of sixteen groups of four digits from.
const SPREAD_WIDE: [u8; 64] = {
    let mut from = [0; 64];
    let mut place = 0;
    while place < 64 {
        from[place] = SPREAD[place % 4] as u8 + 3 * (place / 4) as u8;
        place += 1;
    }
    from
};

#[target_feature(enable = "avx512f,avx512vbmi")]
fn encode_vbmi(base64: &mut Base64) {
    // SAFETY: 64 bytes each.
    let (digits, spread) =
        unsafe { (_mm512_loadu_si512(DIGITS.as_ptr().cast()), _mm512_loadu_si512(SPREAD_WIDE.as_ptr().cast())) };
    // From which bit each six of a quadword are taken: bytes lie as two, one, three, two.
    let shifts = _mm512_set1_epi64(0x3036_242a_1016_040a);
    let bytes = base64.bytes.bytes().as_ptr();
    for (place, text) in base64.text.bytes_mut().as_chunks_mut::<64>().0.iter_mut().enumerate() {
        // SAFETY: 48 bytes are used and 64 read; behind the last 48 there are 64.
        let input = unsafe { _mm512_loadu_si512(bytes.add(48 * place).cast()) };
        let sixes = _mm512_multishift_epi64_epi8(shifts, _mm512_permutexvar_epi8(spread, input));
        // SAFETY: 64 bytes.
        unsafe { _mm512_storeu_si512(text.as_mut_ptr().cast(), _mm512_permutexvar_epi8(sixes, digits)) };
    }
}
