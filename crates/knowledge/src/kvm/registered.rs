//! Questions that a search in the compiled-in tables alone would not answer for registered trees.

use cpusieve_model::CpuidBit;

use super::{Answer, Cap, CapKind, HANDLED, Op, answers, caps_at, in_tree, trees_offering};
use crate::own;

/// Whether KVM of this tree offers this bit under some condition, in a leaf that it answers: [`trees_offering`], for
/// registered trees too.
#[must_use]
pub fn offers(tree: usize, place: CpuidBit) -> bool {
    let Some(own) = own::kvm(tree) else { return trees_offering(place).contains(own::compiled(tree)) };
    let adds = |cap: &Cap| own.adjusts.iter().any(|row| row.op != Op::Clear && row.macro_name == cap.macro_name);
    let listed = own.caps.iter().filter(|cap| cap.place == place).any(|cap| match cap.kind {
        CapKind::Runtime => false,
        CapKind::Vendor | CapKind::AdjustOnly => adds(cap),
        _ => true,
    });
    let reaches = |answer: &Answer| {
        answer.register == place.register && (answer.first_subleaf..=answer.last_subleaf).contains(&place.subleaf)
    };
    listed && answers(tree, place.leaf).any(reaches)
}

/// The rows of all trees about a place, those of registered trees last.
pub fn caps_everywhere(place: CpuidBit) -> impl Iterator<Item = &'static Cap> {
    let imported = own::all().filter_map(|(_, own)| own.kvm.as_ref()).flat_map(|own| own.caps);
    caps_at(place).iter().chain(imported.filter(move |cap| cap.place == place))
}

/// The leaves for which [`has_case`](super::has_case), in ascending order.
#[must_use]
pub fn leaves_with_case(tree: usize) -> Vec<u32> {
    match own::kvm(tree) {
        Some(own) => own.handled.to_vec(),
        None => in_tree(HANDLED, tree, |(_, trees)| *trees).map(|(leaf, _)| *leaf).collect(),
    }
}
