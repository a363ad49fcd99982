//! Numbers in texts: a prediction's explanations hold thousands, and a formatter would take longer than what they explain.

use std::fmt;

/// Writes a number in upper-case hexadecimal, with at least so many digits.
pub(crate) fn hex(to: &mut impl fmt::Write, number: u64, least: u32) -> fmt::Result {
    written(to, number, least, b'A')
}

/// Writes a number in lower-case hexadecimal, with at least so many digits.
pub(crate) fn lower_hex(to: &mut impl fmt::Write, number: u64, least: u32) -> fmt::Result {
    written(to, number, least, b'a')
}

/// A number as C writes it: `0x1f`.
///
/// Explanations hold many, and a formatter would take longer than what they explain.
#[must_use]
pub fn hexadecimal(number: u64) -> String {
    let mut text = String::with_capacity(18);
    text.push_str("0x");
    // A text takes everything.
    let _ = lower_hex(&mut text, number, 1);
    text
}

fn written(to: &mut impl fmt::Write, number: u64, least: u32, ten: u8) -> fmt::Result {
    let needed = (u64::BITS - number.leading_zeros()).div_ceil(4).max(least).max(1);
    for digit in (0..needed).rev() {
        let value = (number >> (4 * digit) & 0xf) as u8;
        to.write_char(char::from(if value < 10 { b'0' + value } else { ten + value - 10 }))?;
    }
    Ok(())
}

/// Writes a decimal number below 1000.
pub(crate) fn decimal(to: &mut impl fmt::Write, number: u8) -> fmt::Result {
    let places = [(100, number / 100), (10, number / 10 % 10), (1, number % 10)];
    for (_, digit) in places.into_iter().filter(|&(place, _)| number >= place || place == 1) {
        to.write_char(char::from(b'0' + digit))?;
    }
    Ok(())
}

/// Writes a bit's number as `[22]`.
pub(crate) fn in_brackets(to: &mut impl fmt::Write, bit: u8) -> fmt::Result {
    to.write_char('[')?;
    decimal(to, bit)?;
    to.write_char(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_a_formatter_writes_them() {
        for number in [0, 1, 9, 10, 0x1f, 0xabcd, 0xdead_beef, u64::MAX] {
            for least in [0, 1, 2, 8, 16] {
                let (mut upper, mut lower) = (String::new(), String::new());
                hex(&mut upper, number, least).unwrap();
                lower_hex(&mut lower, number, least).unwrap();
                assert_eq!(hexadecimal(number), format!("{number:#x}"));
                let width = least as usize;
                assert_eq!((upper, lower), (format!("{number:0width$X}"), format!("{number:0width$x}")));
            }
        }
        for number in 0..=u8::MAX {
            let mut text = String::new();
            in_brackets(&mut text, number).unwrap();
            assert_eq!(text, format!("[{number}]"));
        }
    }
}
