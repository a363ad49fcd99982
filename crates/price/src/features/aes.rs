//! AES-256 and GHASH: AES-NI, VAES, PCLMULQDQ and VPCLMULQDQ.

mod ghash;
mod instructions;
mod modes;
mod reference;
mod tower;
mod vector;

use std::arch::x86_64::__m128i;

use ghash::{Multiples, Powers};
use instructions::Keys;
use reference::{Block, RoundKeys};
use tower::Schedule;

use crate::memory::Buffer;
use crate::work::{Kernel, Unit, Way, Work, noise_bytes};

/// The bytes of one run: a TLS record.
const LENGTH: usize = 16 * 1024;

/// A sector of an encrypted disk.
const SECTOR: usize = 4096;

/// Blocks that are worked on side by side.
const GROUP: usize = 8;

const AESNI: Way = Way { name: "AES-NI", needs: &["aes"] };
const PERMUTED: Way = Way { name: "SSSE3 vector permutation", needs: &["ssse3"] };

const fn work(id: &'static str, feature: &'static str, title: &'static str, with: Way, without: Way) -> Work {
    Work {
        id,
        feature,
        title,
        with,
        without,
        unit: Unit::Bytes,
        amount: LENGTH as u64,
        make: || Kernel::boxed(Text::new, cbc_ni, cbc_permuted, Text::output, Text::cbc),
    }
}

pub(super) const WORKS: &[Work] = &[
    work("aes-256-cbc", "aes", "AES-256-CBC, encryption", AESNI, PERMUTED),
    Work {
        make: || Kernel::boxed(Text::new, cbc_decrypt_ni, cbc_decrypt_permuted, Text::output, Text::cbc_backwards),
        ..work("aes-256-cbc-decrypt", "aes", "AES-256-CBC, decryption", AESNI, PERMUTED)
    },
    Work {
        make: || Kernel::boxed(Text::new, ctr_ni, ctr_permuted, Text::output, Text::ctr),
        ..work("aes-256-ctr", "aes", "AES-256-CTR", AESNI, PERMUTED)
    },
    Work {
        make: || Kernel::boxed(Text::new, xts_ni, xts_permuted, Text::output, Text::xts),
        ..work("aes-256-xts", "aes", "AES-256-XTS, 4 KiB sectors", AESNI, PERMUTED)
    },
    Work {
        make: || Kernel::boxed(Text::new, gcm_ni, gcm_permuted, Text::sealed, Text::gcm),
        ..work(
            "aes-256-gcm",
            "aes",
            "AES-256-GCM",
            Way { name: "AES-NI, PCLMULQDQ", needs: &["aes", "pclmulqdq", "ssse3"] },
            Way { name: "SSSE3 vector permutation, PCLMULQDQ", needs: &["pclmulqdq", "ssse3"] },
        )
    },
    Work {
        make: || Kernel::boxed(Text::new, gcm_ni, gcm_plain, Text::sealed, Text::gcm),
        ..work(
            "aes-256-gcm-neither",
            "aes",
            "AES-256-GCM, no pclmulqdq either",
            Way { name: "AES-NI, PCLMULQDQ", needs: &["aes", "pclmulqdq", "ssse3"] },
            Way { name: "SSSE3 vector permutation, tables of 4 KiB", needs: &["ssse3"] },
        )
    },
    Work {
        make: || Kernel::boxed(Text::new, gcm_ni, gcm_tables, Text::sealed, Text::gcm),
        ..work(
            "aes-256-gcm-ghash",
            "pclmulqdq",
            "AES-256-GCM",
            Way { name: "AES-NI, PCLMULQDQ", needs: &["aes", "pclmulqdq", "ssse3"] },
            Way { name: "AES-NI, tables of 4 KiB", needs: &["aes"] },
        )
    },
    Work {
        make: || Kernel::boxed(Text::new, instructions::ctr_vaes, ctr_ni, Text::output, Text::ctr),
        ..work(
            "aes-256-ctr-vaes",
            "vaes",
            "AES-256-CTR",
            Way { name: "VAES, two blocks a register", needs: &["vaes", "avx2"] },
            AESNI,
        )
    },
    Work {
        make: || {
            Kernel::boxed(Text::new, instructions::gcm_vaes, instructions::gcm_vaes_narrow, Text::sealed, Text::gcm)
        },
        ..work(
            "aes-256-gcm-vpclmulqdq",
            "vpclmulqdq",
            "AES-256-GCM",
            Way { name: "VAES, VPCLMULQDQ", needs: &["vaes", "vpclmulqdq", "avx2", "pclmulqdq"] },
            Way { name: "VAES, PCLMULQDQ", needs: &["vaes", "avx2", "pclmulqdq"] },
        )
    },
];

/// A message with everything that any way needs to encrypt it.
struct Text {
    input: Buffer,
    output: Buffer,
    tag: Block,
    plain_keys: RoundKeys,
    keys: Keys,
    inverse_keys: Keys,
    encryption: Schedule<2>,
    decryption: Schedule<4>,
    iv: Block,
    /// The first counter of GCM, and the second, with which the text begins.
    first: Block,
    second: Block,
    /// What GCM's tag is masked with.
    mask: Block,
    powers: Powers,
    multiples: Multiples,
}

impl Text {
    fn new() -> Self {
        let keys = reference::expand(&std::array::from_fn(|index| index as u8 ^ 0x35));
        let mut inverse = keys;
        inverse.reverse();
        for key in &mut inverse[1..reference::ROUNDS] {
            *key = reference::inverse_mix(*key);
        }
        let hash_key = u128::from_be_bytes(reference::encrypt(&keys, [0; 16]));
        let mut first = [7; 16];
        first[12..].copy_from_slice(&1_u32.to_be_bytes());
        let mut second = first;
        second[12..].copy_from_slice(&2_u32.to_be_bytes());
        Self {
            input: Buffer::of(&noise_bytes(2, LENGTH)),
            output: Buffer::zeroed(LENGTH),
            tag: [0; 16],
            plain_keys: keys,
            keys: Keys(keys),
            inverse_keys: Keys(inverse),
            encryption: tower::encryption(&keys),
            decryption: tower::decryption(&keys),
            iv: [9; 16],
            first,
            second,
            mask: reference::encrypt(&keys, first),
            powers: Powers::new(hash_key),
            multiples: Multiples::new(hash_key),
        }
    }

    fn output(&self) -> Vec<u8> {
        self.output.bytes().to_vec()
    }

    fn sealed(&self) -> (Vec<u8>, Block) {
        (self.output(), self.tag)
    }

    fn cbc(&self) -> Vec<u8> {
        reference::cbc_encrypt(&self.plain_keys, self.iv, self.input.bytes())
    }

    /// What CBC would make the input from. Block by block, from the inverse of the plain cipher on a table of its own.
    fn cbc_backwards(&self) -> Vec<u8> {
        let mut last = self.iv;
        let mut plain = Vec::with_capacity(LENGTH);
        for block in self.input.bytes().as_chunks().0 {
            let decrypted = reference::decrypt(&self.plain_keys, *block);
            plain.extend(decrypted.iter().zip(last).map(|(a, b)| a ^ b));
            last = *block;
        }
        plain
    }

    fn ctr(&self) -> Vec<u8> {
        reference::ctr(&self.plain_keys, self.second, self.input.bytes())
    }

    fn xts(&self) -> Vec<u8> {
        reference::xts(&self.plain_keys, &self.plain_keys, SECTOR, self.input.bytes())
    }

    fn gcm(&self) -> (Vec<u8>, Block) {
        let text = self.ctr();
        let tag = reference::gcm_tag(&self.plain_keys, self.first, &text);
        (text, tag)
    }
}

#[target_feature(enable = "aes")]
fn cbc_ni(text: &mut Text) {
    let keys = text.keys;
    modes::cbc_encrypt(text, |block| instructions::encrypt(&keys, block));
}

#[target_feature(enable = "ssse3")]
fn cbc_permuted(text: &mut Text) {
    let schedule = text.encryption.clone();
    modes::cbc_encrypt(text, |block| vector::encrypt(&schedule, block));
}

#[target_feature(enable = "aes")]
fn cbc_decrypt_ni(text: &mut Text) {
    let keys = text.inverse_keys;
    modes::cbc_decrypt(text, |blocks| instructions::decrypt(&keys, blocks));
}

#[target_feature(enable = "ssse3")]
fn cbc_decrypt_permuted(text: &mut Text) {
    let schedule = text.decryption.clone();
    modes::cbc_decrypt(text, |blocks| in_halves(blocks, |half| vector::decrypt(&schedule, half)));
}

#[target_feature(enable = "aes")]
fn ctr_ni(text: &mut Text) {
    let keys = text.keys;
    modes::ctr(text, |blocks| instructions::encrypt(&keys, blocks));
}

#[target_feature(enable = "ssse3")]
fn ctr_permuted(text: &mut Text) {
    let schedule = text.encryption.clone();
    modes::ctr(text, |blocks| in_halves(blocks, |half| vector::encrypt(&schedule, half)));
}

#[target_feature(enable = "aes")]
fn xts_ni(text: &mut Text) {
    let keys = text.keys;
    let tweaks = |block| instructions::encrypt(&keys, block);
    modes::xts(text, SECTOR, tweaks, |blocks| instructions::encrypt(&keys, blocks));
}

#[target_feature(enable = "ssse3")]
fn xts_permuted(text: &mut Text) {
    let schedule = text.encryption.clone();
    let tweaks = |block| vector::encrypt(&schedule, block);
    modes::xts(text, SECTOR, tweaks, |blocks| in_halves(blocks, |half| vector::encrypt(&schedule, half)));
}

/// Eight blocks as twice four: more than four do not fit into the registers beside the tables.
#[inline(always)]
fn in_halves(blocks: [__m128i; GROUP], cipher: impl Fn([__m128i; 4]) -> [__m128i; 4]) -> [__m128i; GROUP] {
    let [a, b, c, d, e, f, g, h] = blocks;
    let ([a, b, c, d], [e, f, g, h]) = (cipher([a, b, c, d]), cipher([e, f, g, h]));
    [a, b, c, d, e, f, g, h]
}

/// A hash in a register, which has no default of its own.
#[derive(Clone, Copy)]
struct Hashed(__m128i);

impl Default for Hashed {
    fn default() -> Self {
        Self(modes::load(&[0; 16]))
    }
}

#[target_feature(enable = "aes,pclmulqdq,ssse3")]
fn gcm_ni(text: &mut Text) {
    let (keys, powers) = (text.keys, text.powers);
    modes::gcm(
        text,
        |blocks| instructions::encrypt(&keys, blocks),
        |hashed: Hashed, blocks| Hashed(ghash::hash(&powers, hashed.0, blocks)),
        |hashed, lengths| ghash::finish(&powers, hashed.0, lengths),
    );
}

#[target_feature(enable = "pclmulqdq,ssse3")]
fn gcm_permuted(text: &mut Text) {
    let (schedule, powers) = (text.encryption.clone(), text.powers);
    modes::gcm(
        text,
        |blocks| in_halves(blocks, |half| vector::encrypt(&schedule, half)),
        |hashed: Hashed, blocks| Hashed(ghash::hash(&powers, hashed.0, blocks)),
        |hashed, lengths| ghash::finish(&powers, hashed.0, lengths),
    );
}

#[target_feature(enable = "ssse3")]
fn gcm_plain(text: &mut Text) {
    let (schedule, multiples) = (text.encryption.clone(), text.multiples.clone());
    modes::gcm(
        text,
        |blocks| in_halves(blocks, |half| vector::encrypt(&schedule, half)),
        |hashed, blocks| blocks.iter().fold(hashed, |hashed, block| multiples.hash(hashed, block)),
        |hashed, lengths| multiples.hash(hashed, lengths).to_be_bytes(),
    );
}

#[target_feature(enable = "aes")]
fn gcm_tables(text: &mut Text) {
    let (keys, multiples) = (text.keys, text.multiples.clone());
    modes::gcm(
        text,
        |blocks| instructions::encrypt(&keys, blocks),
        |hashed, blocks| blocks.iter().fold(hashed, |hashed, block| multiples.hash(hashed, block)),
        |hashed, lengths| multiples.hash(hashed, lengths).to_be_bytes(),
    );
}
