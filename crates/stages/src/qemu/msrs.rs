//! The feature MSRs that QEMU writes to a new vCPU (`target/i386/kvm/kvm.c:kvm_init_msrs`, `kvm_msr_entry_add_vmx`).

use std::collections::BTreeMap;

use super::instance::Instance;
use super::release::{V7_2, V10_0};
use super::words::*;

const VMX: u64 = 1 << 5;
const LM: u64 = 1 << 29;
const FRED: u64 = 1 << 17;
const ENABLE_EPT: u64 = 1 << 1;
const TSC_SCALING: u64 = 1 << 25;
const ACTIVATE_SECONDARY_CONTROLS: u64 = 1 << 31;
/// Host-address-space size, in the half of IA32_VMX_TRUE_EXIT_CTLS that says what may be 1.
const HOST_ADDR_SPACE_SIZE: u64 = 1 << (32 + 9);
/// What KVM's IA32_VMX_BASIC keeps: revision, size of the VMXON region, memory type.
const BASIC_OF_HOST: u64 = 0x7fff_ffff | 0x1fff << 32 | 0xf << 50;
/// What KVM's IA32_VMX_MISC keeps: the timer's shift, the size of MSR lists.
const MISC_OF_HOST: u64 = 0x1f | 7 << 25;
/// EPT paging-structure memory types uncacheable and write-back.
const EPT_MEMORY_TYPES: u64 = 1 << 8 | 1 << 14;

/// VMX controls: MSR, word, and the bits that are 1 in CPUs without the "true" MSRs.
const CONTROLS: [(u32, W, u32); 5] = [
    (0x48e, FEAT_VMX_PROCBASED_CTLS, 0x0401_e172),
    (0x48d, FEAT_VMX_PINBASED_CTLS, 0x0000_0016),
    (0x48f, FEAT_VMX_EXIT_CTLS, 0x0003_6dff),
    (0x490, FEAT_VMX_ENTRY_CTLS, 0x0000_11ff),
    (0x48b, FEAT_VMX_SECONDARY_CTLS, 0),
];

/// `kvm_init_msrs`: none under TCG.
pub(super) fn kvm_init_msrs(instance: &Instance<'_>) -> BTreeMap<u32, u64> {
    let mut msrs = BTreeMap::new();
    if !instance.is_kvm() {
        return msrs;
    }
    let (host, cpu) = (instance.offer.host, &instance.cpu);
    for (index, word) in [(0x10a, FEAT_ARCH_CAPABILITIES), (0xcf, FEAT_CORE_CAPABILITY)] {
        if host.lists_msr(index) {
            msrs.insert(index, cpu.feature(word));
        }
    }
    let perf = instance.offer.kvm_arch_get_supported_msr_feature(0x345);
    if host.lists_msr(0x345) && cpu.properties.pmu && perf != 0 {
        msrs.insert(0x345, perf & cpu.feature(FEAT_PERF_CAPABILITIES));
    }
    if host.lists_msr(0x8b) {
        msrs.insert(0x8b, cpu.properties.ucode_rev);
    }
    if cpu.feature(FEAT_1_ECX) & VMX != 0 {
        kvm_msr_entry_add_vmx(instance, &mut msrs);
    }
    msrs
}

fn kvm_msr_entry_add_vmx(instance: &Instance<'_>, msrs: &mut BTreeMap<u32, u64>) {
    let cpu = &instance.cpu;
    let of_host = |index| instance.offer.kvm_arch_get_supported_msr_feature(index);
    let basic = of_host(0x480);
    if basic == 0 {
        return;
    }
    for (index, word, default1) in CONTROLS {
        msrs.insert(index, make_vmx_msr_value(cpu.feature(word), default1));
    }
    if cpu.feature(FEAT_8000_0001_EDX) & LM != 0 {
        msrs.entry(0x48f).and_modify(|exit| *exit |= HOST_ADDR_SPACE_SIZE);
    }
    let types = if cpu.feature(FEAT_VMX_SECONDARY_CTLS) & ENABLE_EPT != 0 { EPT_MEMORY_TYPES } else { 0 };
    msrs.insert(0x48c, cpu.feature(FEAT_VMX_EPT_VPID_CAPS) | of_host(0x48c) & types);
    msrs.insert(0x480, cpu.feature(FEAT_VMX_BASIC) | basic & BASIC_OF_HOST);
    msrs.insert(0x485, cpu.feature(FEAT_VMX_MISC) | of_host(0x485) & MISC_OF_HOST);
    if instance.offer.host.lists_msr(0x491) {
        msrs.insert(0x491, cpu.feature(FEAT_VMX_VMFUNC));
    }
    // CR0.PE, NE and PG, and CR4.VMXE must be 1.
    msrs.insert(0x486, 0x8000_0021);
    msrs.insert(0x488, 0x2000);
    msrs.insert(0x48a, vmcs_enum(instance));
}

/// A control whose feature is on may be 0 or 1; of the others those of `default1` must be 1, and the rest 0.
fn make_vmx_msr_value(features: u64, default1: u32) -> u64 {
    let features = (features & u64::from(u32::MAX)) as u32;
    let (may_be_one, may_be_zero) = (features | default1, features | !default1);
    u64::from(!may_be_zero) | u64::from(may_be_one) << 32
}

/// IA32_VMX_VMCS_ENUM: the highest field, by the newest feature that has fields of its own.
fn vmcs_enum(instance: &Instance<'_>) -> u64 {
    let cpu = &instance.cpu;
    let fields = [
        (V10_0, FEAT_7_1_EAX, FRED, 0x52),
        (V10_0, FEAT_VMX_EXIT_CTLS, ACTIVATE_SECONDARY_CONTROLS, 0x44),
        (V7_2, FEAT_VMX_SECONDARY_CTLS, TSC_SCALING, 0x32),
    ];
    let newest =
        fields.into_iter().find(|&(since, word, bit, _)| instance.release() >= since && cpu.feature(word) & bit != 0);
    newest.map_or(0x2e, |(.., field)| field)
}
