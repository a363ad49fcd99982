//! What is assumed of input that was not seen: what a stock distribution kernel in that place would find.

use std::borrow::Cow;

use cpusieve_knowledge::linux::TREES;
use cpusieve_knowledge::own;
use cpusieve_model::{MsrBit, State, Vendor, hexadecimal, msr_name};

use super::state::Boot;
use super::truth::Truth;
use super::{Assumption, Unlisted};

/// What was assumed so far; the position is the bit in the masks of [`Truth::on`].
#[derive(Default)]
pub(super) struct Register(pub(super) Vec<(Key, Assumption)>);

/// What an assumption is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Msr(u32),
    Microcode,
    Cmdline,
    Config(&'static str),
    Words(&'static str),
}

impl Register {
    /// The bit of an assumption, which is noted if it is new. All beyond the 63rd share the last bit.
    fn note(&mut self, key: Key, make: impl FnOnce() -> Assumption) -> u64 {
        let found = self.0.iter().position(|(other, _)| *other == key);
        let index = found.unwrap_or_else(|| {
            self.0.push((key, make()));
            self.0.len() - 1
        });
        1 << index.min(63)
    }

    /// Notes words of a rule that nothing in a capture decides.
    pub(super) fn note_words(&mut self, words: &'static str, holds: bool, because: &'static str) -> u64 {
        self.note(Key::Words(words), || Assumption {
            what: Cow::Borrowed(words),
            value: Cow::Borrowed(if holds { "yes" } else { "no" }),
            because,
            hangs: Vec::new(),
        })
    }
}

/// Options that the distribution's kernel of a tree leaves out (its cloud image's configuration).
const LEFT_OUT: [(&str, &str); 6] = [
    ("X86_5LEVEL", "5.10"),
    ("X86_5LEVEL", "5.10.262"),
    ("X86_KERNEL_IBT", "6.1"),
    ("X86_KERNEL_IBT", "6.1.192"),
    ("INTEL_TDX_HOST", "7.1.13"),
    ("INTEL_TDX_HOST", "7.3"),
];

/// What an MSR that nobody read is taken to be: `None` if reading it would fault.
struct Guess {
    value: Option<u64>,
    because: &'static str,
}

impl Boot<'_> {
    /// An MSR, and the assumption on which its value rests; `None` if reading it faults.
    pub(super) fn msr(&mut self, index: u32) -> (Option<u64>, u64) {
        match self.input.msrs.state(MsrBit { index, bit: 0 }) {
            State::Unknown => {}
            State::Unreadable => return (None, 0),
            _ => return (self.input.msrs.get(index), 0),
        }
        if self.input.unlisted == Unlisted::Zero {
            return (Some(0), 0);
        }
        let Guess { value, because } = self.guess(index);
        let on = self.assumptions.note(Key::Msr(index), || Assumption {
            what: Cow::Owned(msr_name(index)),
            value: value.map_or(Cow::Borrowed("not readable"), |value| Cow::Owned(hexadecimal(value))),
            because,
            hangs: Vec::new(),
        });
        (value, on)
    }

    /// Whether an emulator answers zero for this MSR whatever was written to it.
    pub(super) fn loses_writes(&self, index: u32) -> bool {
        let listed = self.input.msrs.state(MsrBit { index, bit: 0 }) != State::Unknown;
        self.input.unlisted == Unlisted::Zero && !listed
    }

    /// An MSR's value as `rdmsrl_safe` leaves it: zero if reading it faults.
    pub(super) fn msr_or_zero(&mut self, index: u32) -> (u64, u64) {
        let (value, on) = self.msr(index);
        (value.unwrap_or(0), on)
    }

    fn guess(&self, index: u32) -> Guess {
        let vm = self.is_vm();
        let yes = |value: u64, because| Guess { value: Some(value), because };
        match index {
            0x1a0 => yes(1, "firmware and hypervisors switch fast strings on"),
            0x3a if self.has("SGX") && !vm => yes(0x6_0005, "firmware locks it with VMX and SGX allowed"),
            0x3a => yes(5, "firmware locks it with VMX allowed outside SMX"),
            0xce | 0x140 if self.kvm_base.is_some() => yes(1 << 31, "KVM emulates faults of CPUID"),
            0xce | 0x140 if !vm && self.family == 6 && self.model >= 0x3a => {
                yes(1 << 31, "Intel CPUs from Ivy Bridge on can make CPUID fault")
            }
            0x140 => Guess { value: None, because: "this CPU or hypervisor does not have it" },
            0xcf if !vm && self.has("CORE_CAPABILITIES") => yes(1 << 5, "CPUs that have it detect split locks"),
            0x481..=0x491 if !vm || self.has("VMX") => yes(u64::MAX, "current CPUs have these VMX controls"),
            0xc001_1020 if self.kvm_base.is_some() => Guess { value: None, because: "KVM refuses to read it" },
            0xc001_0010 if !vm => yes(1 << 23, "firmware of servers that can encrypt memory allows it"),
            0xc001_0015 if !vm => yes(1, "firmware locks SMM"),
            _ => yes(0, "no bit of it is set on most machines"),
        }
    }

    /// The microcode revision as the kernel reads it, and the assumption on which it rests.
    pub(super) fn microcode(&mut self) -> (u64, u64) {
        let (msr, low) = (0x8b, matches!(self.vendor, Vendor::Amd | Vendor::Hygon));
        let read = self.input.msrs.get(msr).map(|value| if low { value & 0xffff_ffff } else { value >> 32 });
        if let Some(revision) = read.or(self.input.microcode) {
            return (revision, 0);
        }
        if self.input.unlisted == Unlisted::Zero {
            return (0, 0);
        }
        let vm = self.is_vm();
        let (revision, because) = match (vm, low) {
            (true, true) => (0x0100_0065, "what QEMU tells AMD guests"),
            (true, false) => (1, "what QEMU tells Intel guests"),
            (false, _) => (u64::from(u32::MAX) >> 1, "the newest microcode is taken to be loaded"),
        };
        let on = self.assumptions.note(Key::Microcode, || Assumption {
            what: Cow::Borrowed("microcode revision"),
            value: if vm { Cow::Owned(hexadecimal(revision)) } else { Cow::Borrowed("current") },
            because,
            hangs: Vec::new(),
        });
        (revision, on)
    }

    /// A parameter of the kernel's command line.
    pub(super) fn param(&mut self, words: &str) -> Truth {
        Truth { holds: self.cmdline.given(words), on: self.note_cmdline() }
    }

    /// Notes, if the command line was not seen, that it was taken to say nothing about CPUs.
    pub(super) fn note_cmdline(&mut self) -> u64 {
        if self.cmdline.seen {
            return 0;
        }
        self.assumptions.note(Key::Cmdline, || Assumption {
            what: Cow::Borrowed("kernel command line"),
            value: Cow::Borrowed("nothing that changes CPU features"),
            because: "distributions boot without such parameters",
            hangs: Vec::new(),
        })
    }

    /// A kernel option; `y` and `m` are on.
    pub(super) fn config(&mut self, option: &'static str) -> Truth {
        /// Options that distribution kernels for x86-64 leave out.
        const OFF: [&str; 1] = ["X86_32"];
        if OFF.contains(&option) {
            return Truth::seen(false);
        }
        if let Some(config) = self.input.config {
            let value = config.get(&["CONFIG_", option].concat());
            return Truth::seen(value.is_some_and(|value| value == "y" || value == "m"));
        }
        let label = TREES.get(own::compiled(self.tree)).map_or("", |tree| tree.label);
        let holds = !LEFT_OUT.contains(&(option, label));
        let on = self.assumptions.note(Key::Config(option), || Assumption {
            what: Cow::Owned(["CONFIG_", option].concat()),
            value: Cow::Borrowed(if holds { "y" } else { "n" }),
            because: if holds {
                "distribution kernels have it"
            } else {
                "Debian's kernel of this release leaves it out"
            },
            hangs: Vec::new(),
        });
        Truth { holds, on }
    }
}
