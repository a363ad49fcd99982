//! What CPU features are worth here: real work with a feature and without it, in one process, side by side.
//!
//! [`features`] lists the work: each [`work::Work`] is one task done twice, *with* a feature and *without* it, where
//! "without" is the best way known that does not use the feature, not the simplest one. [`measure`] runs the two in turn,
//! again and again, and [`stats`] says how much of the result is noise, without supposing any distribution. [`report`] holds
//! what came out, as data. Each result is checked against a plain reference before anything is timed; what the CPU lacks is
//! not run.
//!
//! This crate does not know how to print, what a stage does, or why a feature is missing.
//!
//! ```
//! use cpusieve_price::stats::Interval;
//!
//! let interval = Interval::of(&[1.0, 1.1, 0.9, 1.0, 1.2, 1.0, 0.95]).unwrap();
//! assert_eq!(interval.median, 1.0);
//! assert!(interval.low <= interval.median && interval.median <= interval.high);
//! ```
#![deny(unsafe_op_in_unsafe_fn)]
#![allow(clippy::disallowed_methods, reason = "this crate times the machine: effects live here")]

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("cpusieve prices x86-64 machines that run Linux");

pub mod chosen;
pub mod clock;
pub mod doubt;
pub mod exits;
pub mod features;
pub mod flags;
pub mod guests;
pub mod measure;
mod memory;
pub mod report;
pub mod start;
pub mod stats;
pub mod survey;
pub mod work;
