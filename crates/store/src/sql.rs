//! The same answers from other engines: queries over the files of `fleet pack`.
//!
//! A baseline is a bitwise AND, which is commutative and associative, so any engine may split the work over machines as
//! it likes; that is the way past one machine.

use std::fmt::Write as _;

use cpusieve_fleet::{Catalogue, Property};
use cpusieve_knowledge::qemu::WORD_ORDER;

use crate::columns::{Column, Set, column_name, columns};

/// Software that answers SQL over files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// DuckDB.
    DuckDb,
    /// Apache DataFusion.
    DataFusion,
    /// ClickHouse, or `clickhouse local`.
    ClickHouse,
    /// Apache Spark.
    Spark,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub enum Question<'p> {
    /// What all hosts offer, column by column: one row.
    Baseline,
    /// How many hosts there are, and how many offer a feature: one row.
    Who(&'p Property),
    /// How many hosts offer each feature: one row, a column for each.
    Features,
    /// How many hosts there are of each vendor and signature.
    Kinds,
}

impl Engine {
    /// The AND of a column over all rows.
    const fn and(self) -> &'static str {
        match self {
            Self::DuckDb | Self::DataFusion | Self::Spark => "bit_and",
            Self::ClickHouse => "groupBitAnd",
        }
    }

    /// A file as a table.
    fn table(self, file: &str) -> String {
        // A quote in a text is doubled everywhere but in Spark, where it is escaped.
        let text = format!("'{}'", file.replace('\'', if self == Self::Spark { "\\'" } else { "''" }));
        let parquet = is_parquet(file);
        match self {
            Self::DuckDb if parquet => format!("read_parquet({text})"),
            Self::DuckDb => format!("read_arrow({text})"),
            Self::DataFusion => text,
            Self::ClickHouse => format!("file({text}, '{}')", if parquet { "Parquet" } else { "Arrow" }),
            Self::Spark => format!("parquet.`{}`", file.replace('`', "``")),
        }
    }

    /// A name, quoted.
    fn name(self, name: &str) -> String {
        match self {
            Self::Spark | Self::ClickHouse => format!("`{}`", name.replace('`', "``")),
            Self::DuckDb | Self::DataFusion => format!("\"{}\"", name.replace('"', "\"\"")),
        }
    }

    /// What has to be said of this engine and this file.
    #[must_use]
    pub fn note(self, file: &str) -> Option<&'static str> {
        match self {
            Self::Spark if !is_parquet(file) => Some("Spark reads Parquet; pack with --parquet"),
            Self::DuckDb if !is_parquet(file) => {
                Some("DuckDB reads Arrow files with its extension: INSTALL nanoarrow FROM community; LOAD nanoarrow;")
            }
            _ => None,
        }
    }
}

fn is_parquet(file: &str) -> bool {
    file.to_ascii_lowercase().ends_with(".parquet") || file.ends_with('/')
}

/// The query. `catalogue` says which features there are.
#[must_use]
pub fn query(engine: Engine, question: Question<'_>, file: &str, catalogue: &Catalogue) -> String {
    let table = engine.table(file);
    let mut parts = vec!["SUM(hosts) AS hosts".to_owned()];
    match question {
        Question::Baseline => {
            parts.push("MIN(phys_bits) AS phys_bits".to_owned());
            let and = |Column { name, .. }: &Column| format!("{}({name}) AS {name}_all", engine.and());
            parts.extend(columns().iter().map(and));
        }
        Question::Who(property) => parts.push(format!("{} AS having_it", having(property))),
        Question::Features => {
            let one = |property: &Property| format!("{} AS {}", having(property), engine.name(property.name));
            parts.extend(catalogue.properties().iter().map(one));
        }
        Question::Kinds => {
            return format!(
                "SELECT vendor, signature, SUM(hosts) AS hosts\nFROM {table}\nGROUP BY vendor, signature\nORDER BY hosts DESC;\n"
            );
        }
    }
    let mut text = String::from("SELECT\n");
    for (number, part) in parts.iter().enumerate() {
        let comma = if number + 1 < parts.len() { "," } else { "" };
        let _ = writeln!(text, "  {part}{comma}");
    }
    let _ = writeln!(text, "FROM {table};");
    text
}

/// The number of hosts that offer a feature themselves.
fn having(property: &Property) -> String {
    let mut all = Vec::new();
    for &(at, mask) in property.bits() {
        let Some(&word) = WORD_ORDER.get(at) else { continue };
        // A test of each bit by division: operators for AND differ from engine to engine, these do not.
        let bits = (0..u64::BITS).filter(|bit| mask >> bit & 1 == 1);
        all.extend(bits.map(|bit| {
            let name = column_name(Set::Host, word, bit);
            format!("FLOOR({name} / {}) % 2 = 1", 1_u64 << (bit % 32))
        }));
    }
    format!("SUM(CASE WHEN {} THEN hosts ELSE 0 END)", all.join(" AND "))
}
