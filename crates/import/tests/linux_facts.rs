//! The tables of `knowledge/linux/` against facts that another program read from the same trees.
//!
//! The facts lie beside the repository (`CPUSIEVE_SHARED`, default `../shared`), one file a tree; where they are
//! missing, this says so and proves nothing.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests read files, and may panic")]

use std::fs;
use std::path::{Path, PathBuf};

use cpusieve_import::linux::{Flag, LinuxFacts, Mask, MaskKind, NamingRule};
use cpusieve_import::tables::TreeList;
use cpusieve_import::tables::linux::{LinuxTables, print_bit};
use serde_json::Value;

fn shared() -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    std::env::var_os("CPUSIEVE_SHARED").map_or_else(beside, PathBuf::from)
}

/// The rows of an array, with the cells that `cells` makes of each.
fn rows<'a>(facts: &'a Value, key: &str, cells: impl Fn(&'a Value) -> String) -> Vec<String> {
    facts[key].as_array().unwrap_or_else(|| panic!("no {key}")).iter().map(cells).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn hexadecimal(value: &Value) -> u32 {
    u32::from_str_radix(text(value).trim_start_matches("0x"), 16).unwrap()
}

fn bare(value: &Value) -> &str {
    let name = text(value);
    ["X86_FEATURE_", "X86_BUG_", "VMX_FEATURE_"].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name)
}

fn their_flags(facts: &Value, key: &str) -> Vec<String> {
    let option = |row: &Value| text(&row["ifdef"]).trim_start_matches("CONFIG_").to_owned();
    rows(facts, key, |row| {
        format!("{}*32+{} {} {} {}", row["word"], row["bit"], bare(&row["macro"]), text(&row["name"]), option(row))
    })
}

fn our_flags(flags: &[Flag]) -> Vec<String> {
    let cells = |flag: &Flag| {
        let (shown, only_if) = (flag.shown.name().unwrap_or("-"), flag.only_if.as_deref().unwrap_or("-"));
        format!("{}*32+{} {} {shown} {only_if}", flag.word, flag.bit, flag.macro_name)
    };
    flags.iter().map(cells).collect()
}

/// Conditions of `required-features.h` were not read by the other program.
fn same_masks(theirs: &Value, ours: &[Mask]) {
    let mut count = 0;
    for (kind, key) in [(MaskKind::Required, "required"), (MaskKind::Disabled, "disabled")] {
        for (name, condition) in theirs["compile_time"][key].as_object().unwrap() {
            let name = name.trim_start_matches("X86_FEATURE_");
            let mask =
                ours.iter().find(|mask| mask.kind == kind && mask.feature == name).unwrap_or_else(|| panic!("{name}"));
            assert!(mask.condition == text(condition) || text(condition).starts_with("see "), "{mask:?} {condition}");
            count += 1;
        }
    }
    assert_eq!(ours.len(), count);
}

fn same(label: &str, theirs: &Value, ours: &LinuxFacts) {
    let rule = match ours.naming {
        NamingRule::MacroUnlessQuoted => "macro-unless-quoted",
        NamingRule::HiddenUnlessQuoted => "hidden-unless-quoted",
    };
    assert_eq!(text(&theirs["naming_rule"]), rule, "{label}");
    for (key, words) in [("ncapints", ours.ncapints), ("nbugints", ours.nbugints), ("nvmxints", ours.nvmxints)] {
        assert_eq!(theirs[key], words, "{label} {key}");
    }
    assert_eq!(their_flags(theirs, "features"), our_flags(&ours.features), "{label}");
    assert_eq!(their_flags(theirs, "bugs"), our_flags(&ours.bugs), "{label}");
    assert_eq!(their_flags(theirs, "vmx_flags"), our_flags(&ours.vmx_flags), "{label}");
    let words = rows(theirs, "words", |row| {
        let leaf = row["leaf"]
            .as_str()
            .map(|_| (hexadecimal(&row["leaf"]), &row["subleaf"], text(&row["reg"]).to_uppercase()));
        format!("{} {} {leaf:?}", row["word"], text(&row["enum"]))
    });
    let ours_words = ours.words.iter().map(|word| {
        let leaf = word.source().map(|(leaf, subleaf, register)| (leaf, Value::from(subleaf), register.to_string()));
        format!("{} {} {leaf:?}", word.index, word.name)
    });
    assert_eq!(words, ours_words.collect::<Vec<_>>(), "{label}");
    assert_eq!(rows(theirs, "power_flags", |name| text(name).to_owned()), ours.power_flags, "{label}");
    let scattered = rows(theirs, "scattered", |row| {
        let (leaf, subleaf) = (hexadecimal(&row["leaf"]), &row["subleaf"]);
        format!("{} {leaf:x} {subleaf} {}[{}]", bare(&row["macro"]), text(&row["reg"]).to_uppercase(), row["bit"])
    });
    let ours_scattered = ours.scattered.iter().map(|bit| {
        let (place, printed) = (bit.place, print_bit(bit.place));
        let register = printed.rsplit('.').next().unwrap_or("");
        format!("{} {:x} {} {register}", bit.macro_name, place.leaf, place.subleaf)
    });
    assert_eq!(scattered, ours_scattered.collect::<Vec<_>>(), "{label}");
    let pairs = rows(theirs, "cpuid_deps", |row| format!("{} {}", bare(&row[0]), bare(&row[1])));
    let ours_pairs = ours.dependencies.iter().map(|pair| format!("{} {}", pair.feature, pair.needs));
    assert_eq!(pairs, ours_pairs.collect::<Vec<_>>(), "{label}");
    let levels = rows(theirs, "cpuid_dependent_levels", |row| format!("{} {}", bare(&row[0]), hexadecimal(&row[1])));
    let ours_levels = ours.levels.iter().map(|level| format!("{} {}", level.feature, level.leaf));
    assert_eq!(levels, ours_levels.collect::<Vec<_>>(), "{label}");
    same_masks(theirs, &ours.masks);
}

#[test]
fn both_programs_read_the_same_facts() {
    let knowledge = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../knowledge/linux");
    let trees = TreeList::parse("trees.tsv", &fs::read_to_string(knowledge.join("trees.tsv")).unwrap()).unwrap();
    let tables = LinuxTables::parse(&trees, &|file: &str| fs::read_to_string(knowledge.join(file)).ok()).unwrap();
    let mut compared = 0;
    for (index, tree) in trees.trees.iter().enumerate() {
        let path = shared().join(format!("facts/linux-flags-{}.json", tree.label));
        let Ok(json) = fs::read(&path) else {
            eprintln!("skipped: {} is not there", path.display());
            continue;
        };
        let theirs: Value = serde_json::from_slice(&json).unwrap();
        if text(&theirs["version"]) != tree.version {
            eprintln!("skipped: {} is of another version than {tree}", path.display());
            continue;
        }
        same(&tree.label, &theirs, &tables.facts(index).unwrap());
        compared += 1;
    }
    eprintln!("{compared} trees compared");
}
