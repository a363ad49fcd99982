//! State components: what the host's kernel enables, what of that a guest may have, and the sizes.

use cpusieve_model::Registers;

use super::module::Module;
use super::plan::release;
use crate::linux::boot::Capabilities;

const YMM: u64 = 1 << 2;
const AVX512: u64 = 7 << 5;
const PKRU: u64 = 1 << 9;
const XTILE_CFG: u64 = 1 << 17;
const XTILE_DATA: u64 = 1 << 18;
const XTILE: u64 = XTILE_CFG | XTILE_DATA;
const APX: u64 = 1 << 19;
const CET_USER: u64 = 1 << 11;
const CET_KERNEL: u64 = 1 << 12;
const LEGACY: u64 = 3;

/// BNDREGS and BNDCSR.
pub(super) const BOUNDS: u64 = 3 << 3;
/// CET_USER and CET_KERNEL.
pub(super) const CET: u64 = CET_USER | CET_KERNEL;

/// Which feature a component needs in the kernel (`arch/x86/kernel/fpu/xstate.c:xsave_cpuid_features`), and the release
/// from which on the kernel knows the component.
const NEEDS: [(u64, &str, (u16, u16)); 9] = [
    (1, "FPU", (0, 0)),
    (2, "XMM", (0, 0)),
    (YMM, "AVX", (0, 0)),
    (BOUNDS, "MPX", (0, 0)),
    (AVX512, "AVX512F", (0, 0)),
    (CET_USER, "SHSTK", (6, 6)),
    (CET_KERNEL, "SHSTK", (6, 18)),
    (XTILE, "AMX_TILE", (5, 16)),
    (APX, "APX", (6, 16)),
];

/// The user and supervisor state components that a Linux kernel with these capabilities enables
/// (`xstate.c:fpu__init_system_xstate`), as far as KVM knows them; `leaf_0d` reads leaf 0DH.
pub(crate) fn enabled_components(kernel: &Capabilities, tree: usize, leaf_0d: impl Fn(u32) -> Registers) -> (u64, u64) {
    let has = |name: &str| kernel.has(tree, name);
    if !has("XSAVE") {
        return (0, 0);
    }
    let release = release(tree);
    let mut known: u64 = 0;
    for (components, feature, from) in NEEDS {
        if release >= from && has(feature) {
            known |= components;
        }
    }
    // From 6.6 on the component needs that the kernel switched the feature on, not only that the CPU has it.
    if has(if release >= (6, 6) { "OSPKE" } else { "PKU" }) {
        known |= PKRU;
    }
    if !has("XFD") {
        known &= !XTILE_DATA;
    }
    let (user, supervisor) = (leaf_0d(0), leaf_0d(1));
    let user = (u64::from(user.edx) << 32 | u64::from(user.eax)) & known;
    let supervisor = (u64::from(supervisor.edx) << 32 | u64::from(supervisor.ecx)) & known;
    (user, if has("XSAVES") { supervisor } else { 0 })
}

impl Module<'_> {
    /// What the host's kernel enabled in XCR0 and IA32_XSS, as far as KVM of this tree hands it on
    /// (`x86.c:kvm_x86_vendor_init`; `kvm_arch_hardware_setup` up to 5.18).
    pub(super) fn setup_state_components(&mut self) {
        let release = self.release();
        let (user, supervisor) = enabled_components(&self.kernel, self.tree, |subleaf| self.cpuid(0xd, subleaf));
        let tiles = if release >= (5, 17) { XTILE } else { 0 };
        self.supported_xcr0 = user & (LEGACY | YMM | BOUNDS | AVX512 | PKRU | tiles);
        self.supported_xss = if release >= (6, 18) { supervisor & CET } else { 0 };
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
