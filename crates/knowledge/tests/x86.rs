//! The table of features is whole, and its names lead where they should.
#![allow(clippy::unwrap_used, reason = "tests fail by panics")]

use std::collections::BTreeSet;

use cpusieve_knowledge::{kvm, linux, qemu, x86};
use cpusieve_model::Place;

/// The tree that keeps flags of its own in a word that it calls 80000021H:ECX, and hands that word on to guests: its bits
/// are not those of the features.
const MISNAMED: (&str, [&str; 4]) = ("5.10.262", ["TSA_SQ_NO", "TSA_L1_NO", "CLEAR_CPU_BUF_VM", "IBPB_EXIT_TO_USER"]);

#[test]
fn every_feature_of_every_kernel_has_a_row() {
    for (tree, label) in linux::TREES.iter().map(|tree| tree.label).enumerate() {
        for known in linux::features(tree) {
            let feature = x86::feature(known.id()).unwrap_or_else(|| panic!("{label}: no row for {}", known.id()));
            match linux::place(tree, known) {
                None | Some(Place::Linux(_)) => {
                    let made = feature.linux_made || label == MISNAMED.0 && MISNAMED.1.contains(&known.macro_name);
                    assert!(made, "{label}: {} has no place", known.id());
                }
                Some(_) => {
                    for place in linux::places(tree, known) {
                        assert!(feature.places.contains(place), "{label}: {} lies at {place:#}", known.id());
                    }
                }
            }
        }
    }
}

#[test]
fn every_name_of_qemu_leads_to_its_bit() {
    for bit in qemu::bits().iter().filter(|bit| bit.name.is_some()) {
        let feature = x86::by_place(bit.place).unwrap_or_else(|| panic!("no row for {:#}", bit.place));
        let name = bit.name.unwrap();
        assert!(x86::resolve(name).contains(&feature), "{name} does not lead to {}", feature.id);
    }
    for (alias, name) in qemu::aliases() {
        let bit = qemu::by_name(name).next().unwrap_or_else(|| panic!("{alias} stands for {name}, which is nothing"));
        assert!(x86::resolve(alias).contains(&x86::by_place(bit.place).unwrap()), "{alias}");
    }
}

#[test]
fn every_bit_that_kvm_reports_has_a_row() {
    for (tree, label) in linux::TREES.iter().map(|tree| tree.label).enumerate() {
        let misnamed = |name: &str| label == MISNAMED.0 && MISNAMED.1.contains(&name);
        for cap in kvm::caps(tree).filter(|cap| !misnamed(cap.macro_name)) {
            assert!(
                x86::by_place(Place::Cpuid(cap.place)).is_some(),
                "no row for {} at {:#}",
                cap.macro_name,
                cap.place
            );
        }
    }
}

#[test]
fn rows_are_unique_and_short() {
    let mut ids = BTreeSet::new();
    let mut places = BTreeSet::new();
    for feature in x86::FEATURES {
        assert!(ids.insert(feature.id), "{} stands twice", feature.id);
        assert!(feature.title.split(' ').count() <= 8, "{}: `{}` is too long", feature.id, feature.title);
        assert!(feature.linux_made || !feature.places.is_empty(), "{} lies nowhere", feature.id);
        for place in feature.places {
            assert!(places.insert(*place), "{place:#} stands twice");
            assert_eq!(x86::by_place(*place), Some(feature));
        }
        assert_eq!(x86::feature(feature.id), Some(feature));
        assert_eq!(x86::resolve(feature.id).first(), Some(&feature), "{} does not resolve to itself first", feature.id);
        for (_, name) in feature.names {
            assert!(x86::resolve(name).contains(&feature), "{name} does not lead to {}", feature.id);
        }
    }
}

#[test]
fn spellings_are_folded_as_the_tables_are() {
    for text in ["SSE4.1", "sse4_1", "Sse4-1"] {
        assert_eq!(x86::fold(text), "sse41");
        assert_eq!(x86::resolve(text).first().map(|feature| feature.id), Some("sse4_1"));
    }
}

#[test]
fn suggestions_are_near() {
    for (typed, meant) in [("avx512_vnii", "avx512_vnni"), ("pclmulqd", "pclmulqdq"), ("hypervisr", "hypervisor")] {
        assert_eq!(x86::suggest(typed).first(), Some(&meant), "{typed}");
    }
}
