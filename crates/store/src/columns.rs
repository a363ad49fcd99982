//! The columns of the table. Their names and types are a stored format: `docs/store.md`.

use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use cpusieve_fleet::{Offer, Words};
use cpusieve_knowledge::qemu::{WORD_ORDER, Word};

use crate::Stamp;

/// One of the three sets of feature words of an [`Offer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Set {
    /// [`Offer::own`]: what QEMU gives with `-cpu host,migratable=off`.
    Host,
    /// [`Offer::words`]: what QEMU lets a named model have.
    Supported,
    /// [`Offer::kvm`]: what KVM itself offers.
    Kvm,
}

impl Set {
    /// The first part of the names of its columns.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Supported => "supported",
            Self::Kvm => "kvm",
        }
    }

    /// Its words in an offer.
    #[must_use]
    pub const fn of(self, offer: &Offer) -> &Words {
        match self {
            Self::Host => &offer.own,
            Self::Supported => &offer.words,
            Self::Kvm => &offer.kvm,
        }
    }

    pub(crate) const fn of_mut(self, offer: &mut Offer) -> &mut Words {
        match self {
            Self::Host => &mut offer.own,
            Self::Supported => &mut offer.words,
            Self::Kvm => &mut offer.kvm,
        }
    }
}

/// A column of 32 feature bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name: `host_7_0_ebx`, `kvm_msr_10a_lo`.
    pub name: String,
    /// The set that it is part of.
    pub set: Set,
    /// The word's position in [`WORD_ORDER`].
    pub at: usize,
    /// Which bit of the word is the column's bit 0: 32 for the upper half of an MSR.
    pub shift: u32,
}

impl Column {
    /// What a word has in this column.
    #[must_use]
    pub fn part(&self, words: &Words) -> u32 {
        u32::try_from(words[self.at] >> self.shift & u64::from(u32::MAX)).unwrap_or(0)
    }
}

/// All columns of feature bits, in the order in which they stand in the table.
#[must_use]
pub fn columns() -> &'static [Column] {
    static COLUMNS: LazyLock<Vec<Column>> = LazyLock::new(|| {
        let mut all = Vec::new();
        for set in [Set::Host, Set::Supported, Set::Kvm] {
            for (at, word) in WORD_ORDER.into_iter().enumerate() {
                let shifts: &[u32] = if matches!(word, Word::Msr { .. }) { &[0, 32] } else { &[0] };
                all.extend(shifts.iter().map(|&shift| Column { name: column_name(set, word, shift), set, at, shift }));
            }
        }
        all
    });
    &COLUMNS
}

/// The name of the column that holds bit `bit` of a word.
#[must_use]
pub fn column_name(set: Set, word: Word, bit: u32) -> String {
    let set = set.name();
    match word {
        Word::Cpuid { leaf, subleaf, register } => {
            format!("{set}_{leaf:x}_{subleaf:x}_{}", register.name().to_ascii_lowercase())
        }
        Word::Msr { index } => format!("{set}_msr_{index:x}_{}", if bit < 32 { "lo" } else { "hi" }),
    }
}

/// What is kept of each host of a row.
pub(crate) fn member_fields() -> Fields {
    let text = |name| Field::new(name, DataType::Utf8, true);
    Fields::from(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("tsc_khz", DataType::UInt32, true),
        Field::new("nested", DataType::Boolean, false),
        text("kernel"),
        text("cmdline"),
        Field::new("microcode", DataType::UInt64, true),
        text("params"),
    ])
}

/// The type of the elements of `members`.
pub(crate) fn member_field() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Struct(member_fields()), false))
}

/// The schema, with its stamp.
pub(crate) fn schema(stamp: &Stamp) -> SchemaRef {
    let number = |name: &str| Field::new(name, DataType::UInt32, false);
    let mut fields = vec![number("hosts"), Field::new("vendor", DataType::Utf8, false)];
    fields.extend([number("signature"), number("phys_bits")]);
    fields.extend(columns().iter().map(|column| number(&column.name)));
    fields.push(Field::new("members", DataType::List(member_field()), false));
    fields.push(Field::new("record", DataType::Utf8, true));
    Arc::new(Schema::new_with_metadata(fields, stamp.metadata()))
}
