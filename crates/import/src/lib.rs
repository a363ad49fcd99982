//! Reads CPU feature knowledge out of Linux source trees, and keeps it in tables of text.
//!
//! A kernel tree goes in as a function from path to text, facts come out ([`linux`], [`kvm`]); [`tables`] is the text
//! form in which `knowledge/` holds the facts of all trees at once, one row a fact with the trees for which it holds.
//! This crate executes nothing and opens no file: the caller brings the text.
#![forbid(unsafe_code)]

mod c;
pub mod kvm;
pub mod linux;
mod source;
pub mod tables;

pub use source::SourceTree;
