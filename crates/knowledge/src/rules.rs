//! The hand-written half of the knowledge: what a kernel, KVM or QEMU does to a feature, by which rule, and why.
//!
//! The rules stand in `knowledge/rules/*.toml`; `docs/rules.md` is their schema.

use cpusieve_model::{Cite, CpuidBit, MsrBit, RuleId, Vendor};

use crate::slots::Slots;
use crate::{RuleTrees, TreeSet};

/// Whose behaviour a rule describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Software {
    /// No software: the CPU, its microcode, its firmware.
    Silicon,
    /// The Linux kernel, on the host and in the guest alike.
    Linux,
    /// KVM.
    Kvm,
    /// QEMU.
    Qemu,
    /// Firecracker.
    Firecracker,
    /// Cloud Hypervisor.
    CloudHypervisor,
}

/// What a rule does to its features when its conditions hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleEffect {
    /// The feature is set.
    Sets,
    /// The feature is cleared, with all that depends on it.
    Clears,
    /// The feature is set and stays so, whatever clears it.
    Forces,
}

/// One condition of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// This CPUID bit is set.
    Cpuid(CpuidBit),
    /// The kernel has this capability, printed or hidden.
    Flag(&'static str),
    /// This MSR is readable and the bit is set.
    Msr(MsrBit),
    /// The vendor is one of these.
    Vendor(&'static [Vendor]),
    /// CPUID says that this is a guest (1.ECX\[31\]).
    Vm,
    /// The hypervisor's signature is this one: `kvm`, `hyperv`, `vmware`, `xen`, `jailhouse`.
    Hypervisor(&'static str),
    /// The display family lies in this range, ends included.
    Family(u32, u32),
    /// Family, model and stepping are one of these.
    Signature(&'static [Signature]),
    /// Something about family, model and stepping, in words for people.
    Model(&'static str),
    /// A field of CPUID compares so with a number, and its leaf lies within the announced maximum.
    Field(Field),
    /// Reading this MSR does not fault.
    MsrReadable(u32),
    /// The microcode revision is below this one.
    MicrocodeBelow(u64),
    /// The kernel has this bug flag.
    Bug(&'static str),
    /// This kernel or module parameter was given, in words.
    Param(&'static str),
    /// This kernel option is on, without `CONFIG_`.
    Config(&'static str),
    /// Anything else, in words.
    Other(&'static str),
}

/// A family, a range of models and a range of steppings, ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The display family.
    pub family: u32,
    /// The display models.
    pub models: (u32, u32),
    /// The steppings.
    pub steppings: (u32, u32),
}

impl Signature {
    /// Whether a CPU is one of these; `None` if its stepping is not known and decides.
    #[must_use]
    pub fn matches(&self, family: u32, model: u32, stepping: Option<u32>) -> Option<bool> {
        if family != self.family || model < self.models.0 || model > self.models.1 {
            return Some(false);
        }
        if self.steppings == (0, u32::MAX) {
            return Some(true);
        }
        stepping.map(|stepping| self.steppings.0 <= stepping && stepping <= self.steppings.1)
    }
}

/// A comparison of a field of CPUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The lowest bit of the field.
    pub low: CpuidBit,
    /// How many bits it has.
    pub width: u8,
    /// Whether the field must equal the number; otherwise it must be at least as large.
    pub exactly: bool,
    /// The number.
    pub number: u32,
}

/// A condition or its negation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Whether the condition must not hold.
    pub negated: bool,
    /// The condition.
    pub condition: Condition,
}

/// Where a remedy takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RemedyKind {
    /// QEMU's command line: `-cpu`, `-overcommit`.
    Qemu,
    /// The machine type.
    Machine,
    /// A parameter of the kvm modules.
    Module,
    /// Another kernel release, option or command line.
    Kernel,
    /// The firmware's set-up.
    Firmware,
    /// Another CPU.
    Hardware,
    /// There is none.
    None,
}

impl RemedyKind {
    /// The word of the JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Machine => "machine",
            Self::Module => "module",
            Self::Kernel => "kernel",
            Self::Firmware => "firmware",
            Self::Hardware => "hardware",
            Self::None => "none",
        }
    }
}

/// What brings a feature back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// Where.
    pub kind: RemedyKind,
    /// What to do, in words.
    pub text: &'static str,
    /// The argument of QEMU's `-cpu`, where that is the remedy.
    pub cpu: Option<&'static str>,
}

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its identity, never reused.
    pub id: RuleId,
    /// Whose behaviour it is.
    pub software: Software,
    /// The features it is about; empty for a generic rule, which `when` then names.
    pub features: &'static [&'static str],
    /// The situation of a generic rule: `masked-always`, `unnamed`.
    pub when: Option<&'static str>,
    /// The situation in which this rule's remedy replaces the general one (`hybrid`), if it is not general.
    pub only: Option<&'static str>,
    /// What it does.
    pub effect: RuleEffect,
    /// The kernel trees, or releases of the VMM, for which it holds.
    pub trees: RuleTrees,
    /// All that must hold.
    pub needs: &'static [Need],
    /// Where it stands in the real software.
    pub cite: Cite,
    /// What it is about, in a few words.
    pub title: &'static str,
    /// Why the features are then set or cleared.
    pub cause: &'static str,
    /// What brings the features back when this rule took them.
    pub remedy: Option<Remedy>,
}

/// What a condition in KVM's code (`if (...) kvm_cpu_cap_clear(...)`) hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvmCondition {
    /// Its identity, never reused.
    pub id: RuleId,
    /// The C expressions that mean it, as the importer writes them.
    pub c: &'static [&'static str],
    /// The kernel trees for which this block speaks.
    pub trees: RuleTrees,
    /// Whether it holds on no machine, because these kernels are built without what it asks for.
    pub never: bool,
    /// Where it stands.
    pub cite: Cite,
    /// What it is about, in a few words.
    pub title: &'static str,
    /// What it hangs on, in words.
    pub cause: &'static str,
    /// The module parameter, hardware or kernel that makes it come out right.
    pub remedy: Option<Remedy>,
}

include!(concat!(env!("OUT_DIR"), "/rules.rs"));

/// The rule with this identity.
#[must_use]
pub fn rule(id: &str) -> Option<&'static Rule> {
    RULES_SLOTS.find(id, |position| RULES.get(position).map(|rule| rule.id.0)).and_then(|index| RULES.get(index))
}

/// The rules about a feature, in order of identity.
pub fn of_feature(software: Software, feature: &str) -> impl Iterator<Item = &'static Rule> {
    let found = BY_FEATURE_SLOTS.find(feature, |position| BY_FEATURE.get(position).map(|(name, _)| *name));
    let indices = found.map_or(&[][..], |index| BY_FEATURE[index].1);
    indices.iter().map(|&index| &RULES[usize::from(index)]).filter(move |rule| rule.software == software)
}

/// The features of which rules speak by name, each with these rules in order of identity.
pub fn by_feature() -> impl Iterator<Item = (&'static str, impl Iterator<Item = &'static Rule> + Clone)> {
    let rule = |index: &u16| RULES.get(usize::from(*index));
    BY_FEATURE.iter().map(move |(name, indices)| (*name, indices.iter().filter_map(rule)))
}

/// The functions of Linux that rules cite, each with the positions of these rules in [`RULES`], in order.
#[must_use]
pub fn functions() -> &'static [(&'static str, &'static [u16])] {
    BY_FUNCTION
}

/// The position of a function in [`functions`].
#[must_use]
pub fn function(name: &str) -> Option<usize> {
    BY_FUNCTION_SLOTS.find(name, |position| BY_FUNCTION.get(position).map(|(function, _)| *function))
}

/// The generic rule of a situation.
#[must_use]
pub fn generic(software: Software, when: &str) -> Option<&'static Rule> {
    let start = BY_WHEN_SLOTS.find(when, |position| BY_WHEN.get(position).map(|(other, ..)| *other))?;
    let same = BY_WHEN.get(start..).unwrap_or(&[]).iter().take_while(|(other, ..)| *other == when);
    let index = same.into_iter().find(|(_, of, _)| *of == software).map(|(.., index)| *index)?;
    RULES.get(usize::from(index))
}

/// What this C expression hangs on in this kernel tree.
#[must_use]
pub fn kvm_condition(c: &str, tree: usize) -> Option<&'static KvmCondition> {
    let means = |condition: &&KvmCondition| condition.c.contains(&c);
    let here = KVM_CONDITIONS.iter().filter(means).find(|condition| condition.trees.contains(tree));
    here.or_else(|| KVM_CONDITIONS.iter().find(means))
}

/// The condition with this identity.
#[must_use]
pub fn condition(id: &str) -> Option<&'static KvmCondition> {
    KVM_CONDITIONS.binary_search_by(|condition| condition.id.0.cmp(id)).ok().map(|index| &KVM_CONDITIONS[index])
}
