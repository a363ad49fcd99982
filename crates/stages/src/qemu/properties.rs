//! The properties of `X86CPU` that are no feature bits.

use super::fields::{Field, field};
use super::release;

/// `UINT32_MAX`, QEMU's "not set" of `level` and its relatives.
pub(crate) const UNSET: u32 = u32::MAX;

/// Every property that is no feature bit and on which CPUID, MSRs or messages depend.
#[derive(Clone, Debug)]
pub(crate) struct Properties<'a> {
    // Identity.
    pub vendor: [u8; 12],
    pub family: u32,
    pub model: u32,
    pub stepping: u32,
    pub model_id: ModelId<'a>,
    // Levels: `UNSET` where nobody set them.
    pub level: u32,
    pub xlevel: u32,
    pub xlevel2: u32,
    pub level_func7: u32,
    pub min_level: u32,
    pub min_xlevel: u32,
    pub min_xlevel2: u32,
    pub min_level_func7: u32,
    // Policy.
    pub check: bool,
    pub enforce: bool,
    pub force_features: bool,
    pub migratable: bool,
    pub full_cpuid_auto_level: bool,
    pub intel_pt_auto_level: bool,
    pub arch_cap_always_on: bool,
    pub pdcm_on_even_without_pmu: bool,
    // Addresses.
    pub phys_bits: u32,
    pub guest_phys_bits: u32,
    pub host_phys_bits: bool,
    pub host_phys_bits_limit: u8,
    // Caches and topology.
    pub legacy_cache: bool,
    pub l3_cache: bool,
    pub host_cache_info: bool,
    pub consistent_cache: bool,
    pub l1_cache_per_core: bool,
    pub amd_topoext_features_only: bool,
    pub legacy_multi_node: bool,
    pub cpuid_0xb: bool,
    pub force_cpuid_0x1f: bool,
    pub vendor_cpuid_only: bool,
    pub vendor_cpuid_only_v2: bool,
    // Hypervisor leaves.
    pub kvm: bool,
    pub tcg_cpuid: bool,
    pub vmware_cpuid_freq: bool,
    /// In hertz; 0 if not given.
    pub tsc_frequency: i64,
    pub hyperv: Hyperv<'a>,
    // Others.
    pub pmu: bool,
    /// All ones where it was not given.
    pub lbr_fmt: u64,
    pub lmce: bool,
    pub ucode_rev: u64,
    pub avx10_version: u8,
}

/// The processor's name (leaves 80000002H to 80000004H): up to 48 bytes, the rest zero.
pub(crate) type ModelId<'a> = std::borrow::Cow<'a, [u8]>;

/// The properties `hv-*`.
#[derive(Clone, Debug)]
pub(crate) struct Hyperv<'a> {
    /// `cpu->hyperv_features`: bit n is `HYPERV_FEAT_*` n (`target/i386/cpu.h`; the same numbers in all releases).
    pub features: u64,
    pub passthrough: bool,
    pub enforce_cpuid: bool,
    /// `hv-no-nonarch-coresharing`: on, off (`None`) or auto.
    pub no_nonarch_coresharing: OnOffAuto,
    /// `hv-spinlocks`: attempts before notifying; all ones: never, the enlightenment is off.
    pub spinlock_attempts: u32,
    /// `hv-vendor-id`, checked and cut by `x86_cpu_hyperv_realize`; `None`: `Microsoft Hv`.
    pub vendor: Option<&'a str>,
    pub version_build: u32,
    pub version_major: u16,
    pub version_minor: u16,
    pub version_service_pack: u32,
    pub version_service_branch: u8,
    pub version_service_number: u32,
    pub max_vps: i32,
    pub synic_kvm_only: bool,
}

/// A property with three values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnOffAuto {
    On,
    #[default]
    Off,
    Auto,
}

impl Properties<'_> {
    /// The defaults of `x86_cpu_properties` in a release. A property that a release does not have has the value with
    /// which later releases do what that one does.
    pub(super) fn of(release: usize) -> Self {
        let mut properties = Self::newest();
        if release < release::V7_2 {
            properties.vendor_cpuid_only = false;
            let hyperv = &mut properties.hyperv;
            (hyperv.version_build, hyperv.version_major, hyperv.version_minor) = (0x1bbc, 6, 1);
        }
        if release < release::V10_0 {
            properties.amd_topoext_features_only = false;
            properties.l1_cache_per_core = false;
            properties.legacy_multi_node = true;
        }
        if release < release::V11_1 {
            properties.consistent_cache = false;
            properties.vendor_cpuid_only_v2 = false;
            properties.arch_cap_always_on = true;
            properties.pdcm_on_even_without_pmu = true;
        }
        properties
    }

    /// The value of a switch by its name; `None` if it is none.
    pub(super) fn boolean(&self, name: &str) -> Option<bool> {
        let Some(Field::Bool(of)) = field(name) else { return None };
        Some(*of(&mut self.clone()))
    }

    fn newest() -> Self {
        Self {
            vendor: [0; 12],
            family: 0,
            model: 0,
            stepping: 0,
            model_id: ModelId::Borrowed(&[]),
            level: UNSET,
            xlevel: UNSET,
            xlevel2: UNSET,
            level_func7: UNSET,
            min_level: 0,
            min_xlevel: 0,
            min_xlevel2: 0,
            min_level_func7: 0,
            check: true,
            enforce: false,
            force_features: false,
            migratable: true,
            full_cpuid_auto_level: true,
            intel_pt_auto_level: true,
            arch_cap_always_on: false,
            pdcm_on_even_without_pmu: false,
            phys_bits: 0,
            guest_phys_bits: UNSET,
            host_phys_bits: false,
            host_phys_bits_limit: 0,
            legacy_cache: true,
            l3_cache: true,
            host_cache_info: false,
            consistent_cache: true,
            l1_cache_per_core: true,
            amd_topoext_features_only: true,
            legacy_multi_node: false,
            cpuid_0xb: true,
            force_cpuid_0x1f: false,
            vendor_cpuid_only: true,
            vendor_cpuid_only_v2: true,
            kvm: true,
            tcg_cpuid: true,
            vmware_cpuid_freq: true,
            tsc_frequency: 0,
            hyperv: Hyperv::newest(),
            pmu: false,
            lbr_fmt: !0x3f,
            lmce: false,
            ucode_rev: 0,
            avx10_version: 0,
        }
    }
}

impl Hyperv<'_> {
    fn newest() -> Self {
        Self {
            features: 0,
            passthrough: false,
            enforce_cpuid: false,
            no_nonarch_coresharing: OnOffAuto::Off,
            spinlock_attempts: u32::MAX,
            vendor: None,
            version_build: 0x3839,
            version_major: 10,
            version_minor: 0,
            version_service_pack: 0,
            version_service_branch: 0,
            version_service_number: 0,
            max_vps: -1,
            synic_kvm_only: false,
        }
    }
}
