//! Lines and numbers of text formats, out of bytes that may be anything.

use std::borrow::Cow;

use crate::diagnostic::Log;
use crate::limits::{MAX_FILE, MAX_LINE};

/// The input as bytes that a parser can take: cut to [`MAX_FILE`], without byte order mark, UTF-16 and NULs turned into
/// what they stand for, carriage returns alone turned into line ends. Borrows unless something had to be changed.
pub(crate) fn prepare<'a>(log: &mut Log, bytes: &'a [u8]) -> Cow<'a, [u8]> {
    let bytes = cut(log, bytes);
    let mut text = match bytes {
        [0xef, 0xbb, 0xbf, rest @ ..] => Cow::Borrowed(rest),
        [0xff, 0xfe, rest @ ..] => Cow::Owned(from_utf16(rest, u16::from_le_bytes)),
        [0xfe, 0xff, rest @ ..] => Cow::Owned(from_utf16(rest, u16::from_be_bytes)),
        _ => Cow::Borrowed(bytes),
    };
    if text.contains(&0) {
        let line = 1 + text.iter().take_while(|&&byte| byte != 0).filter(|&&byte| byte == b'\n').count();
        log.warning(u32::try_from(line).unwrap_or(0), "a NUL byte, read as a blank (is this a text file?)");
        replace(text.to_mut(), 0, b' ');
    }
    if !text.contains(&b'\n') && text.contains(&b'\r') {
        replace(text.to_mut(), b'\r', b'\n');
    }
    text
}

/// Cuts an input that is too large behind its last whole line.
fn cut<'a>(log: &mut Log, bytes: &'a [u8]) -> &'a [u8] {
    let Some(head) = bytes.get(..MAX_FILE).filter(|_| bytes.len() > MAX_FILE) else {
        return bytes;
    };
    log.error_expected(
        0,
        format!("the file has {} bytes and only the first {MAX_FILE} are read", bytes.len()),
        format!("at most {MAX_FILE} bytes"),
    );
    let end = head.iter().rposition(|&byte| byte == b'\n').map_or(head.len(), |last| last + 1);
    head.get(..end).unwrap_or(head)
}

fn replace(bytes: &mut [u8], from: u8, to: u8) {
    for byte in bytes {
        if *byte == from {
            *byte = to;
        }
    }
}

fn from_utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Vec<u8> {
    let (pairs, _) = bytes.as_chunks::<2>();
    let units = pairs.iter().map(|&pair| unit(pair));
    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect::<String>().into_bytes()
}

/// Text out of bytes: UTF-8, or else Latin-1, which AIDA64 and old DMI strings are written in.
pub(crate) fn to_text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.iter().map(|&byte| char::from(byte)).collect()),
    }
}

/// The lines of a text, with their numbers counted from 1, without line ends.
#[derive(Clone, Debug)]
pub(crate) struct Lines<'a> {
    rest: &'a [u8],
    number: u32,
}

impl<'a> Lines<'a> {
    pub(crate) const fn new(text: &'a [u8]) -> Self {
        Self { rest: text, number: 0 }
    }

    /// The next line; lines longer than [`MAX_LINE`] are reported and passed over.
    #[inline]
    pub(crate) fn next(&mut self, log: &mut Log) -> Option<(u32, &'a [u8])> {
        loop {
            let (number, line) = self.next_of_any_length()?;
            if line.len() <= MAX_LINE {
                return Some((number, line));
            }
            log.ignored.lines += 1;
            log.warning_expected(number, format!("a line of {} bytes", line.len()), format!("at most {MAX_LINE}"));
        }
    }

    #[inline]
    pub(crate) fn next_of_any_length(&mut self) -> Option<(u32, &'a [u8])> {
        if self.rest.is_empty() {
            return None;
        }
        let (line, rest) = match self.rest.iter().position(|&byte| byte == b'\n') {
            Some(end) => self.rest.split_at_checked(end).map_or((self.rest, &[][..]), |(line, rest)| {
                (line, rest.split_first().map_or(&[][..], |(_, rest)| rest))
            }),
            None => (self.rest, &[][..]),
        };
        self.rest = rest;
        self.number = self.number.saturating_add(1);
        Some((self.number, line.strip_suffix(b"\r").unwrap_or(line)))
    }

    /// What has not been given out yet.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The number of the line given out last.
    pub(crate) const fn number(&self) -> u32 {
        self.number
    }

    /// Goes past `length` bytes, the last of which ends a line.
    #[inline]
    pub(crate) fn skip_line_of(&mut self, length: usize) {
        self.rest = self.rest.get(length..).unwrap_or(&[]);
        self.number = self.number.saturating_add(1);
    }
}

/// A cursor in one line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scan<'a>(pub(crate) &'a [u8]);

impl<'a> Scan<'a> {
    /// Goes past blanks and tabs, and says whether there were any.
    pub(crate) fn blanks(&mut self) -> bool {
        let rest = self.0.trim_ascii_start();
        let moved = rest.len() < self.0.len();
        self.0 = rest;
        moved
    }

    /// Goes past `word`, whatever its case, if it stands here.
    pub(crate) fn word(&mut self, word: &[u8]) -> Option<()> {
        let (head, rest) = self.0.split_at_checked(word.len())?;
        head.eq_ignore_ascii_case(word).then(|| self.0 = rest)
    }

    /// Goes past one byte out of `set`, if one stands here.
    pub(crate) fn one_of(&mut self, set: &[u8]) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        set.contains(&first).then(|| {
            self.0 = rest;
            first
        })
    }

    /// A hexadecimal number of 1 to 8 digits, with or without `0x`.
    pub(crate) fn hex(&mut self) -> Option<u32> {
        if let [b'0', b'x' | b'X', rest @ ..] = self.0 {
            self.0 = rest;
        }
        let digits = self.0.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (head, rest) = self.0.split_at_checked(digits).filter(|_| (1..=8).contains(&digits))?;
        self.0 = rest;
        Some(head.iter().fold(0, |number, &digit| number << 4 | u32::from(hex_digit(digit))))
    }

    /// A hexadecimal number of exactly `N` digits (at most 8), without `0x`.
    pub(crate) fn hex_exactly<const N: usize>(&mut self) -> Option<u32> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        if rest.first().is_some_and(u8::is_ascii_hexdigit) {
            return None;
        }
        let number = hex_digits(head)?;
        self.0 = rest;
        Some(number)
    }

    /// A decimal number that fits into 32 bits.
    pub(crate) fn decimal(&mut self) -> Option<u32> {
        let digits = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (head, rest) = self.0.split_at_checked(digits).filter(|_| digits > 0)?;
        let number = head
            .iter()
            .try_fold(0_u32, |number, &digit| number.checked_mul(10)?.checked_add(u32::from(digit - b'0')))?;
        self.0 = rest;
        Some(number)
    }
}

/// The value of each hexadecimal digit; 0xff for all other bytes.
const HEX: [u8; 256] = {
    let mut table = [0xff; 256];
    let mut digit = 0;
    while digit < 16 {
        table[b"0123456789abcdef"[digit] as usize] = digit as u8;
        table[b"0123456789ABCDEF"[digit] as usize] = digit as u8;
        digit += 1;
    }
    table
};

const fn hex_digit(byte: u8) -> u8 {
    HEX[byte as usize]
}

/// The number that `N` (at most 8) hexadecimal digits stand for; all are looked at before one decides, which is faster.
#[inline]
pub(crate) fn hex_digits<const N: usize>(digits: &[u8; N]) -> Option<u32> {
    let mut number = 0_u32;
    let mut bad = 0_u8;
    for &digit in digits {
        let value = hex_digit(digit);
        bad |= value;
        number = number << 4 | u32::from(value & 0xf);
    }
    (bad < 0x10).then_some(number)
}

/// Whether `text` contains `word`.
pub(crate) fn contains(text: &[u8], word: &[u8]) -> bool {
    find(text, word).is_some()
}

/// Where `word` stands in `text` for the first time.
pub(crate) fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len().max(1)).position(|window| window == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(bytes: &[u8]) -> (Vec<u8>, usize) {
        let mut log = Log::new("f");
        let text = prepare(&mut log, bytes).into_owned();
        (text, log.finish(crate::Format::Unknown, Default::default()).diagnostics.len())
    }

    #[test]
    fn encodings_are_turned_into_plain_lines() {
        assert_eq!(prepared(b"\xef\xbb\xbfab\n"), (b"ab\n".to_vec(), 0));
        assert_eq!(prepared(b"\xff\xfea\0\n\0"), (b"a\n".to_vec(), 0));
        assert_eq!(prepared(b"\xfe\xff\0a\0\n"), (b"a\n".to_vec(), 0));
        assert_eq!(prepared(b"a\rb\r"), (b"a\nb\n".to_vec(), 0));
        assert_eq!(prepared(b"a\0b\n"), (b"a b\n".to_vec(), 1));
        assert_eq!(to_text(b"caf\xe9"), "caf\u{e9}");
    }

    #[test]
    fn a_file_that_is_too_large_is_cut_behind_a_line() {
        let mut bytes = vec![b'x'; MAX_FILE + 10];
        bytes[MAX_FILE - 5] = b'\n';
        let (text, diagnostics) = prepared(&bytes);
        assert_eq!((text.len(), diagnostics), (MAX_FILE - 4, 1));
    }

    #[test]
    fn lines_have_numbers_and_lose_their_ends() {
        let mut log = Log::new("f");
        let long = "y".repeat(MAX_LINE + 1);
        let text = format!("a\r\n\n{long}\nb");
        let mut lines = Lines::new(text.as_bytes());
        let all: Vec<_> = std::iter::from_fn(|| lines.next(&mut log)).collect();
        assert_eq!(all, [(1, &b"a"[..]), (2, b""), (4, b"b")]);
        assert_eq!(log.ignored.lines, 1);
    }

    #[test]
    fn numbers_are_read_only_whole() {
        assert_eq!(Scan(b"0x1F ").hex(), Some(0x1f));
        assert_eq!(Scan(b"123456789").hex(), None);
        assert_eq!(Scan(b"g").hex(), None);
        assert_eq!(Scan(b"0000000F-").hex_exactly::<8>(), Some(15));
        assert_eq!(Scan(b"0000000F0").hex_exactly::<8>(), None);
        assert_eq!(Scan(b"4294967295").decimal(), Some(u32::MAX));
        assert_eq!(Scan(b"4294967296").decimal(), None);
    }
}
