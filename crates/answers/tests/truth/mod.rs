//! The sieve that took or added a flag, read off the tables of a whole prediction without the pipeline: the first whose
//! output lacks the bit, or makes the rule false by which the kernel derives the flag.

use cpusieve_answers::predict::kvm::KvmPrediction;
use cpusieve_answers::predict::way::GuestPrediction;
use cpusieve_knowledge::linux;
use cpusieve_knowledge::rules::{self, Condition, Field, Need, Rule, RuleEffect, Software};
use cpusieve_model::{Cpu, CpuidBit, CpuidTable, MsrBit, Place, Stage};
use cpusieve_stages::vcpu::guest;

/// KVM sets these in the running guest, if the guest's kernel asks for them.
const RUNTIME: [&str; 2] = ["osxsave", "ospke"];

/// SYSCALL: 80000001H.EDX\[11\], which CPUID shows in 64-bit mode alone.
const SYSCALL: (u32, u32) = (0x8000_0001, 1 << 11);

/// How deep one flag may follow from another.
const DEPTH: u8 = 6;

/// What each sieve of one prediction let through.
pub(crate) struct Truth<'a> {
    found: &'a GuestPrediction,
    kvm: &'a KvmPrediction,
    silicon: &'a Cpu,
    offered: CpuidTable,
    given: CpuidTable,
    tree: usize,
}

fn has(table: &CpuidTable, bit: CpuidBit) -> bool {
    table.get(bit.leaf, bit.subleaf).is_some_and(|registers| registers.get(bit.register) >> bit.bit & 1 == 1)
}

fn compares(table: &CpuidTable, field: Field) -> bool {
    let within = table.get(field.low.leaf & 0xffff_0000, 0).is_some_and(|first| first.eax >= field.low.leaf);
    let Some(registers) = table.get(field.low.leaf, field.low.subleaf).filter(|_| within) else { return false };
    let value = u64::from(registers.get(field.low.register)) >> field.low.bit & ((1 << field.width) - 1);
    if field.exactly { value == u64::from(field.number) } else { value >= u64::from(field.number) }
}

impl<'a> Truth<'a> {
    pub(crate) fn new(found: &'a GuestPrediction, silicon: &'a Cpu) -> Self {
        let kvm = found.vcpu.kvm.as_ref().unwrap();
        let offered = kvm.view.supported_table().unwrap();
        Self { found, kvm, silicon, offered, given: guest::table(&found.vcpu.qemu.cpuid), tree: found.guest.tree }
    }

    fn silicon_has(&self, bit: CpuidBit) -> bool {
        let is_syscall = (bit.leaf, 1 << bit.bit) == SYSCALL && bit.register == cpusieve_model::Register::Edx;
        has(&self.silicon.cpuid, bit) || is_syscall
    }

    fn place(&self, flag: &str) -> Option<Place> {
        linux::feature_by_id(self.tree, flag).and_then(|row| linux::place(self.tree, row))
    }

    /// The sieve that took a flag which the host shows.
    pub(crate) fn lost(&self, flag: &str) -> Option<Stage> {
        self.lost_at_depth(flag, 0)
    }

    fn lost_at_depth(&self, flag: &str, depth: u8) -> Option<Stage> {
        if RUNTIME.contains(&flag) {
            return Some(Stage::Vcpu);
        }
        let bit = self.place(flag)?.cpuid();
        if let Some(bit) = bit.filter(|bit| self.silicon_has(*bit)) {
            return Some(self.bit(bit).unwrap_or(Stage::Guest));
        }
        let rules = rules::of_feature(Software::Linux, flag)
            .filter(|rule| rule.trees.contains(self.tree) && rule.effect != RuleEffect::Clears)
            .filter(|rule| self.held_on_host(rule));
        rules.map(|rule| self.rule(rule, depth)).max()
    }

    /// The sieve that added a flag which the host does not show; `None` where Linux derives it, and where the CPU has the
    /// bit and the host's kernel does not show it.
    pub(crate) fn gained(&self, flag: &str) -> Option<Stage> {
        if RUNTIME.contains(&flag) {
            return Some(Stage::Vcpu);
        }
        let bit = self.place(flag)?.cpuid()?;
        match (self.silicon_has(bit), has(&self.offered, bit), has(&self.given, bit)) {
            (_, _, false) => Some(Stage::Guest),
            (true, true, true) => None,
            (false, true, true) => Some(Stage::Kvm),
            (_, false, true) => Some(Stage::Qemu),
        }
    }

    /// The first output that lacks a bit.
    fn bit(&self, bit: CpuidBit) -> Option<Stage> {
        let outputs = [(Stage::Kvm, &self.offered), (Stage::Qemu, &self.given), (Stage::Vcpu, &self.found.cpuid)];
        outputs.into_iter().find(|(_, table)| !has(table, bit)).map(|(stage, _)| stage)
    }

    /// Whether the host may have the flag by this rule; what only words say is taken to hold.
    fn held_on_host(&self, rule: &Rule) -> bool {
        let table = &self.silicon.cpuid;
        let boot = &self.kvm.host.boot;
        rule.needs.iter().all(|need| {
            let holds = match need.condition {
                Condition::Cpuid(bit) => self.silicon_has(bit),
                Condition::Field(field) => compares(table, field),
                Condition::Flag(flag) => boot.flags.contains(&flag) || boot.hidden.contains(&flag),
                Condition::Msr(bit) => match self.silicon.msrs.get(bit.index) {
                    Some(value) => value >> bit.bit & 1 == 1,
                    None => return true,
                },
                Condition::Config("X86_32") => false,
                _ => match self.of_machine(need, table) {
                    Some(holds) => holds,
                    None => return true,
                },
            };
            holds != need.negated
        })
    }

    /// What a machine's CPUID says of who it is; `None` for all other conditions.
    fn of_machine(&self, need: &Need, table: &CpuidTable) -> Option<bool> {
        let (family, model, stepping) = table.signature().unwrap_or_default();
        Some(match need.condition {
            Condition::Vendor(vendors) => table.vendor().is_some_and(|vendor| vendors.contains(&vendor)),
            Condition::Family(first, last) => (first..=last).contains(&family),
            Condition::Signature(known) => {
                known.iter().any(|known| known.matches(family, model, Some(stepping)) == Some(true))
            }
            Condition::Vm => table.get(1, 0).is_some_and(|leaf| leaf.ecx >> 31 == 1),
            Condition::Hypervisor(name) => {
                let signature = table.hypervisor_signature().unwrap_or_default();
                name == "kvm" && signature.starts_with("KVMKVMKVM")
            }
            _ => return None,
        })
    }

    /// The first output that makes a rule false; the guest's kernel, if it is not what the output lacks.
    fn rule(&self, rule: &Rule, depth: u8) -> Stage {
        let mut first = None;
        for need in rule.needs {
            let at = match self.need(need, depth) {
                Some(Stage::Guest) => return Stage::Guest,
                at => at,
            };
            first = match (first, at) {
                (Some(first), Some(at)) => Some(at.min(first)),
                (first, at) => first.or(at),
            };
        }
        first.unwrap_or(Stage::Guest)
    }

    /// The sieve that makes a condition fail; `None` if it holds, or only words say.
    fn need(&self, need: &Need, depth: u8) -> Option<Stage> {
        if let Some(holds) = self.of_machine(need, &self.found.cpuid) {
            return (holds == need.negated).then_some(Stage::Guest);
        }
        let boot = &self.found.guest.boot;
        let (holds, at) = match need.condition {
            Condition::Cpuid(bit) => (has(&self.found.cpuid, bit), self.bit(bit)),
            Condition::Field(field) => {
                let outputs = [(Stage::Kvm, &self.offered), (Stage::Qemu, &self.given)];
                let lacks = outputs.into_iter().find(|(_, table)| !compares(table, field));
                (compares(&self.found.cpuid, field), lacks.map(|(stage, _)| stage))
            }
            Condition::Flag(flag) if depth < DEPTH => {
                let holds = boot.flags.contains(&flag) || boot.hidden.contains(&flag);
                (holds, if holds { None } else { self.lost_at_depth(flag, depth + 1) })
            }
            Condition::Msr(bit) => self.msr(bit)?,
            _ => return None,
        };
        match (holds == need.negated, need.negated) {
            (false, _) => None,
            (true, true) => Some(Stage::Guest),
            (true, false) => Some(at.unwrap_or(Stage::Guest)),
        }
    }

    /// Whether a guest reads a bit of an MSR as set, and the sieve that lacks it: those that KVM and QEMU hand on are the
    /// feature MSRs. `None` if nobody knows the value that KVM offers.
    fn msr(&self, bit: MsrBit) -> Option<(bool, Option<Stage>)> {
        let set = |value: u64| value >> bit.bit & 1 == 1;
        let ours = guest::msrs(&self.found.vcpu.qemu.msrs, false);
        // QEMU writes the registers of what may really be chosen, and KVM makes those of older CPUs of them.
        let written = if (0x481..=0x484).contains(&bit.index) { bit.index + 0xc } else { bit.index };
        let reads = ours.get(written).is_some_and(set);
        let offered = self.kvm.msr_features.iter().find(|(index, _)| *index == bit.index);
        let at = match offered {
            Some((_, Some(value))) if !set(*value) => Some(Stage::Kvm),
            Some((_, Some(_))) => Some(Stage::Qemu),
            Some((_, None)) => return None,
            None => None,
        };
        Some((reads, at))
    }
}
