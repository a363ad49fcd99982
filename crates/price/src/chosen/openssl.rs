//! OpenSSL's capability vector (`OPENSSL_ia32cap_P`), computed from CPUID and held against what `openssl` prints.
//!
//! The vector consists of registers of CPUID, edited: bits that mean nothing in a register carry marks, and bits whose
//! state the kernel does not save are cleared (`crypto/x86_64cpuid.pl:OPENSSL_ia32_cpuid`, `crypto/cpuid.c:
//! OPENSSL_cpuid_setup`; the layout is told by `OPENSSL_ia32cap(3)`). Releases before 3.5 have four words, newer ones ten.

use std::fmt;
use std::process::Command;
use std::time::Duration;

use cpusieve_model::{CpuidTable, Registers, Vendor};

use super::ask::output;
use crate::flags::Flags;

/// The words of the vector, in newer releases.
pub const WORDS: usize = 10;

/// How long the program may take to say it.
const LIMIT: Duration = Duration::from_secs(10);

// Marks and bits of the first word, 1.EDX.
/// Set when the vector is filled.
const FILLED: u32 = 1 << 10;
/// On Intel's family 15: RC4 works byte by byte.
const BYTEWISE_RC4: u32 = 1 << 20;
/// Hyper-threading: kept only where threads share a cache.
const SHARED_CACHE: u32 = 1 << 28;
/// The CPU is Intel's.
const INTEL: u32 = 1 << 30;

// Bits of the second word, 1.ECX.
const XOP: u32 = 1 << 11;
const FMA: u32 = 1 << 12;
const XSAVE: u32 = 1 << 26;
const OSXSAVE: u32 = 1 << 27;
const AVX: u32 = 1 << 28;

// Bits of the third word, 7.0.EBX.
const AVX2: u32 = 1 << 5;
const AVX512F: u32 = 1 << 16;
const ADX: u32 = 1 << 19;
/// F, IFMA, BW and VL: those of AVX-512 that OpenSSL asks for.
const AVX512: u32 = AVX512F | 1 << 21 | 1 << 30 | 1 << 31;

/// 7.1.EAX: AVX-IFMA.
const AVX_IFMA: u32 = 1 << 23;
/// 7.1.EDX: AVX10.
const AVX10: u32 = 1 << 19;

/// State of AVX, and of AVX-512, in XCR0.
const YMM: u64 = 0x6;
/// State of AVX-512 with that of AVX.
const ZMM: u64 = 0xe6;

/// The vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vector(pub [u32; WORDS]);

impl fmt::Display for Vector {
    /// As `openssl info -cpusettings` prints the first four words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, third, fourth, ..] = self.0;
        write!(f, "{:#x}:{:#x}", pair(first, second), pair(third, fourth))
    }
}

const fn pair(low: u32, high: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

impl Vector {
    /// What OpenSSL makes of a CPU; `None` if leaves 0 and 1 are not known. `xcr0` is `None` where XSAVE is not enabled.
    #[must_use]
    pub fn of(cpuid: &CpuidTable, xcr0: Option<u64>) -> Option<Self> {
        let highest = cpuid.get(0, 0)?.eax;
        let leaf1 = cpuid.get(1, 0)?;
        let vendor = cpuid.vendor();
        let mut words = [0; WORDS];
        let xop;
        (words[0], words[1], xop) = match vendor {
            Some(Vendor::Amd) => amd(cpuid, leaf1, highest),
            _ => {
                let (edx, ecx) = others(cpuid, leaf1, highest, vendor == Some(Vendor::Intel));
                (edx, ecx, false)
            }
        };
        words[1] = words[1] & !XOP | if xop { XOP } else { 0 };
        if highest >= 7 {
            extended(cpuid, leaf1, &mut words);
        }
        let state = if words[1] & OSXSAVE != 0 { xcr0.unwrap_or(0) } else { 0 };
        if state & ZMM != ZMM {
            words[2] &= !AVX512;
        }
        if state & YMM != YMM {
            words[1] &= !(AVX | FMA | XOP);
            words[2] &= !AVX2;
            words[5] &= !AVX_IFMA;
        }
        words[0] |= FILLED;
        Some(Self(words))
    }
}

/// The first two words on AMD, and whether there is XOP.
fn amd(cpuid: &CpuidTable, leaf1: Registers, highest: u32) -> (u32, u32, bool) {
    let Some(announced) = cpuid.get(0x8000_0000, 0).map(|leaf| leaf.eax).filter(|&leaf| leaf > 0x8000_0000) else {
        let (edx, ecx) = others(cpuid, leaf1, highest, false);
        return (edx, ecx, false);
    };
    let xop = cpuid.get(0x8000_0001, 0).is_some_and(|leaf| leaf.ecx & XOP != 0);
    if announced < 0x8000_0008 {
        let (edx, ecx) = others(cpuid, leaf1, highest, false);
        return (edx, ecx, xop);
    }
    // Cores less one stand in eight bits; OpenSSL compares the low eight bits of the sum.
    let cores = (cpuid.get(0x8000_0008, 0).map_or(0, |leaf| leaf.ecx & 0xff) + 1) & 0xff;
    let threads = leaf1.ebx >> 16 & 0xff;
    let edx = if threads > cores { leaf1.edx } else { leaf1.edx & !SHARED_CACHE };
    (edx, leaf1.ecx, xop)
}

/// The first two words on all other CPUs.
fn others(cpuid: &CpuidTable, leaf1: Registers, highest: u32, intel: bool) -> (u32, u32) {
    let (mut edx, mut ecx) = (leaf1.edx & !(INTEL | BYTEWISE_RC4), leaf1.ecx);
    if intel {
        edx |= INTEL;
        let family = leaf1.eax >> 8 & 0xf;
        if family == 15 {
            edx |= BYTEWISE_RC4;
        }
        // Knights Landing and Knights Mill are treated as Silvermont, which has no XSAVE.
        if family == 6 && matches!(leaf1.eax & 0x0fff_0ff0, 0x5_0670 | 0x8_0650) {
            ecx &= !XSAVE;
        }
    }
    if edx & SHARED_CACHE != 0 {
        // Threads that share the first cache; unknown without leaf 4.
        let sharing = (highest >= 4).then(|| cpuid.get(4, 0).map_or(0, |leaf| leaf.eax >> 14 & 0xfff));
        if sharing == Some(0) || leaf1.ebx >> 16 & 0xff <= 1 {
            edx &= !SHARED_CACHE;
        }
    }
    (edx, ecx)
}

/// The words of leaves 7 and 24H.
fn extended(cpuid: &CpuidTable, leaf1: Registers, words: &mut [u32; WORDS]) {
    let Some(leaf) = cpuid.get(7, 0) else { return };
    let mut ebx = leaf.ebx;
    if words[1] & XSAVE == 0 {
        ebx &= !ADX;
    }
    // Skylake-X, whose clock falls with AVX-512.
    if leaf1.eax & 0x0fff_0ff0 == 0x5_0650 {
        ebx &= !AVX512F;
    }
    (words[2], words[3], words[4]) = (ebx, leaf.ecx, leaf.edx);
    if leaf.eax == 0 {
        return;
    }
    let second = cpuid.get(7, 1).unwrap_or_default();
    (words[5], words[6], words[7], words[8]) = (second.eax, second.edx, second.ebx, second.ecx);
    if second.edx & AVX10 != 0 {
        words[9] = cpuid.get(0x24, 0).map_or(0, |leaf| leaf.ebx);
    }
}

/// What OpenSSL works with here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// `OpenSSL 3.0.19 27 Jan 2026`
    pub release: String,
    /// What it should work with, by CPUID.
    pub computed: Vector,
    /// What it says that it works with: the words that this release prints.
    pub told: Vec<u32>,
}

impl Capabilities {
    /// Whether the words that it tells are the computed ones.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.told.len() >= 4 && self.told.iter().zip(self.computed.0).all(|(&told, computed)| told == computed)
    }
}

/// Asks the `openssl` of this machine.
///
/// # Errors
///
/// Why there is no answer.
pub fn ask(flags: &Flags) -> Result<Capabilities, String> {
    let computed = Vector::of(flags.cpuid(), flags.xcr0()).ok_or("CPUID was not read")?;
    let (release, told) = told(None)?;
    Ok(Capabilities { release, computed, told })
}

/// The release of the `openssl` of this machine, and the words that it works with if it is told this mask.
pub(super) fn told(mask: Option<&str>) -> Result<(String, Vec<u32>), String> {
    let run = |arguments: &[&str]| {
        let mut command = Command::new("openssl");
        output(
            command.args(arguments).env_remove("OPENSSL_ia32cap").envs(mask.map(|mask| ("OPENSSL_ia32cap", mask))),
            LIMIT,
        )
    };
    let release = run(&["version"])?;
    let release = release.split(" (").next().unwrap_or_default().trim().to_owned();
    let text = run(&["info", "-cpusettings"]).or_else(|_| run(&["version", "-c"])).map_err(|_| {
        format!("{release} does not tell its capabilities; 3.0 and newer do (openssl info -cpusettings)")
    })?;
    let told = parse(&text).ok_or_else(|| format!("{release} prints no OPENSSL_ia32cap"))?;
    Ok((release, told))
}

/// The words in `OPENSSL_ia32cap=0x...:0x...`, which prints two at a time.
#[must_use]
pub fn parse(text: &str) -> Option<Vec<u32>> {
    let (_, value) = text.split_once("OPENSSL_ia32cap=")?;
    let value = value.split_whitespace().next()?;
    let mut words = Vec::new();
    for part in value.split(':').take(WORDS / 2) {
        let pair = u64::from_str_radix(part.strip_prefix("0x")?, 16).ok()?;
        words.extend([pair as u32, (pair >> 32) as u32]);
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(u32, u32, [u32; 4])]) -> CpuidTable {
        let mut table = CpuidTable::default();
        for &(leaf, subleaf, [eax, ebx, ecx, edx]) in rows {
            table.insert(leaf, subleaf, Registers { eax, ebx, ecx, edx });
        }
        table
    }

    const AMD: (u32, u32, [u32; 4]) = (0, 0, [0x1c, 0x6874_7541, 0x444d_4163, 0x6974_6e65]);
    const INTEL_CPU: (u32, u32, [u32; 4]) = (0, 0, [0x16, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]);

    #[test]
    fn an_epyc_gives_what_openssl_printed_on_it() {
        let epyc = table(&[
            AMD,
            (1, 0, [0x00a1_0f11, 0x0102_0800, 0xfffa_3203, 0x178b_fbff]),
            (7, 0, [1, 0xf1bf_07ab, 0x0040_5fc6, 0x10]),
            (7, 1, [0x20, 0, 0, 0]),
            (0x8000_0000, 0, [0x8000_0021, 0, 0, 0]),
            (0x8000_0001, 0, [0x00a1_0f11, 0x4000_0000, 0x0040_03f3, 0x2fd3_fbff]),
            (0x8000_0008, 0, [0x0030_3030, 0x5002_0005, 0x7001, 0]),
        ]);
        let vector = Vector::of(&epyc, Some(0x2e7)).unwrap();
        assert_eq!(vector.to_string(), "0xfffa3203078bffff:0x405fc6f1bf07ab");
        // What the kernel does not save is not used.
        let [_, ecx, ebx, ..] = Vector::of(&epyc, Some(7)).unwrap().0;
        assert_eq!((ecx & AVX, ebx & AVX512, ebx & AVX2), (AVX, 0, AVX2));
        let [_, ecx, ebx, ..] = Vector::of(&epyc, None).unwrap().0;
        assert_eq!((ecx & (AVX | FMA), ebx & (AVX512 | AVX2)), (0, 0));
    }

    #[test]
    fn intel_is_marked_and_its_odd_models_are_treated_oddly() {
        let with = |signature: u32| {
            let leaf1 = (1, 0, [signature, 0x0010_0800, 0x7ffe_fbff, 0xbfeb_fbff]);
            let rest = [(4, 0, [0x1c00_4121, 0, 0, 0]), (7, 0, [0, 0xd19f_4fbb, 8, 0])];
            Vector::of(&table(&[INTEL_CPU, leaf1, rest[0], rest[1]]), Some(0xe7)).unwrap().0
        };
        let usual = with(0x0006_06a6);
        assert_eq!(usual[0] & (INTEL | BYTEWISE_RC4 | SHARED_CACHE), INTEL | SHARED_CACHE);
        assert_eq!(usual[1] & XOP, 0, "bit 11 of 1.ECX is Intel's SDBG, not XOP");
        assert_eq!(usual[2] & (AVX512F | ADX), AVX512F | ADX);
        assert_eq!(with(0x0005_0654)[2] & AVX512F, 0, "Skylake-X");
        assert_eq!((with(0x0005_0671)[1] & XSAVE, with(0x0005_0671)[2] & ADX), (0, 0), "Knights Landing");
        assert_ne!(with(0x0000_0f41)[0] & BYTEWISE_RC4, 0, "family 15");
    }

    #[test]
    fn what_openssl_prints_is_read() {
        let told = parse("OPENSSL_ia32cap=0xfffa3203078bffff:0x405fc6f1bf07ab\n").unwrap();
        assert_eq!(told, [0x078b_ffff, 0xfffa_3203, 0xf1bf_07ab, 0x0040_5fc6]);
        let masked = parse("CPUINFO: OPENSSL_ia32cap=0x1:0x2:0x3:0x4:0x5 env:~0x1\n").unwrap();
        assert_eq!(masked, [1, 0, 2, 0, 3, 0, 4, 0, 5, 0]);
        assert_eq!(parse("OPENSSL_ia32cap=env\n"), None);
        assert_eq!(parse("CPUINFO: N/A\n"), None);
    }

    #[test]
    fn the_openssl_of_this_machine_works_with_what_cpuid_says() {
        match ask(&Flags::here()) {
            Ok(found) => assert!(found.agrees(), "{found:?}"),
            Err(why) => println!("skipped: {why}"),
        }
    }
}
