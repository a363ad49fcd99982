//! Laws of the tables.

use std::collections::BTreeSet;

use super::*;
use crate::linux::TREES;
use crate::rules;

fn trees() -> std::ops::Range<usize> {
    0..TREES.len()
}

fn tree(label: &str) -> usize {
    trees().find(|&tree| TREES[tree].label == label).unwrap()
}

fn feature(macro_name: &str) -> CpuidBit {
    CAPS.iter().find(|cap| cap.macro_name == macro_name && cap.kind != CapKind::Alias1Edx).unwrap().place
}

#[test]
fn every_tree_was_read() {
    for tree in trees() {
        assert!(shape(tree).is_some(), "{}", TREES[tree].label);
        assert!(caps(tree).count() > 130);
        assert!(adjustments(tree).count() > 10);
    }
    let shapes: Vec<Shape> = trees().filter_map(shape).collect();
    assert!(shapes.is_sorted());
}

#[test]
fn one_place_has_one_macro_in_a_tree_and_places_are_sorted() {
    assert!(CAPS.is_sorted_by_key(|cap| cap.place));
    assert!(OFFERED.is_sorted_by_key(|(place, _)| *place));
    for tree in trees() {
        let places: BTreeSet<CpuidBit> = caps(tree).map(|cap| cap.place).collect();
        assert_eq!(places.len(), caps(tree).count(), "{}", TREES[tree].label);
    }
}

#[test]
fn every_adjusted_bit_is_listed() {
    for tree in trees() {
        for adjust in adjustments(tree) {
            let cap = cap(tree, adjust.place).unwrap();
            assert_eq!(cap.macro_name, adjust.macro_name, "{}", TREES[tree].label);
        }
    }
}

#[test]
fn every_condition_is_explained_in_its_tree() {
    let mut seen = BTreeSet::new();
    for tree in trees() {
        let masks = caps(tree).filter_map(|cap| cap.condition);
        let pv = pv_features(tree).filter_map(|feature| feature.condition);
        for c in adjustments(tree).flat_map(|adjust| adjust.conditions.iter().copied()).chain(masks).chain(pv) {
            let condition = rules::kvm_condition(c, tree);
            let condition = condition.unwrap_or_else(|| panic!("{}: nothing explains `{c}`", TREES[tree].label));
            assert!(
                condition.trees.contains(tree),
                "{}: {} does not speak of this tree",
                TREES[tree].label,
                condition.id
            );
            seen.insert(c);
        }
    }
    for condition in rules::KVM_CONDITIONS {
        for c in condition.c {
            assert!(seen.contains(c), "{}: `{c}` occurs in no tree", condition.id);
        }
    }
}

#[test]
fn words_are_answered_where_they_are_listed() {
    // Bits that are kept in a word although the leaf is not answered: SRSO_NO was backported without its leaf.
    for tree in trees() {
        for cap in caps(tree) {
            let CpuidBit { leaf, subleaf, register, .. } = cap.place;
            let answered = answer(tree, leaf, subleaf, register).is_some();
            let stray = cap.macro_name == "SRSO_NO" && ["5.10", "5.15"].contains(&TREES[tree].label);
            assert_eq!(answered, !stray, "{}: {} {:#}", TREES[tree].label, cap.macro_name, cap.place);
        }
    }
}

#[test]
fn what_is_answered_has_a_case() {
    for tree in trees() {
        for answer in ANSWERS.iter().filter(|answer| answer.trees.contains(tree)) {
            let by_vendor = answer.gates.contains(&Gate::AmdModule);
            assert!(has_case(tree, answer.leaf) || by_vendor, "{}: {:#x}", TREES[tree].label, answer.leaf);
            assert!(answer.first_subleaf <= answer.last_subleaf);
        }
        let limited = |leaf| at_most(tree, leaf).is_some();
        for answer in ANSWERS.iter().filter(|answer| answer.trees.contains(tree)) {
            assert_eq!(
                answer.how == How::Limited,
                answer.register == Register::Eax && answer.first_subleaf == 0 && limited(answer.leaf),
                "{:#x}",
                answer.leaf
            );
        }
    }
}

#[test]
fn registers_are_answered_in_one_way() {
    for (index, answer) in ANSWERS.iter().enumerate() {
        for other in &ANSWERS[index + 1..] {
            let same = (answer.leaf, answer.register) == (other.leaf, other.register)
                && answer.first_subleaf <= other.last_subleaf
                && other.first_subleaf <= answer.last_subleaf
                && answer.gates.contains(&Gate::Otherwise) == other.gates.contains(&Gate::Otherwise);
            assert!(
                !same || answer.trees.intersection(other.trees).is_empty(),
                "{:#x} {}",
                answer.leaf,
                answer.register
            );
        }
    }
}

#[test]
fn known_releases_agree_with_the_trees() {
    let number = |release: &str| {
        let (major, minor) = release.split_once('.').unwrap();
        let minor: String = minor.chars().take_while(char::is_ascii_digit).collect();
        (major.parse::<u32>().unwrap(), minor.parse::<u32>().unwrap())
    };
    for (place, release) in RELEASES {
        let offering = trees_offering(*place);
        let first = offering.first().unwrap();
        assert!(number(TREES[first].label) >= number(release), "{place}");
        assert!(number(TREES[first - 1].label) < number(release), "{place}");
        assert_eq!(since(*place), Some(Since::Release(release)));
    }
}

#[test]
fn what_the_tables_are_known_to_say() {
    let (old, new) = (tree("6.0"), tree("7.3"));
    let ht = CpuidBit::new(1, 0, Register::Edx, 28);
    assert_eq!(cap(new, ht), None);
    assert_eq!(since(feature("FLUSH_L1D")), Some(Since::Release("6.4")));
    assert_eq!(since(feature("MOVRS")), Some(Since::Between { absent: tree("6.19"), present: tree("7.1.13") }));
    assert_eq!(since(feature("AVX2")), Some(Since::Always));
    assert_eq!(since(ht), None);
    let hwp = CpuidBit::new(6, 0, Register::Eax, 7);
    assert_eq!(handling(old, hwp), Handling::Constant(Registers { eax: 4, ..Registers::default() }));
    assert_eq!(handling(old, CpuidBit::new(0x15, 0, Register::Eax, 0)), Handling::Zero);
    assert_eq!(handling(old, feature("AVX2")), Handling::Masked);
    assert_eq!(handles(old, 4), Handling::Raw);
    assert_eq!(handling(old, CpuidBit::new(0xd, 0, Register::Eax, 2)), Handling::Computed);
    let ds: Vec<_> = adjustments_of(new, "DS").map(|adjust| (adjust.by, adjust.op, adjust.conditions)).collect();
    assert_eq!(ds, [(By::Intel, Op::CheckAndSet, &["vmx_pebs_supported()"][..])]);
    assert_eq!(at_most(new, 0), Some(0x24));
    assert_eq!(pv_features(new).count(), 14);
    assert!(trees_offering(feature("MWAIT")).is_empty());
}
