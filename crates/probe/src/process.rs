//! A program that talks on its standard streams: lines in both directions, each with a deadline, all of it bounded.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use cpusieve_formats::limits::MAX_QMP_MESSAGE;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// Bytes of stderr that are kept: the first half and the last half of this.
const STDERR_LIMIT: usize = 256 << 10;

/// Bytes that are read at once.
const CHUNK: usize = 16 << 10;

/// Why a line did not come or go.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The program has closed the stream.
    Closed,
    /// The deadline has passed.
    Late,
    /// A line is longer than this many bytes.
    TooLong(usize),
    /// The kernel refused.
    Io(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::Closed } else { Self::Io(error) }
    }
}

/// The program and its streams. It is the leader of a process group of its own, so that what it has started ends with
/// it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    /// What was read of stdout and is not yet a line that was taken.
    incoming: Vec<u8>,
    /// How much of `incoming` is known to hold no line feed.
    searched: usize,
    /// What was read of stderr: its beginning and its end.
    said: Vec<u8>,
    /// How it ended, once it has been reaped.
    status: Option<ExitStatus>,
    /// Whether it had to be killed.
    killed: bool,
}

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let parent = rustix::process::getpid();
        let die_with_parent = move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have ended before the kernel was told.
            if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(Errno::SRCH.into()) }
        };
        // SAFETY: between fork and exec only async-signal-safe functions may run: the closure makes two system calls
        // (prctl, getppid) and neither allocates nor takes a lock.
        let mut child = unsafe { command.pre_exec(die_with_parent) }.spawn()?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (incoming, said) = (Vec::new(), Vec::new());
        let process = Self { child, stdin, stdout, stderr, incoming, searched: 0, said, status: None, killed: false };
        if let Some(stdin) = &process.stdin {
            // A program that does not read must not make us wait for room in the pipe.
            rustix::io::ioctl_fionbio(stdin, true)?;
        }
        Ok(process)
    }

    /// Writes all of `bytes`, reading what comes meanwhile.
    pub(crate) fn send(&mut self, mut bytes: &[u8], deadline: Instant) -> Result<(), Fault> {
        loop {
            let stdin = self.stdin.as_mut().ok_or(Fault::Closed)?;
            match stdin.write(bytes) {
                Ok(0) => return Err(Fault::Closed),
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.turn(true, deadline)?,
                Err(error) => return Err(error.into()),
            }
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    /// The next line of stdout, with its line feed.
    pub(crate) fn line(&mut self, deadline: Instant) -> Result<Vec<u8>, Fault> {
        loop {
            let unsearched = self.incoming.get(self.searched..).unwrap_or_default();
            if let Some(end) = unsearched.iter().position(|&byte| byte == b'\n') {
                let rest = self.incoming.split_off(self.searched + end + 1);
                self.searched = 0;
                return Ok(std::mem::replace(&mut self.incoming, rest));
            }
            self.searched = self.incoming.len();
            if self.incoming.len() > MAX_QMP_MESSAGE {
                return Err(Fault::TooLong(MAX_QMP_MESSAGE));
            }
            if self.stdout.is_none() {
                return Err(Fault::Closed);
            }
            self.turn(false, deadline)?;
        }
    }

    /// Takes what stderr holds at this moment.
    pub(crate) fn drain(&mut self) {
        // Bounded, because a program may write as fast as this reads.
        for _ in 0..STDERR_LIMIT / CHUNK {
            if !self.stderr.as_ref().is_some_and(readable) {
                break;
            }
            self.hear();
        }
    }

    /// What the program has written to stderr, as far as it was read and kept.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.said).into_owned()
    }

    /// Lets the program end for as long as `patience`, then kills it and all that it has started; returns how it ended.
    pub(crate) fn finish(&mut self, patience: Duration) -> io::Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        self.stdin = None;
        let deadline = Instant::now() + patience;
        let ended = loop {
            // An error says that there is no such child: then there is nobody to be killed either.
            let ended = self.has_ended()?;
            if ended || Instant::now() >= deadline {
                break ended;
            }
            // Output is read lest the program wait for room in a pipe; it is not kept. That there is none is no matter.
            (self.incoming, self.searched) = (Vec::new(), 0);
            let _ = self.turn(false, deadline.min(Instant::now() + Duration::from_millis(2)));
        };
        self.drain();
        self.killed = !ended;
        // The program is not reaped yet, so that its number can be no other's.
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Fails if there is nobody left in the group.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
        self.child.kill()?;
        let status = self.child.wait()?;
        (self.status, self.stdout, self.stderr) = (Some(status), None, None);
        Ok(status)
    }

    /// Whether it has been reaped.
    pub(crate) fn is_gone(&self) -> bool {
        self.status.is_some()
    }

    /// Whether it ended because it was killed here.
    pub(crate) fn was_killed(&self) -> bool {
        self.killed
    }

    /// Whether the program has ended; it is not reaped by this.
    fn has_ended(&self) -> io::Result<bool> {
        let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else { return Ok(true) };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(rustix::process::waitid(WaitId::Pid(pid), options)?.is_some())
    }

    /// Waits until something can be read (or, if `to_send`, written), and reads it.
    fn turn(&mut self, to_send: bool, deadline: Instant) -> Result<(), Fault> {
        let left = deadline.checked_duration_since(Instant::now()).ok_or(Fault::Late)?;
        let mut streams = Vec::with_capacity(3);
        streams.extend(self.stdout.as_ref().map(|stdout| PollFd::new(stdout, PollFlags::IN)));
        streams.extend(self.stderr.as_ref().map(|stderr| PollFd::new(stderr, PollFlags::IN)));
        let stdin = self.stdin.as_ref().filter(|_| to_send);
        streams.extend(stdin.map(|stdin| PollFd::new(stdin, PollFlags::OUT)));
        match poll(&mut streams, Some(&timespec(left))) {
            Ok(0) => return Err(Fault::Late),
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(Fault::Io(error.into())),
        }
        if self.stderr.as_ref().is_some_and(readable) {
            self.hear();
        }
        if self.stdout.as_ref().is_some_and(readable)
            && let Some(stdout) = &mut self.stdout
            && read_some(stdout, &mut self.incoming)? == 0
        {
            self.stdout = None;
        }
        Ok(())
    }

    /// Reads once from stderr, which has something or is at its end.
    fn hear(&mut self) {
        let Some(stderr) = &mut self.stderr else { return };
        if !matches!(read_some(stderr, &mut self.said), Ok(1..)) {
            self.stderr = None;
        }
        if let Some(excess) = self.said.len().checked_sub(STDERR_LIMIT) {
            self.said.drain(STDERR_LIMIT / 2..STDERR_LIMIT / 2 + excess);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nobody is left who could be told.
        let _ = self.finish(Duration::ZERO);
    }
}

/// Whether a read would return at once.
fn readable(stream: &impl AsFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&now)).is_ok_and(|count| count > 0)
}

/// Reads once and appends; how many bytes there were.
fn read_some(stream: &mut impl Read, into: &mut Vec<u8>) -> io::Result<usize> {
    let mut chunk = [0; CHUNK];
    loop {
        match stream.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(count) => {
                into.extend_from_slice(chunk.get(..count).unwrap_or_default());
                return Ok(count);
            }
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    let seconds = duration.as_secs().try_into().unwrap_or(i64::MAX);
    Timespec { tv_sec: seconds, tv_nsec: duration.subsec_nanos().into() }
}
