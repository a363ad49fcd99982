//! What QEMU's answers do not show (caches, dependencies, defaults, compatibility) equals what was read out of the
//! memory of the running binaries.
#![allow(clippy::disallowed_methods, reason = "tests read files")]
#![allow(clippy::unwrap_used, reason = "tests fail by panics")]

mod shared;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use cpusieve_knowledge::qemu::{self, Accelerator, Cache, Caches, ShareLevel, Word};
use serde_json::Value;

fn tables(folder: &Path, label: &str) -> Value {
    let file = File::open(folder.join(format!("qemu-{label}-tables.json.gz"))).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn words(release: usize) -> Vec<Word> {
    qemu::words(release).collect()
}

fn assert_cache(ours: &Cache, theirs: &Value, what: &str) {
    let number = |name: &str| theirs[name].as_u64().unwrap();
    let numbers = [
        (u64::from(ours.level), "level"),
        (u64::from(ours.size), "size"),
        (u64::from(ours.line_size), "line_size"),
        (u64::from(ours.associativity), "associativity"),
        (u64::from(ours.partitions), "partitions"),
        (u64::from(ours.sets), "sets"),
        (u64::from(ours.lines_per_tag), "lines_per_tag"),
        (u64::from(ours.self_init), "self_init"),
        (u64::from(ours.no_invd_sharing), "no_invd_sharing"),
        (u64::from(ours.inclusive), "inclusive"),
        (u64::from(ours.complex_indexing), "complex_indexing"),
    ];
    for (value, name) in numbers {
        assert_eq!(value, number(name), "{what}: {name}");
    }
    assert_eq!(format!("{:?}", ours.kind).to_lowercase(), theirs["type"].as_str().unwrap(), "{what}");
    // Before 9.0 the code has the level, and not the table.
    match theirs.get("share_level").and_then(Value::as_str) {
        Some(level) => assert_eq!(format!("{:?}", ours.share_level).to_lowercase(), level, "{what}"),
        None if ours.level == 3 => assert_eq!(ours.share_level, ShareLevel::Die, "{what}"),
        None => assert_eq!(ours.share_level, ShareLevel::Core, "{what}"),
    }
}

fn assert_caches(ours: Option<&Caches>, theirs: &Value, what: &str) {
    assert_eq!(ours.is_some(), theirs.is_object(), "{what}");
    let Some(ours) = ours else { return };
    for (cache, name) in [(ours.l1d, "l1d"), (ours.l1i, "l1i"), (ours.l2, "l2"), (ours.l3, "l3")] {
        assert_cache(&cache, &theirs[name], &format!("{what} {name}"));
    }
}

#[test]
fn models_stand_in_order_with_their_caches() {
    let Some(folder) = shared::folder("facts") else { return };
    for (release, known) in qemu::RELEASES.iter().enumerate() {
        let facts = tables(&folder, known.label);
        let facts = facts["models"].as_array().unwrap();
        let names: Vec<&str> = facts.iter().map(|fact| fact["name"].as_str().unwrap()).collect();
        assert_eq!(qemu::models(release).map(|model| model.name).collect::<Vec<_>>(), names, "{}", known.label);
        for (model, fact) in qemu::models(release).zip(facts) {
            let what = format!("{} {}", known.label, model.name);
            assert_caches(model.caches, &fact["cache_info"], &what);
            assert_eq!(model.deprecated, fact["deprecation_note"].as_str(), "{what}");
            assert_eq!(u64::from(model.level), fact["level"].as_u64().unwrap(), "{what}");
            assert_eq!(u64::from(model.xlevel), fact["xlevel"].as_u64().unwrap(), "{what}");
            let words: Vec<Word> = words(release);
            let theirs = fact["features"].as_object().unwrap();
            let mut theirs: Vec<(usize, u64)> =
                theirs.iter().map(|(index, value)| (index.parse().unwrap(), value.as_u64().unwrap())).collect();
            theirs.sort_unstable();
            let theirs: Vec<(Word, u64)> = theirs.into_iter().map(|(index, value)| (words[index], value)).collect();
            assert_eq!(model.words, theirs, "{what}: words in the order of the release");
            for fact in fact.get("versions").and_then(Value::as_array).unwrap_or(&Vec::new()) {
                let number = fact["version"].as_u64().unwrap();
                let version = model.versions(release).find(|version| u64::from(version.number) == number).unwrap();
                assert_caches(version.caches, fact.get("cache_info").unwrap_or(&Value::Null), &what);
                assert_eq!((version.alias, version.note), (fact["alias"].as_str(), fact["note"].as_str()), "{what}");
            }
        }
    }
}

#[test]
fn dependencies_and_defaults_stand_in_order() {
    let Some(folder) = shared::folder("facts") else { return };
    for (release, known) in qemu::RELEASES.iter().enumerate() {
        let facts = tables(&folder, known.label);
        let words = words(release);
        let number = |row: &Value, at: usize| row[at].as_u64().unwrap();
        let word = |row: &Value, at: usize| words[usize::try_from(number(row, at)).unwrap()];
        let theirs = facts["dependencies"].as_array().unwrap();
        let theirs: Vec<_> =
            theirs.iter().map(|row| ((word(row, 0), number(row, 1)), (word(row, 2), number(row, 3)))).collect();
        let ours: Vec<_> = qemu::dependencies(release).map(|row| (row.from, row.to)).collect();
        assert_eq!(ours, theirs, "{}", known.label);

        let machine = qemu::machine(release, "q35").unwrap();
        let ours: Vec<_> = qemu::default_properties(release, Accelerator::Kvm, machine)
            .filter(|row| row.conditions.is_empty())
            .map(|row| (row.property, row.value))
            .collect();
        let theirs = facts["kvm_default_props"].as_array().unwrap();
        let theirs: Vec<_> = theirs.iter().map(|row| (row[0].as_str().unwrap(), row[1].as_str().unwrap())).collect();
        assert_eq!(ours, theirs, "{}", known.label);
    }
}

#[test]
fn compatibility_properties_are_those_in_memory() {
    let Some(folder) = shared::folder("facts") else { return };
    for (release, known) in qemu::RELEASES.iter().enumerate() {
        let facts = tables(&folder, known.label);
        let mut theirs: Vec<[String; 3]> = Vec::new();
        for row in facts["compat_records"].as_array().unwrap().iter().flat_map(|table| table.as_array().unwrap()) {
            let cell = |at: usize| row[at].as_str().unwrap().to_owned();
            let driver = cell(1).strip_suffix("x86_64-cpu").unwrap().trim_end_matches('-').to_owned();
            theirs.push([driver, cell(2), cell(3)]);
        }
        // The oldest machine has every table that the release uses; one that no machine is old enough for is left out.
        let oldest = qemu::machines(release).filter(|machine| machine.version.is_some());
        let oldest = oldest.max_by_key(|machine| qemu::compat(release, machine).count()).unwrap();
        let mut ours: Vec<[String; 3]> =
            qemu::compat(release, oldest).map(|row| [row.driver, row.property, row.value].map(str::to_owned)).collect();
        if known.label == "11.1" {
            theirs.retain(|row| row[1] != "kvm-msi-ext-dest-id");
        }
        theirs.sort();
        ours.sort();
        assert_eq!(ours, theirs, "{}", known.label);
    }
}
