//! Data inside a page: as text that no parser takes for markup, and a policy that lets nothing else run.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::assets::SCRIPT;

/// JSON longer than this is embedded compressed, so that a page with many hosts stays small.
const PLAIN: usize = 100_000;

/// JSON as it may stand inside a `script` element: no `<` that could end the element, no `&`, no line separator.
pub(crate) fn script_json(value: &Value) -> String {
    let text = serde_json::to_string(value).unwrap_or_default();
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            // Outside of strings JSON has none of these.
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = std::fmt::Write::write_fmt(&mut safe, format_args!("\\u{:04x}", u32::from(character)));
            }
            other => safe.push(other),
        }
    }
    safe
}

/// The answer's JSON as it is embedded: its type, and its text.
pub(crate) fn answer(text: &str) -> (&'static str, String) {
    let value: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    let plain = script_json(&value);
    if plain.len() <= PLAIN {
        return ("application/json", plain);
    }
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    let written = packed.write_all(plain.as_bytes()).and_then(|()| packed.finish());
    // Writing to memory does not fail.
    written.map_or(("application/json", plain), |bytes| ("application/gzip", base64(&bytes)))
}

/// What the page may do: run this script, use its own styles, load nothing, send nothing.
pub(crate) fn policy() -> String {
    let hash = base64(&Sha256::digest(SCRIPT.as_bytes()));
    format!(
        "default-src 'none'; script-src 'sha256-{hash}'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; \
         form-action 'none'"
    )
}

/// Base 64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().enumerate().fold(0_u32, |word, (at, &byte)| word | u32::from(byte) << (16 - 8 * at));
        for at in 0..4 {
            let sextet = (word >> (18 - 6 * at) & 63) as usize;
            text.push(if at <= chunk.len() { char::from(ALPHABET[sextet]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn no_markup_survives_in_json() {
        let evil = serde_json::json!({"flag": "</script><script>alert(1)</script><!-- & \u{2028}"});
        let safe = script_json(&evil);
        assert!(!safe.contains(['<', '>', '&', '\u{2028}']), "{safe}");
        assert_eq!(serde_json::from_str::<Value>(&safe).unwrap(), evil);
    }
}
