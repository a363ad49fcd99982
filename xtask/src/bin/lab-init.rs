//! `/init` of the laboratory's guests: tells what the guest's CPU and kernel say, then restarts, which ends QEMU.
//!
//! What it tells goes to the second serial port, so that no kernel message can come between. A section begins with a
//! line `@name`; the last one is `@end`, without which the report is not whole.
#![allow(clippy::disallowed_methods, clippy::print_stderr, reason = "it is all of a guest's user land")]

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};

use cpusieve_model::{CpuidEntry, MsrReading, Registers, Vendor};
use cpusieve_probe::{cpuid, msr};
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

fn tell() -> io::Result<()> {
    for (what, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        mount(what, place, what, MountFlags::empty(), None)?;
    }
    let report = report()?;
    let mut port = OpenOptions::new().write(true).open("/dev/ttyS1")?;
    port.write_all(report.as_bytes())?;
    // A restart does not wait for what is still in the driver.
    Ok(tcdrain(&port)?)
}

/// All sections.
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
    report.push_str("@end\n");
    Ok(report)
}

/// The MSRs of the first CPU. The vendor may be made up, so those of both large vendors are read.
fn msrs(report: &mut String) {
    // A kernel may have the module built in, or already loaded; the device then is there all the same.
    if let Ok(module) = File::open("/msr.ko")
        && let Err(error) = finit_module(&module, c"", 0)
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
