//! The names of properties that are no feature bits, and what they may hold.

use super::properties::{OnOffAuto, Properties};

/// Where a property is kept.
type Of<T> = for<'x, 'y> fn(&'x mut Properties<'y>) -> &'x mut T;

/// How a property takes a value.
#[derive(Clone, Copy)]
pub(super) enum Field {
    Bool(Of<bool>),
    U8(Of<u8>),
    U16(Of<u16>),
    U32(Of<u32>),
    U64(Of<u64>),
    I32(Of<i32>),
    OnOffAuto(Of<OnOffAuto>),
    /// One of `HYPERV_FEAT_*`, by its bit.
    Hyperv(u8),
    /// `family`, `model`, `stepping`: not more than this.
    Identity(Of<u32>, u32),
    /// Only these bits: `lbr-fmt`.
    Masked(Of<u64>, u64),
    /// In hertz, not negative.
    TscFrequency,
    /// Exactly twelve bytes.
    Vendor,
    /// Cut at 48 bytes.
    ModelId,
    HypervVendor,
    Avx10Version,
}

/// The fields by property name, in order (`target/i386/cpu.c:x86_cpu_properties`, `x86_cpu_common_class_init`,
/// `max_x86_cpu_properties`).
static FIELDS: &[(&str, Field)] = &[
    ("avx10-version", Field::Avx10Version),
    ("check", Field::Bool(|p| &mut p.check)),
    ("cpuid-0xb", Field::Bool(|p| &mut p.cpuid_0xb)),
    ("enforce", Field::Bool(|p| &mut p.enforce)),
    ("family", Field::Identity(|p| &mut p.family, 0xff + 0xf)),
    ("full-cpuid-auto-level", Field::Bool(|p| &mut p.full_cpuid_auto_level)),
    ("guest-phys-bits", Field::U32(|p| &mut p.guest_phys_bits)),
    ("host-cache-info", Field::Bool(|p| &mut p.host_cache_info)),
    ("host-phys-bits", Field::Bool(|p| &mut p.host_phys_bits)),
    ("host-phys-bits-limit", Field::U8(|p| &mut p.host_phys_bits_limit)),
    ("hv-avic", Field::Hyperv(15)),
    ("hv-crash", Field::Hyperv(3)),
    ("hv-emsr-bitmap", Field::Hyperv(17)),
    ("hv-enforce-cpuid", Field::Bool(|p| &mut p.hyperv.enforce_cpuid)),
    ("hv-evmcs", Field::Hyperv(12)),
    ("hv-frequencies", Field::Hyperv(9)),
    ("hv-ipi", Field::Hyperv(13)),
    ("hv-no-nonarch-coresharing", Field::OnOffAuto(|p| &mut p.hyperv.no_nonarch_coresharing)),
    ("hv-passthrough", Field::Bool(|p| &mut p.hyperv.passthrough)),
    ("hv-reenlightenment", Field::Hyperv(10)),
    ("hv-relaxed", Field::Hyperv(0)),
    ("hv-reset", Field::Hyperv(4)),
    ("hv-runtime", Field::Hyperv(6)),
    ("hv-spinlocks", Field::U32(|p| &mut p.hyperv.spinlock_attempts)),
    ("hv-stimer", Field::Hyperv(8)),
    ("hv-stimer-direct", Field::Hyperv(14)),
    ("hv-syndbg", Field::Hyperv(16)),
    ("hv-synic", Field::Hyperv(7)),
    ("hv-time", Field::Hyperv(2)),
    ("hv-tlbflush", Field::Hyperv(11)),
    ("hv-tlbflush-direct", Field::Hyperv(20)),
    ("hv-tlbflush-ext", Field::Hyperv(19)),
    ("hv-vapic", Field::Hyperv(1)),
    ("hv-vendor-id", Field::HypervVendor),
    ("hv-version-id-build", Field::U32(|p| &mut p.hyperv.version_build)),
    ("hv-version-id-major", Field::U16(|p| &mut p.hyperv.version_major)),
    ("hv-version-id-minor", Field::U16(|p| &mut p.hyperv.version_minor)),
    ("hv-version-id-sbranch", Field::U8(|p| &mut p.hyperv.version_service_branch)),
    ("hv-version-id-snumber", Field::U32(|p| &mut p.hyperv.version_service_number)),
    ("hv-version-id-spack", Field::U32(|p| &mut p.hyperv.version_service_pack)),
    ("hv-vpindex", Field::Hyperv(5)),
    ("hv-xmm-input", Field::Hyperv(18)),
    ("kvm", Field::Bool(|p| &mut p.kvm)),
    ("l3-cache", Field::Bool(|p| &mut p.l3_cache)),
    ("lbr-fmt", Field::Masked(|p| &mut p.lbr_fmt, 0x3f)),
    ("legacy-cache", Field::Bool(|p| &mut p.legacy_cache)),
    ("legacy-multi-node", Field::Bool(|p| &mut p.legacy_multi_node)),
    ("level", Field::U32(|p| &mut p.level)),
    ("level-func7", Field::U32(|p| &mut p.level_func7)),
    ("lmce", Field::Bool(|p| &mut p.lmce)),
    ("migratable", Field::Bool(|p| &mut p.migratable)),
    ("min-level", Field::U32(|p| &mut p.min_level)),
    ("min-xlevel", Field::U32(|p| &mut p.min_xlevel)),
    ("min-xlevel2", Field::U32(|p| &mut p.min_xlevel2)),
    ("model", Field::Identity(|p| &mut p.model, 0xff)),
    ("model-id", Field::ModelId),
    ("phys-bits", Field::U32(|p| &mut p.phys_bits)),
    ("pmu", Field::Bool(|p| &mut p.pmu)),
    ("stepping", Field::Identity(|p| &mut p.stepping, 0xf)),
    ("tcg-cpuid", Field::Bool(|p| &mut p.tcg_cpuid)),
    ("tsc-frequency", Field::TscFrequency),
    ("ucode-rev", Field::U64(|p| &mut p.ucode_rev)),
    ("vendor", Field::Vendor),
    ("vmware-cpuid-freq", Field::Bool(|p| &mut p.vmware_cpuid_freq)),
    ("x-amd-topoext-features-only", Field::Bool(|p| &mut p.amd_topoext_features_only)),
    ("x-arch-cap-always-on", Field::Bool(|p| &mut p.arch_cap_always_on)),
    ("x-consistent-cache", Field::Bool(|p| &mut p.consistent_cache)),
    ("x-force-cpuid-0x1f", Field::Bool(|p| &mut p.force_cpuid_0x1f)),
    ("x-force-features", Field::Bool(|p| &mut p.force_features)),
    ("x-hv-max-vps", Field::I32(|p| &mut p.hyperv.max_vps)),
    ("x-hv-synic-kvm-only", Field::Bool(|p| &mut p.hyperv.synic_kvm_only)),
    ("x-intel-pt-auto-level", Field::Bool(|p| &mut p.intel_pt_auto_level)),
    ("x-l1-cache-per-thread", Field::Bool(|p| &mut p.l1_cache_per_core)),
    ("x-pdcm-on-even-without-pmu", Field::Bool(|p| &mut p.pdcm_on_even_without_pmu)),
    ("x-vendor-cpuid-only", Field::Bool(|p| &mut p.vendor_cpuid_only)),
    ("x-vendor-cpuid-only-v2", Field::Bool(|p| &mut p.vendor_cpuid_only_v2)),
    ("xlevel", Field::U32(|p| &mut p.xlevel)),
    ("xlevel2", Field::U32(|p| &mut p.xlevel2)),
];

/// The field behind a property name; `None` if nothing here depends on that property.
pub(super) fn field(name: &str) -> Option<Field> {
    let found = FIELDS.binary_search_by(|(known, _)| (*known).cmp(name)).ok()?;
    FIELDS.get(found).map(|&(_, field)| field)
}
