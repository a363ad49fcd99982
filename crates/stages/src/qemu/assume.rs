//! What was not seen of the host and taken for granted.

use std::borrow::Cow;

use super::host::Host;
use super::instance::Instance;
use super::words::FEAT_XSAVE_XCR0_LO;
use crate::linux::boot::Assumption;

/// XTILECFG and XTILEDATA.
const DYNAMIC_COMPONENTS: u64 = 3 << 17;

/// Everything that decided something and was not seen.
pub(super) fn assumptions(instance: &Instance<'_>) -> Vec<Assumption> {
    let mut assumed = Vec::new();
    let host = instance.offer.host;
    let mut assume = |what: &'static str, value: &'static str, because: &'static str| {
        assumed.push(Assumption { what: Cow::Borrowed(what), value: Cow::Borrowed(value), because, hangs: Vec::new() });
    };
    if instance.memory_may_not_fit() {
        assume("the guest's memory", "less than 3 GiB", "with more, so few bits of address may not do");
    }
    let Some(kvm) = host.kvm() else { return assumed };
    if kvm.supported.is_none() {
        assume("KVM_GET_SUPPORTED_CPUID", "nothing", "it is not in the record");
    }
    if kvm.caps.is_empty() {
        assume("KVM's capabilities", "those of every kernel since 5.10", "they are not in the record");
    } else if !kvm.caps.contains_key(&9) {
        assume("most vCPUs", "enough", "KVM_CAP_NR_VCPUS is not in the record");
    }
    if kvm.msr_features.is_none() {
        assume("KVM's feature MSRs", "none", "they are not in the record");
    }
    if kvm.msr_index.is_none() {
        assume("KVM_GET_MSR_INDEX_LIST", "the feature MSRs", "it is not in the record");
    }
    if asks_hyperv(instance, host) && kvm.hyperv.is_none() {
        assume("KVM_GET_SUPPORTED_HV_CPUID", "every enlightenment", "it is not in the record");
    }
    if instance.cpu.feature(FEAT_XSAVE_XCR0_LO) & DYNAMIC_COMPONENTS != 0 {
        assume("ARCH_REQ_XCOMP_GUEST_PERM", "granted", "the host's kernel is asked only when a guest starts");
    }
    assumed
}

fn asks_hyperv(instance: &Instance<'_>, host: Host<'_>) -> bool {
    let hyperv = &instance.cpu.properties.hyperv;
    (hyperv.features != 0 || hyperv.passthrough) && host.capability(44) != Some(0)
}
