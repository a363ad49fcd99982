//! Watching CPUID: what guests ask KVM, what KVM asks the CPU, what a program executes.
//!
//! [`tracefs`] is the only source for the first two: an instance of its own, switched on by [`watch`], read as text by
//! [`read`], counted by [`count`], and removed at the end. What other programs printed of the same events is read by the
//! same readers. [`exec`] counts the CPUID instructions of one program.
//!
//! This crate does not know what a leaf means, which calls KVM must make (the KVM stage says that), or how to print.
//!
//! ```
//! use cpusieve_trace::read::read;
//!
//! let text = b"kvmdump-180 [000] .N.1. 44.051: do_host_cpuid: (do_host_cpuid+0x0/0x140 [kvm]) leaf=0x0 subleaf=0x0\n\
//!     kvmdump-180 [000] .N.1. 44.052: do_host_cpuid: (do_host_cpuid+0x0/0x140 [kvm]) leaf=0x1 subleaf=0x0\n";
//! let counts = read(text).unwrap().counts;
//! assert_eq!(counts.host.calls.total(), 2);
//! assert_eq!(counts.host.against(&[(0, 0), (1, 0)]).complete, 1);
//! ```
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "effects live here: this crate reads and writes tracefs")]

pub mod count;
pub mod event;
pub mod exec;
pub mod fuzz;
pub mod read;
pub mod tracefs;
pub mod watch;
