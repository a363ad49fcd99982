//! Subleaves of dumps that do not print them.

use cpusieve_model::{CpuidTable, Registers};

/// Numbers the repetitions of a leaf within one CPU: the n-th is subleaf n.
///
/// Leaf 0DH is the exception. Dumps from the years before XSAVEOPT list subleaf 0 and then the components that XCR0 can
/// have, so that the second line is subleaf 2 (AVX: 100H bytes at 240H); later ones list subleaf 1 too. Components
/// that the CPU lacks are left out in both, until an all-zero line shows that they are not.
#[derive(Clone, Debug, Default)]
pub(super) struct Untagged {
    /// How often the leaf that came last was repeated.
    repeated: u32,
    leaf: u32,
    /// How many lines of leaf 0DH after the first are no component: 1 if subleaf 1 is listed.
    before_components: u32,
    /// Whether leaf 0DH lists components that the CPU lacks.
    lists_all: bool,
}

/// The AVX component of every CPU that has one (Intel SDM volume 1, table 13-1; AMD APM volume 2, section 11.5).
const AVX: (u32, u32) = (0x100, 0x240);

impl Untagged {
    /// The subleaf of the next line of a leaf that has subleaves, after what `table` holds already.
    pub(super) fn subleaf(&mut self, table: Option<&CpuidTable>, leaf: u32, registers: Registers) -> u32 {
        let first = table.and_then(|table| table.get(leaf, 0));
        let Some(first) = first else {
            *self = Self { leaf, ..Self::default() };
            return 0;
        };
        self.repeated = if self.leaf == leaf { self.repeated.saturating_add(1) } else { 1 };
        self.leaf = leaf;
        if leaf == 0xd { self.component(first, registers) } else { self.repeated }
    }

    fn component(&mut self, first: Registers, registers: Registers) -> u32 {
        if self.repeated == 1 {
            self.before_components = u32::from((registers.eax, registers.ebx) != AVX);
        }
        let lists_subleaf_1 = self.before_components == 1;
        if self.repeated == 1 && lists_subleaf_1 {
            return 1;
        }
        self.lists_all |= registers.is_zero();
        let position = self.repeated - 1 - self.before_components;
        if self.lists_all {
            return position + 2;
        }
        let supported = u64::from(first.edx) << 32 | u64::from(first.eax);
        (2..63).filter(|component| supported >> component & 1 == 1).nth(position as usize).unwrap_or(position + 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The subleaves given to lines of leaf 0DH with these EAX and EBX; the first line is subleaf 0.
    fn numbered(mask: u64, lines: &[(u32, u32)]) -> Vec<u32> {
        let first = Registers { eax: mask as u32, ebx: 0x340, ecx: 0x340, edx: (mask >> 32) as u32 };
        let (mut untagged, mut table) = (Untagged::default(), CpuidTable::default());
        assert_eq!(untagged.subleaf(Some(&table), 0xd, first), 0);
        table.insert(0xd, 0, first);
        lines
            .iter()
            .map(|&(eax, ebx)| untagged.subleaf(Some(&table), 0xd, Registers { eax, ebx, ..Registers::default() }))
            .collect()
    }

    #[test]
    fn bulldozer_lists_components_alone() {
        assert_eq!(numbered(0x4000_0000_0000_0007, &[(0x100, 0x240), (0x80, 0x340)]), [2, 62]);
    }

    #[test]
    fn later_dumps_list_subleaf_1_and_the_components_there_are() {
        assert_eq!(numbered(0xe7, &[(0xf, 0x988), (0x100, 0x240), (0x40, 0x440), (0x200, 0x480)]), [1, 2, 5, 6]);
        assert_eq!(numbered(7, &[(1, 0), (0x100, 0x240)]), [1, 2]);
    }

    #[test]
    fn dumps_with_all_zero_lines_list_everything() {
        assert_eq!(numbered(0xe7, &[(0xf, 0x988), (0x100, 0x240), (0, 0), (0, 0), (0x40, 0x440)]), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn other_leaves_count() {
        let table: CpuidTable = [(4, 0), (0xb, 0)]
            .into_iter()
            .map(|(leaf, subleaf)| cpusieve_model::CpuidEntry { leaf, subleaf, registers: Registers::default() })
            .collect();
        let mut untagged = Untagged::default();
        assert_eq!(untagged.subleaf(Some(&CpuidTable::default()), 4, Registers::default()), 0);
        assert_eq!(untagged.subleaf(Some(&table), 4, Registers::default()), 1);
        assert_eq!(untagged.subleaf(Some(&table), 4, Registers::default()), 2);
        assert_eq!(untagged.subleaf(Some(&table), 0xb, Registers::default()), 1);
    }
}
