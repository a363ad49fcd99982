//! Files and standard input, read within bounds, recognised, and their diagnostics shown.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use cpusieve_formats::{Diagnostic, Format, Parsed, Severity, lab, limits};
use cpusieve_model::{Captures, Snapshot};
use cpusieve_stages::linux::boot::Unlisted;

use crate::page;

/// Why an input cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    /// The file cannot be read.
    #[error("{name}: {source}")]
    Read {
        /// The file.
        name: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The file is larger than any input may be.
    #[error("{name}: larger than {} MiB, which is more than any input may have", limits::MAX_FILE >> 20)]
    TooLarge {
        /// The file.
        name: String,
    },
    /// Nothing in it could be used; all other diagnostics were shown.
    #[error("{0}")]
    Useless(Box<Diagnostic>),
    /// Nothing in it could be used, and nothing is wrong with it.
    #[error("{name}: nothing in it could be used")]
    Empty {
        /// The file.
        name: String,
    },
    /// Both ends are standard input.
    #[error("standard input can be one end, not both")]
    TwiceStandardInput,
}

/// Reads one input; `-` is standard input. Diagnostics go to standard error.
pub(crate) fn read(path: &Path) -> Result<Snapshot, InputError> {
    read_for_boot(path).map(|(snapshot, _)| snapshot)
}

/// Reads one input, and says what is to be thought of an MSR that it does not list.
///
/// A laboratory's capture lists the MSRs that are not zero; its emulators answer zero for MSRs that they do not know.
pub(crate) fn read_for_boot(path: &Path) -> Result<(Snapshot, Unlisted), InputError> {
    let name = name(path);
    of_bytes(&name, &bytes(path, &name)?)
}

/// The same, with what a proof asked that was kept beside a record.
pub(crate) fn read_with_captures(path: &Path) -> Result<(Snapshot, Unlisted, Captures), InputError> {
    let name = name(path);
    let bytes = bytes(path, &name)?;
    let (snapshot, unlisted) = of_bytes(&name, &bytes)?;
    let kept = cpusieve_formats::recognise(&bytes) == Format::Record;
    let captures = if kept { cpusieve_formats::record::captures(&name, &bytes) } else { Captures::default() };
    Ok((snapshot, unlisted, captures))
}

fn of_bytes(name: &str, bytes: &[u8]) -> Result<(Snapshot, Unlisted), InputError> {
    let (read, diagnostics) = understand(name, bytes);
    show(&diagnostics);
    read
}

/// What was understood of one input, and what is to be shown of its diagnostics whether it can be used or not.
pub(crate) fn understand(name: &str, bytes: &[u8]) -> (Result<(Snapshot, Unlisted), InputError>, Vec<Diagnostic>) {
    let (Parsed { snapshot, mut diagnostics, .. }, unlisted) = match cpusieve_formats::recognise(bytes) {
        Format::LabCapture => {
            let capture = lab::capture(name, bytes);
            let emulated = matches!(capture.setup.accel.as_str(), "tcg" | "bochs");
            (capture.parsed, if emulated { Unlisted::Zero } else { Unlisted::NotSeen })
        }
        format => (cpusieve_formats::read_as(format, name, bytes), Unlisted::NotSeen),
    };
    if !is_empty(&snapshot) {
        return (Ok((snapshot, unlisted)), diagnostics);
    }
    let fatal = diagnostics.iter().position(|diagnostic| diagnostic.severity == Severity::Error);
    let fatal = fatal.map(|index| diagnostics.remove(index));
    let error =
        fatal.map_or_else(|| InputError::Empty { name: name.to_owned() }, |fatal| InputError::Useless(Box::new(fatal)));
    (Err(error), diagnostics)
}

/// What an input is called.
pub(crate) fn name(path: &Path) -> String {
    if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() }
}

/// The bytes of a file, or of standard input, of bounded size.
pub(crate) fn bytes(path: &Path, name: &str) -> Result<Vec<u8>, InputError> {
    let failed = |source| InputError::Read { name: name.to_owned(), source };
    let limit = u64::try_from(limits::MAX_FILE).unwrap_or(u64::MAX) + 1;
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| {
            // Files below /proc say that they are empty.
            let announced = file.metadata()?.len().clamp(16 << 10, limit);
            bytes.reserve(usize::try_from(announced).unwrap_or(0) + 1);
            file.take(limit).read_to_end(&mut bytes)
        })
    };
    read.map_err(failed)?;
    if bytes.len() > limits::MAX_FILE { Err(InputError::TooLarge { name: name.to_owned() }) } else { Ok(bytes) }
}

/// Shows diagnostics on standard error, notes excepted.
pub(crate) fn show(diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics.iter().filter(|diagnostic| diagnostic.severity != Severity::Note) {
        page::warn(diagnostic);
    }
}

fn is_empty(snapshot: &Snapshot) -> bool {
    snapshot.cpus.is_empty() && snapshot.kvm.is_none() && snapshot.expansions.is_empty()
}
