//! Values of properties as QEMU's visitors read them (`qapi/string-input-visitor.c`, `qapi/qobject-input-visitor.c`).

use super::release;

/// A value to be set.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    /// Of `name=text`.
    Text(&'a str),
    /// Of `+name` and `-name`.
    Switch(bool),
    /// Of `tsc-freq=text`, which QEMU reads by itself.
    Number(i64),
}

/// Reads values, and words refusals as QEMU does.
pub(super) struct Reader<'n> {
    pub release: usize,
    /// The property, as messages name it.
    pub name: &'n str,
}

type Read<T> = Result<T, String>;

impl Reader<'_> {
    /// `visit_type_bool` (`qapi/qapi-util.c:qapi_bool_parse`).
    pub(super) fn boolean(&self, value: Value<'_>) -> Read<bool> {
        match value {
            Value::Switch(on) => Ok(on),
            Value::Text("on" | "yes" | "true" | "y") => Ok(true),
            Value::Text("off" | "no" | "false" | "n") => Ok(false),
            Value::Text(_) | Value::Number(_) => Err(self.expects("'on' or 'off'")),
        }
    }

    /// `visit_type_uint8` and its wider relatives; `bits` is 8, 16, 32 or 64.
    pub(super) fn unsigned(&self, value: Value<'_>, bits: u32) -> Read<u64> {
        let number = match value {
            Value::Text(text) => strtou64(text).ok_or_else(|| self.expects("uint64"))?,
            Value::Number(number) => number as u64,
            Value::Switch(_) => return Err(self.wrong_type("integer")),
        };
        if bits < 64 && number >> bits != 0 {
            return Err(self.expects(&format!("uint{bits}_t")));
        }
        Ok(number)
    }

    /// `visit_type_int` and `visit_type_int32`; `bits` is 32 or 64.
    pub(super) fn signed(&self, value: Value<'_>, bits: u32) -> Read<i64> {
        let number = match value {
            Value::Text(text) => strtoi64(text).ok_or_else(|| self.expects("int64"))?,
            Value::Number(number) => number,
            Value::Switch(_) => return Err(self.wrong_type("integer")),
        };
        if bits == 32 && i32::try_from(number).is_err() {
            return Err(self.expects("int32_t"));
        }
        Ok(number)
    }

    /// `family`, `model` and `stepping` (`target/i386/cpu.c:x86_cpuid_version_set_family`).
    pub(super) fn identity(&self, value: Value<'_>, maximum: u32) -> Read<u32> {
        let number = if self.release < release::V10_0 {
            let number = self.signed(value, 64)?;
            u64::try_from(number).map_err(|_| self.out_of_range(number, i64::from(maximum)))?
        } else {
            self.unsigned(value, 64)?
        };
        match u32::try_from(number) {
            Ok(small) if small <= maximum => Ok(small),
            _ => Err(self.out_of_range(number as i64, i64::from(maximum))),
        }
    }

    /// `tsc-frequency`, in hertz (`target/i386/cpu.c:x86_cpuid_set_tsc_freq`).
    pub(super) fn frequency(&self, value: Value<'_>) -> Read<i64> {
        let number = self.signed(value, 64)?;
        if number < 0 { Err(self.out_of_range(number, i64::MAX)) } else { Ok(number) }
    }

    /// `vendor` (`target/i386/cpu.c:x86_cpuid_set_vendor`).
    pub(super) fn vendor(&self, value: Value<'_>) -> Read<[u8; 12]> {
        let text = self.text(value)?;
        text.as_bytes().try_into().map_err(|_| {
            if self.release < release::V10_0 {
                format!("Property '.vendor' doesn't take value '{text}'")
            } else {
                "value of property 'vendor' must consist of exactly 12 characters".to_owned()
            }
        })
    }

    /// `visit_type_str`.
    pub(super) fn text<'v>(&self, value: Value<'v>) -> Read<&'v str> {
        match value {
            Value::Text(text) => Ok(text),
            Value::Switch(_) | Value::Number(_) => Err(self.wrong_type("string")),
        }
    }

    /// `DEFINE_PROP_UINT64_CHECKMASK` (`hw/core/qdev-properties.c`).
    pub(super) fn masked(&self, value: Value<'_>, mask: u64) -> Read<u64> {
        let number = self.unsigned(value, 64)?;
        if number & !mask == 0 {
            return Ok(number);
        }
        Err(format!("Property value for '{}' has bits outside mask '0x{mask:x}'", self.name))
    }

    /// `QERR_INVALID_PARAMETER_VALUE`.
    pub(super) fn expects(&self, what: &str) -> String {
        format!("Parameter '{}' expects {what}", self.name)
    }

    /// `QERR_INVALID_PARAMETER_TYPE`.
    fn wrong_type(&self, what: &str) -> String {
        format!("Invalid parameter type for '{}', expected: {what}", self.name)
    }

    fn out_of_range(&self, value: i64, maximum: i64) -> String {
        let name = self.name;
        if self.release < release::V10_0 {
            format!("Property .{name} doesn't take value {value} (minimum: 0, maximum: {maximum})")
        } else {
            format!("parameter '{name}' can be at most {maximum}")
        }
    }
}

/// `qemu_strtou64` with base 0: decimal, `0x` hexadecimal, leading `0` octal; a minus sign wraps around.
fn strtou64(text: &str) -> Option<u64> {
    let text = text.trim_start();
    if let Some(positive) = text.strip_prefix('-') {
        return magnitude(positive).map(u64::wrapping_neg);
    }
    magnitude(text.strip_prefix('+').unwrap_or(text))
}

/// `qemu_strtoi64` with base 0.
fn strtoi64(text: &str) -> Option<i64> {
    let text = text.trim_start();
    if let Some(positive) = text.strip_prefix('-') {
        return 0_i64.checked_sub_unsigned(magnitude(positive)?);
    }
    i64::try_from(magnitude(text.strip_prefix('+').unwrap_or(text))?).ok()
}

fn magnitude(text: &str) -> Option<u64> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (text.get(2..)?, 16),
        [b'0', _, ..] => (text.get(1..)?, 8),
        _ => (text, 10),
    };
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
    plain.then(|| u64::from_str_radix(digits, radix).ok()).flatten()
}

/// `qemu_strtosz_metric`: a number and a suffix that stands for a power of 1000; no suffix is bytes. A fraction needs a
/// suffix above bytes. Before 6.0 the number is whatever `strtod` reads, exponents included; later it is decimal digits
/// with a fraction, or a hexadecimal integer. `None` if it is none.
pub(super) fn strtosz_metric(release: usize, text: &str) -> Option<u64> {
    let text = text.trim_start();
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return magnitude(text).filter(|_| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
    let number_end = if release < release::V7_2 { decimal_end(text) } else { plain_end(text) };
    let (number, suffix) = text.split_at(number_end);
    let unit = match suffix {
        "" | "B" | "b" => 1,
        "K" | "k" => 1000_u64,
        "M" | "m" => 1_000_000,
        "G" | "g" => 1_000_000_000,
        "T" | "t" => 1_000_000_000_000,
        "P" | "p" => 1_000_000_000_000_000,
        "E" | "e" => 1_000_000_000_000_000_000,
        _ => return None,
    };
    if release < release::V7_2 {
        let value: f64 = number.parse().ok()?;
        let product = value * unit as f64;
        let fits = (0.0..18_446_744_073_709_551_616.0).contains(&product);
        return (fits && (unit > 1 || value.fract() == 0.0)).then_some(product as u64);
    }
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || unit == 1 && fraction.bytes().any(|byte| byte != b'0') {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    let fraction: f64 = if fraction.is_empty() { 0.0 } else { format!("0.{fraction}").parse().ok()? };
    whole.checked_add((fraction * unit as f64) as u64)
}

/// Where digits with a fraction end.
fn plain_end(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len())
}

/// Where a decimal number with sign and exponent ends. An `e` without digits after it is no exponent.
fn decimal_end(text: &str) -> usize {
    let after = |at: usize| text.get(at..).unwrap_or_default();
    let sign = |at: usize| usize::from(after(at).starts_with(['+', '-']));
    let digits = sign(0) + plain_end(after(sign(0)));
    if !after(digits).starts_with(['e', 'E']) {
        return digits;
    }
    let exponent = digits + 1 + sign(digits + 1);
    match after(exponent).bytes().take_while(u8::is_ascii_digit).count() {
        0 => digits,
        length => exponent + length,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_strtoull_does() {
        assert_eq!(strtou64("0x1fff"), Some(0x1fff));
        assert_eq!(strtou64("010"), Some(8));
        assert_eq!(strtou64("0"), Some(0));
        assert_eq!(strtou64("-1"), Some(u64::MAX));
        assert_eq!(strtou64("12k"), None);
        assert_eq!(strtou64(""), None);
        assert_eq!(strtoi64("-9223372036854775808"), Some(i64::MIN));
        assert_eq!(strtoi64("9223372036854775808"), None);
    }

    #[test]
    fn frequencies_take_metric_suffixes() {
        for release in [0, release::V7_2] {
            let read = |text| strtosz_metric(release, text);
            assert_eq!(read("2.5G"), Some(2_500_000_000));
            assert_eq!(read("2000000000"), Some(2_000_000_000));
            assert_eq!(read("3k"), Some(3000));
            assert_eq!(read("2E"), Some(2_000_000_000_000_000_000));
            assert_eq!(read("0x10"), Some(16));
            for bad in ["x", "1Gx", "", "1.5", "-", "0x", "0x1g"] {
                assert_eq!(read(bad), None, "{bad:?}");
            }
        }
    }

    #[test]
    fn exponents_were_numbers_before_6_0() {
        assert_eq!(strtosz_metric(0, "1e9"), Some(1_000_000_000));
        assert_eq!(strtosz_metric(0, "1.5e-3k"), Some(1));
        assert_eq!(strtosz_metric(release::V7_2, "1e9"), None);
    }
}
