//! Where hosts come from: files, folders, and lines of standard input.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use cpusieve_formats::limits;

use crate::input::{self, InputError};

/// Folders in one another that are looked into.
const MAX_DEPTH: usize = 32;

/// One input, not yet understood.
pub(in crate::verbs) struct Source {
    /// What the user calls it.
    pub(in crate::verbs) name: String,
    /// What is in it.
    pub(in crate::verbs) content: Content,
}

/// The bytes of an input, or where they are.
pub(in crate::verbs) enum Content {
    /// A file.
    File(PathBuf),
    /// A line of one, or standard input.
    Bytes(Vec<u8>),
    /// Why there are none.
    Broken(InputError),
}

/// All inputs: one after the other, so that a stream of records is never in memory as a whole.
pub(in crate::verbs) struct Sources {
    files: std::vec::IntoIter<PathBuf>,
    lines: Option<Lines>,
    /// One that was looked at, and is still to come.
    first: Option<Source>,
}

/// Records, one a line.
struct Lines {
    name: String,
    reader: Box<dyn BufRead + Send>,
    number: usize,
}

impl Sources {
    /// What the user named; folders are looked through, in the order of their names.
    pub(in crate::verbs) fn of(inputs: &[PathBuf]) -> io::Result<Self> {
        let mut files = Vec::new();
        for path in inputs {
            if path.is_dir() { walk(path, MAX_DEPTH, &mut files)? } else { files.push(path.clone()) }
        }
        Ok(Self { files: files.into_iter(), lines: None, first: None })
    }

    /// How many more files there are; a stream counts as one.
    pub(in crate::verbs) fn len(&self) -> usize {
        self.files.len() + usize::from(self.first.is_some())
    }

    /// Puts back what was taken, so that it is the next one.
    pub(in crate::verbs) fn put_back(&mut self, source: Source) {
        self.first = Some(source);
    }

    fn next_line(&mut self) -> Option<Source> {
        let lines = self.lines.as_mut()?;
        loop {
            let line = line(&mut *lines.reader);
            lines.number += 1;
            let name = format!("{}:{}", lines.name, lines.number);
            match line {
                Ok(bytes) if bytes.is_empty() => {
                    self.lines = None;
                    return None;
                }
                Ok(bytes) if bytes.trim_ascii().is_empty() => {}
                Ok(bytes) if bytes.len() > limits::MAX_FILE => {
                    self.lines = None;
                    return Some(Source {
                        content: Content::Broken(InputError::TooLarge { name: name.clone() }),
                        name,
                    });
                }
                Ok(bytes) => return Some(Source { name, content: Content::Bytes(bytes) }),
                Err(source) => {
                    self.lines = None;
                    return Some(broken(name, source));
                }
            }
        }
    }
}

impl Iterator for Sources {
    type Item = Source;

    fn next(&mut self) -> Option<Source> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        if let Some(line) = self.next_line() {
            return Some(line);
        }
        let path = self.files.next()?;
        let name = input::name(&path);
        let reader: Box<dyn BufRead + Send> = if path == Path::new("-") {
            Box::new(BufReader::new(io::stdin()))
        } else if path.extension().is_some_and(|end| end == "ndjson" || end == "jsonl") {
            match File::open(&path) {
                Ok(file) => Box::new(BufReader::new(file)),
                Err(source) => return Some(broken(name, source)),
            }
        } else {
            return Some(Source { name, content: Content::File(path) });
        };
        Some(self.stream(name, reader))
    }
}

impl Sources {
    /// A stream is one record a line if its first line is a whole object, else one input.
    fn stream(&mut self, name: String, mut reader: Box<dyn BufRead + Send>) -> Source {
        let mut first = match line(&mut *reader) {
            Ok(first) => first,
            Err(source) => return broken(name, source),
        };
        let text = first.trim_ascii();
        if text.starts_with(b"{") && text.ends_with(b"}") {
            let numbered = format!("{name}:1");
            self.lines = Some(Lines { name, reader, number: 1 });
            return Source { name: numbered, content: Content::Bytes(first) };
        }
        let rest = u64::try_from(limits::MAX_FILE).unwrap_or(u64::MAX).saturating_add(1);
        match reader.take(rest).read_to_end(&mut first) {
            Err(source) => broken(name, source),
            Ok(_) if first.len() > limits::MAX_FILE => {
                Source { content: Content::Broken(InputError::TooLarge { name: name.clone() }), name }
            }
            Ok(_) => Source { name, content: Content::Bytes(first) },
        }
    }
}

fn broken(name: String, source: io::Error) -> Source {
    Source { content: Content::Broken(InputError::Read { name: name.clone(), source }), name }
}

/// One line with its end, within bounds; empty at the end of the stream.
fn line(reader: &mut dyn BufRead) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(limits::MAX_FILE).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    reader.take(limit).read_until(b'\n', &mut bytes)?;
    Ok(bytes)
}

fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let failed = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", folder.display()));
    let entries: io::Result<Vec<_>> = std::fs::read_dir(folder).map_err(failed)?.collect();
    let mut entries = entries.map_err(failed)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        // A link to a folder may lead back to where it stands; one to a file is the file.
        let kind = entry.file_type().map_err(failed)?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if kind.is_dir() {
            if depth > 0 {
                walk(&entry.path(), depth - 1, files)?;
            }
        } else if kind.is_file() || kind.is_symlink() && entry.path().is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}
