//! The tables of `knowledge/kvm/`: what all trees say about the CPUID that KVM offers.
//!
//! Six tables, one topic each. Rows made out of the facts of all trees give these facts back, each tree's adjustments in
//! their order; so importing a tree is taking the tables apart, replacing one tree's facts, and writing them again.

use super::facts::{Fact, Row, cells_of, of_tree, or_dash, ordered, parse, print, sorted};
use super::linux::{parse_bit, print_bit};
use super::{TableError, TreeList};
use crate::kvm::{AdjustOp, AdjustSite, Bound, CapKind, KvmAdjust, KvmApi, KvmCap, KvmFacts, LeafCap, PvFeature};

/// All tables of `knowledge/kvm/` that the importer writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the tables of the same name")]
pub struct KvmTables {
    pub shapes: Vec<Row<KvmApi>>,
    pub caps: Vec<Row<KvmCap>>,
    pub adjusts: Vec<Row<KvmAdjust>>,
    pub limits: Vec<Row<LeafCap>>,
    pub pv: Vec<Row<PvFeature>>,
    pub handled: Vec<Row<Leaf>>,
}

/// A leaf that has a `case` of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Leaf(pub u32);

/// A table: its name, and the comment at its head.
struct Topic {
    file: &'static str,
    header: &'static str,
}

const SHAPES: Topic = Topic {
    file: "shapes.tsv",
    header: "# The shape of KVM's CPUID code in each tree; read from arch/x86/kvm/cpuid.c by `cargo xtask import kvm`.\n\
             # shape      trees\n",
};
const CAPS: Topic = Topic {
    file: "caps.tsv",
    header: "# The bits that KVM can offer, and how; read from arch/x86/kvm by `cargo xtask import kvm`.\n\
             # place, macro without X86_FEATURE_, kind, C condition under which the mask has it (- if always), trees\n",
};
const ADJUSTS: Topic = Topic {
    file: "adjusts.tsv",
    header: "# What is set and cleared after the masks; read from arch/x86/kvm by `cargo xtask import kvm`.\n\
             # The rows of one tree stand in the order of its source. All C conditions of a row, separated by `; `, must\n\
             # hold; ../rules/kvm.toml explains each of them.\n\
             # whose code, what it does, macro without X86_FEATURE_, C conditions (- if none), trees\n",
};
const LIMITS: Topic = Topic {
    file: "limits.tsv",
    header: "# Limits on EAX of leaves that say how far something goes; read from arch/x86/kvm/cpuid.c by\n\
             # `cargo xtask import kvm`.\n\
             # leaf, direction, value, trees\n",
};
const PV: Topic = Topic {
    file: "pv.tsv",
    header: "# The features of leaf 40000001H:EAX; read from arch/x86/kvm/cpuid.c by `cargo xtask import kvm`.\n\
             # bit, macro without KVM_FEATURE_, C condition (- if none), trees\n",
};
const HANDLED: Topic = Topic {
    file: "handled.tsv",
    header: "# The leaves that have a case of their own in __do_cpuid_func() or __do_cpuid_ent(); all others are answered\n\
             # with zeros. Read from arch/x86/kvm/cpuid.c by `cargo xtask import kvm`.\n\
             # leaf, trees\n",
};

/// The names of the tables, below `knowledge/kvm/`.
pub const FILES: [&str; 6] = [SHAPES.file, CAPS.file, ADJUSTS.file, LIMITS.file, PV.file, HANDLED.file];

impl KvmTables {
    /// Reads all tables; `read` has their texts by name.
    ///
    /// # Errors
    /// What `read` says, or the first row that cannot be read.
    pub fn parse<E: From<TableError>>(trees: &TreeList, read: impl Fn(&str) -> Result<String, E>) -> Result<Self, E> {
        Ok(Self {
            shapes: parse(trees, SHAPES.file, &read(SHAPES.file)?)?,
            caps: parse(trees, CAPS.file, &read(CAPS.file)?)?,
            adjusts: parse(trees, ADJUSTS.file, &read(ADJUSTS.file)?)?,
            limits: parse(trees, LIMITS.file, &read(LIMITS.file)?)?,
            pv: parse(trees, PV.file, &read(PV.file)?)?,
            handled: parse(trees, HANDLED.file, &read(HANDLED.file)?)?,
        })
    }

    /// Writes all tables: name and text.
    #[must_use]
    pub fn print(&self, trees: &TreeList) -> Vec<(&'static str, String)> {
        vec![
            (SHAPES.file, print(trees, SHAPES.header, &self.shapes)),
            (CAPS.file, print(trees, CAPS.header, &self.caps)),
            (ADJUSTS.file, print(trees, ADJUSTS.header, &self.adjusts)),
            (LIMITS.file, print(trees, LIMITS.header, &self.limits)),
            (PV.file, print(trees, PV.header, &self.pv)),
            (HANDLED.file, print(trees, HANDLED.header, &self.handled)),
        ]
    }

    /// The tables out of the facts of all trees, in the order of `trees.tsv`; none for a tree whose KVM was never read.
    #[must_use]
    pub fn of(facts: &[Option<KvmFacts>]) -> Self {
        Self {
            shapes: sorted(&lists(facts, |facts| vec![facts.api])),
            caps: sorted(&lists(facts, |facts| facts.caps.clone())),
            adjusts: ordered(&lists(facts, |facts| facts.adjusts.clone())),
            limits: sorted(&lists(facts, |facts| facts.leaf_caps.clone())),
            pv: sorted(&lists(facts, |facts| facts.pv.clone())),
            handled: sorted(&lists(facts, |facts| facts.handled.iter().map(|&leaf| Leaf(leaf)).collect())),
        }
    }

    /// The facts of one tree; none if its KVM was never read.
    #[must_use]
    pub fn facts(&self, tree: usize) -> Option<KvmFacts> {
        Some(KvmFacts {
            api: *of_tree(&self.shapes, tree).next()?,
            caps: of_tree(&self.caps, tree).cloned().collect(),
            adjusts: of_tree(&self.adjusts, tree).cloned().collect(),
            leaf_caps: of_tree(&self.limits, tree).copied().collect(),
            pv: of_tree(&self.pv, tree).cloned().collect(),
            handled: of_tree(&self.handled, tree).map(|leaf| leaf.0).collect(),
        })
    }
}

fn lists<T>(facts: &[Option<KvmFacts>], list: impl Fn(&KvmFacts) -> Vec<T>) -> Vec<Vec<T>> {
    facts.iter().map(|facts| facts.as_ref().map(&list).unwrap_or_default()).collect()
}

/// The words by which tables write the values of a type.
trait Words: Copy + PartialEq + 'static {
    const WORDS: &'static [(&'static str, Self)];

    fn word(self) -> String {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word).to_owned()
    }

    fn of_word(word: &str) -> Result<Self, String> {
        let known = Self::WORDS.iter().find(|(known, _)| *known == word);
        let all = || Self::WORDS.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        known.map(|(_, value)| *value).ok_or_else(|| format!("`{word}` is none of {}", all()))
    }
}

impl Words for KvmApi {
    const WORDS: &'static [(&'static str, Self)] =
        &[("const-masks", Self::ConstMasks), ("cap-mask", Self::CapMask), ("cap-init", Self::CapInit)];
}

impl Words for CapKind {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("plain", Self::Plain),
        ("x86_64", Self::X86_64),
        ("scattered", Self::Scattered),
        ("raw", Self::Raw),
        ("passthrough", Self::Passthrough),
        ("emulated", Self::Emulated),
        ("synthesized", Self::Synthesized),
        ("synthesized-unconditional", Self::SynthesizedUnconditional),
        ("alias-1-edx", Self::Alias1Edx),
        ("vendor", Self::Vendor),
        ("adjust-only", Self::AdjustOnly),
        ("runtime", Self::Runtime),
    ];
}

impl Words for AdjustSite {
    const WORDS: &'static [(&'static str, Self)] =
        &[("common", Self::Common), ("intel", Self::Intel), ("amd", Self::Amd), ("common-late", Self::CommonLate)];
}

impl Words for AdjustOp {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("set", Self::Set),
        ("clear", Self::Clear),
        ("check-and-set", Self::CheckAndSet),
        ("set-from-raw", Self::SetFromRaw),
    ];
}

impl Words for Bound {
    const WORDS: &'static [(&'static str, Self)] = &[("at-most", Self::AtMost), ("at-least", Self::AtLeast)];
}

fn hexadecimal(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0x").and_then(|digits| u32::from_str_radix(digits, 16).ok());
    digits.ok_or_else(|| format!("`{text}` is not a number as in 0x1f"))
}

fn undash(text: &str) -> Option<String> {
    (text != "-").then(|| text.to_owned())
}

impl Fact for KvmApi {
    const CELLS: usize = 1;

    fn cells(&self) -> Vec<String> {
        vec![self.word()]
    }

    fn from_cells(cells: &[&str]) -> Result<Self, String> {
        let [word] = cells_of(cells)?;
        Self::of_word(word)
    }
}

impl Fact for KvmCap {
    const CELLS: usize = 4;

    fn cells(&self) -> Vec<String> {
        vec![print_bit(self.place), self.macro_name.clone(), self.kind.word(), or_dash(self.condition.as_ref())]
    }

    fn from_cells(cells: &[&str]) -> Result<Self, String> {
        let [place, macro_name, kind, condition] = cells_of(cells)?;
        let place = parse_bit(place).ok_or_else(|| format!("`{place}` is not a CPUID bit as in 7.0.EBX[16]"))?;
        let kind = CapKind::of_word(kind)?;
        Ok(Self { place, macro_name: macro_name.to_owned(), kind, condition: undash(condition) })
    }
}

impl Fact for KvmAdjust {
    const CELLS: usize = 4;

    fn cells(&self) -> Vec<String> {
        let conditions = (!self.conditions.is_empty()).then(|| self.conditions.join("; "));
        vec![self.site.word(), self.op.word(), self.macro_name.clone(), or_dash(conditions.as_ref())]
    }

    fn from_cells(cells: &[&str]) -> Result<Self, String> {
        let [site, op, macro_name, conditions] = cells_of(cells)?;
        let conditions = undash(conditions);
        let conditions = conditions.iter().flat_map(|all| all.split("; ")).map(str::to_owned).collect();
        let (site, op) = (AdjustSite::of_word(site)?, AdjustOp::of_word(op)?);
        Ok(Self { site, op, macro_name: macro_name.to_owned(), conditions })
    }
}

impl Fact for LeafCap {
    const CELLS: usize = 3;

    fn cells(&self) -> Vec<String> {
        vec![format!("{:#x}", self.leaf), self.bound.word(), format!("{:#x}", self.value)]
    }

    fn from_cells(cells: &[&str]) -> Result<Self, String> {
        let [leaf, bound, value] = cells_of(cells)?;
        Ok(Self { leaf: hexadecimal(leaf)?, bound: Bound::of_word(bound)?, value: hexadecimal(value)? })
    }
}

impl Fact for PvFeature {
    const CELLS: usize = 3;

    fn cells(&self) -> Vec<String> {
        vec![self.bit.to_string(), self.name.clone(), or_dash(self.condition.as_ref())]
    }

    fn from_cells(cells: &[&str]) -> Result<Self, String> {
        let [bit, name, condition] = cells_of(cells)?;
        let bit = bit.parse().ok().filter(|bit| *bit < 32).ok_or_else(|| format!("`{bit}` is not a bit"))?;
        Ok(Self { bit, name: name.to_owned(), condition: undash(condition) })
    }
}

impl Fact for Leaf {
    const CELLS: usize = 1;

    fn cells(&self) -> Vec<String> {
        vec![format!("{:#x}", self.0)]
    }

    fn from_cells(cells: &[&str]) -> Result<Self, String> {
        let [leaf] = cells_of(cells)?;
        hexadecimal(leaf).map(Self)
    }
}
