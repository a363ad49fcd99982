//! One file a verb.

pub(crate) mod check;
pub(crate) mod diff;
pub(crate) mod doctor;
mod flags;
pub(crate) mod fleet;
pub(crate) mod import;
pub(crate) mod key;
pub(crate) mod manual;
pub(crate) mod models;
pub(crate) mod name;
pub(crate) mod overview;
pub(crate) mod predict;
pub(crate) mod price;
pub(crate) mod record;
pub(crate) mod rehearse;
pub(crate) mod report;
mod template;
pub(crate) mod trace;
pub(crate) mod verify;
pub(crate) mod want;
pub(crate) mod why;

use std::process::ExitCode;

/// How a verb ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// The same, or compatible.
    Same,
    /// Different, or incompatible.
    Different,
    /// Wrong usage or input: nothing done.
    Nothing,
    /// Done in part.
    InPart,
    /// The status of a monitoring plugin, which has a protocol of its own.
    Plugin(u8),
}

impl From<Done> for ExitCode {
    fn from(done: Done) -> Self {
        Self::from(match done {
            Done::Same => 0,
            Done::Different => 1,
            Done::Nothing => 2,
            Done::InPart => 3,
            Done::Plugin(status) => status,
        })
    }
}

/// What a verb can fail with.
pub(crate) type Failure = Box<dyn std::error::Error>;
