//! Answers as pages: one HTML file without any other, and the picture alone as SVG.
//!
//! An answer comes in ([`of_diff`], [`of_prediction`], [`of_fleet`]), becomes a [`Page`], and goes out as text
//! ([`html()`], [`svg`]). This crate knows no effect and decides nothing: what it shows was decided by the stages. Whatever
//! an input says is untrusted, and is written as text, never as markup or script.
//!
//! ```
//! use cpusieve_model::{Cpu, Cpuinfo, FlagList, Snapshot};
//! use cpusieve_report::{Ends, of_diff, html, svg};
//!
//! let machine = |flags: &str| {
//!     let cpuinfo = Cpuinfo { flags: Some(FlagList::from_line(flags)), ..Cpuinfo::default() };
//!     Snapshot { cpus: vec![Cpu { cpuinfo: Some(cpuinfo), ..Cpu::default() }], ..Snapshot::default() }
//! };
//! let host = machine("fpu tsc msr acpi mmx sse sse2 lm cpuid pni vmx");
//! let guest = machine("fpu tsc msr mmx sse sse2 lm cpuid pni vmx hypervisor");
//!
//! let ends = Ends { first: ("host", &host), second: ("guest", &guest) };
//! let page = of_diff(&ends, String::from("{}")).unwrap();
//! assert!(html(&page).contains("power and thermal MSRs are not virtualised"));
//! assert!(svg(&page).starts_with("<svg"));
//! ```
#![forbid(unsafe_code)]

mod assets;
mod diff;
mod embed;
mod fleet;
mod hosts;
mod html;
mod matrix;
mod page;
mod panel;
mod prediction;
mod prices;
mod rehearsal;
mod sieve;
mod table;
mod way;

pub use diff::{Ends, of_diff};
pub use fleet::of_fleet;
pub use hosts::{Hosts, Kind, Pools};
pub use html::{html, svg};
pub use page::{Assumed, Body, Figure, Holds, Mark, Page, Sheet, Tone};
pub use prediction::{Predicted, of_prediction};
pub use prices::{Bar, Chart, NotPrices, of_prices};
pub use rehearsal::{NotARehearsal, of_rehearsal};
pub use way::{Cause, Cell, End, Fate, Group, Side, Way, Ways};
