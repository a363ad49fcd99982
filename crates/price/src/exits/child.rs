//! Instructions that may fault, executed in a process of their own that may die of it.
//!
//! The child is a fork of this one and shares one mapping with it. It makes system calls and executes instructions, but
//! neither allocates nor takes a lock, because other threads of the parent may have held one (`fork(2)`).

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Samples that a child hands over.
pub(super) const SAMPLES: usize = 201;

/// Numbers in the shared mapping: the samples, and the child's remark before them.
const SLOTS: usize = SAMPLES + 1;

/// Seconds after which the kernel ends a child that does not end.
const ALARM: u32 = 10;

/// How a child ended that did not hand over samples.
#[derive(Debug)]
pub(super) enum Died {
    /// By this signal.
    Signal(i32),
    /// By itself, with a remark other than 0.
    Remark(u64),
    /// There was no child.
    Refused(io::Error),
}

/// What child and parent share.
struct Shared(*mut AtomicU64);

impl Shared {
    const BYTES: usize = SLOTS * size_of::<AtomicU64>();

    fn new() -> io::Result<Self> {
        // SAFETY: no address is asked for, so that no mapping of others is replaced.
        let start = unsafe {
            mmap_anonymous(std::ptr::null_mut(), Self::BYTES, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED)
        };
        Ok(Self(start?.cast()))
    }

    fn slots(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is that long, page-aligned, zeroed, lives as long as `self`, and is written to through
        // atomics alone.
        unsafe { std::slice::from_raw_parts(self.0, SLOTS) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours; a child that is gone needs it no more.
        let _unmapped = unsafe { munmap(self.0.cast(), Self::BYTES) };
    }
}

/// The samples of `sample`, taken in a child after `prepare` has returned what it needs, or an error as a remark that is
/// not 0. Both run after a fork: they must not allocate.
pub(super) fn samples<T>(
    prepare: impl FnOnce() -> Result<T, u64>,
    mut sample: impl FnMut(&T) -> u64,
) -> Result<Vec<u64>, Died> {
    let shared = Shared::new().map_err(Died::Refused)?;
    // SAFETY: what the child does until its end is async-signal-safe, as `signal-safety(7)` asks of a process with
    // threads: see the head of this module.
    match unsafe { libc::fork() } {
        -1 => Err(Died::Refused(io::Error::last_os_error())),
        0 => {
            alone();
            let remark = match prepare() {
                Ok(given) => {
                    for slot in shared.slots().iter().skip(1) {
                        slot.store(sample(&given), Ordering::Relaxed);
                    }
                    0
                }
                Err(remark) => remark,
            };
            if let Some(slot) = shared.slots().first() {
                slot.store(remark, Ordering::Relaxed);
            }
            // SAFETY: ends this process at once: no destructor of the parent's runs twice.
            unsafe { libc::_exit(0) }
        }
        child => {
            ended(child)?;
            match shared.slots() {
                [remark, samples @ ..] => match remark.load(Ordering::Relaxed) {
                    0 => Ok(samples.iter().map(|slot| slot.load(Ordering::Relaxed)).collect()),
                    remark => Err(Died::Remark(remark)),
                },
                [] => Ok(Vec::new()),
            }
        }
    }
}

/// What the child does first: its death is silent (no handler of the parent's, no dump) and certain.
fn alone() {
    // SAFETY: all of these are async-signal-safe system calls that take numbers alone; the default action is restored
    // for signals that an instruction may raise.
    unsafe {
        for signal in [libc::SIGSEGV, libc::SIGILL, libc::SIGBUS, libc::SIGALRM] {
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        libc::alarm(ALARM);
    }
}

/// Waits for the child's end.
fn ended(child: libc::pid_t) -> Result<(), Died> {
    let mut status = 0;
    loop {
        // SAFETY: the status is a valid place for a number, and the child is ours.
        if unsafe { libc::waitpid(child, &raw mut status, 0) } == child {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(Died::Refused(error));
        }
    }
    if libc::WIFSIGNALED(status) { Err(Died::Signal(libc::WTERMSIG(status))) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_faults_is_told_and_nothing_else_dies() {
        let died = samples(
            || Ok(()),
            |()| {
                // SAFETY: raises SIGILL in the child that was made for it.
                unsafe { std::arch::asm!("ud2") };
                0
            },
        );
        assert!(matches!(died, Err(Died::Signal(libc::SIGILL))), "{died:?}");
        assert!(matches!(samples(|| Err::<(), u64>(7), |()| 0), Err(Died::Remark(7))));
        let told = samples(|| Ok(3), |three| *three).unwrap();
        assert_eq!(told, vec![3; SAMPLES]);
    }
}
