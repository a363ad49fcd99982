//! Every input and output format that cpusieve reads and writes: one file a format, bytes in, a [`Snapshot`] and
//! diagnostics out.
//!
//! A parser never fails and never panics: it uses what could be read, says with line numbers what could not, and counts
//! what it leaves out. Memory is bounded by [`limits`]. This crate knows no stage, no kernel release, and no meaning of
//! any feature bit; it never opens a file.
//!
//! ```
//! let text = b"CPU 0:\n   0x00000000 0x00: eax=0x00000001 ebx=0x756e6547 ecx=0x6c65746e edx=0x49656e69\n";
//! let parsed = cpusieve_formats::read("dump.txt", text);
//! assert_eq!(parsed.format, cpusieve_formats::Format::CpuidR);
//! assert_eq!(parsed.snapshot.cpus[0].cpuid.vendor_string().as_deref(), Some("GenuineIntel"));
//! assert!(parsed.diagnostics.is_empty());
//! ```
#![forbid(unsafe_code)]

use std::fmt;

use cpusieve_model::Snapshot;

pub mod aida64;
pub mod cpuid_r;
pub mod cpuinfo;
mod diagnostic;
pub mod firecracker;
pub mod fuzz;
mod json;
pub mod kcpuid;
pub mod lab;
pub mod libcpuid;
pub mod libvirt_xml;
pub mod limits;
pub mod lscpu;
mod machine;
pub mod message;
mod position;
pub mod price;
pub mod prometheus;
pub mod qmp;
mod recognise;
pub mod record;
mod text;

pub use cpuid_r::print_cpuid_r;
pub use diagnostic::{Diagnostic, Ignored, Severity};
pub use recognise::{read, read_as, recognise};

/// What was read of one input. Always whole: a bad input gives an empty snapshot and diagnostics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The format it was read as.
    pub format: Format,
    /// What it says.
    pub snapshot: Snapshot,
    /// What was wrong or remarkable, by line; at most [`limits::MAX_DIAGNOSTICS`].
    pub diagnostics: Vec<Diagnostic>,
    /// What was left out.
    pub ignored: Ignored,
}

impl Parsed {
    /// Whether there is an [`Severity::Error`] among the diagnostics.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }
}

/// A format that is recognised from its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// A cpusieve record.
    Record,
    /// A capture of the project's laboratory: one boot, as JSON.
    LabCapture,
    /// `/proc/cpuinfo`.
    Cpuinfo,
    /// One bare `flags` line.
    FlagsLine,
    /// `cpuid -r`, of one or many CPUs.
    CpuidR,
    /// `kcpuid -r` of the Linux source tree.
    Kcpuid,
    /// AIDA64 and Everest dumps, as InstLatx64 collects them.
    Aida64,
    /// libcpuid's raw dumps and tests.
    Libcpuid,
    /// libvirt's raw CPUID XML (`<cpudata>`).
    LibvirtCpuid,
    /// libvirt's `<cpu>` XML.
    LibvirtCpu,
    /// QMP `query-cpu-model-expansion` replies.
    Qmp,
    /// A Firecracker fingerprint.
    FirecrackerFingerprint,
    /// A Firecracker CPU template.
    FirecrackerTemplate,
    /// `lscpu` text.
    LscpuText,
    /// `lscpu -J`.
    LscpuJson,
    /// None of these.
    Unknown,
}

impl Format {
    /// All formats that are read, in the order in which they are listed to people.
    pub const ALL: [Self; 15] = [
        Self::Record,
        Self::LabCapture,
        Self::Cpuinfo,
        Self::FlagsLine,
        Self::CpuidR,
        Self::Kcpuid,
        Self::Aida64,
        Self::Libcpuid,
        Self::LibvirtCpuid,
        Self::LibvirtCpu,
        Self::Qmp,
        Self::FirecrackerFingerprint,
        Self::FirecrackerTemplate,
        Self::LscpuText,
        Self::LscpuJson,
    ];

    /// The name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Record => "cpusieve record",
            Self::LabCapture => "laboratory capture",
            Self::Cpuinfo => "/proc/cpuinfo",
            Self::FlagsLine => "flags line",
            Self::CpuidR => "cpuid -r",
            Self::Kcpuid => "kcpuid -r",
            Self::Aida64 => "AIDA64 dump",
            Self::Libcpuid => "libcpuid dump",
            Self::LibvirtCpuid => "libvirt CPUID XML",
            Self::LibvirtCpu => "libvirt <cpu> XML",
            Self::Qmp => "QMP query-cpu-model-expansion",
            Self::FirecrackerFingerprint => "Firecracker fingerprint",
            Self::FirecrackerTemplate => "Firecracker CPU template",
            Self::LscpuText => "lscpu",
            Self::LscpuJson => "lscpu -J",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
