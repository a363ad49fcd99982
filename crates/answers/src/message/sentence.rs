//! Sentences of programs that no row knows: a feature's name, and then words that say that it is missing.

use cpusieve_formats::message::Paste;
use cpusieve_knowledge::messages::{Found, MESSAGES, Take, Taken};
use cpusieve_knowledge::x86::{self, Group};

/// What follows the names.
const MISSING: [&str; 12] = [
    "not supported",
    "required",
    "unsupported",
    "not available",
    "not detected",
    "missing",
    "not present",
    "not found",
    "aren't available",
    "needed",
    "unavailable",
    "not enabled",
];
/// Words that stand between a name and these.
const BETWEEN: [&str; 22] = [
    "is",
    "are",
    "be",
    "was",
    "support",
    "instruction",
    "instructions",
    "set",
    "sets",
    "extension",
    "extensions",
    "feature",
    "features",
    "flag",
    "flags",
    "cpu",
    "simd",
    "and",
    "or",
    "the",
    "but",
    "hardware",
];
/// How far back names are looked for, in bytes.
const BACK: usize = 120;
/// The row that says what such a sentence means.
const ROW: &str = "MSG0513";

/// The first sentence that says of instructions that they are missing.
pub(super) fn find(paste: &Paste) -> Option<Found> {
    let message = MESSAGES.iter().find(|message| message.id == ROW)?;
    let mut places: Vec<usize> = MISSING.iter().filter_map(|words| paste.lower.find(words)).collect();
    places.sort_unstable();
    places.into_iter().find_map(|end| {
        let ranges = names_before(&paste.lower, end);
        let start = ranges.first()?.0;
        Some(Found { message, start, end, taken: vec![Taken { take: Take::Names, ranges }] })
    })
}

/// The names of instruction sets that stand right before a place.
fn names_before(lower: &str, end: usize) -> Vec<(usize, usize)> {
    let mut start = end.saturating_sub(BACK);
    while !lower.is_char_boundary(start) {
        start += 1;
    }
    let text = lower.get(start..end).unwrap_or_default();
    let mut ranges = Vec::new();
    let belongs = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let mut rest = text;
    loop {
        rest = rest.trim_end_matches(|c: char| !belongs(c) && !matches!(c, ':' | ';'));
        let from = rest.rfind(|c: char| !belongs(c)).map_or(0, |at| at + 1);
        let word = rest.get(from..).unwrap_or_default();
        let name = word.trim_end_matches('.');
        // `SSE 4.2` is one name.
        let family = rest
            .get(..from)
            .map(str::trim_end)
            .and_then(|before| ["sse", "avx"].into_iter().find(|family| before.ends_with(family)));
        if let Some(family) = family.filter(|family| {
            is_instruction_set(&format!("{family}{name}")) && name.starts_with(|c: char| c.is_ascii_digit())
        }) {
            let first = rest.get(..from).map_or(0, |before| before.trim_end().len() - family.len());
            ranges.push((start + first, start + from + name.len()));
            rest = rest.get(..first).unwrap_or_default();
            continue;
        }
        if is_instruction_set(name) && name.len() == word.len() {
            ranges.push((start + from, start + from + name.len()));
        } else if word.is_empty() || !BETWEEN.contains(&word) {
            break;
        }
        rest = rest.get(..from).unwrap_or_default();
    }
    ranges.reverse();
    ranges
}

/// Whether a word names instructions, and is no word of everyday language.
fn is_instruction_set(word: &str) -> bool {
    let instructions = [Group::Simd, Group::Amx, Group::Crypto, Group::Base, Group::Random];
    let like_one = word.chars().any(|c| c.is_ascii_digit())
        || ["avx", "sse", "aes", "aes-ni", "popcnt", "fma", "movbe", "rdrand", "pclmulqdq", "lzcnt", "pclmul"]
            .contains(&word);
    like_one && x86::resolve(word).first().is_some_and(|feature| instructions.contains(&feature.group))
}
