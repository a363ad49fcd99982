//! A program under ptrace: its stops, registers and memory. What they mean is the caller's business.
//!
//! All calls must come from the thread that started the program (`ptrace(2)`). The program, and all that it starts, is
//! killed when that thread ends.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// A number of a thread.
pub type Tid = i32;

/// Why a thread stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It is about to receive this signal.
    Signal(i32),
    /// It enters or leaves a system call.
    Syscall,
    /// It has executed another program.
    Exec,
    /// It has started this thread or process.
    Started(Tid),
    /// It is gone, with this exit status, or by this signal as a negative number.
    Gone(i32),
    /// Something else, which needs no answer.
    Other,
}

/// The registers of a stopped thread.
#[derive(Clone, Copy, Debug)]
pub struct Registers(libc::user_regs_struct);

impl Registers {
    /// RIP.
    #[must_use]
    pub const fn ip(&self) -> u64 {
        self.0.rip
    }

    /// EAX and ECX: what CPUID is asked.
    #[must_use]
    pub const fn question(&self) -> (u32, u32) {
        (self.0.rax as u32, self.0.rcx as u32)
    }

    /// The system call's number and its first three arguments.
    #[must_use]
    pub const fn call(&self) -> (u64, [u64; 3]) {
        (self.0.orig_rax, [self.0.rdi, self.0.rsi, self.0.rdx])
    }

    /// The system call's result, which is `-ENOSYS` when it begins.
    #[must_use]
    pub const fn result(&self) -> i64 {
        self.0.rax.cast_signed()
    }

    /// Whether the thread executes 64-bit code (the selector of Linux, `arch/x86/include/asm/segment.h:__USER_CS`).
    #[must_use]
    pub const fn is_64_bit(&self) -> bool {
        self.0.cs == 0x33
    }

    /// As CPUID leaves them: the answer in EAX to EDX, the next instruction at `ip`.
    pub fn answer(&mut self, answer: cpusieve_model::Registers, ip: u64) {
        self.0.rax = answer.eax.into();
        self.0.rbx = answer.ebx.into();
        self.0.rcx = answer.ecx.into();
        self.0.rdx = answer.edx.into();
        self.0.rip = ip;
    }

    /// About to make this system call by the SYSCALL instruction at the same address.
    pub fn set_call(&mut self, number: u64, arguments: [u64; 2]) {
        self.0.rax = number;
        [self.0.rdi, self.0.rsi] = arguments;
        // No system call that the kernel might start again.
        self.0.orig_rax = u64::MAX;
    }
}

/// Starts a program, stopped after its `execve`, with all that it will start to be stopped too.
///
/// # Errors
///
/// If it cannot be started or traced.
pub fn start(command: &mut Command) -> io::Result<Tid> {
    let trace_me = || {
        // SAFETY: PTRACE_TRACEME takes no arguments; the call is async-signal-safe, as it must be between fork and exec.
        match unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes one system call; it neither allocates nor takes a lock.
    let child = unsafe { command.pre_exec(trace_me) }.spawn()?;
    let tid = Tid::try_from(child.id()).map_err(io::Error::other)?;
    match wait(Some(tid))? {
        Some((_, Stop::Signal(libc::SIGTRAP))) => {}
        other => return Err(io::Error::other(format!("the program did not stop after its start: {other:?}"))),
    }
    let options = libc::PTRACE_O_EXITKILL
        | libc::PTRACE_O_TRACESYSGOOD
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEEXEC;
    // SAFETY: PTRACE_SETOPTIONS takes a number, no pointer.
    check(unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, tid, 0, libc::c_long::from(options)) })?;
    Ok(tid)
}

/// Waits for the next stop of one thread, or of any; `None` if there is none left, `Interrupted` if a signal comes.
///
/// # Errors
///
/// What the kernel answers.
pub fn wait(tid: Option<Tid>) -> io::Result<Option<(Tid, Stop)>> {
    let mut status = 0;
    // SAFETY: the status is a valid place for a number.
    let tid = unsafe { libc::waitpid(tid.unwrap_or(-1), &mut status, libc::__WALL | libc::__WNOTHREAD) };
    if tid < 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ECHILD) { Ok(None) } else { Err(error) };
    }
    let stop = if libc::WIFEXITED(status) {
        Stop::Gone(libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        Stop::Gone(-libc::WTERMSIG(status))
    } else {
        match (libc::WSTOPSIG(status), status >> 16) {
            (signal, 0) if signal == libc::SIGTRAP | 0x80 => Stop::Syscall,
            (signal, 0) => Stop::Signal(signal),
            (_, libc::PTRACE_EVENT_EXEC) => Stop::Exec,
            (_, libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE) => message(tid)?,
            _ => Stop::Other,
        }
    };
    Ok(Some((tid, stop)))
}

/// The thread that was started.
fn message(tid: Tid) -> io::Result<Stop> {
    let mut message: libc::c_ulong = 0;
    // SAFETY: PTRACE_GETEVENTMSG writes one unsigned long to a valid place.
    check(unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, tid, 0, &raw mut message) })?;
    Tid::try_from(message).map(Stop::Started).map_err(io::Error::other)
}

/// Lets a stopped thread run until its next system call (`calls`) or signal, and hands it a signal if that is not 0.
///
/// # Errors
///
/// What the kernel answers: `ESRCH` if it was killed meanwhile.
pub fn resume(tid: Tid, calls: bool, signal: i32) -> io::Result<()> {
    let request = if calls { libc::PTRACE_SYSCALL } else { libc::PTRACE_CONT };
    // SAFETY: both requests take a number, no pointer.
    check(unsafe { libc::ptrace(request, tid, 0, libc::c_long::from(signal)) })
}

/// The registers of a stopped thread.
///
/// # Errors
///
/// What the kernel answers.
pub fn registers(tid: Tid) -> io::Result<Registers> {
    // SAFETY: the structure consists of numbers, for which zeroes are valid.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    // SAFETY: PTRACE_GETREGS writes one such structure to a valid place.
    check(unsafe { libc::ptrace(libc::PTRACE_GETREGS, tid, 0, &raw mut registers) })?;
    Ok(Registers(registers))
}

/// Sets them.
///
/// # Errors
///
/// What the kernel answers.
pub fn set_registers(tid: Tid, registers: &Registers) -> io::Result<()> {
    // SAFETY: PTRACE_SETREGS reads one such structure from a valid place.
    check(unsafe { libc::ptrace(libc::PTRACE_SETREGS, tid, 0, &raw const registers.0) })
}

/// Eight bytes of a stopped thread's memory.
///
/// # Errors
///
/// What the kernel answers: `EIO` where nothing is mapped.
pub fn peek(tid: Tid, address: u64) -> io::Result<[u8; 8]> {
    let mut word: libc::c_long = 0;
    // SAFETY: the system call (not the C library's function) writes one long to a valid place.
    check(unsafe { libc::syscall(libc::SYS_ptrace, libc::PTRACE_PEEKDATA, tid, address, &raw mut word) })?;
    Ok(word.to_ne_bytes())
}

/// Writes eight bytes, also where the program itself may only read and execute.
///
/// # Errors
///
/// What the kernel answers.
pub fn poke(tid: Tid, address: u64, bytes: [u8; 8]) -> io::Result<()> {
    // SAFETY: PTRACE_POKEDATA takes two numbers; the memory is the other program's.
    check(unsafe { libc::ptrace(libc::PTRACE_POKEDATA, tid, address, libc::c_long::from_ne_bytes(bytes)) })
}

/// Whether this CPU and kernel can make CPUID fault in a program (`ARCH_SET_CPUID`, Linux 4.12 and newer).
#[must_use]
pub fn can_fault() -> bool {
    // SAFETY: switches faulting off for this thread, which it is already; takes numbers alone.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_CPUID, 1) == 0 }
}

/// The command of `arch_prctl` whose argument 0 makes CPUID fault (`arch/x86/include/uapi/asm/prctl.h`).
pub const ARCH_SET_CPUID: u64 = 0x1012;

fn check(result: libc::c_long) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
