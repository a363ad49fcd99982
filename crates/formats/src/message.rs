//! What people paste: lines of logs and terminals, wrapped by whatever passed them on.
//!
//! Nothing is concluded here: the text is laid out so that messages can be found in it. JSON's and YAML's escapes,
//! HTML's entities, doubled quotation marks and terminal colours are undone, and lines broken in the middle of a
//! sentence are joined in [`Paste::flow`]. What has a grammar of its own is read: the places in QEMU's warnings
//! ([`requested`]) and the instructions of dumps and disassemblies ([`Paste::shown`]).
//!
//! ```
//! let paste = cpusieve_formats::message::parse(b"msg=\"a\\nqemu: error: failed to set\n  MSR 0x10a to 0x0\"");
//! assert!(paste.lower.contains("failed to set msr 0x10a"));
//! assert_eq!((paste.lines.len(), paste.lines_read), (3, 2));
//! ```

mod requested;
mod shown;

pub use requested::{Requested, Where, requested};
pub use shown::Shown;

/// The size of a paste, in bytes: what lies beyond is not read.
pub const MAX_PASTE: usize = 4 << 20;
/// Lines of a paste that are read.
const MAX_LINES: usize = 1 << 16;
/// The length of one line, in bytes; longer ones are cut.
const MAX_LINE: usize = 1 << 16;

/// A paste, laid out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paste {
    /// The lines that say something, unescaped; an escaped newline begins another one of the same number.
    pub lines: Vec<Line>,
    /// How many lines the input has that are not blank.
    pub lines_read: usize,
    /// All lines in one, with single blanks between words.
    pub flow: String,
    /// The same in lower case; ASCII letters alone are changed, so that places agree.
    pub lower: String,
    /// Where the lines begin in `flow`.
    starts: Vec<(usize, u32)>,
    /// Whether more was there than is read.
    pub cut: bool,
    /// The instructions that are shown, as bytes or as text.
    pub shown: Vec<Shown>,
}

/// A line of a paste.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The number in the input, from 1.
    pub number: u32,
    /// Its text.
    pub text: String,
}

impl Paste {
    /// The number of the line that a place in `flow` is on.
    #[must_use]
    pub fn line_at(&self, offset: usize) -> u32 {
        let after = self.starts.partition_point(|(start, _)| *start <= offset);
        self.starts.get(after.saturating_sub(1)).map_or(1, |(_, line)| *line)
    }

    /// A piece of `flow`; empty if there is none.
    #[must_use]
    pub fn piece(&self, range: (usize, usize)) -> &str {
        self.flow.get(range.0..range.1).unwrap_or_default()
    }
}

/// Lays a paste out.
#[must_use]
pub fn parse(bytes: &[u8]) -> Paste {
    let cut = bytes.len() > MAX_PASTE;
    let text = String::from_utf8_lossy(bytes.get(..MAX_PASTE).unwrap_or(bytes));
    let mut paste = Paste { cut, ..Paste::default() };
    for (number, line) in (1_u32..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        paste.lines_read += 1;
        if paste.lines.len() >= MAX_LINES {
            paste.cut = true;
            continue;
        }
        for text in unescape(line).split('\n').filter(|text| !text.trim().is_empty()) {
            paste.lines.push(Line { number, text: text.trim_end().to_owned() });
        }
    }
    for line in &paste.lines {
        let mut begun = false;
        for word in line.text.split_whitespace() {
            if !paste.flow.is_empty() {
                paste.flow.push(' ');
            }
            if !begun {
                paste.starts.push((paste.flow.len(), line.number));
                begun = true;
            }
            paste.flow.push_str(word);
        }
    }
    paste.lower = paste.flow.to_ascii_lowercase();
    paste.shown = shown::all(&paste.lines);
    paste
}

/// HTML's entities that logs on web pages have.
const ENTITIES: [(&str, char); 6] =
    [("&gt;", '>'), ("&lt;", '<'), ("&quot;", '"'), ("&#39;", '\''), ("&apos;", '\''), ("&amp;", '&')];

/// Undoes what wrappers did to a line. An escaped newline becomes a real one.
fn unescape(line: &str) -> String {
    let mut out = String::with_capacity(line.len().min(MAX_LINE));
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        if out.len() >= MAX_LINE {
            break;
        }
        let (piece, skip) = match c {
            '\\' => escape(rest),
            '\u{1b}' => (None, colour(rest)),
            '&' => entity(rest),
            '\'' if rest.starts_with("''") => (Some('\''), 2),
            '‘' | '’' | '´' => (Some('\''), c.len_utf8()),
            '“' | '”' => (Some('"'), c.len_utf8()),
            '\u{a0}' => (Some(' '), c.len_utf8()),
            '\t' => (Some(' '), 1),
            c if c.is_control() => (None, c.len_utf8()),
            c => (Some(c), c.len_utf8()),
        };
        out.extend(piece);
        rest = rest.get(skip.max(1)..).unwrap_or_default();
    }
    out
}

/// `\n`, `\"`, `\\n`, `\u003e`: what it stands for, and how long it is.
fn escape(rest: &str) -> (Option<char>, usize) {
    let slashes = rest.len() - rest.trim_start_matches('\\').len();
    let after = rest.get(slashes..).unwrap_or_default();
    match after.chars().next() {
        Some('n' | 'r') => (Some('\n'), slashes + 1),
        Some('t') => (Some(' '), slashes + 1),
        Some(quote @ ('"' | '\'')) => (Some(quote), slashes + 1),
        Some('u') => {
            let code = after.get(1..5).and_then(|digits| u32::from_str_radix(digits, 16).ok()).and_then(char::from_u32);
            match code {
                Some(code) => (Some(if code.is_control() { ' ' } else { code }), slashes + 5),
                None => (Some('\\'), slashes),
            }
        }
        _ => (Some('\\'), slashes),
    }
}

fn entity(rest: &str) -> (Option<char>, usize) {
    let known = ENTITIES.iter().find(|(entity, _)| rest.starts_with(entity));
    known.map_or((Some('&'), 1), |(entity, meant)| (Some(*meant), entity.len()))
}

/// The length of a terminal's escape sequence.
fn colour(rest: &str) -> usize {
    let Some(body) = rest.strip_prefix("\u{1b}[") else { return 1 };
    body.find(|c: char| c.is_ascii_alphabetic()).filter(|length| *length < 16).map_or(1, |length| length + 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_are_undone() {
        assert_eq!(
            unescape("a \\\\n b \\\"c\\\" \\u003e &gt; it''s it’s \u{1b}[31mred\u{1b}[0m"),
            "a \n b \"c\" > > it's it's red"
        );
        assert_eq!(unescape("\\u12 \\"), "\\u12 \\");
        let paste = parse("one\n\n two  three\n".as_bytes());
        assert_eq!(paste.flow, "one two three");
        assert_eq!((paste.line_at(0), paste.line_at(4), paste.line_at(99)), (1, 3, 3));
    }

    #[test]
    fn a_paste_is_bounded() {
        let paste = parse(&b"x\n".repeat(MAX_LINES + 10));
        assert!(paste.cut && paste.lines.len() == MAX_LINES);
        assert!(parse(&vec![b'a'; MAX_PASTE + 1]).flow.len() <= MAX_LINE);
    }
}
