//! What Linux, KVM, QEMU and libvirt do with CPU features, release by release, compiled in.
//!
//! The tables stand in `knowledge/` as text, one fact a row; the build script turns them into static slices, sorted for
//! binary search, so that nothing is parsed at start-up; names are found by hashes that it laid out. Trees that a user has
//! imported can be registered beside them ([`own`]). This crate knows facts only: no stage, no file, no format.
//!
//! ```
//! use cpusieve_knowledge::rules::{self, Software};
//! use cpusieve_knowledge::{kvm, linux, x86};
//!
//! let acpi = x86::feature("acpi").unwrap();
//! let bit = acpi.place().unwrap().cpuid().unwrap();
//! // Every kernel prints it, no KVM offers it, and a rule says why.
//! assert!((0..linux::TREES.len()).all(|tree| linux::feature_by_id(tree, "acpi").is_some()));
//! assert!(kvm::trees_offering(bit).is_empty());
//! assert!(rules::of_feature(Software::Kvm, "acpi").next().is_some());
//! ```
#![forbid(unsafe_code)]

mod hash;
pub mod kvm;
pub mod libvirt;
pub mod linux;
pub mod messages;
pub mod own;
pub mod price;
pub mod qemu;
pub mod rules;
mod slots;
mod trees;
pub mod vmm;
pub mod x86;

pub use trees::{RuleTrees, TreeSet};
