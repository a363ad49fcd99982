//! Leaves that only Intel's CPUs have: processor trace (14H), last-branch records (1CH), AMX (1DH, 1EH),
//! AVX10 (24H), APX (29H).

use cpusieve_model::Registers;

use super::View;
use super::words::{
    AMX_TILE, APXF, ARCH_LBR, AVX10, FEAT_1E_1_EAX, FEAT_7_0_EBX, FEAT_7_0_EDX, FEAT_7_1_EDX, FEAT_14_0_ECX,
    FEAT_24_0_EBX, FEAT_24_1_ECX, FEAT_29_0_EBX, INTEL_PT, PT_LIP,
};
use crate::qemu::release::{V7_2, V10_0, V11_1};

/// What QEMU's processor trace can do, whatever the host's can (`INTEL_PT_MINIMAL_EBX` and its neighbours).
const PT_0: Registers = Registers { eax: 1, ebx: 0xf, ecx: 7, edx: 0 };
/// MTC periods, two address ranges; PSB frequencies and cycle thresholds.
const PT_1: Registers = Registers { eax: 0x0249_0002, ebx: 0x003f_1fff, ecx: 0, edx: 0 };

/// Leaf 14H: constants, with the choice of linear instruction pointers since 7.2.
pub(super) fn leaf_14(view: &View<'_>, subleaf: u32) -> Registers {
    if view.word(FEAT_7_0_EBX) & INTEL_PT == 0 || !view.is_kvm() {
        return Registers::default();
    }
    match subleaf {
        0 => Registers { ecx: PT_0.ecx | view.word(FEAT_14_0_ECX) & PT_LIP, ..PT_0 },
        1 => PT_1,
        _ => Registers::default(),
    }
}

/// Leaf 1CH, since 7.0: KVM's last-branch records without EDX.
pub(super) fn leaf_1c(view: &View<'_>) -> Registers {
    if !view.since(V7_2) || !view.cpu.properties.pmu || view.word(FEAT_7_0_EDX) & ARCH_LBR == 0 {
        return Registers::default();
    }
    Registers { edx: 0, ..view.supported(0x1c, 0) }
}

/// Palette 1 of AMX: 8 tiles of 16 rows of 64 bytes.
const AMX_PALETTE_1: Registers = Registers { eax: 0x2000 | 0x400 << 16, ebx: 0x40 | 8 << 16, ecx: 0x10, edx: 0 };
/// The multiplier of AMX: 16 rows, 64 bytes.
const AMX_TMUL_EBX: u32 = 0x10 | 0x40 << 8;

/// Whether the AMX leaves are filled. An older release may pass the unnamed bit (`migratable=off`) without them.
fn has_amx(view: &View<'_>) -> bool {
    view.since(V7_2) && view.word(FEAT_7_0_EDX) & AMX_TILE != 0
}

/// Leaf 1DH, since 7.0: the tiles of Sapphire Rapids.
pub(super) fn leaf_1d(view: &View<'_>, subleaf: u32) -> Registers {
    if !has_amx(view) {
        return Registers::default();
    }
    match subleaf {
        0 => Registers { eax: 1, ..Registers::default() },
        1 => AMX_PALETTE_1,
        _ => Registers::default(),
    }
}

/// Leaf 1EH, since 7.0: the multiplier of Sapphire Rapids; since 11.1 KVM's highest subleaf and a word of subleaf 1.
pub(super) fn leaf_1e(view: &View<'_>, subleaf: u32) -> Registers {
    if !has_amx(view) {
        return Registers::default();
    }
    match subleaf {
        0 => {
            let eax = if view.since(V11_1) { view.supported(0x1e, 0).eax } else { 0 };
            Registers { eax, ebx: AMX_TMUL_EBX, ..Registers::default() }
        }
        1 => Registers { eax: view.word(FEAT_1E_1_EAX), ..Registers::default() },
        _ => Registers::default(),
    }
}

/// Leaf 24H, since 10.0: AVX10's version and vector lengths; since 11.1 also its highest subleaf and subleaf 1.
pub(super) fn leaf_24(view: &View<'_>, subleaf: u32) -> Registers {
    let cpu = view.cpu;
    if !view.since(V10_0) || view.word(FEAT_7_1_EDX) & AVX10 == 0 {
        return Registers::default();
    }
    match subleaf {
        0 => Registers {
            eax: if view.since(V11_1) { cpu.avx10_max_subleaf } else { 0 },
            ebx: view.word(FEAT_24_0_EBX) | u32::from(cpu.properties.avx10_version),
            ..Registers::default()
        },
        1 => Registers { ecx: view.word(FEAT_24_1_ECX), ..Registers::default() },
        _ => Registers::default(),
    }
}

/// Leaf 29H, since 11.1: APX.
pub(super) fn leaf_29(view: &View<'_>, subleaf: u32) -> Registers {
    if !view.since(V11_1) || view.word(FEAT_7_1_EDX) & APXF == 0 || subleaf != 0 {
        return Registers::default();
    }
    Registers { ebx: view.word(FEAT_29_0_EBX), ..Registers::default() }
}
