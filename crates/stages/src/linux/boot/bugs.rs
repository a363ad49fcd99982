//! The line `bugs`: weaknesses and errata that the kernel knows of this CPU.

mod lists;

use cpusieve_knowledge::linux::TREES;
use cpusieve_knowledge::own;
use cpusieve_model::Vendor;

use super::program::NO_FEATURE;
use super::state::Boot;
use super::truth::Truth;
use lists::{BLACKLIST, Cpu, WHITELIST, first_match, has, no};

/// Bits of IA32_ARCH_CAPABILITIES (MSR 10AH).
mod arch_cap {
    pub(super) const RDCL_NO: u8 = 0;
    pub(super) const IBRS_ALL: u8 = 1;
    pub(super) const RSBA: u8 = 2;
    pub(super) const SSB_NO: u8 = 4;
    pub(super) const MDS_NO: u8 = 5;
    pub(super) const PSCHANGE_MC_NO: u8 = 6;
    pub(super) const TSX_CTRL: u8 = 7;
    pub(super) const TAA_NO: u8 = 8;
    pub(super) const SBDR_SSDP_NO: u8 = 13;
    pub(super) const FBSDP_NO: u8 = 14;
    pub(super) const PSDP_NO: u8 = 15;
    pub(super) const PBRSB_NO: u8 = 24;
    pub(super) const GDS_NO: u8 = 26;
    pub(super) const RFDS_NO: u8 = 27;
    pub(super) const RFDS_CLEAR: u8 = 28;
    pub(super) const ITS_NO: u8 = 62;
}

/// The trees in which the lists of weaknesses were read.
const READ: [&str; 9] = ["5.10", "5.10.262", "6.1", "6.1.192", "6.12", "6.12.117", "7.1.13", "7.2", "7.3"];

/// Bugs whose rows came, or were corrected, with stable releases, so that a tree between those may differ.
const YOUNG: [&str; 14] = [
    "SRBDS",
    "MMIO_STALE_DATA",
    "MMIO_UNKNOWN",
    "RETBLEED",
    "EIBRS_PBRSB",
    "SMT_RSB",
    "GDS",
    "SRSO",
    "RFDS",
    "BHI",
    "ITS",
    "ITS_NATIVE_ONLY",
    "TSA",
    "VMSCAPE",
];

/// The bugs of a boot, by position in the tree's list.
#[derive(Clone, Copy, Default)]
pub(super) struct Bugs {
    /// Set for one pass, or forced.
    set: u64,
    forced: u64,
    cleared: u64,
}

/// What decides about the bugs of one CPU.
struct Facts {
    white: u32,
    black: u32,
    arch_cap: u64,
}

impl Facts {
    const fn lacks(&self, what: u32) -> bool {
        self.white & what != 0
    }

    const fn listed(&self, what: u32) -> bool {
        self.black & what != 0
    }

    const fn cap(&self, bit: u8) -> bool {
        self.arch_cap >> bit & 1 == 1
    }
}

impl Boot<'_> {
    /// The tree's release.
    pub(super) fn release(&self) -> (u16, u16) {
        TREES.get(self.tree).map_or((0, 0), |tree| tree.release)
    }

    /// Whether the tree has a capability of this macro: backports come with their own.
    fn knows(&self, macro_name: &str) -> bool {
        self.program.number(macro_name) != NO_FEATURE
    }

    /// `boot_cpu_has_bug`, by macro.
    pub(super) fn has_bug(&self, macro_name: &str) -> bool {
        self.final_bugs() & self.program.bug(macro_name) != 0
    }

    /// The same by the word that is printed, with the assumptions on which it rests.
    pub(super) fn bug_shown(&self, name: &str) -> Truth {
        let bit = self.program.bug_shown(name);
        let on = self.bug_hangs.iter().filter(|(bugs, _)| bugs & bit != 0).fold(0, |on, (_, mask)| on | mask);
        Truth { holds: self.final_bugs() & bit != 0, on }
    }

    pub(super) const fn final_bugs(&self) -> u64 {
        self.bugs.set & !self.bugs.cleared | self.bugs.forced
    }

    /// The line `bugs`.
    pub(super) fn bug_names(&self) -> Vec<&'static str> {
        let set = self.final_bugs();
        let shown = self.program.bugs.iter().enumerate().filter(|(index, _)| *index < 64 && set >> index & 1 == 1);
        shown.filter_map(|(_, bug)| bug.shown).collect()
    }

    /// `setup_force_cpu_bug`; nothing where the tree has no such bug.
    fn force_bug(&mut self, macro_name: &'static str) {
        self.bugs.forced |= self.program.bug(macro_name);
    }

    /// `set_cpu_bug`.
    fn set_bug(&mut self, macro_name: &'static str) {
        self.bugs.set |= self.program.bug(macro_name);
    }

    /// A bug that `clearcpuid=` or `setcpuid=` names; whether there is one of that name.
    pub(super) fn named_bug(&mut self, name: &str, set: bool) -> bool {
        let bit = self.program.bug_shown(name);
        if set {
            self.bugs.forced |= bit
        } else {
            self.bugs.cleared |= bit
        }
        bit != 0
    }

    /// `x86_read_arch_cap_msr`, and the assumption on which it rests.
    pub(super) fn arch_capabilities(&mut self) -> (u64, u64) {
        if self.has("ARCH_CAPABILITIES") { self.msr_or_zero(0x10a) } else { (0, 0) }
    }

    /// `cpu_mitigations_off`.
    pub(super) fn mitigations_off(&self) -> bool {
        self.cmdline.given("mitigations=off")
    }

    /// `common.c:cpu_set_bug_bits`; what would be otherwise with every bit of an assumed MSR the other way hangs on it.
    pub(super) fn cpu_set_bug_bits(&mut self) {
        let old = self.has_old_microcode();
        if old.holds {
            self.force_bug("OLD_MICROCODE");
        }
        if old.on != 0 {
            self.bug_hangs.push((self.program.bug("OLD_MICROCODE"), old.on));
        }
        let before = self.bugs;
        let (arch_cap, on) = self.arch_capabilities();
        self.set_bug_bits(arch_cap);
        if !TREES.get(own::compiled(self.tree)).is_some_and(|tree| READ.contains(&tree.label)) {
            let what = "this release's lists of weak CPUs are those of the releases next to it";
            let lists = self.assumptions.note_words(what, true, "they were read in the releases of Debian");
            let young = YOUNG.iter().fold(0, |bugs, bug| bugs | self.program.bug(bug));
            self.bug_hangs.push((self.bugs.forced & young, lists));
        }
        if on != 0 {
            let assumed = std::mem::replace(&mut self.bugs, before);
            self.set_bug_bits(!arch_cap);
            self.bug_hangs.push((assumed.forced ^ self.bugs.forced, on));
            self.bugs = assumed;
        }
    }

    fn set_bug_bits(&mut self, arch_cap: u64) {
        let (vendor, family, model, stepping) = (self.vendor, self.family, self.model, self.stepping);
        let cpu = Cpu { vendor, family, model, stepping, release: self.release(), fills: self.knows("TSA_FILL_NO") };
        let facts = Facts { white: first_match(WHITELIST, cpu), black: first_match(BLACKLIST, cpu), arch_cap };
        self.forced_by_parameters();
        if !facts.lacks(no::ITLB_MULTIHIT) && !facts.cap(arch_cap::PSCHANGE_MC_NO) {
            self.force_bug("ITLB_MULTIHIT");
        }
        if facts.lacks(no::SPECULATION) {
            return;
        }
        self.speculation_bugs(&facts);
        self.sampling_bugs(&facts);
        self.return_bugs(&facts);
        self.branch_bugs(&facts);
        if facts.lacks(no::MELTDOWN) || facts.cap(arch_cap::RDCL_NO) {
            return;
        }
        self.force_bug("CPU_MELTDOWN");
        if !facts.lacks(no::L1TF) {
            self.force_bug("L1TF");
        }
    }

    /// Parameters with which `bugs.c` forces a bug.
    fn forced_by_parameters(&mut self) {
        let forces = [
            ("spectre_v2=on", "SPECTRE_V2_USER"),
            ("vmscape=force", "VMSCAPE"),
            ("indirect_target_selection=force", "ITS"),
        ];
        for (parameter, bug) in forces {
            if self.cmdline.given(parameter) {
                self.force_bug(bug);
            }
        }
        if self.cmdline.given("spectre_v2=on") && self.release() >= (6, 16) {
            self.force_bug("SPECTRE_V2");
        }
        let retbleed = self.cmdline.value("retbleed").unwrap_or_default();
        if self.release() >= (6, 3) && retbleed.split(',').any(|option| option == "force") {
            self.force_bug("RETBLEED");
        }
    }

    fn speculation_bugs(&mut self, facts: &Facts) {
        self.force_bug("SPECTRE_V1");
        if !facts.lacks(no::SPECTRE_V2) {
            self.force_bug("SPECTRE_V2");
            self.force_bug("SPECTRE_V2_USER");
        }
        if !facts.lacks(no::SSB) && !facts.cap(arch_cap::SSB_NO) && !self.has("AMD_SSB_NO") {
            self.force_bug("SPEC_STORE_BYPASS");
        }
        // IBRS_ENHANCED: the rules that cite this function force it here, and the bugs below ask for it.
        self.run("cpu_set_bug_bits");
        let autoibrs = self.has("AUTOIBRS") && !(self.release() >= (6, 12) && self.has("SEV_SNP"));
        let pbrsb = !facts.lacks(no::EIBRS_PBRSB) && !facts.cap(arch_cap::PBRSB_NO);
        if (facts.cap(arch_cap::IBRS_ALL) || autoibrs) && pbrsb {
            self.force_bug("EIBRS_PBRSB");
        }
        if !facts.lacks(no::SWAPGS) {
            self.force_bug("SWAPGS");
        }
    }

    fn sampling_bugs(&mut self, facts: &Facts) {
        if !facts.lacks(no::MDS) && !facts.cap(arch_cap::MDS_NO) {
            self.force_bug("MDS");
            if facts.lacks(no::MSBDS_ONLY) {
                self.force_bug("MSBDS_ONLY");
            }
        }
        if !facts.cap(arch_cap::TAA_NO) && (self.has("RTM") || facts.cap(arch_cap::TSX_CTRL)) {
            self.force_bug("TAA");
        }
        if (self.has("RDRAND") || self.has("RDSEED")) && facts.listed(has::SRBDS | has::MMIO_SBDS) {
            self.force_bug("SRBDS");
        }
        let immune = [arch_cap::FBSDP_NO, arch_cap::PSDP_NO, arch_cap::SBDR_SSDP_NO];
        if !immune.iter().all(|&bit| facts.cap(bit)) {
            if facts.listed(has::MMIO) {
                self.force_bug("MMIO_STALE_DATA");
            } else if !facts.lacks(no::MMIO) {
                self.force_bug("MMIO_UNKNOWN");
            }
        }
        if facts.listed(has::GDS) && !facts.cap(arch_cap::GDS_NO) && self.has("AVX") {
            self.force_bug("GDS");
        }
        if !facts.cap(arch_cap::RFDS_NO) && (facts.cap(arch_cap::RFDS_CLEAR) || self.rfds_listed(facts)) {
            self.force_bug("RFDS");
        }
    }

    /// `vulnerable_to_rfds` (from 6.16 to 7.1 the list itself asks, `VULNBL_INTEL_TYPE`): parts of models 97H and B7H that
    /// have only performance cores are safe.
    fn rfds_listed(&self, facts: &Facts) -> bool {
        let atom = self.has("HYBRID_CPU") || self.has_leaf(0x1a) && self.cpuid(0x1a, 0).eax >> 24 == 0x20;
        let may_be_safe = self.release() >= (6, 16) && matches!(self.model, 0x97 | 0xb7);
        facts.listed(has::RFDS) && (atom || !may_be_safe)
    }

    fn return_bugs(&mut self, facts: &Facts) {
        if !self.has("BTC_NO") && (facts.listed(has::RETBLEED) || facts.cap(arch_cap::RSBA)) {
            self.force_bug("RETBLEED");
        }
        if facts.listed(has::SMT_RSB) {
            self.force_bug("SMT_RSB");
        }
        if !self.has("SRSO_NO") && facts.listed(has::SRSO) {
            self.force_bug("SRSO");
        }
    }

    fn branch_bugs(&mut self, facts: &Facts) {
        let vm = self.is_vm();
        let enhanced = self.has("IBRS_ENHANCED");
        // 5.10.262 has the bug's name alone.
        if !facts.lacks(no::BHI) && (enhanced || vm) && self.release() >= (5, 15) {
            self.force_bug("BHI");
        }
        if self.has("AMD_IBPB") && !self.has("AMD_IBPB_RET") {
            self.force_bug("IBPB_NO_RET");
        }
        let its = self.vendor == Vendor::Intel && !facts.cap(arch_cap::ITS_NO) && !self.has("BHI_CTRL");
        if its && (vm || facts.listed(has::ITS)) {
            self.force_bug("ITS");
            if facts.listed(has::ITS_NATIVE_ONLY) {
                self.force_bug("ITS_NATIVE_ONLY");
            }
        }
        let fill = !self.knows("TSA_FILL_NO") || self.has("TSA_FILL_NO");
        let safe = self.has("TSA_SQ_NO") && self.has("TSA_L1_NO") && fill;
        if self.vendor == Vendor::Amd && !safe && (facts.listed(has::TSA) || vm && self.has("ZEN")) {
            self.force_bug("TSA");
        }
        if facts.listed(has::VMSCAPE) && !vm {
            self.force_bug("VMSCAPE");
        }
    }

    /// The bugs that vendors' set-up code knows (`init_intel`, `init_amd`, `init_hygon`).
    pub(super) fn vendor_bugs(&mut self) {
        match self.vendor {
            Vendor::Intel => self.intel_bugs(),
            Vendor::Amd => self.amd_bugs(),
            Vendor::Hygon => {
                self.sysret_bug();
                self.check_null_seg_clears_base();
            }
            _ => {}
        }
    }

    /// `intel.c:init_intel`.
    fn intel_bugs(&mut self) {
        if self.family != 6 {
            return;
        }
        if self.has("CLFLUSH") && matches!(self.model, 0x1d | 0x2e | 0x2f) {
            self.set_bug("CLFLUSH_MONITOR");
        }
        if self.has("MWAIT") && (self.model == 0x5c || self.model == 0xbd && self.release() >= (6, 12)) {
            self.set_bug("MONITOR");
        }
    }

    /// `amd.c:init_amd` and what it calls.
    fn amd_bugs(&mut self) {
        let (family, model, stepping) = (self.family, self.model, self.stepping);
        let from = |first: (u32, u32)| (model, stepping) >= first;
        let e400 = family == 0xf && from((0x41, 2)) || family == 0x10 && from((2, 1));
        if self.osvw_erratum(1, e400) {
            self.set_bug("AMD_E400");
            if self.msr_or_zero(0xc001_0055).0 & 0x1800_0000 != 0 && self.release() < (6, 12) {
                self.set_bug("AMD_APIC_C1E");
            }
        }
        if self.osvw_erratum(3, family == 0x10) {
            self.set_bug("AMD_TLB_MMATCH");
        }
        if family == 0xf {
            self.set_bug("SWAPGS_FENCE");
        }
        if family >= 6 && !self.has("XSAVEERPTR") {
            self.set_bug("FXSAVE_LEAK");
        }
        if family == 0x17 && matches!(model, 0..=0x2f | 0x50..=0x5f) {
            self.force_bug("DIV0");
        }
        if self.has("ZEN5") && self.has("INVLPGB") && !self.has("TLBSYNC_SFW_NO") {
            self.set_bug("TLBI");
        }
        self.sysret_bug();
        self.check_null_seg_clears_base();
    }

    /// `amd.c:cpu_has_amd_erratum`: up to 6.7 the OSVW MSRs decide where they cover the erratum, else the list.
    fn osvw_erratum(&mut self, id: u32, listed: bool) -> bool {
        if !self.has("OSVW") || self.release() >= (6, 8) {
            return listed;
        }
        let (length, _) = self.msr_or_zero(0xc001_0140);
        if u64::from(id) >= length {
            return listed;
        }
        self.msr_or_zero(0xc001_0141).0 >> id & 1 == 1
    }

    fn sysret_bug(&mut self) {
        if !self.has("XENPV") {
            self.set_bug("SYSRET_SS_ATTRS");
        }
    }

    /// `common.c:check_null_seg_clears_base`.
    fn check_null_seg_clears_base(&mut self) {
        let announced = self.has_leaf(0x8000_0021) && self.cpuid(0x8000_0021, 0).eax >> 6 & 1 == 1;
        if announced {
            return;
        }
        // Families 17H and 18H are tried out. Zen 2 clears the base, Zen 1 does not, and QEMU's TCG does so for every
        // CPU that it plays (target/i386/tcg/seg_helper.c:helper_load_seg).
        let tcg = self.input.cpuid.get(0x4000_0000, 0).is_some_and(|leaf| leaf.ebx == 0x5447_4354);
        let zen1 = self.family == 0x18 || matches!(self.model, 0..=0x2f | 0x50..=0x5f);
        let clears = matches!(self.family, 0x17 | 0x18) && (tcg || !zen1);
        if self.is_vm() || !clears {
            self.set_bug("NULL_SEG");
        }
    }
}
