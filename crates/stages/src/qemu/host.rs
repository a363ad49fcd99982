//! What QEMU sees of the machine: the host's CPUID instruction and KVM's answers (`target/i386/host-cpu.c`,
//! `target/i386/kvm/kvm.c`).

use cpusieve_model::{CpuidTable, KvmView, Register, Registers, has_subleaves};

use super::cpu::{Accelerator, Question};

/// The answers of the accelerator's host. Under TCG nothing is asked, and every answer is zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host<'a> {
    cpuid: Option<&'a CpuidTable>,
    kvm: Option<&'a KvmView>,
}

impl<'a> Host<'a> {
    pub(super) fn of(question: &Question<'a>) -> Self {
        match question.accelerator {
            Accelerator::Kvm { host, kvm } => Self { cpuid: Some(host), kvm: Some(kvm) },
            Accelerator::Tcg => Self { cpuid: None, kvm: None },
        }
    }

    /// KVM's side.
    pub(super) fn kvm(&self) -> Option<&'a KvmView> {
        self.kvm
    }

    /// `host_cpuid`: the instruction itself. A leaf above its range's maximum gives what the vendor's CPUs give: Intel's
    /// the data of the highest basic leaf, all others zeros (Intel SDM volume 2A, CPUID; AMD APM volume 3).
    pub(super) fn cpuid(&self, leaf: u32, subleaf: u32) -> Registers {
        let Some(table) = self.cpuid else { return Registers::default() };
        let Some(leaf) = self.answering_leaf(table, leaf) else { return Registers::default() };
        match table.get(leaf, subleaf) {
            Some(registers) => registers,
            None if has_subleaves(leaf) => Registers::default(),
            None => table.get(leaf, 0).unwrap_or_default(),
        }
    }

    fn answering_leaf(&self, table: &CpuidTable, leaf: u32) -> Option<u32> {
        let head = table.get(leaf & 0x8000_0000, 0).unwrap_or_default();
        if leaf <= head.eax || leaf & 0xffff_0000 == 0x4000_0000 {
            return Some(leaf);
        }
        let intel = self.vendor() == *b"GenuineIntel" && leaf < 0x4000_0000;
        intel.then_some(head.eax)
    }

    /// The vendor string of the host's leaf 0.
    pub(super) fn vendor(&self) -> [u8; 12] {
        vendor_bytes(self.cpuid.and_then(|table| table.get(0, 0)).unwrap_or_default())
    }

    /// Family, model and stepping of the host (`host_cpu_vendor_fms`).
    pub(super) fn signature(&self) -> (u32, u32, u32) {
        let eax = self.cpuid(1, 0).eax;
        let family = (eax >> 8 & 0xf) + (eax >> 20 & 0xff);
        let model = (eax >> 4 & 0xf) | (eax & 0xf_0000) >> 12;
        (family, model, eax & 0xf)
    }

    /// `host_cpu_phys_bits`: bits of a physical address, 36 where no leaf says.
    pub(super) fn phys_bits(&self) -> u32 {
        let head = self.cpuid(0x8000_0000, 0).eax;
        if head >= 0x8000_0008 { self.cpuid(0x8000_0008, 0).eax & 0xff } else { 36 }
    }

    /// `KVM_GET_SUPPORTED_CPUID` as it came: the first entry of this leaf and subleaf, whatever its flags
    /// (`cpuid_find_entry`); zero where there is none.
    pub(super) fn offered(&self, leaf: u32, subleaf: u32, register: Register) -> u32 {
        let entries = self.kvm.and_then(|kvm| kvm.supported.as_deref()).unwrap_or_default();
        let found = entries.iter().find(|entry| entry.leaf == leaf && entry.subleaf == subleaf);
        found.map_or(0, |entry| entry.registers.get(register))
    }

    /// `KVM_CHECK_EXTENSION`; `None` if no capability was seen at all.
    pub(super) fn capability(&self, number: u32) -> Option<i64> {
        let caps = &self.kvm?.caps;
        (!caps.is_empty()).then(|| caps.get(&number).copied().unwrap_or(0))
    }

    /// `KVM_X86_GET_MCE_CAP_SUPPORTED`: KVM may have local machine check exceptions on Intel's CPUs
    /// (`arch/x86/kvm/vmx/vmx.c:hardware_setup`). Records do not hold its answer, so `max` is not given them.
    pub(super) fn may_have_local_errors(&self) -> bool {
        self.vendor() == *b"GenuineIntel"
    }

    /// Whether `KVM_GET_MSR_INDEX_LIST` has this MSR; where the list was not seen, whether it is a feature MSR.
    pub(super) fn lists_msr(&self, index: u32) -> bool {
        let Some(kvm) = self.kvm else { return false };
        match &kvm.msr_index {
            Some(list) => list.contains(&index),
            None => kvm.msr_features.as_ref().is_some_and(|features| features.contains_key(&index)),
        }
    }
}

/// EBX, EDX and ECX of leaf 0 as the twelve characters that they spell (`x86_cpu_vendor_words2str`).
fn vendor_bytes(leaf: Registers) -> [u8; 12] {
    let mut bytes = [0; 12];
    for (slot, register) in bytes.chunks_exact_mut(4).zip([leaf.ebx, leaf.edx, leaf.ecx]) {
        slot.copy_from_slice(&register.to_le_bytes());
    }
    bytes
}
