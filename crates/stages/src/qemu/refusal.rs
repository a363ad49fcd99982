//! Why QEMU does not start.

use cpusieve_knowledge::TreeSet;
use cpusieve_knowledge::qemu;

/// The error with which QEMU ends instead of starting a guest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The line as QEMU prints it, without the program's name before it.
    pub message: String,
    /// Where the part of `-cpu` starts that is to blame, in bytes; `None` if no single part is.
    pub offset: Option<usize>,
    /// The releases that know the model or property that this one does not know.
    pub known_in: TreeSet,
}

impl Refusal {
    /// A refusal for which no part of `-cpu` is to blame alone.
    pub(super) fn plain(message: impl Into<String>) -> Self {
        Self { message: message.into(), offset: None, known_in: TreeSet::EMPTY }
    }

    /// A refusal of the part of `-cpu` that starts at this byte.
    pub(super) fn at(message: impl Into<String>, offset: usize) -> Self {
        Self { offset: Some(offset), ..Self::plain(message) }
    }

    /// No release that is asked has this CPU model; others may.
    pub(super) fn unknown_model(name: &str) -> Self {
        let known_in = releases_with(|release| qemu::resolve(release, name).is_some());
        Self { known_in, ..Self::at(format!("unable to find CPU model '{name}'"), 0) }
    }
}

/// The releases for which something holds.
pub(super) fn releases_with(holds: impl Fn(usize) -> bool) -> TreeSet {
    let bits = (0..qemu::RELEASES.len()).filter(|&release| holds(release)).fold(0, |bits, release| bits | 1 << release);
    TreeSet(bits)
}
