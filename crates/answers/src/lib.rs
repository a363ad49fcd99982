//! The questions cpusieve answers, read off the steps of the stages.
//!
//! Nothing is decided here: a stage decided, by a rule, and its [`cpusieve_model::Step`] says so. This crate chooses
//! between hypotheses by what fits the observation ([`diff`]), finds words for a step ([`reason`]), and looks names up.
//! It knows no effect, and of formats only what a paste is laid out as ([`message`]).
//!
//! ```
//! use cpusieve_answers::diff::{Relation, diff};
//! use cpusieve_model::{Cpu, Cpuinfo, FlagList, Snapshot, Stage};
//!
//! let machine = |flags: &str| {
//!     let cpuinfo = Cpuinfo { flags: Some(FlagList::from_line(flags)), ..Cpuinfo::default() };
//!     Snapshot { cpus: vec![Cpu { cpuinfo: Some(cpuinfo), ..Cpu::default() }], ..Snapshot::default() }
//! };
//! let host = machine("fpu tsc msr acpi mmx sse sse2 lm cpuid pni vmx");
//! let guest = machine("fpu tsc msr mmx sse sse2 lm cpuid pni vmx hypervisor");
//!
//! let found = diff(&host, &guest).unwrap();
//! assert_eq!(found.relation, Relation::HostAndGuest);
//! assert_eq!(found.lost[0].flag, "acpi");
//! assert_eq!(found.lost[0].at, Some(Stage::Kvm));
//! assert_eq!(found.gained[0].flag, "hypervisor");
//! ```
#![forbid(unsafe_code)]

pub mod check;
pub mod diff;
pub mod doctor;
pub mod guest;
pub mod key;
pub mod message;
pub mod models;
pub mod name;
pub mod oddity;
pub mod predict;
pub mod reason;
pub mod rehearse;
pub mod trees;
pub mod verify;
pub mod want;
pub mod why;
