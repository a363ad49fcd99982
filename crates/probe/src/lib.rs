//! Everything that touches the machine: CPUID on every CPU, MSRs, `/proc`, `/dev/kvm`, QEMU binaries and what
//! they answer.
//!
//! Each module asks one source and fills one part of a [`cpusieve_model::Snapshot`]; [`record`] calls them all. What
//! the machine does not show is not an error: it becomes a [`cpusieve_model::MissingPart`] with the kernel's answer and
//! what helps. Nothing on the machine is changed: the virtual machines that [`vcpu`] and [`guest`] make are gone when they
//! return, and leave no file behind.
//!
//! This crate does not know what any bit means, which kernel or QEMU it looks at, or what a guest would get; it parses
//! nothing but what it must to find its way (the list of CPUs, a version, a kernel option); what a QEMU answers is read by
//! `cpusieve_formats`.
//!
//! ```
//! use cpusieve_probe::{Only, Options, record};
//!
//! let snapshot = record(Options::only(Only::Cpuid));
//! for cpu in &snapshot.cpus {
//!     assert!(cpu.cpuid.get(0, 0).is_some());
//! }
//! assert!(snapshot.kvm.is_none(), "nobody asked for it");
//! ```
#![deny(unsafe_op_in_unsafe_fn)]
#![allow(clippy::disallowed_methods, reason = "effects live here, so that they live nowhere else")]

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("cpusieve looks at x86-64 machines that run Linux");

pub mod affinity;
mod anonymous;
pub mod config;
pub mod cpuid;
mod files;
pub mod guest;
pub mod kvm;
pub mod linux;
pub mod machine;
mod mapped;
pub mod msr;
mod process;
pub mod ptrace;
pub mod qemu;
pub mod qmp;
mod record;
mod refusal;
pub mod signals;
#[cfg(test)]
mod testing;
pub mod vcpu;

pub use anonymous::anonymise;
pub use mapped::Mapped;
pub use record::{Only, Options, brand, record};
pub use refusal::Refusal;
