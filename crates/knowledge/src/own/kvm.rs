//! KVM's half of a registered tree: the tables of [`crate::kvm`], of this tree alone.

use std::collections::BTreeMap;

use cpusieve_import::kvm::{self as facts, KvmAdjust, KvmCap, KvmFacts};
use cpusieve_model::CpuidBit;

use super::{list, text};
use crate::TreeSet;
use crate::kvm::{Adjust, Bound, By, Cap, CapKind, Limit, Op, PvFeature, Shape};
use crate::linux::compiled_by_macro;

/// The tables, each in the tree's order.
pub(crate) struct OwnKvm {
    pub(crate) shape: Shape,
    /// In the order of places.
    pub(crate) caps: &'static [Cap],
    pub(crate) adjusts: &'static [Adjust],
    pub(crate) limits: &'static [Limit],
    pub(crate) pv: &'static [PvFeature],
    /// In ascending order.
    pub(crate) handled: &'static [u32],
}

impl OwnKvm {
    pub(super) fn new(facts: &KvmFacts, position: usize) -> Self {
        let trees = TreeSet(1 << position);
        let places: BTreeMap<&str, CpuidBit> = facts
            .caps
            .iter()
            .filter(|cap| cap.kind != facts::CapKind::Alias1Edx)
            .map(|cap| (cap.macro_name.as_str(), cap.place))
            .collect();
        // An imported tree has a place for each of them: its laws say so.
        let adjusts = facts.adjusts.iter().filter_map(|row| Some((row, *places.get(row.macro_name.as_str())?)));
        let mut caps: Vec<Cap> = facts.caps.iter().map(|row| cap(facts, row, trees)).collect();
        caps.sort_by_key(|cap| cap.place);
        let mut handled = facts.handled.clone();
        handled.sort_unstable();
        Self {
            shape: match facts.api {
                facts::KvmApi::ConstMasks => Shape::ConstMasks,
                facts::KvmApi::CapMask => Shape::CapMask,
                facts::KvmApi::CapInit => Shape::CapInit,
            },
            caps: list(caps.into_iter()),
            adjusts: list(adjusts.map(|(row, place)| adjust(row, place, trees))),
            limits: list(facts.leaf_caps.iter().map(|row| Limit {
                leaf: row.leaf,
                bound: match row.bound {
                    facts::Bound::AtMost => Bound::AtMost,
                    facts::Bound::AtLeast => Bound::AtLeast,
                },
                value: row.value,
                trees,
            })),
            pv: list(facts.pv.iter().map(|row| PvFeature {
                bit: row.bit,
                name: text(&row.name),
                condition: row.condition.as_deref().map(text),
                trees,
            })),
            handled: list(handled.into_iter()),
        }
    }
}

fn macro_name(name: &str) -> &'static str {
    compiled_by_macro(name).next().map_or_else(|| text(name), |known| known.macro_name)
}

fn cap(facts: &KvmFacts, row: &KvmCap, trees: TreeSet) -> Cap {
    let hangs = |adjust: &&KvmAdjust| adjust.macro_name == row.macro_name && !adjust.conditions.is_empty();
    let kind = kind(row.kind);
    let adjusted = facts.adjusts.iter().find(hangs).is_some() && kind != CapKind::Alias1Edx;
    Cap {
        macro_name: macro_name(&row.macro_name),
        place: row.place,
        kind,
        condition: row.condition.as_deref().map(text),
        conditional: row.condition.is_some() || adjusted,
        trees,
    }
}

const fn kind(kind: facts::CapKind) -> CapKind {
    match kind {
        facts::CapKind::Plain => CapKind::Plain,
        facts::CapKind::X86_64 => CapKind::X86_64,
        facts::CapKind::Scattered => CapKind::Scattered,
        facts::CapKind::Raw => CapKind::Raw,
        facts::CapKind::Passthrough => CapKind::Passthrough,
        facts::CapKind::Emulated => CapKind::Emulated,
        facts::CapKind::Synthesized => CapKind::Synthesized,
        facts::CapKind::SynthesizedUnconditional => CapKind::SynthesizedUnconditional,
        facts::CapKind::Alias1Edx => CapKind::Alias1Edx,
        facts::CapKind::Vendor => CapKind::Vendor,
        facts::CapKind::AdjustOnly => CapKind::AdjustOnly,
        facts::CapKind::Runtime => CapKind::Runtime,
    }
}

fn adjust(row: &KvmAdjust, place: CpuidBit, trees: TreeSet) -> Adjust {
    Adjust {
        by: match row.site {
            facts::AdjustSite::Common => By::Common,
            facts::AdjustSite::Intel => By::Intel,
            facts::AdjustSite::Amd => By::Amd,
            facts::AdjustSite::CommonLate => By::CommonLate,
        },
        op: match row.op {
            facts::AdjustOp::Set => Op::Set,
            facts::AdjustOp::Clear => Op::Clear,
            facts::AdjustOp::CheckAndSet => Op::CheckAndSet,
            facts::AdjustOp::SetFromRaw => Op::SetFromRaw,
        },
        macro_name: macro_name(&row.macro_name),
        place,
        conditions: list(row.conditions.iter().map(|condition| text(condition))),
        trees,
    }
}
