//! Captures of the project's laboratory: what a guest that was booted for a test saw of its CPU, as JSON.
//!
//! Three shapes: one boot under an emulator (QEMU with TCG, Bochs); the same with KVM's own answers inside that guest;
//! and a nested one, `l1` with KVM's answers, QMP transcripts of QEMUs in it (`qmp`) and the guests that they started
//! (`l2`). [`capture`] gives all of it; [`parse`] gives the outer guest alone.

mod read;
mod write;

use cpusieve_model::Snapshot;

use crate::Parsed;

pub use write::{print, seen, value};

/// How a guest was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// The capture's name; empty for a nested guest.
    pub id: String,
    /// What ran the guest: `tcg`, `bochs`; empty for a nested guest, which KVM ran.
    pub accel: String,
    /// QEMU's version, or the emulator's name and version.
    pub emulator: String,
    /// `-machine`.
    pub machine: String,
    /// `-smp`.
    pub smp: String,
    /// `-cpu`, or the name of Bochs' model.
    pub cpu: String,
    /// Further arguments.
    pub extra: Vec<String>,
    /// The release of the guest's kernel.
    pub kernel: String,
    /// The command line that was asked for; that of the guest itself stands in its snapshot.
    pub cmdline: String,
    /// `modprobe` options of `kvm`, `kvm_intel` and `kvm_amd` in the guest.
    pub kvm_options: String,
    /// What QEMU warned of.
    pub warnings: Vec<String>,
    /// `ok`, or how the boot failed.
    pub status: String,
}

/// One guest: how it was started and what it saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guest {
    /// How it was started.
    pub setup: Setup,
    /// What it saw.
    pub snapshot: Snapshot,
}

/// All of one capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// What the outer guest saw, its KVM too, with the diagnostics of the whole input.
    pub parsed: Parsed,
    /// How the outer guest was started.
    pub setup: Setup,
    /// The guests that were started inside it.
    pub nested: Vec<Guest>,
    /// Leaf and subleaf of each call of `do_host_cpuid` that one `KVM_GET_SUPPORTED_CPUID` made, in their order; empty if
    /// nobody counted.
    pub host_cpuid_calls: Vec<(u32, u32)>,
    /// What each QEMU inside it answered on QMP: its version and its expansions.
    pub qemu: Vec<Snapshot>,
}

/// Reads a capture; the snapshot is that of the outer guest.
#[must_use]
pub fn parse(name: &str, bytes: &[u8]) -> Parsed {
    capture(name, bytes).parsed
}

/// Reads a capture with the way in which each guest was started, and with nested guests.
#[must_use]
pub fn capture(name: &str, bytes: &[u8]) -> Capture {
    read::capture(name, bytes)
}
