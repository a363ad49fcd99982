//! One guest: started under QEMU's emulator, told by its own `/init` what it saw.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::bounded;

/// What runs a guest. The laboratory knows the name in `PATH` alone.
pub(super) const QEMU: &str = "qemu-system-x86_64";

/// The longest that a boot may take. One takes 4 to 10 s on a core of its own.
const LIMIT: Duration = Duration::from_secs(90);

/// The status of a boot that took longer.
pub(super) const LATE: &str = "timeout";

/// What each guest's command line begins with. A kernel that panics restarts at once, which ends QEMU.
const CMDLINE: &str = "console=ttyS0 quiet panic=-1";

/// How one guest is started.
pub(super) struct Start<'a> {
    /// `-kernel`
    pub(super) image: &'a Path,
    /// `-initrd`
    pub(super) initramfs: &'a Path,
    /// `-cpu`
    pub(super) cpu: &'a str,
    /// What is added to the kernel's command line.
    pub(super) append: &'a str,
    /// Where its console and its report go: paths without an extension.
    pub(super) scratch: PathBuf,
}

/// How one boot ended.
pub(super) struct Boot {
    /// The command line that was asked for.
    pub(super) cmdline: String,
    /// What QEMU wrote to stderr, line by line.
    pub(super) warnings: Vec<String>,
    /// `ok`, or how it failed.
    pub(super) status: String,
    /// The sections of the guest's report by name; `None` if it is not whole.
    pub(super) report: Option<BTreeMap<String, String>>,
    /// The last lines on the console.
    pub(super) console_tail: Vec<String>,
    /// How long it took.
    pub(super) took: Duration,
}

/// QEMU's version line.
pub(super) fn version() -> Result<String, Box<dyn Error>> {
    let text = bounded::must(Command::new(QEMU).arg("--version"), Duration::from_secs(20))?;
    let line = text.lines().next().unwrap_or_default();
    Ok(line.strip_prefix("QEMU emulator version ").unwrap_or(line).to_owned())
}

/// Boots a guest and waits for its end.
pub(super) fn boot(start: &Start<'_>) -> Result<Boot, Box<dyn Error>> {
    let (console, report) = (start.scratch.with_extension("console"), start.scratch.with_extension("report"));
    let cmdline = format!("{CMDLINE} {}", start.append);
    let cmdline = cmdline.trim_end().to_owned();
    let mut command = Command::new(QEMU);
    command.args(["-accel", "tcg", "-machine", "pc", "-smp", "1", "-m", "512", "-nodefaults", "-display", "none"]);
    command.args(["-no-reboot", "-cpu", start.cpu, "-append", &cmdline]);
    command.arg("-kernel").arg(start.image).arg("-initrd").arg(start.initramfs);
    command.arg("-serial").arg(device(&console)).arg("-serial").arg(device(&report));
    let clock = Instant::now();
    let ended = bounded::run(&mut command, LIMIT)?;
    let took = clock.elapsed();
    let text = read_lossy(&console);
    let report = sections(&read_lossy(&report));
    let status = match (ended.status, &report) {
        (None, _) => LATE.to_owned(),
        (Some(status), _) if !status.success() => format!("qemu-exit-{}", status.code().unwrap_or(-1)),
        (Some(_), None) => "fatal".to_owned(),
        (Some(_), Some(_)) => "ok".to_owned(),
    };
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let tail = lines.iter().rev().take(12).rev().map(ToString::to_string).collect();
    let warnings = ended.stderr.lines().map(str::to_owned).collect();
    Ok(Boot { cmdline, warnings, status, report, console_tail: tail, took })
}

/// A character device that writes into a file. A comma in a path has to be doubled.
fn device(path: &Path) -> String {
    format!("file:{}", path.display().to_string().replace(',', ",,"))
}

/// What was written to a file; nothing if it was never made.
fn read_lossy(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The sections of a report, if its end is there.
fn sections(report: &str) -> Option<BTreeMap<String, String>> {
    // A terminal ends lines with a carriage return too.
    let report = report.replace('\r', "");
    let (report, _) = report.split_once("@end\n")?;
    let mut sections = BTreeMap::<String, String>::new();
    let mut section = None;
    for line in report.lines() {
        match (line.strip_prefix('@'), section.as_mut()) {
            (Some(name), _) => section = Some(sections.entry(name.to_owned()).or_default()),
            (None, Some(text)) => text.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    Some(sections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_without_its_end_is_none() {
        let whole = sections("@release\r\n6.1\n\n@cpuid\na\nb\n@end\n").unwrap();
        assert_eq!(whole["release"], "6.1\n\n");
        assert_eq!(whole["cpuid"], "a\nb\n");
        assert!(sections("@release\n6.1\n").is_none());
    }
}
