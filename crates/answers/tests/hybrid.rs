//! The example that must be right: a hybrid host and its guest, 35 flags lost and one gained.
#![allow(clippy::unwrap_used, reason = "a test that cannot read its corpus has failed")]

use std::fs;
use std::path::Path;

use cpusieve_answers::diff::{self, Diff, Item, Relation};
use cpusieve_model::Snapshot;

#[allow(clippy::disallowed_methods, reason = "a test reads the corpus")]
fn corpus(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus/examples").join(name);
    fs::read_to_string(path).unwrap()
}

fn read(name: &str) -> Snapshot {
    let parsed = cpusieve_formats::read(name, corpus(name).as_bytes());
    assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
    parsed.snapshot
}

fn compare(first: &str, second: &str) -> Diff {
    diff::diff(&read(first), &read(second)).unwrap()
}

/// One line of the key.
struct Expected<'a> {
    flag: &'a str,
    sieve: &'a str,
    follows: Option<&'a str>,
    kind: &'a str,
    words: Vec<&'a str>,
}

fn key<'a>(text: &'a str, side: &str) -> Vec<Expected<'a>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let cells = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
    cells
        .filter(|cells| cells[1] == side)
        .map(|cells| Expected {
            flag: cells[0],
            sieve: cells[2],
            follows: Some(cells[3]).filter(|&follows| follows != "-"),
            kind: cells[4],
            words: cells[5].split(',').filter(|&word| word != "-").collect(),
        })
        .collect()
}

fn assert_is(item: &Item, expected: &Expected<'_>) {
    let flag = expected.flag;
    assert_eq!(item.at.map(cpusieve_model::Stage::name), Some(expected.sieve), "{flag}: sieve, {item:#?}");
    assert_eq!(item.follows.as_deref(), expected.follows, "{flag}: follows");
    assert_eq!(item.remedy.kind.name(), expected.kind, "{flag}: {:?}", item.remedy);
    for word in &expected.words {
        assert!(item.remedy.text.contains(word), "{flag}: the remedy lacks {word}: {}", item.remedy.text);
    }
    assert!(item.cite.0.contains(':'), "{flag}: cite {}", item.cite);
    assert!(!item.cause.is_empty() && !item.rule.0.is_empty(), "{flag}: cause and rule");
}

#[test]
fn all_36_flags_are_explained_as_the_key_says() {
    let found = compare("hybrid-host.flags", "hybrid-guest.flags");
    assert_eq!(found.relation, Relation::HostAndGuest);
    let key_text = corpus("hybrid.key");
    for (side, items) in [("lost", &found.lost), ("gained", &found.gained)] {
        let key = key(&key_text, side);
        let flags: Vec<&str> = items.iter().map(|item| item.flag.as_str()).collect();
        assert_eq!(flags, key.iter().map(|expected| expected.flag).collect::<Vec<_>>(), "{side}");
        items.iter().zip(&key).for_each(|(item, expected)| assert_is(item, expected));
    }
    assert_eq!((found.lost.len(), found.gained.len()), (35, 1));
    assert!(found.unknown.is_empty(), "{:?}", found.unknown);
    let kernel = found.assumed.iter().find(|assumed| assumed.what == "host kernel").unwrap();
    assert_eq!(kernel.value, "6.0", "{kernel:?}");
}

#[test]
fn nonstop_tsc_comes_back_by_the_exact_argument() {
    let found = compare("hybrid-host.flags", "hybrid-guest.flags");
    let item = found.lost.iter().find(|item| item.flag == "nonstop_tsc").unwrap();
    assert_eq!(item.remedy.cpu.as_deref(), Some("host,migratable=off"));
}

#[test]
fn the_other_direction_gives_the_same_answers() {
    let forward = compare("hybrid-host.flags", "hybrid-guest.flags");
    let backward = compare("hybrid-guest.flags", "hybrid-host.flags");
    assert_eq!(backward.relation, Relation::GuestAndHost);
    assert_eq!(backward.lost, forward.gained);
    assert_eq!(backward.gained, forward.lost);
    assert_eq!(backward.kept, forward.kept);
}

#[test]
fn equal_inputs_differ_in_nothing() {
    let found = compare("hybrid-host.flags", "hybrid-host.flags");
    assert_eq!(found.relation, Relation::Equal);
    assert!(found.lost.is_empty() && found.gained.is_empty());
}

#[test]
fn a_flag_never_heard_of_is_kept_and_shown() {
    let host = corpus("hybrid-host.flags");
    let with_unknown = host.trim_end().to_owned() + " frobnicate\n";
    let host = cpusieve_formats::read("host", with_unknown.as_bytes()).snapshot;
    let found = diff::diff(&host, &read("hybrid-guest.flags")).unwrap();
    let item = found.lost.iter().find(|item| item.flag == "frobnicate").unwrap();
    assert_eq!(item.at, None);
    assert!(item.cause.contains("frobnicate"));
    assert_eq!(found.unknown, ["frobnicate"]);
    assert_eq!(found.lost.len(), 36);
}
