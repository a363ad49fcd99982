//! The tables of QEMU's words equal what was read out of the binaries.
#![allow(clippy::disallowed_methods, reason = "tests read files")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail by panics and print what they measured")]

mod shared;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use cpusieve_knowledge::qemu::{self, Word};
use cpusieve_model::{CpuidBit, MsrBit, Place, Register};
use serde_json::Value;

fn facts(folder: &Path, label: &str) -> Value {
    let file = File::open(folder.join(format!("qemu-{label}-tables.json.gz"))).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn number(value: &Value) -> u32 {
    u32::try_from(value.as_u64().unwrap()).unwrap()
}

fn word(fact: &Value) -> Word {
    if fact["type"] == "msr" {
        return Word::Msr { index: number(&fact["msr"]) };
    }
    Word::Cpuid {
        leaf: number(&fact["eax"]),
        subleaf: fact["ecx"].as_u64().map_or(0, |subleaf| u32::try_from(subleaf).unwrap()),
        register: Register::from_name(fact["reg"].as_str().unwrap()).unwrap(),
    }
}

#[test]
fn words_names_and_masks_equal_the_binaries() {
    let Some(folder) = shared::folder("facts") else { return };
    for (release, known) in qemu::RELEASES.iter().enumerate() {
        let facts = facts(&folder, known.label);
        let facts = facts["words"].as_array().unwrap();
        let words: Vec<Word> = facts.iter().map(word).collect();
        assert_eq!(qemu::words(release).collect::<Vec<_>>(), words, "{}: order of words", known.label);
        for (word, fact) in words.into_iter().zip(facts) {
            let what = format!("{} {word:?}", known.label);
            let mask = |name: &str| fact[name].as_u64().unwrap();
            let mut named = 0;
            for bit in 0..64 {
                let name = fact["names"].get(bit.to_string()).and_then(Value::as_str);
                assert_eq!(qemu::name(release, word.bit(bit)), name, "{what}[{bit}]");
                named |= u64::from(name.is_some()) << bit;
            }
            assert_eq!(word.named_mask(release), named, "{what}");
            assert_eq!(word.unmigratable_mask(release), mask("unmigratable"), "{what}");
            assert_eq!(word.no_autoenable_mask(release), mask("no_autoenable"), "{what}");
            assert_eq!(word.tcg_mask(release), mask("tcg"), "{what}");
            assert_eq!(word.migratable_mask(release), named & !mask("unmigratable") | mask("migratable"), "{what}");
        }
    }
}

fn cpuid(leaf: u32, subleaf: u32, register: Register, bit: u8) -> Place {
    Place::Cpuid(CpuidBit::new(leaf, subleaf, register, bit))
}

fn release(label: &str) -> usize {
    qemu::RELEASES.iter().position(|release| release.label == label).unwrap()
}

#[test]
fn words_appear_with_their_releases() {
    let avx10 = cpuid(0x24, 0, Register::Ebx, 16);
    assert!(!qemu::word_exists(release("7.2"), avx10));
    assert!(qemu::word_exists(release("10.0"), avx10));
    assert!(qemu::word_exists(release("5.2"), Place::Msr(MsrBit { index: 0x10a, bit: 0 })));
    // Intel's power management leaf is a word, of which QEMU names a single bit.
    let hwp = cpuid(6, 0, Register::Eax, 7);
    assert!(qemu::word_exists(release("11.1"), hwp));
    assert_eq!(qemu::first_naming(hwp), None);
}

#[test]
fn names_and_aliases_find_places() {
    let places = |label, name| qemu::places(release(label), name).collect::<Vec<_>>();
    assert_eq!(places("5.2", "sse3"), [cpuid(1, 0, Register::Ecx, 0)]);
    assert_eq!(places("5.2", "pclmuldq"), [cpuid(1, 0, Register::Ecx, 1)]);
    assert_eq!(places("11.1", "xd"), places("11.1", "nx"));
    assert_eq!(places("11.1", "i64"), places("11.1", "lm"));
    assert_eq!(places("11.1", "kvmclock").len(), 2);
    assert_eq!(places("10.0", "cet-ibt"), []);
    assert_eq!(places("11.1", "cet-ibt"), [cpuid(7, 0, Register::Edx, 20)]);
    assert_eq!(places("11.1", "hwp"), []);
}

#[test]
fn attributes_are_as_the_policy_says() {
    let invtsc = cpuid(0x8000_0007, 0, Register::Edx, 8);
    let ht = cpuid(1, 0, Register::Edx, 28);
    let topoext = cpuid(0x8000_0001, 0, Register::Ecx, 22);
    for at in 0..qemu::RELEASES.len() {
        assert!(qemu::unmigratable(at, invtsc) && !qemu::unmigratable(at, ht));
        assert!(qemu::no_autoenable(at, topoext) && !qemu::no_autoenable(at, invtsc));
        assert_eq!(qemu::no_autoenable(at, ht), at >= release("10.0"));
        assert!(!qemu::tcg(at, cpuid(7, 0, Register::Ebx, 16)), "no TCG has AVX-512");
        assert!(qemu::fixups(at, cpuid(6, 0, Register::Eax, 2)).all(|fixup| fixup.conditions.is_empty()));
    }
    let erms = cpuid(7, 0, Register::Ebx, 9);
    assert_eq!(qemu::fixups(release("7.2"), erms).count(), 0);
    assert_eq!(qemu::fixups(release("10.0"), erms).count(), 1);
}

#[test]
fn fixups_touch_words_of_their_releases() {
    for fixup in qemu::FIXUPS {
        for at in fixup.releases.iter() {
            assert!(qemu::word_exists(at, fixup.word.bit(0)), "{fixup:?} in {}", qemu::RELEASES[at].label);
        }
        assert!(fixup.cite.contains(".c:"), "{fixup:?}");
    }
}
