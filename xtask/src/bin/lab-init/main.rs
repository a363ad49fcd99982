//! `/init` of the laboratory's guests: tells what the guest's CPU and kernel say, then restarts, which ends QEMU.
//!
//! What it tells goes to the second serial port, so that no kernel message can come between. A section begins with a
//! line `@name`; the last one is `@end`, without which the report is not whole. A guest with a plan in its file system is
//! itself a host of guests (`nested`), whose reports it passes on.
#![allow(clippy::disallowed_methods, clippy::print_stderr, reason = "it is all of a guest's user land")]

mod calls;
mod nested;

use std::error::Error;
use std::ffi::CString;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;

use cpusieve_model::{CpuidEntry, MsrReading, Registers, Vendor};
use cpusieve_probe::{cpuid, msr};
use rustix::fs::OFlags;
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot};
use rustix::termios::tcdrain;

fn main() {
    if let Err(error) = tell() {
        eprintln!("lab-init: {error}");
    }
    // Returns only if it is not root, and then nobody is left to tell.
    if let Err(error) = reboot(RebootCommand::Restart) {
        eprintln!("lab-init: reboot: {error}");
    }
}

fn tell() -> Result<(), Box<dyn Error>> {
    for (what, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        mount(what, place, what, MountFlags::empty(), None)?;
    }
    let mut port = OpenOptions::new().write(true).open("/dev/ttyS1")?;
    port.write_all(report()?.as_bytes())?;
    if let Ok(plan) = fs::read_to_string(nested::PLAN) {
        nested::run(&plan, &mut port)?;
    }
    port.write_all(b"@end\n")?;
    // A restart does not wait for what is still in the driver.
    Ok(tcdrain(&port)?)
}

/// What the CPU and the kernel say, in sections.
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
    messages(&mut report);
    Ok(report)
}

/// The MSRs of the first CPU. The vendor may be made up, so those of both large vendors are read.
fn msrs(report: &mut String) {
    // A kernel may have the module built in, or already loaded; the device then is there all the same.
    if let Err(error) = load("/msr.ko", "")
        && error.kind() != io::ErrorKind::NotFound
    {
        eprintln!("lab-init: msr.ko: {error}");
    }
    let (mut values, mut failed) = (String::new(), String::new());
    for vendor in [Vendor::Intel, Vendor::Amd] {
        match msr::read(0, Some(vendor)) {
            Ok(table) => {
                for (index, reading) in table.iter() {
                    let _infallible = match reading {
                        MsrReading::Value(value) => writeln!(values, "{index:#010x} {value:#018x}"),
                        MsrReading::Unreadable => writeln!(failed, "{index:#010x}"),
                    };
                }
            }
            Err(error) => eprintln!("lab-init: {error}"),
        }
    }
    report.extend(["@msrs\n", &values, "@msrs_failed\n", &failed]);
}

/// Loads a module with options.
fn load(file: &str, options: &str) -> io::Result<()> {
    let module = File::open(file)?;
    let options = CString::new(options)?;
    Ok(finit_module(&module, &options, 0)?)
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
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let Ok(mut log) = OpenOptions::new().read(true).custom_flags(flags).open("/dev/kmsg") else { return };
    let mut record = [0; RECORD];
    while let Ok(read) = log.read(&mut record) {
        let text = String::from_utf8_lossy(record.get(..read).unwrap_or_default());
        let line = text.lines().next().and_then(|line| line.split_once(';')).map_or("", |(_, line)| line);
        if ABOUT.iter().any(|word| line.contains(word)) {
            report.extend([line, "\n"]);
        }
    }
}
