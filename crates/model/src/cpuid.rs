//! What the CPUID instruction returned: registers by leaf (EAX in) and subleaf (ECX in).

use std::fmt;

use crate::{CpuidBit, State};

/// One of the four registers that CPUID writes, in the order in which every tool prints them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Register {
    /// EAX
    Eax,
    /// EBX
    Ebx,
    /// ECX
    Ecx,
    /// EDX
    Edx,
}

impl Register {
    /// All four, in printing order.
    pub const ALL: [Self; 4] = [Self::Eax, Self::Ebx, Self::Ecx, Self::Edx];

    /// The register called `name`, in either case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|register| register.name().eq_ignore_ascii_case(name))
    }

    /// The name as the manuals print it: `EAX`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Eax => "EAX",
            Self::Ebx => "EBX",
            Self::Ecx => "ECX",
            Self::Edx => "EDX",
        }
    }
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The four output registers of one CPUID execution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the fields are the registers of the same name")]
pub struct Registers {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

impl Registers {
    /// The value of one register.
    #[must_use]
    pub const fn get(self, register: Register) -> u32 {
        match register {
            Register::Eax => self.eax,
            Register::Ebx => self.ebx,
            Register::Ecx => self.ecx,
            Register::Edx => self.edx,
        }
    }

    /// The value of one register, to be changed.
    pub const fn get_mut(&mut self, register: Register) -> &mut u32 {
        match register {
            Register::Eax => &mut self.eax,
            Register::Ebx => &mut self.ebx,
            Register::Ecx => &mut self.ecx,
            Register::Edx => &mut self.edx,
        }
    }

    /// Whether all four registers are zero.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.eax | self.ebx | self.ecx | self.edx == 0
    }
}

/// Registers of one leaf and subleaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CpuidEntry {
    /// EAX on input.
    pub leaf: u32,
    /// ECX on input; 0 for leaves that do not look at it.
    pub subleaf: u32,
    /// The answer.
    pub registers: Registers,
}

/// Whether a leaf looks at ECX on input, that is, has subleaves.
///
/// Sources: Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E; KVM and Hyper-V leaves have none.
/// A leaf that is not known here is taken to have none.
#[must_use]
pub const fn has_subleaves(leaf: u32) -> bool {
    matches!(
        leaf,
        0x4 | 0x7
            | 0xb
            | 0xd
            | 0xf
            | 0x10
            | 0x12
            | 0x14
            | 0x17
            | 0x18
            | 0x1a..=0x1b
            | 0x1d..=0x1f
            | 0x20
            | 0x23..=0x24
            | 0x27..=0x29
            | 0x8000_001d
            | 0x8000_0020
            | 0x8000_0026
    )
}

/// CPU vendors whose set-up code Linux has, by the string of leaf 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Vendor {
    /// `GenuineIntel`
    Intel,
    /// `AuthenticAMD`
    Amd,
    /// `HygonGenuine`
    Hygon,
    /// `CentaurHauls`
    Centaur,
    /// `  Shanghai  `
    Zhaoxin,
    /// `GenuineTMx86` or `TransmetaCPU`
    Transmeta,
    /// Any other string.
    Other,
}

impl Vendor {
    /// The vendor that announces itself with this string of leaf 0 (EBX, EDX, ECX).
    #[must_use]
    pub fn from_string(vendor: &str) -> Self {
        match vendor {
            "GenuineIntel" => Self::Intel,
            "AuthenticAMD" => Self::Amd,
            "HygonGenuine" => Self::Hygon,
            "CentaurHauls" => Self::Centaur,
            "  Shanghai  " => Self::Zhaoxin,
            "GenuineTMx86" | "TransmetaCPU" => Self::Transmeta,
            _ => Self::Other,
        }
    }

    /// A name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Intel => "Intel",
            Self::Amd => "AMD",
            Self::Hygon => "Hygon",
            Self::Centaur => "Centaur",
            Self::Zhaoxin => "Zhaoxin",
            Self::Transmeta => "Transmeta",
            Self::Other => "another vendor",
        }
    }
}

/// Everything that CPUID returned on one CPU, sorted by leaf and subleaf; each pair stands once.
///
/// What is not in the table was not seen, which is not the same as zero: ask [`CpuidTable::state`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CpuidTable {
    entries: Vec<CpuidEntry>,
}

impl CpuidTable {
    /// Puts an entry in, and returns the registers that stood there before.
    pub fn insert(&mut self, leaf: u32, subleaf: u32, registers: Registers) -> Option<Registers> {
        let entry = CpuidEntry { leaf, subleaf, registers };
        if self.entries.last().is_none_or(|last| (last.leaf, last.subleaf) < (leaf, subleaf)) {
            self.entries.push(entry);
            return None;
        }
        match self.position(leaf, subleaf) {
            Ok(index) => Some(std::mem::replace(&mut self.entries[index], entry).registers),
            Err(index) => {
                self.entries.insert(index, entry);
                None
            }
        }
    }

    /// The registers of a leaf and subleaf, if they were seen.
    #[must_use]
    pub fn get(&self, leaf: u32, subleaf: u32) -> Option<Registers> {
        self.position(leaf, subleaf).ok().map(|index| self.entries[index].registers)
    }

    /// All entries of a leaf, by subleaf.
    #[must_use]
    pub fn leaf(&self, leaf: u32) -> &[CpuidEntry] {
        let start = self.entries.partition_point(|entry| entry.leaf < leaf);
        let end = self.entries.partition_point(|entry| entry.leaf <= leaf);
        &self.entries[start..end]
    }

    /// All entries, sorted by leaf and subleaf.
    #[must_use]
    pub fn entries(&self) -> &[CpuidEntry] {
        &self.entries
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The highest leaf of the range in which `leaf` lies (EAX of leaf 0, 40000000H, 80000000H, ...), if it was seen.
    ///
    /// A range head that answers with something outside its own range (an Intel CPU asked for C0000000H answers with
    /// the data of its highest basic leaf) announces no leaf: the maximum is then the head itself minus one.
    #[must_use]
    pub fn maximum(&self, leaf: u32) -> Option<u32> {
        // Hypervisors stack their interfaces in steps of 100H: 40000000H, 40000100H, ...
        let range = if leaf & 0xffff_0000 == 0x4000_0000 { 0xffff_ff00 } else { 0xffff_0000 };
        let head = leaf & range;
        let maximum = self.get(head, 0)?.eax;
        if maximum & range == head { Some(maximum) } else { Some(head.saturating_sub(1)) }
    }

    /// What this table says of one bit.
    ///
    /// [`State::Reserved`] if the leaf lies above the maximum of its range, or the subleaf above the maximum that leaf
    /// 7, 14H, 17H, 18H, 1DH, 20H or 24H announces; [`State::Unknown`] if the entry was not seen.
    #[must_use]
    pub fn state(&self, bit: CpuidBit) -> State {
        if bit.leaf & 0xff != 0 && self.maximum(bit.leaf).is_some_and(|maximum| bit.leaf > maximum) {
            return State::Reserved;
        }
        if let Some(registers) = self.get(bit.leaf, bit.subleaf) {
            return State::from_bit(registers.get(bit.register) >> bit.bit & 1 == 1);
        }
        let counts_in_eax = matches!(bit.leaf, 0x7 | 0x14 | 0x17 | 0x18 | 0x1d | 0x20 | 0x24);
        if counts_in_eax && self.get(bit.leaf, 0).is_some_and(|first| bit.subleaf > first.eax) {
            return State::Reserved;
        }
        State::Unknown
    }

    /// The twelve bytes of the vendor string of leaf 0, in their order EBX, EDX, ECX; bytes that are not ASCII become
    /// `?`.
    #[must_use]
    pub fn vendor_string(&self) -> Option<String> {
        Some(self.vendor_bytes()?.map(char::from).iter().collect())
    }

    fn vendor_bytes(&self) -> Option<[u8; 12]> {
        let leaf = self.get(0, 0)?;
        let mut bytes = [0; 12];
        for (four, register) in bytes.chunks_exact_mut(4).zip([leaf.ebx, leaf.edx, leaf.ecx]) {
            four.copy_from_slice(&register.to_le_bytes());
        }
        Some(bytes.map(|byte| if (0x20..0x7f).contains(&byte) { byte } else { b'?' }))
    }

    /// The vendor of leaf 0.
    #[must_use]
    pub fn vendor(&self) -> Option<Vendor> {
        let bytes = self.vendor_bytes()?;
        std::str::from_utf8(&bytes).ok().map(Vendor::from_string)
    }

    /// Display family, display model and stepping out of leaf 1 EAX, composed as the kernel does it
    /// (`arch/x86/lib/cpu.c:x86_family`, `x86_model`).
    #[must_use]
    pub fn signature(&self) -> Option<(u32, u32, u32)> {
        let eax = self.get(1, 0)?.eax;
        let base = eax >> 8 & 0xf;
        let family = if base == 0xf { base + (eax >> 20 & 0xff) } else { base };
        let low = eax >> 4 & 0xf;
        let model = if family >= 6 { (eax >> 16 & 0xf) << 4 | low } else { low };
        Some((family, model, eax & 0xf))
    }

    /// The hypervisor's signature of leaf 40000000H, if 1.ECX\[31\] is set.
    #[must_use]
    pub fn hypervisor_signature(&self) -> Option<String> {
        (self.get(1, 0)?.ecx >> 31 == 1).then_some(())?;
        let leaf = self.get(0x4000_0000, 0)?;
        let bytes = [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes).concat();
        Some(bytes.iter().take_while(|&&byte| byte != 0).map(|&byte| char::from(byte)).collect())
    }

    fn position(&self, leaf: u32, subleaf: u32) -> Result<usize, usize> {
        // One number to compare instead of two: this is what predictions do most.
        let key = |leaf: u32, subleaf: u32| u64::from(leaf) << 32 | u64::from(subleaf);
        self.entries.binary_search_by_key(&key(leaf, subleaf), |entry| key(entry.leaf, entry.subleaf))
    }
}

impl FromIterator<CpuidEntry> for CpuidTable {
    fn from_iter<I: IntoIterator<Item = CpuidEntry>>(entries: I) -> Self {
        let entries = entries.into_iter();
        let mut table = Self { entries: Vec::with_capacity(entries.size_hint().0) };
        for entry in entries {
            table.insert(entry.leaf, entry.subleaf, entry.registers);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eax(eax: u32) -> Registers {
        Registers { eax, ..Registers::default() }
    }

    #[test]
    fn entries_stay_sorted_whatever_the_order_of_insertion() {
        let mut table = CpuidTable::default();
        for (leaf, subleaf) in [(7, 1), (0, 0), (7, 0), (0x8000_0000, 0), (4, 3), (4, 0)] {
            assert_eq!(table.insert(leaf, subleaf, eax(leaf + subleaf)), None);
        }
        let keys: Vec<_> = table.entries().iter().map(|entry| (entry.leaf, entry.subleaf)).collect();
        assert_eq!(keys, [(0, 0), (4, 0), (4, 3), (7, 0), (7, 1), (0x8000_0000, 0)]);
        assert_eq!(table.leaf(4).len(), 2);
        assert_eq!(table.insert(4, 3, eax(1)), Some(eax(7)));
        assert_eq!(table.len(), 6);
    }

    #[test]
    fn a_leaf_above_the_maximum_is_reserved_and_an_unseen_one_unknown() {
        let mut table = CpuidTable::default();
        let bit = |leaf, subleaf| CpuidBit::new(leaf, subleaf, Register::Edx, 0);
        assert_eq!(table.state(bit(1, 0)), State::Unknown);
        table.insert(0, 0, eax(0x14));
        assert_eq!(table.state(bit(1, 0)), State::Unknown);
        assert_eq!(table.state(bit(0x15, 0)), State::Reserved);
        table.insert(7, 0, eax(0));
        assert_eq!(table.state(bit(7, 0)), State::Absent);
        assert_eq!(table.state(bit(7, 1)), State::Reserved);
        // An Intel CPU answers C0000000H with the data of another leaf; that must not become PadLock features.
        table.insert(0xc000_0000, 0, eax(7));
        table.insert(0xc000_0001, 0, Registers { edx: 1, ..eax(0) });
        assert_eq!(table.state(bit(0xc000_0001, 0)), State::Reserved);
    }

    #[test]
    fn the_signature_is_composed_as_the_kernel_does() {
        let signature = |value| {
            let mut table = CpuidTable::default();
            table.insert(1, 0, eax(value));
            table.signature()
        };
        assert_eq!(signature(0x00a2_0f12), Some((0x19, 0x21, 2)));
        assert_eq!(signature(0x0009_0672), Some((6, 0x97, 2)));
        assert_eq!(signature(0x0000_0543), Some((5, 4, 3)));
    }
}
