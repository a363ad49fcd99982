//! Who else must know of a feature so that it gets from the CPU to a guest.

use std::collections::BTreeMap;

use cpusieve_knowledge::kvm::CapKind;
use cpusieve_knowledge::rules::{Software, generic};
use cpusieve_knowledge::{kvm, linux, qemu};
use cpusieve_model::{Cite, CpuidBit, Place};
use cpusieve_stages::kvm::home;

use super::kvm::InKvm;
use super::{Difference, Differences};

/// What another software must do for a feature that is new in a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The feature.
    pub feature: &'static str,
    /// Its bit.
    pub bit: CpuidBit,
    /// Who must know it.
    pub who: Who,
    /// Whether nothing is left to do there.
    pub is_met: bool,
    /// What it does, or must do.
    pub text: String,
    /// Where that is decided: `file:function`.
    pub cite: &'static str,
}

/// Who must know of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    /// KVM of the same tree, on the host.
    Kvm,
    /// QEMU.
    Qemu,
    /// The kernel in the guest.
    Guest,
}

impl Who {
    /// The word of the JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Qemu => "qemu",
            Self::Guest => "guest",
        }
    }
}

/// The needs of every bit that is new in Linux or KVM of a tree.
pub(super) fn of(tree: usize, found: &Differences) -> Vec<Need> {
    let mut bits = BTreeMap::<CpuidBit, &'static str>::new();
    for difference in found.features.iter().filter(|difference| is_new(difference)) {
        let Some(known) = &difference.after else { continue };
        bits.extend(known.places.iter().filter_map(|place| place.cpuid()).map(|bit| (bit, known.id)));
    }
    for change in &found.kvm {
        let (bit, macro_name) = match *change {
            InKvm::Bit { bit, macro_name, before: None, after: Some(_) } => (bit, macro_name),
            InKvm::Adjustment { bit, macro_name, op: kvm::Op::Set | kvm::Op::CheckAndSet, is_new: true, .. } => {
                (bit, macro_name)
            }
            _ => continue,
        };
        let id = linux::feature(tree, macro_name).map_or(macro_name, linux::Feature::id);
        bits.entry(bit).or_insert(id);
    }
    bits.into_iter()
        .flat_map(|(bit, feature)| [by_kvm(tree, feature, bit), by_qemu(feature, bit), in_guest(tree, feature, bit)])
        .flatten()
        .collect()
}

/// A feature that the older tree did not take from this bit.
fn is_new(difference: &Difference) -> bool {
    let places = |known: &Option<super::Known>| known.as_ref().map_or(&[][..], |known| known.places);
    let before = places(&difference.before);
    places(&difference.after).iter().any(|place| place.cpuid().is_some() && !before.contains(place))
}

fn by_kvm(tree: usize, feature: &'static str, bit: CpuidBit) -> Option<Need> {
    let cite = home(Cite("arch/x86/kvm/cpuid.c:kvm_set_cpu_caps"), tree).0;
    let offers = kvm::offers(tree, bit);
    let answered = kvm::answer(tree, bit.leaf, bit.subleaf, bit.register).is_some();
    let text = match kvm::cap(tree, bit) {
        Some(cap) if offers => format!("offers it {}", crate::name::kind(cap.kind)),
        Some(cap) if cap.kind == CapKind::Runtime => return None,
        _ if offers || kvm::handling(tree, bit) == kvm::Handling::Raw => "hands the register on as it is".to_owned(),
        _ if answered => "does not offer it: no list of this tree has it, so no guest gets it".to_owned(),
        _ => "answers the register with zeros, so no guest gets it".to_owned(),
    };
    let is_met = offers || kvm::handling(tree, bit) == kvm::Handling::Raw;
    Some(Need { feature, bit, who: Who::Kvm, is_met, text, cite })
}

fn by_qemu(feature: &'static str, bit: CpuidBit) -> Option<Need> {
    let place = Place::Cpuid(bit);
    let newest = qemu::RELEASES.len().checked_sub(1)?;
    let label = |release: usize| qemu::RELEASES.get(release).map_or("", |release| release.label);
    let known = qemu::bit(place);
    let name = known.and_then(|bit| bit.name);
    let text = match (name, qemu::first_naming(place)) {
        (Some(name), Some(0)) => format!("names it {name} in all releases that are known"),
        (Some(name), Some(first)) => {
            format!("{} and newer name it {name}; {} does not", label(first), label(first - 1))
        }
        _ if qemu::word_exists(newest, place) => {
            format!("has no name for it up to {}: only -cpu host,migratable=off passes it on", label(newest))
        }
        _ => {
            format!("has not the register among its feature words up to {}: it passes nothing of it on", label(newest))
        }
    };
    let when = if qemu::word_exists(newest, place) { "unnamed" } else { "word-unknown" };
    let cite = generic(Software::Qemu, when).map_or("", |rule| rule.cite.0);
    Some(Need { feature, bit, who: Who::Qemu, is_met: name.is_some(), text, cite })
}

/// Which guests' kernels name the bit.
fn in_guest(tree: usize, feature: &'static str, bit: CpuidBit) -> Option<Need> {
    let place = Place::Cpuid(bit);
    let mine = linux::at(tree, place)?;
    let shows = |tree: &usize| linux::at(*tree, place).is_some_and(|row| row.shown.is_some());
    let since = (0..linux::TREES.len()).rev().take_while(shows).last();
    let label = |tree: usize| linux::TREES.get(tree).map_or("", |tree| tree.label.trim_end_matches("vanilla"));
    let text = match (mine.shown, since) {
        (None, _) => "prints nothing for it: the kernel has the capability under no name".to_owned(),
        (Some(name), None) => {
            format!("must be this kernel, or one with the same change, to print {name}: no known release does")
        }
        (Some(name), Some(first)) => {
            format!("prints {name} with this kernel, and with Linux {} or newer", label(first))
        }
    };
    let cite = generic(Software::Linux, "no-name").map_or("", |rule| rule.cite.0);
    Some(Need { feature, bit, who: Who::Guest, is_met: mine.shown.is_some() && since.is_some(), text, cite })
}
