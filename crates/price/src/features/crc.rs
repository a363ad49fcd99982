//! CRC32C, the checksum of iSCSI, ext4, btrfs and NVMe: SSE4.2's CRC32 instruction.

use std::arch::x86_64::_mm_crc32_u64;

use crate::memory::Buffer;
use crate::work::{Kernel, Unit, Way, Work, noise_bytes};

/// The bytes of one run, in three streams: the instruction takes three cycles, and one can begin in each.
const LENGTH: usize = 3 * STREAM;
const STREAM: usize = 5464;

/// Castagnoli's polynomial, bits in reverse order.
const POLYNOMIAL: u32 = 0x82f6_3b78;

pub(super) const WORKS: &[Work] = &[Work {
    id: "crc32c",
    feature: "sse4_2",
    title: "CRC32C",
    with: Way { name: "CRC32, three streams", needs: &["sse4_2"] },
    without: Way { name: "tables, sixteen bytes at once", needs: &[] },
    unit: Unit::Bytes,
    amount: LENGTH as u64,
    make: || Kernel::boxed(Checked::new, crc_instruction, crc_tables, |checked| checked.crc, Checked::reference),
}];

struct Checked {
    bytes: Buffer,
    crc: u32,
    /// What each byte becomes when so many bytes of zeroes follow it.
    tables: Box<[[u32; 256]; 16]>,
    /// What each bit of a checksum becomes after a stream of zeroes.
    after_stream: [u32; 32],
}

impl Checked {
    fn new() -> Self {
        let mut tables = Box::new([[0_u32; 256]; 16]);
        for byte in 0..256 {
            let mut crc = (0..8).fold(byte as u32, |crc, _| bit_step(crc));
            for table in tables.iter_mut() {
                table[byte] = crc;
                crc = (0..8).fold(crc, |crc, _| bit_step(crc));
            }
        }
        let mut checked = Self { bytes: Buffer::of(&noise_bytes(4, LENGTH)), crc: 0, tables, after_stream: [0; 32] };
        for bit in 0..32 {
            checked.after_stream[bit] =
                (0..STREAM).fold(1 << bit, |crc: u32, _| crc >> 8 ^ checked.tables[0][(crc & 0xff) as usize]);
        }
        checked
    }

    fn reference(&self) -> u32 {
        !crc_bitwise(self.bytes.bytes())
    }

    fn shifted(&self, crc: u32) -> u32 {
        self.after_stream.iter().enumerate().filter(|(bit, _)| crc >> bit & 1 == 1).fold(0, |sum, (_, part)| sum ^ part)
    }
}

fn bit_step(crc: u32) -> u32 {
    crc >> 1 ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 }
}

/// Bit by bit; neither end inverted afterwards.
fn crc_bitwise(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| bit_step(crc)))
}

#[target_feature(enable = "sse4.2")]
fn crc_instruction(checked: &mut Checked) {
    let mut streams = checked.bytes.bytes().chunks_exact(STREAM).map(|stream| stream.as_chunks::<8>().0.iter());
    let (Some(a), Some(b), Some(c)) = (streams.next(), streams.next(), streams.next()) else { return };
    let [mut first, mut second, mut third] = [u64::from(u32::MAX), 0, 0];
    for ((a, b), c) in a.zip(b).zip(c) {
        first = _mm_crc32_u64(first, u64::from_le_bytes(*a));
        second = _mm_crc32_u64(second, u64::from_le_bytes(*b));
        third = _mm_crc32_u64(third, u64::from_le_bytes(*c));
    }
    let two = checked.shifted(first as u32) ^ second as u32;
    checked.crc = !(checked.shifted(two) ^ third as u32);
}

fn crc_tables(checked: &mut Checked) {
    let tables = &checked.tables;
    let (chunks, rest) = checked.bytes.bytes().as_chunks::<16>();
    let crc = chunks.iter().fold(u32::MAX, |crc, chunk| {
        let value = u128::from_le_bytes(*chunk) ^ u128::from(crc);
        (0..16).fold(0, |sum, byte| sum ^ tables[15 - byte][usize::from((value >> (8 * byte)) as u8)])
    });
    checked.crc = !rest.iter().fold(crc, |crc, byte| crc >> 8 ^ tables[0][usize::from(crc as u8 ^ byte)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_rfc_3720s() {
        assert_eq!(!crc_bitwise(b"123456789"), 0xe306_9283);
        assert_eq!(!crc_bitwise(&[0; 32]), 0x8a91_36aa);
    }
}
