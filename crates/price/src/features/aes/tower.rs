//! AES's S-box as look-ups in tables of sixteen bytes, which is what PSHUFB does sixteen times at once.
//!
//! AES's field of 256 elements is one of pairs over a field of 16. With z + z' = 1 and c = z z', an element is x = i z + j z',
//! and with k = i + j its norm is N = i j + c k^2, so that 1/x = (j z + i z') / N. Mike Hamburg ("Accelerating AES with
//! vector permute instructions", 2009) found that look-ups alone lead there: with a = 1/c, u = 1/(1/i + a/k) + j and
//! v = 1/(1/j + a/k) + i are N's multiples of the inverses of i + c k and j + c k, hence
//! 1/x = (c z + (1 + c) z') / u + ((1 + c) z + c z') / v, and whatever is linear afterwards (the affine map, MixColumns'
//! factors, a change of basis) is built into the tables of u and v. Division by zero gives infinity, which is a byte with its
//! highest bit set, for which PSHUFB gives zero, which is what one divided by infinity is: no case is special.
//!
//! The tables are computed here, from the definition of the field.

use super::reference::{ADDED, ROUNDS, RoundKeys, SHIFT_ROWS, affine, inverse_mix, invert, multiply};

/// A table of sixteen bytes, aligned so that instructions can take it from memory.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(16))]
pub(super) struct Table(pub(super) [u8; 16]);

/// A look-up in a table that stands for two: of u and of v.
pub(super) type Output = [Table; 2];

/// Infinity.
const INFINITE: u8 = 0x80;

/// The two fields, and how they lie in each other.
struct Tower {
    /// The element of AES's field for each element of the small one.
    small: [u8; 16],
    /// z and z'.
    z: [u8; 2],
    /// c = z z', as an element of AES's field.
    c: u8,
    /// Of each element of AES's field: i in the high four bits, k in the low four.
    digits: [u8; 256],
}

impl Tower {
    fn new() -> Self {
        // A root of x^4 + x + 1 spans the small field.
        let fourth = |g: u8| multiply(multiply(g, g), multiply(g, g));
        let root = (2..=255).find(|&g| fourth(g) ^ g ^ 1 == 0).unwrap_or_default();
        let mut powers = [1; 4];
        for index in 1..4 {
            powers[index] = multiply(powers[index - 1], root);
        }
        let small: [u8; 16] = std::array::from_fn(|element| {
            powers.iter().enumerate().filter(|(bit, _)| element >> bit & 1 == 1).fold(0, |sum, (_, power)| sum ^ power)
        });
        let conjugate = |z: u8| fourth(fourth(z));
        let z = (2..=255).find(|&z| z ^ conjugate(z) == 1).unwrap_or_default();
        let z = [z, conjugate(z)];
        let mut digits = [0; 256];
        for i in 0..16 {
            for j in 0..16 {
                let x = multiply(small[i], z[0]) ^ multiply(small[j], z[1]);
                digits[usize::from(x)] = (i << 4 | (i ^ j)) as u8;
            }
        }
        Self { small, z, c: multiply(z[0], z[1]), digits }
    }

    /// The table of `factor / n` for all n of the small field, as elements of the small field.
    fn inverses(&self, factor: u8) -> Table {
        let element = |value: u8| self.small.iter().position(|&known| known == value).unwrap_or_default() as u8;
        Table(self.small.map(|n| if n == 0 { INFINITE } else { element(multiply(factor, invert(n))) }))
    }

    /// The tables of u and v that give `linear(1/x)`.
    fn output(&self, linear: impl Fn(u8) -> u8) -> Output {
        let (c, [z, w]) = (self.c, self.z);
        let factors = [multiply(c, z) ^ multiply(c ^ 1, w), multiply(c ^ 1, z) ^ multiply(c, w)];
        factors.map(|factor| Table(self.small.map(|n| linear(multiply(factor, invert(n))))))
    }

    /// The tables of the low and the high four bits that give the digits of `linear(x)`.
    fn input(&self, linear: impl Fn(u8) -> u8) -> [Table; 2] {
        let digits = |x: usize| self.digits[usize::from(linear(x as u8))];
        [Table(std::array::from_fn(digits)), Table(std::array::from_fn(|x| digits(x << 4)))]
    }
}

/// Everything that one direction needs, keys included.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(super) struct Schedule<const OUTPUTS: usize> {
    /// Of the low and the high four bits of a byte of input: its digits.
    pub(super) input: [Table; 2],
    /// 1/n.
    pub(super) inverse: Table,
    /// a/n.
    pub(super) scaled: Table,
    /// What a round's columns are mixed from: one multiple of the substituted byte each.
    pub(super) outputs: [Output; OUTPUTS],
    /// The last round's, in AES's own basis.
    pub(super) last: Output,
    /// Bytes are not moved by ShiftRows, but remain where they are; where the next row's byte is, round by round.
    pub(super) next_row: [Table; 4],
    /// Where the row's byte before is.
    pub(super) row_before: [Table; 4],
    /// From where each byte of the result is taken.
    pub(super) unshift: Table,
    /// The round keys, in the basis and at the places of the bytes that they are added to.
    pub(super) keys: [Table; ROUNDS + 1],
}

/// The place of each byte after a number of rounds in which `shift` was not done.
fn places(shift: &[u8; 16], rounds: usize) -> [usize; 16] {
    let mut places: [usize; 16] = std::array::from_fn(|index| index);
    for _ in 0..rounds {
        places = shift.map(|from| places[usize::from(from)]);
    }
    places
}

/// From where a byte at each place takes that of the row `step` rows below it in its column.
fn rows(places: &[usize; 16], step: usize) -> Table {
    let mut from = [0; 16];
    for (byte, &place) in places.iter().enumerate() {
        from[place] = places[byte & 12 | (byte + step) & 3] as u8;
    }
    Table(from)
}

impl<const OUTPUTS: usize> Schedule<OUTPUTS> {
    /// `into` is linear and comes before the inversion, `outof` after it, `factors` are MixColumns'; `keys` are in the
    /// order of use, and what the affine map adds is added to each.
    fn new(
        into: impl Fn(u8) -> u8,
        outof: impl Fn(u8) -> u8,
        factors: [u8; OUTPUTS],
        shift: &[u8; 16],
        keys: &RoundKeys,
    ) -> Self {
        let tower = Tower::new();
        let digits = |x: u8| tower.digits[usize::from(into(x))];
        let mut schedule = Self {
            input: tower.input(&into),
            inverse: tower.inverses(1),
            scaled: tower.inverses(invert(tower.c)),
            outputs: factors.map(|factor| tower.output(|x| digits(multiply(factor, outof(x))))),
            last: tower.output(&outof),
            next_row: std::array::from_fn(|round| rows(&places(shift, round + 1), 1)),
            row_before: std::array::from_fn(|round| rows(&places(shift, round + 1), 3)),
            unshift: Table(places(shift, ROUNDS).map(|place| place as u8)),
            keys: [Table([0; 16]); ROUNDS + 1],
        };
        for (round, (placed, key)) in schedule.keys.iter_mut().zip(keys).enumerate() {
            for (&place, &byte) in places(shift, round).iter().zip(key) {
                placed.0[place] = if round == ROUNDS { byte } else { digits(byte) };
            }
        }
        schedule
    }
}

/// Encryption: MixColumns is made of the substituted byte and its double.
pub(super) fn encryption(keys: &RoundKeys) -> Schedule<2> {
    let mut keys = *keys;
    // MixColumns' factors add up to one, so what the affine map adds to every byte comes out as it went in.
    for key in keys.iter_mut().skip(1) {
        *key = key.map(|byte| byte ^ ADDED);
    }
    Schedule::new(|x| x, affine, [1, 2], &SHIFT_ROWS, &keys)
}

/// Decryption, as the equivalent inverse cipher: the columns are made of multiples by 9, 13, 11 and 14.
pub(super) fn decryption(keys: &RoundKeys) -> Schedule<4> {
    // The inverse of the affine map's linear part.
    let unaffine = |x: u8| (0..256).map(|y| y as u8).find(|&y| affine(y) == x).unwrap_or_default();
    let mut reversed = *keys;
    reversed.reverse();
    for (round, key) in reversed.iter_mut().enumerate() {
        if (1..ROUNDS).contains(&round) {
            *key = inverse_mix(*key);
        }
        if round < ROUNDS {
            // What the affine map added goes before the next substitution.
            *key = key.map(|byte| byte ^ ADDED);
        }
    }
    let mut unshift = [0; 16];
    for (to, from) in SHIFT_ROWS.iter().enumerate() {
        unshift[usize::from(*from)] = to as u8;
    }
    Schedule::new(unaffine, |x| x, [9, 13, 11, 14], &unshift, &reversed)
}
