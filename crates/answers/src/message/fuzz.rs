//! What must hold for every paste, however hostile: one function for the fuzz target and for the ordinary tests.

use cpusieve_formats::message::{MAX_PASTE, parse};

use super::explain;

/// The features and places that one answer may have at most: all that lists and warnings of a bounded paste can name.
const MAX_NAMED: usize = 1 << 14;

/// Reads and explains `bytes`, and says which invariant is broken, if one is: the answer is bounded, its lines exist,
/// and a second reading gives the same.
///
/// # Errors
///
/// The invariant that does not hold, in words.
pub fn check(bytes: &[u8]) -> Result<(), String> {
    let paste = parse(bytes);
    if parse(bytes) != paste || paste.flow.len() != paste.lower.len() {
        return Err("two readings differ".to_owned());
    }
    // Three bytes stand for each that is no UTF-8, and a blank between any two lines.
    if paste.flow.len() > 4 * bytes.len().min(MAX_PASTE) {
        return Err(format!("{} bytes became {}", bytes.len(), paste.flow.len()));
    }
    let answer = explain(&paste, None);
    if explain(&paste, None) != answer {
        return Err("two answers differ".to_owned());
    }
    if answer.ignored > answer.lines || answer.features().len() > MAX_NAMED || answer.bits().len() > MAX_NAMED {
        return Err(format!("{} of {} lines ignored", answer.ignored, answer.lines));
    }
    let last = paste.lines.last().map_or(0, |line| line.number);
    if let Some(line) = answer.causes.iter().flat_map(|cause| &cause.lines).find(|line| **line == 0 || **line > last) {
        return Err(format!("line {line} of {last}"));
    }
    Ok(())
}
