//! QEMU's tables of CPUs, read out of a source tree: feature words, models, versions, caches, dependencies and more.
//!
//! [`QemuFacts::read`] takes a source tree and returns what its tables say. What only a running binary can tell (machine
//! types, properties of objects) is in [`BinaryFacts`](crate::tables::qemu::BinaryFacts). Understood are the layouts from 5.2 on.
//!
//! ```
//! use cpusieve_import::qemu;
//!
//! let tree = |path: &str| (path == "VERSION").then(|| "7.2.22\n".to_owned());
//! assert_eq!(qemu::version(&tree).unwrap(), "7.2.22");
//! let error = qemu::QemuFacts::read(&tree).unwrap_err();
//! assert!(error.to_string().starts_with("target/i386/cpu.h"));
//! ```

mod compat;
mod hyperv;
mod initializer;
mod macros;
mod models;
mod preprocess;
mod words;

use crate::SourceTree;
use macros::Macros;

pub use words::{FeatureWord, Register};

/// What one QEMU tree says about CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuFacts {
    /// The feature words, in the order of `enum FeatureWord`.
    pub words: Vec<FeatureWord>,
    /// The built-in models, in the order of `builtin_x86_defs`.
    pub models: Vec<Model>,
    /// The cache tables, the legacy ones among them where they are tables, in the order of the file.
    pub caches: Vec<Caches>,
    /// `feature_dependencies`, in its order.
    pub dependencies: Vec<Dependency>,
    /// `kvm_default_props` and TCG's: accelerator, property, value.
    pub defaults: Vec<(String, String, String)>,
    /// `pc_compat_*` as far as they are for CPUs: table, type (`*` for all), property, value; newest table first.
    pub compat: Vec<[String; 4]>,
    /// `cpuid2_cache_descriptors`, by code.
    pub descriptors: Vec<Descriptor>,
    /// `kvm_hyperv_properties`, in its order.
    pub hyperv: Vec<Hyperv>,
}

/// A built-in CPU model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// The name.
    pub name: String,
    /// The highest basic leaf.
    pub level: u32,
    /// The highest extended leaf.
    pub xlevel: u32,
    /// Twelve characters.
    pub vendor: String,
    /// Display family.
    pub family: u32,
    /// Display model.
    pub model: u32,
    /// Stepping.
    pub stepping: u32,
    /// The brand string.
    pub model_id: String,
    /// The words that are not zero: position in the list of words, value.
    pub words: Vec<(usize, u64)>,
    /// The name of the cache table.
    pub caches: Option<String>,
    /// AVX10 version; 0 is none.
    pub avx10_version: u32,
    /// Why it is deprecated.
    pub deprecated: Option<String>,
    /// Its versions; a model without a list has version 1 alone.
    pub versions: Vec<Version>,
}

/// A version of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The number.
    pub number: u32,
    /// A name of its own.
    pub alias: Option<String>,
    /// What the list of models says.
    pub note: Option<String>,
    /// Properties and values, in order.
    pub properties: Vec<(String, String)>,
    /// The name of the cache table.
    pub caches: Option<String>,
}

/// A cache table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caches {
    /// Its name in the source.
    pub name: String,
    /// The four caches: `l1d`, `l1i`, `l2`, `l3`, with the cells of `caches.tsv` behind the releases.
    pub caches: Vec<(String, [String; 8])>,
}

/// A row of `feature_dependencies`: positions in the list of words, and masks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// Of these bits one must be set,
    pub from: (usize, u64),
    /// or these are cleared.
    pub to: (usize, u64),
}

/// A descriptor of leaf 2: the cells of `descriptors.tsv` behind the code.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Descriptor {
    /// The byte.
    pub code: u8,
    /// Kind, level, size, ways, line size.
    pub cells: [String; 5],
}

/// A Hyper-V enlightenment: the cells of `hyperv.tsv`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hyperv {
    /// Property, bits, needs, passthrough, description.
    pub cells: [String; 5],
}

/// A tree that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum QemuError {
    /// A file is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A table is not where it was in all releases so far.
    #[error("{file}: no table {table}")]
    NoTable {
        /// The file.
        file: &'static str,
        /// What was looked for.
        table: String,
    },
    /// Something in a table has an unknown form.
    #[error("{file}: {table}: cannot read `{text}`")]
    Unreadable {
        /// The file.
        file: &'static str,
        /// The table, or the row in it.
        table: String,
        /// What stands there, shortened.
        text: String,
    },
}

type Result<T> = std::result::Result<T, QemuError>;

const CPU_C: &str = "target/i386/cpu.c";
const CPU_H: &str = "target/i386/cpu.h";

/// The version in the file `VERSION`: `7.2.22`.
///
/// # Errors
/// The file is missing.
pub fn version(tree: &impl SourceTree) -> Result<String> {
    Ok(tree.read("VERSION").ok_or(QemuError::Missing("VERSION"))?.trim().to_owned())
}

/// What the readers of the tables share.
struct Source {
    /// `target/i386/cpu.c`, only what a build reads.
    cpu: String,
    macros: Macros,
}

impl QemuFacts {
    /// Reads a tree.
    ///
    /// # Errors
    /// The first table that is missing or has an unknown form.
    pub fn read(tree: &impl SourceTree) -> Result<Self> {
        let file = |path: &'static str| tree.read(path).map(|text| preprocess::active(&text));
        let need = |path: &'static str| file(path).ok_or(QemuError::Missing(path));
        let header = need(CPU_H)?;
        let cpu = need(CPU_C)?;
        let optional = [
            "target/i386/cpu-qom.h",
            "target/i386/cpu-internal.h",
            "include/qemu/hw-version.h",
            "include/standard-headers/asm-x86/kvm_para.h",
            "target/i386/kvm/hyperv-proto.h",
            "target/i386/hyperv-proto.h",
        ];
        let optional: Vec<String> = optional.into_iter().filter_map(file).collect();
        let texts = optional.iter().map(String::as_str).chain([header.as_str(), cpu.as_str()]);
        let source = Source { macros: Macros::new(texts), cpu };
        let words = words::read(&source, &header)?;
        let kvm = file("target/i386/kvm/kvm.c").or_else(|| file("target/i386/kvm.c"));
        let kvm = kvm.ok_or(QemuError::Missing("target/i386/kvm/kvm.c"))?;
        Ok(Self {
            models: models::read(&source, &words)?,
            caches: models::caches(&source)?,
            dependencies: words::dependencies(&source, &words)?,
            defaults: compat::defaults(&source, &file)?,
            compat: compat::read(&source, &need("hw/i386/pc.c")?, file("hw/i386/pc_piix.c").as_deref())?,
            descriptors: models::descriptors(&source)?,
            hyperv: hyperv::read(&source, &kvm)?,
            words,
        })
    }
}

/// A cell, shortened for an error.
fn unreadable(table: impl Into<String>, text: &str) -> QemuError {
    unreadable_in(CPU_C, table, text)
}

fn unreadable_in(file: &'static str, table: impl Into<String>, text: &str) -> QemuError {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(60).collect();
    QemuError::Unreadable { file, table: table.into(), text }
}

fn no_table(file: &'static str, table: &str) -> QemuError {
    QemuError::NoTable { file, table: table.to_owned() }
}
