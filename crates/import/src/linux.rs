//! Capabilities of the x86 kernel, read out of `arch/x86/`: which bits it knows, what it prints for them, what hangs on
//! what.
//!
//! [`LinuxFacts::read`] takes a source tree and returns what its tables say. All layouts of these files from 4.14 on are
//! understood; what changed between releases is said where it is read. Macros stand without `X86_FEATURE_`, `X86_BUG_`
//! and `VMX_FEATURE_`.
//!
//! ```
//! use cpusieve_import::linux;
//!
//! let tree = |path: &str| (path == "Makefile").then(|| "VERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 176\n".to_owned());
//! assert_eq!(linux::version(&tree).unwrap(), "6.1.176");
//! // Everything else is missing from this tree, and the error says what was looked for.
//! let error = linux::LinuxFacts::read(&tree).unwrap_err();
//! assert!(error.to_string().starts_with("arch/x86/"));
//! ```

mod derived;
mod flags;
mod laws;
mod lists;
mod masks;

use cpusieve_model::{CpuidBit, Register};

use crate::SourceTree;

/// What one kernel tree says about CPU features.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinuxFacts {
    /// Which names `/proc/cpuinfo` shows.
    pub naming: NamingRule,
    /// Capability words (`NCAPINTS`).
    pub ncapints: u8,
    /// Bug words (`NBUGINTS`).
    pub nbugints: u8,
    /// Words of VMX features (`NVMXINTS`); 0 before 5.6, when there were none.
    pub nvmxints: u8,
    /// Where the capability words come from, in their order (`enum cpuid_leafs`).
    pub words: Vec<Word>,
    /// `X86_FEATURE_*`, sorted.
    pub features: Vec<Flag>,
    /// `X86_BUG_*`, sorted; word 0 is the first bug word.
    pub bugs: Vec<Flag>,
    /// `VMX_FEATURE_*`, sorted.
    pub vmx_flags: Vec<Flag>,
    /// What the bits of 80000007.EDX are called on the `power management` line, from bit 0 on.
    pub power_flags: Vec<String>,
    /// Single CPUID bits that are put into Linux's own words, in the order in which the kernel reads them.
    pub scattered: Vec<Scattered>,
    /// Which feature needs which other, in the kernel's order; it has one pair twice.
    pub dependencies: Vec<Dependency>,
    /// Features that need a basic leaf, in the kernel's order.
    pub levels: Vec<Level>,
    /// Features that a kernel configuration takes for granted or compiles out, sorted.
    pub masks: Vec<Mask>,
}

/// What `mkcapflags.sh` does with a macro whose comment has no name in quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamingRule {
    /// It is printed as the macro in lower case, unless the quotes are empty. Up to 6.10.
    MacroUnlessQuoted,
    /// It is not printed. From 6.11 on.
    HiddenUnlessQuoted,
}

/// A bit that has a macro: a feature, a bug or a VMX feature.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flag {
    /// The word.
    pub word: u8,
    /// The bit in it, 0 to 31.
    pub bit: u8,
    /// The macro, without its prefix.
    pub macro_name: String,
    /// What `/proc/cpuinfo` prints.
    pub shown: Shown,
    /// The kernel option without which the macro does not exist, as Kconfig says it: `X86_32`.
    pub only_if: Option<String>,
}

/// What `/proc/cpuinfo` prints for a bit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shown {
    /// This word.
    Name(String),
    /// Nothing.
    Hidden,
    /// This word, if a later macro had not claimed the same bit with a name of its own.
    Shadowed(String),
}

impl Shown {
    /// The printed word, if there is one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Hidden | Self::Shadowed(_) => None,
        }
    }
}

/// A capability word.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Word {
    /// Its index.
    pub index: u8,
    /// Its name in `enum cpuid_leafs`.
    pub name: String,
}

impl Word {
    /// The leaf, subleaf and register that the name stands for; none for a word that only Linux fills.
    ///
    /// `CPUID_7_ECX` is 7.0:ECX, `CPUID_7_1_EAX` is 7.1:EAX, `CPUID_8000_0001_EDX` is 80000001:EDX; `CPUID_LNX_1` and
    /// `CPUID_DUMMY` are no register.
    #[must_use]
    pub fn source(&self) -> Option<(u32, u32, Register)> {
        let hexadecimal = |digits: &str| u32::from_str_radix(digits, 16).ok();
        let parts: Vec<&str> = self.name.strip_prefix("CPUID_")?.split('_').collect();
        let (register, numbers) = parts.split_last()?;
        let register = Register::from_name(register)?;
        match numbers {
            [leaf] => Some((hexadecimal(leaf)?, 0, register)),
            [high, low] if high.len() == 4 && low.len() == 4 => {
                Some((hexadecimal(high)? << 16 | hexadecimal(low)?, 0, register))
            }
            [leaf, subleaf] => Some((hexadecimal(leaf)?, hexadecimal(subleaf)?, register)),
            _ => None,
        }
    }
}

/// A CPUID bit that the kernel copies into one of its own words (`scattered.c`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scattered {
    /// The feature's macro.
    pub macro_name: String,
    /// The bit it is read from.
    pub place: CpuidBit,
}

/// One feature needs another: when the other is cleared, it is cleared too (`cpuid-deps.c`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dependency {
    /// The macro of the feature that goes.
    pub feature: String,
    /// The macro of the feature on which it hangs.
    pub needs: String,
}

/// A feature that is cleared if leaf 0 announces fewer leaves (`common.c`, `cpuid_dependent_features`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level {
    /// The feature's macro.
    pub feature: String,
    /// The leaf that must exist.
    pub leaf: u32,
}

/// Whether a kernel configuration takes a feature for granted or compiles it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MaskKind {
    /// The kernel does not boot without it, and its code takes it for granted.
    Required,
    /// The kernel's code takes it for absent. The bit and its name in `/proc/cpuinfo` stay.
    Disabled,
}

/// A feature in a compile-time mask.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mask {
    /// Which mask.
    pub kind: MaskKind,
    /// The feature's macro.
    pub feature: String,
    /// For which configurations, as Kconfig says it; `y` for all, `?` where it was not read.
    pub condition: String,
}

/// Why a tree cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReadError {
    /// A file is not there.
    #[error("{file}: not in this source tree")]
    Missing {
        /// The path that was looked for.
        file: &'static str,
    },
    /// A table or definition is not in its file.
    #[error("{file}: expected {expected}, found none")]
    NotFound {
        /// The file that was read.
        file: &'static str,
        /// What should be in it.
        expected: String,
    },
    /// A line does not have the shape it should.
    #[error("{file}:{line}: expected {expected}, found `{found}`")]
    Unexpected {
        /// The file that was read.
        file: &'static str,
        /// The line, from 1.
        line: usize,
        /// What should be on it.
        expected: &'static str,
        /// What is on it.
        found: String,
    },
}

impl LinuxFacts {
    /// Reads the tables of a source tree.
    ///
    /// # Errors
    /// A file, a table or a line that is not as any release from 4.14 on has it.
    pub fn read(tree: &dyn SourceTree) -> Result<Self, ReadError> {
        let flags = flags::read(tree)?;
        Ok(Self {
            naming: flags.naming,
            ncapints: flags.ncapints,
            nbugints: flags.nbugints,
            nvmxints: flags.nvmxints,
            features: flags.features,
            bugs: flags.bugs,
            vmx_flags: flags.vmx_flags,
            words: lists::words(tree)?,
            power_flags: lists::power_flags(tree)?,
            scattered: lists::scattered(tree)?,
            dependencies: lists::dependencies(tree)?,
            levels: lists::levels(tree)?,
            masks: masks::read(tree)?,
        })
    }
}

/// The version that the top `Makefile` states, as `trees.tsv` writes it: `6.1.176`, `6.19`, `7.4-rc1`.
///
/// # Errors
/// No `Makefile`, or one without `VERSION` and `PATCHLEVEL`.
pub fn version(tree: &dyn SourceTree) -> Result<String, ReadError> {
    let file = "Makefile";
    let text = tree.read(file).ok_or(ReadError::Missing { file })?;
    let value = |name: &str| {
        let assignments = text.lines().filter_map(|line| line.split_once('='));
        assignments
            .map(|(left, right)| (left.trim(), right.trim()))
            .find(|(left, _)| *left == name)
            .map(|(_, value)| value)
    };
    let needed = |name: &str| {
        value(name).filter(|value| !value.is_empty()).ok_or(ReadError::NotFound { file, expected: name.to_owned() })
    };
    let mut version = format!("{}.{}", needed("VERSION")?, needed("PATCHLEVEL")?);
    if let Some(sublevel) = value("SUBLEVEL").filter(|&sublevel| !matches!(sublevel, "" | "0")) {
        version.push('.');
        version.push_str(sublevel);
    }
    version.push_str(value("EXTRAVERSION").unwrap_or(""));
    Ok(version)
}

/// What `uname -r` says of a kernel that was built in this tree (`include/config/kernel.release`); none if none was.
#[must_use]
pub fn built_release(tree: &dyn SourceTree) -> Option<String> {
    let text = tree.read("include/config/kernel.release")?;
    let release = text.trim();
    // `uname -r` has room for 64 bytes.
    let is_one =
        !release.is_empty() && release.len() <= 64 && release.chars().all(|c| c.is_ascii_graphic() && c != '"');
    is_one.then(|| release.to_owned())
}

/// A file that every tree must have.
fn text(tree: &dyn SourceTree, file: &'static str) -> Result<String, ReadError> {
    tree.read(file).ok_or(ReadError::Missing { file })
}
