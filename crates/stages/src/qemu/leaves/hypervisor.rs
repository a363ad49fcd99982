//! The leaves from 40000000H that tell a guest what runs it: KVM's, VMware's frequencies, TCG's; Hyper-V's stand in
//! [`super::hyperv`].

use cpusieve_model::{KvmCpuidEntry, Registers};

use super::table::{Slots, TableFull};
use super::words::{FEAT_8000_0007_EDX, FEAT_KVM, FEAT_KVM_HINTS, INVTSC};
use super::{View, hyperv};

/// `KVM_CPUID_SIGNATURE`: the first hypervisor's leaves; a second one's follow 100H later.
const FIRST: u32 = 0x4000_0000;
const SECOND: u32 = 0x4000_0100;
/// VMware's frequencies, counted from [`FIRST`].
const FREQUENCIES: u32 = 0x10;
/// The frequency of the local APIC's timer, in kHz (`KVM_APIC_BUS_FREQUENCY`).
const APIC_BUS_KHZ: u32 = 1_000_000;

/// Registers EBX, ECX and EDX that spell a signature.
pub(super) fn signature(eax: u32, letters: [u8; 12]) -> Registers {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = letters;
    Registers {
        eax,
        ebx: u32::from_le_bytes([a, b, c, d]),
        ecx: u32::from_le_bytes([e, f, g, h]),
        edx: u32::from_le_bytes([i, j, k, l]),
    }
}

/// Puts Hyper-V's leaves in the table, if an enlightenment is on, and then KVM's pair, at 40000000H or after
/// Hyper-V's (`kvm_arch_init_vcpu`). Under TCG there is the leaf that the instruction gives.
pub(super) fn fill(view: &View<'_>, slots: &mut Slots) -> Result<(), TableFull> {
    if !view.is_kvm() {
        let leaf = leaf_40000000(view);
        return if leaf.is_zero() { Ok(()) } else { put(slots, FIRST, leaf) };
    }
    let enlightened = hyperv::is_enabled(view);
    if enlightened {
        hyperv::fill(view, slots)?;
    }
    if !view.cpu.properties.kvm {
        return Ok(());
    }
    let base = if enlightened { SECOND } else { FIRST };
    put(slots, base, signature(base + 1, *b"KVMKVMKVM\0\0\0"))?;
    let eax = view.word(FEAT_KVM);
    put(slots, base + 1, Registers { eax, ebx: 0, ecx: 0, edx: view.word(FEAT_KVM_HINTS) })
}

/// Puts an entry without subleaf or flags in a fresh slot.
pub(super) fn put(slots: &mut Slots, leaf: u32, registers: Registers) -> Result<(), TableFull> {
    *slots.take(leaf, 0)? = KvmCpuidEntry { leaf, subleaf: 0, flags: 0, registers };
    Ok(())
}

/// Appends VMware's frequency leaf where the guest's TSC is known and stable, and no Hyper-V leaf is in its way
/// (`vmware-cpuid-freq`; `tsc_is_stable_and_known`).
pub(super) fn fill_frequencies(view: &View<'_>, slots: &mut Slots) -> Result<(), TableFull> {
    let properties = &view.cpu.properties;
    let wanted = view.is_kvm() && properties.vmware_cpuid_freq && properties.kvm && !hyperv::is_enabled(view);
    let stable = view.word(FEAT_8000_0007_EDX) & INVTSC != 0 || properties.tsc_frequency >= 1000;
    if !wanted || view.cpu.tsc_khz == 0 || !stable {
        return Ok(());
    }
    let khz = (view.cpu.tsc_khz & u64::from(u32::MAX)) as u32;
    // The slot may hold the subleaf number of a leaf that was given up: only these fields are written.
    let slot = slots.take(FIRST + FREQUENCIES, 0)?;
    slot.leaf = FIRST + FREQUENCIES;
    slot.registers = Registers { eax: khz, ebx: APIC_BUS_KHZ, ecx: 0, edx: 0 };
    if let Some(first) = slots.find(FIRST) {
        first.registers.eax = first.registers.eax.max(FIRST + FREQUENCIES);
    }
    Ok(())
}

/// Leaf 40000000H as the CPUID instruction gives it under TCG; under KVM the table is made by [`fill`].
pub(super) fn leaf_40000000(view: &View<'_>) -> Registers {
    if view.is_kvm() || !view.cpu.properties.tcg_cpuid {
        return Registers::default();
    }
    signature(0x4000_0001, *b"TCGTCGTCGTCG")
}
