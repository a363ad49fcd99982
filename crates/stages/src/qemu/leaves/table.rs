//! The table of `KVM_SET_CPUID2`, in the order and with the slips of each release (`target/i386/kvm/kvm.c`:
//! `kvm_x86_build_cpuid`, before 10.0 the middle of `kvm_arch_init_vcpu`).
//!
//! QEMU fills an array of zeroed slots. A leaf of zeros gives its slot back to the next leaf, which overwrites what it
//! uses and no more; so a subleaf number, or a whole entry, of a leaf that was given up can stay in the table.

use std::ops::RangeInclusive;

use cpusieve_model::{KvmCpuidEntry, Registers, has_subleaves};
use thiserror::Error;

use super::{Running, View, cpu_x86_cpuid, hypervisor, topology};
use crate::qemu::cpu::Cpu;
use crate::qemu::release::{V7_2, V10_0};

/// `KVM_MAX_CPUID_ENTRIES`.
const MAX_ENTRIES: usize = 100;
/// More than all leaves and subleaves that are not zeros: under TCG there is no table, and no end to it.
const MOST_EMULATED: usize = 1024;
/// `KVM_CPUID_FLAG_SIGNIFCANT_INDEX`.
const SIGNIFICANT_INDEX: u32 = 1;
/// `KVM_CPUID_FLAG_STATEFUL_FUNC`.
const STATEFUL_FUNC: u32 = 2;
/// `KVM_CPUID_FLAG_STATE_READ_NEXT`.
const STATE_READ_NEXT: u32 = 4;

/// Leaves that are not plain zeros in some release all lie in these windows. What lies between them is asked for by
/// QEMU as well and given up again, which changes nothing but takes four billion steps for `level=0xffffffff`.
const WINDOWS: [RangeInclusive<u32>; 4] =
    [0..=0x3f, 0x4000_0000..=0x4000_000f, 0x8000_0000..=0x8000_003f, 0xc000_0000..=0xc000_00ff];

/// QEMU aborts because the table has no room for the next entry. Displays as QEMU says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum TableFull {
    /// An entry of this leaf and subleaf.
    #[error("cpuid_data is full, no space for cpuid(eax:0x{leaf:x},ecx:0x{subleaf:x})")]
    NoSpace {
        /// The leaf.
        leaf: u32,
        /// The subleaf; of some leaves the one before.
        subleaf: u32,
    },
    /// Before 10.0, the first entry of a leaf.
    #[error("unsupported {level} value: 0x{value:x}")]
    Unsupported {
        /// The property that announces so many leaves: `level`, `xlevel`, `xlevel2`.
        level: &'static str,
        /// Its value.
        value: u32,
    },
}

/// The table that QEMU gives to `KVM_SET_CPUID2` for vCPU 0. Under TCG, in the same form, what the instruction returns to
/// a 64-bit kernel that has not switched on anything; what is not in it is zero up to the level.
pub(crate) fn build(cpu: &Cpu<'_>) -> Result<Vec<KvmCpuidEntry>, TableFull> {
    let view = View::new(cpu, Running { long_mode: true, ..Running::RESET });
    let most = if view.is_kvm() { MAX_ENTRIES } else { MOST_EMULATED };
    let mut slots = Slots { entries: Vec::with_capacity(MAX_ENTRIES / 2), used: 0, most };
    hypervisor::fill(&view, &mut slots)?;
    if view.is_kvm() {
        basic(&view, &mut slots)?
    } else {
        emulated(&view, &mut slots)?
    }
    extended(&view, &mut slots)?;
    centaur(&view, &mut slots)?;
    hypervisor::fill_frequencies(&view, &mut slots)?;
    Ok(slots.finish())
}

/// The array that QEMU fills: slots before `used` are in the table, the one after it may hold something stale.
pub(super) struct Slots {
    entries: Vec<KvmCpuidEntry>,
    used: usize,
    /// The most entries.
    most: usize,
}

const EMPTY: KvmCpuidEntry =
    KvmCpuidEntry { leaf: 0, subleaf: 0, flags: 0, registers: Registers { eax: 0, ebx: 0, ecx: 0, edx: 0 } };

impl Slots {
    /// The next slot, as it was left.
    pub(super) fn take(&mut self, leaf: u32, subleaf: u32) -> Result<&mut KvmCpuidEntry, TableFull> {
        if self.used >= self.most {
            return Err(TableFull::NoSpace { leaf, subleaf });
        }
        if self.used >= self.entries.len() {
            self.entries.push(EMPTY);
        }
        self.used += 1;
        self.entries.get_mut(self.used - 1).ok_or(TableFull::NoSpace { leaf, subleaf })
    }

    /// Whether there is a slot for `leaf`, which the level `level` of this value announced.
    fn room(&self, view: &View<'_>, leaf: u32, level: &'static str, value: u32) -> Result<(), TableFull> {
        match self.used < self.most {
            true => Ok(()),
            false if view.since(V10_0) => Err(TableFull::NoSpace { leaf, subleaf: 0 }),
            false => Err(TableFull::Unsupported { level, value }),
        }
    }

    /// Gives the last slot back.
    const fn give_back(&mut self) {
        self.used = self.used.saturating_sub(1);
    }

    /// The entry of this leaf among those that are in the table.
    pub(super) fn find(&mut self, leaf: u32) -> Option<&mut KvmCpuidEntry> {
        self.entries.iter_mut().take(self.used).find(|entry| entry.leaf == leaf)
    }

    /// Writes an entry whose subleaf counts.
    fn indexed(&mut self, leaf: u32, subleaf: u32, registers: Registers) -> Result<(), TableFull> {
        *self.take(leaf, subleaf)? = KvmCpuidEntry { leaf, subleaf, flags: SIGNIFICANT_INDEX, registers };
        Ok(())
    }

    /// The same where QEMU takes the slot as soon as it has written the subleaf before.
    fn after(&mut self, leaf: u32, subleaf: u32, registers: Registers) -> Result<(), TableFull> {
        *self.take(leaf, subleaf.saturating_sub(1))? =
            KvmCpuidEntry { leaf, subleaf, flags: SIGNIFICANT_INDEX, registers };
        Ok(())
    }

    /// Writes a leaf without subleaves; the slot's old subleaf number stays.
    fn plain(&mut self, leaf: u32, registers: Registers) -> Result<(), TableFull> {
        let slot = self.take(leaf, 0)?;
        *slot = KvmCpuidEntry { leaf, subleaf: slot.subleaf, flags: 0, registers };
        Ok(())
    }

    /// Writes a leaf without subleaves, and gives the slot back if the leaf is all zeros.
    fn plain_unless_zero(&mut self, leaf: u32, registers: Registers) -> Result<(), TableFull> {
        self.plain(leaf, registers)?;
        if registers.is_zero() {
            self.give_back();
        }
        Ok(())
    }

    fn finish(mut self) -> Vec<KvmCpuidEntry> {
        self.entries.truncate(self.used);
        self.entries
    }
}

/// The leaves from `first` to `last` that can hold anything.
fn leaves(first: u32, last: u32) -> impl Iterator<Item = u32> {
    WINDOWS.into_iter().flat_map(move |window| *window.start().max(&first)..=*window.end().min(&last))
}

/// Leaves 0 to `level`.
fn basic(view: &View<'_>, slots: &mut Slots) -> Result<(), TableFull> {
    for leaf in leaves(0, view.cpu.level) {
        slots.room(view, leaf, "level", view.cpu.level)?;
        match leaf {
            0x2 => descriptors(view, slots)?,
            0x4 | 0xb => until_end(view, slots, leaf)?,
            0xd => components(view, slots)?,
            0x1f if topology::has_leaf_1f(view) => until_end(view, slots, leaf)?,
            // 5.2 keeps the slot, with what the leaf before left in it.
            0x1f if !view.since(V7_2) => {
                slots.take(leaf, 0)?;
            }
            0x1f => {}
            0x12 if view.since(V7_2) => enclaves(view, slots)?,
            _ if counts_subleaves(view, leaf) => counted(view, slots, leaf)?,
            _ => slots.plain_unless_zero(leaf, cpu_x86_cpuid(view, leaf, 0))?,
        }
    }
    Ok(())
}

/// Leaves 0 to `level` as a guest under TCG reads them: every subleaf that is not all zeros, announced or not.
fn emulated(view: &View<'_>, slots: &mut Slots) -> Result<(), TableFull> {
    for leaf in leaves(0, view.cpu.level) {
        match leaf {
            0x4 | 0xb => until_end(view, slots, leaf)?,
            0x1f if topology::has_leaf_1f(view) => until_end(view, slots, leaf)?,
            _ if has_subleaves(leaf) => {
                for subleaf in 0..64 {
                    let registers = cpu_x86_cpuid(view, leaf, subleaf);
                    if !registers.is_zero() {
                        slots.indexed(leaf, subleaf, registers)?;
                    }
                }
            }
            _ => slots.plain_unless_zero(leaf, cpu_x86_cpuid(view, leaf, 0))?,
        }
    }
    Ok(())
}

/// Whether this release writes subleaves up to the number in EAX of subleaf 0.
fn counts_subleaves(view: &View<'_>, leaf: u32) -> bool {
    match leaf {
        0x7 | 0x14 => true,
        0x1d | 0x1e => view.since(V7_2),
        0x24 => view.since(V10_0),
        _ => false,
    }
}

fn counted(view: &View<'_>, slots: &mut Slots, leaf: u32) -> Result<(), TableFull> {
    let first = cpu_x86_cpuid(view, leaf, 0);
    slots.indexed(leaf, 0, first)?;
    // Ends at the table's end at the latest.
    for subleaf in 1..=first.eax {
        slots.indexed(leaf, subleaf, cpu_x86_cpuid(view, leaf, subleaf))?;
    }
    Ok(())
}

/// Leaf 2: as many entries as AL says. 5.2 and 7.2 flag it as stateful even if that is one.
fn descriptors(view: &View<'_>, slots: &mut Slots) -> Result<(), TableFull> {
    let registers = cpu_x86_cpuid(view, 2, 0);
    let times = registers.eax & 0xff;
    slots.plain(2, registers)?;
    if (times > 1 || !view.since(V10_0))
        && let Some(entry) = slots.find(2)
    {
        entry.flags = STATEFUL_FUNC | STATE_READ_NEXT;
    }
    for time in 1..times {
        let slot = slots.take(2, time)?;
        *slot = KvmCpuidEntry { leaf: 2, subleaf: slot.subleaf, flags: STATEFUL_FUNC, registers };
    }
    Ok(())
}

/// Leaves 4, 0BH, 1FH and 8000001DH: subleaves until one says that it is the last, which is kept.
fn until_end(view: &View<'_>, slots: &mut Slots, leaf: u32) -> Result<(), TableFull> {
    let mut subleaf = 0;
    loop {
        let registers = cpu_x86_cpuid(view, leaf, subleaf);
        slots.after(leaf, subleaf, registers)?;
        let last = match leaf {
            0x4 | 0x8000_001d => registers.eax == 0,
            _ => registers.ecx & 0xff00 == 0,
        };
        if last {
            return Ok(());
        }
        subleaf += 1;
    }
}

/// Leaf 0DH: the subleaves with a size, of 64. Every release tries each in one slot and moves on when it holds one; 5.2
/// and 7.2 forget to give back the slot in which the last of them is tried.
fn components(view: &View<'_>, slots: &mut Slots) -> Result<(), TableFull> {
    slots.take(0xd, 0)?;
    for subleaf in 0..64 {
        let registers = cpu_x86_cpuid(view, 0xd, subleaf);
        slots.give_back();
        slots.indexed(0xd, subleaf, registers)?;
        if registers.eax != 0 {
            slots.take(0xd, subleaf)?;
        }
    }
    if view.since(V10_0) {
        slots.give_back();
    }
    Ok(())
}

/// Leaf 12H: subleaves 0, 1 and the EPC sections, and the first that is none.
fn enclaves(view: &View<'_>, slots: &mut Slots) -> Result<(), TableFull> {
    let mut subleaf = 0;
    loop {
        let registers = cpu_x86_cpuid(view, 0x12, subleaf);
        slots.after(0x12, subleaf, registers)?;
        if subleaf > 1 && registers.eax & 0xf != 1 {
            return Ok(());
        }
        subleaf += 1;
    }
}

/// Leaves 80000000H to the extended level.
fn extended(view: &View<'_>, slots: &mut Slots) -> Result<(), TableFull> {
    let last = cpu_x86_cpuid(view, 0x8000_0000, 0).eax;
    for leaf in leaves(0x8000_0000, last) {
        slots.room(view, leaf, "xlevel", last)?;
        match leaf {
            0x8000_001d => until_end(view, slots, leaf)?,
            _ => slots.plain_unless_zero(leaf, cpu_x86_cpuid(view, leaf, 0))?,
        }
    }
    Ok(())
}

/// Leaves C0000000H to Centaur's level, zero or not.
fn centaur(view: &View<'_>, slots: &mut Slots) -> Result<(), TableFull> {
    if view.cpu.xlevel2 == 0 {
        return Ok(());
    }
    let last = cpu_x86_cpuid(view, 0xc000_0000, 0).eax;
    for leaf in leaves(0xc000_0000, last) {
        slots.room(view, leaf, "xlevel2", last)?;
        slots.plain(leaf, cpu_x86_cpuid(view, leaf, 0))?;
    }
    Ok(())
}
