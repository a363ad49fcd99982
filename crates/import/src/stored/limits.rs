//! What a tree must obey so that it can be used: the laws of its tables, and that there is room for them.

use std::collections::{BTreeMap, BTreeSet};

use cpusieve_model::CpuidBit;

use super::{StoredError, StoredTree};
use crate::kvm::{AdjustOp, Bound, CapKind, KvmFacts};
use crate::linux::LinuxFacts;

/// The greatest number of capability words; kernels have 22.
const MOST_WORDS: u8 = 24;
/// The greatest number of bug words.
const MOST_BUG_WORDS: u8 = 2;
/// The greatest number of VMX words.
const MOST_VMX_WORDS: u8 = 5;
/// The greatest number of rows of a list; the longest one of a kernel has about 700.
const MOST_ROWS: usize = 4096;
/// The greatest number of dependencies; kernels have about 90, and all of them are followed from each.
const MOST_DEPENDENCIES: usize = 256;
/// The greatest length of a word, in bytes.
const MOST_LETTERS: usize = 64;
/// The greatest length of a condition in C, in bytes.
const MOST_CONDITION: usize = 1024;
/// How far a leaf that announces its range is ever raised.
const RAISED_TO: std::ops::RangeInclusive<u32> = 0x8000_0000..=0x8000_00ff;

pub(super) fn check(tree: &StoredTree) -> Result<(), StoredError> {
    let numbers =
        tree.version.split_once('.').map(|(major, rest)| (major, rest.split(['.', '-']).next().unwrap_or("")));
    let is_number = |text: &str| text.parse::<u16>().is_ok();
    if !numbers.is_some_and(|(major, minor)| is_number(major) && is_number(minor)) {
        return Err(StoredError::Whole(format!("`{}` is no version of a kernel", tree.version)));
    }
    let is_word = |text: &String| text.len() <= MOST_LETTERS && text.chars().all(|c| c.is_ascii_graphic() && c != '"');
    if !is_word(&tree.version) || tree.release.as_ref().is_some_and(|release| !is_word(release)) {
        return Err(StoredError::Whole("the version or release is longer than any, or has blanks".to_owned()));
    }
    if tree.source.contains(|c: char| c == '"' || c.is_control()) {
        return Err(StoredError::Whole("the source has characters that no cell can hold".to_owned()));
    }
    if tree.linux.is_none() && tree.kvm.is_none() {
        return Err(StoredError::Whole("neither Linux's tables nor KVM's".to_owned()));
    }
    tree.linux.as_ref().map_or(Ok(()), linux)?;
    tree.kvm.as_ref().map_or(Ok(()), kvm)
}

fn linux(facts: &LinuxFacts) -> Result<(), StoredError> {
    let words = [
        ("capability", facts.ncapints, MOST_WORDS),
        ("bug", facts.nbugints, MOST_BUG_WORDS),
        ("VMX", facts.nvmxints, MOST_VMX_WORDS),
    ];
    for (what, number, most) in words {
        if number > most {
            return Err(StoredError::Whole(format!("{number} {what} words, but there is room for {most}")));
        }
    }
    let lists = [
        ("features", facts.features.len()),
        ("bugs", facts.bugs.len()),
        ("VMX features", facts.vmx_flags.len()),
        ("scattered bits", facts.scattered.len()),
        ("levels", facts.levels.len()),
        ("masks", facts.masks.len()),
    ];
    lists.into_iter().try_for_each(|(what, number)| few(what, number, MOST_ROWS))?;
    few("dependencies", facts.dependencies.len(), MOST_DEPENDENCIES)?;
    let flags = || facts.features.iter().chain(&facts.bugs).chain(&facts.vmx_flags);
    flags().try_for_each(|flag| short(&flag.macro_name))?;
    flags().filter_map(|flag| flag.shown.name()).try_for_each(printable)?;
    match facts.broken_laws()[..] {
        [] => Ok(()),
        [ref law] => Err(StoredError::Whole(law.clone())),
        [ref law, ref more @ ..] => Err(StoredError::Whole(format!("{law}; and {} more", more.len()))),
    }
}

fn kvm(facts: &KvmFacts) -> Result<(), StoredError> {
    let lists = [
        ("bits of KVM", facts.caps.len()),
        ("adjustments", facts.adjusts.len()),
        ("limits", facts.leaf_caps.len()),
        ("paravirtual features", facts.pv.len()),
        ("leaves", facts.handled.len()),
    ];
    lists.into_iter().try_for_each(|(what, number)| few(what, number, MOST_ROWS))?;
    facts.caps.iter().try_for_each(|cap| short(&cap.macro_name))?;
    let conditions = facts.caps.iter().filter_map(|cap| cap.condition.as_ref());
    let conditions = conditions.chain(facts.adjusts.iter().flat_map(|adjust| &adjust.conditions));
    for condition in conditions.chain(facts.pv.iter().filter_map(|feature| feature.condition.as_ref())) {
        if condition.len() > MOST_CONDITION {
            return Err(StoredError::Whole(format!("a condition of {} bytes", condition.len())));
        }
    }
    if facts.leaf_caps.iter().any(|cap| cap.bound == Bound::AtLeast && !RAISED_TO.contains(&cap.value)) {
        return Err(StoredError::Whole("a leaf is raised above all leaves that there are".to_owned()));
    }
    let mut places = BTreeMap::<&str, BTreeSet<CpuidBit>>::new();
    for cap in facts.caps.iter().filter(|cap| cap.kind != CapKind::Alias1Edx) {
        places.entry(&cap.macro_name).or_default().insert(cap.place);
    }
    let homeless =
        facts.adjusts.iter().find(|adjust| places.get(adjust.macro_name.as_str()).map(BTreeSet::len) != Some(1));
    homeless.map_or(Ok(()), |adjust| {
        let what = if adjust.op == AdjustOp::Clear { "cleared" } else { "set" };
        Err(StoredError::Whole(format!("KVM: {} is {what}, but has not one place", adjust.macro_name)))
    })
}

fn few(what: &str, number: usize, most: usize) -> Result<(), StoredError> {
    if number <= most {
        Ok(())
    } else {
        Err(StoredError::Whole(format!("{number} {what}, but there is room for {most}")))
    }
}

fn short(name: &String) -> Result<(), StoredError> {
    let is_macro = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let fits = is_macro && name.len() <= MOST_LETTERS;
    if fits { Ok(()) } else { Err(StoredError::Whole(format!("{name:?} is no macro"))) }
}

fn printable(name: &str) -> Result<(), StoredError> {
    let is_flag = !name.is_empty() && name.len() <= MOST_LETTERS && name.chars().all(|c| c.is_ascii_graphic());
    if is_flag { Ok(()) } else { Err(StoredError::Whole(format!("{name:?} is no word of a flags line"))) }
}
