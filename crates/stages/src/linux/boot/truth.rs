//! Conditions of rules, decided on one boot: two values, and the assumptions on which the answer rests.

use cpusieve_knowledge::rules::{Condition, Field};

use super::program::Test;
use super::state::Boot;
use super::words::Decide;

/// Whether something holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Truth {
    pub(super) holds: bool,
    /// The assumptions on which that rests, one bit each; 0 if it is certain.
    pub(super) on: u64,
}

impl Truth {
    /// Certain, because all that decides was seen.
    pub(super) const fn seen(holds: bool) -> Self {
        Self { holds, on: 0 }
    }
}

impl Boot<'_> {
    /// Whether all conditions hold. A condition that certainly fails outweighs every assumption.
    pub(super) fn all(&mut self, needs: &'static [Test]) -> Truth {
        let mut on = 0;
        let mut failed_on = 0;
        let mut holds = true;
        self.open = false;
        for test in needs {
            let truth = self.test(test);
            match (truth.holds, truth.on) {
                (false, 0) => return Truth::seen(false),
                (false, assumed) => {
                    holds = false;
                    failed_on |= assumed;
                }
                (true, assumed) => on |= assumed,
            }
        }
        Truth { holds, on: if holds { on } else { failed_on } }
    }

    /// Decides one condition. Words that nothing decides leave the rule open, and the other conditions to decide.
    fn test(&mut self, test: &'static Test) -> Truth {
        let decided = match test.words {
            Decide::Unknown => None,
            Decide::Perhaps(decide) => decide(self),
            _ => Some(self.condition(test)),
        };
        let Some(truth) = decided else {
            self.open = true;
            return Truth::seen(true);
        };
        Truth { holds: truth.holds != test.need.negated, on: truth.on }
    }

    fn condition(&mut self, test: &'static Test) -> Truth {
        match test.need.condition {
            Condition::Cpuid(bit) => Truth::seen(self.cpuid_bit(bit)),
            Condition::Flag(_) => self.capability(test.flag),
            Condition::Msr(bit) => {
                let (value, on) = self.msr(bit.index);
                Truth { holds: value.is_some_and(|value| value >> bit.bit & 1 == 1), on }
            }
            Condition::MsrReadable(index) => {
                let (value, on) = self.msr(index);
                Truth { holds: value.is_some(), on }
            }
            Condition::Vendor(vendors) => Truth::seen(vendors.contains(&self.vendor)),
            Condition::Vm => Truth::seen(self.is_vm()),
            Condition::Hypervisor(name) => Truth::seen(self.hypervisor(name)),
            Condition::Family(first, last) => Truth::seen((first..=last).contains(&self.family)),
            Condition::Signature(signatures) => {
                let (family, model, stepping) = (self.family, self.model, Some(self.stepping));
                Truth::seen(signatures.iter().any(|signature| signature.matches(family, model, stepping) == Some(true)))
            }
            Condition::Field(field) => Truth::seen(self.field(field)),
            Condition::MicrocodeBelow(revision) => {
                let (seen, on) = self.microcode();
                Truth { holds: seen < revision, on }
            }
            Condition::Bug(name) => self.bug_shown(name),
            Condition::Param(words) => self.param(words),
            Condition::Config(option) => self.config(option),
            Condition::Model(_) | Condition::Other(_) => match test.words {
                Decide::Normally(holds) => Truth::seen(*holds),
                &Decide::Assumed(what, holds, because) => {
                    Truth { holds, on: self.assumptions.note_words(what, holds, because) }
                }
                Decide::By(decide) => decide(self),
                Decide::Perhaps(_) | Decide::Unknown => Truth::seen(true),
            },
        }
    }

    /// A capability, with the assumptions on which it hangs itself.
    fn capability(&self, number: u16) -> Truth {
        Truth { holds: self.caps.has(number), on: self.hangs(number) }
    }

    fn field(&self, field: Field) -> bool {
        if !self.has_leaf(field.low.leaf) {
            return false;
        }
        let mask = u32::MAX.checked_shr(32 - u32::from(field.width)).unwrap_or(0);
        let value = self.cpuid(field.low.leaf, field.low.subleaf).get(field.low.register) >> field.low.bit & mask;
        if field.exactly { value == field.number } else { value >= field.number }
    }

    /// `init_hypervisor_platform`: the signature counts only if the hypervisor bit is there.
    fn hypervisor(&self, name: &str) -> bool {
        let signature = |base: u32| {
            let leaf = self.cpuid(base, 0);
            [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes).concat()
        };
        let first = |wanted: &[u8]| self.is_vm() && signature(0x4000_0000) == wanted;
        match name {
            "kvm" => self.kvm_base.is_some(),
            "hyperv" => first(b"Microsoft Hv") && self.kvm_base.is_none(),
            "vmware" => first(b"VMwareVMware"),
            "xen" => first(b"XenVMMXenVMM"),
            "jailhouse" => first(b"Jailhouse\0\0\0"),
            _ => false,
        }
    }
}
