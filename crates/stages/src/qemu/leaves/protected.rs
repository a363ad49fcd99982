//! Memory that the host cannot read: enclaves of SGX (leaf 12H) and guests of SEV (leaf 8000001FH), with the objects of
//! QEMU's command line that they need.

use cpusieve_model::Registers;

use super::View;
use super::words::{
    FEAT_7_0_EBX, FEAT_SGX_12_0_EAX, FEAT_SGX_12_0_EBX, FEAT_SGX_12_1_EAX, FEAT_XSAVE_XCR0_HI, FEAT_XSAVE_XCR0_LO,
    FEAT_XSAVE_XSS_HI, FEAT_XSAVE_XSS_LO, SGX,
};
use crate::qemu::release::{V7_2, V10_0};

/// What a virtual machine has of protected memory; the default is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Protected<'a> {
    /// The object of `-machine confidential-guest-support=`, if it is one for AMD's SEV.
    pub sev: Option<Sev>,
    /// The sections of `-machine sgx-epc.N.memdev=`, in their order.
    pub epc: &'a [EpcSection],
    /// Whether QEMU can open `/dev/sgx_provision`, and KVM takes it (`KVM_CAP_SGX_ATTRIBUTE`): enclaves then may use the
    /// provisioning key.
    pub provisioning: bool,
}

/// A guest of SEV (`-object sev-guest`, `sev-snp-guest`), as QEMU starts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sev {
    /// Whether registers are encrypted (SEV-ES, bit 2 of `policy`); nothing to 5.2.
    pub encrypted_state: bool,
    /// Whether it is a guest of SEV-SNP, which 9.1 and later know.
    pub nested_paging: bool,
    /// `cbitpos`: the bit of a page-table entry that says that the page is encrypted.
    pub c_bit: u32,
    /// `reduced-phys-bits`: bits of physical addresses that encryption takes.
    pub reduced_phys_bits: u32,
}

/// A section of the enclave page cache, in the guest's physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpcSection {
    /// Its first byte.
    pub address: u64,
    /// Its bytes.
    pub size: u64,
}

/// 12.1.EAX: enclaves may use the provisioning key.
const PROVISIONKEY: u32 = 1 << 4;
/// 12.1.ECX: x87 and SSE state, which enclaves always may use.
const XFRM_FP_SSE: u32 = 3;
/// EAX\[3:0\] of a subleaf from 2: it describes a section.
const SECTION: u32 = 1;

/// Leaf 12H, since 6.2: KVM's enclaves, cut to the feature words.
pub(super) fn leaf_12(view: &View<'_>, subleaf: u32) -> Registers {
    if !view.since(V7_2) || !view.is_kvm() || view.word(FEAT_7_0_EBX) & SGX == 0 {
        return Registers::default();
    }
    let Registers { eax, ebx, ecx, edx } = view.supported(0x12, subleaf);
    match subleaf {
        0 => Registers { eax: eax & view.word(FEAT_SGX_12_0_EAX), ebx: ebx & view.word(FEAT_SGX_12_0_EBX), ecx, edx },
        1 => {
            // 7.2 takes the supervisor states for the user's.
            let (low, high) = if view.since(V10_0) {
                (FEAT_XSAVE_XCR0_LO, FEAT_XSAVE_XCR0_HI)
            } else {
                (FEAT_XSAVE_XSS_LO, FEAT_XSAVE_XSS_HI)
            };
            let withheld = if view.cpu.question.protected.provisioning { 0 } else { PROVISIONKEY };
            Registers {
                eax: eax & view.word(FEAT_SGX_12_1_EAX) & !withheld,
                ebx: 0,
                ecx: ecx & view.word(low) | XFRM_FP_SSE,
                edx: edx & view.word(high),
            }
        }
        _ => section(view, subleaf - 2),
    }
}

/// A section of the enclave page cache, with the properties of the host's first one.
fn section(view: &View<'_>, number: u32) -> Registers {
    let sections = view.cpu.question.protected.epc;
    let Some(section) = usize::try_from(number).ok().and_then(|number| sections.get(number)) else {
        return Registers::default();
    };
    let low = |value: u64| (value & 0xffff_f000) as u32;
    let high = |value: u64| (value >> 32) as u32;
    Registers {
        eax: low(section.address) | SECTION,
        ebx: high(section.address),
        ecx: low(section.size) | view.host.cpuid(0x12, 2).ecx & 0xf,
        edx: high(section.size),
    }
}

/// 8000001F.EAX: the guest's memory, registers, page tables are protected.
const SEV: u32 = 1 << 1;
const SEV_ES: u32 = 1 << 3;
const SEV_SNP: u32 = 1 << 4;

/// Leaf 8000001FH: encrypted memory.
pub(super) fn leaf_8000001f(view: &View<'_>) -> Registers {
    let Some(sev) = view.cpu.question.protected.sev else { return Registers::default() };
    let mut eax = SEV;
    if sev.encrypted_state && view.since(V7_2) {
        eax |= SEV_ES;
    }
    if sev.nested_paging && view.since(V10_0) {
        eax |= SEV_SNP;
    }
    // Since 8.1 or so each field is cut to its six bits.
    let fields = if view.since(V10_0) { 0x3f } else { u32::MAX };
    Registers { eax, ebx: sev.c_bit & fields | (sev.reduced_phys_bits & fields) << 6, ecx: 0, edx: 0 }
}
