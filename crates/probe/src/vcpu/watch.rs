//! A time limit for `KVM_RUN`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use kvm_bindings::kvm_signal_mask;
use kvm_ioctls::VcpuFd;
use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

/// The signal that stops a vCPU. Wherever it is not blocked it is ignored, so that one that comes too late does nothing.
const SIGNAL: libc::c_int = libc::SIGURG;

/// How long a thread may take to end after the signal.
const FAREWELL: Duration = Duration::from_secs(1);

const KVM_SET_SIGNAL_MASK: Opcode = opcode::write::<kvm_signal_mask>(0xae, 0x8b);

/// `struct kvm_signal_mask` with the kernel's 64 signals.
#[repr(C)]
struct SignalMask {
    len: u32,
    signals: [u8; 8],
}

/// Whether the time is up.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Lets the signal through while the vCPU runs.
    pub(super) fn reaches(&self, vcpu: &VcpuFd) -> io::Result<()> {
        // No signal is blocked inside KVM_RUN: one that this thread blocks outside ends the run.
        let mask = SignalMask { len: 8, signals: [0; 8] };
        // SAFETY: the descriptor is open as long as `vcpu`, which outlives the call.
        let vcpu = unsafe { BorrowedFd::borrow_raw(vcpu.as_raw_fd()) };
        // SAFETY: the request takes a `struct kvm_signal_mask`, of which the kernel reads the length and as many bytes of
        // signals as it says (`virt/kvm/kvm_main.c:kvm_vcpu_ioctl`): the eight that stand behind it.
        Ok(unsafe { ioctl(vcpu, Setter::<KVM_SET_SIGNAL_MASK, SignalMask>::new(mask)) }?)
    }
}

/// Runs `work` on a thread of its own; when `limit` has passed, it is told to stop and the thread gets the signal.
/// `None` if it does not even then come to its end.
pub(super) fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce(&Stop) -> T + Send + 'static,
) -> io::Result<Option<T>> {
    let stop = Stop::default();
    let (sender, results) = mpsc::channel();
    let (tids, tid) = mpsc::channel();
    let of_thread = stop.clone();
    std::thread::Builder::new().name("vcpu".to_owned()).spawn(move || {
        block();
        // Nobody listens any more if the time was up long ago.
        let _ = tids.send(rustix::thread::gettid());
        let _ = sender.send(work(&of_thread));
    })?;
    if let Ok(done) = results.recv_timeout(limit) {
        return Ok(Some(done));
    }
    stop.0.store(true, Ordering::Relaxed);
    if let Ok(tid) = tid.try_recv() {
        let process = rustix::process::getpid().as_raw_nonzero().get();
        // SAFETY: a plain system call on numbers. The thread blocks the signal or has ended; then nobody minds it.
        let _sent = unsafe { libc::syscall(libc::SYS_tgkill, process, tid.as_raw_nonzero().get(), SIGNAL) };
    }
    Ok(results.recv_timeout(FAREWELL).ok())
}

/// Blocks the signal on this thread, which ends soon.
fn block() {
    // SAFETY: the set is made by sigemptyset before it is used, and lives until after the last call; this changes the
    // mask of the calling thread alone.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, SIGNAL);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_in_time_answers_and_work_that_is_late_is_told() {
        assert_eq!(within(Duration::from_secs(5), |_| 7).unwrap(), Some(7));
        let late = within(Duration::from_millis(5), |stop| {
            while !stop.is_set() {
                std::thread::sleep(Duration::from_millis(1));
            }
            "told"
        });
        assert_eq!(late.unwrap(), Some("told"));
    }
}
