//! What a kernel of one tree makes of a machine, from its first look at CPUID to the line in `/proc/cpuinfo`.
//!
//! [`boot`] runs the kernel's set-up code in the kernel's order: one small function here for one there, of the same
//! name. What such a function does to capabilities stands in the rules (`knowledge/rules/linux.toml`) that cite it; so
//! what explains a flag is what predicted it.
//!
//! Linux identifies the boot CPU twice. `early_identify_cpu` reads CPUID, takes the command line in and decides what
//! holds for ever; `identify_cpu` begins again from zero, later, and lays over it what was *cleared* for good
//! (`setup_clear_cpu_cap`) and then what was *forced* (`setup_force_cpu_cap`), which therefore wins. What a function
//! sets or clears for its CPU alone lasts for one pass. Every clear takes along what depends on the feature
//! (`cpuid-deps.c`); a feature whose parent CPUID never had stays.
//!
//! Input that was not seen is assumed as a stock distribution kernel in that place would see it; [`Output::assumed`]
//! lists what was assumed, why, and which flags hang on it.

mod assume;
mod bugs;
pub(crate) mod capabilities;
mod cmdline;
mod microcode;
mod mitigations;
mod program;
mod sequence;
mod state;
mod steps;
#[cfg(test)]
mod tests;
mod truth;
mod vmx;
mod words;

use std::borrow::Cow;
use std::collections::BTreeMap;

use cpusieve_model::{CpuidTable, MsrTable, Snapshot, Stage, Step};

pub use capabilities::Capabilities;
use state::Boot;

/// What a kernel finds when it boots.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Whose kernel it is, as evidence is to name it: `host`, `guest`.
    pub of: &'static str,
    /// The stage that the steps belong to.
    pub at: Stage,
    /// What CPUID returns on the boot CPU.
    pub cpuid: &'a CpuidTable,
    /// The MSRs of the boot CPU.
    pub msrs: &'a MsrTable,
    /// What is to be thought of an MSR that is not in the table.
    pub unlisted: Unlisted,
    /// The microcode revision; `None` if it was not seen.
    pub microcode: Option<u64>,
    /// The kernel's command line; `None` if it was not seen.
    pub cmdline: Option<&'a str>,
    /// The kernel's configuration, `CONFIG_X86_5LEVEL` to `y`; `None` if it was not seen.
    pub config: Option<&'a BTreeMap<String, String>>,
}

/// What is to be thought of an MSR that is not in a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unlisted {
    /// Nobody read it.
    #[default]
    NotSeen,
    /// It reads as zero, and what is written to it is lost: emulators treat every MSR so that they do not know.
    Zero,
}

impl<'a> Input<'a> {
    /// The first CPU of a snapshot on which CPUID was seen, with what the snapshot says of its kernel.
    #[must_use]
    pub fn of_snapshot(of: &'static str, at: Stage, snapshot: &'a Snapshot) -> Option<Self> {
        let cpu = snapshot.first_cpuid()?;
        let linux = snapshot.linux.as_ref();
        Some(Self {
            of,
            at,
            cpuid: &cpu.cpuid,
            msrs: &cpu.msrs,
            unlisted: Unlisted::NotSeen,
            microcode: cpu.cpuinfo.as_ref().and_then(|cpuinfo| cpuinfo.identity.microcode),
            cmdline: linux.and_then(|linux| linux.cmdline.as_deref()),
            config: linux.and_then(|linux| linux.config.as_ref()),
        })
    }
}

/// What `/proc/cpuinfo` of CPU 0 then shows, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The line `flags`, in the order in which it is printed.
    pub flags: Vec<&'static str>,
    /// Capabilities that the kernel has and does not print, by id, in word and bit order.
    pub hidden: Vec<&'static str>,
    /// The line `bugs`, in the order in which it is printed.
    pub bugs: Vec<&'static str>,
    /// The line `vmx flags`, in the order in which it is printed; empty if there is no such line.
    pub vmx_flags: Vec<&'static str>,
    /// One step for each capability that CPUID announced, that the kernel has in the end, or that it set and cleared.
    pub steps: Vec<Step>,
    /// What was not seen and had to be assumed.
    pub assumed: Vec<Assumption>,
    capabilities: Capabilities,
}

impl Output {
    /// What the kernel has in the end, printed or not.
    #[must_use]
    pub const fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// A kernel of which nothing but its capabilities is known.
    pub(crate) fn of(capabilities: Capabilities) -> Self {
        Self { capabilities, ..Self::default() }
    }
}

/// Something that was not seen, what it was taken to be, and what hangs on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assumption {
    /// What: `MSR 10AH`, `kernel command line`.
    pub what: Cow<'static, str>,
    /// What it was taken to be.
    pub value: Cow<'static, str>,
    /// Why.
    pub because: &'static str,
    /// The capabilities, by id, and the bugs that would have come out otherwise, or might have, if it were not so.
    pub hangs: Vec<&'static str>,
}

/// Boots a kernel of a tree (a position in [`TREES`](cpusieve_knowledge::linux::TREES)) on a machine.
///
/// ```
/// use cpusieve_knowledge::linux;
/// use cpusieve_model::{CpuidTable, MsrTable, Registers, Stage};
/// use cpusieve_stages::linux::boot::{Input, Unlisted, boot};
///
/// // GenuineIntel, family 6 model 9EH, with SSE2, SPEC_CTRL (7.0.EDX[26]) and AVX2, but without AVX.
/// let mut cpuid = CpuidTable::default();
/// cpuid.insert(0, 0, Registers { eax: 7, ebx: 0x756e_6547, ecx: 0x6c65_746e, edx: 0x4965_6e69 });
/// cpuid.insert(1, 0, Registers { eax: 0x0009_06ed, edx: 0x0780_0011, ..Registers::default() });
/// cpuid.insert(7, 0, Registers { ebx: 1 << 5, edx: 1 << 26, ..Registers::default() });
/// let input = Input {
///     of: "host",
///     at: Stage::Host,
///     cpuid: &cpuid,
///     msrs: &MsrTable::default(),
///     unlisted: Unlisted::NotSeen,
///     microcode: Some(0xf0),
///     cmdline: Some("quiet"),
///     config: None,
/// };
/// let output = boot(&input, linux::nearest("6.12").tree);
/// assert!(output.hidden.contains(&"spec_ctrl") && output.flags.contains(&"ibrs"));
/// assert!(output.flags.contains(&"avx2"), "a missing parent takes nothing along");
/// assert!(output.flags.contains(&"pti") && output.bugs.contains(&"cpu_meltdown"));
/// assert!(output.assumed.iter().any(|assumption| assumption.what == "MSR 1A0H"));
/// ```
#[must_use]
pub fn boot(input: &Input<'_>, tree: usize) -> Output {
    let mut boot = Boot::new(input, tree);
    sequence::start_kernel(&mut boot);
    steps::output(boot)
}
