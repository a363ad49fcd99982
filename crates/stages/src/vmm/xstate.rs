//! The state of AMX: the kernel lets a process's guests have it only if the process asked.
//!
//! KVM lists in leaf 0DH the components that the asking process is permitted (`arch/x86/kvm/cpuid.c:__do_cpuid_func`), so
//! a VMM that asks for permission first sees more than a recorder that did not.

use cpusieve_model::{KvmCpuidEntry, Register};

use super::Vcpu;
use super::table::SIGNIFICANT_INDEX;

/// XTILECFG and XTILEDATA in XCR0.
const XTILE: u32 = 0b11 << 17;

/// Whether KVM can give AMX to a guest whose VMM asks: as KVM says itself, else as its feature bit AMX_TILE says.
pub(super) fn amx_can_be_had(vcpu: &Vcpu<'_>) -> bool {
    let xtile = u64::from(XTILE);
    vcpu.question.kvm.xcomp_guest_supp.map_or_else(
        || vcpu.table.get(7, 0).is_some_and(|leaf| leaf.edx >> 24 & 1 == 1),
        |permitted| permitted & xtile == xtile,
    )
}

/// Leaf 0DH as KVM answers it once the process has the permission for AMX.
pub(super) fn permit_amx(vcpu: &mut Vcpu<'_>, rule: &'static str) {
    let Some(first) = vcpu.table.get(0xd, 0) else { return };
    if first.eax & XTILE == XTILE {
        return;
    }
    let seen = |subleaf| vcpu.question.host.and_then(|host| host.get(0xd, subleaf));
    let (Some(config), Some(data)) = (seen(17), seen(18)) else {
        let because = "the host's leaf 0DH was not seen, and KVM's answer was recorded without permission for AMX";
        vcpu.assume("subleaves 11H and 12H of leaf 0DH", "not there", because);
        return;
    };
    let fault_on_use = vcpu.table.get(0xd, 1).is_some_and(|leaf| leaf.eax >> 4 & 1 == 1);
    for (subleaf, mut registers) in [(17, config), (18, data)] {
        registers.edx = 0;
        if !fault_on_use {
            registers.ecx &= !(1 << 2);
        }
        let entry = KvmCpuidEntry { leaf: 0xd, subleaf, flags: SIGNIFICANT_INDEX, registers };
        vcpu.table.insert_in_leaf(entry, rule);
    }
    let enabled = first.eax | XTILE;
    vcpu.table.write((0xd, 0, Register::Eax), XTILE, XTILE, rule);
    let size = required_size(vcpu, u64::from(enabled) | u64::from(first.edx) << 32, false);
    vcpu.table.write((0xd, 0, Register::Ebx), u32::MAX, size, rule);
    vcpu.table.write((0xd, 0, Register::Ecx), u32::MAX, size, rule);
    // XSAVEC or XSAVES: the compact form has a size.
    if let Some(second) = vcpu.table.get(0xd, 1).filter(|second| second.eax & (1 << 1 | 1 << 3) != 0) {
        let supervisor = u64::from(second.ecx) | u64::from(second.edx) << 32;
        let size = required_size(vcpu, u64::from(enabled) | supervisor, true);
        vcpu.table.write((0xd, 1, Register::Ebx), u32::MAX, size, rule);
    }
}

/// `xstate_required_size`: the bytes of an XSAVE area with these components.
fn required_size(vcpu: &Vcpu<'_>, components: u64, compact: bool) -> u32 {
    let present = (2..64).filter(|component| components >> component & 1 == 1);
    // The legacy region and the header.
    present.filter_map(|component| vcpu.table.get(0xd, component)).fold(512 + 64, |end: u32, leaf| {
        let aligned = if leaf.ecx >> 1 & 1 == 1 { end.checked_next_multiple_of(64).unwrap_or(u32::MAX) } else { end };
        let offset = if compact { aligned } else { leaf.ebx };
        end.max(offset.saturating_add(leaf.eax))
    })
}
