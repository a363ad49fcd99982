//! What the accelerator lacks is taken out, and said (`target/i386/cpu.c:x86_cpu_filter_features`,
//! `mark_unavailable_features`).

use cpusieve_knowledge::qemu::{self, WORD_COUNT, WORD_ORDER, Word};
use cpusieve_model::{Register, has_subleaves};

use super::expand::INTEL_PT;
use super::history::Phase;
use super::instance::{AVX10, Instance};
use super::release::{V7_2, V10_0, V11_1};
use super::words::*;

/// The words before a feature whose parent is off.
pub(super) const DEPENDENCY: &str = "This feature depends on other features that were not requested";

/// Linear addresses in packets: 14H.ECX\[31\].
const LIP: u32 = 1 << 31;

impl Instance<'_> {
    /// `mark_unavailable_features`
    pub(super) fn mark_unavailable_features(&mut self, at: W, mask: u64, prefix: Option<&str>) {
        if mask == 0 {
            return;
        }
        if !self.cpu.properties.force_features {
            *self.cpu.feature_mut(at) &= !mask;
        }
        if let Some(filtered) = self.filtered.get_mut(at.0) {
            *filtered |= mask;
        }
        let (Some(prefix), Some(&word)) = (prefix, WORD_ORDER.get(at.0)) else { return };
        let description = feature_word_description(self.release(), word);
        for bit in (0..64).filter(|bit| mask >> bit & 1 == 1) {
            let name = qemu::name(self.release(), word.bit(bit));
            let dot = if name.is_some() { "." } else { "" };
            let name = name.unwrap_or_default();
            self.say(format!("warning: {prefix}: {description}{dot}{name} [bit {bit}]"), true);
        }
    }

    /// `x86_cpu_filter_features`: whether anything was taken out. It is said if `check` or `enforce` is on.
    pub(super) fn x86_cpu_filter_features(&mut self) -> bool {
        let prefix = match self.is_kvm() {
            true => "host doesn't support requested feature",
            false => "TCG doesn't support requested feature",
        };
        let said = self.cpu.properties.check || self.cpu.properties.enforce;
        let prefix = said.then_some(prefix);
        for at in (0..WORD_COUNT).map(W) {
            let supported = self.supported.get(at.0).copied().unwrap_or(0);
            self.mark_unavailable_features(at, self.cpu.feature(at) & !supported, prefix);
        }
        self.record(Phase::Filter);
        if self.cpu.feature(FEAT_7_0_EBX) & INTEL_PT != 0 && self.is_kvm() && !self.can_trace() {
            self.mark_unavailable_features(FEAT_7_0_EBX, INTEL_PT, prefix);
            self.record(Phase::ProcessorTrace);
        }
        let taken = self.filtered.iter().any(|&word| word != 0);
        let lowered = self.release() >= V10_0 && self.filter_avx10(prefix);
        taken || lowered
    }

    /// Whether KVM can do all that QEMU's fixed answers to leaf 14H say.
    fn can_trace(&self) -> bool {
        let supported = |subleaf, register| self.offer.kvm_arch_get_supported_cpuid(0x14, subleaf, register);
        let has = |value: u32, bits: u32| value & bits == bits;
        let ecx = supported(0, Register::Ecx);
        // Linear addresses must be what the model says; before 7.0 or so no model could have them.
        let lip = if self.release() >= V7_2 { self.cpu.feature(FEAT_14_0_ECX) as u32 & LIP } else { 0 };
        let periods = supported(1, Register::Eax);
        supported(0, Register::Eax) != 0
            && has(supported(0, Register::Ebx), 0xf)
            && has(ecx, 7)
            && has(periods, 0x249 << 16)
            && periods & 3 >= 2
            && has(supported(1, Register::Ebx), 0x3f_1fff)
            && ecx & LIP == lip
    }

    /// The version of AVX10: lowered to the host's, and never shown without the feature.
    fn filter_avx10(&mut self, prefix: Option<&str>) -> bool {
        let version = self.cpu.properties.avx10_version;
        let supported = self.supported_avx10_version();
        let on = self.cpu.feature(FEAT_7_1_EDX) & AVX10 != 0;
        if version == 0 || on && supported >= version {
            return false;
        }
        let forced = self.cpu.properties.force_features && self.release() >= V11_1;
        let adjusted = on && !forced;
        if let Some(prefix) = prefix {
            let end = if adjusted { format!(" Adjust to avx10.{supported}") } else { String::new() };
            self.say(format!("warning: {prefix}: avx10.{version}.{end}"), true);
        }
        if adjusted {
            self.cpu.properties.avx10_version = supported;
        }
        true
    }
}

/// `feature_word_description`: since 10.1 or so with the subleaf.
fn feature_word_description(release: usize, word: Word) -> String {
    match word {
        Word::Cpuid { leaf, subleaf, register } if release >= V11_1 => {
            let subleaf = if has_subleaves(leaf) { format!(",ecx={subleaf:02X}h") } else { String::new() };
            format!("CPUID[eax={leaf:02X}h{subleaf}].{register}")
        }
        Word::Cpuid { leaf, register, .. } => format!("CPUID.{leaf:02X}H:{register}"),
        Word::Msr { index } if release >= V11_1 => format!("MSR({index:02X}h)"),
        Word::Msr { index } => format!("MSR({index:02X}H)"),
    }
}
