//! What the board checks before its CPUs are made and after (`hw/i386/pc.c`, `hw/i386/x86.c`, `hw/i386/fw_cfg.c`).

use cpusieve_knowledge::qemu::MachineKind;

use super::cpu::{Irqchip, Question};
use super::instance::Instance;
use super::leaves;
use super::refusal::Refusal;
use super::release::{V7_2, V10_0, V11_1};
use super::words::FEAT_8000_0001_EDX;

const LM: u64 = 1 << 29;
/// VMX in leaf 1's ECX, MCE and MCA in its EDX.
const VMX: u32 = 1 << 5;
const MCE_AND_MCA: u32 = 1 << 7 | 1 << 14;
/// Machines until this version know the files of their firmware by name (`legacy_fw_cfg_order`).
const LEGACY_FIRMWARE: (u16, u16) = (2, 5);
/// Machines until this version have tables of SMBIOS 2.0.
const SMBIOS_2: (u16, u16) = (8, 0);
/// Machines until this version number CPUs as they come.
const COUNTED_CPUS: (u16, u16) = (1, 3);
/// The CPUs that an ISA bus is meant for (`hw/i386/isapc.c`).
const ISA_CPUS: [&str; 7] = ["486", "athlon", "kvm32", "pentium", "pentium2", "pentium3", "qemu32"];
const GIB: u64 = 1 << 30;

/// `hw/i386/isapc.c:pc_init_isa`: since 10.2 other CPUs than old ones of 32 bits are deprecated there.
pub(super) fn cpu_of_isapc(question: &Question<'_>, name: &str) -> Option<String> {
    let deprecated =
        question.release >= V11_1 && question.machine.kind == MachineKind::Isapc && !ISA_CPUS.contains(&name);
    deprecated.then(|| format!("warning: cpu type {name}-x86_64-cpu is deprecated for isapc machine"))
}

/// `x86_cpu_apic_id_from_index`: the oldest machines of 5.2 number CPUs as they come (`compat_apic_id_mode`). Ids grow with
/// the number, so that all are the same if the last one is.
pub(super) fn compatible_apic_ids(question: &Question<'_>) -> Option<String> {
    let machine = question.machine;
    let mode = machine.kind == MachineKind::Pc && machine.version.is_some_and(|version| version <= COUNTED_CPUS);
    let last = u64::from(question.smp.max_cpus().max(1) - 1);
    let text = "APIC IDs set in compatibility mode, CPU topology won't match the configuration";
    (mode && leaves::last_apic_id(&question.smp) != last).then(|| text.to_owned())
}

/// `x86_cpus_init`: before 8.0 or so an APIC id above 254 needs KVM's local APIC. 5.2 looks at it later.
pub(super) fn apic_ids(question: &Question<'_>) -> Result<(), Refusal> {
    let in_kernel = question.accelerator.is_kvm() && question.irqchip != Irqchip::Off;
    if (V7_2..V10_0).contains(&question.release) && !in_kernel && has_wide_apic_ids(question) {
        let text = "current -smp configuration requires kernel irqchip and X2APIC API support.";
        return Err(Refusal::plain(text));
    }
    Ok(())
}

/// Whether the highest APIC id is more than 254 (`apic_id_limit`).
fn has_wide_apic_ids(question: &Question<'_>) -> bool {
    leaves::last_apic_id(&question.smp) > 254
}

impl Instance<'_> {
    /// `pc_memory_init`: all that the board maps must be addressable, the window for 64-bit PCI included; since 7.1 or so.
    ///
    /// The guest's memory is taken to end below 4 GiB: more of it moves the window up.
    pub(super) fn address_space(&self) -> Result<(), Refusal> {
        let Some(window) = self.pci_window() else { return Ok(()) };
        let bits = self.cpu.phys_bits;
        let (used, limit) = (4 * GIB + window - 1, (1_u64 << bits.min(63)) - 1);
        if limit < used {
            let text = format!("Address space limit 0x{limit:x} < 0x{used:x} phys-bits too low ({bits})");
            return Err(Refusal::plain(text));
        }
        Ok(())
    }

    /// Whether more memory could be too much for the CPU's addresses: fewer bits than every host has.
    pub(super) fn memory_may_not_fit(&self) -> bool {
        self.pci_window().is_some() && self.cpu.phys_bits < 39
    }

    /// The size of the window for 64-bit PCI, where the release looks whether the CPU reaches it.
    fn pci_window(&self) -> Option<u64> {
        let window = match self.cpu.question.machine.kind {
            MachineKind::Pc => 2 * GIB,
            MachineKind::Q35 => 32 * GIB,
            _ => return None,
        };
        let looks = match self.release() {
            ..V7_2 => false,
            V7_2 => self.cpu.phys_bits > 32,
            _ => self.cpu.feature(FEAT_8000_0001_EDX) & LM != 0,
        };
        looks.then_some(window)
    }

    /// 5.2's `pc_machine_done`: old machines do not know the file for IA32_FEATURE_CONTROL (`get_fw_cfg_order`). Later
    /// releases name it.
    pub(super) fn feature_control(&self) -> Option<String> {
        let machine = self.cpu.question.machine;
        let legacy = self.release() < V7_2
            && matches!(machine.kind, MachineKind::Pc | MachineKind::Q35)
            && machine.version.is_some_and(|version| version <= LEGACY_FIRMWARE);
        let text = "warning: Unknown firmware file in legacy mode: etc/msr_feature_control";
        (legacy && self.has_feature_control()).then(|| text.to_owned())
    }

    /// `fw_cfg_build_feature_control`: whether the firmware has something to set in it. Leaf 1 may be above the limit, and
    /// another one answer for it.
    fn has_feature_control(&self) -> bool {
        let leaf_1 = leaves::of_first(&self.cpu, 1, 0);
        leaf_1.ecx & VMX != 0 || self.reports_local_errors() && leaf_1.edx & MCE_AND_MCA == MCE_AND_MCA
    }

    /// `hw/smbios/smbios.c:smbios_build_type_4_table`: since 8.1 or so machines whose firmware tables are in SMBIOS's first
    /// form refuse what a byte does not count.
    pub(super) fn processors_in_a_byte(&self) -> Result<(), Refusal> {
        let question = &self.cpu.question;
        let old = matches!(question.machine.kind, MachineKind::Pc | MachineKind::Q35)
            && question.machine.version.is_some_and(|version| version <= SMBIOS_2);
        if self.release() >= V10_0 && old && question.smp.threads_per_package() >= 255 {
            return Err(Refusal::plain(
                "SMBIOS 2.0 doesn't support number of processor cores/threads more than 255, use -machine \
                 smbios-entry-point-type=64 option to enable SMBIOS 3.0 support",
            ));
        }
        Ok(())
    }

    /// 5.2's `pc_machine_done`: an APIC id above 254 needs an interrupt-remapping unit, of which nothing is known here.
    pub(super) fn extended_interrupt_mode(&self) -> Result<(), Refusal> {
        let question = &self.cpu.question;
        let pc = matches!(question.machine.kind, MachineKind::Pc | MachineKind::Q35 | MachineKind::Isapc);
        if self.release() < V7_2 && pc && has_wide_apic_ids(question) {
            return Err(Refusal::plain(
                "current -smp configuration requires Extended Interrupt Mode enabled. You can add an IOMMU using: \
                 -device intel-iommu,intremap=on,eim=on",
            ));
        }
        Ok(())
    }
}
