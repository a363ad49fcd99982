//! What KVM of one tree offers otherwise than that of another.

use std::collections::BTreeSet;

use cpusieve_knowledge::kvm::{self, Adjust, Bound, By, Cap, CapKind, Op};
use cpusieve_model::CpuidBit;
use cpusieve_stages::kvm::answer::is_decided;

/// One thing that KVM of a tree does otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InKvm {
    /// A bit is in the lists of one tree alone, or in another way.
    Bit {
        /// The bit.
        bit: CpuidBit,
        /// The macro, without `X86_FEATURE_`.
        macro_name: &'static str,
        /// How the older tree offers it.
        before: Option<CapKind>,
        /// How the newer one does.
        after: Option<CapKind>,
    },
    /// A bit is set or cleared afterwards by one tree alone.
    Adjustment {
        /// The bit.
        bit: CpuidBit,
        /// The macro, without `X86_FEATURE_`.
        macro_name: &'static str,
        /// Whose code does it.
        by: By,
        /// What it does.
        op: Op,
        /// The C conditions, all of which must hold.
        conditions: &'static [&'static str],
        /// Whether the newer tree does it, or the older one.
        is_new: bool,
    },
    /// The limit on EAX of a leaf that announces a range.
    Limit {
        /// The leaf.
        leaf: u32,
        /// The older limit.
        before: Option<u32>,
        /// The newer one.
        after: Option<u32>,
    },
    /// A paravirtual feature (40000001H:EAX) of one tree alone.
    Paravirtual {
        /// The bit.
        bit: u8,
        /// The macro, without `KVM_FEATURE_`.
        name: &'static str,
        /// Whether the newer tree has it, or the older one.
        is_new: bool,
    },
    /// A leaf that one tree alone answers.
    Leaf {
        /// The leaf.
        leaf: u32,
        /// Whether the newer tree answers it, or the older one.
        is_new: bool,
    },
}

pub(super) fn compare(before: usize, after: usize) -> Vec<InKvm> {
    let mut found = bits(before, after);
    found.extend(adjustments(before, after));
    found.extend(limits(before, after));
    let paravirtual = |tree| kvm::pv_features(tree).map(|row| (row.bit, row.name)).collect::<BTreeSet<_>>();
    found.extend(either(&paravirtual(before), &paravirtual(after)).map(|((bit, name), is_new)| InKvm::Paravirtual {
        bit,
        name,
        is_new,
    }));
    let leaves = |tree| all_leaves(before, after).into_iter().filter(|&leaf| kvm::has_case(tree, leaf)).collect();
    found.extend(either(&leaves(before), &leaves(after)).map(|(leaf, is_new)| InKvm::Leaf { leaf, is_new }));
    found
}

/// What only one of two sets has, with whether that is the second.
fn either<'a, T: Ord + Copy>(before: &'a BTreeSet<T>, after: &'a BTreeSet<T>) -> impl Iterator<Item = (T, bool)> + 'a {
    let gone = before.difference(after).map(|&item| (item, false));
    gone.chain(after.difference(before).map(|&item| (item, true)))
}

fn bits(before: usize, after: usize) -> Vec<InKvm> {
    let places: BTreeSet<CpuidBit> = kvm::caps(before).chain(kvm::caps(after)).map(|cap| cap.place).collect();
    let gist = |cap: Option<&Cap>| cap.map(|cap| (cap.kind, cap.condition));
    let differs = |&place: &CpuidBit| gist(kvm::cap(before, place)) != gist(kvm::cap(after, place));
    let row = |place: CpuidBit| {
        let (old, new) = (kvm::cap(before, place), kvm::cap(after, place));
        let macro_name = new.or(old)?.macro_name;
        let (before, after) = (old.map(|cap| cap.kind), new.map(|cap| cap.kind));
        // A bit that only an adjustment brings is said with that.
        let by_itself = |kind: &CapKind| !matches!(kind, CapKind::Vendor | CapKind::AdjustOnly);
        let is_said = before.iter().chain(after.iter()).any(by_itself);
        is_said.then_some(InKvm::Bit { bit: place, macro_name, before, after })
    };
    places.into_iter().filter(differs).filter_map(row).collect()
}

fn adjustments(before: usize, after: usize) -> Vec<InKvm> {
    let gist = |row: &Adjust| (row.by, row.op, row.macro_name, row.conditions);
    let only = |here: usize, there: usize, is_new: bool| {
        let others: Vec<_> = kvm::adjustments(there).map(gist).collect();
        let mine = kvm::adjustments(here).filter(move |row| !others.contains(&gist(row)));
        mine.map(move |row| InKvm::Adjustment {
            bit: row.place,
            macro_name: row.macro_name,
            by: row.by,
            op: row.op,
            conditions: row.conditions,
            is_new,
        })
        .collect::<Vec<_>>()
    };
    [only(before, after, false), only(after, before, true)].concat()
}

fn limits(before: usize, after: usize) -> Vec<InKvm> {
    let most = |tree| kvm::leaf_caps(tree).filter(|limit| limit.bound == Bound::AtMost).map(|limit| limit.leaf);
    let leaves: BTreeSet<u32> = most(before).chain(most(after)).collect();
    let of = |leaf: u32| (kvm::at_most(before, leaf), kvm::at_most(after, leaf));
    let row = |leaf: u32| {
        let (before, after) = of(leaf);
        (before != after).then_some(InKvm::Limit { leaf, before, after })
    };
    leaves.into_iter().filter_map(row).collect()
}

/// The leaves that may have a case in one of two trees.
fn all_leaves(before: usize, after: usize) -> Vec<u32> {
    kvm::leaves_with_case(before).into_iter().chain(kvm::leaves_with_case(after)).collect()
}

/// The C conditions of a tree's KVM of which nothing is known.
#[must_use]
pub fn undecided(tree: usize) -> Vec<&'static str> {
    let masks = kvm::caps(tree).filter_map(|cap| cap.condition);
    let adjustments = kvm::adjustments(tree).flat_map(|row| row.conditions.iter().copied());
    let unknown: BTreeSet<&str> = masks.chain(adjustments).filter(|c| !is_decided(c, tree)).collect();
    unknown.into_iter().collect()
}

/// What the tables of the newer tree leave open that those of the older one did not.
pub(super) fn doubts(before: usize, after: usize) -> Vec<String> {
    let known = undecided(before);
    let new = undecided(after).into_iter().filter(|c| !known.contains(c));
    let conditions =
        new.map(|c| format!("KVM's condition `{c}` is not one that can be decided; it is taken not to hold"));
    let answered = |leaf: &u32| kvm::answers(after, *leaf).next().is_some();
    let leaves = kvm::leaves_with_case(after).into_iter().filter(|&leaf| !kvm::has_case(before, leaf));
    let unknown = leaves.filter(|leaf| !answered(leaf));
    let leaves = unknown.map(|leaf| format!("how KVM answers leaf {leaf:X}H is not known; it is taken for zeros"));
    conditions.chain(leaves).collect()
}
