//! What features hang on, and what hangs on them: dependencies, XSAVE components, Hyper-V enlightenments.

use cpusieve_model::Place;

use super::{DEPENDENCIES, EXT_SAVE_AREAS, HYPERV_PROPERTIES, Word};
use crate::TreeSet;

/// A feature that others need (`target/i386/cpu.c:feature_dependencies`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// When none of these bits is set,
    pub from: (Word, u64),
    /// these are cleared.
    pub to: (Word, u64),
    /// The releases with this row.
    pub releases: TreeSet,
}

/// The dependencies of a release, in the order in which QEMU looks at them, once.
pub fn dependencies(release: usize) -> impl Iterator<Item = &'static Dependency> {
    DEPENDENCIES.iter().filter(move |row| row.releases.contains(release))
}

/// A component of the XSAVE state (`target/i386/cpu.c:x86_ext_save_areas`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtSaveArea {
    /// Its bit in XCR0 or IA32_XSS, 0 to 63.
    pub bit: u8,
    /// What it holds: `ymm`.
    pub name: &'static str,
    /// Whether IA32_XSS turns it on, and not XCR0.
    pub supervisor: bool,
    /// Bytes.
    pub size: u32,
    /// Its offset in QEMU's own standard layout, in bytes: what 5.2 tells the guest, and later releases under TCG. KVM
    /// guests of later releases get the CPU's.
    pub standard_offset: Option<u32>,
    /// The feature bits of which one must be on (`target/i386/cpu.c:cpuid_has_xsave_feature`).
    pub features: &'static [Place],
    /// The releases in which it is so.
    pub releases: TreeSet,
}

/// The XSAVE components that a release knows, by rising bit.
pub fn ext_save_areas(release: usize) -> impl Iterator<Item = &'static ExtSaveArea> {
    EXT_SAVE_AREAS.iter().filter(move |area| area.releases.contains(release))
}

/// A Hyper-V enlightenment (`target/i386/kvm/kvm.c:kvm_hyperv_properties`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HypervProperty {
    /// The property of `-cpu`: `hv-time`.
    pub property: &'static str,
    /// The CPUID bits that KVM must offer and that the guest then gets.
    pub bits: &'static [Place],
    /// The enlightenments that it needs.
    pub needs: &'static [&'static str],
    /// Whether `hv-passthrough` turns it on.
    pub passthrough: bool,
    /// What error messages call it: `clocksources (hv-time)`.
    pub description: &'static str,
    /// The releases in which it is so.
    pub releases: TreeSet,
}

/// The Hyper-V enlightenments of a release, in the order in which QEMU looks at them.
pub fn hyperv_properties(release: usize) -> impl Iterator<Item = &'static HypervProperty> {
    HYPERV_PROPERTIES.iter().filter(move |row| row.releases.contains(release))
}
