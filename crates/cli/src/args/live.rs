//! Options of `verify` and `trace`, which watch the real things.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

pub(super) const VERIFY_EXAMPLES: &str = "\
Predicts, asks the real thing, and compares: what this kernel prints of its own CPUs (host), what KVM
offers (kvm), what a vCPU made by cpusieve itself reads and which MSRs it takes (vcpu), what every
installed QEMU says of its models and of a paused machine (qemu), and what a Linux guest that QEMU boots
sees (guest; under KVM where stock kernels run there, else under TCG). Without a selection all parts
are asked; one that this machine does not allow is named with what helps. Nothing is left running.

A record is compared without asking; --keep writes one that holds what was asked.

Examples:
  cpusieve verify                          everything; as root, so that MSRs can be read
  cpusieve verify --vcpu                   does KVM give a guest what its table says?
  cpusieve verify --guest --kernel /boot/vmlinuz-6.12.0-1-amd64
  cpusieve verify --keep proof.json        keep all answers as a regression test
  cpusieve verify proof.json               compare them again";

/// Options of `verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyOptions {
    /// This machine's own kernel: flags, bugs and vmx flags of every CPU
    #[arg(long)]
    pub(crate) host: bool,
    /// What /dev/kvm offers
    #[arg(long)]
    pub(crate) kvm: bool,
    /// A vCPU of our own that executes CPUID, and the MSRs that QEMU would write
    #[arg(long)]
    pub(crate) vcpu: bool,
    /// Every installed QEMU, over QMP
    #[arg(long)]
    pub(crate) qemu: bool,
    /// A guest that QEMU boots
    #[arg(long)]
    pub(crate) guest: bool,
    /// The kernel image of the guest; else the running one, else the newest in /boot
    #[arg(long, value_name = "FILE", conflicts_with = "record")]
    pub(crate) kernel: Option<PathBuf>,
    /// The longest that QEMU may take for an answer, and a guest for its boot
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) limit: u64,
    /// Write a record with all that was asked to FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) keep: Option<PathBuf>,
    /// A record with CPUID and captured answers; else this machine
    #[arg(value_name = "RECORD")]
    pub(crate) record: Option<PathBuf>,
}

pub(super) const DOCTOR_EXAMPLES: &str = "\
Examples:
  cpusieve doctor              this machine; as root, so that MSRs can be read
  cpusieve doctor host.json    a recorded host

Exit status:
  0  all that was seen is good
  1  something is switched off or missing
  3  nothing is, but not everything could be seen";

/// Options of `doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorOptions {
    /// A record, or anything else with CPUID in it; else this machine
    #[arg(value_name = "RECORD")]
    pub(crate) record: Option<PathBuf>,
}

pub(super) const TRACE_EXAMPLES: &str = "\
guests and host use tracefs alone, in an instance of their own that is removed at the end, also after
Ctrl-C; what a SIGKILL leaves there is removed by the next start. exec single-steps nothing: it uses
CPUID faulting where the CPU has it, else breakpoints; what the program prints goes to standard error.

Examples:
  cpusieve trace                           guests' CPUIDs by vCPU and leaf, until Ctrl-C
  cpusieve trace guests --for 10s --json   the same for ten seconds, as JSON
  cpusieve trace host                      what KVM asks the CPU, by leaf and kernel stack
  cpusieve trace exec -- /bin/true         the CPUIDs of one program, by leaf and library
  cpusieve trace --from trace.txt          trace_pipe, perf script, trace-cmd report, stackcount, bpftrace";

/// Options of `trace`.
#[derive(Debug, Args)]
pub(crate) struct TraceOptions {
    /// Whose CPUIDs
    #[arg(value_name = "WHOSE", default_value = "guests")]
    pub(crate) whose: Whose,
    /// How long, such as 10s, 500ms or 2m; else until Ctrl-C
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub(crate) duration: Option<Duration>,
    /// Read what another program printed of the same events; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["duration", "command"])]
    pub(crate) from: Option<PathBuf>,
    /// The host whose KVM is compared with; else this machine, with --from none
    #[arg(long, value_name = "RECORD")]
    pub(crate) host: Option<PathBuf>,
    /// Read guests' events one by one even where the kernel can count them itself
    #[arg(long)]
    pub(crate) events: bool,
    /// Watch the host by the function tracer (leaves from Linux 6.15 on, before that stacks) even where it has kprobes
    #[arg(long)]
    pub(crate) functions: bool,
    /// The program of exec, and its arguments
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// Whose CPUIDs are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Whose {
    /// Those that guests execute and KVM answers
    Guests,
    /// Those that KVM itself executes to learn what the CPU has
    Host,
    /// Those of the program behind `--`
    Exec,
}

/// `10s`, `500ms`, `2m`, or seconds without a unit.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let milliseconds = match text.get(digits.len()..) {
        Some("" | "s") => Some(1000),
        Some("ms") => Some(1),
        Some("m") => Some(60_000),
        _ => None,
    };
    let number = digits.parse::<u64>().ok().zip(milliseconds).and_then(|(number, unit)| number.checked_mul(unit));
    // Later moments cannot be told any more.
    let bounded = number.filter(|&milliseconds| milliseconds > 0 && milliseconds <= 365 * 86_400_000);
    bounded.map(Duration::from_millis).ok_or_else(|| format!("`{text}` is no time such as 10s, 500ms or 2m"))
}
