//! The tables of `knowledge/linux/`: [`LinuxFacts`] of all trees, one topic a file.

mod cells;

pub use cells::{parse_bit, print_bit};
use cells::{unwrapped, wrapped};

use super::facts::{Fact, Row, of_tree, ordered, parse, print, sorted};
use super::{TableError, TreeList};
use crate::SourceTree;
use crate::linux::{Dependency, Flag, Level, LinuxFacts, Mask, NamingRule, Scattered, Word};

/// The tables of `knowledge/linux/`, as rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the table of the same name")]
pub struct LinuxTables {
    pub numbers: Vec<Row<Number>>,
    pub words: Vec<Row<Word>>,
    pub features: Vec<Row<Flag>>,
    pub bugs: Vec<Row<Flag>>,
    pub vmx_flags: Vec<Row<Flag>>,
    pub power_flags: Vec<Row<PowerFlag>>,
    pub scattered: Vec<Row<Scattered>>,
    pub dependencies: Vec<Row<Dependency>>,
    pub levels: Vec<Row<Level>>,
    pub masks: Vec<Row<Mask>>,
}

/// A number or rule that a tree has one of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Number {
    /// Capability words.
    Ncapints(u8),
    /// Bug words.
    Nbugints(u8),
    /// Words of VMX features.
    Nvmxints(u8),
    /// The naming rule.
    Naming(NamingRule),
}

/// The name of a bit of 80000007.EDX on the `power management` line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PowerFlag {
    /// The bit.
    pub bit: u8,
    /// Its name; empty for a bit that is not printed.
    pub name: String,
}

/// A topic: its file, and the comment at its top.
struct Topic {
    file: &'static str,
    header: &'static str,
}

const NUMBERS: Topic = Topic {
    file: "numbers.tsv",
    header: "\
# What a tree has one of: words of capabilities, bugs and VMX features (cpufeatures.h, vmxfeatures.h), and what
# mkcapflags.sh does with a macro whose comment has no name in quotes.
# what  value  trees
",
};
const WORDS: Topic = Topic {
    file: "words.tsv",
    header: "\
# Where the capability words come from: enum cpuid_leafs of arch/x86/include/asm/cpufeature.h. The name says the leaf:
# CPUID_7_ECX is 7.0.ECX, CPUID_7_1_EAX is 7.1.EAX, CPUID_8000_0001_EDX is 80000001.EDX; CPUID_LNX_* is filled by Linux.
# *_UNFILLED is named after a register, but nothing copies it there: the word has only what the kernel itself sets.
# word  name  trees
",
};
const FEATURES: Topic = Topic {
    file: "features.tsv",
    header: "\
# X86_FEATURE_* of arch/x86/include/asm/cpufeatures.h: place, macro, the word that /proc/cpuinfo prints.
# `-`: printed nowhere. `~name`: it would print, but a later macro on the same bit has a name too.
# word*32+bit  macro  printed  trees
",
};
const BUGS: Topic = Topic {
    file: "bugs.tsv",
    header: "\
# X86_BUG_* of arch/x86/include/asm/cpufeatures.h, counted from the first bug word: place, macro, printed word as in
# features.tsv, and the kernel option without which the macro does not exist (`-`: it always does).
# word*32+bit  macro  printed  only-if  trees
",
};
const VMX_FLAGS: Topic = Topic {
    file: "vmxflags.tsv",
    header: "\
# VMX_FEATURE_* of arch/x86/include/asm/vmxfeatures.h (from 5.6 on): place, macro, the word on the line `vmx flags`.
# word*32+bit  macro  printed  trees
",
};
const POWER_FLAGS: Topic = Topic {
    file: "power.tsv",
    header: "\
# Names of the bits of CPUID 80000007.EDX on the line `power management`: arch/x86/kernel/cpu/powerflags.c.
# bit  name  trees
",
};
const SCATTERED: Topic = Topic {
    file: "scattered.tsv",
    header: "\
# CPUID bits that the kernel copies into its own words: arch/x86/kernel/cpu/scattered.c, in the order in which a tree
# reads them.
# macro  bit  trees
",
};
const DEPENDENCIES: Topic = Topic {
    file: "deps.tsv",
    header: "\
# A feature that is cleared takes along what needs it: arch/x86/kernel/cpu/cpuid-deps.c, in each tree's order. One pair
# stands there twice.
# feature  needs  trees
",
};
const LEVELS: Topic = Topic {
    file: "levels.tsv",
    header: "\
# Features that are cleared if CPUID has fewer leaves: cpuid_dependent_features of arch/x86/kernel/cpu/common.c, in each
# tree's order.
# feature  leaf  trees
",
};
const MASKS: Topic = Topic {
    file: "masks.tsv",
    header: "\
# Features that a configuration requires or compiles out: required-features.h and disabled-features.h up to 6.14,
# arch/x86/Kconfig.cpufeatures from 6.15 on. The condition is in the words of Kconfig; `y` is always, `?` is not read.
# Neither mask changes what /proc/cpuinfo prints.
# mask  feature  condition  trees
",
};

impl LinuxTables {
    /// The files of all topics, below `knowledge/linux/`.
    pub const FILES: [&'static str; 10] = [
        NUMBERS.file,
        WORDS.file,
        FEATURES.file,
        BUGS.file,
        VMX_FLAGS.file,
        POWER_FLAGS.file,
        SCATTERED.file,
        DEPENDENCIES.file,
        LEVELS.file,
        MASKS.file,
    ];

    /// Reads all tables; `files` is the folder `knowledge/linux/`.
    ///
    /// # Errors
    /// The first row that cannot be read, or the first file that is not there.
    pub fn parse(trees: &TreeList, files: &dyn SourceTree) -> Result<Self, TableError> {
        let folder = Folder { trees, files };
        Ok(Self {
            numbers: folder.parse(&NUMBERS)?,
            words: folder.parse(&WORDS)?,
            features: unwrapped(folder.parse(&FEATURES)?),
            bugs: folder.parse(&BUGS)?,
            vmx_flags: unwrapped(folder.parse(&VMX_FLAGS)?),
            power_flags: folder.parse(&POWER_FLAGS)?,
            scattered: folder.parse(&SCATTERED)?,
            dependencies: folder.parse(&DEPENDENCIES)?,
            levels: folder.parse(&LEVELS)?,
            masks: folder.parse(&MASKS)?,
        })
    }

    /// The files and their text, the inverse of [`LinuxTables::parse`].
    #[must_use]
    pub fn print(&self, trees: &TreeList) -> Vec<(&'static str, String)> {
        let flags = |topic: &Topic, rows: &[Row<Flag>]| (topic.file, print(trees, topic.header, &wrapped(rows)));
        vec![
            (NUMBERS.file, print(trees, NUMBERS.header, &self.numbers)),
            (WORDS.file, print(trees, WORDS.header, &self.words)),
            flags(&FEATURES, &self.features),
            (BUGS.file, print(trees, BUGS.header, &self.bugs)),
            flags(&VMX_FLAGS, &self.vmx_flags),
            (POWER_FLAGS.file, print(trees, POWER_FLAGS.header, &self.power_flags)),
            (SCATTERED.file, print(trees, SCATTERED.header, &self.scattered)),
            (DEPENDENCIES.file, print(trees, DEPENDENCIES.header, &self.dependencies)),
            (LEVELS.file, print(trees, LEVELS.header, &self.levels)),
            (MASKS.file, print(trees, MASKS.header, &self.masks)),
        ]
    }

    /// Tables out of the facts of all trees, in canonical order; the n-th facts are those of the n-th tree.
    #[must_use]
    pub fn of(facts: &[LinuxFacts]) -> Self {
        Self {
            numbers: sorted(&lists(facts, numbers)),
            words: sorted(&lists(facts, |facts| facts.words.clone())),
            features: sorted(&lists(facts, |facts| facts.features.clone())),
            bugs: sorted(&lists(facts, |facts| facts.bugs.clone())),
            vmx_flags: sorted(&lists(facts, |facts| facts.vmx_flags.clone())),
            power_flags: sorted(&lists(facts, power_flags)),
            scattered: ordered(&lists(facts, |facts| facts.scattered.clone())),
            dependencies: ordered(&lists(facts, |facts| facts.dependencies.clone())),
            levels: ordered(&lists(facts, |facts| facts.levels.clone())),
            masks: sorted(&lists(facts, |facts| facts.masks.clone())),
        }
    }

    /// The facts of one tree; what it must have one of and has not is named in the error.
    ///
    /// # Errors
    /// `numbers.tsv` lacks a row for this tree.
    pub fn facts(&self, tree: usize) -> Result<LinuxFacts, TableError> {
        let lacks = |what: &str| TableError {
            file: NUMBERS.file.to_owned(),
            line: 0,
            what: format!("no {what} for the tree at position {tree}"),
        };
        let (mut naming, mut ncapints, mut nbugints, mut nvmxints) = (None, None, None, None);
        for number in of_tree(&self.numbers, tree) {
            match *number {
                Number::Ncapints(words) => ncapints = Some(words),
                Number::Nbugints(words) => nbugints = Some(words),
                Number::Nvmxints(words) => nvmxints = Some(words),
                Number::Naming(rule) => naming = Some(rule),
            }
        }
        Ok(LinuxFacts {
            naming: naming.ok_or_else(|| lacks("naming rule"))?,
            ncapints: ncapints.ok_or_else(|| lacks("NCAPINTS"))?,
            nbugints: nbugints.ok_or_else(|| lacks("NBUGINTS"))?,
            nvmxints: nvmxints.ok_or_else(|| lacks("NVMXINTS"))?,
            words: of_tree(&self.words, tree).cloned().collect(),
            features: of_tree(&self.features, tree).cloned().collect(),
            bugs: of_tree(&self.bugs, tree).cloned().collect(),
            vmx_flags: of_tree(&self.vmx_flags, tree).cloned().collect(),
            power_flags: of_tree(&self.power_flags, tree).map(|flag| flag.name.clone()).collect(),
            scattered: of_tree(&self.scattered, tree).cloned().collect(),
            dependencies: of_tree(&self.dependencies, tree).cloned().collect(),
            levels: of_tree(&self.levels, tree).cloned().collect(),
            masks: of_tree(&self.masks, tree).cloned().collect(),
        })
    }
}

/// Where the tables are read from.
struct Folder<'a> {
    trees: &'a TreeList,
    files: &'a dyn SourceTree,
}

impl Folder<'_> {
    fn parse<T: Fact>(&self, topic: &Topic) -> Result<Vec<Row<T>>, TableError> {
        let missing = || TableError { file: topic.file.to_owned(), line: 0, what: "no such table".to_owned() };
        parse(self.trees, topic.file, &self.files.read(topic.file).ok_or_else(missing)?)
    }
}

fn lists<T>(facts: &[LinuxFacts], list: impl Fn(&LinuxFacts) -> Vec<T>) -> Vec<Vec<T>> {
    facts.iter().map(list).collect()
}

fn numbers(facts: &LinuxFacts) -> Vec<Number> {
    vec![
        Number::Ncapints(facts.ncapints),
        Number::Nbugints(facts.nbugints),
        Number::Nvmxints(facts.nvmxints),
        Number::Naming(facts.naming),
    ]
}

fn power_flags(facts: &LinuxFacts) -> Vec<PowerFlag> {
    let flag = |(bit, name): (u8, &String)| PowerFlag { bit, name: name.clone() };
    (0..32).zip(&facts.power_flags).map(flag).collect()
}
