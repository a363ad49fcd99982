//! Lists of microcode revisions, as the kernel keeps them beside the code that asks for them.

mod latest;

use super::state::Boot;
use super::truth::Truth;
use cpusieve_model::Vendor;
use latest::LATEST;

/// Family 6 model, first and last stepping, revision.
type Intel = (u32, u32, u32, u64);

/// `arch/x86/mm/init.c:invlpg_miss_ids`: INVLPG also flushes global pages from these revisions on.
const INVLPG_FIXED: [Intel; 6] = [
    (0x97, 0, 15, 0x2e),
    (0x9a, 0, 15, 0x42c),
    (0xbe, 0, 15, 0x11),
    (0xb7, 0, 15, 0x118),
    (0xba, 0, 15, 0x4117),
    (0xbf, 0, 15, 0x2e),
];

/// `arch/x86/kernel/apic/apic.c:deadline_match`: the TSC deadline timer works from these revisions on.
const DEADLINE_FIXED: [Intel; 17] = [
    (0x3f, 2, 2, 0x3a),
    (0x3f, 4, 4, 0x0f),
    (0x4f, 0, 15, 0x0b00_0020),
    (0x56, 2, 2, 0x11),
    (0x56, 3, 3, 0x0700_000e),
    (0x56, 4, 4, 0x0f00_000c),
    (0x56, 5, 5, 0x0e00_0003),
    (0x55, 3, 3, 0x0100_0136),
    (0x55, 4, 4, 0x0200_0014),
    (0x3c, 0, 15, 0x22),
    (0x45, 0, 15, 0x20),
    (0x46, 0, 15, 0x17),
    (0x3d, 0, 15, 0x25),
    (0x47, 0, 15, 0x17),
    (0x4e, 0, 15, 0xb2),
    (0x5e, 0, 15, 0xb2),
    (0x8e, 0, 15, 0x52),
];

/// Kaby Lake's row of `deadline_match`, which has the revision of the row before.
const DEADLINE_KABY_LAKE: Intel = (0x9e, 0, 15, 0x52);

/// `arch/x86/kernel/cpu/intel.c:spectre_bad_microcodes`: up to these revisions speculation control crashes machines.
const SPECTRE_BAD: [Intel; 20] = [
    (0x9e, 11, 11, 0x80),
    (0x9e, 10, 10, 0x80),
    (0x9e, 9, 9, 0x80),
    (0x8e, 10, 10, 0x80),
    (0x8e, 9, 9, 0x80),
    (0x55, 3, 3, 0x0100_013e),
    (0x55, 4, 4, 0x0200_003c),
    (0x3d, 4, 4, 0x28),
    (0x47, 1, 1, 0x1b),
    (0x56, 2, 2, 0x14),
    (0x56, 3, 3, 0x0700_0011),
    (0x4f, 1, 1, 0x0b00_0025),
    (0x45, 1, 1, 0x21),
    (0x46, 1, 1, 0x18),
    (0x3c, 3, 3, 0x23),
    (0x3f, 2, 2, 0x3b),
    (0x3f, 4, 4, 0x10),
    (0x3e, 4, 4, 0x42a),
    (0x2d, 6, 6, 0x61b),
    (0x2d, 7, 7, 0x712),
];

/// Model, stepping, revision.
type Zen = (u32, u32, u64);

/// `arch/x86/kernel/cpu/amd.c:zen5_rdseed_microcode`: family 1AH delivers 32-bit RDSEED from these revisions on.
const ZEN5_RDSEED: [Zen; 9] = [
    (0x02, 1, 0x0b00_215a),
    (0x08, 1, 0x0b00_8121),
    (0x11, 0, 0x0b10_1054),
    (0x24, 0, 0x0b20_4037),
    (0x44, 0, 0x0b40_4035),
    (0x44, 1, 0x0b40_4108),
    (0x60, 0, 0x0b60_0037),
    (0x68, 0, 0x0b60_8038),
    (0x70, 0, 0x0b70_0037),
];

/// From this release on `arch/x86/kernel/cpu/match.c:x86_match_cpu` compares the platform (MSR 17H) too. Read in 7.2;
/// 6.16.3, 6.17.13 and 6.18.15 report an emulated Skylake of platform 0 as having old microcode, which its row of 7.2,
/// for other platforms, does not cover. What 6.19 does is not known.
const PLATFORMS_TOLD_APART: (u16, u16) = (7, 0);

/// `arch/x86/kernel/cpu/amd.c:amd_tsa_microcode`: VERW clears what TSA leaks on family 19H from these revisions on.
const TSA_CLEARS: [Zen; 16] = [
    (0x01, 1, 0x0a00_11d7),
    (0x01, 2, 0x0a00_123b),
    (0x08, 2, 0x0a00_820d),
    (0x11, 1, 0x0a10_114c),
    (0x11, 2, 0x0a10_124c),
    (0x18, 1, 0x0a10_8109),
    (0x21, 0, 0x0a20_102e),
    (0x21, 2, 0x0a20_1211),
    (0x44, 1, 0x0a40_4108),
    (0x50, 0, 0x0a50_0012),
    (0x61, 2, 0x0a60_120a),
    (0x74, 1, 0x0a70_4108),
    (0x75, 2, 0x0a70_5208),
    (0x78, 0, 0x0a70_8008),
    (0x7c, 0, 0x0a70_c008),
    (0xa0, 2, 0x0aa0_0216),
];

impl Boot<'_> {
    fn intel_row(&self, list: &[Intel]) -> Option<u64> {
        let (model, stepping) = (self.model, self.stepping);
        let matches = |row: &&Intel| row.0 == model && (row.1..=row.2).contains(&stepping);
        list.iter().find(matches).map(|row| row.3).filter(|_| self.family == 6)
    }

    fn zen_row(&self, list: &[Zen], family: u32) -> Option<u64> {
        let matches = |row: &&Zen| (row.0, row.1) == (self.model, self.stepping);
        list.iter().find(matches).map(|row| row.2).filter(|_| self.family == family)
    }

    /// Whether the revision is below a row's, if there is a row; `otherwise` if there is none.
    fn below(&mut self, row: Option<u64>, otherwise: bool) -> Truth {
        let Some(revision) = row else { return Truth::seen(otherwise) };
        let (seen, on) = self.microcode();
        Truth { holds: seen < revision, on }
    }

    /// The revision does not fix INVLPG yet.
    pub(super) fn invlpg_misses(&mut self) -> Truth {
        let row = self.intel_row(&INVLPG_FIXED);
        self.below(row, false)
    }

    /// The revision does not fix the TSC deadline timer yet.
    pub(super) fn deadline_is_broken(&mut self) -> Truth {
        let row = self.intel_row(&DEADLINE_FIXED).or_else(|| self.intel_row(&[DEADLINE_KABY_LAKE]));
        self.below(row, false)
    }

    /// The revision is one of those whose speculation control does harm.
    pub(super) fn bad_spectre_microcode(&mut self) -> Truth {
        let row = self.intel_row(&SPECTRE_BAD).map(|revision| revision + 1);
        self.below(row, false)
    }

    /// The revision does not fix RDSEED yet, or the kernel does not know one that does.
    pub(super) fn zen5_rdseed_is_broken(&mut self) -> Truth {
        let row = self.zen_row(&ZEN5_RDSEED, 0x1a);
        self.below(row, true)
    }

    /// VERW clears what TSA leaks.
    pub(super) fn tsa_microcode(&mut self) -> Truth {
        let row = self.zen_row(&TSA_CLEARS, 0x19);
        let below = self.below(row, true);
        Truth { holds: !below.holds, on: below.on }
    }

    /// `common.c:cpu_has_old_microcode`: an Intel CPU without a hypervisor, and older than the kernel's list.
    pub(super) fn has_old_microcode(&mut self) -> Truth {
        if self.vendor != Vendor::Intel || self.is_vm() {
            return Truth::seen(false);
        }
        let Some(newest) = self.newest_listed_revision() else { return Truth::seen(false) };
        let (seen, on) = self.microcode();
        // Lists of older releases were not read.
        let list = if self.release() < (7, 2) {
            self.assumptions.note_words(
                "the kernel's list of current microcode is that of 7.2",
                true,
                "it was not read",
            )
        } else {
            0
        };
        Truth { holds: seen >> 31 & 1 == 1 || seen < u64::from(newest), on: on | list }
    }

    /// The revision that the kernel's list has for this CPU. Lists of 6.16 to 6.18 have one row for all platforms of a
    /// CPU; theirs was not read and is taken to be the newest of 7.2's rows.
    fn newest_listed_revision(&mut self) -> Option<u32> {
        let (family, model, stepping) = (self.family, self.model, self.stepping);
        let matches = |row: &&(u8, u8, u16, u8, u32)| {
            (u32::from(row.0), u32::from(row.1)) == (family, model) && u32::from(row.2) >> stepping & 1 == 1
        };
        let mut rows = LATEST.iter().filter(matches);
        if self.release() < PLATFORMS_TOLD_APART {
            return rows.map(|row| row.4).max();
        }
        let platform = if (family, model) > (6, 3) { self.msr_or_zero(0x17).0 >> 50 & 7 } else { 0 };
        rows.find(|row| row.3 == 0 || u64::from(row.3) >> platform & 1 == 1).map(|row| row.4)
    }
}
