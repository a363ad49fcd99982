//! Text for people: styles, widths, wrapped lines.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, Write as _};

use anstyle::{AnsiColor, Style};

pub(crate) const HEAD: Style = Style::new().bold();
pub(crate) const LOST: Style = AnsiColor::Red.on_default();
pub(crate) const GAINED: Style = AnsiColor::Green.on_default();
pub(crate) const QUIET: Style = Style::new().dimmed();
const WRONG: Style = AnsiColor::Red.on_default().bold();
pub(crate) const DOUBT: Style = AnsiColor::Yellow.on_default();

/// The narrowest and the widest page.
const WIDTHS: std::ops::RangeInclusive<usize> = 40..=110;

/// The columns to fill: the terminal's, within reason; 100 where there is none.
pub(crate) fn width() -> usize {
    let columns = rustix::termios::tcgetwinsize(rustix::stdio::stdout()).map(|size| usize::from(size.ws_col));
    match columns {
        Ok(columns) if columns > 0 => columns.clamp(*WIDTHS.start(), *WIDTHS.end()),
        _ => 100,
    }
}

/// A piece of text in a style.
pub(crate) fn styled(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Breaks words into lines of at most `width` columns, each behind `indent`; the first behind `first`, unless `first` is
/// so long that the first word has no room beside it, but would have some behind `indent`.
pub(crate) fn wrap(text: &str, first: &str, indent: &str, width: usize) -> String {
    let mut lines = String::with_capacity(text.len() + text.len() / 8);
    lines.push_str(first);
    let indented = columns(indent);
    let mut used = columns(first);
    let mut filled = false;
    for word in text.split_whitespace() {
        let needed = columns(word);
        let helps = filled || used > indented;
        if helps && used + usize::from(filled) + needed > width {
            lines.truncate(lines.trim_end().len());
            lines.push('\n');
            lines.push_str(indent);
            used = indented;
            filled = false;
        }
        if filled {
            lines.push(' ');
        }
        lines.push_str(word);
        used += usize::from(filled) + needed;
        filled = true;
    }
    lines.truncate(lines.trim_end().len());
    lines.push('\n');
    lines
}

/// A text as lines of at most `width` columns.
pub(crate) fn lines(text: &str, width: usize) -> Vec<String> {
    wrap(text, "", "", width).lines().map(str::to_owned).collect()
}

/// A count and what is counted; a plural has an `s`.
pub(crate) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A text from an input, without characters that a terminal would obey.
pub(crate) fn tame(text: &str) -> String {
    text.replace(char::is_control, "?")
}

/// What was captured and speaks for an answer.
pub(crate) fn seen(source: &str, values: &[String], indent: usize, width: usize) -> String {
    let line = tame(&format!("seen: {source}: {}", values.join(", ")));
    let (first, rest) = (" ".repeat(indent), " ".repeat(indent + 2));
    format!("{}\n", styled(QUIET, wrap(&line, &first, &rest, width).trim_end()))
}

/// Columns that a text fills, styles not counted.
pub(crate) fn columns(text: &str) -> usize {
    let mut escaped = false;
    text.chars()
        .filter(|&character| {
            escaped |= character == '\u{1b}';
            let counts = !escaped;
            escaped &= character != 'm';
            counts
        })
        .count()
}

/// Writes to standard output. A reader that has seen enough is no error: the verb's own status stands.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let stdout = io::stdout().lock();
    let plain = anstream::AutoStream::choice(&stdout) == anstream::ColorChoice::Never;
    let text = if plain && !is_plain(text) {
        Cow::Owned(anstream::adapter::strip_str(text).to_string())
    } else {
        Cow::Borrowed(text)
    };
    drop(stdout);
    print_as_it_is(&text)
}

/// Writes to standard output what is no text for a terminal: every byte of it.
pub(crate) fn print_as_it_is(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    // In one piece: a line at a time would be a system call a line.
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| io::Error::new(error.kind(), format!("standard output: {error}"))),
    }
}

/// Whether there is nothing in a text that a terminal would obey, but for the ends of its lines.
fn is_plain(text: &str) -> bool {
    // To the end in any case: so it is many bytes at a time.
    !text.bytes().fold(false, |obeyed, byte| obeyed | (byte < b' ' && byte != b'\n') | (byte == 0x7f))
}

/// An error, on standard error.
pub(crate) fn complain(error: &dyn Display) {
    note(&styled(WRONG, "error"), error);
}

/// A warning, on standard error.
pub(crate) fn warn(warning: &dyn Display) {
    note(&styled(DOUBT, "warning"), warning);
}

fn note(kind: &str, text: &dyn Display) {
    // There is nothing left to tell the user with when standard error is gone.
    let _ = writeln!(anstream::stderr(), "{kind}: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrap("aa bb cc dd", "  ", "  ", 7), "  aa bb\n  cc dd\n");
        assert_eq!(wrap("a-word-that-is-too-long b", "", " ", 5), "a-word-that-is-too-long\n b\n");
        assert_eq!(wrap("", "x", "", 5), "x\n");
        assert_eq!(wrap("word", "a first: ", "  ", 10), "a first:\n  word\n");
        assert_eq!(wrap("word", "  x: ", "     ", 6), "  x: word\n");
    }

    #[test]
    fn styles_fill_no_columns() {
        assert_eq!(columns(&styled(LOST, "abc")), 3);
    }
}
