//! A vCPU of our own, made through `/dev/kvm`, that executes CPUID and reports back: no QEMU, no image.
//!
//! The machine has 256 KiB of memory, one vCPU, no interrupt controller and no device. Its program reads pairs of leaf and
//! subleaf from memory, executes CPUID for each, stores the four registers, and halts. A backend of KVM that does not
//! intercept CPUID betrays itself: the guest then reads the host's registers instead of its table's.
//!
//! The vCPU runs on a thread of its own, which is stopped by a signal when its time is up. The signal is blocked on that
//! thread and let through inside `KVM_RUN` alone (`KVM_SET_SIGNAL_MASK`), so that no handler is installed and nothing of
//! this process changes. All that was made is gone when [`run`] returns.

mod machine;
mod memory;
mod watch;

use std::io;
use std::time::{Duration, Instant};

use cpusieve_model::{CpuidEntry, KvmCpuidEntry};

use crate::Refusal;
use crate::files::Root;

/// The most pairs of leaf and subleaf that one run asks.
pub const PAIRS_AT_MOST: usize = memory::PAIRS_AT_MOST;

/// What a vCPU is to be, and what it is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trial {
    /// The table for `KVM_SET_CPUID2`.
    pub table: Vec<KvmCpuidEntry>,
    /// The pairs of leaf and subleaf for which it executes CPUID; at most [`PAIRS_AT_MOST`].
    pub pairs: Vec<(u32, u32)>,
    /// The MSRs that are written from outside (`KVM_SET_MSRS`), one by one, in this order.
    pub msrs: Vec<(u32, u64)>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether KVM took the table; all else is empty if it did not.
    pub table: Result<(), String>,
    /// Whether KVM took each MSR, in the order in which they were given.
    pub msrs: Vec<(u32, u64, bool)>,
    /// The mode in which the program ran.
    pub mode: Mode,
    /// What CPUID returned, in the order of the pairs; or why the program did not come to its end.
    pub answers: Result<Vec<CpuidEntry>, RunError>,
    /// From before the machine was made until after the program had halted.
    pub took: Duration,
}

/// The mode of the vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 64-bit mode, as kernels run.
    Long,
    /// Protected mode without paging; used where the program does not run in 64-bit mode.
    Protected,
}

/// Why the program did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// Its time was up.
    #[error("the guest's program did not end within {0:?}")]
    Late(Duration),
    /// `KVM_RUN` returned for another reason than the program's end.
    #[error("KVM_RUN ended with {0}")]
    Exit(String),
}

/// Makes the machine, gives it the table, writes the MSRs, and lets the program run for at most `limit`; first in 64-bit
/// mode, then, if that does not come to its end, in protected mode.
///
/// # Errors
///
/// If `/dev/kvm` cannot be used, or refuses to make a machine. A table that KVM refuses is an answer:
/// [`Outcome::table`].
pub fn run(trial: &Trial, limit: Duration) -> Result<Outcome, Refusal> {
    let first = in_mode(trial, Mode::Long, limit)?;
    if first.table.is_err() || first.answers.is_ok() {
        return Ok(first);
    }
    let second = in_mode(trial, Mode::Protected, limit)?;
    Ok(if second.answers.is_ok() { second } else { first })
}

fn in_mode(trial: &Trial, mode: Mode, limit: Duration) -> Result<Outcome, Refusal> {
    let clock = Instant::now();
    let work = {
        let trial = trial.clone();
        move |stopped: &watch::Stop| machine::run(&Root::machine(), &memory::PROGRAM, &trial, mode, stopped)
    };
    match watch::within(limit, work).map_err(|source| Refusal::Kvm { request: "a thread for the vCPU", source })? {
        Some(done) => done.map(|(table, msrs, answers)| {
            let answers = answers.map_err(|error| error.of(limit));
            Outcome { table, msrs, mode, answers, took: clock.elapsed() }
        }),
        None => Ok(Outcome {
            table: Ok(()),
            msrs: Vec::new(),
            mode,
            answers: Err(RunError::Late(limit)),
            took: clock.elapsed(),
        }),
    }
}

impl RunError {
    /// The same with the real time limit.
    fn of(self, limit: Duration) -> Self {
        match self {
            Self::Late(_) => Self::Late(limit),
            other => other,
        }
    }
}

/// A request to KVM that failed.
fn refused(request: &'static str) -> impl Fn(kvm_ioctls::Error) -> Refusal {
    move |error| Refusal::Kvm { request, source: io::Error::from_raw_os_error(error.errno()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_never_ends_is_stopped() {
        /// `jmp` to itself.
        const ENDLESS: [u8; 2] = [0xeb, 0xfe];
        let clock = Instant::now();
        let work = |stop: &watch::Stop| machine::run(&Root::machine(), &ENDLESS, &Trial::default(), Mode::Long, stop);
        match watch::within(Duration::from_millis(200), work).unwrap() {
            Some(Ok((_, _, answers))) => {
                assert!(matches!(answers, Err(RunError::Late(_))), "{answers:?}");
                assert!(clock.elapsed() < Duration::from_secs(5));
                eprintln!("proved: an endless guest was stopped after {:?}", clock.elapsed());
            }
            Some(Err(refusal)) => eprintln!("skipped: {refusal}"),
            None => panic!("the thread of an endless guest did not end"),
        }
    }
}
