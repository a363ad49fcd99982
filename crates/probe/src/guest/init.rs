//! The first program of a guest that was booted to be looked at: tells what the guest's CPU and kernel say, then restarts,
//! which ends QEMU.
//!
//! What it tells goes to a serial port of its own, so that no kernel message can come between. A section begins with a
//! line `@name`; the last one is `@end`, without which the report is not whole.

use std::ffi::{CString, OsString};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use cpusieve_model::{CpuidEntry, MsrReading, Registers, Vendor};
use rustix::fs::OFlags;
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot};
use rustix::termios::tcdrain;

use crate::{affinity, cpuid, linux, msr};

/// The word of the kernel's command line that makes a program this one: `cpusieve_init=ttyS1` names the port. A kernel
/// hands words that it does not know to its first program, as variables (Linux
/// `Documentation/admin-guide/kernel-parameters.rst`).
pub const WORD: &str = "cpusieve_init";

/// The port that this process is to report to: only the first process of a system whose kernel was told so has one.
#[must_use]
pub fn port() -> Option<OsString> {
    if std::process::id() == 1 { std::env::var_os(WORD) } else { None }
}

/// Reports to a port (`ttyS1`), then restarts the machine. It returns only if that fails.
pub fn run(port: &Path) -> io::Error {
    run_with(port, |_| Ok(()))
}

/// As [`run`], for a guest that has more to tell: `more` writes its sections behind the usual ones.
pub fn run_with(port: &Path, more: impl FnOnce(&mut File) -> io::Result<()>) -> io::Error {
    let told = tell(port, more);
    let restarted = reboot(RebootCommand::Restart).err().map(io::Error::from);
    told.err().or(restarted).unwrap_or_else(|| io::Error::other("the restart did nothing"))
}

fn tell(port: &Path, more: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    for (what, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        mount(what, place, what, MountFlags::empty(), None)?;
    }
    let report = report()?;
    let mut port = OpenOptions::new().write(true).open(Path::new("/dev").join(port))?;
    port.write_all(report.as_bytes())?;
    more(&mut port)?;
    port.write_all(b"@end\n")?;
    // A restart does not wait for what is still in the driver.
    Ok(tcdrain(&port)?)
}

/// All sections of what CPU and kernel say.
fn report() -> io::Result<String> {
    let mut report = String::new();
    for (section, file) in [
        ("release", "/proc/sys/kernel/osrelease"),
        ("version", "/proc/version"),
        ("cmdline", "/proc/cmdline"),
        ("cpuinfo", "/proc/cpuinfo"),
    ] {
        report.extend(["@", section, "\n", &fs::read_to_string(file)?]);
    }
    report.push_str("\n@cpuid\n");
    // Of the first CPU, as the MSRs: the numbers of the others are their own.
    let pinned = affinity::on_each(&[0], |_| cpuid::enumerate_here()).pop();
    let found = pinned.and_then(|(_, found)| found.ok()).unwrap_or_else(cpuid::enumerate_here);
    for CpuidEntry { leaf, subleaf, registers: Registers { eax, ebx, ecx, edx } } in found.table.entries() {
        let _infallible = writeln!(
            report,
            "{leaf:#010x} {subleaf:#04x}: eax={eax:#010x} ebx={ebx:#010x} ecx={ecx:#010x} edx={edx:#010x}"
        );
    }
    msrs(&mut report);
    vulnerabilities(&mut report);
    report.push_str("@config\n");
    for (option, value) in linux::view(&mut Vec::new()).config.unwrap_or_default() {
        let _infallible = writeln!(report, "{option} {value}");
    }
    messages(&mut report);
    Ok(report)
}

/// The MSRs of the first CPU. The vendor may be made up, so those of both large vendors are read.
fn msrs(report: &mut String) {
    // A kernel may have the module built in, or not at all; whether the device is there says it.
    let _loaded = load(Path::new("/msr.ko"), "");
    let (mut values, mut failed) = (String::new(), String::new());
    for vendor in [Vendor::Intel, Vendor::Amd] {
        let Ok(table) = msr::read(0, Some(vendor)) else { continue };
        for (index, reading) in table.iter() {
            let _infallible = match reading {
                MsrReading::Value(value) => writeln!(values, "{index:#010x} {value:#018x}"),
                MsrReading::Unreadable => writeln!(failed, "{index:#010x}"),
            };
        }
    }
    report.extend(["@msrs\n", &values, "@msrs_failed\n", &failed]);
}

/// Loads a kernel module with options.
///
/// # Errors
///
/// If the file cannot be read, or the kernel refuses the module.
pub fn load(file: &Path, options: &str) -> io::Result<()> {
    let module = File::open(file)?;
    Ok(finit_module(&module, &CString::new(options)?, 0)?)
}

/// What the kernel says of its mitigations; none from kernels that do not say.
fn vulnerabilities(report: &mut String) {
    report.push_str("@vulnerabilities\n");
    let Ok(entries) = fs::read_dir("/sys/devices/system/cpu/vulnerabilities") else { return };
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    names.sort();
    for path in names {
        if let (Some(name), Ok(text)) = (path.file_name(), fs::read_to_string(&path)) {
            let _infallible = writeln!(report, "{} {}", name.to_string_lossy(), text.trim());
        }
    }
}

/// What the kernel said of its CPU while it booted: the reason for a feature that it does not use stands nowhere else.
fn messages(report: &mut String) {
    // A record of the log has at most 1024 bytes, and one read returns one record.
    const RECORD: usize = 2048;
    const ABOUT: [&str; 6] = ["x86/", "x86:", "CPU", "FPU", "xsave", "XSAVE"];
    report.push_str("@dmesg\n");
    // Without waiting: the log has no end.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let Ok(mut log) = OpenOptions::new().read(true).custom_flags(flags).open("/dev/kmsg") else { return };
    let mut record = [0; RECORD];
    while let Ok(read) = log.read(&mut record) {
        let text = String::from_utf8_lossy(record.get(..read).unwrap_or_default());
        let line = text.lines().next().and_then(|line| line.split_once(';')).map_or("", |(_, line)| line);
        if ABOUT.iter().any(|word| line.contains(word)) {
            // A line that begins as a section does would be one.
            report.extend([if line.starts_with('@') { " " } else { "" }, line, "\n"]);
        }
    }
}
