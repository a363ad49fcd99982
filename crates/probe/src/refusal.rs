//! Why a part could not be seen, and what helps.

use std::io;
use std::path::{Path, PathBuf};

use cpusieve_model::MissingPart;

/// Why the machine did not show a part of itself. Never fatal: it becomes a [`MissingPart`] of the record.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A file could not be opened or read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// A file is longer than what it may reasonably hold.
    #[error("{}: longer than {limit} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The bound, in bytes.
        limit: u64,
    },
    /// A file does not hold what it should.
    #[error("{}: no {expected} in {text:?}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        expected: &'static str,
        /// The beginning of what is there.
        text: String,
    },
    /// A request to `/dev/kvm` failed.
    #[error("{request}: {source}")]
    Kvm {
        /// The ioctl's name.
        request: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
    /// This thread could not be moved to a CPU.
    #[error("sched_setaffinity to CPU {cpu}: {source}")]
    Pin {
        /// The CPU.
        cpu: u32,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The kernel did not say on which CPUs this thread may run.
    #[error("sched_getaffinity: {source}")]
    Affinity {
        /// What the kernel answered.
        source: io::Error,
    },
    /// A program could not be run, or did not answer.
    #[error("{}: {problem}", path.display())]
    Program {
        /// The program.
        path: PathBuf,
        /// What went wrong.
        problem: String,
    },
}

impl Refusal {
    /// A refusal to read `path`.
    pub(crate) fn file(path: &Path, source: io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }

    /// A file that does not hold what is `expected`; at most 80 characters of `text` are kept.
    pub(crate) fn content(path: &Path, expected: &'static str, text: &str) -> Self {
        Self::Content { path: path.to_owned(), expected, text: text.chars().take(80).collect() }
    }

    /// What the kernel answered, if it was asked.
    #[must_use]
    pub fn kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::File { source, .. }
            | Self::Kvm { source, .. }
            | Self::Pin { source, .. }
            | Self::Affinity { source } => Some(source.kind()),
            Self::TooLong { .. } | Self::Content { .. } | Self::Program { .. } => None,
        }
    }

    /// This refusal as a part of a record that is missing, called `what`.
    #[must_use]
    pub fn missing(&self, what: &str, remedy: Option<&str>) -> MissingPart {
        MissingPart { what: what.to_owned(), why: self.to_string(), remedy: remedy.map(str::to_owned) }
    }
}
