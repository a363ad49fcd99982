//! What the accelerator supports of each feature word, as QEMU sees it (`target/i386/kvm/kvm.c`,
//! `target/i386/cpu.c:x86_cpu_get_supported_feature_word`).

use cpusieve_knowledge::qemu::{self, Condition, Fixup, FixupEffect, WORD_COUNT, WORD_ORDER, Word};
use cpusieve_model::{Place, Register};

use super::cpu::{Irqchip, Question};
use super::host::Host;
use super::program::Program;
use super::properties::Properties;
use super::release;
use super::words::{FEAT_8000_0007_EDX, W, Words};

/// The VMX control MSRs whose halves say which bits may be 1 and which must be.
const VMX_CONTROLS: [u32; 5] = [0x48b, 0x48d, 0x48e, 0x48f, 0x490];

/// MDS_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO and PSDP_NO of IA32_ARCH_CAPABILITIES.
const IMMUNE_TO_STALE_DATA: u64 = 1 << 5 | 1 << 8 | 1 << 13 | 1 << 14 | 1 << 15;

/// What the accelerator answers for one virtual machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer<'a> {
    pub question: Question<'a>,
    pub host: Host<'a>,
}

impl<'a> Offer<'a> {
    pub(super) fn of(question: Question<'a>) -> Self {
        Self { question, host: Host::of(&question) }
    }

    /// `kvm_arch_get_supported_cpuid`: KVM's answer with QEMU's changes; zero under TCG.
    pub(super) fn kvm_arch_get_supported_cpuid(&self, leaf: u32, subleaf: u32, register: Register) -> u32 {
        let offered = self.host.offered(leaf, subleaf, register);
        let word = Word::Cpuid { leaf, subleaf, register };
        if self.host.kvm().is_none() {
            return 0;
        }
        self.fixed_up(word, u64::from(offered)) as u32
    }

    /// `kvm_arch_get_supported_msr_feature`: zero if KVM does not list the MSR among its features. Of a VMX control the
    /// bits that may be 1 and may be 0.
    pub(super) fn kvm_arch_get_supported_msr_feature(&self, index: u32) -> u64 {
        let features = self.host.kvm().and_then(|kvm| kvm.msr_features.as_ref());
        let Some(&value) = features.and_then(|features| features.get(&index)) else { return 0 };
        let word = Word::Msr { index };
        if !VMX_CONTROLS.contains(&index) {
            return self.fixed_up(word, value);
        }
        // The table names the bits of the feature word; KVM's value has them in its high half.
        let may_be_one = self.fixed_up(word, value >> 32);
        may_be_one & !value & u64::from(u32::MAX)
    }

    /// The changes that `kvm_arch_get_supported_*` make, in the order of the code.
    fn fixed_up(&self, word: Word, value: u64) -> u64 {
        let made_in_kvm = |fixup: &&Fixup| !made_in_cpu(fixup);
        qemu::word_fixups(self.question.release, word)
            .filter(made_in_kvm)
            .fold(value, |value, fixup| self.apply(fixup, value, None))
    }

    /// `x86_cpu_get_supported_feature_word` without a CPU, for every word: what filtering compares with.
    pub(super) fn words(&self, program: &Program) -> Words {
        let mut words = [0; WORD_COUNT];
        for (position, (slot, word)) in words.iter_mut().zip(WORD_ORDER).enumerate() {
            if program.has(W(position)) {
                *slot = self.feature_word(program, W(position), word, None);
            }
        }
        words
    }

    fn feature_word(&self, program: &Program, at: W, word: Word, cpu: Option<&Properties<'_>>) -> u64 {
        let value = match (self.host.kvm(), word) {
            (None, _) => program.tcg(at),
            (Some(_), Word::Cpuid { leaf, subleaf, register }) => {
                u64::from(self.kvm_arch_get_supported_cpuid(leaf, subleaf, register))
            }
            (Some(_), Word::Msr { index }) => self.kvm_arch_get_supported_msr_feature(index),
        };
        program.cpu_fixups(at).iter().fold(value, |value, fixup| self.apply(fixup, value, cpu))
    }

    /// What the accelerator itself offers of a word, before QEMU changes anything. Of a VMX control the bits that may be
    /// 1 and may be 0.
    pub(super) fn offered(&self, program: &Program, at: W) -> u64 {
        let Some(kvm) = self.host.kvm() else { return program.tcg(at) };
        match WORD_ORDER.get(at.0) {
            Some(&Word::Cpuid { leaf, subleaf, register }) => u64::from(self.host.offered(leaf, subleaf, register)),
            Some(&Word::Msr { index }) => {
                let value = kvm.msr_features.as_ref().and_then(|features| features.get(&index)).copied().unwrap_or(0);
                if VMX_CONTROLS.contains(&index) { value >> 32 & !value & u64::from(u32::MAX) } else { value }
            }
            None => 0,
        }
    }

    /// `x86_cpu_get_supported_feature_word` for a CPU: what `host` and `max` turn on, out of the words that filtering
    /// compares with.
    pub(super) fn for_cpu(&self, program: &Program, words: &Words, cpu: &Properties<'_>) -> Words {
        let mut own = *words;
        for (position, slot) in own.iter_mut().enumerate() {
            let at = W(position);
            *slot = program.cpu_fixups(at).iter().fold(*slot, |value, fixup| self.apply(fixup, value, Some(cpu)));
            if cpu.migratable {
                *slot &= self.migratable(program, at, cpu);
            }
        }
        own
    }

    /// `x86_cpu_get_migratable_flags`: since 8.0 an explicit `tsc-frequency` makes the invariant TSC migratable.
    fn migratable(&self, program: &Program, at: W, cpu: &Properties<'_>) -> u64 {
        let explicit = self.question.release >= release::V10_0 && cpu.tsc_frequency >= 1000;
        let invtsc = if explicit && at == FEAT_8000_0007_EDX { 1 << 8 } else { 0 };
        program.migratable(at) | invtsc
    }

    fn apply(&self, fixup: &Fixup, value: u64, cpu: Option<&Properties<'_>>) -> u64 {
        if !fixup.conditions.iter().all(|condition| self.holds(condition, fixup, value, cpu)) {
            return value;
        }
        match fixup.effect {
            FixupEffect::Adds => value | fixup.mask,
            FixupEffect::Removes => value & !fixup.mask,
            FixupEffect::Replaces => self.xcomp_guest_supp(fixup.word).unwrap_or(value),
        }
    }

    fn xcomp_guest_supp(&self, word: Word) -> Option<u64> {
        let components = self.host.kvm()?.xcomp_guest_supp?;
        match word {
            Word::Cpuid { register: Register::Eax, .. } => Some(components & u64::from(u32::MAX)),
            _ => Some(components >> 32),
        }
    }

    fn holds(&self, condition: &Condition, fixup: &Fixup, value: u64, cpu: Option<&Properties<'_>>) -> bool {
        match *condition {
            Condition::HostHasBit => self.host_word(fixup.word) & fixup.mask != 0,
            Condition::Supported(place) => self.supports(place),
            Condition::IrqchipInKernel(kernel) => (self.question.irqchip != Irqchip::Off) == kernel,
            Condition::IrqchipSplit => self.question.irqchip == Irqchip::Split,
            // Bit 0 of 143 (KVM_CAP_X86_DISABLE_EXITS) is MWAIT.
            Condition::Capability(143) => self.host.capability(143).unwrap_or(0) & 1 == 1,
            // The other capabilities that are asked for are as old as the oldest kernel that is known.
            Condition::Capability(number) => self.host.capability(number).unwrap_or(1) > 0,
            Condition::CpuPm(given) => self.question.cpu_pm == given,
            Condition::NotInMsrIndex(index) => !self.host.lists_msr(index),
            Condition::HaswellTsx => self.host_tsx_broken(),
            Condition::HostModel => cpu.is_some(),
            Condition::VendorAmd(amd) => cpu.is_some_and(|cpu| (cpu.vendor == *b"AuthenticAMD") == amd),
            Condition::NotPcMachine => !self.question.machine.is_pc(),
            Condition::ImmuneToStaleData => value & IMMUNE_TO_STALE_DATA == IMMUNE_TO_STALE_DATA,
            Condition::PropertyOff(name) => cpu.is_some_and(|cpu| cpu.boolean(name) == Some(false)),
        }
    }

    fn host_word(&self, word: Word) -> u64 {
        match word {
            Word::Cpuid { leaf, subleaf, register } => u64::from(self.host.cpuid(leaf, subleaf).get(register)),
            Word::Msr { .. } => 0,
        }
    }

    fn supports(&self, place: Place) -> bool {
        match place {
            Place::Cpuid(bit) => {
                self.kvm_arch_get_supported_cpuid(bit.leaf, bit.subleaf, bit.register) >> bit.bit & 1 == 1
            }
            _ => false,
        }
    }

    /// `host_tsx_broken`.
    fn host_tsx_broken(&self) -> bool {
        let (family, model, stepping) = self.host.signature();
        let haswell = matches!(model, 60 | 69 | 70) || model == 63 && stepping < 4;
        self.host.vendor() == *b"GenuineIntel" && family == 6 && haswell
    }
}

/// What filtering compares the feature words of a named model with, by position in [`WORD_ORDER`]: the accelerator's
/// offer with QEMU's changes (`x86_cpu_get_supported_feature_word` without a CPU). Zero where the release has no such
/// word. The question's `cpu` and `smp` do not matter.
#[must_use]
pub fn supported(question: Question<'_>) -> [u64; WORD_COUNT] {
    Offer::of(question).words(Program::of(question.release))
}

/// What the accelerator itself offers of each feature word, by position in [`WORD_ORDER`], before QEMU changes anything.
#[must_use]
pub fn offered(question: Question<'_>) -> [u64; WORD_COUNT] {
    let (offer, program) = (Offer::of(question), Program::of(question.release));
    std::array::from_fn(|position| offer.offered(program, W(position)))
}

/// Whether `x86_cpu_get_supported_feature_word` makes this change, under every accelerator.
pub(crate) fn made_in_cpu(fixup: &Fixup) -> bool {
    fixup.cite.ends_with(":x86_cpu_get_supported_feature_word")
}
