//! The operations: their names, what kind of work they are, and how they are run.

use cpusieve_model::{CpuidBit, CpuidTable, Register, State};

use super::child::{self, Died};
use super::counter;
use super::instructions::{self as run, Memory, PAGES, repeated};
use super::judge::Kind;

/// RDTSCP.
const RDTSCP: CpuidBit = CpuidBit::new(0x8000_0001, 0, Register::Edx, 27);
/// RDRAND.
const RDRAND: CpuidBit = CpuidBit::new(1, 0, Register::Ecx, 30);
/// RDSEED.
const RDSEED: CpuidBit = CpuidBit::new(7, 0, Register::Ebx, 18);

/// Operations in one sample of a child.
const IN_CHILD: u32 = 32;

/// The longest batch, in operations.
const MOST: u32 = 1 << 14;

/// The leaves that are timed, with a subleaf: those that programs ask most (`trace exec`), and one of each range.
const LEAVES: [(u32, u32, &str); 8] = [
    (0, 0, "vendor, highest leaf"),
    (1, 0, "signature, features"),
    (4, 0, "caches (Intel)"),
    (7, 0, "features"),
    (0xd, 0, "XSAVE state"),
    (0x4000_0000, 0, "hypervisor"),
    (0x8000_0000, 0, "highest extended leaf"),
    (0x8000_0006, 0, "caches (AMD)"),
];

/// Clocks, by the kernel's name.
const CLOCKS: [(libc::clockid_t, &str); 5] = [
    (libc::CLOCK_REALTIME, "realtime"),
    (libc::CLOCK_MONOTONIC, "monotonic"),
    (libc::CLOCK_MONOTONIC_COARSE, "monotonic-coarse"),
    (libc::CLOCK_BOOTTIME, "boottime"),
    (libc::CLOCK_THREAD_CPUTIME_ID, "thread-cputime"),
];

/// Something that is timed.
pub(super) enum Operation {
    /// CPUID of one leaf.
    Cpuid { leaf: u32, subleaf: u32, about: &'static str },
    /// RDTSC.
    Rdtsc,
    /// RDTSCP, and whether there is one.
    Rdtscp(bool),
    /// `clock_gettime`.
    Clock(libc::clockid_t, &'static str),
    /// `clock_gettime` of CLOCK_MONOTONIC past the vDSO.
    ClockCall,
    /// A system call that does nothing.
    Call,
    /// The first touch of a page; `None` if there is no memory.
    Fault(Option<Memory>),
    /// RDPMC.
    Rdpmc,
    /// RDRAND, and whether there is one.
    Rdrand(bool),
    /// RDSEED, and whether there is one.
    Rdseed(bool),
}

/// The beginning of the id of a leaf's row.
pub(super) fn cpuid_id(leaf: u32) -> String {
    format!("cpuid.{leaf:x}.")
}

impl Operation {
    /// All, in the order in which they are told.
    pub(super) fn all(cpuid: &CpuidTable) -> Vec<Self> {
        let has = |bit: CpuidBit| cpuid.state(bit) == State::Present;
        let mut all: Vec<Self> =
            LEAVES.iter().map(|&(leaf, subleaf, about)| Self::Cpuid { leaf, subleaf, about }).collect();
        all.extend([Self::Rdtsc, Self::Rdtscp(has(RDTSCP))]);
        all.extend(CLOCKS.iter().map(|&(id, name)| Self::Clock(id, name)));
        all.extend([Self::ClockCall, Self::Call, Self::Fault(Memory::new()), Self::Rdpmc]);
        all.extend([Self::Rdrand(has(RDRAND)), Self::Rdseed(has(RDSEED))]);
        all
    }

    pub(super) fn id(&self) -> String {
        match self {
            Self::Cpuid { leaf, subleaf, .. } => format!("{}{subleaf}", cpuid_id(*leaf)),
            Self::Clock(_, name) => format!("clock.{name}"),
            Self::ClockCall => "clock.monotonic.syscall".to_owned(),
            Self::Rdtsc => "rdtsc".to_owned(),
            Self::Rdtscp(_) => "rdtscp".to_owned(),
            Self::Call => "syscall".to_owned(),
            Self::Fault(_) => "page-fault".to_owned(),
            Self::Rdpmc => "rdpmc".to_owned(),
            Self::Rdrand(_) => "rdrand".to_owned(),
            Self::Rdseed(_) => "rdseed".to_owned(),
        }
    }

    /// For people.
    pub(super) fn what(&self) -> String {
        match self {
            Self::Cpuid { leaf, about, .. } => format!("CPUID {leaf:X}H ({about})"),
            Self::Clock(_, name) => format!("clock_gettime {}", name.to_uppercase().replace('-', "_")),
            Self::ClockCall => "clock_gettime MONOTONIC by system call".to_owned(),
            Self::Rdtsc => "RDTSC".to_owned(),
            Self::Rdtscp(_) => "RDTSCP".to_owned(),
            Self::Call => "null system call (getppid)".to_owned(),
            Self::Fault(_) => "page fault (first touch, 4 KiB)".to_owned(),
            Self::Rdpmc => "RDPMC".to_owned(),
            Self::Rdrand(_) => "RDRAND (64 bits)".to_owned(),
            Self::Rdseed(_) => "RDSEED (64 bits)".to_owned(),
        }
    }

    pub(super) const fn kind(&self) -> Kind {
        match self {
            Self::Cpuid { .. } | Self::Rdtsc | Self::Rdtscp(_) | Self::Rdpmc => Kind::Instruction,
            Self::Clock(libc::CLOCK_THREAD_CPUTIME_ID, _) => Kind::CpuTime,
            Self::Clock(..) | Self::ClockCall => Kind::Clock,
            Self::Call => Kind::Call,
            Self::Fault(_) => Kind::Fault,
            Self::Rdrand(_) | Self::Rdseed(_) => Kind::Random,
        }
    }

    /// Why it is not run.
    pub(super) fn refused(&self) -> Option<String> {
        match self {
            Self::Rdtscp(false) | Self::Rdrand(false) | Self::Rdseed(false) => Some("this CPU lacks it".to_owned()),
            Self::Fault(None) => Some("the kernel gave no memory".to_owned()),
            Self::Clock(id, _) if !readable(*id) => Some("this kernel has no such clock".to_owned()),
            _ => None,
        }
    }

    /// Whether it is timed in turn with the others; else [`Operation::at_once`].
    pub(super) const fn is_in_turn(&self) -> bool {
        !matches!(self, Self::Rdpmc | Self::Rdrand(_) | Self::Rdseed(_))
    }

    /// Operations in a batch at most.
    pub(super) const fn most(&self) -> u32 {
        if matches!(self, Self::Fault(_)) { PAGES } else { MOST }
    }

    /// The ticks of so many.
    pub(super) fn run(&mut self, times: u32) -> u64 {
        match self {
            Self::Cpuid { leaf, subleaf, .. } => repeated(times, || run::cpuid(*leaf, *subleaf)),
            Self::Rdtsc => repeated(times, run::rdtsc),
            Self::Rdtscp(true) => repeated(times, run::rdtscp),
            Self::Clock(id, _) => repeated(times, || run::clock(*id)),
            Self::ClockCall => repeated(times, || run::clock_call(libc::CLOCK_MONOTONIC)),
            Self::Call => repeated(times, run::null_call),
            Self::Fault(Some(memory)) => memory.faults(times),
            Self::Fault(None) | Self::Rdtscp(false) | Self::Rdpmc | Self::Rdrand(_) | Self::Rdseed(_) => 0,
        }
    }

    /// All samples at once, in ticks of one operation, from a child that may die of it; `None` if that is not its way.
    pub(super) fn at_once(&self) -> Option<Result<Vec<f64>, String>> {
        let samples = match self {
            Self::Rdpmc => child::samples(counter::open, |&counter| repeated(IN_CHILD, || run::rdpmc(counter))),
            Self::Rdrand(true) => child::samples(|| Ok(()), |()| repeated(IN_CHILD, || _ = run::rdrand())),
            Self::Rdseed(true) => child::samples(|| Ok(()), |()| repeated(IN_CHILD, || _ = run::rdseed())),
            _ => return None,
        };
        let each = |ticks: u64| ticks as f64 / f64::from(IN_CHILD);
        Some(samples.map(|samples| samples.into_iter().map(each).collect()).map_err(|died| why(&died)))
    }
}

/// Whether the kernel knows a clock.
fn readable(id: libc::clockid_t) -> bool {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is a valid place to write to.
    unsafe { libc::clock_gettime(id, &raw mut now) == 0 }
}

/// How a child that handed over nothing has ended, for people.
fn why(died: &Died) -> String {
    match died {
        Died::Signal(libc::SIGILL) => "the instruction is refused here (SIGILL)".to_owned(),
        Died::Signal(libc::SIGSEGV) => "the instruction faults here (SIGSEGV)".to_owned(),
        Died::Signal(libc::SIGALRM) => "it did not come to its end within 10 s".to_owned(),
        Died::Signal(signal) => format!("the process that tried it was ended by signal {signal}"),
        Died::Refused(error) => format!("no process could be made to try it: {error}"),
        Died::Remark(counter::NO_MAP) => "the hardware counter cannot be mapped".to_owned(),
        Died::Remark(counter::NOT_FOR_PROGRAMS) => "the kernel does not let programs read counters".to_owned(),
        Died::Remark(other) => {
            let error = i32::try_from(other & !counter::NO_EVENT).unwrap_or(0);
            let error = std::io::Error::from_raw_os_error(error);
            format!("no hardware counter that a program may read: perf_event_open: {error}")
        }
    }
}
