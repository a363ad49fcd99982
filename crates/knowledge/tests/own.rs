//! A compiled-in tree that is registered as if a user had imported it answers as the compiled-in one does.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests read files, and may panic")]

use std::fs;
use std::path::Path;

use cpusieve_import::stored::StoredTree;
use cpusieve_import::tables::kvm::KvmTables;
use cpusieve_import::tables::linux::LinuxTables;
use cpusieve_import::tables::{TableError, TreeList};
use cpusieve_knowledge::linux::{self, Distance, Feature, TREES};
use cpusieve_knowledge::own::{self, RegisterError};
use cpusieve_knowledge::rules::RULES;
use cpusieve_knowledge::{kvm, x86};
use cpusieve_model::Place;

fn stored(label: &str) -> StoredTree {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../knowledge");
    let text = |path: String| fs::read_to_string(root.join(path)).unwrap();
    let trees = TreeList::parse("trees.tsv", &text("linux/trees.tsv".to_owned())).unwrap();
    let linux = LinuxTables::parse(&trees, &|file: &str| Some(text(format!("linux/{file}")))).unwrap();
    let kvm = KvmTables::parse(&trees, |file| Ok::<_, TableError>(text(format!("kvm/{file}")))).unwrap();
    let tree = trees.position(label).unwrap();
    StoredTree {
        version: trees.trees[tree].version.clone(),
        release: None,
        source: "here".to_owned(),
        linux: Some(linux.facts(tree).unwrap()),
        kvm: kvm.facts(tree),
    }
}

/// All of a feature but the trees that have it.
fn gist(feature: &Feature) -> (&'static str, &'static str, usize, Option<&'static str>, bool) {
    (feature.macro_name, feature.id(), feature.number(), feature.shown, feature.shadowed)
}

#[test]
fn the_same_tables_give_the_same_answers() {
    for label in ["5.10", "6.1", "6.12", "7.3"] {
        let tree = linux::nearest(label).tree;
        let name = format!("same-as-{label}");
        let same = own::register(&name, &stored(label)).unwrap();
        assert!(same >= own::FIRST && own::compiled(same) == tree && own::is_own(same) && !own::is_own(tree));
        assert_eq!(linux::nearest(&name).tree, same);
        assert_eq!(TREES[same].label, name);
        assert_eq!((TREES[same].ncapints, TREES[same].naming), (TREES[tree].ncapints, TREES[tree].naming));
        let features = |tree: usize| linux::features(tree).map(gist).collect::<Vec<_>>();
        assert_eq!(features(same), features(tree));
        for feature in linux::features(tree) {
            let twin = linux::feature(same, feature.macro_name).unwrap();
            assert_eq!(linux::feature_by_id(same, feature.id()), Some(twin), "{}", feature.macro_name);
            assert_eq!(linux::places(same, twin), linux::places(tree, feature));
            assert_eq!(linux::dependents(same, feature.macro_name), linux::dependents(tree, feature.macro_name));
            for &place in linux::places(tree, feature) {
                assert_eq!(linux::at(same, place).map(gist), linux::at(tree, place).map(gist));
                if let Place::Cpuid(bit) = place {
                    assert_eq!(kvm::offers(same, bit), kvm::trees_offering(bit).contains(tree), "{bit}");
                    assert_eq!(kvm::offers(same, bit), kvm::offers(tree, bit));
                    assert_eq!(kvm::handling(same, bit), kvm::handling(tree, bit));
                    let cap = |tree| kvm::cap(tree, bit).map(|cap| (cap.macro_name, cap.kind, cap.condition));
                    assert_eq!(cap(same), cap(tree));
                    assert_eq!(kvm::has_case(same, bit.leaf), kvm::has_case(tree, bit.leaf));
                }
            }
            let printed = |tree: usize| feature.shown.and_then(|name| linux::printed(tree, name)).map(gist);
            assert_eq!(printed(same), printed(tree));
        }
        let bugs = |tree: usize| linux::bugs(tree).map(|bug| (bug.macro_name, bug.shown)).collect::<Vec<_>>();
        let scattered = |tree: usize| linux::scattered(tree).map(|bit| (bit.macro_name, bit.place)).collect::<Vec<_>>();
        let levels = |tree: usize| linux::levels(tree).map(|level| (level.macro_name, level.leaf)).collect::<Vec<_>>();
        let words =
            |tree: usize| linux::words(tree).map(|word| (word.index, word.name, word.source)).collect::<Vec<_>>();
        assert_eq!((bugs(same), scattered(same)), (bugs(tree), scattered(tree)));
        assert_eq!((levels(same), words(same)), (levels(tree), words(tree)));
        assert_eq!(kvm::shape(same), kvm::shape(tree));
        let adjusts = |tree: usize| {
            kvm::adjustments(tree)
                .map(|row| (row.by, row.op, row.macro_name, row.place, row.conditions))
                .collect::<Vec<_>>()
        };
        assert_eq!(adjusts(same), adjusts(tree));
        assert_eq!(kvm::adjustments_of(same, "SPEC_CTRL").count(), kvm::adjustments_of(tree, "SPEC_CTRL").count());
        let caps = |tree: usize| kvm::caps(tree).map(|cap| (cap.place, cap.macro_name)).collect::<Vec<_>>();
        assert_eq!(caps(same), caps(tree));
        for rule in RULES {
            assert_eq!(rule.trees.contains(same), rule.trees.contains(tree), "{}", rule.id);
        }
        assert!(TREES.iter().all(|known| known.label != name));
    }
    assert_eq!(own::register("same-as-6.1", &stored("6.1")), Err(RegisterError::LabelTaken("same-as-6.1".to_owned())));
    assert_eq!(own::register("6.1", &stored("6.1")), Err(RegisterError::LabelTaken("6.1".to_owned())));
}

#[test]
fn what_is_new_has_names_and_a_release_of_its_own() {
    let mut tree = stored("6.12");
    tree.release = Some("6.12.107-mine".to_owned());
    let facts = tree.linux.as_mut().unwrap();
    let mut flag = facts.features.iter().find(|flag| flag.macro_name == "AVX_VNNI").unwrap().clone();
    (flag.macro_name, flag.bit) = ("CUSTOM_THING".to_owned(), 9);
    flag.shown = cpusieve_import::linux::Shown::Name("custom".to_owned());
    facts.features.push(flag);
    facts.features.sort();
    facts.features.retain(|flag| flag.macro_name != "ARAT");
    let mine = own::register("with-a-new-flag", &tree).unwrap();
    assert_eq!(linux::nearest("6.12.107-mine\n").tree, mine);
    assert_eq!(linux::nearest("6.12.107-mine").distance, Distance::Same);
    assert_eq!(TREES[linux::nearest("6.12").tree].label, "6.12");
    let custom = linux::feature(mine, "CUSTOM_THING").unwrap();
    assert_eq!((custom.id(), custom.shown), ("custom", Some("custom")));
    assert_eq!(linux::place(mine, custom).unwrap().to_string(), "CPUID.(EAX=07H,ECX=1):EAX[9]");
    assert_eq!(x86::resolve("Custom")[0].id, "custom");
    assert_eq!(x86::feature("custom").unwrap().places, linux::places(mine, custom));
    assert!(linux::feature(mine, "ARAT").is_none() && linux::printed(mine, "arat").is_none());
    assert!(linux::by_id("custom").any(|feature| feature == custom));
}
