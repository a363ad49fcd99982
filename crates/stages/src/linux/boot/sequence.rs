//! The kernel's set-up functions, in the order in which a 64-bit kernel calls them on its boot CPU.

use cpusieve_knowledge::linux::TREES;
use cpusieve_model::{Registers, Vendor};

use super::program::NO_FEATURE;
use super::state::{Boot, Lasts, Mark};

/// `init/main.c:start_kernel`, as far as CPU features are concerned, up to the copy that `/proc/cpuinfo` shows.
pub(super) fn start_kernel(boot: &mut Boot<'_>) {
    early_identify_cpu(boot);
    setup_arch(boot);
    tsc_init(boot);
    identify_cpu(boot);
    cpu_select_mitigations(boot);
    fpu_init_system(boot);
}

/// `common.c:early_identify_cpu`.
fn early_identify_cpu(boot: &mut Boot<'_>) {
    if boot.release() < (5, 10) {
        // Up to 5.9 the parameters of XSAVE are read by the FPU's code, before anything else is.
        boot.run_for_ever("fpu__init_parse_early_param");
    }
    get_cpu_cap(boot);
    cpu_parse_early_param(boot);
    boot.run("parse_topology_leaf");
    topology_amd(boot);
    early_init(boot);
    filter_cpuid_features(boot);
    bsp_init(boot);
    boot.cpu_set_bug_bits();
    boot.run("split_lock_setup");
    boot.run_for_ever("early_identify_cpu");
    boot.run_for_ever("detect_nopl");
}

/// `common.c:get_cpu_cap`: CPUID as far as it announces leaves, and what is made of it at once.
fn get_cpu_cap(boot: &mut Boot<'_>) {
    let program = boot.program;
    for &(word, source) in &program.words {
        let read = match source.leaf {
            // Only the set-up code of Transmeta (on 32-bit kernels), Centaur and Zhaoxin reads theirs.
            0x8086_0001 | 0xc000_0001 => false,
            7 => boot.has_leaf(7) && boot.cpuid(7, 0).eax >= source.subleaf,
            // Up to 4.18: the second register only if the first announces it (7.0 alike).
            0xf if source.subleaf == 1 => boot.has_leaf(0xf) && boot.cpuid(0xf, 0).edx >> 1 & 1 == 1,
            leaf => boot.has_leaf(leaf),
        };
        if read {
            boot.fill_word(word, boot.cpuid(source.leaf, source.subleaf).get(source.register));
        }
    }
    // Neighbours in the list come from the same leaf.
    let mut latest = None;
    for &(number, place) in &program.scattered {
        let registers = match latest {
            Some((leaf, subleaf, registers)) if (leaf, subleaf) == (place.leaf, place.subleaf) => registers,
            _ => scattered_leaf(boot, place.leaf, place.subleaf),
        };
        latest = Some((place.leaf, place.subleaf, registers));
        if registers.get(place.register) >> place.bit & 1 == 1 {
            boot.copy_bit(number);
        }
    }
    boot.run("init_speculation_control");
    boot.run("get_cpu_cap");
    boot.apply_forced_caps();
}

/// `scattered.c:init_scattered_cpuid_features`: a leaf above the maximum of its range is not read.
fn scattered_leaf(boot: &Boot<'_>, leaf: u32, subleaf: u32) -> Registers {
    let maximum = boot.cpuid(leaf & 0xffff_0000, 0).eax;
    if (leaf..=leaf | 0xffff).contains(&maximum) { boot.cpuid(leaf, subleaf) } else { Registers::default() }
}

/// `common.c:cpu_parse_early_param`, and where older trees read the same parameters.
fn cpu_parse_early_param(boot: &mut Boot<'_>) {
    boot.run_for_ever("cpu_parse_early_param");
    clearcpuid(boot, "clearcpuid");
    if boot.release() >= (6, 15) {
        clearcpuid(boot, "setcpuid");
    }
}

/// `common.c:parse_set_clear_cpuid`: numbers in every tree, names from 5.18 on.
fn clearcpuid(boot: &mut Boot<'_>, key: &'static str) {
    let program = boot.program;
    let names = boot.release() >= (5, 18);
    let caps = u16::from(TREES.get(boot.tree).map_or(0, |tree| tree.ncapints)) * 32;
    for item in boot.cmdline.list(key) {
        let number = match item.parse::<u16>() {
            Ok(number) if number < caps => number,
            Ok(_) => continue,
            Err(_) if names => {
                let named = program.features.iter().find(|row| row.feature.shown == Some(item));
                match named {
                    Some(row) => row.number,
                    None => {
                        // From 6.15 on, names of bugs are understood too.
                        if boot.release() >= (6, 15) {
                            boot.named_bug(item, key == "setcpuid");
                        }
                        continue;
                    }
                }
            }
            // `get_option` stops at the first thing that is no number.
            Err(_) => break,
        };
        if key == "setcpuid" {
            boot.setup_force_cpu_cap(number, Mark::SetCpuid);
        } else {
            boot.clear(number, Mark::ClearCpuid, Lasts::ForEver);
        }
    }
}

/// `c_early_init` of the vendor.
fn early_init(boot: &mut Boot<'_>) {
    match boot.vendor {
        Vendor::Intel => {
            // For ever is right for all but PAT and PSE, which nothing sets again.
            boot.run_for_ever("early_init_intel");
            boot.run_for_ever("check_memory_type_self_snoop_errata");
            boot.run_for_ever("check_mpx_erratum");
            boot.run("detect_extended_topology_early");
            boot.run("detect_tme_early");
        }
        Vendor::Amd => {
            boot.run("early_init_amd");
            boot.run_for_ever("early_detect_mem_encrypt");
        }
        Vendor::Hygon => boot.run("early_init_hygon"),
        Vendor::Centaur => boot.run("early_init_centaur"),
        Vendor::Zhaoxin => boot.run("early_init_zhaoxin"),
        Vendor::Transmeta | Vendor::Other => {}
    }
}

/// `c_bsp_init` of the vendor.
fn bsp_init(boot: &mut Boot<'_>) {
    match boot.vendor {
        Vendor::Amd => {
            boot.run("bsp_init_amd");
            boot.run_for_ever("bsp_determine_snp");
            boot.run("tsa_init");
        }
        Vendor::Hygon => boot.run("bsp_init_hygon"),
        _ => {}
    }
}

/// `topology_amd.c:cpu_parse_topology_amd`.
fn topology_amd(boot: &mut Boot<'_>) {
    if matches!(boot.vendor, Vendor::Amd | Vendor::Hygon) {
        boot.run("topoext_fixup");
        boot.run("cpu_parse_topology_amd");
    }
}

/// `common.c:filter_cpuid_features`.
fn filter_cpuid_features(boot: &mut Boot<'_>) {
    let program = boot.program;
    for &(number, leaf) in &program.levels {
        if number != NO_FEATURE && boot.caps.has(number) && leaf > boot.levels.0 {
            boot.clear(number, Mark::Level, Lasts::Pass);
        }
    }
}

/// `setup.c:setup_arch`: early parameters, the hypervisor, the clock, page tables.
fn setup_arch(boot: &mut Boot<'_>) {
    const EARLY_PARAMETERS: [&str; 22] = [
        "x86_nopcid_setup",
        "x86_noinvpcid_setup",
        "x86_nofsgsbase_setup",
        "x86_sep_setup",
        "x86_mpx_setup",
        "x86_rdrand_setup",
        "setup_disable_smep",
        "setup_disable_smap",
        "setup_noclflush",
        "nosgx",
        "ibt_setup",
        "notsc_setup",
        "parse_lapic",
        "parse_memopt",
        "setup_disableapic",
        "setup_nolapic",
        "setup_nox2apic",
        "init_sev_config",
        "tlbi_setup",
        "vsyscall_setup",
        "check_x2apic",
        "setup_arch",
    ];
    boot.find_kvm();
    boot.run("tdx_early_init");
    boot.run_for_ever("xen_start_kernel");
    boot.run_for_ever("xen_init_capabilities");
    for parameter in EARLY_PARAMETERS {
        boot.run_for_ever(parameter);
    }
    for platform in ["vmware_set_capabilities", "ms_hyperv_init_platform", "jailhouse_init_platform", "sme_early_init"]
    {
        boot.run(platform);
    }
    tsc_early_init(boot);
    boot.run_for_ever("mtrr_overwrite_state");
    boot.run_for_ever("guest_force_mtrr_state");
    boot.run_for_ever("pti_check_boottime_disable");
    boot.run_for_ever("setup_pcid");
    boot.run_for_ever("apic_check_deadline_errata");
    boot.run_for_ever("apic_validate_deadline_timer");
    boot.run_for_ever("apic_verify");
    boot.run("paravirt_set_cap");
    boot.run_for_ever("pti_clone_pgtable");
}

/// `tsc.c:tsc_early_init`: the frequency, from the hypervisor if it has a word in this (`x86_platform.calibrate_tsc`),
/// else from the CPU.
fn tsc_early_init(boot: &mut Boot<'_>) {
    if !boot.has("TSC") {
        return;
    }
    let told = boot.cmdline.value("tsc_early_khz").is_some();
    if !told {
        boot.run("kvm_get_tsc_khz");
        boot.run("xen_tsc_khz");
        boot.run("mfld_calibrate_tsc");
    }
    // KVM, VMware, Hyper-V and Jailhouse put functions of their own in the place of the native ones.
    if boot.has("TSC_KNOWN_FREQ") {
        return;
    }
    let base_mhz = boot.vendor == Vendor::Intel && boot.has_leaf(0x16) && boot.cpuid(0x16, 0).eax != 0;
    if !base_mhz {
        boot.run("cpu_khz_from_msr");
    }
    if !told {
        boot.run("native_calibrate_tsc");
    }
}

/// `tsc.c:tsc_init`, called by `late_time_init`.
fn tsc_init(boot: &mut Boot<'_>) {
    boot.run("xen_time_init");
    boot.run("snp_secure_tsc_init");
    boot.run_for_ever("tsc_init");
    // `tsc=unstable`: the function ends before it.
    if !boot.cmdline.given("tsc=unstable") {
        boot.run("detect_art");
    }
}

/// `common.c:identify_cpu`: everything again, from zero.
fn identify_cpu(boot: &mut Boot<'_>) {
    boot.begin_pass();
    get_cpu_cap(boot);
    boot.run("detect_nopl");
    boot.run("parse_topology_leaf");
    topology_amd(boot);
    boot.apply_forced_caps();
    boot.run("identify_cpu");
    init(boot);
    boot.run("squash_the_stupid_serial_number");
    boot.run("setup_smap");
    boot.run_for_ever("setup_lass");
    filter_cpuid_features(boot);
    boot.run("x86_init_rdrand");
    boot.run("setup_pku");
    boot.run_for_ever("setup_cet");
    boot.apply_forced_caps();
    boot.run("ppin_init");
    boot.run("amd_detect_ppin");
    boot.run("intel_ppin_init");
    boot.run_for_ever("cpu_init_fred_exceptions");
    boot.run_for_ever("tsx_dev_mode_disable");
    boot.run_for_ever("tsx_init");
    boot.run_for_ever("x86_vmx_init");
    boot.run("tdx_init");
    boot.run_for_ever("xen_enable_syscall");
    boot.run_for_ever("xen_enable_sysenter");
}

/// `c_init` of the vendor.
fn init(boot: &mut Boot<'_>) {
    match boot.vendor {
        Vendor::Intel => init_intel(boot),
        Vendor::Amd => init_amd(boot),
        Vendor::Hygon => init_hygon(boot),
        Vendor::Centaur => init_centaur(boot),
        Vendor::Zhaoxin => init_zhaoxin(boot),
        Vendor::Transmeta => boot.run("init_transmeta"),
        Vendor::Other => {
            boot.run("early_init_cyrix");
            boot.run("init_cyrix");
        }
    }
    boot.vendor_bugs();
}

/// `intel.c:init_intel`.
fn init_intel(boot: &mut Boot<'_>) {
    early_init(boot);
    boot.run("intel_workarounds");
    boot.run("init_intel");
    init_ia32_feat_ctl(boot);
    boot.run("detect_vmx_virtcap");
    boot.run("init_cpuid_fault");
    boot.run("probe_xeon_phi_r3mwait");
}

/// `feat_ctl.c:init_ia32_feat_ctl`; trees before 5.6 have no such rules.
fn init_ia32_feat_ctl(boot: &mut Boot<'_>) {
    boot.run("init_ia32_feat_ctl");
    if boot.has("VMX") && boot.has("MSR_IA32_FEAT_CTL") {
        boot.init_vmx_capabilities();
    }
}

/// `amd.c:init_amd`; rules say which families and models each of the functions below is for.
fn init_amd(boot: &mut Boot<'_>) {
    early_init(boot);
    boot.run("init_amd");
    for family in ["init_amd_k6", "init_amd_k7", "init_amd_k8", "clear_rdrand_cpuid_bit"] {
        boot.run(family);
    }
    boot.run("init_amd_zen_common");
    boot.run("init_amd_zn");
    for zen in ["init_amd_zen1", "init_amd_zen2", "init_amd_zen3", "init_amd_zen4", "init_amd_zen5"] {
        boot.run(zen);
    }
    boot.run("init_spectral_chicken");
    boot.run("fix_erratum_1386");
    boot.run("cpu_has_ibpb_brtype_microcode");
    boot.run("amd_get_topology");
}

/// `hygon.c:init_hygon`.
fn init_hygon(boot: &mut Boot<'_>) {
    early_init(boot);
    boot.run("init_hygon");
    boot.run("init_spectral_chicken");
    boot.run("hygon_get_topology");
}

/// `centaur.c:init_centaur`.
fn init_centaur(boot: &mut Boot<'_>) {
    early_init(boot);
    boot.run("init_centaur");
    if boot.family >= 6 {
        padlock(boot);
        boot.run("init_c3");
    }
    boot.run("centaur_detect_vmx_virtcap");
    init_ia32_feat_ctl(boot);
}

/// `zhaoxin.c:init_zhaoxin`.
fn init_zhaoxin(boot: &mut Boot<'_>) {
    early_init(boot);
    boot.run("init_zhaoxin");
    if boot.family >= 6 {
        padlock(boot);
        boot.run("init_zhaoxin_cap");
    }
    boot.run("zhaoxin_detect_vmx_virtcap");
    init_ia32_feat_ctl(boot);
}

/// The word of leaf C0000001H, which only `init_c3` and `init_zhaoxin_cap` read.
fn padlock(boot: &mut Boot<'_>) {
    let program = boot.program;
    let here = program.words.iter().find(|(_, source)| source.leaf == 0xc000_0001);
    if let Some(&(word, source)) = here
        && boot.cpuid(0xc000_0000, 0).eax >= source.leaf
    {
        boot.fill_word(word, boot.cpuid(source.leaf, 0).get(source.register));
    }
}

/// `bugs.c:cpu_select_mitigations`.
fn cpu_select_mitigations(boot: &mut Boot<'_>) {
    const SELECT: [&str; 26] = [
        "spectre_v1_select_mitigation",
        "spectre_v1_apply_mitigation",
        "retbleed_select_mitigation",
        "retbleed_apply_mitigation",
        "spectre_v2_select_mitigation",
        "spectre_v2_apply_mitigation",
        "spectre_v2_determine_rsb_fill_type_at_vmexit",
        "spectre_v2_select_rsb_mitigation",
        "spectre_v2_user_select_mitigation",
        "spec_ctrl_bhi_dis",
        "bhi_select_mitigation",
        "bhi_apply_mitigation",
        "__ssb_select_mitigation",
        "ssb_apply_mitigation",
        "l1tf_select_mitigation",
        "l1tf_apply_mitigation",
        "mds_select_mitigation",
        "mds_apply_mitigation",
        "mmio_apply_mitigation",
        "srso_select_mitigation",
        "srso_apply_mitigation",
        "its_select_mitigation",
        "its_apply_mitigation",
        "tsa_select_mitigation",
        "tsa_apply_mitigation",
        "vmscape_select_mitigation",
    ];
    for select in SELECT {
        boot.run_for_ever(select);
    }
    boot.run_for_ever("vmscape_apply_mitigation");
    boot.run_for_ever("gds_select_mitigation");
    boot.run_for_ever("gds_apply_mitigation");
}

/// `fpu/init.c:fpu__init_system`. Up to 6.0 it runs in `early_identify_cpu`; nothing that it looks at changes between.
fn fpu_init_system(boot: &mut Boot<'_>) {
    boot.run_for_ever("fpu__init_system_early_generic");
    boot.run_for_ever("fpu__init_system_xstate_size_legacy");
    boot.run_for_ever("fpu__xstate_clear_all_cpu_caps");
    boot.run_for_ever("fpu__init_disable_system_xstate");
    boot.run("fpu__init_system_xstate");
}

/// Functions that rules cite and that run after CPU 0's copy for `/proc/cpuinfo` was made, or on no 64-bit kernel with
/// more than one CPU: what they do is not seen there.
#[cfg(test)]
pub(super) const TOO_LATE: [&str; 3] = ["intel_pmu_arch_lbr_init", "hyperv_init", "alternatives_enable_smp"];
