//! A prediction held against what the real software answered.
//!
//! ```
//! use cpusieve_answers::verify;
//! use cpusieve_model::Snapshot;
//!
//! // Nothing was seen, so there is nothing to predict from.
//! assert!(verify::kvm(&Snapshot::default(), Default::default()).is_err());
//! ```

mod cause;
mod guest;
mod host;
mod outside;
mod proof;
mod qemu;
mod vcpu;
mod words;

use std::borrow::Cow;
use std::collections::BTreeMap;

use cpusieve_knowledge::x86;
use cpusieve_model::{Cpu, CpuidBit, CpuidTable, KvmCpuidEntry, KvmView, MsrBit, Place, Register, Snapshot, Stage};
use cpusieve_stages::linux::boot::Unlisted;

use crate::predict::kvm::{KvmPrediction, Question, predict};
use crate::predict::{Kernel, NoPrediction};

pub use guest::guest;
pub use host::host;
pub use outside::{Outside, outside};
pub use proof::{Mismatch, Part, Proof};
pub use qemu::{foretold, qemu};
pub use vcpu::{VcpuQuestion, newest_qemu, vcpu, vcpu_question};

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The prediction.
    pub prediction: KvmPrediction,
    /// The registers that were compared.
    pub compared: usize,
    /// Those that differ, in the order of their places.
    pub differences: Vec<Difference>,
    /// What could not be compared, and why.
    pub unseen: Vec<String>,
}

/// A register that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which.
    pub what: Item,
    /// The predicted value; `None` if no such register was predicted.
    pub predicted: Option<u64>,
    /// The real value; `None` if there is no such register.
    pub real: Option<u64>,
    /// The features whose bits differ, by id.
    pub features: Vec<&'static str>,
    /// The likely cause, in words.
    pub cause: String,
}

/// A register of KVM's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    /// Of `KVM_GET_SUPPORTED_CPUID`: leaf, subleaf, which of several equal entries, register.
    Supported(u32, u32, usize, Register),
    /// Of `KVM_GET_EMULATED_CPUID`.
    Emulated(u32, u32, usize, Register),
    /// A feature MSR.
    Msr(u32),
}

impl std::fmt::Display for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (answer, leaf, subleaf, register) = match *self {
            Self::Supported(leaf, subleaf, _, register) => ("supported", leaf, subleaf, register),
            Self::Emulated(leaf, subleaf, _, register) => ("emulated", leaf, subleaf, register),
            Self::Msr(index) => return write!(f, "feature MSR {index:X}H"),
        };
        let short = format!("{:#}", CpuidBit::new(leaf, subleaf, register, 0));
        write!(f, "{answer} {}", short.trim_end_matches("[0]"))
    }
}

impl Item {
    /// The place of one of its bits.
    const fn place(self, bit: u8) -> Place {
        match self {
            Self::Supported(leaf, subleaf, _, register) | Self::Emulated(leaf, subleaf, _, register) => {
                Place::Cpuid(CpuidBit::new(leaf, subleaf, register, bit))
            }
            Self::Msr(index) => Place::Msr(MsrBit { index, bit }),
        }
    }
}

/// Predicts KVM on the machine of a snapshot and compares with the answers that the snapshot holds.
///
/// # Errors
/// If nothing can be predicted: the snapshot shows no CPUID.
pub fn kvm(snapshot: &Snapshot, unlisted: Unlisted) -> Result<Verified, NoPrediction> {
    let kernel = Kernel { unlisted, ..Kernel::new(Stage::Host) };
    let snapshot = answering_first(snapshot);
    let snapshot = snapshot.as_ref();
    let prediction = predict(snapshot, &Question { predicted: true, ..Question::new(kernel) })?;
    let seen = snapshot.kvm.clone().unwrap_or_default();
    let unseen = unseen(&prediction, &seen);
    let (made, real) = (items(&prediction.view), items(&seen));
    let compared = made.keys().filter(|item| real.contains_key(item)).count();
    let mut differences = differing(&prediction, &made, &real, &seen);
    cause::explain(snapshot, kernel, &prediction, &mut differences);
    Ok(Verified { prediction, compared, differences, unseen })
}

/// The snapshot with the CPU first that ran KVM's ioctl: KVM hands on leaf 1 EBX, with the APIC id of that CPU.
fn answering_first(snapshot: &Snapshot) -> Cow<'_, Snapshot> {
    let told = |table: &CpuidTable| table.get(1, 0).map(|leaf| leaf.ebx);
    let answered = snapshot.kvm.as_ref().and_then(KvmView::supported_table).and_then(|table| told(&table));
    let first = snapshot.cpus.iter().position(|cpu| !cpu.cpuid.is_empty());
    let same = |cpu: &Cpu| answered.is_some() && told(&cpu.cpuid) == answered;
    let (Some(first), Some(other)) = (first, snapshot.cpus.iter().position(same)) else {
        return Cow::Borrowed(snapshot);
    };
    // Where several CPUs say the same, the first of them is as good as any.
    if first >= other || snapshot.cpus.get(first).is_some_and(same) {
        return Cow::Borrowed(snapshot);
    }
    let mut turned = snapshot.clone();
    turned.cpus.rotate_left(other);
    Cow::Owned(turned)
}

/// The answers of which one side is missing.
fn unseen(prediction: &KvmPrediction, seen: &KvmView) -> Vec<String> {
    let mut unseen: Vec<String> = Vec::new();
    let made = &prediction.view;
    let parts = [
        ("KVM_GET_SUPPORTED_CPUID", made.supported.is_some(), seen.supported.is_some()),
        ("KVM_GET_EMULATED_CPUID", made.emulated.is_some(), seen.emulated.is_some()),
        ("feature MSRs", made.msr_features.is_some(), seen.msr_features.is_some()),
    ];
    let named = |is: fn(bool, bool) -> bool| {
        let names = parts.iter().filter(|(_, made, seen)| is(*made, *seen)).map(|(part, ..)| *part);
        Some(names.collect::<Vec<_>>().join(", ")).filter(|names| !names.is_empty())
    };
    if let Some(parts) = named(|_, seen| !seen) {
        unseen.push(format!("{parts}: KVM's answer was not seen"));
    }
    if let Some(parts) = named(|made, seen| seen && !made) {
        // Why is among the findings.
        let why = if prediction.findings.is_empty() { "" } else { ", for the reason above" };
        unseen.push(format!("{parts}: nothing is predicted{why}"));
    }
    let unknown = prediction.msr_features.iter().filter(|(_, value)| value.is_none());
    let unknown: Vec<String> = unknown.map(|(index, _)| format!("{index:X}H")).collect();
    if !unknown.is_empty() && seen.msr_features.is_some() {
        unseen.push(format!("feature MSRs {}: they hang on MSRs of this CPU that were not read", unknown.join(", ")));
    }
    unseen
}

/// All registers of KVM's answers.
fn items(view: &KvmView) -> BTreeMap<Item, u64> {
    let mut items = BTreeMap::new();
    let mut put = |entries: Option<&Vec<KvmCpuidEntry>>, item: fn(u32, u32, usize, Register) -> Item| {
        for (number, entry) in entries.into_iter().flatten().enumerate() {
            let before = entries.into_iter().flatten().take(number);
            let same = before.filter(|other| (other.leaf, other.subleaf) == (entry.leaf, entry.subleaf)).count();
            for register in Register::ALL {
                items.insert(item(entry.leaf, entry.subleaf, same, register), u64::from(entry.registers.get(register)));
            }
        }
    };
    put(view.supported.as_ref(), Item::Supported);
    put(view.emulated.as_ref(), Item::Emulated);
    items.extend(view.msr_features.iter().flatten().map(|(&index, &value)| (Item::Msr(index), value)));
    items
}

/// The registers that differ, where both sides speak.
fn differing(
    prediction: &KvmPrediction,
    made: &BTreeMap<Item, u64>,
    real: &BTreeMap<Item, u64>,
    seen: &KvmView,
) -> Vec<Difference> {
    let both = |item: &Item| match item {
        Item::Supported(..) => prediction.view.supported.is_some() && seen.supported.is_some(),
        Item::Emulated(..) => prediction.view.emulated.is_some() && seen.emulated.is_some(),
        Item::Msr(index) => {
            let unknown = prediction.msr_features.iter().any(|(other, value)| other == index && value.is_none());
            prediction.view.msr_features.is_some() && seen.msr_features.is_some() && !unknown
        }
    };
    let mut all: Vec<Item> = made.keys().chain(real.keys()).copied().filter(both).collect();
    all.sort_unstable();
    all.dedup();
    let differences = all.into_iter().filter_map(|what| {
        let (predicted, real) = (made.get(&what).copied(), real.get(&what).copied());
        (predicted != real).then(|| {
            let bits = predicted.unwrap_or(0) ^ real.unwrap_or(0);
            let features = (0..64).filter(|bit| bits >> bit & 1 == 1).filter_map(|bit| x86::by_place(what.place(bit)));
            let features = features.map(|feature| feature.id).collect();
            Difference { what, predicted, real, features, cause: String::new() }
        })
    });
    differences.collect()
}
