//! One guest: started under QEMU's emulator, told by its own `/init` what it saw.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cpusieve_probe::guest as init;

use super::bounded;
use super::qemu::Qemu;

/// The longest that a plain boot may take. One takes 4 to 10 s on a core of its own.
pub(super) const LIMIT: Duration = Duration::from_secs(90);

/// The status of a boot that took longer.
pub(super) const LATE: &str = "timeout";

/// How one guest is started.
pub(super) struct Start<'a> {
    /// `-accel`
    pub(super) accel: &'a str,
    /// `-smp`
    pub(super) cpus: u32,
    /// `-m`, in MiB.
    pub(super) memory: u32,
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

impl Start<'_> {
    /// The command line that the kernel is given.
    pub(super) fn cmdline(&self) -> String {
        init::cmdline(self.append)
    }

    /// The file that the guest's first serial port writes.
    pub(super) fn console(&self) -> PathBuf {
        self.scratch.with_extension("console")
    }

    /// The file that the guest's second serial port writes.
    pub(super) fn report(&self) -> PathBuf {
        self.scratch.with_extension("report")
    }

    /// QEMU's arguments.
    pub(super) fn arguments(&self) -> Vec<String> {
        let (memory, cpus) = (self.memory.to_string(), self.cpus.to_string());
        let fixed = ["-accel", self.accel, "-machine", "pc", "-smp", &cpus, "-m", &memory, "-nodefaults", "-no-reboot"];
        let mut arguments = fixed.map(str::to_owned).to_vec();
        let rest = [
            ("-display", "none".to_owned()),
            ("-cpu", self.cpu.to_owned()),
            ("-append", self.cmdline()),
            ("-kernel", self.image.display().to_string()),
            ("-initrd", self.initramfs.display().to_string()),
            ("-serial", device(&self.console())),
            ("-serial", device(&self.report())),
        ];
        arguments.extend(rest.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
        arguments
    }
}

/// How one boot ended.
pub(super) struct Boot {
    /// The command line that was asked for.
    pub(super) cmdline: String,
    /// What QEMU wrote to stderr, line by line.
    pub(super) warnings: Vec<String>,
    /// `ok`, or how it failed.
    pub(super) status: String,
    /// The sections of the guest's report by name, as far as it came.
    pub(super) sections: BTreeMap<String, String>,
    /// Whether the end of the report is there.
    pub(super) whole: bool,
    /// The last lines on the console.
    pub(super) console_tail: Vec<String>,
    /// How long it took.
    pub(super) took: Duration,
}

/// Boots a guest and waits for its end, at most this long.
pub(super) fn boot(qemu: &Qemu, start: &Start<'_>, limit: Duration) -> Result<Boot, Box<dyn Error>> {
    let clock = Instant::now();
    let ended = bounded::run(qemu.command().args(start.arguments()), limit)?;
    let took = clock.elapsed();
    let text = read_lossy(&start.console());
    let (sections, whole) = init::sections(&read_lossy(&start.report()));
    let status = match ended.status {
        None => LATE.to_owned(),
        Some(status) if !status.success() => format!("qemu-exit-{}", status.code().unwrap_or(-1)),
        Some(_) if !whole => "fatal".to_owned(),
        Some(_) => "ok".to_owned(),
    };
    let warnings = ended.stderr.lines().map(str::to_owned).collect();
    Ok(Boot { cmdline: start.cmdline(), warnings, status, sections, whole, console_tail: tail(&text), took })
}

/// The last lines that are not empty, behind the one that says why the kernel panicked, if it did.
pub(super) fn tail(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let (rest, last) = lines.split_at(lines.len().saturating_sub(12));
    let why = rest.iter().find(|line| init::panic(line).is_some());
    why.into_iter().chain(last).map(ToString::to_string).collect()
}

/// A character device that writes into a file. A comma in a path has to be doubled.
fn device(path: &Path) -> String {
    format!("file:{}", path.display().to_string().replace(',', ",,"))
}

/// What was written to a file; nothing if it was never made.
fn read_lossy(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
