//! AES and its modes in the plainest way: what all others are checked against. Sources: FIPS 197, NIST SP 800-38A, D and E.

/// Rounds of AES-256.
pub(super) const ROUNDS: usize = 14;

/// A round key or a block.
pub(super) type Block = [u8; 16];

/// The round keys of AES-256, in the order in which encryption uses them.
pub(super) type RoundKeys = [Block; ROUNDS + 1];

/// Multiplication in AES's field, by shifting and adding; x^8 is x^4 + x^3 + x + 1.
pub(super) const fn multiply(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b > 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        a = (a << 1) ^ if a & 0x80 == 0 { 0 } else { 0x1b };
        b >>= 1;
    }
    product
}

/// The inverse in AES's field, a^254; that of 0 is 0.
pub(super) const fn invert(a: u8) -> u8 {
    let (mut power, mut square, mut bit) = (1, a, 1);
    while bit < 8 {
        square = multiply(square, square);
        power = multiply(power, square);
        bit += 1;
    }
    power
}

/// The linear part of the S-box's affine map.
pub(super) const fn affine(a: u8) -> u8 {
    a ^ a.rotate_left(1) ^ a.rotate_left(2) ^ a.rotate_left(3) ^ a.rotate_left(4)
}

/// What the affine map adds.
pub(super) const ADDED: u8 = 0x63;

/// The S-box.
pub(super) const SBOX: [u8; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        table[index] = affine(invert(index as u8)) ^ ADDED;
        index += 1;
    }
    table
};

/// The S-box backwards.
const INVERSE_SBOX: [u8; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        table[SBOX[index] as usize] = index as u8;
        index += 1;
    }
    table
};

/// From where ShiftRows takes each byte of a block.
pub(super) const SHIFT_ROWS: [u8; 16] = [0, 5, 10, 15, 4, 9, 14, 3, 8, 13, 2, 7, 12, 1, 6, 11];

fn substitute(byte: u8) -> u8 {
    SBOX.get(usize::from(byte)).copied().unwrap_or_default()
}

/// The round keys of a key.
pub(super) fn expand(key: &[u8; 32]) -> RoundKeys {
    let mut words: Vec<[u8; 4]> = key.as_chunks().0.to_vec();
    let mut constant = 1;
    while let (count @ ..60, Some(&last)) = (words.len(), words.last()) {
        let mut word = last;
        if count % 8 == 0 {
            word.rotate_left(1);
        }
        if count % 4 == 0 {
            word = word.map(substitute);
        }
        if count % 8 == 0 {
            word[0] ^= constant;
            constant = multiply(constant, 2);
        }
        let before = words.get(count - 8).copied().unwrap_or_default();
        words.push([0, 1, 2, 3].map(|byte: usize| word[byte] ^ before[byte]));
    }
    let mut keys = [[0; 16]; ROUNDS + 1];
    for (byte, value) in keys.as_flattened_mut().iter_mut().zip(words.as_flattened()) {
        *byte = *value;
    }
    keys
}

fn add(a: Block, b: &Block) -> Block {
    std::array::from_fn(|index| a[index] ^ b[index])
}

/// MixColumns with the first row of its matrix.
fn mix(block: Block, row: [u8; 4]) -> Block {
    std::array::from_fn(|index| {
        let (column, first) = (index & 12, index & 3);
        (0..4).fold(0, |sum, step| sum ^ multiply(row[step], block[column | (first + step) & 3]))
    })
}

/// What the round keys of the equivalent inverse cipher are mixed with.
pub(super) fn inverse_mix(block: Block) -> Block {
    mix(block, [14, 11, 13, 9])
}

/// Encrypts a block.
pub(super) fn encrypt(keys: &RoundKeys, block: Block) -> Block {
    let mut state = add(block, &keys[0]);
    for (round, key) in keys.iter().enumerate().skip(1) {
        state = SHIFT_ROWS.map(|from| substitute(state[usize::from(from)]));
        if round < ROUNDS {
            state = mix(state, [2, 3, 1, 1]);
        }
        state = add(state, key);
    }
    state
}

/// Decrypts a block.
pub(super) fn decrypt(keys: &RoundKeys, block: Block) -> Block {
    let mut state = block;
    for (round, key) in keys.iter().enumerate().skip(1).rev() {
        state = add(state, key);
        if round < ROUNDS {
            state = inverse_mix(state);
        }
        let mut moved = [0; 16];
        for (from, byte) in SHIFT_ROWS.iter().zip(state) {
            moved[usize::from(*from)] = INVERSE_SBOX[usize::from(byte)];
        }
        state = moved;
    }
    add(state, &keys[0])
}

/// Encrypts in CBC mode.
pub(super) fn cbc_encrypt(keys: &RoundKeys, iv: Block, input: &[u8]) -> Vec<u8> {
    let mut last = iv;
    let mut output = Vec::with_capacity(input.len());
    for block in input.as_chunks().0 {
        last = encrypt(keys, add(last, block));
        output.extend(last);
    }
    output
}

/// Encrypts in counter mode; the last four bytes of `first` count.
pub(super) fn ctr(keys: &RoundKeys, first: Block, input: &[u8]) -> Vec<u8> {
    let mut counter = u128::from_be_bytes(first);
    let mut output = Vec::with_capacity(input.len());
    for block in input.as_chunks().0 {
        output.extend(add(encrypt(keys, counter.to_be_bytes()), block));
        counter = counter & !0xffff_ffff | u128::from((counter as u32).wrapping_add(1));
    }
    output
}

/// Encrypts sectors of `sector` bytes in XTS mode; the tweak of a sector is its number.
pub(super) fn xts(keys: &RoundKeys, tweak_keys: &RoundKeys, sector: usize, input: &[u8]) -> Vec<u8> {
    let mut output = Vec::with_capacity(input.len());
    for (number, bytes) in input.chunks_exact(sector).enumerate() {
        let mut tweak = encrypt(tweak_keys, (number as u128).to_le_bytes());
        for block in bytes.as_chunks().0 {
            output.extend(add(encrypt(keys, add(tweak, block)), &tweak));
            let value = u128::from_le_bytes(tweak);
            tweak = ((value << 1) ^ if value >> 127 == 1 { 0x87 } else { 0 }).to_le_bytes();
        }
    }
    output
}

/// GHASH's multiplication, bit by bit: the first bit of a block is the coefficient of x^0.
pub(super) fn ghash_multiply(a: u128, b: u128) -> u128 {
    let (mut product, mut power) = (0, b);
    for bit in (0..128).rev() {
        if a >> bit & 1 == 1 {
            product ^= power;
        }
        power = (power >> 1) ^ if power & 1 == 1 { 0xe1 << 120 } else { 0 };
    }
    product
}

/// The tag of a ciphertext in GCM, without additional data, for a 96-bit nonce whose first counter is `first`.
pub(super) fn gcm_tag(keys: &RoundKeys, first: Block, ciphertext: &[u8]) -> Block {
    let key = u128::from_be_bytes(encrypt(keys, [0; 16]));
    let lengths = (ciphertext.len() as u128 * 8).to_be_bytes();
    let blocks = ciphertext.as_chunks().0.iter().chain(std::iter::once(&lengths));
    let hash = blocks.fold(0, |hash, block| ghash_multiply(hash ^ u128::from_be_bytes(*block), key));
    add(hash.to_be_bytes(), &encrypt(keys, first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        text.as_bytes()
            .chunks(2)
            .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn the_s_box_is_fips_197s() {
        assert_eq!((SBOX[0], SBOX[1], SBOX[0x53], SBOX[0xff]), (0x63, 0x7c, 0xed, 0x16));
    }

    #[test]
    fn blocks_are_fips_197s() {
        let key: [u8; 32] = std::array::from_fn(|index| index as u8);
        let block: Block = std::array::from_fn(|index| 0x11 * index as u8);
        assert_eq!(encrypt(&expand(&key), block).to_vec(), hex("8ea2b7ca516745bfeafc49904b496089"));
        assert_eq!(decrypt(&expand(&key), encrypt(&expand(&key), block)), block);
    }

    #[test]
    fn modes_are_nists() {
        // SP 800-38A, F.2.5 and F.5.5.
        let key: [u8; 32] = hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4").try_into().unwrap();
        let keys = expand(&key);
        let plain = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
        let cbc = cbc_encrypt(&keys, std::array::from_fn(|index| index as u8), &plain);
        assert_eq!(cbc, hex("f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d"));
        let ctr = ctr(&keys, hex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff").try_into().unwrap(), &plain);
        assert_eq!(ctr, hex("601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"));
    }

    #[test]
    fn gcm_is_nists() {
        // The test cases of the GCM specification with 256-bit keys of zeroes: 13 (nothing) and 14 (one block).
        let keys = expand(&[0; 32]);
        let mut first = [0; 16];
        first[15] = 1;
        assert_eq!(gcm_tag(&keys, first, &[]).to_vec(), hex("530f8afbc74536b9a963b4f1c4cb738b"));
        let mut second = first;
        second[15] = 2;
        let text = ctr(&keys, second, &[0; 16]);
        assert_eq!(text, hex("cea7403d4d606b6e074ec5d3baf39d18"));
        assert_eq!(gcm_tag(&keys, first, &text).to_vec(), hex("d0d1c8a799996bf0265b98b5d48ab919"));
    }
}
