//! Which mitigations a kernel chooses by itself (`bugs.c:cpu_select_mitigations`), as far as they make capabilities.
//!
//! None of these is printed but `ibpb_exit_to_user` (6.1), so no line of `/proc/cpuinfo` hangs on them. Where the
//! command line chooses for a single weakness, or a release was not read, the answer is `None`: unknown.

use cpusieve_model::Vendor;

use super::state::Boot;
use super::truth::Truth;

/// Parameters that choose mitigations one by one.
const CHOICES: [&str; 12] = [
    "spectre_v2",
    "spectre_v2_user",
    "spectre_bhi",
    "spec_rstack_overflow",
    "retbleed",
    "mds",
    "tsx_async_abort",
    "mmio_stale_data",
    "reg_file_data_sampling",
    "l1tf",
    "tsa",
    "indirect_target_selection",
];

/// Parameters without a value that do.
const SWITCHES: [&str; 2] = ["nospectre_v1", "nospectre_v2"];

/// How Spectre v2 is mitigated (`spectre_v2_enabled`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SpectreV2 {
    NotNeeded,
    Retpolines,
    Ibrs,
    EnhancedIbrs,
}

impl Boot<'_> {
    /// Whether the kernel chooses by itself: `Some(false)` if all mitigations are off, `None` if the command line
    /// chooses.
    fn chooses(&mut self) -> Option<bool> {
        if self.chooses.is_none() {
            let chosen = CHOICES.iter().any(|key| self.cmdline.value(key).is_some());
            let switched = SWITCHES.iter().any(|switch| self.cmdline.given(switch));
            let vectors = self.cmdline.value("mitigations").is_some_and(|value| value.contains("no_"));
            // Before 5.10 the code was not read.
            let unknown = chosen || switched || vectors || self.release() < (5, 10);
            self.chooses = Some(if self.mitigations_off() { Some(false) } else { (!unknown).then_some(true) });
        }
        self.chooses.flatten()
    }

    /// Decides a mitigation that the kernel chooses if `condition` holds and nobody chose otherwise.
    fn chosen(&mut self, condition: impl Fn(&Self) -> Option<bool>) -> Option<Truth> {
        let holds = if self.chooses()? { condition(self)? } else { false };
        Some(Truth { holds, on: self.note_cmdline() })
    }

    /// `spectre_v2_select_mitigation`.
    fn spectre_v2(&self) -> SpectreV2 {
        let intel = self.vendor == Vendor::Intel;
        if !self.has_bug("SPECTRE_V2") {
            SpectreV2::NotNeeded
        } else if self.has("IBRS_ENHANCED") {
            SpectreV2::EnhancedIbrs
        } else if intel && self.has_bug("RETBLEED") && self.has("IBRS") {
            SpectreV2::Ibrs
        } else {
            SpectreV2::Retpolines
        }
    }

    /// Spectre v2 is mitigated in one of these ways.
    pub(super) fn spectre_v2_is(&mut self, ways: &[SpectreV2]) -> Option<Truth> {
        self.chosen(|boot| Some(ways.contains(&boot.spectre_v2())))
    }

    /// A single call is retired on VM exits.
    pub(super) fn pbrsb_matters(&mut self) -> Option<Truth> {
        self.chosen(|boot| Some(boot.spectre_v2() == SpectreV2::EnhancedIbrs && boot.has_bug("EIBRS_PBRSB")))
    }

    /// IBPB between tasks (`spectre_v2_user_select_mitigation`).
    pub(super) fn ibpb_between_tasks(&mut self) -> Option<Truth> {
        self.chosen(|boot| Some(boot.has("IBPB")))
    }

    fn amd_retbleed(&self) -> bool {
        matches!(self.vendor, Vendor::Amd | Vendor::Hygon) && self.has_bug("RETBLEED")
    }

    /// IBPB around firmware calls.
    pub(super) fn ibpb_for_firmware(&mut self) -> Option<Truth> {
        self.chosen(|boot| Some(boot.amd_retbleed() && boot.has("IBPB") && boot.spectre_v2() != SpectreV2::NotNeeded))
    }

    /// IBRS around firmware calls.
    pub(super) fn ibrs_for_firmware(&mut self) -> Option<Truth> {
        self.chosen(|boot| {
            let instead = boot.amd_retbleed() && boot.has("IBPB");
            Some(!instead && boot.has("IBRS") && boot.spectre_v2() == SpectreV2::Retpolines)
        })
    }

    /// Speculative store bypass is switched off for all; by itself the kernel leaves it to each task.
    pub(super) fn ssb_for_all(&mut self) -> Option<Truth> {
        self.chosen(|boot| match boot.cmdline.value("spec_store_bypass_disable") {
            None => Some(false),
            Some("on") => Some(boot.has_bug("SPEC_STORE_BYPASS") && boot.has("SSBD")),
            Some(_) => None,
        })
    }

    /// `l1tf_select_mitigation`: page table entries are inverted, unless there is memory above half of the address space.
    pub(super) fn l1tf_inverts(&mut self) -> Option<Truth> {
        self.chosen(|boot| Some(boot.has_bug("L1TF")))
    }

    /// `spectre_v1_select_mitigation`.
    pub(super) fn swapgs_needs_fences(&mut self) -> Option<Truth> {
        self.chosen(|boot| {
            let smap_works = boot.has("SMAP") && !boot.has_bug("CPU_MELTDOWN");
            Some(boot.has_bug("SPECTRE_V1") && (boot.has("FSGSBASE") || !smap_works))
        })
    }

    /// `tsa_select_mitigation`: guests of releases up to 6.15 try it without the microcode too.
    fn tsa_is_mitigated(&self) -> bool {
        self.has_bug("TSA") && (self.has("VERW_CLEAR") || self.is_vm() && self.release() < (6, 16))
    }

    /// CPU buffers are cleared on the way to user space. What MMIO stale data or RFDS alone bring about is unknown.
    pub(super) fn clears_buffers(&mut self) -> Option<Truth> {
        self.chosen(|boot| {
            let taa = boot.has_bug("TAA") && boot.has("RTM");
            if boot.has_bug("MDS") || taa || boot.tsa_is_mitigated() {
                return Some(true);
            }
            (!boot.has_bug("MMIO_STALE_DATA") && !boot.has_bug("RFDS")).then_some(false)
        })
    }

    /// CPU buffers are cleared on the way to guests; from 6.19 on also against other weaknesses than TSA.
    pub(super) fn clears_buffers_for_guests(&mut self) -> Option<Truth> {
        self.chosen(|boot| {
            if boot.tsa_is_mitigated() {
                return Some(true);
            }
            let others = ["MDS", "TAA", "MMIO_STALE_DATA", "RFDS"].iter().any(|bug| boot.has_bug(bug));
            (boot.release() < (6, 19) || !others).then_some(false)
        })
    }

    /// The same against MMIO stale data alone.
    pub(super) fn clears_buffers_for_mmio(&mut self) -> Option<Truth> {
        self.chosen(|boot| (!boot.has_bug("MMIO_STALE_DATA")).then_some(false))
    }

    /// `cpu_smt_possible`: a core announces more than one thread, and the command line does not forbid them.
    fn smt_possible(&self) -> bool {
        let threads = if self.has("TOPOEXT") && self.has_leaf(0x8000_001e) {
            (self.cpuid(0x8000_001e, 0).ebx >> 8 & 0xff) + 1
        } else if self.has_leaf(0xb) {
            self.cpuid(0xb, 0).ebx & 0xffff
        } else {
            1
        };
        threads > 1 && !self.cmdline.given("nosmt=force")
    }

    /// `srso_select_mitigation`: CPUs older than family 19H are safe without SMT; up to 6.15 only with new microcode.
    fn safe_without_smt(&self) -> bool {
        let microcode = self.has("IBPB_BRTYPE") || self.family == 0x17 && self.has("AMD_IBPB");
        self.family < 0x19 && !self.smt_possible() && (microcode || self.release() >= (6, 16))
    }

    /// Whether returns are made safe against SRSO. Family 1AH has other ways.
    fn safe_returns(&self) -> Option<bool> {
        if !self.has_bug("SRSO") || self.safe_without_smt() {
            return Some(false);
        }
        (self.family <= 0x19).then_some(true)
    }

    /// SRSO does no harm without SMT.
    pub(super) fn srso_without_smt(&mut self) -> Option<Truth> {
        self.chosen(|boot| Some(boot.has_bug("SRSO") && boot.safe_without_smt()))
    }

    /// SRSO is mitigated by safe returns.
    pub(super) fn srso_by_safe_returns(&mut self) -> Option<Truth> {
        self.chosen(Self::safe_returns)
    }

    /// Returns are untrained against retbleed or SRSO.
    pub(super) fn untrains_returns(&mut self) -> Option<Truth> {
        self.chosen(|boot| if boot.amd_retbleed() { Some(true) } else { boot.safe_returns() })
    }

    /// What only the command line brings about.
    pub(super) fn only_if_asked(&mut self) -> Option<Truth> {
        self.chosen(|_| Some(false))
    }

    /// `its_select_mitigation`.
    pub(super) fn its_by_thunks(&mut self) -> Option<Truth> {
        self.chosen(|boot| Some(boot.has_bug("ITS") && boot.spectre_v2() != SpectreV2::NotNeeded))
    }

    /// `spec_ctrl_bhi_dis`.
    pub(super) fn bhi_in_hardware(&mut self) -> Option<Truth> {
        self.chosen(|boot| Some(boot.has_bug("BHI") && boot.has("BHI_CTRL")))
    }

    /// `bhi_select_mitigation`: not needed either if retpolines have RRSBA switched off.
    pub(super) fn bhi_in_software(&mut self) -> Option<Truth> {
        // IA32_ARCH_CAPABILITIES[19]: returns may take other predictions, which RRSBA_CTRL switches off.
        let rrsba = self.arch_capabilities().0 >> 19 & 1 == 1;
        self.chosen(|boot| {
            let retpolines_suffice = boot.spectre_v2() == SpectreV2::Retpolines && (!rrsba || boot.has("RRSBA_CTRL"));
            Some(boot.has_bug("BHI") && !boot.has("BHI_CTRL") && !retpolines_suffice)
        })
    }
}
