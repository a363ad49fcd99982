//! The sieves between silicon and guest, one pure function each.
//!
//! [`Machine`] is one input as the stages read it; [`World`] joins a host, a QEMU and a guest; [`World::pass`] sends one
//! feature through every sieve and returns the steps. All of it works on what is known and no more: a bit is present,
//! absent or unknown, and a rule whose condition nobody saw leaves it unknown.
//!
//! This crate knows no effect: it opens no file, executes no CPUID and asks no clock.
//!
//! ```
//! use cpusieve_model::{Cpu, Cpuinfo, FlagList, Snapshot, Stage, State};
//! use cpusieve_stages::{Machine, World};
//!
//! let flags = FlagList::from_line("fpu tsc msr acpi mmx sse sse2 lm cpuid pni vmx");
//! let cpuinfo = Cpuinfo { flags: Some(flags), ..Cpuinfo::default() };
//! let host = Snapshot { cpus: vec![Cpu { cpuinfo: Some(cpuinfo), ..Cpu::default() }], ..Snapshot::default() };
//! let host = Machine::new("host", &host);
//!
//! let passage = World::of_host(&host).pass("acpi");
//! assert_eq!(passage.outcome, State::Absent);
//! assert_eq!(passage.culprit().map(|step| step.at), Some(Stage::Kvm));
//! ```
#![forbid(unsafe_code)]

mod generation;
pub mod kvm;
pub mod linux;
mod machine;
mod names;
mod pipeline;
pub mod qemu;
pub mod vcpu;
pub mod vmm;

pub use machine::{Hypervisor, Machine};
pub use pipeline::{Passage, World};
