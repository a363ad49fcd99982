//! The virtual PMU: what the host's perf counts with, as far as KVM may hand it on.

use cpusieve_model::Vendor;

use super::module::{Backend, Module};
use super::setup::Switch;

/// `AMD64_NUM_COUNTERS_CORE` and `AMD64_NUM_COUNTERS` (`arch/x86/include/asm/perf_event.h`).
pub(super) const AMD64_NUM_COUNTERS_CORE: u32 = 6;
const AMD64_NUM_COUNTERS: u32 = 4;

/// `struct x86_pmu_capability`; all zero without a PMU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PmuCapability {
    /// The version that leaf 0AH or 80000022H tells: 0 to 2.
    pub version: u32,
    /// General counters.
    pub counters: u32,
    /// Fixed counters.
    pub fixed_counters: u32,
    /// Bits of a general counter.
    pub width: u32,
    /// Bits of a fixed counter.
    pub fixed_width: u32,
    /// Architectural events that are not there, one bit each.
    pub events_mask: u32,
    /// The number of bits in that mask that mean something.
    pub events_mask_len: u32,
    /// Whether precise sampling works through EPT.
    pub pebs_in_guests: bool,
}

/// The most counters of each kind that KVM has room for; up to 5.15 perf itself knew no fourth fixed counter.
const MAX_INTEL: u32 = 8;
const MAX_FIXED: u32 = 3;

/// `pmu.c:kvm_init_pmu_capability` (`pmu.h` up to 6.12); before 5.18 what `__do_cpuid_func` does with perf's answer.
pub(super) fn kvm_init_pmu_capability(module: &Module<'_>) -> PmuCapability {
    let release = module.release();
    let none = PmuCapability::default();
    // Hybrid parts have no virtual PMU from 6.2 on; the stable 6.1 has it too.
    let hybrid_is_off = release >= (6, 1);
    if !module.switch(Switch::EnablePmu) || hybrid_is_off && module.is_hybrid() {
        return none;
    }
    let host = perf_get_x86_pmu_capability(module);
    let intel = module.vendor() == Vendor::Intel;
    if intel && host.version == 0 || host.counters == 0 {
        return none;
    }
    let most = if module.backend == Backend::Intel { MAX_INTEL } else { AMD64_NUM_COUNTERS_CORE };
    let mut pmu =
        PmuCapability { version: host.version.min(2), fixed_counters: host.fixed_counters.min(MAX_FIXED), ..host };
    if release >= (6, 2) {
        pmu.counters = pmu.counters.min(most);
    }
    if module.backend == Backend::Amd && pmu.counters < AMD64_NUM_COUNTERS_CORE && release >= (6, 6) {
        pmu.counters = pmu.counters.min(AMD64_NUM_COUNTERS);
    }
    pmu
}

/// `arch/x86/events/core.c:perf_get_x86_pmu_capability`.
fn perf_get_x86_pmu_capability(module: &Module<'_>) -> PmuCapability {
    if !works(module) {
        return PmuCapability::default();
    }
    match module.vendor() {
        Vendor::Intel => intel_pmu_init(module),
        Vendor::Amd | Vendor::Hygon => amd_pmu_init(module),
        Vendor::Zhaoxin | Vendor::Centaur => zhaoxin_pmu_init(module),
        _ => PmuCapability::default(),
    }
}

/// `check_hw_exists`: an emulator that loses what is written to MSRs has no PMU that works.
fn works(module: &Module<'_>) -> bool {
    module.asked("kvm.enable_pmu") == Some(true) || module.input.unlisted != crate::linux::boot::Unlisted::Zero
}

/// Leaf 0AH as its fields.
fn leaf_0a(module: &Module<'_>) -> PmuCapability {
    let leaf = module.cpuid(0xa, 0);
    PmuCapability {
        version: leaf.eax & 0xff,
        counters: leaf.eax >> 8 & 0xff,
        width: leaf.eax >> 16 & 0xff,
        fixed_width: leaf.eax >> 16 & 0xff,
        events_mask: leaf.ebx,
        events_mask_len: leaf.eax >> 24,
        fixed_counters: leaf.edx & 0x1f,
        pebs_in_guests: false,
    }
}

/// `arch/x86/events/intel/core.c:intel_pmu_init`. PMUs without leaf 0AH are of no use to KVM.
fn intel_pmu_init(module: &Module<'_>) -> PmuCapability {
    /// Architectural events that Linux knows.
    const EVENTS: u32 = 7;
    let mut pmu = leaf_0a(module);
    if !module.boot_cpu_has("ARCH_PERFMON") || pmu.events_mask_len < EVENTS {
        return PmuCapability::default();
    }
    let assumed = if module.boot_cpu_has("HYPERVISOR") { 0 } else { 3 };
    pmu.fixed_counters = match pmu.version {
        0 | 1 => 0,
        2..=4 => pmu.fixed_counters.max(assumed),
        // From version 5 on ECX lists the counters.
        _ => 32 - module.cpuid(0xa, 0).ecx.leading_zeros(),
    };
    // An erratum of Nehalem: the event is there though the CPU denies it (`intel_nehalem_quirk`).
    let (family, model, _) = module.input.cpuid.signature().unwrap_or_default();
    if family == 6 && matches!(model, 0x1a | 0x1e | 0x1f | 0x2e) {
        pmu.events_mask &= !(1 << 6);
    }
    if module.release() >= (6, 12) && pmu.fixed_counters == 0 {
        pmu.fixed_width = 0;
    }
    PmuCapability { pebs_in_guests: pebs_ept(module, family, model), ..pmu }
}

/// Servers on which perf sets `pebs_ept`, as family and model, and from which release on
/// (`arch/x86/events/intel/core.c:intel_pmu_init`).
const PEBS_EPT: [(u32, u32, (u16, u16)); 7] = [
    (6, 0x6a, (5, 19)),
    (6, 0x6c, (5, 19)),
    (6, 0x8f, (6, 3)),
    (6, 0xcf, (6, 3)),
    (6, 0xad, (6, 3)),
    (6, 0xae, (6, 3)),
    (19, 1, (7, 1)),
];

/// Whether perf samples precisely through EPT: on those servers, and from 6.3 on wherever the format of PEBS records is the
/// fifth or a newer one (`ds.c:intel_ds_init`).
fn pebs_ept(module: &Module<'_>, family: u32, model: u32) -> bool {
    let release = module.release();
    let listed = PEBS_EPT.iter().any(|&(of, number, from)| (of, number) == (family, model) && release >= from);
    let format = || if module.boot_cpu_has("PDCM") { module.msr(0x345).unwrap_or(0) >> 8 & 0xf } else { 0 };
    listed || module.boot_cpu_has("PEBS") && release >= (6, 3) && matches!(format(), 5 | 6)
}

/// `arch/x86/events/amd/core.c:amd_pmu_init`.
fn amd_pmu_init(module: &Module<'_>) -> PmuCapability {
    let pmu = PmuCapability { counters: AMD64_NUM_COUNTERS, width: 48, fixed_width: 48, ..PmuCapability::default() };
    if !module.boot_cpu_has("PERFCTR_CORE") {
        return pmu;
    }
    if !module.boot_cpu_has("PERFMON_V2") {
        return PmuCapability { counters: AMD64_NUM_COUNTERS_CORE, ..pmu };
    }
    PmuCapability { version: 2, counters: module.cpuid(0x8000_0022, 0).ebx & 0xf, ..pmu }
}

/// `arch/x86/events/zhaoxin/core.c:zhaoxin_pmu_init`.
fn zhaoxin_pmu_init(module: &Module<'_>) -> PmuCapability {
    let pmu = leaf_0a(module);
    if pmu.version != 2 || pmu.events_mask_len < 6 {
        return PmuCapability::default();
    }
    pmu
}

impl Module<'_> {
    /// 7.0.EDX\[15\], as the host's kernel has it.
    pub(super) fn is_hybrid(&self) -> bool {
        self.boot_cpu_has("HYBRID_CPU")
    }
}
