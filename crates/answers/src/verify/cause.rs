//! Why a prediction and the real answer differ: whichever other hypothesis predicts the real value is named.

use cpusieve_knowledge::linux::TREES;
use cpusieve_model::{Register, Snapshot};

use super::{Difference, Item, items};
use crate::predict::Kernel;
use crate::predict::kvm::{KvmPrediction, Question, predict};

/// Parameters that change what KVM offers, asked for in turn where the record does not show its parameters.
const SWITCHES: [&str; 8] = ["nested", "ept", "npt", "enable_pmu", "sgx", "pt_mode", "unrestricted_guest", "sev"];

/// Another hypothesis: words for it, and the registers that it predicts.
struct Other {
    words: String,
    items: std::collections::BTreeMap<Item, u64>,
    explained: usize,
}

/// Gives each difference its likely cause.
pub(super) fn explain(
    snapshot: &Snapshot,
    kernel: Kernel<'_>,
    prediction: &KvmPrediction,
    differences: &mut [Difference],
) {
    if differences.is_empty() {
        return;
    }
    let mut others = others(snapshot, kernel, prediction);
    for other in &mut others {
        other.explained = differences.iter().filter(|difference| agrees(other, difference)).count();
    }
    // The hypothesis that explains most is the likeliest for each register that it explains.
    others.sort_by_key(|other| std::cmp::Reverse(other.explained));
    for difference in differences {
        let other_cpu = other_cpu(snapshot, difference);
        let other = || others.iter().find(|other| agrees(other, difference)).map(|other| other.words.clone());
        difference.cause = other_cpu.or_else(other).unwrap_or_else(|| last_resort(prediction));
    }
}

fn agrees(other: &Other, difference: &Difference) -> bool {
    other.items.get(&difference.what).copied() == difference.real
}

/// Other kernels, and other parameters where the record shows none.
fn others(snapshot: &Snapshot, kernel: Kernel<'_>, prediction: &KvmPrediction) -> Vec<Other> {
    let mut others = Vec::new();
    let mut suppose = |words: String, kernel: Kernel<'_>, params: &[(String, String)]| {
        if let Ok(found) = predict(snapshot, &Question { params, predicted: true, ..Question::new(kernel) }) {
            others.push(Other { words, items: items(&found.view), explained: 0 });
        }
    };
    for tree in TREES.iter().enumerate().filter(|(tree, _)| *tree != prediction.host.tree).map(|(_, tree)| tree) {
        let words = format!("KVM of Linux {} would answer so: this kernel may carry patches of it", tree.label);
        suppose(words, Kernel { release: Some(tree.label), ..kernel }, &[]);
    }
    if snapshot.kvm.as_ref().is_none_or(|kvm| kvm.params.is_empty()) {
        for name in SWITCHES {
            for value in ["0", "1"] {
                let words = format!("KVM with {name}={value} would answer so; the module's parameters were not seen");
                suppose(words, kernel, &[(name.to_owned(), value.to_owned())]);
            }
        }
    }
    others
}

/// Registers that say which CPU answers.
fn other_cpu(snapshot: &Snapshot, difference: &Difference) -> Option<String> {
    let Item::Supported(leaf, subleaf, _, register) = difference.what else { return None };
    let of_cpu = matches!((leaf, register), (0x1, Register::Ebx) | (0xb | 0x1f, Register::Edx) | (0x2 | 0x4, _))
        || matches!(leaf, 0x8000_0005 | 0x8000_0006 | 0x8000_001d | 0x8000_001e);
    let real = u32::try_from(difference.real?).ok()?;
    let cpu = snapshot
        .cpus
        .iter()
        .filter(|_| of_cpu)
        .find(|cpu| cpu.cpuid.get(leaf, subleaf).is_some_and(|registers| registers.get(register) == real))?;
    Some(format!("this register tells which CPU answers: CPU {} did", cpu.id))
}

fn last_resort(prediction: &KvmPrediction) -> String {
    let unseen: Vec<&str> =
        prediction.assumed.iter().map(|assumed| assumed.what.as_str()).filter(|what| what.starts_with("MSR")).collect();
    if unseen.is_empty() {
        return "no known release or parameter answers so: this KVM is patched, or our knowledge of it is wrong"
            .to_owned();
    }
    format!("no known release or parameter answers so; {} was not read and had to be assumed", unseen.join(", "))
}
