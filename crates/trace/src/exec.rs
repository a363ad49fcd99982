//! The CPUID instructions of one program and all that it starts, by leaf and by library.
//!
//! Nothing is single-stepped. Where the CPU can make CPUID fault outside the kernel (`arch_prctl(ARCH_SET_CPUID, 0)`), each
//! one stops the program; elsewhere a breakpoint stands on every CPUID of the files that it maps to execute ([`elf`] finds
//! them). Either way the instruction is executed here in its place, on the CPU on which the program runs, and its answer is
//! handed over.
//!
//! By breakpoints, code that the program makes itself, 32-bit code, and files that do not tell where their functions
//! begin are not counted; [`Executed::unseen`] says which files. A program that reads its own code sees the breakpoints.

pub mod elf;
mod length;
mod run;
mod space;

use std::collections::BTreeMap;
use std::io;
use std::process::Command;

use cpusieve_probe::ptrace;

use crate::count::{Asked, Tally};

/// How the instructions were found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// CPUID faults.
    Faulting,
    /// Breakpoints.
    #[default]
    Breakpoints,
}

impl Method {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Faulting => "CPUID faulting",
            Self::Breakpoints => "breakpoints",
        }
    }
}

/// What a program executed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Executed {
    /// CPUIDs by file and question.
    pub counts: Tally<(String, Asked)>,
    /// How they were found.
    pub method: Method,
    /// How the program ended: its exit status, or the signal as a negative number.
    pub status: i32,
    /// Processes that were started, the program itself included.
    pub processes: u64,
    /// What could not be looked at, file by file, and why.
    pub unseen: BTreeMap<String, String>,
}

/// Why a program cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It cannot be started.
    #[error("{program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// It cannot be traced.
    #[error(
        "ptrace: {source}; needed: the right to trace one's own programs (CAP_SYS_PTRACE, or kernel.yama.ptrace_scope at most 2)"
    )]
    Trace {
        /// What the kernel answered.
        source: io::Error,
    },
}

/// Runs a program to its end and counts. Signals that [`cpusieve_probe::signals`] catches end the program.
///
/// # Errors
///
/// If it cannot be started or traced.
pub fn run(command: &mut Command) -> Result<Executed, Refusal> {
    let method = if ptrace::can_fault() { Method::Faulting } else { Method::Breakpoints };
    let program = command.get_program().to_string_lossy().into_owned();
    let first = ptrace::start(command).map_err(|source| Refusal::Start { program, source })?;
    run::Run::new(first, method).finish().map_err(|source| Refusal::Trace { source })
}
