//! A hardware counter that a program may read with RDPMC: Linux sets CR4.PCE only for a process that has mapped one
//! (`arch/x86/events/core.c:x86_pmu_event_mapped`).

use rustix::mm::{MapFlags, ProtFlags};

/// `struct perf_event_attr`, its first version (`include/uapi/linux/perf_event.h:PERF_ATTR_SIZE_VER0`).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup: u32,
    breakpoint: u32,
    config1: u64,
}

/// `exclude_kernel` and `exclude_hv`: what an unprivileged process may count.
const USER_ONLY: u64 = 1 << 5 | 1 << 6;

/// Why there is no counter: the kernel's error number.
pub(super) const NO_EVENT: u64 = 1 << 32;
/// Why there is no counter: it cannot be mapped.
pub(super) const NO_MAP: u64 = 2 << 32;
/// Why there is no counter: the kernel does not let programs read it.
pub(super) const NOT_FOR_PROGRAMS: u64 = 3 << 32;

/// Opens a counter of cycles for this process, maps it, and says what RDPMC takes in ECX. Makes three system calls and
/// allocates nothing, so that it may be called after a fork; descriptor and mapping end with the process.
pub(super) fn open() -> Result<u32, u64> {
    let attributes = Attributes { size: size_of::<Attributes>() as u32, flags: USER_ONLY, ..Attributes::default() };
    // SAFETY: the structure is valid and as long as it says; this process, any CPU, no group, no flags.
    let descriptor = unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attributes, 0, -1, -1, 0) };
    let Ok(descriptor @ 0..) = i32::try_from(descriptor) else {
        let error = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        return Err(NO_EVENT | u64::from(error.unsigned_abs()));
    };
    // SAFETY: the descriptor was opened above and is closed by nobody.
    let descriptor = unsafe { std::os::fd::BorrowedFd::borrow_raw(descriptor) };
    // SAFETY: no address is asked for.
    let page =
        unsafe { rustix::mm::mmap(std::ptr::null_mut(), 4096, ProtFlags::READ, MapFlags::SHARED, descriptor, 0) };
    let Ok(page) = page else { return Err(NO_MAP) };
    // SAFETY: `struct perf_event_mmap_page` has `index` at byte 12 and `capabilities` at byte 40; the kernel writes them.
    let (index, capabilities) =
        unsafe { (page.cast::<u32>().add(3).read_volatile(), page.cast::<u64>().add(5).read_volatile()) };
    // cap_user_rdpmc is bit 2; an index counts from 1.
    match index.checked_sub(1) {
        Some(counter) if capabilities & 1 << 2 != 0 => Ok(counter),
        _ => Err(NOT_FOR_PROGRAMS),
    }
}
