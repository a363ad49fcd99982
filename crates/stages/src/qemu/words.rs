//! The feature words that code names, as QEMU names them (`target/i386/cpu.h:FeatureWord`).

use cpusieve_knowledge::qemu::{WORD_COUNT, WORD_ORDER, Word};
use cpusieve_model::Register;

/// A feature word, by its position in [`WORD_ORDER`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct W(pub usize);

/// The values of all feature words, by position in [`WORD_ORDER`].
pub(crate) type Words = [u64; WORD_COUNT];

pub(crate) const fn cpuid(leaf: u32, subleaf: u32, register: Register) -> W {
    let mut at = 0;
    while at < WORD_COUNT {
        if let Word::Cpuid { leaf: l, subleaf: s, register: r } = WORD_ORDER[at]
            && l == leaf
            && s == subleaf
            && r as u8 == register as u8
        {
            return W(at);
        }
        at += 1;
    }
    W(WORD_COUNT)
}

const fn msr(index: u32) -> W {
    let mut at = 0;
    while at < WORD_COUNT {
        if let Word::Msr { index: i } = WORD_ORDER[at]
            && i == index
        {
            return W(at);
        }
        at += 1;
    }
    W(WORD_COUNT)
}

use Register::{Eax, Ebx, Ecx, Edx};

pub(crate) const FEAT_1_EDX: W = cpuid(1, 0, Edx);
pub(crate) const FEAT_1_ECX: W = cpuid(1, 0, Ecx);
pub(crate) const FEAT_6_EAX: W = cpuid(6, 0, Eax);
pub(crate) const FEAT_7_0_EBX: W = cpuid(7, 0, Ebx);
pub(crate) const FEAT_7_0_ECX: W = cpuid(7, 0, Ecx);
pub(crate) const FEAT_7_0_EDX: W = cpuid(7, 0, Edx);
pub(crate) const FEAT_7_1_EAX: W = cpuid(7, 1, Eax);
pub(crate) const FEAT_7_1_ECX: W = cpuid(7, 1, Ecx);
pub(crate) const FEAT_7_1_EDX: W = cpuid(7, 1, Edx);
pub(crate) const FEAT_7_2_EDX: W = cpuid(7, 2, Edx);
pub(crate) const FEAT_XSAVE: W = cpuid(0xd, 1, Eax);
pub(crate) const FEAT_XSAVE_XCR0_LO: W = cpuid(0xd, 0, Eax);
pub(crate) const FEAT_XSAVE_XCR0_HI: W = cpuid(0xd, 0, Edx);
pub(crate) const FEAT_XSAVE_XSS_LO: W = cpuid(0xd, 1, Ecx);
pub(crate) const FEAT_XSAVE_XSS_HI: W = cpuid(0xd, 1, Edx);
pub(crate) const FEAT_14_0_ECX: W = cpuid(0x14, 0, Ecx);
pub(crate) const FEAT_24_0_EBX: W = cpuid(0x24, 0, Ebx);
pub(crate) const FEAT_24_1_ECX: W = cpuid(0x24, 1, Ecx);
pub(crate) const FEAT_KVM: W = cpuid(0x4000_0001, 0, Eax);
pub(crate) const FEAT_8000_0001_EDX: W = cpuid(0x8000_0001, 0, Edx);
pub(crate) const FEAT_8000_0001_ECX: W = cpuid(0x8000_0001, 0, Ecx);
pub(crate) const FEAT_8000_0007_EBX: W = cpuid(0x8000_0007, 0, Ebx);
pub(crate) const FEAT_8000_0007_EDX: W = cpuid(0x8000_0007, 0, Edx);
pub(crate) const FEAT_8000_0008_EBX: W = cpuid(0x8000_0008, 0, Ebx);
pub(crate) const FEAT_8000_0021_EAX: W = cpuid(0x8000_0021, 0, Eax);
pub(crate) const FEAT_SVM: W = cpuid(0x8000_000a, 0, Edx);
pub(crate) const FEAT_C000_0001_EDX: W = cpuid(0xc000_0001, 0, Edx);
pub(crate) const FEAT_ARCH_CAPABILITIES: W = msr(0x10a);
pub(crate) const FEAT_CORE_CAPABILITY: W = msr(0xcf);
pub(crate) const FEAT_PERF_CAPABILITIES: W = msr(0x345);
pub(crate) const FEAT_VMX_PROCBASED_CTLS: W = msr(0x48e);
pub(crate) const FEAT_VMX_SECONDARY_CTLS: W = msr(0x48b);
pub(crate) const FEAT_VMX_PINBASED_CTLS: W = msr(0x48d);
pub(crate) const FEAT_VMX_EXIT_CTLS: W = msr(0x48f);
pub(crate) const FEAT_VMX_ENTRY_CTLS: W = msr(0x490);
pub(crate) const FEAT_VMX_MISC: W = msr(0x485);
pub(crate) const FEAT_VMX_EPT_VPID_CAPS: W = msr(0x48c);
pub(crate) const FEAT_VMX_BASIC: W = msr(0x480);
pub(crate) const FEAT_VMX_VMFUNC: W = msr(0x491);

/// `CPUID_EXT2_AMD_ALIASES`: the bits of 80000001.EDX that on AMD mean the same as in 1.EDX.
pub(crate) const AMD_ALIASES: u64 = 0x0183_f3ff;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_word_exists() {
        let named = [
            FEAT_1_EDX,
            FEAT_1_ECX,
            FEAT_6_EAX,
            FEAT_7_0_EBX,
            FEAT_7_0_ECX,
            FEAT_7_0_EDX,
            FEAT_7_1_EAX,
            FEAT_7_1_ECX,
            FEAT_7_1_EDX,
            FEAT_7_2_EDX,
            FEAT_XSAVE,
            FEAT_XSAVE_XCR0_LO,
            FEAT_XSAVE_XCR0_HI,
            FEAT_XSAVE_XSS_LO,
            FEAT_XSAVE_XSS_HI,
            FEAT_14_0_ECX,
            FEAT_24_0_EBX,
            FEAT_24_1_ECX,
            FEAT_KVM,
            FEAT_8000_0001_EDX,
            FEAT_8000_0001_ECX,
            FEAT_8000_0007_EBX,
            FEAT_8000_0007_EDX,
            FEAT_8000_0008_EBX,
            FEAT_8000_0021_EAX,
            FEAT_SVM,
            FEAT_C000_0001_EDX,
            FEAT_ARCH_CAPABILITIES,
            FEAT_CORE_CAPABILITY,
            FEAT_PERF_CAPABILITIES,
            FEAT_VMX_PROCBASED_CTLS,
            FEAT_VMX_SECONDARY_CTLS,
            FEAT_VMX_PINBASED_CTLS,
            FEAT_VMX_EXIT_CTLS,
            FEAT_VMX_ENTRY_CTLS,
            FEAT_VMX_MISC,
            FEAT_VMX_EPT_VPID_CAPS,
            FEAT_VMX_BASIC,
            FEAT_VMX_VMFUNC,
        ];
        assert!(named.iter().all(|word| word.0 < WORD_COUNT));
    }
}
