//! What is timed: each operation so often that a batch is long beside the timer, in ticks of the time stamp counter.

use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, _mm_lfence, _rdtsc};
use std::hint::black_box;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// Pages that a batch of page faults touches at most.
pub(super) const PAGES: u32 = 256;

/// The size of a page, in bytes (Intel SDM volume 3A, 5.5: 4-level paging).
const PAGE: usize = 4096;

/// The time stamp counter, after all that comes before it in the program.
pub(super) fn ticks() -> u64 {
    // SAFETY: LFENCE belongs to SSE2, which every x86-64 CPU has; RDTSC may fault only under PR_TSC_SIGSEGV, which
    // nobody here sets. Neither touches memory.
    unsafe {
        _mm_lfence();
        let now = _rdtsc();
        _mm_lfence();
        now
    }
}

/// How many ticks `times` runs of `once` take.
pub(super) fn repeated(times: u32, mut once: impl FnMut()) -> u64 {
    let start = ticks();
    for _ in 0..times {
        once();
    }
    ticks().saturating_sub(start)
}

pub(super) fn cpuid(leaf: u32, subleaf: u32) {
    black_box(__cpuid_count(leaf, subleaf));
}

pub(super) fn rdtsc() {
    // SAFETY: as in `ticks`.
    black_box(unsafe { _rdtsc() });
}

/// RDTSCP, of a CPU that has it (8000_0001.EDX\[27\]).
pub(super) fn rdtscp() {
    // SAFETY: writes EAX, EDX and ECX, which are named; the caller has seen the flag.
    unsafe { asm!("rdtscp", out("eax") _, out("edx") _, out("ecx") _, options(nomem, nostack)) };
}

/// RDRAND, of a CPU that has it (1.ECX\[30\]); whether there was a number.
pub(super) fn rdrand() -> bool {
    let had: u8;
    // SAFETY: writes the two registers that are named and the flags; the caller has seen the flag.
    unsafe { asm!("rdrand {}", "setc {}", out(reg) _, out(reg_byte) had, options(nomem, nostack)) };
    had != 0
}

/// RDSEED, of a CPU that has it (7.0.EBX\[18\]); whether there was a number.
pub(super) fn rdseed() -> bool {
    let had: u8;
    // SAFETY: as in `rdrand`.
    unsafe { asm!("rdseed {}", "setc {}", out(reg) _, out(reg_byte) had, options(nomem, nostack)) };
    had != 0
}

/// RDPMC of one counter. It faults where CR4.PCE is 0: the caller runs it in a process that may die.
pub(super) fn rdpmc(counter: u32) {
    // SAFETY: writes EAX and EDX, which are named; a fault ends the process that was made for it.
    unsafe { asm!("rdpmc", in("ecx") counter, out("eax") _, out("edx") _, options(nomem, nostack)) };
}

/// The cheapest system call: it returns a number that the kernel has at hand (`kernel/sys.c:getppid`).
pub(super) fn null_call() {
    // SAFETY: getppid takes no argument and never fails.
    black_box(unsafe { libc::syscall(libc::SYS_getppid) });
}

/// `clock_gettime` as programs call it: the C library takes the vDSO where the kernel offers it.
pub(super) fn clock(id: libc::clockid_t) {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is a valid place to write to.
    black_box(unsafe { libc::clock_gettime(id, &raw mut now) });
}

/// `clock_gettime` by the system call, past the vDSO.
pub(super) fn clock_call(id: libc::clockid_t) {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is a valid place to write to.
    black_box(unsafe { libc::syscall(libc::SYS_clock_gettime, id, &raw mut now) });
}

/// Memory whose pages can be taken away and touched again.
pub(super) struct Memory(*mut u8);

impl Memory {
    const BYTES: usize = PAGES as usize * PAGE;

    /// `None` if the kernel gives none.
    pub(super) fn new() -> Option<Self> {
        // SAFETY: no address is asked for, so that no mapping of others is replaced.
        let start = unsafe {
            mmap_anonymous(std::ptr::null_mut(), Self::BYTES, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        };
        let memory = Self(start.ok()?.cast());
        // SAFETY: the mapping is ours. One huge page would be one fault; an old kernel that knows none may refuse.
        let _refused = unsafe { madvise(memory.0.cast(), Self::BYTES, Advice::LinuxNoHugepage) };
        Some(memory)
    }

    /// The ticks of so many first writes to pages that are not there, at most [`PAGES`].
    pub(super) fn faults(&mut self, times: u32) -> u64 {
        // SAFETY: the mapping is ours and nothing in it is kept.
        if unsafe { madvise(self.0.cast(), Self::BYTES, Advice::LinuxDontNeed) }.is_err() {
            return 0;
        }
        let start = ticks();
        for page in 0..times.min(PAGES) as usize {
            // SAFETY: the page lies within the mapping.
            unsafe { self.0.add(page * PAGE).write_volatile(1) };
        }
        ticks().saturating_sub(start)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nobody else has its address.
        let _unmapped = unsafe { munmap(self.0.cast(), Self::BYTES) };
    }
}
