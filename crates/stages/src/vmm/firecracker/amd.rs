//! What Firecracker does for guests with an AMD CPU.
//!
//! Source: `src/vmm/src/cpu_config/x86_64/cpuid/amd/normalize.rs`.

use cpusieve_model::{KvmCpuidEntry, Register, Vendor};

use super::{CACHE_SHARING, HOST_LEAF, Place, apply_brand_string, edit_bits, release, required, sharing};
use crate::vmm::edits::Setting;
use crate::vmm::table::SIGNIFICANT_INDEX;
use crate::vmm::{Error, Vcpu};

const LEVEL: &str = "FCR0021";
const AMD_TOPOLOGY: &str = "FCR0024";

/// `AmdCpuid::normalize`.
pub(super) fn normalize(vcpu: &mut Vcpu<'_>, setting: Setting, place: Place) -> Result<(), Error> {
    passthrough_cache_topology(vcpu)?;
    // `update_structured_extended_entry`
    edit_bits(vcpu, setting, 7, 0)?;
    if vcpu.question.release < release("1.11") {
        update_largest_extended_fn_entry(vcpu)?;
    }
    // `update_extended_feature_fn_entry`
    edit_bits(vcpu, setting, 0x8000_0001, 0)?;
    update_amd_feature_entry(vcpu, place)?;
    update_extended_cache_topology_entry(vcpu, place);
    update_extended_apic_id_entry(vcpu, place)?;
    apply_brand_string(vcpu, b"AMD EPYC")
}

/// Leaves 8000001DH and 8000001EH are read from the host's CPU.
fn passthrough_cache_topology(vcpu: &mut Vcpu<'_>) -> Result<(), Error> {
    let Some(host) = vcpu.question.host else {
        let because = "the host's CPUID was not seen, and Firecracker reads these leaves there";
        vcpu.assume("host's leaves 8000001DH and 8000001EH", "what KVM offers", because);
        return Ok(());
    };
    if host.vendor() != Some(Vendor::Amd) {
        return Err(Error::UnsupportedVendor);
    }
    match host.get(0x8000_001e, 0) {
        Some(registers) => {
            let entry = KvmCpuidEntry { leaf: 0x8000_001e, subleaf: 0, flags: 0, registers };
            vcpu.table.insert(entry, HOST_LEAF);
        }
        None => vcpu.assume("host's leaf 8000001EH", "what KVM offers", "it was not seen on the host"),
    }
    for subleaf in 0..256 {
        let Some(registers) = host.get(0x8000_001d, subleaf) else {
            vcpu.assume(format!("host's leaf 8000001DH subleaf {subleaf}"), "no cache", "it was not seen on the host");
            break;
        };
        // No type: no more caches. The field has five bits; four are read.
        if registers.eax & 0xf == 0 {
            break;
        }
        let entry = KvmCpuidEntry { leaf: 0x8000_001d, subleaf, flags: SIGNIFICANT_INDEX, registers };
        vcpu.table.insert(entry, HOST_LEAF);
    }
    Ok(())
}

fn update_largest_extended_fn_entry(vcpu: &mut Vcpu<'_>) -> Result<(), Error> {
    required(vcpu, 0x8000_0000, 0)?;
    vcpu.table.write((0x8000_0000, 0, Register::Eax), u32::MAX, 0x8000_001f, LEVEL);
    Ok(())
}

fn update_amd_feature_entry(vcpu: &mut Vcpu<'_>, place: Place) -> Result<(), Error> {
    required(vcpu, 0x8000_0008, 0)?;
    let ecx = (0x8000_0008, 0, Register::Ecx);
    // Bits of the APIC id within the package, then the number of threads less one.
    vcpu.table.field(ecx, 12..=15, 7, AMD_TOPOLOGY);
    vcpu.table.field(ecx, 0..=7, place.count.saturating_sub(1), AMD_TOPOLOGY);
    Ok(())
}

fn update_extended_cache_topology_entry(vcpu: &mut Vcpu<'_>, place: Place) {
    for subleaf in 0..256 {
        let Some(entry) = vcpu.table.get(0x8000_001d, subleaf) else { break };
        if let Some(others) = sharing(place, entry.eax >> 5 & 0b111) {
            vcpu.table.field((0x8000_001d, subleaf, Register::Eax), 14..=25, others, CACHE_SHARING);
        }
    }
}

fn update_extended_apic_id_entry(vcpu: &mut Vcpu<'_>, place: Place) -> Result<(), Error> {
    required(vcpu, 0x8000_001e, 0)?;
    let register = |register| (0x8000_001e, 0, register);
    vcpu.table.write(register(Register::Eax), u32::MAX, place.index, AMD_TOPOLOGY);
    vcpu.table.field(register(Register::Ebx), 0..=7, place.index / place.threads, AMD_TOPOLOGY);
    vcpu.table.field(register(Register::Ebx), 8..=15, place.threads.saturating_sub(1), AMD_TOPOLOGY);
    // One node, number 0.
    vcpu.table.field(register(Register::Ecx), 0..=10, 0, AMD_TOPOLOGY);
    Ok(())
}
