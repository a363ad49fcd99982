//! Fleets in columns: one table that is mapped and read without decoding (Arrow), the same table for other engines
//! (Parquet), and the SQL that gives the same answers there.
//!
//! A row is one kind of host with the number of its hosts; the feature words are `u32` columns, so a baseline is one pass
//! of AND over bytes as they stand in the file. The schema is fixed and described in `docs/store.md`. This crate does not
//! know where bytes come from or go to, and decides nothing about CPUs: what a host offers is `cpusieve_fleet`'s.
//!
//! ```
//! use cpusieve_fleet::{Fleet, Kind, Offer};
//! use cpusieve_knowledge::qemu::WORD_COUNT;
//! use cpusieve_model::Vendor;
//! use cpusieve_store::{Packed, Stamp, Writer, pack};
//!
//! let offer = Offer { words: [7; WORD_COUNT], own: [3; WORD_COUNT], kvm: [7; WORD_COUNT], phys_bits: 46 };
//! let kind = Kind { offer: offer.clone(), vendor: Vendor::Intel, signature: 0x50657, ground: None, hosts: 2 };
//! let mut fleet = Fleet::default();
//! fleet.push_kind(kind, []);
//! let stamp = Stamp { qemu: "10.0".into(), machine: "pc".into(), ..Stamp::default() };
//! let bytes = pack(&fleet, Writer::arrow(Vec::new(), &stamp)?)?;
//! let packed = Packed::open(bytes.into())?;
//! assert_eq!((packed.hosts()?, packed.sum()?.rest.all), (2, offer));
//! # Ok::<(), cpusieve_store::Error>(())
//! ```
#![forbid(unsafe_code)]

mod columns;
mod file;
mod pack;
mod parquet;
mod rows;
mod sql;
mod stamp;
mod sum;
mod texts;

pub use columns::{Column, Set, column_name, columns};
pub use file::Packed;
pub use pack::{MOST_RECORDS, Writer, pack};
pub use parquet::{from_parquet, stamp_of_parquet};
pub use rows::{Row, Rows};
pub use sql::{Engine, Question, query};
pub use stamp::Stamp;
pub use sum::{Sum, Who};

/// Whether these are the first bytes of an Arrow file.
#[must_use]
pub fn is_arrow(start: &[u8]) -> bool {
    start.starts_with(b"ARROW1")
}

/// Whether these are the first bytes of a Parquet file.
#[must_use]
pub fn is_parquet(start: &[u8]) -> bool {
    start.starts_with(b"PAR1")
}

/// Why a table cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Arrow crates' answer.
    #[error(transparent)]
    Arrow(#[from] arrow_schema::ArrowError),
    /// The Parquet crate's answer.
    #[error(transparent)]
    Parquet(#[from] ::parquet::errors::ParquetError),
    /// The bytes are no Arrow file, or a damaged one.
    #[error("a damaged Arrow file: {0}")]
    Damaged(&'static str),
    /// An Arrow file, but none of `fleet pack`.
    #[error("not packed by `cpusieve fleet pack`: {0}")]
    Foreign(String),
    /// What was packed answers another question.
    #[error("packed for {packed}, and asked for {asked}; name the same, or pack again")]
    Setting {
        /// What the words in the file are for.
        packed: String,
        /// What they should be for.
        asked: String,
    },
    /// Texts of one batch are longer than Arrow's offsets reach.
    #[error("the names of one batch of hosts are longer than 2 GiB")]
    TooLong,
}
