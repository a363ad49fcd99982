//! Keys of machines: two machines with the same key can run each other's programs, or each other's snapshots.
//!
//! A build cache that hands an AVX-512 program to a machine without AVX-512 makes it die of an illegal instruction; a
//! snapshot that is restored on a CPU that lacks a feature does worse. A key names what matters and nothing else, so that
//! equal machines share.
//!
//! ```
//! use cpusieve_answers::key;
//! use cpusieve_model::{Cpu, Cpuinfo, FlagList, Snapshot};
//! use cpusieve_stages::Machine;
//!
//! let of = |flags: &str| {
//!     let cpuinfo = Cpuinfo { flags: Some(FlagList::from_line(flags)), ..Cpuinfo::default() };
//!     let snapshot = Snapshot { cpus: vec![Cpu { cpuinfo: Some(cpuinfo), ..Cpu::default() }], ..Snapshot::default() };
//!     key::instructions(&Machine::new("host", &snapshot)).unwrap().to_string()
//! };
//! let one = of("fpu tsc msr cx8 cmov mmx fxsr sse sse2 syscall lm cpuid pni aes");
//! // Neither the order nor flags that no program can use matter.
//! assert_eq!(one, of("tsc fpu msr cx8 cmov mmx fxsr sse sse2 syscall lm cpuid aes pni"));
//! assert_ne!(one, of("fpu tsc msr cx8 cmov mmx fxsr sse sse2 syscall lm cpuid pni"));
//! assert!(one.starts_with("x86-64-v1-"));
//! ```

use std::fmt;

use cpusieve_knowledge::linux;
use cpusieve_knowledge::x86::{self, Feature, Group};
use cpusieve_model::{CpuidTable, Place, State};
use cpusieve_stages::Machine;

use crate::models::{Level, level_of};

/// Features of other groups that a program uses by executing an instruction.
const INSTRUCTIONS: [&str; 39] = [
    "fpu",
    "cx8",
    "cmov",
    "sep",
    "syscall",
    "lm",
    "fxsr",
    "cx16",
    "lahf_lm",
    "movbe",
    "popcnt",
    "abm",
    "bmi1",
    "bmi2",
    "tbm",
    "adx",
    "rdpru",
    "serialize",
    "cmpccxadd",
    "apx",
    "fsgsbase",
    "rdtscp",
    "rdpid",
    "xsave",
    "xsaveopt",
    "xsavec",
    "xgetbv1",
    "ospke",
    "user_shstk",
    "movdiri",
    "movdir64b",
    "enqcmd",
    "waitpkg",
    "mwaitx",
    "lwp",
    "clflush",
    "clflushopt",
    "clwb",
    "cldemote",
];

/// The same of transactions, caches and random numbers.
const MORE_INSTRUCTIONS: [&str; 9] =
    ["clzero", "3dnowprefetch", "movrs", "prefetchiti", "hle", "rtm", "tsxldtrk", "rdrand", "rdseed"];

/// What a key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covers {
    /// Instructions that a program may execute.
    Instructions,
    /// All that a guest sees of its CPU, and that a snapshot of it relies on.
    Snapshot,
}

/// A key, and what it was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// What it stands for.
    pub covers: Covers,
    /// The highest level of x86-64 whose features are all there.
    pub level: Option<Level>,
    /// What was hashed, sorted: ids of features, and for snapshots further facts as `name=value`.
    pub parts: Vec<String>,
}

impl Key {
    /// The 64-bit FNV-1a hash of the parts, each followed by a line feed.
    #[must_use]
    pub fn hash(&self) -> u64 {
        /// Offset basis and prime of FNV-1a.
        const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0100_0000_01b3;
        let bytes = self.parts.iter().flat_map(|part| part.bytes().chain([b'\n']));
        bytes.fold(BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
    }
}

impl fmt::Display for Key {
    /// Level and hash: `x86-64-v3-0123456789abcdef`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = self.level.map_or("x86", Level::name);
        write!(f, "{level}-{:016x}", self.hash())
    }
}

/// Why there is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoKey {
    /// The input holds neither CPUID nor flags.
    #[error("neither CPUID nor a flags line was seen")]
    NothingSeen,
    /// A snapshot relies on more than flags.
    #[error("a key for snapshots needs CPUID, which was not seen")]
    NoCpuid,
}

/// The key of the instructions that programs may execute: those that the CPU has and the kernel has not switched off.
///
/// What a kernel does not print counts as it stands in CPUID, so that two kernels on one CPU give one key; without CPUID
/// it counts as missing.
///
/// # Errors
///
/// Where neither CPUID nor a flags line was seen.
pub fn instructions(machine: &Machine<'_>) -> Result<Key, NoKey> {
    if machine.cpuid().is_none() && machine.flags().is_none() {
        return Err(NoKey::NothingSeen);
    }
    let ours = |feature: &&Feature| match feature.group {
        Group::Simd | Group::Amx => !matches!(feature.id, "misalignsse") && !feature.id.ends_with("_alias"),
        Group::Crypto => !feature.id.ends_with("_en"),
        _ => INSTRUCTIONS.contains(&feature.id) || MORE_INSTRUCTIONS.contains(&feature.id),
    };
    let present = x86::FEATURES.iter().filter(ours).filter(|feature| has(machine, feature));
    let mut parts: Vec<String> = present.map(|feature| feature.id.to_owned()).collect();
    parts.sort_unstable();
    Ok(Key { covers: Covers::Instructions, level: level(machine), parts })
}

/// The key of all that a snapshot of a guest relies on: vendor, family and model, every named CPUID bit, state
/// components, the width of addresses.
///
/// # Errors
///
/// Where CPUID was not seen.
pub fn snapshot(machine: &Machine<'_>) -> Result<Key, NoKey> {
    let cpuid = machine.cpuid().ok_or(NoKey::NoCpuid)?;
    // Bits that tell which CPU answered, or what its kernel switched on: they differ on one machine.
    let wanders = |feature: &Feature| matches!(feature.id, "osxsave" | "ospke");
    let named = x86::places().filter(|(place, feature)| !wanders(feature) && is_set(cpuid, *place));
    let mut parts: Vec<String> = named.map(|(place, _)| format!("{place:#}")).collect();
    parts.push(format!("vendor={}", cpuid.vendor_string().unwrap_or_default()));
    if let Some((family, model, _)) = cpuid.signature() {
        parts.push(format!("family={family}"));
        parts.push(format!("model={model}"));
    }
    if let Some(widths) = cpuid.get(0x8000_0008, 0) {
        parts.push(format!("address-widths={:#x}", widths.eax & 0xffff));
    }
    if let Some(components) = cpuid.get(0xd, 0) {
        parts.push(format!("xcr0={:#x}", u64::from(components.edx) << 32 | u64::from(components.eax)));
    }
    parts.sort_unstable();
    parts.dedup();
    Ok(Key { covers: Covers::Snapshot, level: level(machine), parts })
}

fn is_set(cpuid: &CpuidTable, place: Place) -> bool {
    matches!(place, Place::Cpuid(bit) if cpuid.state(bit) == State::Present)
}

/// Whether a program may use a feature here.
pub(crate) fn has(machine: &Machine<'_>, feature: &Feature) -> bool {
    if machine.prints(feature.id) == Some(true) {
        return true;
    }
    let printed = |tree| linux::feature_by_id(tree, feature.id).is_some_and(|found| found.shown.is_some());
    let withdrawn = machine.flags().is_some() && machine.kernels().iter().any(printed);
    let set = machine.cpuid().is_some_and(|cpuid| feature.places.iter().any(|&place| is_set(cpuid, place)));
    set && !withdrawn
}

/// The highest level of x86-64 all of whose features a program may use here.
#[must_use]
pub fn level(machine: &Machine<'_>) -> Option<Level> {
    level_of(|place| x86::by_place(place).is_some_and(|feature| has(machine, feature)))
}

#[cfg(test)]
mod tests {
    use cpusieve_model::{Cpu, Cpuinfo, FlagList, Registers, Snapshot};

    use super::*;

    fn line(flags: &str) -> Snapshot {
        let cpuinfo = Cpuinfo { flags: Some(FlagList::from_line(flags)), ..Cpuinfo::default() };
        Snapshot { cpus: vec![Cpu { cpuinfo: Some(cpuinfo), ..Cpu::default() }], ..Snapshot::default() }
    }

    #[test]
    fn every_instruction_is_a_known_feature() {
        for id in INSTRUCTIONS.iter().chain(&MORE_INSTRUCTIONS) {
            assert!(x86::feature(id).is_some(), "{id}");
        }
    }

    #[test]
    fn what_no_program_can_use_makes_no_difference() {
        let base = "fpu tsc msr cx8 sep cmov mmx fxsr sse sse2 syscall lm cpuid pni ssse3";
        let key = |flags: &str| instructions(&Machine::new("host", &line(flags))).unwrap().to_string();
        assert_eq!(key(base), key(&format!("{base} hypervisor smep spec_ctrl arat")));
        assert_ne!(key(base), key(&format!("{base} avx512f")));
    }

    #[test]
    fn a_key_needs_something_seen() {
        let empty = Snapshot::default();
        assert_eq!(instructions(&Machine::new("host", &empty)), Err(NoKey::NothingSeen));
        assert_eq!(snapshot(&Machine::new("host", &line("fpu"))), Err(NoKey::NoCpuid));
    }

    #[test]
    fn a_snapshot_relies_on_every_named_bit() {
        let machine = |ecx: u32| {
            let mut cpu = Cpu::default();
            cpu.cpuid.insert(0, 0, Registers { eax: 1, ebx: 0x6874_7541, ecx: 0x444d_4163, edx: 0x6974_6e65 });
            cpu.cpuid.insert(1, 0, Registers { eax: 0x00a2_0f12, ecx, edx: 0x8001, ..Registers::default() });
            Snapshot { cpus: vec![cpu], ..Snapshot::default() }
        };
        let key = |ecx| snapshot(&Machine::new("host", &machine(ecx))).unwrap().hash();
        assert_ne!(key(0), key(1 << 31), "a guest knows that it is one");
        assert_eq!(key(1 << 26), key(1 << 26 | 1 << 27), "OSXSAVE is the kernel's");
    }

    #[test]
    fn the_hash_stays() {
        let key = Key { covers: Covers::Instructions, level: None, parts: vec!["fpu".to_owned(), "sse".to_owned()] };
        // FNV-1a of "fpu\nsse\n", computed apart.
        assert_eq!(key.to_string(), "x86-2fbec182e1a58f11");
    }
}
