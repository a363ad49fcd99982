//! Reads CPU feature knowledge out of source trees of Linux, QEMU and libvirt, and keeps it in tables of text.
//!
//! A tree goes in as a function from path to text, facts come out ([`linux`], [`kvm`], [`qemu`], [`libvirt`]); [`tables`] is the
//! text form in which `knowledge/` holds the facts of all trees at once, one row a fact with the trees for which it holds;
//! [`stored`] is one tree of a user's own as a file. This crate executes nothing and opens no file: the caller brings the
//! text.
//!
//! ```
//! use cpusieve_import::tables::{TreeList, TreeSet};
//!
//! let trees = TreeList::parse("trees.tsv", "6.0 6.0.19 kernel.org\n6.1 6.1.176 Debian\n6.3 6.3.8 kernel.org\n").unwrap();
//! assert_eq!(trees.parse_set("6.1.."), Ok(TreeSet(0b110)));
//! assert_eq!(trees.print_set(TreeSet(0b011)), "6.0..6.1");
//! ```
#![forbid(unsafe_code)]

mod c;
pub mod kvm;
pub mod libvirt;
pub mod linux;
pub mod qemu;
mod source;
pub mod stored;
pub mod tables;
mod xml;

pub use source::SourceTree;
