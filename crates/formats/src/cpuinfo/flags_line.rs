//! One `flags` line alone, as people paste it: with or without `flags :` before it, on one line or wrapped.

use cpusieve_model::{Cpu, Cpuinfo, Snapshot};

use super::{Kind, Shared};
use crate::diagnostic::{Log, quote};
use crate::text::{Lines, prepare};
use crate::{Format, Parsed};

/// Flags that are as old as flags lines: a text that has some of these is one.
const OLD_FLAGS: [&[u8]; 12] =
    [b"fpu", b"vme", b"de", b"pse", b"tsc", b"msr", b"cx8", b"cmov", b"mmx", b"fxsr", b"sse", b"sse2"];

/// How many words of a line are [`OLD_FLAGS`].
pub(crate) fn known_flags(line: &[u8]) -> usize {
    words(line).filter(|word| OLD_FLAGS.contains(word)).count()
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// Whether a word can be a flag: small letters, digits, and the punctuation that kernels and hypervisors use in names.
pub(crate) fn is_flag(word: &[u8]) -> bool {
    word.len() <= 40
        && word.first().is_some_and(u8::is_ascii_alphanumeric)
        && word.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_-.+".contains(byte))
}

/// Reads `flags`, `vmx flags` and `bugs` lines, or a text that is nothing but flags. Lines without a colon continue the
/// line before.
#[must_use]
pub fn parse(name: &str, bytes: &[u8]) -> Parsed {
    let mut log = Log::new(name);
    let text = prepare(&mut log, bytes);
    let mut lists: Vec<List> = Vec::new();
    let mut lines = Lines::new(&text);
    let mut before: &[u8] = b"";
    while let Some((number, line)) = lines.next(&mut log) {
        let (kind, value) = match labelled(line) {
            Some((Some(kind), value)) => (Some(kind), value),
            Some((None, _)) => {
                log.ignored.lines += 1;
                let expected = "`flags : ...`, `vmx flags : ...` or `bugs : ...`";
                log.warning_expected(number, format!("{} is not read", quote(line.trim_ascii())), expected);
                continue;
            }
            None => (None, line),
        };
        if value.trim_ascii().is_empty() && kind.is_none() {
            before = b"";
            continue;
        }
        let continues = kind.is_none() && !lists.is_empty();
        if !continues {
            lists.push(List { line: number, kind: kind.unwrap_or(Kind::Flags), words: Vec::new() });
        } else if cuts_a_word(before, line) {
            log.note(
                number,
                format!(
                    "the line is wrapped here without a blank; {} and {} are taken for two words",
                    quote(words(before).last().unwrap_or_default()),
                    quote(words(line).next().unwrap_or_default())
                ),
            );
        }
        if let Some(list) = lists.last_mut() {
            list.take(&mut log, number, value);
        }
        before = line;
    }
    let mut cpuinfo = Cpuinfo::default();
    let mut shared = Shared::default();
    for list in &lists {
        let flags = shared.list(&mut log, list.line, list.kind, &list.words);
        list.kind.put(&mut log, list.line, &mut cpuinfo, flags);
    }
    let mut snapshot = Snapshot::default();
    if cpuinfo == Cpuinfo::default() {
        log.error_expected(0, "no line of flags", "`flags : fpu vme ...`");
    } else {
        snapshot.cpus.push(Cpu { cpuinfo: Some(cpuinfo), ..Cpu::default() });
    }
    log.finish(Format::FlagsLine, snapshot)
}

/// One line of flags, put together again.
struct List {
    line: u32,
    kind: Kind,
    /// The flags, each with a blank behind it.
    words: Vec<u8>,
}

impl List {
    fn take(&mut self, log: &mut Log, number: u32, value: &[u8]) {
        for word in words(value) {
            if is_flag(word) {
                self.words.extend_from_slice(word);
                self.words.push(b' ');
            } else {
                log.ignored.values += 1;
                log.warning_expected(number, format!("{} is not used", quote(word)), "the name of a flag");
            }
        }
    }
}

/// The line's label, if it has one, which kind of flags it names, and what follows.
fn labelled(line: &[u8]) -> Option<(Option<Kind>, &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let (key, value) = line.split_at_checked(colon)?;
    Some((Kind::of(&key.trim_ascii().to_ascii_lowercase()), value.get(1..)?))
}

/// Whether a word may have been cut in two between these lines: no blank stands on either side, and the first line is
/// at least as long as the second, as it is where a terminal wraps.
fn cuts_a_word(before: &[u8], line: &[u8]) -> bool {
    let ends = before.last().is_some_and(|byte| !byte.is_ascii_whitespace());
    let starts = line.first().is_some_and(|byte| !byte.is_ascii_whitespace());
    ends && starts && before.len() >= line.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(text: &str) -> (Vec<String>, Parsed) {
        let parsed = parse("f", text.as_bytes());
        let flags = parsed.snapshot.flags().map(|list| list.iter().map(str::to_owned).collect());
        (flags.unwrap_or_default(), parsed)
    }

    #[test]
    fn labels_and_wraps_do_not_matter() {
        for text in [
            "flags\t\t: fpu vme sse4_1\n",
            "fpu vme sse4_1",
            "Flags: fpu\n  vme \nsse4_1",
            "flags : fpu vme\n sse4_1\n\n",
        ] {
            let (flags, parsed) = flags(text);
            assert_eq!(
                (flags, parsed.diagnostics),
                (["fpu", "vme", "sse4_1"].map(String::from).to_vec(), vec![]),
                "{text}"
            );
        }
    }

    #[test]
    fn a_wrap_inside_a_word_is_noted() {
        let (flags, parsed) = flags("fpu vme ss\ne4_1 lm");
        assert_eq!(flags, ["fpu", "vme", "ss", "e4_1", "lm"]);
        assert_eq!(
            parsed.diagnostics.iter().map(|d| (d.line, d.severity)).collect::<Vec<_>>(),
            [(2, crate::Severity::Note)]
        );
    }

    #[test]
    fn all_three_kinds_and_repetitions() {
        let (flags, parsed) = flags("flags : fpu vme\nflags : fpu vme\nvmx flags : vnmi\nbugs :\n");
        assert_eq!((flags.len(), parsed.diagnostics.len(), parsed.ignored.values), (2, 0, 1));
        let cpuinfo = parsed.snapshot.cpus[0].cpuinfo.clone().unwrap();
        assert!(cpuinfo.vmx_flags.unwrap().contains("vnmi") && cpuinfo.bugs.unwrap().is_empty());
    }

    #[test]
    fn two_lines_that_differ_and_words_that_are_no_flags_are_reported() {
        let (flags, parsed) = flags("flags : fpu vme =)\nflags : fpu\nmodel : 3\n");
        assert_eq!(flags, ["fpu", "vme"]);
        assert_eq!(parsed.diagnostics.iter().map(|d| d.line).collect::<Vec<_>>(), [1, 2, 3]);
    }
}
