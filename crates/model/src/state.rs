//! What is known of one feature at one point.

use std::fmt;

/// What is known of one feature at one point. Never a bare `bool`, which would mean three of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// The bit was seen set, or the flag was printed.
    Present,
    /// The bit was seen clear, or the flag is missing from a line that would have it.
    Absent,
    /// The bit does not exist here: its leaf or subleaf lies above the announced maximum.
    Reserved,
    /// The source was asked and refused to answer.
    Unreadable,
    /// Nobody looked.
    #[default]
    Unknown,
}

impl State {
    /// Present or absent.
    #[must_use]
    pub const fn from_bit(set: bool) -> Self {
        if set { Self::Present } else { Self::Absent }
    }

    /// `Some(true)` if present, `Some(false)` if absent or reserved, `None` where nothing was seen.
    #[must_use]
    pub const fn known(self) -> Option<bool> {
        match self {
            Self::Present => Some(true),
            Self::Absent | Self::Reserved => Some(false),
            Self::Unreadable | Self::Unknown => None,
        }
    }

    /// The word for people and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Absent => "absent",
            Self::Reserved => "reserved",
            Self::Unreadable => "unreadable",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
