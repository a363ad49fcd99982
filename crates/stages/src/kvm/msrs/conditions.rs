//! The conditions of `feature_bits.tsv`, decided on a loaded module.

use std::ops::Range;

use cpusieve_model::{MsrBit, State};

use super::Making;
use super::plan::Ask;
use crate::kvm::answer::{Backend, Module};
use crate::linux::boot::Unlisted;

/// `ARCH_CAP_SKIP_VMENTRY_L1DFLUSH`
const SKIP_VMENTRY_L1DFLUSH: MsrBit = MsrBit { index: 0x10a, bit: 3 };

/// `ARCH_CAP_GDS_CTRL`: the microcode can switch the mitigation of gather data sampling.
const GDS_CTRL: MsrBit = MsrBit { index: 0x10a, bit: 25 };

/// `GDS_MITG_LOCKED` of `IA32_MCU_OPT_CTRL`: the mitigation cannot be switched off.
const GDS_MITIGATION_LOCKED: MsrBit = MsrBit { index: 0x123, bit: 5 };

/// `IA32_PERF_CAPABILITIES`
const PERF_CAPABILITIES: u32 = 0x345;

/// The first format of branch records (bits 5:0 of `IA32_PERF_CAPABILITIES`) with which perf knows a call stack mode:
/// that of Haswell (`arch/x86/events/intel/lbr.c:intel_pmu_lbr_init_hsw`).
const FIRST_WITH_CALL_STACK: u64 = 4;

/// A parameter that `vmx.c:vmx_hardware_setup` clears unless VMX has one of each group.
#[derive(Debug)]
pub(super) struct VmxSwitch {
    pub(super) name: &'static str,
    /// With its module.
    full_name: &'static str,
    groups: &'static [&'static [MsrBit]],
}

/// flexpriority (`cpu_has_vmx_flexpriority`), apicv (`cpu_has_vmx_apicv`), vpid, accessed and dirty bits, mode-based
/// execution.
pub(super) static VMX_SWITCHES: [VmxSwitch; 5] = [
    VmxSwitch {
        name: "flexpriority",
        full_name: "kvm_intel.flexpriority",
        groups: &[&[bit(0x48b, 32)], &[bit(0x482, 53)]],
    },
    VmxSwitch {
        name: "enable_apicv",
        full_name: "kvm_intel.enable_apicv",
        groups: &[&[bit(0x48b, 40)], &[bit(0x48b, 41)], &[bit(0x481, 39)]],
    },
    VmxSwitch {
        name: "vpid",
        full_name: "kvm_intel.vpid",
        groups: &[&[bit(0x48b, 37)], &[bit(0x48c, 32)], &[bit(0x48c, 41), bit(0x48c, 42)]],
    },
    VmxSwitch { name: "eptad", full_name: "kvm_intel.eptad", groups: &[&[bit(0x48c, 21)]] },
    VmxSwitch { name: "mbec", full_name: "kvm_intel.mbec", groups: &[&[bit(0x48b, 54)], &[bit(0x48c, 22)]] },
];

const fn bit(index: u32, bit: u8) -> MsrBit {
    MsrBit { index, bit }
}

impl Making<'_, '_> {
    /// Whether all conditions hold; `None` if that hangs on a register of the hardware that nobody read.
    pub(super) fn all(&mut self, needs: &Range<usize>) -> Option<bool> {
        let mut all = Some(true);
        let plan = self.plan;
        for (ask, wanted) in plan.asks(needs) {
            match self.holds(ask) {
                Some(holds) if holds == *wanted => {}
                Some(_) => return Some(false),
                None => all = None,
            }
        }
        all
    }

    fn holds(&mut self, ask: &'static Ask) -> Option<bool> {
        let module = self.module;
        match ask {
            Ask::Flag(number) => Some(module.kernel.bit(*number)),
            Ask::Bug(bug) => Some(module.kernel.any_bug(*bug)),
            Ask::Cap(slot) => Some(slot.is_some_and(|slot| module.offers(slot))),
            Ask::Switch(switch) => Some(switch.is_some_and(|switch| module.is_on(switch))),
            Ask::Vmx(switch) => self.vmx_switch(switch),
            Ask::Module(backend) => Some(module.backend == *backend),
            Ask::Hardware(bit) => Some(self.hardware(bit.index)? >> bit.bit & 1 == 1),
            Ask::SoFar(bit) if self.unknown.contains(&bit.index) => None,
            Ask::SoFar(bit) => Some(self.made(bit.index) >> bit.bit & 1 == 1),
            Ask::Readable(index) => self.readable(*index),
            Ask::Is(holds) => Some(holds(module)),
        }
    }
}

impl Making<'_, '_> {
    /// Whether reading this MSR does not fault. Where nobody tried, CPUID tells it of some.
    fn readable(&self, index: u32) -> Option<bool> {
        /// MSRs, and the capability with which they came.
        const CAME_WITH: [(u32, &str); 5] =
            [(0xe1, "WAITPKG"), (0x10a, "ARCH_CAPABILITIES"), (0x1c4, "XFD"), (0xd90, "MPX"), (0xc000_0103, "RDTSCP")];
        match self.module.input.msrs.state(MsrBit { index, bit: 0 }) {
            State::Present | State::Absent => return Some(true),
            State::Unreadable => return Some(false),
            State::Unknown | State::Reserved => {}
        }
        if self.module.input.unlisted == Unlisted::Zero {
            return Some(true);
        }
        let with = CAME_WITH.iter().find(|(msr, _)| *msr == index).map(|(_, name)| *name);
        // TSX_CTRL is there if the register that announces it says so, and that is asked for beside it.
        with.map(|name| self.module.boot_cpu_has(name)).or((index == 0x122).then_some(true))
    }

    /// Whether such a parameter is on, once the module has asked the hardware.
    fn vmx_switch(&mut self, switch: &'static VmxSwitch) -> Option<bool> {
        if let Some((_, on)) = self.vmx_switches.iter().find(|(other, _)| std::ptr::eq(*other, switch)) {
            return *on;
        }
        let on = self.ask_vmx_switch(switch);
        self.vmx_switches.push((switch, on));
        on
    }

    fn ask_vmx_switch(&mut self, switch: &VmxSwitch) -> Option<bool> {
        let given = self.module.input.params.get(switch.full_name);
        if given.is_some_and(|value| matches!(value.as_str(), "N" | "n" | "0")) {
            return Some(false);
        }
        for alternatives in switch.groups {
            let mut any = false;
            for bit in *alternatives {
                any |= self.hardware(bit.index)? >> bit.bit & 1 == 1;
            }
            if !any {
                return Some(false);
            }
        }
        Some(true)
    }
}

/// Whether `l1tf_vmx_mitigation` is anything but `VMENTER_L1D_FLUSH_NEVER` (`vmx.c:vmx_setup_l1d_flush`). Where the CPU
/// does not need the flush, or an outer hypervisor does it, the variable says so and not "never".
pub(super) fn flushes_l1d(module: &Module<'_>) -> bool {
    let needed = module.backend == Backend::Intel
        && module.boot_cpu_has_bug("L1TF")
        && module.parameter("ept")
        && !(module.boot_cpu_has("ARCH_CAPABILITIES") && msr_bit(module, SKIP_VMENTRY_L1DFLUSH));
    if !needed {
        return true;
    }
    let chosen = last_value(module, "l1tf");
    match module.input.params.get("kvm_intel.vmentry_l1d_flush").map_or("auto", String::as_str) {
        "never" => chosen == Some("full,force"),
        "auto" => chosen != Some("off") && !(chosen.is_none() && mitigations_off(module)),
        _ => true,
    }
}

/// `arch/x86/kernel/cpu/bugs.c:gds_select_mitigation`: the CPU has the bug, and its microcode hides it.
pub(super) fn gds_ucode_mitigated(module: &Module<'_>) -> bool {
    if !module.boot_cpu_has_bug("GDS") || module.boot_cpu_has("HYPERVISOR") || !msr_bit(module, GDS_CTRL) {
        return false;
    }
    let chosen = last_value(module, "gather_data_sampling");
    let off = chosen == Some("off") || chosen.is_none() && mitigations_off(module);
    !off || msr_bit(module, GDS_MITIGATION_LOCKED)
}

/// Whether perf knows how many branch records the CPU has.
pub(super) fn knows_branch_records(module: &Module<'_>) -> bool {
    branch_record_format(module).is_some()
}

/// Whether perf knows the branch records' call stack mode.
pub(super) fn knows_call_stacks(module: &Module<'_>) -> bool {
    branch_record_format(module).is_some_and(|format| format >= FIRST_WITH_CALL_STACK)
}

/// The format of the host's branch records; none if perf cannot know it.
fn branch_record_format(module: &Module<'_>) -> Option<u64> {
    module.boot_cpu_has("PDCM").then(|| module.msr(PERF_CAPABILITIES))?.map(|value| value & 0x3f)
}

fn msr_bit(module: &Module<'_>, bit: MsrBit) -> bool {
    module.msr(bit.index).is_some_and(|value| value >> bit.bit & 1 == 1)
}

fn mitigations_off(module: &Module<'_>) -> bool {
    last_value(module, "mitigations") == Some("off")
}

/// The last value of `key=` on the host kernel's command line.
fn last_value<'a>(module: &Module<'a>, key: &str) -> Option<&'a str> {
    let words = module.input.cmdline?.split_ascii_whitespace();
    words.rev().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}
