//! Finding messages in a text: literal words, gaps, and things that are taken out.

use std::sync::LazyLock;

use super::{BRANDS, Brand, MESSAGES, Message};
use crate::x86;

/// A part of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// These words, in lower case.
    Text(&'static str),
    /// At most `MAX_GAP` bytes of anything.
    Gap,
    /// Something that is taken out.
    Take(Take),
}

/// What a pattern takes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// A word without its quotation marks.
    Word,
    /// Names of features, separated by commas or blanks.
    Names,
    /// A hexadecimal number, with or without `0x`.
    Hex,
    /// A decimal number.
    Number,
}

/// Something taken out of a text: the kind, and where in the text it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The kind.
    pub take: Take,
    /// Byte ranges: one, or for [`Take::Names`] one a name.
    pub ranges: Vec<(usize, usize)>,
}

/// A message found in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The message.
    pub message: &'static Message,
    /// Where it begins, in bytes.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// What was taken out, in order.
    pub taken: Vec<Taken>,
}

/// How much a gap may be, in bytes.
const MAX_GAP: usize = 160;
/// How often one pattern is looked for in one text.
const MAX_FOUND: usize = 256;
/// How many messages one text may have; further ones are not looked at.
const MAX_ALL: usize = 1 << 12;
/// How many names one list may have.
const MAX_NAMES: usize = 128;

/// The messages in a text of lower-case letters, by place. Where two overlap, the earlier row of the tables counts;
/// rows whose tags do not fit are passed over. Hints come first, since the others hang on their tags.
#[must_use]
pub fn find(lower: &str) -> Vec<Found> {
    let starts = INDEX.starts(lower);
    let mut found: Vec<Found> = Vec::new();
    let mut tags: Vec<&'static str> = Vec::new();
    let rows = || MESSAGES.iter().zip(0_u16..);
    for (message, row) in rows().filter(|(message, _)| message.tag.is_some()) {
        let hints = all(message, row, lower, &starts);
        if let (Some(first), Some(tag)) = (hints.into_iter().next(), message.tag) {
            tags.push(tag);
            found.push(first);
        }
    }
    let hints = found.len();
    for (message, row) in rows().filter(|(message, _)| message.tag.is_none() && counts(message, &tags)) {
        for new in all(message, row, lower, &starts) {
            let free = |old: &Found| new.end <= old.start || old.end <= new.start;
            if found.len() < MAX_ALL && found.get(hints..).unwrap_or_default().iter().all(free) {
                found.push(new);
            }
        }
    }
    if let Some(troubles) = found.get_mut(hints..) {
        troubles.sort_by_key(|found| found.start);
    }
    found
}

fn counts(message: &Message, tags: &[&str]) -> bool {
    let there = |tag: &&str| tags.contains(tag);
    (message.with.is_empty() || message.with.iter().any(there)) && !message.without.iter().any(there)
}

/// How much of a text is looked through for the name of a CPU, in bytes.
const MAX_FOR_BRAND: usize = 1 << 18;

/// The first brand in a text, and where it stands.
#[must_use]
pub fn find_brand(lower: &str) -> Option<(&'static Brand, usize)> {
    let mut end = MAX_FOR_BRAND.min(lower.len());
    while !lower.is_char_boundary(end) {
        end += 1;
    }
    let text = lower.get(..end)?;
    BRANDS.iter().find_map(|brand| {
        let at = brand.says.iter().find_map(|says| {
            let Some((Piece::Text(first), rest)) = says.split_first() else { return None };
            text.match_indices(first).find(|(at, _)| follow(rest, text, at + first.len()).is_some())
        })?;
        Some((brand, at.0))
    })
}

/// The first letters of every pattern, so that a text is gone through once for all of them.
struct Index {
    /// By the first three bytes: row and pattern.
    by_key: Vec<(u32, u16, u16)>,
    /// Which keys, folded to 16 bits, there are at all.
    there: Vec<u64>,
}

/// Where patterns may begin: row, pattern, place; sorted.
type Starts = Vec<(u16, u16, usize)>;

/// How many places of one text are kept. A text that goes beyond is nothing that a program printed.
const MAX_STARTS: usize = 1 << 20;

static INDEX: LazyLock<Index> = LazyLock::new(Index::new);

impl Index {
    fn new() -> Self {
        let mut index = Self { by_key: Vec::new(), there: vec![0; 1 << 10] };
        for (message, row) in MESSAGES.iter().zip(0_u16..) {
            for (says, pattern) in message.says.iter().zip(0_u16..) {
                let Some(Piece::Text(first)) = says.first() else { continue };
                let Some(key) = first.as_bytes().get(..3).map(key) else { continue };
                index.by_key.push((key, row, pattern));
                if let Some(word) = index.there.get_mut(folded(key) >> 6) {
                    *word |= 1 << (folded(key) & 63);
                }
            }
        }
        index.by_key.sort_unstable();
        index
    }

    fn starts(&self, lower: &str) -> Starts {
        let mut starts = Starts::new();
        for (at, window) in lower.as_bytes().windows(3).enumerate() {
            let key = key(window);
            let slot = folded(key);
            if self.there.get(slot >> 6).is_none_or(|word| word >> (slot & 63) & 1 == 0) {
                continue;
            }
            let first = self.by_key.partition_point(|(known, ..)| *known < key);
            let same = self.by_key.get(first..).unwrap_or_default().iter().take_while(|(known, ..)| *known == key);
            for &(_, row, pattern) in same {
                let says = MESSAGES.get(usize::from(row)).and_then(|message| message.says.get(usize::from(pattern)));
                let Some(Piece::Text(first)) = says.and_then(|says| says.first()) else { continue };
                if starts.len() < MAX_STARTS && lower.get(at..).is_some_and(|text| text.starts_with(first)) {
                    starts.push((row, pattern, at));
                }
            }
        }
        starts.sort_unstable();
        starts
    }
}

fn key(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |key, byte| key << 8 | u32::from(*byte))
}

/// A key in 16 bits.
fn folded(key: u32) -> usize {
    (key.wrapping_mul(0x9e37_79b1) >> 16) as usize
}

fn all(message: &'static Message, row: u16, lower: &str, starts: &Starts) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    for (says, pattern) in message.says.iter().zip(0_u16..) {
        let first = starts.partition_point(|(r, p, _)| (*r, *p) < (row, pattern));
        let places = starts.get(first..).unwrap_or_default().iter().take_while(|(r, p, _)| (*r, *p) == (row, pattern));
        for (start, end, taken) in occurrences(says, lower, places.map(|(.., at)| *at)) {
            if found.iter().all(|old| end <= old.start || old.end <= start) {
                found.push(Found { message, start, end, taken });
            }
        }
    }
    found.sort_by_key(|found| found.start);
    found
}

fn occurrences(says: &[Piece], lower: &str, places: impl Iterator<Item = usize>) -> Vec<(usize, usize, Vec<Taken>)> {
    let mut found = Vec::new();
    let Some((Piece::Text(first), rest)) = says.split_first() else { return found };
    let mut from = 0;
    for at in places {
        if at < from {
            continue;
        }
        if let Some((end, taken)) = follow(rest, lower, at + first.len()) {
            from = end.max(at + first.len());
            found.push((at, end, taken));
            if found.len() >= MAX_FOUND {
                break;
            }
        }
    }
    found
}

/// The rest of a pattern, from a place on.
fn follow(rest: &[Piece], lower: &str, mut at: usize) -> Option<(usize, Vec<Taken>)> {
    let mut taken = Vec::new();
    let mut gap = false;
    for piece in rest {
        let text = lower.get(at..)?;
        match piece {
            Piece::Gap => gap = true,
            Piece::Text(words) if gap => {
                let within = text.get(..end_of_gap(text, words.len()))?;
                at += within.find(words)? + words.len();
                gap = false;
            }
            Piece::Text(words) => {
                text.starts_with(words).then_some(())?;
                at += words.len();
            }
            Piece::Take(take) => {
                let ranges = match take {
                    Take::Names => names(text),
                    _ => word(text, *take).into_iter().collect(),
                };
                let last = ranges.last()?.1;
                taken.push(Taken { take: *take, ranges: ranges.iter().map(|(a, b)| (a + at, b + at)).collect() });
                at += last;
                gap = false;
            }
        }
    }
    // `without avx` is not said where `without avx2` is.
    let letter = lower.get(..at)?.ends_with(|c: char| c.is_ascii_lowercase());
    let cut = letter && lower.get(at..)?.starts_with(|c: char| c.is_ascii_digit());
    (!cut || matches!(rest.last(), Some(Piece::Take(_)))).then_some((at, taken))
}

/// Where a gap with these words after it ends at the latest, on a boundary between characters.
fn end_of_gap(text: &str, words: usize) -> usize {
    let mut end = (MAX_GAP + words).min(text.len());
    while !text.is_char_boundary(end) {
        end += 1;
    }
    end
}

/// Blanks, quotation marks and colons in front of what is meant.
fn skip(text: &str, also: &[char]) -> usize {
    let skipped = |c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '`' | '‘' | '’' | '“') || also.contains(&c);
    text.find(|c: char| !skipped(c)).unwrap_or(text.len())
}

fn word(text: &str, take: Take) -> Option<(usize, usize)> {
    let start = skip(text, &[]);
    let rest = text.get(start..)?;
    let belongs = |c: char| match take {
        Take::Hex => c.is_ascii_hexdigit() || c == 'x',
        Take::Number => c.is_ascii_digit(),
        Take::Word | Take::Names => c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '+' | '/' | '@' | '='),
    };
    let end = rest.find(|c: char| !belongs(c)).unwrap_or(rest.len());
    let found = rest.get(..end)?.trim_end_matches('.');
    if take == Take::Hex {
        let digits = found.strip_prefix("0x").unwrap_or(found);
        (!digits.is_empty() && digits.len() <= 16 && !digits.contains('x')).then_some(())?;
    }
    (!found.is_empty()).then_some((start, start + found.len()))
}

/// A list of names. A name that nobody knows is one only between commas.
fn names(text: &str) -> Vec<(usize, usize)> {
    const BETWEEN: [char; 8] = [',', '[', ']', '(', ')', '|', '{', '}'];
    let mut found: Vec<(usize, usize)> = Vec::new();
    let mut at = 0;
    let mut passed = 0;
    while found.len() + passed < MAX_NAMES {
        let Some(rest) = text.get(at..) else { break };
        let skipped = skip(rest, &BETWEEN);
        let comma = found.is_empty() || rest.get(..skipped).is_some_and(|between| between.contains(','));
        let Some(rest) = rest.get(skipped..) else { break };
        let whole = name_at(rest);
        let name = whole.trim_end_matches(['.', '-']);
        if name.is_empty() {
            break;
        }
        let start = at + skipped;
        at = start + whole.len();
        if matches!(name, "and" | "or") && !found.is_empty() {
            continue;
        }
        let known = !x86::resolve(name.trim_start_matches(['+', '-'])).is_empty();
        if known || (comma && is_name(name)) {
            found.push((start, start + name.len()));
        } else if comma && rest.get(whole.len()..).is_some_and(|after| after.starts_with(',')) {
            passed += 1;
        } else {
            break;
        }
        if name.len() < whole.len() && whole.ends_with('.') {
            break;
        }
    }
    found
}

/// The characters of a name; `SSE 4.2` is one.
fn name_at(text: &str) -> &str {
    let belongs = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+');
    let end = text.find(|c: char| !belongs(c)).unwrap_or(text.len());
    let (first, rest) = text.split_at(end);
    if matches!(first, "sse" | "avx")
        && rest.starts_with(' ')
        && rest.get(1..).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    {
        let more =
            rest.get(1..).and_then(|rest| rest.find(|c: char| !belongs(c))).unwrap_or(rest.len().saturating_sub(1));
        return text.get(..end + 1 + more).unwrap_or(first);
    }
    first
}

/// Whether a word may be the name of a feature that is not known here.
fn is_name(word: &str) -> bool {
    word.len() <= 40 && word.chars().any(|c| c.is_ascii_digit() || matches!(c, '-' | '_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(text: &str) -> Vec<&str> {
        names(text).into_iter().map(|(start, end)| &text[start..end]).collect()
    }

    #[test]
    fn names_end_where_sentences_do() {
        assert_eq!(listed(" avx, xsave, new-one, aes."), ["avx", "xsave", "new-one", "aes"]);
        assert_eq!(listed("[cx8, cmov, sse4_1]."), ["cx8", "cmov", "sse4_1"]);
        assert_eq!(listed("avx and avx2 instructions"), ["avx", "avx2"]);
        assert_eq!(listed("svm. avx"), ["svm"]);
        assert_eq!(listed("sse, whatever, sse 4.2 and popcnt"), ["sse", "sse 4.2", "popcnt"]);
        assert_eq!(listed("nothing of the kind"), [""; 0]);
    }

    #[test]
    fn words_and_numbers_are_taken_without_quotes() {
        assert_eq!(word(" 'kvm64' not", Take::Word), Some((2, 7)));
        assert_eq!(word("0x10a to", Take::Hex), Some((0, 5)));
        assert_eq!(word("xyz", Take::Hex), None);
        assert_eq!(word("48) does", Take::Number), Some((0, 2)));
    }

    #[test]
    fn names_are_not_cut_before_their_numbers() {
        let says = &[Piece::Text("without avx")];
        assert_eq!(occurrences(says, "without avx, or so", 0..1).len(), 1);
        assert!(occurrences(says, "without avx2", 0..1).is_empty());
    }

    #[test]
    fn gaps_are_bounded() {
        let says = &[Piece::Text("a"), Piece::Gap, Piece::Text("z")];
        assert_eq!(occurrences(says, "a b z", 0..1).len(), 1);
        assert!(occurrences(says, &format!("a{}z", "ä".repeat(MAX_GAP)), 0..1).is_empty());
    }

    #[test]
    fn every_pattern_is_found_where_it_stands() {
        for message in MESSAGES {
            for says in message.says {
                let Some(Piece::Text(first)) = says.first() else { panic!("{}", message.id) };
                assert!(first.len() >= 3, "{}: `{first}` is too short", message.id);
            }
        }
        let text = "xx disabled by bios yy disabled by bios";
        assert_eq!(INDEX.starts(text).iter().filter(|(.., at)| *at == 3 || *at == 23).count() % 2, 0);
        assert!(find(text).iter().any(|found| found.message.features == ["vmx"]));
    }
}
