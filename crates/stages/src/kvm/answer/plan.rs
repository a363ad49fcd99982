//! One tree's tables, looked up once: capability words, adjustments with their conditions, and the rows of each leaf.

use std::sync::OnceLock;

use cpusieve_knowledge::kvm::{self, Adjust, Answer, By, Cap, Gate, How};
use cpusieve_knowledge::linux::{self, TREES};
use cpusieve_knowledge::rules;
use cpusieve_model::{CpuidBit, Register};

use super::condition::Formula;
use super::steps::{self, Generic, Group, Why};
use crate::linux::boot::capabilities;
use crate::names::Names;

/// A bit of `kvm_cpu_caps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Position of the register in [`Plan::registers`].
    pub(super) register: u16,
    pub(super) bit: u8,
}

impl Slot {
    pub(super) fn is_set(self, caps: &[u32]) -> bool {
        caps.get(usize::from(self.register)).is_some_and(|word| word >> self.bit & 1 == 1)
    }

    pub(super) fn put(self, caps: &mut [u32], set: bool) {
        if let Some(word) = caps.get_mut(usize::from(self.register)) {
            let bit = 1 << self.bit;
            *word = if set { *word | bit } else { *word & !bit };
        }
    }
}

/// A register of a leaf.
pub(super) type Home = (u32, u32, Register);

/// A bit that KVM of the tree can offer.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) cap: &'static Cap,
    /// The feature's name.
    pub(super) id: &'static str,
    pub(super) slot: Slot,
    /// The kernel's capability that is asked; `u16::MAX` if it has none.
    pub(super) kernel: u16,
    /// The condition under which it is in the mask.
    pub(super) condition: Option<Condition>,
}

/// A condition of a mask or an adjustment, and what explains it.
#[derive(Debug)]
pub(super) struct Condition {
    pub(super) formula: Formula,
    c: &'static str,
    by: By,
    /// Looked up when it first decides something.
    why: OnceLock<Option<Why>>,
}

impl Condition {
    fn new(tree: usize, (c, by): (&'static str, By), slot: &impl Fn(&str) -> Option<Slot>) -> Self {
        Self { formula: Formula::parse(c, tree, slot), c, by, why: OnceLock::new() }
    }

    /// What explains it in this tree, the one it was made for.
    pub(super) fn why(&self, tree: usize) -> Option<Why> {
        let known = || rules::kvm_condition(self.c, tree).map(|known| Why::condition(known, self.by, tree));
        *self.why.get_or_init(known)
    }
}

/// Something that is set or cleared after the masks.
#[derive(Debug)]
pub(super) struct Adjustment {
    pub(super) adjust: &'static Adjust,
    pub(super) slot: Slot,
    /// Position of its bit in [`Plan::rows`].
    pub(super) row: usize,
    pub(super) kernel: u16,
    pub(super) conditions: Vec<Condition>,
}

/// How one register is answered.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) answer: &'static Answer,
    /// Position of its capability word; `u16::MAX` if it has none.
    pub(super) word: u16,
    /// The capabilities of its gates, in their order, for those that ask for one.
    pub(super) gates: Vec<(&'static Gate, Option<Slot>, u16)>,
}

/// How one leaf is answered.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) leaf: u32,
    pub(super) cells: Vec<Cell>,
}

/// What one tree does, ready to run.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) registers: Vec<Home>,
    pub(super) rows: Vec<Row>,
    pub(super) adjustments: Vec<Adjustment>,
    pub(super) leaves: Vec<Leaf>,
    pub(super) told: Vec<Group>,
    pub(super) generic: Generic,
    by_name: Names<Slot>,
}

impl Plan {
    /// The plan of a tree, made when it is first asked for; `None` if KVM was never read from it.
    pub(super) fn of(tree: usize) -> Option<&'static Self> {
        static PLANS: [OnceLock<Plan>; 64] = [const { OnceLock::new() }; 64];
        kvm::shape(tree)?;
        Some(PLANS.get(tree)?.get_or_init(|| Self::new(tree)))
    }

    fn new(tree: usize) -> Self {
        let caps: Vec<&'static Cap> = kvm::caps(tree).collect();
        // Places are in order.
        let mut registers: Vec<Home> = caps.iter().map(|cap| home(cap.place)).collect();
        registers.dedup();
        let slot = |place: CpuidBit| Slot { register: position(&registers, home(place)), bit: place.bit };
        // Of a macro that two leaves have, the basic leaf is meant, which comes first.
        let by_name = Names::new(caps.iter().map(|cap| (cap.macro_name, slot(cap.place))));
        let lookup = |name: &str| by_name.get(name).copied();
        let condition = |c: &'static str, by: By| Condition::new(tree, (c, by), &lookup);
        let rows: Vec<Row> = caps
            .iter()
            .map(|&cap| Row {
                cap,
                id: steps::name_of(tree, cap),
                slot: slot(cap.place),
                kernel: kernel_number(tree, cap),
                condition: cap.condition.map(|c| condition(c, By::Common)),
            })
            .collect();
        // Rows stand in the order of places.
        let row_of = |place: CpuidBit| {
            let first = rows.partition_point(|row| row.cap.place < place);
            if rows.get(first).is_some_and(|row| row.cap.place == place) { first } else { usize::MAX }
        };
        let adjustments = kvm::adjustments(tree)
            .map(|adjust| Adjustment {
                adjust,
                slot: slot(adjust.place),
                row: row_of(adjust.place),
                kernel: capabilities::number(tree, adjust.macro_name),
                conditions: adjust.conditions.iter().map(|c| condition(c, adjust.by)).collect(),
            })
            .collect();
        let leaves = leaves(tree, &registers, &lookup);
        let told = steps::told(tree, &rows);
        let generic = Generic::new(tree);
        Self { leaves, told, generic, adjustments, rows, by_name, registers }
    }

    /// The bit of a macro without `X86_FEATURE_`.
    pub(super) fn slot_of(&self, macro_name: &str) -> Option<Slot> {
        self.by_name.get(macro_name).copied()
    }

    /// The rows of a leaf; empty for one that is answered with zeros.
    pub(super) fn cells(&self, leaf: u32) -> &[Cell] {
        let found = self.leaves.binary_search_by_key(&leaf, |leaf| leaf.leaf);
        found.ok().and_then(|index| self.leaves.get(index)).map_or(&[], |leaf| &leaf.cells)
    }
}

const fn home(place: CpuidBit) -> Home {
    (place.leaf, place.subleaf, place.register)
}

fn position(registers: &[Home], home: Home) -> u16 {
    registers.binary_search(&home).map_or(u16::MAX, |index| index as u16)
}

/// The capability of the kernel that a list's macro means. Linux keeps 80000001H:EDX as word 1, with the bits that leaf 1
/// has too.
fn kernel_number(tree: usize, cap: &Cap) -> u16 {
    if cap.kind == kvm::CapKind::Alias1Edx {
        return 32 + u16::from(cap.place.bit);
    }
    // A bit without a name of its own still lies in the kernel's word.
    let source = |word: &&linux::Word| {
        word.source.is_some_and(|source| (source.leaf, source.subleaf, source.register) == home(cap.place))
    };
    let in_word = || linux::words(tree).find(source).map(|word| u16::from(word.index) * 32 + u16::from(cap.place.bit));
    // 5.10.262 hands its word on as it is: later names of the bits stand elsewhere in this kernel.
    if cap.kind == kvm::CapKind::Synthesized
        && kvm::shape(tree) == Some(kvm::Shape::CapMask)
        && let Some(number) = in_word()
    {
        return number;
    }
    match capabilities::number(tree, cap.macro_name) {
        u16::MAX => in_word().unwrap_or(u16::MAX),
        number => number,
    }
}

fn leaves(tree: usize, registers: &[Home], lookup: &impl Fn(&str) -> Option<Slot>) -> Vec<Leaf> {
    let mut numbers: Vec<u32> = kvm::all_answers().map(|answer| answer.leaf).collect();
    numbers.dedup();
    let cell = |answer: &'static Answer| {
        let gate = |gate: &'static Gate| match *gate {
            Gate::Cap(name) => (gate, lookup(name), u16::MAX),
            Gate::HostFlag(name) => (gate, None, capabilities::number(tree, name)),
            Gate::Pmu | Gate::AmdModule | Gate::Otherwise => (gate, None, u16::MAX),
        };
        let word = match answer.how {
            How::Caps | How::CapsAnd(_) | How::Avx10Version => {
                position(registers, (answer.leaf, answer.first_subleaf, answer.register))
            }
            _ => u16::MAX,
        };
        Cell { answer, word, gates: answer.gates.iter().map(gate).collect() }
    };
    let leaf = |leaf: u32| Leaf { leaf, cells: kvm::answers(tree, leaf).map(cell).collect() };
    numbers.into_iter().map(leaf).filter(|leaf| !leaf.cells.is_empty()).collect()
}

/// The bit of a tree's capability words by its macro without `X86_FEATURE_`.
pub(crate) fn slot_of(tree: usize, macro_name: &str) -> Option<Slot> {
    Plan::of(tree)?.slot_of(macro_name)
}

/// The release of a tree.
pub(crate) fn release(tree: usize) -> (u16, u16) {
    TREES.get(tree).map_or((0, 0), |tree| tree.release)
}
