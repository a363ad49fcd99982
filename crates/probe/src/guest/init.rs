//! The first program of a guest that was booted to be looked at: tells what the guest's CPU and kernel say, then restarts,
//! which ends QEMU.
//!
//! What it tells goes to a serial port of its own, so that no kernel message can come between. A section begins with a
//! line `@name`; the last one is `@end`, without which the report is not whole.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use cpusieve_model::{CpuidEntry, MsrReading, Registers, Vendor};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot};
use rustix::termios::tcdrain;

use crate::{cpuid, linux, msr};

/// The word of the kernel's command line that makes a program this one: `cpusieve_init=ttyS1` names the port. A kernel
/// hands words that it does not know to its first program, as variables (Linux
/// `Documentation/admin-guide/kernel-parameters.rst`).
pub const WORD: &str = "cpusieve_init";

/// The port that this process is to report to: only the first process of a system whose kernel was told so has one.
#[must_use]
pub fn port() -> Option<OsString> {
    if std::process::id() == 1 { std::env::var_os(WORD) } else { None }
}

/// Reports to a port (`ttyS1`), then restarts the machine. It returns only if that fails. `more` adds sections, by name,
/// when the guest's file systems are there; no line of them may begin with `@`.
pub fn run(port: &Path, more: impl FnOnce() -> Vec<(&'static str, String)>) -> io::Error {
    let told = tell(port, more);
    let restarted = reboot(RebootCommand::Restart).err().map(io::Error::from);
    told.err().or(restarted).unwrap_or_else(|| io::Error::other("the restart did nothing"))
}

fn tell(port: &Path, more: impl FnOnce() -> Vec<(&'static str, String)>) -> io::Result<()> {
    for (what, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        mount(what, place, what, MountFlags::empty(), None)?;
    }
    let mut report = report()?;
    for (section, text) in more() {
        report.extend(["@", section, "\n", text.trim_end(), "\n"]);
    }
    report.push_str("@end\n");
    let mut port = OpenOptions::new().write(true).open(Path::new("/dev").join(port))?;
    port.write_all(report.as_bytes())?;
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
    for CpuidEntry { leaf, subleaf, registers: Registers { eax, ebx, ecx, edx } } in
        cpuid::enumerate_here().table.entries()
    {
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
    Ok(report)
}

/// The MSRs of the first CPU. The vendor may be made up, so those of both large vendors are read.
fn msrs(report: &mut String) {
    // A kernel may have the module built in, or not at all; whether the device is there says it.
    if let Ok(module) = File::open("/msr.ko") {
        let _loaded = finit_module(&module, c"", 0);
    }
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
