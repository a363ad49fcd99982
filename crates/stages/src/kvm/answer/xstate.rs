//! State components: what the host's kernel enables, what of that a guest may have, and the sizes.

use cpusieve_model::Registers;

use super::module::Module;
use super::plan::release;

const YMM: u64 = 1 << 2;
const AVX512: u64 = 7 << 5;
const PKRU: u64 = 1 << 9;
const XTILE_CFG: u64 = 1 << 17;
const XTILE_DATA: u64 = 1 << 18;
const LEGACY: u64 = 3;

/// BNDREGS and BNDCSR.
pub(super) const BOUNDS: u64 = 3 << 3;
/// CET_USER and CET_KERNEL.
pub(super) const CET: u64 = 3 << 11;

/// Which feature a component needs in the host's kernel (`arch/x86/kernel/fpu/xstate.c:xsave_cpuid_features`), for the
/// components that KVM knows (`KVM_SUPPORTED_XCR0`, `KVM_SUPPORTED_XSS`).
const NEEDS: [(u64, &str); 8] = [
    (1, "FPU"),
    (2, "XMM"),
    (YMM, "AVX"),
    (BOUNDS, "MPX"),
    (AVX512, "AVX512F"),
    (CET, "SHSTK"),
    (XTILE_CFG | XTILE_DATA, "AMX_TILE"),
    (XTILE_DATA, "XFD"),
];

impl Module<'_> {
    /// What the host's kernel enabled in XCR0 and IA32_XSS, as far as KVM of this tree knows it
    /// (`x86.c:kvm_x86_vendor_init`; `kvm_arch_hardware_setup` up to 5.18).
    pub(super) fn setup_state_components(&mut self) {
        let release = self.release();
        if !self.boot_cpu_has("XSAVE") {
            return;
        }
        let leaf = |subleaf: u32, registers: fn(Registers) -> (u32, u32)| {
            let (low, high) = registers(self.cpuid(0xd, subleaf));
            u64::from(high) << 32 | u64::from(low)
        };
        let mut enabled = leaf(0, |registers| (registers.eax, registers.edx));
        let mut supervisor = leaf(1, |registers| (registers.ecx, registers.edx));
        for (components, feature) in NEEDS {
            if !self.boot_cpu_has(feature) {
                enabled &= !components;
                supervisor &= !components;
            }
        }
        // From 6.4 on the component needs that the kernel switched the feature on, not only that the CPU has it.
        if !self.boot_cpu_has(if release >= (6, 4) { "OSPKE" } else { "PKU" }) {
            enabled &= !PKRU;
        }
        let tiles = if release >= (5, 17) { XTILE_CFG | XTILE_DATA } else { 0 };
        self.supported_xcr0 = enabled & (LEGACY | YMM | BOUNDS | AVX512 | PKRU | tiles);
        if release >= (6, 18) && self.boot_cpu_has("XSAVES") {
            self.supported_xss = supervisor & CET;
        }
    }

    /// The user state components that this process may give to a guest: `x86.h:kvm_get_filtered_xcr0`, up to 6.3
    /// `xstate_get_guest_group_perm`.
    #[must_use]
    pub fn permitted_xcr0(&self) -> u64 {
        let mut permitted = self.supported_xcr0;
        if permitted & XTILE_DATA != 0 && self.input.permitted & XTILE_DATA == 0 {
            permitted &= !XTILE_DATA;
            if self.release() >= (6, 4) {
                permitted &= !XTILE_CFG;
            }
        }
        permitted
    }

    /// `cpuid.c:xstate_required_size`, of the CPU that executes the ioctl.
    pub(super) fn xstate_required_size(&self, components: u64, compacted: bool) -> u32 {
        xstate_required_size(|subleaf| self.cpuid(0xd, subleaf), components, compacted, self.tree)
    }
}

/// `cpuid.c:xstate_required_size`: bytes of an XSAVE area with these components. The compacted form keeps to the alignment
/// that ECX\[1\] asks for from 5.17 on.
pub(crate) fn xstate_required_size(
    leaf_0d: impl Fn(u32) -> Registers,
    components: u64,
    compacted: bool,
    tree: usize,
) -> u32 {
    /// Legacy area and header.
    const FIRST: u32 = 512 + 64;
    let aligns = release(tree) >= (5, 17);
    let mut size = FIRST;
    for component in (2..64_u32).filter(|component| components >> component & 1 == 1) {
        let described = leaf_0d(component);
        let offset = match (compacted, aligns && described.ecx >> 1 & 1 == 1) {
            (false, _) => described.ebx,
            (true, true) => size.checked_next_multiple_of(64).unwrap_or(size),
            (true, false) => size,
        };
        size = size.max(offset.saturating_add(described.eax));
    }
    size
}
