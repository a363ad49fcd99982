//! What the function that answers leaves says about whole leaves.

use cpusieve_model::{CpuidBit, Register};

use super::statements::{Statement, Statements};
use super::words::number;
use super::{Bound, CapKind, KvmCap, KvmError, LeafCap, PvFeature, Source};
use crate::c;

/// Leaves that have names.
const NAMED: [(&str, u32); 2] = [("KVM_CPUID_SIGNATURE", 0x4000_0000), ("KVM_CPUID_FEATURES", 0x4000_0001)];

/// The expression of the `switch` over leaves.
const SWITCH: &str = "function";

fn leaf(label: &str) -> Option<u32> {
    number(label).or_else(|| NAMED.iter().find(|(name, _)| *name == label).map(|(_, leaf)| *leaf))
}

/// The leaf that a statement answers; none if it answers several or all.
pub(super) fn leaf_of(statement: &Statement) -> Option<u32> {
    statement.cases.iter().find(|label| label.of == SWITCH).and_then(|label| leaf(&label.value))
}

/// The leaves that have a `case` of their own.
pub(super) fn handled(source: &Source) -> Result<Vec<u32>, KvmError> {
    let statements = source.answering()?;
    let mut found = Vec::new();
    for label in statements.labels.iter().filter(|label| label.of == SWITCH) {
        let what = || source.cpuid.unexpected(0, format!("case {}: not a leaf", label.value));
        found.push(leaf(&label.value).ok_or_else(what)?);
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// The limits on EAX.
pub(super) fn limits(source: &Source) -> Result<Vec<LeafCap>, KvmError> {
    let mut found = limits_in(&source.answering()?, None);
    // Before 5.7, leaf 7 had a function of its own.
    if let Some(leaf_7) = source.cpuid.function("do_cpuid_7_mask")? {
        found.extend(limits_in(&leaf_7, Some(7)));
    }
    found.sort();
    found.dedup();
    Ok(found)
}

fn limits_in(statements: &Statements, only: Option<u32>) -> Vec<LeafCap> {
    let found = statements.list.iter().filter_map(|statement| {
        let (_, value) = statement.text.split_once("entry->eax = ")?;
        let (bound, value) = match value.split_once("(entry->eax, ")? {
            ("min", value) => (Bound::AtMost, value),
            ("max", value) => (Bound::AtLeast, value),
            _ => return None,
        };
        let leaf = only.or_else(|| leaf_of(statement))?;
        Some(LeafCap { leaf, bound, value: number(value.strip_suffix(')')?)? })
    });
    found.collect()
}

/// The bits of leaves whose answer is a constant: leaf 6.
pub(super) fn constant_caps(source: &Source) -> Result<Vec<KvmCap>, KvmError> {
    let statements = source.answering()?;
    let mut caps = Vec::new();
    for statement in statements.list.iter().filter(|statement| leaf_of(statement) == Some(6)) {
        let value = statement.text.strip_prefix("entry->eax = ").and_then(number).unwrap_or(0);
        for bit in (0..32).filter(|bit| value >> bit & 1 == 1) {
            let place = CpuidBit::new(6, 0, Register::Eax, bit);
            let name = source.words.macro_at(place);
            let what = || source.cpuid.unexpected(statement.line, format!("{place} has no name"));
            let macro_name = name.ok_or_else(what)?;
            caps.push(KvmCap { place, macro_name, kind: CapKind::Emulated, condition: None });
        }
    }
    Ok(caps)
}

/// The features of leaf 40000001H.
pub(super) fn pv_features(source: &Source) -> Result<Vec<PvFeature>, KvmError> {
    let statements = source.answering()?;
    let mut found = Vec::new();
    for statement in statements.list.iter().filter(|statement| statement.under(SWITCH, "KVM_CPUID_FEATURES")) {
        for part in statement.text.split("KVM_FEATURE_").skip(1) {
            let name: String = part.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            let what = || source.para.unexpected(0, format!("KVM_FEATURE_{name} is not defined"));
            let bit = bit_of(&source.para.code, &name).ok_or_else(what)?;
            let condition = (!statement.conditions.is_empty()).then(|| statement.conditions.join(" && "));
            found.push(PvFeature { bit, name, condition });
        }
    }
    found.sort();
    Ok(found)
}

/// The number in `#define KVM_FEATURE_NAME number`.
fn bit_of(code: &str, name: &str) -> Option<u8> {
    let name = format!("KVM_FEATURE_{name}");
    let (_, value) = code.lines().filter_map(c::define).find(|(defined, _)| *defined == name)?;
    number(value).and_then(|bit| u8::try_from(bit).ok()).filter(|bit| *bit < 32)
}
