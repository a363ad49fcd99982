//! CPU features under all their names, and the generations of CPUs that have them.
//!
//! A feature's id is the name that Linux prints; features that Linux does not print have its macro in lower case, and
//! those that Linux does not know KVM's or QEMU's name in lower case. The tables stand in `knowledge/x86/`.
//!
//! ```
//! use cpusieve_knowledge::x86;
//!
//! let feature = x86::feature("cqm").unwrap();
//! assert_eq!(format!("{:#}", feature.places[0]), "7.0.EBX[12]");
//! // libvirt calls it `cmt`, Intel's manual RDT-M.
//! assert_eq!(x86::resolve("cmt")[0].id, "cqm");
//! // One spelling may stand for several features: what Linux prints comes first.
//! let ids: Vec<&str> = x86::resolve("SSBD").iter().map(|feature| feature.id).collect();
//! assert_eq!(ids, ["ssbd", "spec_ctrl_ssbd", "amd_ssbd"]);
//! assert_eq!(x86::suggest("avx521f")[0], "avx512f");
//! ```

mod generation;
mod names;

use std::fmt;

use cpusieve_model::{CpuidBit, LinuxBit, MsrBit, Place, Register, Vendor};

use crate::own;

pub use generation::{Generation, Guess, Known, Member, Reason, Telling, Trait, by_signature, generation, guess};
pub(crate) use names::distance;
pub use names::{fold, resolve, suggest};

include!(concat!(env!("OUT_DIR"), "/x86.rs"));

/// A CPU feature, or a flag that Linux makes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// The id, unique: the name that Linux prints, else a macro in lower case.
    pub id: &'static str,
    /// The bits that stand for it, the main one first. Several if bits mirror each other or the feature moved; none if
    /// Linux makes it up.
    pub places: &'static [Place],
    /// Whether Linux makes the flag up, in all or some of its releases: no bit of these releases is the flag itself.
    pub linux_made: bool,
    /// Whose CPUs the name belongs to.
    pub vendor: Scope,
    /// What it is about.
    pub group: Group,
    /// At most eight words for people.
    pub title: &'static str,
    /// Names in other systems, where they differ; QEMU's names stand in [`crate::qemu`].
    pub names: &'static [(System, &'static str)],
}

impl Feature {
    /// The main bit, unless Linux makes the flag up.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        self.places.first().copied()
    }

    /// The names that a system has for it beside the id.
    pub fn names_in(&self, system: System) -> impl Iterator<Item = &'static str> {
        self.names.iter().filter(move |(known, _)| *known == system).map(|(_, name)| *name)
    }
}

/// Whose CPUs a feature's name belongs to. Bits of leaf 8000000AH mean nothing on an Intel CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Intel, and those that follow it (Zhaoxin).
    Intel,
    /// AMD and Hygon.
    Amd,
    /// More than one of them.
    Any,
    /// Centaur, Zhaoxin and Cyrix.
    Via,
    /// Transmeta.
    Transmeta,
}

/// Systems that have names of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum System {
    /// Intel's manuals.
    Intel,
    /// AMD's manuals.
    Amd,
    /// libvirt's `cpu_map`.
    Libvirt,
    /// The `vmx flags` line of Linux.
    LinuxVmx,
    /// A macro of another Linux release, in lower case.
    OldLinux,
    /// KVM's macro, in lower case.
    Kvm,
    /// What people type.
    Also,
}

/// What a feature is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the variants say it by their names; Group::title in words")]
pub enum Group {
    Base,
    Simd,
    Amx,
    Crypto,
    Random,
    String,
    Memory,
    Cache,
    Tsx,
    Security,
    Speculation,
    Power,
    Thermal,
    DebugStore,
    Debug,
    Pmu,
    Tsc,
    Interrupts,
    Virtualization,
    Sgx,
    Encryption,
    Qos,
    Mce,
    Xsave,
    Topology,
    Paravirt,
    Kernel,
    Misc,
}

impl Group {
    /// The heading for people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Base => "base instructions",
            Self::Simd => "vectors",
            Self::Amx => "matrix tiles",
            Self::Crypto => "cryptography",
            Self::Random => "random numbers",
            Self::String => "string moves",
            Self::Memory => "memory management",
            Self::Cache => "caches",
            Self::Tsx => "transactions",
            Self::Security => "protection",
            Self::Speculation => "speculation control",
            Self::Power => "power management",
            Self::Thermal => "thermal management",
            Self::DebugStore => "debug store",
            Self::Debug => "debugging and tracing",
            Self::Pmu => "performance counters",
            Self::Tsc => "time stamp counter",
            Self::Interrupts => "interrupt controller",
            Self::Virtualization => "virtualization",
            Self::Sgx => "enclaves",
            Self::Encryption => "memory encryption",
            Self::Qos => "cache and bandwidth shares",
            Self::Mce => "machine checks",
            Self::Xsave => "extended state",
            Self::Topology => "topology",
            Self::Paravirt => "paravirtualization",
            Self::Kernel => "kernel internals",
            Self::Misc => "other",
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.title())
    }
}

/// The feature with this id; names that the macro has in other releases of Linux and KVM count as ids too.
#[must_use]
pub fn feature(id: &str) -> Option<&'static Feature> {
    let Ok(found) = BY_ID.binary_search_by(|(known, _)| (*known).cmp(id)) else {
        return imported().find(|feature| feature.id == id);
    };
    BY_ID.get(found).and_then(|&(_, index)| FEATURES.get(usize::from(index)))
}

/// The feature that this bit stands for.
#[must_use]
pub fn by_place(place: Place) -> Option<&'static Feature> {
    let Ok(found) = BY_PLACE.binary_search_by(|(known, _)| known.cmp(&place)) else {
        return imported().find(|feature| feature.places.contains(&place));
    };
    BY_PLACE.get(found).and_then(|&(_, index)| FEATURES.get(usize::from(index)))
}

/// The features that only registered kernel trees know ([`own`]).
fn imported() -> impl Iterator<Item = &'static Feature> {
    own::all().filter_map(|(_, own)| own.linux.as_ref()).flat_map(|own| own.unheard_of)
}

/// All bits that stand for a feature, by place; those of registered kernel trees are not among them.
pub fn places() -> impl Iterator<Item = (Place, &'static Feature)> {
    BY_PLACE.iter().filter_map(|&(place, index)| Some((place, FEATURES.get(usize::from(index))?)))
}

/// The features of one CPUID register or MSR, with their places, by bit. `first` is the place of its bit 0.
pub fn of_register(first: Place) -> impl Iterator<Item = (Place, &'static Feature)> {
    let last = match first {
        Place::Cpuid(bit) => Place::Cpuid(CpuidBit { bit: u8::MAX, ..bit }),
        Place::Msr(bit) => Place::Msr(MsrBit { bit: u8::MAX, ..bit }),
        Place::Linux(bit) => Place::Linux(LinuxBit { bit: u8::MAX, ..bit }),
    };
    between(first, last)
}

/// The features of one leaf and subleaf of CPUID, with their places, by register and bit.
pub fn of_leaf(leaf: u32, subleaf: u32) -> impl Iterator<Item = (Place, &'static Feature)> {
    let place = |register, bit| Place::Cpuid(CpuidBit { leaf, subleaf, register, bit });
    between(place(Register::Eax, 0), place(Register::Edx, u8::MAX))
}

fn between(first: Place, last: Place) -> impl Iterator<Item = (Place, &'static Feature)> {
    let start = BY_PLACE.partition_point(|(place, _)| *place < first);
    let rows = BY_PLACE.get(start..).unwrap_or(&[]).iter().take_while(move |(place, _)| *place <= last);
    rows.filter_map(|&(place, index)| Some((place, FEATURES.get(usize::from(index))?)))
}
