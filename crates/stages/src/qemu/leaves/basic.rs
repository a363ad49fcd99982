//! The basic leaves 0, 1, 6, 7 and 0AH.

use cpusieve_model::Registers;

use super::View;
use super::topology::Level;
use super::words::{
    FEAT_1_ECX, FEAT_1_EDX, FEAT_6_EAX, FEAT_7_0_EBX, FEAT_7_0_ECX, FEAT_7_0_EDX, FEAT_7_1_EAX, FEAT_7_1_ECX,
    FEAT_7_1_EDX, FEAT_7_2_EDX, HT, OSPKE, OSXSAVE, PDCM, PKU, SGX, SGX_LC, XSAVE,
};
use crate::qemu::cpu::Cpu;
use crate::qemu::release::{V7_2, V10_0, V11_1};

/// CLFLUSH line of 64 bytes, in units of 8 bytes, in 1.EBX\[15:8\].
const CLFLUSH_64: u32 = 8 << 8;

/// `env->cpuid_version`: stepping, model, family with their extensions (`x86_cpuid_version_set_family` and its
/// relatives).
pub(super) fn signature(cpu: &Cpu<'_>) -> u32 {
    let properties = &cpu.properties;
    let family =
        if properties.family > 0xf { 0xf << 8 | (properties.family - 0xf) << 20 } else { properties.family << 8 };
    family | (properties.model & 0xf) << 4 | (properties.model >> 4) << 16 | properties.stepping
}

/// EBX, EDX and ECX of leaf 0: the vendor's twelve letters.
pub(super) fn vendor(cpu: &Cpu<'_>) -> (u32, u32, u32) {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = cpu.properties.vendor;
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]), u32::from_le_bytes([i, j, k, l]))
}

/// Leaf 0: level and vendor.
pub(super) fn leaf_0(view: &View<'_>) -> Registers {
    let (ebx, edx, ecx) = vendor(view.cpu);
    Registers { eax: view.cpu.level, ebx, ecx, edx }
}

/// Leaf 1: signature, logical CPUs, features.
pub(super) fn leaf_1(view: &View<'_>) -> Registers {
    let cpu = view.cpu;
    let mut ebx = view.running.apic_id << 24 | CLFLUSH_64;
    let mut ecx = view.word(FEAT_1_ECX);
    let mut edx = view.word(FEAT_1_EDX);
    if ecx & XSAVE != 0 && view.running.osxsave {
        ecx |= OSXSAVE;
    }
    if view.since(V10_0) {
        ebx |= logical_cpus(view) << 16;
    } else if view.topology.threads_per_die() > 1 {
        // Counts a die, and runs over into the APIC id if that has more than 255 threads.
        ebx |= view.topology.threads_per_die() << 16;
        edx |= HT;
    }
    if !cpu.properties.pmu && (!view.since(V11_1) || cpu.properties.pdcm_on_even_without_pmu) {
        ecx &= !PDCM;
    }
    Registers { eax: signature(cpu), ebx, ecx, edx }
}

/// 1.EBX\[23:16\] since 10.0: addressable ids of a package on Intel and Zhaoxin, threads of a package elsewhere; at
/// most 255; 0 with one thread.
fn logical_cpus(view: &View<'_>) -> u32 {
    let threads = view.topology.threads_per_package();
    let number = match threads {
        0..=1 => 0,
        _ if view.cpu.is_intel() || view.cpu.is_zhaoxin() => 1 << view.topology.offset(Level::Socket),
        _ => threads,
    };
    number.min(255)
}

/// Leaf 6: the thermal and power word.
pub(super) fn leaf_6(view: &View<'_>) -> Registers {
    Registers { eax: view.word(FEAT_6_EAX), ..Registers::default() }
}

/// Leaf 7: structured extended features. Subleaf 2 and most of subleaf 1 came after 7.2.
pub(super) fn leaf_7(view: &View<'_>, subleaf: u32) -> Registers {
    let word = |word| view.word(word);
    match subleaf {
        0 => leaf_7_0(view),
        1 => Registers { eax: word(FEAT_7_1_EAX), ebx: 0, ecx: word(FEAT_7_1_ECX), edx: word(FEAT_7_1_EDX) },
        2 => Registers { edx: word(FEAT_7_2_EDX), ..Registers::default() },
        _ => Registers::default(),
    }
}

fn leaf_7_0(view: &View<'_>) -> Registers {
    let cpu = view.cpu;
    let mut ebx = view.word(FEAT_7_0_EBX);
    let mut ecx = view.word(FEAT_7_0_ECX);
    if ecx & PKU != 0 && view.running.pke {
        ecx |= OSPKE;
    }
    // From 6.2 to 10.0 SGX was hidden here if KVM lacks it; later it is filtered as all other features are.
    if view.since(V7_2) && !view.since(V10_0) {
        let supported = view.supported(7, 0);
        ebx &= supported.ebx | !SGX;
        if ebx & SGX == 0 {
            ecx &= !SGX_LC;
        }
        ecx &= supported.ecx | !SGX_LC;
    }
    Registers { eax: cpu.level_func7, ebx, ecx, edx: view.word(FEAT_7_0_EDX) }
}

/// Leaf 0AH: KVM's performance counters, or none.
pub(super) fn leaf_a(view: &View<'_>, subleaf: u32) -> Registers {
    if view.cpu.properties.pmu { view.supported(0xa, subleaf) } else { Registers::default() }
}
