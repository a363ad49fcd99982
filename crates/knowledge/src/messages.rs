//! What software prints about CPU features, and what that means: `knowledge/messages/*.toml`.
//!
//! A message is known by words that its program prints, whatever stands around them. What a row says of it holds in
//! general; what the message itself names (features, registers, levels) is read by the caller.
//!
//! ```
//! use cpusieve_knowledge::messages::{self, At, Severity};
//!
//! let found = messages::find("info: kvm (vmx) is disabled by your bios");
//! // Hints come first: rows that only tell where a text comes from.
//! let trouble = found.iter().find(|found| found.message.tag.is_none()).unwrap().message;
//! assert_eq!(trouble.features, ["vmx"]);
//! assert_eq!((trouble.stage, trouble.severity), (At::Firmware, Severity::Fatal));
//! assert!(messages::find("all is well").is_empty());
//! assert!(messages::msr(0x10a).unwrap().name.starts_with("IA32_ARCH_CAPABILITIES"));
//! ```

mod pattern;

use std::fmt;

use cpusieve_model::Register;

pub use pattern::{Found, Piece, Take, Taken, find, find_brand};

use crate::x86::{Feature, Group};

include!(concat!(env!("OUT_DIR"), "/messages.rs"));

/// Who lost a feature, as far as a message shows it: the six sieves, and what stands around them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum At {
    /// The CPU itself.
    Silicon,
    /// Firmware's locks and switches.
    Firmware,
    /// The host's Linux kernel.
    HostKernel,
    /// KVM on the host.
    Kvm,
    /// QEMU, with its accelerator.
    Qemu,
    /// Another virtual machine monitor or emulator.
    Vmm,
    /// libvirt: its map of CPU features, its comparisons, its XML.
    Libvirt,
    /// Who chose the guest's CPU: Proxmox, Nova, KubeVirt, VirtualBox's or VMware's settings, a person.
    Management,
    /// The guest's kernel.
    GuestKernel,
    /// A program, by its own will.
    Userspace,
    /// It hangs on the feature.
    ByFeature,
}

impl At {
    /// The word of the JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Silicon => "silicon",
            Self::Firmware => "firmware",
            Self::HostKernel => "host-kernel",
            Self::Kvm => "kvm",
            Self::Qemu => "qemu",
            Self::Vmm => "vmm",
            Self::Libvirt => "libvirt",
            Self::Management => "management",
            Self::GuestKernel => "guest-kernel",
            Self::Userspace => "userspace",
            Self::ByFeature => "unknown",
        }
    }
}

/// What it matters, from the least to the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// It hangs on the feature.
    ByFeature,
    /// Nothing is lost that anybody would miss.
    Harmless,
    /// It costs speed.
    Performance,
    /// A guest cannot be migrated or restored.
    Migration,
    /// A guest lacks a protection.
    Security,
    /// Something does not start, or dies.
    Fatal,
}

impl Severity {
    /// The word of the JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ByFeature => "unknown",
            Self::Harmless => "harmless",
            Self::Performance => "performance",
            Self::Migration => "migration",
            Self::Security => "security",
            Self::Fatal => "fatal",
        }
    }
}

/// A place that a message speaks of: a bit, a field, or a whole register.
///
/// Displays with plain hexadecimal numbers, `CPUID.0x7.0:EBX[16]`, `MSR.0x10a[8]`, `MSR.0x10a`, `XCR0[2]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Spot {
    /// A register of CPUID; `bits` are the highest and the lowest, `None` the whole register.
    Cpuid {
        /// EAX on input.
        leaf: u32,
        /// ECX on input.
        subleaf: u32,
        /// The output register.
        register: Register,
        /// The highest and the lowest bit.
        bits: Option<(u8, u8)>,
    },
    /// A model-specific register.
    Msr {
        /// Its index.
        index: u32,
        /// The highest and the lowest bit.
        bits: Option<(u8, u8)>,
    },
    /// A state component that XCR0 enables.
    Xcr0(u8),
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = match *self {
            Self::Cpuid { leaf, subleaf, register, bits } => {
                write!(f, "CPUID.{leaf:#x}.{subleaf:x}:{register}")?;
                bits
            }
            Self::Msr { index, bits } => {
                write!(f, "MSR.{index:#x}")?;
                bits
            }
            Self::Xcr0(bit) => return write!(f, "XCR0[{bit}]"),
        };
        match bits {
            None => Ok(()),
            Some((high, low)) if high == low => write!(f, "[{high}]"),
            Some((high, low)) => write!(f, "[{high}:{low}]"),
        }
    }
}

/// A message that some program prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Three letters and four digits; never reused.
    pub id: &'static str,
    /// The words by which it is known: any of these patterns.
    pub says: &'static [&'static [Piece]],
    /// What the message tells about its surroundings, if it is a hint rather than a trouble.
    pub tag: Option<&'static str>,
    /// The row counts only if one of these tags is there; none: always.
    pub with: &'static [&'static str],
    /// The row does not count if one of these tags is there.
    pub without: &'static [&'static str],
    /// Ids of the features that it is about, beside those that it names itself.
    pub features: &'static [&'static str],
    /// The places that it is about, beside those of its features.
    pub bits: &'static [Spot],
    /// The likeliest stage.
    pub stage: At,
    /// What it matters.
    pub severity: Severity,
    /// Whether the row counts only where no other one does: it says no more than that something is wrong.
    pub weak: bool,
    /// At most eight words.
    pub title: &'static str,
    /// What happened; `{1}` stands for the first thing that the pattern takes.
    pub cause: &'static str,
    /// What to do; empty if nothing is to be done.
    pub remedy: &'static str,
    /// The argument of QEMU's `-cpu` that mends it.
    pub cpu: Option<&'static str>,
    /// The file and function that print it or decide it.
    pub cite: Option<&'static str>,
}

/// Model-specific registers of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msr {
    /// The first index.
    pub first: u32,
    /// The last index.
    pub last: u32,
    /// The name in the manuals.
    pub name: &'static str,
    /// What it is.
    pub what: &'static str,
    /// Ids of the features that announce it.
    pub features: &'static [&'static str],
    /// Places to look at.
    pub bits: &'static [Spot],
    /// Why KVM refuses a write of the VMM.
    pub refused: &'static str,
    /// What to do about that.
    pub remedy: &'static str,
    /// The argument of `-cpu` that avoids it.
    pub cpu: Option<&'static str>,
    /// What a guest's own access means that fails or is ignored.
    pub guest: &'static str,
    /// The file and function that decide.
    pub cite: Option<&'static str>,
}

/// Features whose loss means the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// A few words.
    pub name: &'static str,
    /// Ids.
    pub features: &'static [&'static str],
    /// Beginnings of ids.
    pub prefixes: &'static [&'static str],
    /// Groups, by their titles.
    pub groups: &'static [&'static str],
    /// What it matters that a guest lacks them.
    pub severity: Severity,
    /// Who takes them, most of the time, if the CPU's generation is not known.
    pub stage: At,
    /// What the loss means.
    pub means: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

/// Names under which CPUs of one generation are sold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brand {
    /// The words by which it is known.
    pub says: &'static [&'static [Piece]],
    /// The generation's id in `knowledge/x86/generations.toml`.
    pub generation: &'static str,
    /// The name for people.
    pub name: &'static str,
}

/// A leaf of CPUID that is more than words of features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// EAX on input.
    pub leaf: u32,
    /// The id of the feature that announces it.
    pub feature: Option<&'static str>,
    /// What it tells.
    pub what: &'static str,
}

/// What is known of a leaf.
#[must_use]
pub fn leaf(leaf: u32) -> Option<&'static Leaf> {
    LEAVES.iter().find(|row| row.leaf == leaf)
}

/// What is known of a model-specific register.
#[must_use]
pub fn msr(index: u32) -> Option<&'static Msr> {
    MSRS.iter().find(|row| (row.first..=row.last).contains(&index))
}

/// The class of a feature.
#[must_use]
pub fn class(feature: &Feature) -> Option<&'static Class> {
    let group = |group: Group, titles: &[&str]| titles.contains(&group.title());
    let listed = CLASSES.iter().find(|class| class.features.contains(&feature.id));
    listed.or_else(|| {
        CLASSES.iter().find(|class| {
            class.prefixes.iter().any(|prefix| feature.id.starts_with(prefix)) || group(feature.group, class.groups)
        })
    })
}
