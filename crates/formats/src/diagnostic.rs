//! What was wrong with an input, and where.

use std::fmt;

use cpusieve_model::Snapshot;

use crate::limits::{MAX_DIAGNOSTICS, MAX_QUOTE};
use crate::{Format, Parsed};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Nothing is wrong; the reader should know it anyway.
    Note,
    /// Part of the input was not used, or is doubtful.
    Warning,
    /// The input, or all the rest of it, could not be used.
    Error,
}

impl Severity {
    /// The word for people and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One remark on an input. Displays as `file:line: what; expected ...`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Diagnostic {
    /// The input, as the caller named it.
    pub file: String,
    /// The line, counted from 1; 0 if it is about the whole file.
    pub line: u32,
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub what: String,
    /// What would have been right, if that can be said.
    pub expected: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line != 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}", self.what)?;
        if let Some(expected) = &self.expected {
            write!(f, "; expected {expected}")?;
        }
        Ok(())
    }
}

/// How much of an input was left out, by kind. Never silent: each parser counts all that it does not use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ignored {
    /// Lines of text that hold nothing the format defines, or could not be read.
    pub lines: u64,
    /// Fields, elements and properties that are not known.
    pub fields: u64,
    /// Values that were read and not used: repeated, above the announced maximum, or over a limit.
    pub values: u64,
    /// Diagnostics beyond the first [`MAX_DIAGNOSTICS`].
    pub diagnostics: u64,
}

/// The diagnostics and counters of one input while it is parsed.
#[derive(Debug)]
pub(crate) struct Log {
    file: String,
    diagnostics: Vec<Diagnostic>,
    /// What has been left out so far; parsers count here.
    pub(crate) ignored: Ignored,
}

impl Log {
    pub(crate) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), diagnostics: Vec::new(), ignored: Ignored::default() }
    }

    pub(crate) fn note(&mut self, line: u32, what: impl Into<String>) {
        self.push(line, Severity::Note, what.into(), None);
    }

    pub(crate) fn warning(&mut self, line: u32, what: impl Into<String>) {
        self.push(line, Severity::Warning, what.into(), None);
    }

    pub(crate) fn warning_expected(&mut self, line: u32, what: impl Into<String>, expected: impl Into<String>) {
        self.push(line, Severity::Warning, what.into(), Some(expected.into()));
    }

    pub(crate) fn error(&mut self, line: u32, what: impl Into<String>) {
        self.push(line, Severity::Error, what.into(), None);
    }

    pub(crate) fn error_expected(&mut self, line: u32, what: impl Into<String>, expected: impl Into<String>) {
        self.push(line, Severity::Error, what.into(), Some(expected.into()));
    }

    /// Whether nothing was an error so far.
    pub(crate) fn is_sound(&self) -> bool {
        self.diagnostics.iter().all(|diagnostic| diagnostic.severity != Severity::Error)
    }

    /// Keeps a diagnostic; an error displaces the last lesser one if there are already as many as may be kept.
    fn push(&mut self, line: u32, severity: Severity, what: String, expected: Option<String>) {
        if self.diagnostics.len() >= MAX_DIAGNOSTICS {
            self.ignored.diagnostics += 1;
            if severity != Severity::Error {
                return;
            }
            let Some(lesser) = self.diagnostics.iter().rposition(|kept| kept.severity != Severity::Error) else {
                return;
            };
            self.diagnostics.remove(lesser);
        }
        let (what, expected) = (printable(what), expected.map(printable));
        self.diagnostics.push(Diagnostic { file: self.file.clone(), line, severity, what, expected });
    }

    /// Takes over what another parser found in a part of this input that starts after line `offset`.
    pub(crate) fn absorb(&mut self, part: &Parsed, offset: u32) {
        for diagnostic in &part.diagnostics {
            let Diagnostic { line, severity, what, expected, .. } = diagnostic.clone();
            let line = if line == 0 { 0 } else { line.saturating_add(offset) };
            self.push(line, severity, what, expected);
        }
        self.ignored.lines += part.ignored.lines;
        self.ignored.fields += part.ignored.fields;
        self.ignored.values += part.ignored.values;
        self.ignored.diagnostics += part.ignored.diagnostics;
    }

    pub(crate) fn finish(mut self, format: Format, snapshot: Snapshot) -> Parsed {
        self.diagnostics.sort_by_key(|diagnostic| diagnostic.line);
        Parsed { format, snapshot, diagnostics: self.diagnostics, ignored: self.ignored }
    }
}

/// The text without control characters: what other libraries say of an input may quote it as it stands.
fn printable(text: String) -> String {
    if text.chars().any(char::is_control) { text.replace(char::is_control, "?") } else { text }
}

/// A piece of the input in quotation marks, with what cannot be printed replaced, cut at [`MAX_QUOTE`] bytes.
pub(crate) fn quote(bytes: &[u8]) -> String {
    let shown = bytes.get(..MAX_QUOTE).unwrap_or(bytes);
    let text: String = String::from_utf8_lossy(shown).chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    format!("\"{text}{}\"", if bytes.len() > MAX_QUOTE { "..." } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diagnostics_display_their_place_and_what_was_expected() {
        let mut log = Log::new("dump.txt");
        log.warning_expected(7, "found this", "that");
        log.error(0, "not a dump");
        let shown: Vec<String> =
            log.finish(Format::Unknown, Snapshot::default()).diagnostics.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["dump.txt: not a dump", "dump.txt:7: found this; expected that"]);
    }

    #[test]
    fn diagnostics_are_bounded_and_errors_survive() {
        let mut log = Log::new("f");
        for line in 1..=150 {
            log.warning(line, "w");
        }
        log.error(151, "e");
        let parsed = log.finish(Format::Unknown, Snapshot::default());
        assert_eq!(parsed.diagnostics.len(), MAX_DIAGNOSTICS);
        assert_eq!(parsed.ignored.diagnostics, 51);
        assert_eq!(parsed.diagnostics.last().map(|d| d.severity), Some(Severity::Error));
    }

    #[test]
    fn quotations_are_cut_and_printable() {
        assert_eq!(quote(b"a\x1b[0m"), "\"a?[0m\"");
        assert_eq!(quote(&[b'x'; 100]).len(), MAX_QUOTE + 5);
        let mut log = Log::new("f");
        log.warning_expected(1, "a\x1b[0m", "b\n");
        assert_eq!(
            log.finish(Format::Unknown, Snapshot::default()).diagnostics[0].to_string(),
            "f:1: a?[0m; expected b?"
        );
    }
}
