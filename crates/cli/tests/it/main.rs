//! The program as its users meet it: text, JSON, exit status, files, and what it does to the machine.
//!
//! One binary with a module a verb, since linking costs more than running. What a test needs and the machine lacks is said
//! in a line `skipped: ...`, and its part left out.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests run programs, read their output and say what they skip"
)]

mod common;
mod documented;
#[cfg(feature = "store")]
mod engines;
mod fleet;
mod import;
mod kvm;
mod live_qemu;
mod models;
#[cfg(feature = "store")]
mod packed;
mod predict;
mod price;
mod price_guests;
mod program;
mod rehearse;
mod report;
mod source_tree;
mod trace;
mod verify;
mod want;
mod way;
mod why;
mod worth;
