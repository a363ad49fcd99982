//! The hash by which names are found in tables; the build script lays the tables out by the same.

/// Where a name is to be looked for: any number, to be reduced to the table's length.
pub(crate) fn hash(name: &str) -> usize {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let mixed = name.as_bytes().chunks(8).fold(name.len() as u64, |hash, chunk| {
        let word = chunk.iter().rev().fold(0_u64, |word, &byte| word << 8 | u64::from(byte));
        (hash ^ word).wrapping_mul(MULTIPLIER).rotate_left(29)
    });
    (mixed ^ mixed >> 32) as usize
}
