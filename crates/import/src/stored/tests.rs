#![allow(clippy::disallowed_methods, reason = "tests read files")]

use std::fs;
use std::path::Path;

use super::*;

/// The trees that the repository has, as if a user had imported them.
fn compiled() -> Vec<StoredTree> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../knowledge");
    let text = |path: String| fs::read_to_string(root.join(path)).unwrap();
    let trees = TreeList::parse("trees.tsv", &text("linux/trees.tsv".to_owned())).unwrap();
    let linux = LinuxTables::parse(&trees, &|file: &str| Some(text(format!("linux/{file}")))).unwrap();
    let kvm = KvmTables::parse(&trees, |file| Ok::<_, TableError>(text(format!("kvm/{file}")))).unwrap();
    let tree = |(index, tree): (usize, &Tree)| StoredTree {
        version: tree.version.clone(),
        release: (index % 2 == 0).then(|| format!("{}-mine", tree.version)),
        source: "a folder with blanks".to_owned(),
        linux: Some(linux.facts(index).unwrap()),
        kvm: kvm.facts(index),
    };
    trees.trees.iter().enumerate().map(tree).collect()
}

#[test]
fn every_tree_that_we_know_is_stored_and_read_back() {
    for tree in compiled() {
        assert_eq!(tree.check(), Ok(()), "{}", tree.version);
        assert!(tree.print().len() < MOST_BYTES / 8);
        let halves = [StoredTree { linux: None, release: None, ..tree.clone() }, StoredTree { kvm: None, ..tree }];
        assert!(halves.iter().all(|half| half.check() == Ok(())));
    }
}

fn error(text: &str) -> String {
    StoredTree::parse(text).unwrap_err().to_string()
}

#[test]
fn damage_is_named_with_its_line() {
    let tree = compiled().pop().unwrap();
    let text = tree.print();
    let line_of = |needle: &str| text.lines().position(|line| line.contains(needle)).unwrap() + 1;
    assert_eq!(error(""), "no format: this is not an imported tree");
    assert_eq!(error("format 7\n"), "format 7: this program reads format 1");
    assert_eq!(error("format 1\nversion 6.1\n"), "neither Linux's tables nor KVM's");
    assert_eq!(error("format 1\nversion x\n"), "`x` is no version of a kernel");
    assert_eq!(error("nonsense"), "line 1: expected format, version, release or source, and one value");
    let damaged = text.replacen(" FPU ", " FPU more ", 1);
    assert_eq!(error(&damaged), format!("line {}: expected 4 cells, found 5", line_of(" FPU ")));
    let damaged = text.replacen("[linux/bugs.tsv]", "[linux/masks.tsv]", 1);
    assert!(error(&damaged).ends_with("`linux/masks.tsv` stands twice"));
    let without = text.replacen("[linux/power.tsv]\n", "", 1);
    assert!(error(&without).starts_with("line "), "{}", error(&without));
    assert_eq!(
        error(&"#".repeat(MOST_BYTES + 1)),
        format!("{} bytes, but {MOST_BYTES} at most are read", MOST_BYTES + 1)
    );
}

#[test]
fn laws_hold_for_what_is_read() {
    let tree = compiled().pop().unwrap();
    let broken = |change: &dyn Fn(&mut StoredTree)| {
        let mut tree = tree.clone();
        change(&mut tree);
        tree.check().unwrap_err().to_string()
    };
    let linux = |tree: &mut StoredTree, change: &dyn Fn(&mut LinuxFacts)| change(tree.linux.as_mut().unwrap());
    assert_eq!(
        broken(&|tree| linux(tree, &|facts| facts.ncapints = 99)),
        "99 capability words, but there is room for 24"
    );
    assert!(broken(&|tree| linux(tree, &|facts| facts.words.swap(0, 1))).contains("out of order"));
    assert_eq!(
        broken(&|tree| linux(tree, &|facts| {
            let again = facts.features[0].clone();
            facts.features.push(again);
        }))
        .split(';')
        .next(),
        Some("feature FPU stands twice")
    );
    assert!(broken(&|tree| linux(tree, &|facts| facts.features[0].macro_name = "A B".to_owned())).contains("no macro"));
    let homeless = broken(&|tree| tree.kvm.as_mut().unwrap().adjusts[0].macro_name = "NOWHERE".to_owned());
    assert!(homeless.starts_with("KVM: NOWHERE is "), "{homeless}");
}

#[test]
fn a_tree_without_files_says_what_is_missing() {
    let nothing = |_: &str| None;
    assert_eq!(
        StoredTree::import(&nothing, Half::Linux, "here").unwrap_err().to_string(),
        "Makefile: not in this source tree"
    );
    let version = |path: &str| (path == "Makefile").then(|| "VERSION = 6\nPATCHLEVEL = 12\n".to_owned());
    let error = StoredTree::import(&version, Half::Kvm, "here").unwrap_err().to_string();
    assert_eq!(error, "arch/x86/kvm/cpuid.c: no such file in this tree; is it the root of a kernel source tree?");
}

/// A generator of numbers that is the same everywhere (xorshift64).
fn next(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 33) as usize
}

#[test]
fn damaged_files_never_panic_and_what_is_read_is_read_back() {
    let text = compiled().remove(11).print();
    let lines: Vec<&str> = text.lines().collect();
    let (mut state, mut read) = (0x9e37_79b9_7f4a_7c15, 0);
    for _ in 0..400 {
        // A line less, a line twice, lines exchanged, a byte changed: laws and parsers meet all of them.
        let mut damaged: Vec<&str> = lines.clone();
        let (one, other) = (next(&mut state) % lines.len(), next(&mut state) % lines.len());
        match next(&mut state) % 3 {
            0 => drop(damaged.remove(one)),
            1 => damaged.insert(one, lines[other]),
            _ => damaged.swap(one, other),
        }
        let mut bytes = damaged.join("\n").into_bytes();
        if next(&mut state).is_multiple_of(2) {
            let at = next(&mut state) % bytes.len();
            bytes[at] = b" \n*[]\"019azA\xff-~"[next(&mut state) % 14];
        }
        assert_eq!(StoredTree::check_any(&bytes), Ok(()), "{}", String::from_utf8_lossy(&bytes));
        read += usize::from(StoredTree::parse(&String::from_utf8_lossy(&bytes)).is_ok());
    }
    assert!((20..400).contains(&read), "{read} of 400 could be read");
}
