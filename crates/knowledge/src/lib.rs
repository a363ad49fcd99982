//! What Linux, KVM and QEMU do with CPU features, release by release, compiled in.
//!
//! The tables stand in `knowledge/` as text, one fact a row; the build script turns them into static slices, sorted for
//! binary search, so that nothing is parsed at start-up. This crate knows facts only: no stage, no file, no format.
#![forbid(unsafe_code)]

pub mod kvm;
pub mod linux;
pub mod qemu;
pub mod rules;
mod trees;
pub mod x86;

pub use trees::TreeSet;
