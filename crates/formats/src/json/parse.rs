//! The grammar of RFC 8259, into a list of nodes.

use std::borrow::Cow;
use std::collections::HashSet;

use super::{Kind, Node, length};
use crate::limits::{MAX_DIAGNOSTICS, MAX_JSON_DEPTH, MAX_JSON_VALUES};
use crate::text::to_text;

/// Objects with at most this many keys are searched for repeated keys pair by pair, which needs no memory.
const FEW_KEYS: usize = 8;

/// What was read, and what ended it.
pub(super) struct Outcome {
    pub(super) nodes: Vec<Node>,
    /// First and last byte of keys that stood before in their object; one more than diagnostics are kept.
    pub(super) repeated: Vec<(u32, u32)>,
    pub(super) stop: Option<Stop>,
}

/// Why and where reading ended before the end of the input.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stop {
    pub(super) offset: usize,
    pub(super) what: Fault,
}

/// What was wrong.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// The text is not JSON; what would have been.
    Syntax(&'static str),
    /// Nested too deep.
    Deep,
    /// Too many values.
    Many,
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    keys: HashSet<&'a [u8]>,
    repeated: Vec<(u32, u32)>,
}

/// Reads values until the end of the input or the first error.
pub(super) fn parse(bytes: &[u8]) -> Outcome {
    // A value of a record takes nine bytes on average: one allocation for most files.
    let nodes = Vec::with_capacity((bytes.len() / 8).min(MAX_JSON_VALUES));
    let mut parser = Parser { bytes, at: 0, nodes, keys: HashSet::new(), repeated: Vec::new() };
    let stop = loop {
        parser.skip_blanks();
        if parser.at == bytes.len() && !parser.nodes.is_empty() {
            break None;
        }
        if let Err(stop) = parser.value(0) {
            break Some(stop);
        }
    };
    Outcome { nodes: parser.nodes, repeated: parser.repeated, stop }
}

impl<'a> Parser<'a> {
    fn value(&mut self, depth: usize) -> Result<(), Stop> {
        match self.peek() {
            Some(b'{') => self.container(Kind::Object, depth, Self::members),
            Some(b'[') => self.container(Kind::Array, depth, Self::items),
            Some(b'"') => self.string(Kind::String),
            Some(b't') => self.word(b"true", Kind::Bool),
            Some(b'f') => self.word(b"false", Kind::Bool),
            Some(b'n') => self.word(b"null", Kind::Null),
            Some(b'-' | b'0'..=b'9') => self.number(depth),
            _ => self.syntax("a value"),
        }
    }

    /// Opens a container, reads what is in it, and closes it even if that failed, so that what was read is kept.
    fn container(
        &mut self,
        kind: Kind,
        depth: usize,
        content: fn(&mut Self, usize) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        if depth >= MAX_JSON_DEPTH {
            return Err(Stop { offset: self.at, what: Fault::Deep });
        }
        let index = self.nodes.len();
        self.push(kind, self.at)?;
        self.at += 1;
        let outcome = content(self, depth + 1);
        let (end, next) = (offset(self.at), length(&self.nodes));
        if let Some(node) = self.nodes.get_mut(index) {
            node.end = end;
            node.next = next;
        }
        if kind == Kind::Object {
            self.find_repeated(index);
        }
        outcome
    }

    fn items(&mut self, depth: usize) -> Result<(), Stop> {
        self.skip_blanks();
        if self.take(b']') {
            return Ok(());
        }
        loop {
            self.skip_blanks();
            self.value(depth)?;
            self.skip_blanks();
            if self.take(b']') {
                return Ok(());
            }
            if !self.take(b',') {
                return self.syntax("\",\" or \"]\"");
            }
        }
    }

    fn members(&mut self, depth: usize) -> Result<(), Stop> {
        self.skip_blanks();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.skip_blanks();
            let key = self.nodes.len();
            let member = self.member(depth);
            if member.is_err() && self.nodes.len() <= key + 1 {
                self.nodes.truncate(key);
            }
            member?;
            self.skip_blanks();
            if self.take(b'}') {
                return Ok(());
            }
            if !self.take(b',') {
                return self.syntax("\",\" or \"}\"");
            }
        }
    }

    fn member(&mut self, depth: usize) -> Result<(), Stop> {
        if self.peek() != Some(b'"') {
            return self.syntax("a key in quotation marks");
        }
        self.string(Kind::String)?;
        self.skip_blanks();
        if !self.take(b':') {
            return self.syntax("\":\"");
        }
        self.skip_blanks();
        self.value(depth)
    }

    fn string(&mut self, kind: Kind) -> Result<(), Stop> {
        let start = self.at;
        self.at += 1;
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            self.at += rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)).unwrap_or(rest.len());
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return self.push(kind, start);
                }
                Some(b'\\') => {
                    self.at += 1;
                    self.escape()?;
                }
                Some(_) => return self.syntax("no control character in a string"),
                None => return self.syntax("the end of a string"),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Stop> {
        let digits = match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 0,
            Some(b'u') => 4,
            _ => return self.syntax("an escape that JSON knows"),
        };
        self.at += 1;
        for _ in 0..digits {
            if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                return self.syntax("four hexadecimal digits");
            }
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self, depth: usize) -> Result<(), Stop> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.digits()?;
        }
        // A number at the very end of a cut-off container may have lost digits.
        if depth > 0 && self.at == self.bytes.len() {
            return self.syntax("more after a number");
        }
        self.push(Kind::Number, start)
    }

    fn digits(&mut self) -> Result<(), Stop> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return self.syntax("a digit");
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn word(&mut self, word: &[u8], kind: Kind) -> Result<(), Stop> {
        if !self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            return self.syntax("a value");
        }
        let start = self.at;
        self.at += word.len();
        self.push(kind, start)
    }

    fn push(&mut self, kind: Kind, start: usize) -> Result<(), Stop> {
        if self.nodes.len() >= MAX_JSON_VALUES {
            return Err(Stop { offset: start, what: Fault::Many });
        }
        let next = length(&self.nodes) + 1;
        self.nodes.push(Node { start: offset(start), end: offset(self.at), next, kind });
        Ok(())
    }

    /// Remembers the keys of an object that stood in it before.
    fn find_repeated(&mut self, object: usize) {
        if self.repeated.len() > MAX_DIAGNOSTICS {
            return;
        }
        let (nodes, bytes) = (&self.nodes, self.bytes);
        let mut keys = std::iter::successors(Some(object + 1), |&key| Some(nodes.get(key + 1)?.next as usize))
            .map_while(|key| nodes.get(key).map(|node| (node.start, node.end)));
        let text = |(start, end): (u32, u32)| bytes.get(start as usize..end as usize).unwrap_or_default();
        let mut few = [(0, 0); FEW_KEYS];
        for count in 0..FEW_KEYS {
            let Some(key) = keys.next() else { return };
            let (before, rest) = few.split_at_mut(count);
            if before.iter().any(|&other| text(other) == text(key)) {
                self.repeated.push(key);
            }
            if let Some(place) = rest.first_mut() {
                *place = key;
            }
        }
        self.keys.clear();
        self.keys.extend(few.map(text));
        for key in keys {
            if !self.keys.insert(text(key)) && self.repeated.len() <= MAX_DIAGNOSTICS {
                self.repeated.push(key);
            }
        }
    }

    fn syntax<T>(&self, expected: &'static str) -> Result<T, Stop> {
        Err(Stop { offset: self.at, what: Fault::Syntax(expected) })
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }
}

/// An offset as it is stored; files are shorter than 4 GiB because they are cut at `MAX_FILE`.
fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// The characters between the quotation marks of a string. Bytes that are not UTF-8 are taken for Latin-1; half
/// a surrogate pair becomes U+FFFD.
pub(super) fn unescape(raw: &[u8]) -> Cow<'_, str> {
    if !raw.contains(&b'\\') {
        return to_text(raw);
    }
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.iter().position(|&byte| byte == b'\\') {
        let (plain, escape) = rest.split_at(at);
        text.push_str(&to_text(plain));
        let (character, length) = unescape_one(escape);
        text.push(character);
        rest = escape.get(length..).unwrap_or_default();
    }
    text.push_str(&to_text(rest));
    Cow::Owned(text)
}

/// The character of the escape with which `escape` begins, and the escape's length.
fn unescape_one(escape: &[u8]) -> (char, usize) {
    let character = match escape.get(1) {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unescape_unicode(escape),
        Some(&other) => char::from(other),
        None => char::REPLACEMENT_CHARACTER,
    };
    (character, 2)
}

fn unescape_unicode(escape: &[u8]) -> (char, usize) {
    let unit = |at: usize| {
        let digits = std::str::from_utf8(escape.get(at + 2..at + 6)?).ok()?;
        if escape.get(at..at + 2) == Some(b"\\u") { u32::from_str_radix(digits, 16).ok() } else { None }
    };
    let Some(first) = unit(0) else { return (char::REPLACEMENT_CHARACTER, 2) };
    if let (0xd800..0xdc00, Some(second @ 0xdc00..0xe000)) = (first, unit(6)) {
        let scalar = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        return (char::from_u32(scalar).unwrap_or(char::REPLACEMENT_CHARACTER), 12);
    }
    (char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), 6)
}
