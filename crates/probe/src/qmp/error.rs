//! What can go wrong with a QEMU. Each error names the binary, and what it said last.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use cpusieve_formats::qmp::{Command, Message, Unexpected};
use cpusieve_model::MissingPart;

use super::{FAREWELL, Session};
use crate::process::Fault;

/// Lines of stderr that an error keeps: the last ones say why.
const LAST_LINES: usize = 5;

/// Characters of one such line.
const LINE_LENGTH: usize = 300;

/// Why a QEMU did not answer.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// It could not be run, or the kernel did not carry a message to or from it.
    #[error("{}: {source}", binary.display())]
    NotRun {
        /// The binary.
        binary: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// It ended before it answered: by itself, or because it was killed for an earlier error.
    #[error("{}: ended ({status}) before {during}{}", binary.display(), said(stderr))]
    Ended {
        /// The binary.
        binary: PathBuf,
        /// Its exit code or signal.
        status: ExitStatus,
        /// What was waited for: a command's name, or its greeting.
        during: &'static str,
        /// The last lines on its stderr, at most 5.
        stderr: Vec<String>,
    },
    /// It did not answer in time.
    #[error("{}: no answer to {during} within {limit:?}{}", binary.display(), said(stderr))]
    Late {
        /// The binary.
        binary: PathBuf,
        /// What was waited for.
        during: &'static str,
        /// The time limit.
        limit: Duration,
        /// The last lines on its stderr.
        stderr: Vec<String>,
    },
    /// What it wrote is no QMP, no answer to the question, or too long.
    #[error("{}: {during}: {problem}{}", binary.display(), said(stderr))]
    Wrong {
        /// The binary.
        binary: PathBuf,
        /// What was waited for.
        during: &'static str,
        /// What is wrong with it.
        problem: String,
        /// The last lines on its stderr.
        stderr: Vec<String>,
    },
    /// It refused the command, and goes on.
    #[error("{}: {command}: {description}", binary.display())]
    Refused {
        /// The binary.
        binary: PathBuf,
        /// The command.
        command: &'static str,
        /// QMP's class of errors: `GenericError`, `CommandNotFound`.
        class: String,
        /// QEMU's words.
        description: String,
    },
}

impl QmpError {
    /// This error as a part of a record that is missing, called `what`.
    #[must_use]
    pub fn missing(&self, what: &str, remedy: Option<&str>) -> MissingPart {
        MissingPart { what: what.to_owned(), why: self.to_string(), remedy: remedy.map(str::to_owned) }
    }
}

/// The last lines of stderr as the end of a sentence.
fn said(stderr: &[String]) -> String {
    if stderr.is_empty() { String::new() } else { format!(": {}", stderr.join("; ")) }
}

/// The last lines of stderr, each cut, without control characters.
fn last_lines(stderr: &str) -> Vec<String> {
    let cut = |line: &str| line.chars().take(LINE_LENGTH).map(|c| if c.is_control() { '?' } else { c }).collect();
    let mut lines: Vec<String> =
        stderr.lines().rev().map(str::trim).filter(|line| !line.is_empty()).take(LAST_LINES).map(cut).collect();
    lines.reverse();
    lines
}

/// How a message that nobody waits for is told.
pub(super) fn out_of_turn(expected: &'static str, message: &Message) -> Unexpected {
    let found = match message {
        Message::Greeting(version) => format!("a greeting of {version}"),
        Message::Return { id: Some(id), .. } => format!("to command {id}"),
        Message::Return { id: None, .. } => "without a number".to_owned(),
        Message::Error { description, .. } => format!("{description:?}"),
        Message::Event(name) => format!("event {name:?}"),
    };
    Unexpected { expected, found }
}

impl Session {
    /// QEMU is gone, or is made to go.
    pub(super) fn lost(&mut self, fault: Fault, during: &'static str) -> QmpError {
        let patience = if matches!(fault, Fault::Closed) { FAREWELL } else { Duration::ZERO };
        let was_gone = self.process.is_gone();
        let status = self.process.finish(patience);
        let (binary, stderr) = (self.binary.clone(), last_lines(&self.process.stderr()));
        match (fault, status) {
            (Fault::Closed, Ok(_)) if self.process.was_killed() && !was_gone => {
                let problem = "it closed its output and did not end".to_owned();
                QmpError::Wrong { binary, during, problem, stderr }
            }
            (Fault::Closed, Ok(status)) => QmpError::Ended { binary, status, during, stderr },
            (Fault::Late, _) => QmpError::Late { binary, during, limit: self.limit, stderr },
            (Fault::TooLong(limit), _) => {
                QmpError::Wrong { binary, during, problem: format!("a message longer than {limit} bytes"), stderr }
            }
            (Fault::Io(source), _) | (Fault::Closed, Err(source)) => QmpError::NotRun { binary, source },
        }
    }

    /// QEMU does not speak QMP as it should: what it says next cannot be trusted.
    pub(super) fn wrong(&mut self, during: &'static str, problem: String) -> QmpError {
        // How it ends does not matter any more.
        let _ = self.process.finish(Duration::ZERO);
        let (binary, stderr) = (self.binary.clone(), last_lines(&self.process.stderr()));
        QmpError::Wrong { binary, during, problem, stderr }
    }

    pub(super) fn unexpected(&mut self, during: &'static str, unexpected: &Unexpected) -> QmpError {
        self.wrong(during, unexpected.to_string())
    }

    pub(super) fn refused(&self, command: &Command<'_>, class: String, description: String) -> QmpError {
        QmpError::Refused { binary: self.binary.clone(), command: command.name(), class, description }
    }
}
