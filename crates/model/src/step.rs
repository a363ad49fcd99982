//! What a stage did to a feature, by which rule, and why.

use std::borrow::Cow;
use std::fmt;

use crate::{CpuidBit, Grounds, Place, digits};

/// The six sieves, in machine order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// The CPU itself, with its microcode and firmware locks.
    Silicon,
    /// The host's Linux kernel.
    Host,
    /// KVM on the host.
    Kvm,
    /// QEMU, or whatever VMM stands in its place.
    Qemu,
    /// The vCPU that executes CPUID.
    Vcpu,
    /// The guest's Linux kernel.
    Guest,
}

impl Stage {
    /// All stages, in machine order.
    pub const ALL: [Self; 6] = [Self::Silicon, Self::Host, Self::Kvm, Self::Qemu, Self::Vcpu, Self::Guest];

    /// The word of the command line and the JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Silicon => "silicon",
            Self::Host => "host",
            Self::Kvm => "kvm",
            Self::Qemu => "qemu",
            Self::Vcpu => "vcpu",
            Self::Guest => "guest",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a stage did to a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// It came in and went out.
    Kept,
    /// It came in and did not go out.
    Dropped,
    /// It did not come in and went out.
    Added,
    /// It goes out whatever came in.
    Forced,
    /// What is known does not decide it.
    Unknown,
}

impl Effect {
    /// The word of the JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Dropped => "dropped",
            Self::Added => "added",
            Self::Forced => "forced",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The identity of a rule: three capital letters for the software and four digits. Never used twice for two rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub &'static str);

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Where the real software does it: `arch/x86/kvm/cpuid.c:kvm_set_cpu_caps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cite(pub &'static str);

impl Cite {
    /// The file, relative to the root of the source tree.
    #[must_use]
    pub fn file(self) -> &'static str {
        self.0.split_once(':').map_or(self.0, |(file, _)| file)
    }

    /// The function (or table) in that file.
    #[must_use]
    pub fn function(self) -> &'static str {
        self.0.split_once(':').map_or("", |(_, function)| function)
    }
}

impl fmt::Display for Cite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// A value that was seen and on which a step rests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// A flags line prints a name, or does not.
    Flag {
        /// Whose line: `host`, `guest`.
        of: &'static str,
        /// The name.
        name: Cow<'static, str>,
        /// Whether it is printed.
        printed: bool,
    },
    /// A bit of a register was seen.
    Register {
        /// Whose register: `host`, `guest`.
        of: &'static str,
        /// Who answered: `CPUID`, `KVM_GET_SUPPORTED_CPUID`.
        answer: &'static str,
        /// The bit.
        bit: CpuidBit,
        /// The register's value; `None` if the leaf is not there.
        value: Option<u32>,
    },
    /// A line of a kernel command line or configuration.
    Setting {
        /// Where: `kernel command line`.
        source: &'static str,
        /// The line.
        text: String,
    },
}

impl Evidence {
    /// Where it was seen: `guest's flags`, `host's KVM_GET_SUPPORTED_CPUID`.
    #[must_use]
    pub fn source(&self) -> String {
        let mut text = String::new();
        self.append_source(&mut text);
        text
    }

    /// What was seen: `no acpi`, `1.EDX = 0x178bfbff, bit 22 is 0`.
    #[must_use]
    pub fn value(&self) -> String {
        let mut text = String::new();
        self.append_value(&mut text);
        text
    }

    /// Adds [`Evidence::source`] to a text.
    pub fn append_source(&self, text: &mut String) {
        match self {
            Self::Flag { of, .. } => [of, "'s flags"].iter().for_each(|part| text.push_str(part)),
            Self::Register { of, answer, .. } => [of, "'s ", answer].iter().for_each(|part| text.push_str(part)),
            Self::Setting { source, .. } => text.push_str(source),
        }
    }

    /// Adds [`Evidence::value`] to a text.
    pub fn append_value(&self, text: &mut String) {
        match self {
            Self::Flag { name, printed, .. } => {
                text.push_str(if *printed { "" } else { "no " });
                text.push_str(name);
            }
            Self::Register { bit, value, .. } => {
                // A text takes everything.
                let _ = write_register(text, *bit, *value);
            }
            Self::Setting { text: line, .. } => text.push_str(line),
        }
    }
}

/// `1.EDX = 0x178bfbff, bit 22 is 0`
fn write_register(to: &mut impl fmt::Write, bit: CpuidBit, value: Option<u32>) -> fmt::Result {
    bit.write_register(to)?;
    let Some(value) = value else { return to.write_str(" is not there") };
    to.write_str(" = 0x")?;
    digits::lower_hex(to, value.into(), 8)?;
    to.write_str(", bit ")?;
    digits::decimal(to, bit.bit)?;
    to.write_str(if value >> bit.bit & 1 == 1 { " is 1" } else { " is 0" })
}

/// One decision: at this stage, this feature was kept, dropped, added, forced or left unknown, by this rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    /// The feature, in the kernel's lower case.
    pub feature: Cow<'static, str>,
    /// Its place, if it has one in this release.
    pub place: Option<Place>,
    /// The stage that decided.
    pub at: Stage,
    /// What it decided.
    pub effect: Effect,
    /// By which rule.
    pub rule: RuleId,
    /// Where that stands in the real software.
    pub cite: Cite,
    /// The captured values on which the decision rests; empty if it rests on the rule alone.
    pub because: Grounds,
}
