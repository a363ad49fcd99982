//! JSON of which every value knows its line, and of which the readable part survives an error.
//!
//! `serde_json` is what we write with, and the oracle of the tests here. It is not what we read with, because a
//! diagnostic needs the line of a value that is wrong but well-formed, because a record that was cut off still holds
//! whole CPUs, and because its tree of a hostile file takes forty times the file's size: here a value takes 16 bytes,
//! and their number is bounded.

mod fields;
mod parse;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt::Write as _;

pub(crate) use fields::{Fields, hex};

use crate::diagnostic::{Log, quote};
use crate::limits::{MAX_JSON_DEPTH, MAX_JSON_VALUES};
use crate::position::Lines;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

/// One value, or one key. The children of an object are its keys, each followed by its value.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// The first byte.
    start: u32,
    /// One past the last byte.
    end: u32,
    /// The node after this one and all that is in it.
    next: u32,
    kind: Kind,
}

/// All JSON values of one input, which may stand one after the other without a comma (QMP writes them so).
#[derive(Debug)]
pub(crate) struct Document<'a> {
    bytes: &'a [u8],
    nodes: Vec<Node>,
    lines: Lines<'a>,
}

/// One value of a document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value<'d> {
    document: &'d Document<'d>,
    index: u32,
}

impl<'a> Document<'a> {
    /// Reads all values of `bytes`, which `text::prepare` has cut to size; what is wrong with the text goes to `log`, and what stands before it is kept.
    pub(crate) fn read(bytes: &'a [u8], log: &mut Log) -> Self {
        let lines = Lines::new(bytes);
        if let Err(error) = std::str::from_utf8(bytes)
            && error.error_len().is_some()
        {
            log.warning_expected(lines.at(error.valid_up_to()), "bytes that are not UTF-8", "JSON in UTF-8");
        }
        let outcome = parse::parse(bytes);
        for &(start, end) in &outcome.repeated {
            if is_full(log) {
                log.ignored.diagnostics += 1;
                continue;
            }
            let key = bytes.get(start as usize + 1..(end as usize).saturating_sub(1)).unwrap_or_default();
            let what = format!("the key {} stands twice in one object; the last counts", quote(key));
            log.warning(lines.at(start as usize), what);
        }
        if let Some(stop) = outcome.stop {
            let what = match stop.what {
                parse::Fault::Syntax(expected) if stop.offset >= bytes.len() => {
                    format!("the JSON ends too early; expected {expected}")
                }
                parse::Fault::Syntax(expected) => {
                    let found = bytes.get(stop.offset..).unwrap_or_default();
                    let end = found.iter().position(|byte| byte.is_ascii_whitespace()).unwrap_or(found.len());
                    let found = found.get(..end.clamp(1, 20)).unwrap_or(found);
                    format!("not JSON: {}; expected {expected}", quote(found))
                }
                parse::Fault::Deep => format!("JSON nested deeper than {MAX_JSON_DEPTH} levels; the rest is not read"),
                parse::Fault::Many => format!("more than {MAX_JSON_VALUES} JSON values; the rest is not read"),
            };
            log.error(lines.at(stop.offset), what);
        }
        Self { bytes, nodes: outcome.nodes, lines }
    }

    /// The values that stand in no other.
    pub(crate) fn roots(&self) -> impl Iterator<Item = Value<'_>> {
        Siblings { document: self, index: 0, end: length(&self.nodes) }
    }

    /// The line of a byte.
    pub(crate) fn line(&self, offset: usize) -> u32 {
        self.lines.at(offset)
    }
}

/// Whether a further diagnostic would only be counted: then its words and its place need not be found out.
fn is_full(log: &Log) -> bool {
    log.ignored.diagnostics > 0
}

fn length(nodes: &[Node]) -> u32 {
    u32::try_from(nodes.len()).unwrap_or(u32::MAX)
}

impl<'d> Value<'d> {
    fn node(self) -> Node {
        let nothing = Node { start: 0, end: 0, next: self.index + 1, kind: Kind::Null };
        self.document.nodes.get(self.index as usize).copied().unwrap_or(nothing)
    }

    #[inline]
    pub(crate) fn kind(self) -> Kind {
        self.node().kind
    }

    /// The text of the value as it stands in the input.
    pub(crate) fn raw(self) -> &'d [u8] {
        let node = self.node();
        self.document.bytes.get(node.start as usize..node.end as usize).unwrap_or_default()
    }

    /// The value for a message, cut if it is long.
    pub(crate) fn shown(self) -> String {
        let raw = self.raw();
        match self.kind() {
            Kind::String => quote(raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default()),
            Kind::Array => "an array".to_owned(),
            Kind::Object => "an object".to_owned(),
            Kind::Null | Kind::Bool | Kind::Number => quote(raw).replace('"', ""),
        }
    }

    /// The line on which the value starts.
    pub(crate) fn line(self) -> u32 {
        self.document.line(self.node().start as usize)
    }

    /// The characters of a string, with escapes resolved.
    pub(crate) fn text(self) -> Option<Cow<'d, str>> {
        if self.kind() != Kind::String {
            return None;
        }
        let raw = self.raw();
        Some(parse::unescape(raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default()))
    }

    /// A whole number that is not negative.
    pub(crate) fn u64(self) -> Option<u64> {
        if self.kind() != Kind::Number { None } else { std::str::from_utf8(self.raw()).ok()?.parse().ok() }
    }

    /// A whole number.
    pub(crate) fn i64(self) -> Option<i64> {
        if self.kind() != Kind::Number { None } else { std::str::from_utf8(self.raw()).ok()?.parse().ok() }
    }

    /// `true` or `false`.
    pub(crate) fn bool(self) -> Option<bool> {
        if self.kind() != Kind::Bool { None } else { Some(self.raw() == b"true") }
    }

    /// The values of an array; none for anything else.
    pub(crate) fn items(self) -> impl Iterator<Item = Value<'d>> {
        self.children(Kind::Array)
    }

    /// The keys of an object with their values, in their order; none for anything else.
    pub(crate) fn members(self) -> impl Iterator<Item = (Cow<'d, str>, Value<'d>)> {
        let mut children = self.children(Kind::Object);
        std::iter::from_fn(move || Some((children.next()?.text()?, children.next()?)))
    }

    /// The value of a key of an object; the last one, if the key is repeated.
    pub(crate) fn get(self, key: &str) -> Option<Value<'d>> {
        self.members().filter(|(name, _)| name == key).last().map(|(_, value)| value)
    }

    fn children(self, of: Kind) -> Siblings<'d> {
        let node = self.node();
        let end = if node.kind == of { node.next } else { self.index };
        Siblings { document: self.document, index: self.index + 1, end }
    }

    /// The way from the root to this value: `cpus[0].cpuid[3].eax`; empty for a root.
    pub(crate) fn path(self) -> String {
        let mut path = String::new();
        let holds = |value: &Value<'d>| value.index <= self.index && self.index < value.node().next;
        let Some(mut at) = self.document.roots().find(holds) else { return path };
        while at.index != self.index {
            if at.kind() == Kind::Array {
                let Some((number, item)) = at.items().enumerate().find(|(_, item)| holds(item)) else { return path };
                let _ = write!(path, "[{number}]");
                at = item;
            } else {
                let Some((key, value)) = at.members().find(|(_, value)| holds(value)) else { return path };
                let plain = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
                if plain && key.len() <= 40 && !key.starts_with("0x") {
                    path.push_str(if path.is_empty() { "" } else { "." });
                    path.push_str(&key);
                } else {
                    let _ = write!(path, "[{}]", quote(key.as_bytes()));
                }
                at = value;
            }
        }
        path
    }
}

/// Values that stand side by side.
struct Siblings<'d> {
    document: &'d Document<'d>,
    index: u32,
    end: u32,
}

impl<'d> Iterator for Siblings<'d> {
    type Item = Value<'d>;

    fn next(&mut self) -> Option<Value<'d>> {
        if self.index >= self.end {
            return None;
        }
        let value = Value { document: self.document, index: self.index };
        self.index = value.node().next.max(self.index + 1);
        Some(value)
    }
}
