//! KVM's answer while a VMM edits it, with a note of every edit: the steps are read off these.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use cpusieve_knowledge::rules::{self, Rule};
use cpusieve_knowledge::vmm::Vmm;
use cpusieve_knowledge::x86;
use cpusieve_model::{
    Cite, CpuidBit, CpuidTable, Effect, Evidence, Grounds, KvmCpuidEntry, Place, Register, Registers, RuleId, Stage,
    Step,
};

/// `KVM_CPUID_FLAG_SIGNIFCANT_INDEX`.
pub(super) const SIGNIFICANT_INDEX: u32 = 1;

/// KVM's signature in leaf 40000000H: EBX, ECX, EDX.
const KVM_SIGNATURE: (u32, u32, u32) = (0x4b4d_564b, 0x564b_4d56, 0x4d);

/// Bits of one register that were written, and by which rule.
struct Edit {
    leaf: u32,
    subleaf: u32,
    register: Register,
    mask: u32,
    rule: &'static str,
}

/// Entries in the VMM's order, and the edits so far.
pub(super) struct Table {
    entries: Vec<KvmCpuidEntry>,
    edits: Vec<Edit>,
    sorted: bool,
}

impl Table {
    /// KVM's answer, in KVM's order; new entries go to the end.
    pub(super) fn new(supported: &[KvmCpuidEntry]) -> Self {
        Self { entries: supported.to_vec(), edits: Vec::new(), sorted: false }
    }

    /// Sorts by leaf and subleaf, and keeps it so; of two entries for one leaf and subleaf the later counts.
    pub(super) fn sort(&mut self) {
        self.entries.reverse();
        self.entries.sort_by_key(|entry| (entry.leaf, entry.subleaf));
        self.entries.dedup_by_key(|entry| (entry.leaf, entry.subleaf));
        self.sorted = true;
    }

    pub(super) fn into_entries(self) -> Vec<KvmCpuidEntry> {
        self.entries
    }

    pub(super) fn entries(&self) -> &[KvmCpuidEntry] {
        &self.entries
    }

    /// The first entry of this leaf and subleaf.
    pub(super) fn entry(&self, leaf: u32, subleaf: u32) -> Option<&KvmCpuidEntry> {
        self.entries.iter().find(|entry| (entry.leaf, entry.subleaf) == (leaf, subleaf))
    }

    pub(super) fn get(&self, leaf: u32, subleaf: u32) -> Option<Registers> {
        self.entry(leaf, subleaf).map(|entry| entry.registers)
    }

    fn entry_mut(&mut self, leaf: u32, subleaf: u32) -> Option<&mut KvmCpuidEntry> {
        self.entries.iter_mut().find(|entry| (entry.leaf, entry.subleaf) == (leaf, subleaf))
    }

    /// Writes the bits of `mask`; whether the entry is there.
    pub(super) fn write(&mut self, place: (u32, u32, Register), mask: u32, value: u32, rule: &'static str) -> bool {
        let (leaf, subleaf, register) = place;
        let Some(entry) = self.entry_mut(leaf, subleaf) else { return false };
        let target = entry.registers.get_mut(register);
        *target = *target & !mask | value & mask;
        self.edits.push(Edit { leaf, subleaf, register, mask, rule });
        true
    }

    /// Writes a field; a value that does not fit is cut. Whether the entry is there.
    pub(super) fn field(
        &mut self,
        place: (u32, u32, Register),
        bits: RangeInclusive<u32>,
        value: u32,
        rule: &'static str,
    ) -> bool {
        let (low, high) = bits.into_inner();
        let ones = u32::MAX >> 31_u32.saturating_sub(high.saturating_sub(low)).min(31);
        let mask = ones.checked_shl(low).unwrap_or(0);
        self.write(place, mask, value.checked_shl(low).unwrap_or(0), rule)
    }

    /// Writes all four registers; whether the entry is there.
    pub(super) fn replace(&mut self, leaf: u32, subleaf: u32, registers: Registers, rule: &'static str) -> bool {
        Register::ALL
            .into_iter()
            .all(|register| self.write((leaf, subleaf, register), u32::MAX, registers.get(register), rule))
    }

    /// Sets the flags of an entry, if it is there.
    pub(super) fn set_flags(&mut self, leaf: u32, subleaf: u32, flags: u32) {
        if let Some(entry) = self.entry_mut(leaf, subleaf) {
            entry.flags = flags;
        }
    }

    /// Puts an entry in, in place of the one that is there.
    pub(super) fn insert(&mut self, entry: KvmCpuidEntry, rule: &'static str) {
        let KvmCpuidEntry { leaf, subleaf, flags, registers } = entry;
        if self.entry(leaf, subleaf).is_none() {
            let at = if self.sorted {
                self.entries.partition_point(|other| (other.leaf, other.subleaf) < (leaf, subleaf))
            } else {
                self.entries.len()
            };
            self.entries.insert(at, entry);
        }
        self.set_flags(leaf, subleaf, flags);
        self.replace(leaf, subleaf, registers, rule);
    }

    /// Puts an entry in behind the last entry of its leaf with a lower subleaf, as KVM itself would list it.
    pub(super) fn insert_in_leaf(&mut self, entry: KvmCpuidEntry, rule: &'static str) {
        let before = self.entries.iter().rposition(|other| other.leaf == entry.leaf && other.subleaf < entry.subleaf);
        if let (Some(before), None) = (before, self.entry(entry.leaf, entry.subleaf)) {
            self.entries.insert(before.saturating_add(1), entry);
        }
        self.insert(entry, rule);
    }

    /// Takes all entries of a leaf out.
    pub(super) fn remove(&mut self, leaf: u32, rule: &'static str) {
        let gone: Vec<u32> =
            self.entries.iter().filter(|entry| entry.leaf == leaf).map(|entry| entry.subleaf).collect();
        for subleaf in gone {
            let edit = |register| Edit { leaf, subleaf, register, mask: u32::MAX, rule };
            self.edits.extend(Register::ALL.map(edit));
        }
        self.entries.retain(|entry| entry.leaf != leaf);
    }

    /// The edits by register, and in their order within each.
    fn edits_by_register(&self) -> Vec<&Edit> {
        let mut edits: Vec<&Edit> = self.edits.iter().collect();
        edits.sort_by_key(|edit| edit.place());
        edits
    }
}

impl Edit {
    const fn place(&self) -> (u32, u32, Register) {
        (self.leaf, self.subleaf, self.register)
    }
}

/// For every named bit that came in or goes out, what was done to it.
pub(super) fn steps(vmm: Vmm, supported: &[KvmCpuidEntry], table: &Table) -> Vec<Step> {
    let (offered, given) = (readable(supported), readable(table.entries()));
    let mut places: Vec<(u32, u32)> =
        offered.entries().iter().chain(given.entries()).map(|entry| (entry.leaf, entry.subleaf)).collect();
    places.sort_unstable();
    places.dedup();
    let passed = rules::generic(vmm.software(), "passed");
    let edits = table.edits_by_register();
    let mut steps = Vec::new();
    for (leaf, subleaf) in places {
        let (before, after) = (offered.get(leaf, subleaf), given.get(leaf, subleaf).unwrap_or_default());
        for register in Register::ALL {
            let start = edits.partition_point(|edit| edit.place() < (leaf, subleaf, register));
            let end = edits.partition_point(|edit| edit.place() <= (leaf, subleaf, register));
            let edits = edits.get(start..end).unwrap_or(&[]);
            let (before, after) = (before.map(|registers| registers.get(register)), after.get(register));
            let set = (0..32_u8).filter(|bit| (before.unwrap_or(0) | after) >> bit & 1 == 1);
            let places = set.map(|bit| CpuidBit::new(leaf, subleaf, register, bit));
            steps.extend(places.filter_map(|bit| step(bit, before, after, edits, passed)));
        }
    }
    steps
}

/// What was done to one bit; `None` if it has no name. `edits` are those of its register, the last of which counts.
fn step(
    bit: CpuidBit,
    before: Option<u32>,
    after: u32,
    edits: &[&Edit],
    passed: Option<&'static Rule>,
) -> Option<Step> {
    let feature = x86::by_place(Place::Cpuid(bit))?;
    let edit = edits.iter().rfind(|edit| edit.mask >> bit.bit & 1 == 1);
    let came_in = before.unwrap_or(0) >> bit.bit & 1 == 1;
    let effect = match (came_in, after >> bit.bit & 1 == 1, edit) {
        (false, _, _) => Effect::Added,
        (true, false, _) => Effect::Dropped,
        (true, true, Some(_)) => Effect::Forced,
        (true, true, None) => Effect::Kept,
    };
    let rule = edit.map_or(passed, |edit| rules::rule(edit.rule));
    Some(Step {
        feature: Cow::Borrowed(feature.id),
        place: Some(Place::Cpuid(bit)),
        at: Stage::Qemu,
        effect,
        rule: rule.map_or(RuleId(""), |rule| rule.id),
        cite: rule.map_or(Cite(""), |rule| rule.cite),
        because: Grounds::one(Evidence::Register { of: "host", answer: "KVM_GET_SUPPORTED_CPUID", bit, value: before }),
    })
}

/// The entries as a table in which features can be looked up: leaf 40000001H holds KVM's features only behind KVM's own
/// signature.
fn readable(entries: &[KvmCpuidEntry]) -> CpuidTable {
    let mut all = CpuidTable::default();
    for entry in entries {
        all.insert(entry.leaf, entry.subleaf, entry.registers);
    }
    let signature = all.get(0x4000_0000, 0).map(|leaf| (leaf.ebx, leaf.ecx, leaf.edx));
    if signature == Some(KVM_SIGNATURE) {
        return all;
    }
    all.entries().iter().filter(|entry| entry.leaf >> 8 != 0x40_0000).copied().collect()
}
