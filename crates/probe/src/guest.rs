//! A guest that is booted to be looked at: QEMU, a Linux kernel, and an initial file system made in memory, in which this
//! program itself is the first process and tells what it sees.
//!
//! Nothing touches a disk: the file system and the report are files in memory, which QEMU opens through `/proc`. QEMU is
//! killed and reaped when the time is up, and dies with the thread that started it.

mod init;
mod initramfs;
mod kernel;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};

use crate::Refusal;
use crate::files::bounded;
use crate::process::{Fault, Process};

pub use init::{WORD, load, port, run, run_with};
pub use initramfs::{Archive, build};
pub use kernel::{Kernel, find};

/// The port of the report, in the guest.
const PORT: &str = "ttyS1";

/// What each guest's command line begins with. A kernel that panics restarts at once, which ends QEMU; and none is to panic
/// because a busy machine has let its timer come late (`arch/x86/kernel/apic/io_apic.c:timer_irq_works`).
const CMDLINE: &str = "console=ttyS0 quiet panic=-1 no_timer_check";

/// The most bytes of a report that are read.
const REPORT_LIMIT: u64 = 8 << 20;

/// The longest program that becomes a guest's first process, in bytes.
const PROGRAM_LIMIT: u64 = 256 << 20;

/// The lines of the console that are kept: the last ones say why.
const LAST_LINES: usize = 12;

/// What a kernel says before the reason for which it panics.
const PANIC: &str = "Kernel panic - not syncing: ";

/// Why a kernel panics, if this line of its console says it.
#[must_use]
pub fn panic(line: &str) -> Option<&str> {
    line.split_once(PANIC).map(|(_, why)| why)
}

/// How long QEMU may take to end after it has closed its output.
const FAREWELL: Duration = Duration::from_secs(2);

/// How a guest is started.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// The QEMU binary.
    pub binary: &'a Path,
    /// `-accel`
    pub accelerator: &'a str,
    /// `-machine`
    pub machine: &'a str,
    /// `-cpu`
    pub cpu: &'a str,
    /// `-kernel`
    pub kernel: &'a Path,
    /// The initial file system ([`build`]).
    pub initramfs: &'a [u8],
    /// What is added to the kernel's command line.
    pub append: &'a str,
    /// The longest that it may take.
    pub limit: Duration,
}

/// How a boot ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// The kernel's command line.
    pub cmdline: String,
    /// The lines that QEMU wrote to stderr.
    pub stderr: Vec<String>,
    /// The sections of the guest's report by name; or why there is none.
    pub report: Result<BTreeMap<String, String>, String>,
    /// The last lines on the console.
    pub console: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// The command line of a guest whose first process is this program, with something added.
#[must_use]
pub fn cmdline(append: &str) -> String {
    format!("{CMDLINE} {WORD}={PORT} {append}").trim_end().to_owned()
}

/// This program, to be the first process of a guest.
///
/// # Errors
///
/// If it cannot be read, or is linked dynamically: there are no libraries in the guest.
pub fn this_program() -> Result<Vec<u8>, Refusal> {
    let path = Path::new("/proc/self/exe");
    let file = File::open(path).map_err(|source| Refusal::file(path, source))?;
    let bytes = bounded(file, path, PROGRAM_LIMIT)?;
    if needs_libraries(&bytes) {
        let problem = "it is linked dynamically; a guest's first process must be static".to_owned();
        return Err(Refusal::Program { path: path.to_owned(), problem });
    }
    Ok(bytes)
}

/// Whether a 64-bit ELF program names an interpreter (`PT_INTERP`).
fn needs_libraries(elf: &[u8]) -> bool {
    const INTERPRETER: u32 = 3;
    let half = |at: usize| elf.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes);
    let word = |at: usize| elf.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
    let headers = elf.get(32..40).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
    let (size, count) = (u64::from(half(54)), u64::from(half(56)));
    (0..count).any(|number| {
        let at = headers.saturating_add(number * size);
        usize::try_from(at).is_ok_and(|at| at < elf.len() && word(at) == INTERPRETER)
    })
}

/// Boots a guest with one CPU and 512 MiB, and waits for its end.
///
/// # Errors
///
/// If QEMU cannot be run. A guest that does not report is an answer: [`Boot::report`].
pub fn boot(start: &Start<'_>) -> Result<Boot, Refusal> {
    let problem =
        |error: &dyn std::fmt::Display| Refusal::Program { path: start.binary.to_owned(), problem: error.to_string() };
    let in_memory = |name: &str| memfd_create(name, MemfdFlags::CLOEXEC).map(File::from);
    let mut initramfs = in_memory("initramfs").map_err(|error| problem(&error))?;
    initramfs.write_all(start.initramfs).map_err(|error| problem(&error))?;
    let report = in_memory("report").map_err(|error| problem(&error))?;
    let path = |file: &File| format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let cmdline = cmdline(start.append);
    let mut command = Command::new(start.binary);
    command.args(["-accel", start.accelerator, "-machine", start.machine, "-cpu", start.cpu, "-smp", "1", "-m", "512"]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-append", &cmdline]);
    command.arg("-kernel").arg(start.kernel).args(["-initrd", &path(&initramfs)]);
    command.args(["-serial", "stdio", "-serial", &format!("file:{}", path(&report))]).env("LC_ALL", "C");
    let clock = Instant::now();
    let mut process = Process::spawn(&mut command).map_err(|error| problem(&error))?;
    let (console, why, late) = console(&mut process, clock + start.limit);
    let status = process.finish(if late { Duration::ZERO } else { FAREWELL }).map_err(|error| problem(&error))?;
    let took = clock.elapsed();
    let stderr: Vec<String> = process.stderr().lines().map(str::to_owned).collect();
    let report = match (sections(&text(report)), why) {
        ((sections, true), _) => Ok(sections),
        (_, Some(why)) => Err(format!("the guest's kernel panicked: {why}")),
        _ if late => Err(format!("the guest did not end within {} s", start.limit.as_secs())),
        _ if !status.success() => Err(format!("QEMU ended with {status}")),
        _ => Err("the guest ended without a report".to_owned()),
    };
    Ok(Boot { cmdline, stderr, report, console, took })
}

/// Reads the console until its end; the last lines, why the kernel panicked if it did, and whether the time was up before.
fn console(process: &mut Process, deadline: Instant) -> (Vec<String>, Option<String>, bool) {
    let mut lines = std::collections::VecDeque::with_capacity(LAST_LINES + 1);
    let mut why = None;
    let late = loop {
        match process.line(deadline) {
            Ok(line) => {
                let line = String::from_utf8_lossy(&line).trim().replace(char::is_control, "?");
                // More lines than are kept may follow it (`kernel/panic.c:panic`); the first one says why.
                why = why.or_else(|| panic(&line).map(str::to_owned));
                if !line.is_empty() {
                    lines.push_back(line);
                }
                if lines.len() > LAST_LINES {
                    lines.pop_front();
                }
            }
            Err(Fault::Late) => break true,
            Err(_) => break false,
        }
    };
    (lines.into(), why, late)
}

fn text(mut file: File) -> String {
    let mut bytes = Vec::new();
    // What was read before an error is worth more than the error.
    let _partial = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(REPORT_LIMIT).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The sections of a report by name, as far as it came, and whether its end is there.
#[must_use]
pub fn sections(report: &str) -> (BTreeMap<String, String>, bool) {
    // A terminal ends lines with a carriage return too.
    let report = report.replace('\r', "");
    let (report, whole) = report.split_once("@end\n").map_or((report.as_str(), false), |(report, _)| (report, true));
    let mut sections = BTreeMap::<String, String>::new();
    let mut section = None;
    for line in report.lines() {
        match (line.strip_prefix('@'), section.as_mut()) {
            (Some(name), _) => section = Some(sections.entry(name.to_owned()).or_default()),
            (None, Some(text)) => text.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    (sections, whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn a_report_without_its_end_is_not_whole() {
        let (whole, is_whole) = sections("@release\r\n6.1\n\n@cpuid\na\nb\n@end\n");
        assert!(is_whole);
        assert_eq!(whole["release"], "6.1\n\n");
        assert_eq!(whole["cpuid"], "a\nb\n");
        let (part, is_whole) = sections("@release\n6.1\n");
        assert!(!is_whole && part["release"] == "6.1\n");
    }

    #[test]
    fn an_interpreter_is_found_and_nonsense_is_none() {
        let mut elf = vec![0; 0x100];
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = 2;
        assert!(!needs_libraries(&elf));
        elf[64 + 56] = 3;
        assert!(needs_libraries(&elf));
        assert!(!needs_libraries(b"\x7fELF"));
    }

    fn start<'a>(binary: &'a Path, limit: Duration) -> Start<'a> {
        let kernel = Path::new("/none");
        Start { binary, accelerator: "tcg", machine: "pc", cpu: "max", kernel, initramfs: b"x", append: "", limit }
    }

    #[test]
    fn a_guest_that_hangs_is_killed_and_its_last_lines_are_kept() {
        let folder = Folder::new("guest-hangs");
        folder.program("hangs", "#!/bin/sh\necho one; echo two >&2; exec sleep 60\n");
        folder.program("fails", "#!/bin/sh\necho no such machine >&2; exit 1\n");
        let clock = Instant::now();
        let hangs = boot(&start(&folder.path("hangs"), Duration::from_millis(300))).unwrap();
        assert!(clock.elapsed() < Duration::from_secs(20));
        assert!(hangs.report.unwrap_err().contains("did not end"));
        assert_eq!((hangs.console, hangs.stderr), (vec!["one".to_owned()], vec!["two".to_owned()]));
        let fails = boot(&start(&folder.path("fails"), Duration::from_secs(20))).unwrap();
        assert_eq!(fails.report.unwrap_err(), "QEMU ended with exit status: 1");
        assert!(boot(&start(&folder.path("absent"), Duration::ZERO)).is_err());
    }

    #[test]
    fn a_report_that_is_written_through_proc_is_read() {
        let folder = Folder::new("guest-reports");
        let program =
            "#!/bin/sh\nfor word; do last=$word; done\nprintf '@release\\n6.1\\n@end\\n' > \"${last#file:}\"\n";
        folder.program("reports", program);
        let told = boot(&start(&folder.path("reports"), Duration::from_secs(20))).unwrap();
        assert_eq!(told.report.unwrap()["release"], "6.1\n");
    }
}
