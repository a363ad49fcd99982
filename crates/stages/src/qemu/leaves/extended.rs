//! The extended leaves from 80000000H that do not describe caches or topology, and Centaur's from C0000000H.

use cpusieve_model::Registers;

use super::View;
use super::basic::{signature, vendor};
use super::topology::Level;
use super::words::{
    CMP_LEGACY, FEAT_7_0_ECX, FEAT_8000_0001_ECX, FEAT_8000_0001_EDX, FEAT_8000_0007_EBX, FEAT_8000_0007_EDX,
    FEAT_8000_0008_EBX, FEAT_8000_0021_EAX, FEAT_8000_0021_EBX, FEAT_8000_0021_ECX, FEAT_8000_0022_EAX,
    FEAT_C000_0001_EDX, FEAT_SVM, LA57, LM, PERFMON_V2, SVM, SYSCALL,
};
use crate::qemu::release::{V10_0, V11_1};

impl View<'_> {
    /// Whether AMD's leaves are kept from Intel's guests (`x-vendor-cpuid-only-v2`, since 10.1).
    pub(super) fn hides_from_intel(&self) -> bool {
        self.since(V11_1) && self.cpu.properties.vendor_cpuid_only_v2 && self.cpu.is_intel()
    }

    /// Whether AMD's leaves are kept from Intel's and Zhaoxin's guests.
    pub(super) fn hides_from_intel_and_zhaoxin(&self) -> bool {
        self.since(V11_1) && self.cpu.properties.vendor_cpuid_only_v2 && (self.cpu.is_intel() || self.cpu.is_zhaoxin())
    }
}

/// Leaf 80000000H: level and vendor.
pub(super) fn leaf_80000000(view: &View<'_>) -> Registers {
    let eax = view.cpu.xlevel;
    if view.hides_from_intel_and_zhaoxin() {
        return Registers { eax, ..Registers::default() };
    }
    let (ebx, edx, ecx) = vendor(view.cpu);
    Registers { eax, ebx, ecx, edx }
}

/// Leaf 80000001H: signature and features.
pub(super) fn leaf_80000001(view: &View<'_>) -> Registers {
    let cpu = view.cpu;
    let mut ecx = view.word(FEAT_8000_0001_ECX);
    let mut edx = view.word(FEAT_8000_0001_EDX);
    if !view.since(V10_0) && view.topology.threads_per_die() > 1 && !cpu.is_intel() {
        ecx |= CMP_LEGACY;
    }
    // Intel's CPUs have SYSCALL in 64-bit mode alone, and TCG shows it there alone.
    if view.since(V10_0) && !view.is_kvm() && cpu.is_intel() && !view.running.long_mode {
        edx &= !SYSCALL;
    }
    Registers { eax: signature(cpu), ebx: 0, ecx, edx }
}

/// Leaves 80000002H to 80000004H: 16 letters each of the processor's name.
pub(super) fn leaf_model_id(view: &View<'_>, leaf: u32) -> Registers {
    let name = &view.cpu.properties.model_id;
    let start = usize::try_from(leaf.saturating_sub(0x8000_0002)).unwrap_or(0) * 16;
    let word = |index: usize| {
        let byte = |at: usize| name.get(start + index * 4 + at).copied().unwrap_or(0);
        u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)])
    };
    Registers { eax: word(0), ebx: word(1), ecx: word(2), edx: word(3) }
}

/// Leaf 80000007H: RAS and power management.
pub(super) fn leaf_80000007(view: &View<'_>) -> Registers {
    let ebx = if view.hides_from_intel() { 0 } else { view.word(FEAT_8000_0007_EBX) };
    Registers { eax: 0, ebx, ecx: 0, edx: view.word(FEAT_8000_0007_EDX) }
}

/// Leaf 80000008H: address widths and the size of the package.
pub(super) fn leaf_80000008(view: &View<'_>) -> Registers {
    let cpu = view.cpu;
    let mut eax = cpu.phys_bits;
    if view.word(FEAT_8000_0001_EDX) & LM != 0 {
        let linear_bits = if view.word(FEAT_7_0_ECX) & LA57 != 0 { 57 } else { 48 };
        eax |= linear_bits << 8;
        if view.since(V10_0) {
            eax |= cpu.guest_phys_bits << 16;
        }
    }
    let topology = &view.topology;
    let threads = if view.since(V10_0) { topology.threads_per_package() } else { topology.threads_per_die() };
    let ecx = if threads > 1 && !view.hides_from_intel_and_zhaoxin() {
        topology.offset(Level::Socket) << 12 | (threads - 1)
    } else {
        0
    };
    Registers { eax, ebx: view.word(FEAT_8000_0008_EBX), ecx, edx: 0 }
}

/// Leaf 8000000AH: SVM revision 1 with 16 ASIDs.
pub(super) fn leaf_8000000a(view: &View<'_>) -> Registers {
    if view.word(FEAT_8000_0001_ECX) & SVM == 0 {
        return Registers::default();
    }
    Registers { eax: 1, ebx: 16, ecx: 0, edx: view.word(FEAT_SVM) }
}

/// Leaf 80000021H, since 10.0.
pub(super) fn leaf_80000021(view: &View<'_>) -> Registers {
    let word = |word| view.word(word);
    Registers { eax: word(FEAT_8000_0021_EAX), ebx: word(FEAT_8000_0021_EBX), ecx: word(FEAT_8000_0021_ECX), edx: 0 }
}

/// Leaf 80000022H, since 10.0: AMD's performance counters, of which KVM says how many.
pub(super) fn leaf_80000022(view: &View<'_>) -> Registers {
    let on = view.is_kvm() && view.cpu.properties.pmu && view.word(FEAT_8000_0022_EAX) & PERFMON_V2 != 0;
    if !on {
        return Registers::default();
    }
    Registers { eax: PERFMON_V2, ebx: view.supported(0x8000_0022, 0).ebx & 0xf, ..Registers::default() }
}

/// Leaf C0000001H: Centaur's features.
pub(super) fn leaf_c0000001(view: &View<'_>) -> Registers {
    Registers { eax: signature(view.cpu), ebx: 0, ecx: 0, edx: view.word(FEAT_C000_0001_EDX) }
}
