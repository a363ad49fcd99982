//! cpusieve's own record: all that was seen of one machine, as JSON (format 1).
//!
//! The format is fixed: fields may be added, none changes its meaning. Hexadecimal numbers are strings; a part that is
//! missing was not seen. An MSR whose value is `null` was asked for and refused. A CPU's block of `/proc/cpuinfo`
//! follows from `linux.cpuinfo`, and is written only where it does not. What a proof asked of real software stands beside
//! it in `proof`: see [`print_with`] and [`captures`].

mod proof;
mod read;
mod write;

pub use proof::{captures, print_with};
pub use read::parse;
pub(crate) use read::{caps, cpuinfo_text, features, msrs};
pub use write::print;

use std::collections::BTreeMap;

use cpusieve_model::{Cpu, Cpuinfo};

/// The format that is read and written.
pub const FORMAT: u64 = 1;

/// The value of the field `kind`.
pub const KIND: &str = "cpusieve-record";

/// The blocks of a `/proc/cpuinfo` text, by CPU number.
fn blocks(cpus: Vec<Cpu>) -> BTreeMap<u32, Cpuinfo> {
    cpus.into_iter().filter_map(|cpu| Some((cpu.id, cpu.cpuinfo?))).collect()
}
