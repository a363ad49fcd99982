use std::collections::BTreeSet;

use super::*;

fn tree(label: &str) -> usize {
    TREES.iter().position(|tree| tree.label == label).unwrap()
}

#[test]
fn trees_stand_in_release_order() {
    assert!(TREES.windows(2).all(|pair| pair[0].release <= pair[1].release));
    assert!(TREES.len() <= 64);
    for (index, tree) in TREES.iter().enumerate() {
        assert!(tree.version.starts_with(&format!("{}.{}", tree.release.0, tree.release.1)), "{tree:?}");
        assert_eq!(nearest(tree.label), Nearest { tree: index, distance: Distance::Same });
    }
}

#[test]
fn no_bit_and_no_name_is_printed_twice() {
    for (index, tree) in TREES.iter().enumerate() {
        let mut bits = BTreeSet::new();
        let mut names = BTreeSet::new();
        for feature in features(index).filter(|feature| feature.shown.is_some()) {
            assert!(bits.insert(feature.number()), "{tree} {feature:?}", tree = tree.label);
            assert!(names.insert(feature.shown), "{tree} {feature:?}", tree = tree.label);
            assert!(feature.word < tree.ncapints);
        }
        for (flags, words) in [(BUGS, tree.nbugints), (VMX_FLAGS, tree.nvmxints)] {
            let flags: Vec<_> = flags.iter().filter(|flag| flag.trees.contains(index)).collect();
            assert!(flags.iter().all(|flag| flag.word < words && flag.bit < 32));
            let places: BTreeSet<_> = flags.iter().map(|flag| (flag.word, flag.bit)).collect();
            assert_eq!(places.len(), flags.len());
        }
    }
}

#[test]
fn features_are_in_the_order_of_the_flags_line() {
    for (index, tree) in TREES.iter().enumerate() {
        let numbers: Vec<usize> = features(index).map(Feature::number).collect();
        assert!(numbers.is_sorted(), "{}", tree.label);
    }
}

#[test]
fn every_way_to_a_feature_leads_to_it() {
    for one in FEATURES {
        assert!(by_macro(one.macro_name).any(|other| other == one));
        assert!(by_id(one.id()).any(|other| other == one));
        if let Some(shown) = one.shown {
            assert!(by_shown(shown).any(|other| other == one));
            assert_eq!(shown, one.id());
        }
        for index in one.trees.iter() {
            assert_eq!(feature(index, one.macro_name), Some(one));
            assert_eq!(feature_by_id(index, one.id()), Some(one));
            assert!(!places(index, one).is_empty());
            for &place in places(index, one) {
                assert_eq!(at(index, place), Some(one), "{place}");
            }
        }
        let elsewhere = (0..TREES.len()).find(|&index| !one.trees.contains(index));
        assert!(elsewhere.is_none_or(|index| place(index, one).is_none()));
    }
    assert_eq!(by_macro("NO_SUCH_MACRO").count() + by_shown("").count() + by_id("zzz").count(), 0);
}

#[test]
fn an_id_belongs_to_one_macro() {
    for feature in FEATURES {
        assert!(by_id(feature.id()).all(|other| other.macro_name == feature.macro_name), "{feature:?}");
    }
}

#[test]
fn places_come_from_words_and_scattered_bits() {
    let at_place = |label, name| place(tree(label), feature(tree(label), name).unwrap()).unwrap().to_string();
    assert_eq!(at_place("6.1", "AVX512F"), "CPUID.(EAX=07H,ECX=0):EBX[16]");
    assert_eq!(at_place("6.1", "APERFMPERF"), "CPUID.06H:ECX[0]");
    assert_eq!(at_place("6.18", "SMCA"), "CPUID.80000007H:EBX[3]");
    // From 6.19 on it is a scattered bit, and still the same.
    assert_eq!(at_place("6.19", "SMCA"), "CPUID.80000007H:EBX[3]");
    assert_eq!(at_place("6.1", "CONSTANT_TSC"), "Linux 3*32+8");
    assert_eq!(places(tree("6.1"), feature(tree("6.1"), "MBA").unwrap()).len(), 2);
    assert!(feature(tree("4.14"), "AVX_VNNI").is_none());
}

#[test]
fn the_flags_of_a_release_are_its_own() {
    let printed = |label: &str, name: &str| by_shown(name).any(|feature| feature.trees.contains(tree(label)));
    // A hidden bit became visible when it was carried back to a tree with the older naming rule.
    assert!(printed("6.1", "ibpb_exit_to_user") && !printed("6.12", "ibpb_exit_to_user"));
    assert!(printed("6.1", "dts") && !printed("6.1", "spec_ctrl") && !printed("6.1", "osxsave"));
    assert_eq!(TREES[tree("6.12")].naming, NamingRule::HiddenUnlessQuoted);
    // The moved bit: one printed name, two places.
    let vnmi = |label: &str| by_shown("vnmi").find(|feature| feature.trees.contains(tree(label))).unwrap().number();
    assert_eq!((vnmi("6.3"), vnmi("6.6")), (8 * 32 + 1, 15 * 32 + 25));
}

#[test]
fn clearing_takes_along_what_needs_it() {
    for index in 0..TREES.len() {
        for pair in dependencies(index) {
            assert!(feature(index, pair.feature).is_some() && feature(index, pair.needs).is_some(), "{pair:?}");
            assert!(dependents(index, pair.needs).contains(&pair.feature));
            let further = dependents(index, pair.feature);
            assert!(further.iter().all(|name| dependents(index, pair.needs).contains(name)));
            assert!(!further.contains(&pair.needs), "{pair:?} in a ring");
        }
    }
    let avx = dependents(tree("6.12"), "AVX");
    assert!(["AVX2", "FMA", "VAES", "AVX512F", "AVX512_BF16"].iter().all(|name| avx.contains(name)));
    // F16C hangs on SSE2, not on AVX.
    assert!(!avx.contains(&"F16C") && dependents(tree("6.12"), "XMM2").contains(&"F16C"));
    assert!(dependents(tree("6.12"), "ACPI").is_empty());
}

#[test]
fn tables_name_features() {
    for (index, tree) in TREES.iter().enumerate() {
        for bit in scattered(index) {
            let feature = feature(index, bit.macro_name).unwrap();
            assert!(places(index, feature).contains(&Place::Cpuid(bit.place)), "{bit:?}");
        }
        for level in LEVELS.iter().filter(|level| level.trees.contains(index)) {
            assert!(feature(index, level.macro_name).is_some());
        }
        let words: Vec<u8> = words(index).map(|word| word.index).collect();
        assert_eq!(words, (0..).take(words.len()).collect::<Vec<u8>>());
        assert!(words.len() <= usize::from(tree.ncapints));
        let power: Vec<u8> =
            POWER_FLAGS.iter().filter(|flag| flag.trees.contains(index)).map(|flag| flag.bit).collect();
        assert_eq!(power, (0..13).collect::<Vec<u8>>());
    }
    let mpx = MASKS.iter().find(|mask| mask.macro_name == "MPX").unwrap();
    assert_eq!((mpx.kind, mpx.condition), (MaskKind::Disabled, "!X86_INTEL_MPX"));
}
