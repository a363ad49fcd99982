//! The loop over a program's stops.

use std::collections::{HashMap, HashSet};
use std::io;

use cpusieve_probe::ptrace::{self, Registers, Stop, Tid};
use cpusieve_probe::{affinity, cpuid, signals};
use rustix::process::{Pid, Signal, kill_process};

use super::space::{Files, Space, file_at};
use super::{Executed, Method, elf};
use crate::count::Asked;

/// System calls after which other code may be mapped (`arch/x86/entry/syscalls/syscall_64.tbl`).
const MMAP: u64 = 9;
const MPROTECT: u64 = 10;
const MUNMAP: u64 = 11;
const MREMAP: u64 = 25;
const EXECVE: u64 = 59;
const EXECVEAT: u64 = 322;
const ARCH_PRCTL: u64 = 158;

/// PROT_EXEC.
const EXECUTABLE: u64 = 4;

/// SIGTRAP, SIGSEGV, SIGSTOP: the same on every x86 Linux.
const TRAP: i32 = 5;
const FAULT: i32 = 11;
const STOPPED: i32 = 19;

/// A program that is being watched.
pub(super) struct Run {
    first: Tid,
    executed: Executed,
    files: Files,
    /// Each process's memory.
    spaces: HashMap<Tid, Space>,
    /// Each thread's process.
    threads: HashMap<Tid, Tid>,
    /// Threads that have stopped before their parent said that it started them.
    early: HashSet<Tid>,
    /// Processes whose new program is still inside `execve`.
    executing: HashSet<Tid>,
    interrupted: bool,
}

impl Run {
    pub(super) fn new(first: Tid, method: Method) -> Self {
        Self {
            first,
            executed: Executed { method, processes: 1, ..Executed::default() },
            files: Files::default(),
            spaces: HashMap::from([(first, Space::default())]),
            threads: HashMap::from([(first, first)]),
            early: HashSet::new(),
            executing: HashSet::new(),
            interrupted: false,
        }
    }

    /// Runs until nothing is left.
    pub(super) fn finish(mut self) -> io::Result<Executed> {
        self.begin(self.first)?;
        gone_is_fine(ptrace::resume(self.first, true, 0))?;
        loop {
            if signals::interrupted() && !std::mem::replace(&mut self.interrupted, true) {
                self.kill();
            }
            match ptrace::wait(None) {
                Ok(Some((tid, Stop::Gone(status)))) => self.gone(tid, status),
                // A thread may be killed at any moment, which its next stop will say.
                Ok(Some((tid, stop))) => gone_is_fine(self.stopped(tid, stop))?,
                Ok(None) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.executed.unseen = self.files.unseen;
        Ok(self.executed)
    }

    /// Ends all processes: whoever started this one wants that.
    fn kill(&self) {
        for pid in self.spaces.keys().filter_map(|&pid| Pid::from_raw(pid)) {
            // It may be gone already.
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    fn gone(&mut self, tid: Tid, status: i32) {
        if tid == self.first {
            self.executed.status = status;
        }
        self.threads.remove(&tid);
        self.spaces.remove(&tid);
        self.early.remove(&tid);
    }

    fn stopped(&mut self, tid: Tid, stop: Stop) -> io::Result<()> {
        if !self.threads.contains_key(&tid) {
            self.early.insert(tid);
            return Ok(());
        }
        let signal = match stop {
            Stop::Started(child) => {
                self.started(tid, child)?;
                0
            }
            Stop::Exec => {
                let pid = self.process(tid);
                self.spaces.insert(pid, Space::default());
                self.executing.insert(pid);
                0
            }
            Stop::Syscall => {
                self.call(tid)?;
                0
            }
            Stop::Signal(TRAP) if self.executed.method == Method::Breakpoints => self.breakpoint(tid)?,
            Stop::Signal(FAULT) if self.executed.method == Method::Faulting => self.fault(tid)?,
            Stop::Signal(signal) => signal,
            Stop::Other | Stop::Gone(_) => 0,
        };
        ptrace::resume(tid, true, signal)
    }

    fn process(&self, tid: Tid) -> Tid {
        self.threads.get(&tid).copied().unwrap_or(tid)
    }

    /// A new thread, or a new process with a copy of its parent's memory, breakpoints included.
    fn started(&mut self, parent: Tid, child: Tid) -> io::Result<()> {
        let of = self.process(parent);
        let pid = thread_group(child).unwrap_or(child);
        self.threads.insert(child, pid);
        if pid != of {
            self.executed.processes += 1;
            let copy = self.spaces.get(&of).cloned().unwrap_or_default();
            self.spaces.entry(pid).or_insert(copy);
        }
        if self.early.remove(&child) {
            gone_is_fine(ptrace::resume(child, true, 0))?;
        } else {
            // Its first stop is a SIGSTOP that nobody sent.
            match ptrace::wait(Some(child)) {
                Ok(Some((_, Stop::Signal(STOPPED)))) => gone_is_fine(ptrace::resume(child, true, 0))?,
                Ok(Some((_, Stop::Gone(status)))) => self.gone(child, status),
                Ok(Some((tid, stop))) => gone_is_fine(self.stopped(tid, stop))?,
                Ok(None) => self.gone(child, 0),
                // It stops later, and is let go then as any thread with a SIGSTOP.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A system call begins or ends.
    fn call(&mut self, tid: Tid) -> io::Result<()> {
        let registers = ptrace::registers(tid)?;
        let (number, [address, size, protection]) = registers.call();
        let pid = self.process(tid);
        if matches!(number, EXECVE | EXECVEAT) {
            return if self.executing.remove(&pid) { self.begin(tid) } else { Ok(()) };
        }
        let failed = (-4095..0).contains(&registers.result());
        if failed || self.executed.method == Method::Faulting {
            return Ok(());
        }
        let Some(space) = self.spaces.get_mut(&pid) else { return Ok(()) };
        match number {
            MUNMAP => space.forget(address, size),
            MMAP => space.forget(registers.result().cast_unsigned(), size),
            MREMAP => space.forget(address, size),
            MPROTECT => {}
            _ => return Ok(()),
        }
        if number == MREMAP || (matches!(number, MMAP | MPROTECT) && protection & EXECUTABLE != 0) {
            space.look(tid, &mut self.files)?;
        }
        Ok(())
    }

    /// A new program stands at its first instruction.
    fn begin(&mut self, tid: Tid) -> io::Result<()> {
        if self.executed.method == Method::Faulting {
            let result = make_fault(tid)?;
            if result != 0 {
                return Err(io::Error::from_raw_os_error(i32::try_from(-result).unwrap_or(0)));
            }
            return Ok(());
        }
        if !ptrace::registers(tid)?.is_64_bit() {
            self.files.unseen.insert(file_at(tid, ptrace::registers(tid)?.ip()), "32-bit code".to_owned());
            return Ok(());
        }
        let pid = self.process(tid);
        self.spaces.entry(pid).or_default().look(tid, &mut self.files)
    }

    /// A breakpoint was met: the signal to be handed on, which is none if the breakpoint is ours.
    fn breakpoint(&mut self, tid: Tid) -> io::Result<i32> {
        let registers = ptrace::registers(tid)?;
        // The CPU stops behind the breakpoint.
        let address = registers.ip().wrapping_sub(1);
        let file = self.spaces.get(&self.process(tid)).and_then(|space| space.file(address)).map(str::to_owned);
        let Some(file) = file else { return Ok(TRAP) };
        self.execute(tid, registers, file, address + elf::CPUID.len() as u64)?;
        Ok(0)
    }

    /// A fault: the signal to be handed on, which is none if CPUID stands there.
    fn fault(&mut self, tid: Tid) -> io::Result<i32> {
        let registers = ptrace::registers(tid)?;
        let is_cpuid = ptrace::peek(tid, registers.ip()).is_ok_and(|bytes| bytes.starts_with(&elf::CPUID));
        if !is_cpuid {
            return Ok(FAULT);
        }
        let file = file_at(tid, registers.ip());
        self.execute(tid, registers, file, registers.ip() + elf::CPUID.len() as u64)?;
        Ok(0)
    }

    /// Executes CPUID in the program's place.
    fn execute(&mut self, tid: Tid, mut registers: Registers, file: String, next: u64) -> io::Result<()> {
        let (leaf, subleaf) = registers.question();
        self.executed.counts.add((file, Asked::new(leaf, subleaf)), 1);
        // APIC ids differ from CPU to CPU, on hybrids much more.
        let there = last_cpu(tid).map(|cpu| affinity::on_each(&[cpu], |_| cpuid::instruction(leaf, subleaf)));
        let there = there.and_then(|answers| answers.into_iter().find_map(|(_, answer)| answer.ok()));
        registers.answer(there.unwrap_or_else(|| cpuid::instruction(leaf, subleaf)), next);
        ptrace::set_registers(tid, &registers)
    }
}

/// Makes CPUID fault in a program: has it call `arch_prctl`, by a SYSCALL written over its next instruction, which is put
/// back afterwards. Returns what the call returned.
fn make_fault(tid: Tid) -> io::Result<i64> {
    let registers = ptrace::registers(tid)?;
    let code = ptrace::peek(tid, registers.ip())?;
    let mut patched = code;
    // SYSCALL; INT3
    patched.iter_mut().zip([0x0f, 0x05, 0xcc]).for_each(|(byte, new)| *byte = new);
    ptrace::poke(tid, registers.ip(), patched)?;
    let mut calling = registers;
    calling.set_call(ARCH_PRCTL, [ptrace::ARCH_SET_CPUID, 0]);
    ptrace::set_registers(tid, &calling)?;
    let result = loop {
        ptrace::resume(tid, false, 0)?;
        match ptrace::wait(Some(tid)) {
            Ok(Some((_, Stop::Signal(TRAP)))) => break ptrace::registers(tid)?.result(),
            Ok(Some((_, Stop::Gone(_))) | None) => return Err(io::Error::from_raw_os_error(3)),
            Ok(Some(_)) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    };
    ptrace::poke(tid, registers.ip(), code)?;
    ptrace::set_registers(tid, &registers)?;
    Ok(result)
}

/// The process that a thread belongs to.
fn thread_group(tid: Tid) -> Option<Tid> {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// The CPU on which a thread ran last (field 39 of `/proc/PID/stat`).
fn last_cpu(tid: Tid) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{tid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(36)?.parse().ok()
}

/// A thread that is gone needs nothing any more.
fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(3) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, clippy::print_stderr, reason = "tests run programs and say what they skip")]

    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_call_is_made_in_a_programs_place_and_leaves_no_trace() {
        const NO_SUCH_DEVICE: i64 = -19;
        let mut command = Command::new("/bin/sh");
        let tid = match ptrace::start(command.args(["-c", "exit 9"]).stdin(Stdio::null())) {
            Ok(tid) => tid,
            Err(error) => {
                eprintln!("skipped: {error}");
                return;
            }
        };
        let before =
            (ptrace::registers(tid).unwrap().ip(), ptrace::peek(tid, ptrace::registers(tid).unwrap().ip()).unwrap());
        let result = make_fault(tid).unwrap();
        let after = (ptrace::registers(tid).unwrap().ip(), ptrace::peek(tid, before.0).unwrap());
        assert_eq!(after, before);
        assert_eq!(result, if ptrace::can_fault() { 0 } else { NO_SUCH_DEVICE });
        let method = if result == 0 { Method::Faulting } else { Method::Breakpoints };
        let executed = Run::new(tid, method).finish().unwrap();
        assert_eq!(executed.status, 9);
        assert!(executed.counts.total() > 10);
    }
}
