//! Constant expressions and strings of C, made of macros without parameters.

use std::collections::BTreeMap;

use crate::c;

/// What any build defines, and what stands in headers that name nothing else of use. A tree's own definition wins.
/// `QEMU_HW_VERSION` never changed since 2.5, which is its point.
const BUILT_IN: [(&str, &str); 6] = [
    ("KiB", "1024"),
    ("KVM_CPUID_FEATURES", "0x40000001"),
    ("MiB", "1048576"),
    ("true", "1"),
    ("false", "0"),
    ("QEMU_HW_VERSION", "\"2.5+\""),
];

/// How deep macros and parentheses may nest.
const DEPTH: u8 = 40;

/// Macros by name.
pub(super) struct Macros(BTreeMap<String, String>);

impl Macros {
    /// The macros of the texts, of which lines that do not count are already gone.
    pub(super) fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut found: BTreeMap<String, String> =
            BUILT_IN.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        for text in texts {
            for line in c::logical_lines(text) {
                if let Some((name, value)) = c::define(&line.text) {
                    found.insert(name.to_owned(), value.to_owned());
                }
            }
        }
        Self(found)
    }

    /// The value of an expression of numbers, macros, `~ * + - << >> & ^ |` and parentheses, as a `uint64_t` that it
    /// initializes. None if something in it is unknown.
    pub(super) fn value(&self, text: &str) -> Option<u64> {
        Some(self.number(text, 0)?.extended())
    }

    fn number(&self, text: &str, depth: u8) -> Option<Number> {
        let mut reader = Reader { macros: self, rest: text.trim(), depth };
        let value = reader.binary(0)?;
        reader.rest.is_empty().then_some(value)
    }

    /// The text that string literals and macros that follow each other make.
    pub(super) fn string(&self, text: &str) -> Option<String> {
        self.string_within(text, 0)
    }

    fn string_within(&self, text: &str, depth: u8) -> Option<String> {
        if depth > DEPTH {
            return None;
        }
        let mut rest = text.trim();
        while let Some(inside) = rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
            rest = inside.trim();
        }
        let mut out = String::new();
        while !rest.is_empty() {
            if let Some(literal) = rest.strip_prefix('"') {
                let (inside, after) = literal.split_once('"')?;
                out.push_str(inside);
                rest = after.trim_start();
            } else {
                let (name, after) = word(rest)?;
                out.push_str(&self.string_within(self.0.get(name)?, depth + 1)?);
                rest = after.trim_start();
            }
        }
        Some(out)
    }
}

/// An integer of C: 32 or 64 bits, signed or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Number {
    bits: u64,
    wide: bool,
    unsigned: bool,
}

impl Number {
    const fn new(bits: u64, wide: bool, unsigned: bool) -> Self {
        Self { bits: if wide { bits } else { bits & 0xffff_ffff }, wide, unsigned }
    }

    /// Widened to 64 bits, with its sign if it has one.
    const fn extended(self) -> u64 {
        let negative = !self.wide && !self.unsigned && self.bits >> 31 == 1;
        if negative { self.bits | 0xffff_ffff_0000_0000 } else { self.bits }
    }

    fn with(self, other: Self, operation: impl Fn(u64, u64) -> u64) -> Self {
        let wide = self.wide || other.wide;
        let side = |number: Self| if wide { number.extended() } else { number.bits };
        Self::new(operation(side(self), side(other)), wide, self.unsigned || other.unsigned)
    }
}

/// The binary operators, from the weakest to the strongest.
const OPERATORS: [&[&str]; 6] = [&["|"], &["^"], &["&"], &["<<", ">>"], &["+", "-"], &["*"]];

struct Reader<'a> {
    macros: &'a Macros,
    rest: &'a str,
    depth: u8,
}

impl<'a> Reader<'a> {
    fn eat(&mut self, token: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(token) else { return false };
        self.rest = rest.trim_start();
        true
    }

    fn binary(&mut self, strength: usize) -> Option<Number> {
        let Some(operators) = OPERATORS.get(strength) else { return self.unary() };
        let mut left = self.binary(strength + 1)?;
        while let Some(operator) = operators.iter().find(|operator| self.eat(operator)) {
            let right = self.binary(strength + 1)?;
            let shift = u32::try_from(right.bits).unwrap_or(u32::MAX);
            left = match *operator {
                "|" => left.with(right, |a, b| a | b),
                "^" => left.with(right, |a, b| a ^ b),
                "&" => left.with(right, |a, b| a & b),
                "<<" => Number::new(left.bits.checked_shl(shift)?, left.wide, left.unsigned),
                ">>" => Number::new(left.bits.checked_shr(shift)?, left.wide, left.unsigned),
                "+" => left.with(right, u64::wrapping_add),
                "-" => left.with(right, u64::wrapping_sub),
                _ => left.with(right, u64::wrapping_mul),
            };
        }
        Some(left)
    }

    fn unary(&mut self) -> Option<Number> {
        if self.depth > DEPTH {
            return None;
        }
        self.depth += 1;
        let value = self.operand();
        self.depth -= 1;
        value
    }

    fn operand(&mut self) -> Option<Number> {
        if self.eat("~") {
            let value = self.unary()?;
            return Some(Number::new(!value.bits, value.wide, value.unsigned));
        }
        if self.eat("(") {
            let value = self.binary(0)?;
            return self.eat(")").then_some(value);
        }
        let (word, rest) = word(self.rest)?;
        self.rest = rest.trim_start();
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            return literal(word);
        }
        self.macros.number(self.macros.0.get(word)?, self.depth + 1)
    }
}

/// The identifier or number at the start of a text, and the rest.
fn word(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c::is_word(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn literal(text: &str) -> Option<Number> {
    let digits = text.trim_end_matches(['u', 'U', 'l', 'L']);
    let suffix = text.get(digits.len()..)?.to_ascii_lowercase();
    let hexadecimal = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let bits = match hexadecimal {
        Some(digits) => u64::from_str_radix(digits, 16).ok()?,
        None => digits.parse().ok()?,
    };
    let wide = suffix.contains('l') || bits > 0xffff_ffff || hexadecimal.is_none() && bits > 0x7fff_ffff;
    // A hexadecimal number that fits no signed type is unsigned.
    let unsigned = suffix.contains('u') || hexadecimal.is_some() && bits >> (if wide { 63 } else { 31 }) == 1;
    Some(Number::new(bits, wide, unsigned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        let macros =
            Macros::new(["#define A (1U << 3)\n#define B \\\n (A | 0x1)\n#define LOOP LOOP\n#define W (1ULL << 62)"]);
        let value = |text| macros.value(text);
        assert_eq!(value("B | 1 << 31"), Some(0xffff_ffff_8000_0009 & 0xffff_ffff), "unsigned wins");
        assert_eq!((value("1 << 31"), value("1u << 31")), (Some(0xffff_ffff_8000_0000), Some(0x8000_0000)));
        assert_eq!((value("~0"), value("~0U"), value("~0ull")), (Some(u64::MAX), Some(0xffff_ffff), Some(u64::MAX)));
        assert_eq!(
            (value("W | A"), value("2 * KiB + 1"), value("0xffffffff")),
            (Some(0x4000_0000_0000_0008), Some(2049), Some(0xffff_ffff))
        );
        assert_eq!(
            (value("A & ~B"), value("(A"), value("A B"), value("C"), value("LOOP")),
            (Some(0), None, None, None, None)
        );
        assert_eq!(value("1 << 99"), None);
    }

    #[test]
    fn strings() {
        let macros = Macros::new(["#define T \"x86_64-cpu\"\n#define S \"-\" T\n#define R R"]);
        assert_eq!(macros.string("(\"EPYC\" S)").as_deref(), Some("EPYC-x86_64-cpu"));
        assert_eq!(macros.string("\"v\" QEMU_HW_VERSION").as_deref(), Some("v2.5+"));
        assert_eq!((macros.string("R"), macros.string("\"open")), (None, None));
    }
}
