//! What Firecracker does for guests with an Intel CPU.
//!
//! Source: `src/vmm/src/cpu_config/x86_64/cpuid/intel/normalize.rs`.

use cpusieve_model::{KvmCpuidEntry, Register, Registers};

use super::{CACHE_SHARING, Place, TOPOLOGY, apply_brand_string, edit_bits, release, required, sharing};
use crate::vmm::edits::Setting;
use crate::vmm::{Error, Vcpu};

const NO_PMU: &str = "FCR0017";

/// The brand that every guest is told, with and without a frequency.
const BRAND: &[u8] = b"Intel(R) Xeon(R) Processor";
const BRAND_AND_AT: &[u8] = b"Intel(R) Xeon(R) Processor @";

/// Bytes of a brand string.
const BRAND_LENGTH: usize = 48;

/// `IntelCpuid::normalize`.
pub(super) fn normalize(vcpu: &mut Vcpu<'_>, setting: Setting, place: Place) -> Result<(), Error> {
    update_deterministic_cache_entry(vcpu, place);
    // `update_power_management_entry`, `update_extended_feature_flags_entry`
    edit_bits(vcpu, setting, 6, 0)?;
    edit_bits(vcpu, setting, 7, 0)?;
    update_performance_monitoring_entry(vcpu)?;
    if vcpu.question.release >= release("1.12") {
        update_extended_topology_v2_entry(vcpu);
    }
    update_brand_string_entry(vcpu)
}

fn update_deterministic_cache_entry(vcpu: &mut Vcpu<'_>, place: Place) {
    let cores = place.count / place.threads;
    for subleaf in 0..256 {
        let Some(entry) = vcpu.table.get(4, subleaf).filter(|entry| !entry.is_zero()) else { break };
        let eax = (4, subleaf, Register::Eax);
        if let Some(others) = sharing(place, entry.eax >> 5 & 0b111) {
            vcpu.table.field(eax, 14..=25, others, CACHE_SHARING);
        }
        vcpu.table.field(eax, 26..=31, cores.saturating_sub(1), CACHE_SHARING);
    }
}

fn update_performance_monitoring_entry(vcpu: &mut Vcpu<'_>) -> Result<(), Error> {
    required(vcpu, 0xa, 0)?;
    vcpu.table.replace(0xa, 0, Registers::default(), NO_PMU);
    Ok(())
}

/// Leaf 1FH says what leaf 0BH says, where KVM offers it.
fn update_extended_topology_v2_entry(vcpu: &mut Vcpu<'_>) {
    if vcpu.table.entry(0x1f, 0).is_none() {
        return;
    }
    for subleaf in 0..256 {
        let Some(&KvmCpuidEntry { flags, registers, .. }) = vcpu.table.entry(0xb, subleaf) else { break };
        vcpu.table.insert(KvmCpuidEntry { leaf: 0x1f, subleaf, flags, registers }, TOPOLOGY);
    }
}

fn update_brand_string_entry(vcpu: &mut Vcpu<'_>) -> Result<(), Error> {
    let leaves = [0x8000_0002, 0x8000_0003, 0x8000_0004];
    let host: Option<Vec<Registers>> =
        vcpu.question.host.and_then(|host| leaves.iter().map(|&leaf| host.get(leaf, 0)).collect());
    let host = match host {
        Some(host) => host,
        None => {
            let because = "the host's CPUID was not seen; KVM offers the host's own brand string";
            vcpu.assume("host's brand string", "what KVM offers", because);
            let kvm = vcpu.question.kvm.supported_table().unwrap_or_default();
            leaves.iter().filter_map(|&leaf| kvm.get(leaf, 0)).collect()
        }
    };
    let text: Vec<u8> =
        host.iter().flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]).flat_map(u32::to_le_bytes).collect();
    let brand = default_brand_string(&text).unwrap_or_else(|| BRAND.to_vec());
    apply_brand_string(vcpu, &brand)
}

/// The general brand with the frequency that ends the host's (`@ 2.50GHz`); `None` if that has none or it is too long.
fn default_brand_string(host: &[u8]) -> Option<Vec<u8>> {
    let unit = host.windows(3).position(|bytes| matches!(bytes, [b'T' | b'G' | b'M', b'H', b'z']))?;
    let (before, after) = host.split_at_checked(unit)?;
    let number = before.iter().rev().take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
    let (head, frequency) = before.split_at_checked(before.len().checked_sub(number)?)?;
    // The frequency is kept with the blank before it; all that follows the unit is kept too.
    head.last().filter(|&&byte| byte == b' ')?;
    let brand = [BRAND_AND_AT, b" ", frequency, after].concat();
    (brand.len() <= BRAND_LENGTH).then_some(brand)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brand_keeps_the_frequency_alone() {
        let padded = |text: &str| {
            let mut bytes = text.as_bytes().to_vec();
            bytes.resize(BRAND_LENGTH, 0);
            bytes
        };
        let brand = |text: &str| {
            let brand = default_brand_string(&padded(text))?;
            Some(String::from_utf8(brand).unwrap().trim_end_matches('\0').to_owned())
        };
        let long = "Intel(R) Xeon(R) Platinum 8275CL CPU @ 3.00GHz";
        assert_eq!(brand(long).as_deref(), Some("Intel(R) Xeon(R) Processor @ 3.00GHz"));
        assert_eq!(brand("Intel(R) Xeon(R) Platinum 8488C"), None);
        assert_eq!(brand("Intel @x3.00GHz"), None);
        assert_eq!(brand("GHz"), None);
        // What follows the unit is kept and may be too long; zeros count.
        assert_eq!(brand("A 3.00GHz"), None);
    }
}
