//! tracefs: where it is, and its few operations.
//!
//! Every change is made in an instance of our own ([`Session`]), a folder with buffers and switches of its own: what others
//! trace is neither seen nor changed. Only kprobes are defined for all; theirs are events in a group of our own, enabled in
//! our instance alone.
//!
//! An end by Ctrl-C, an error or a panic removes it all. SIGKILL cannot be caught: what it leaves is removed by the next
//! start ([`stale`]), as the names say which process made it.

mod files;
mod session;
pub mod stale;

pub use files::{Files, Mounted};
pub use session::Session;

use std::io;
use std::path::PathBuf;

/// Why nothing can be watched, and what is needed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The kernel was built without tracing.
    #[error("this kernel has no tracefs; needed: a kernel built with CONFIG_FTRACE and CONFIG_EVENT_TRACING")]
    NoTracefs,
    /// tracefs is not mounted, and this process may not mount it for itself.
    #[error(
        "tracefs is not mounted, and a mount of our own is refused: {source}; needed: root (CAP_SYS_ADMIN), or `mount -t tracefs nodev /sys/kernel/tracing`"
    )]
    NotMounted {
        /// What the kernel answered.
        source: io::Error,
    },
    /// The kernel does not allow it.
    #[error("{}: {source}; needed: {needed}", path.display())]
    NotPermitted {
        /// The file.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
        /// What would be needed.
        needed: &'static str,
    },
    /// The kernel does not have a part.
    #[error("{}: not available; needed: {needed}", path.display())]
    Missing {
        /// The file that is not there.
        path: PathBuf,
        /// What would be needed.
        needed: &'static str,
    },
    /// A file that was there when the watch began.
    #[error("{}: not there any more: somebody has removed our instance, so what came later is not counted", path.display())]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// KVM's own CPUIDs cannot be watched.
    #[error("KVM's own CPUIDs cannot be watched here: {}; needed: {needed}", found.join(", and "))]
    HostCalls {
        /// What each way lacks, with the kernel's answer.
        found: Vec<String>,
        /// What would be needed.
        needed: &'static str,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// Something that was switched on could not be switched off.
    #[error("left switched on: {}", problems.join("; "))]
    LeftBehind {
        /// What, each with the kernel's answer.
        problems: Vec<String>,
    },
}

impl Refusal {
    /// A refusal to touch a file: of permission, of existence, or another one.
    fn of(path: PathBuf, source: io::Error, needed: &'static str) -> Self {
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::NotPermitted { path, source, needed }
            }
            io::ErrorKind::NotFound => Self::Missing { path, needed },
            _ => Self::File { path, source },
        }
    }
}
