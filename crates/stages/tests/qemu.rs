//! The QEMU stage against real binaries of 5.2, 7.2, 10.0 and 11.1: warnings, errors and MSRs of every row.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests read files and say what they saw"
)]

mod oracle;

use std::path::{Path, PathBuf};

use cpusieve_knowledge::qemu;
use cpusieve_stages::qemu::{Accelerator, Expansion, Output, PropertyValue, expansion, realize};
use oracle::{hosts, rows};

/// What QEMU prints: warnings, then why it ends.
fn printed(output: &Output) -> Vec<String> {
    let error = output.error.iter().map(ToString::to_string);
    output.warnings.iter().cloned().chain(error).collect()
}

/// Compares every row of a set, and says how the first few differ.
fn messages(set: &str) {
    let hosts = hosts();
    let (mut all, mut wrong) = (0, 0);
    for row in rows(set) {
        let output = realize(row.question(&hosts));
        all += 1;
        if printed(&output) == row.stderr && output.error.is_some() == row.failed {
            continue;
        }
        wrong += 1;
        if wrong <= 5 {
            eprintln!("{}\n  QEMU: {:#?}\n  here: {:#?}", row.name(), row.stderr, printed(&output));
        }
    }
    assert_eq!(wrong, 0, "{wrong} of {all} rows of {set} differ");
    eprintln!("{set}: {all} rows");
}

#[test]
fn every_model_says_what_qemu_says() {
    messages("models");
}

#[test]
fn every_option_says_what_qemu_says() {
    messages("opts");
}

#[test]
fn every_machine_type_says_what_qemu_says() {
    messages("mach");
}

#[test]
fn every_topology_says_what_qemu_says() {
    messages("smp");
}

#[test]
fn every_model_under_tcg_says_what_qemu_says() {
    messages("tcgrom");
}

/// The rows of host `vmx-icx`: `icx-6.1` whose KVM nests.
#[test]
fn every_vmx_msr_is_what_qemu_writes() {
    let mut hosts = hosts();
    let mut host = hosts.remove("icx-6.1").unwrap();
    for entry in host.kvm.supported.iter_mut().flatten().filter(|entry| entry.leaf == 1) {
        entry.registers.ecx |= 1 << 5;
    }
    hosts.insert("vmx-icx".to_owned(), host);
    let (mut all, mut wrong) = (0, 0);
    for row in rows("vmx") {
        let output = realize(row.question(&hosts));
        let written = row.value["msrs"].as_array().unwrap().iter();
        let expected: Vec<(u32, u64)> =
            written.map(|pair| (pair[0].as_u64().unwrap() as u32, pair[1].as_u64().unwrap())).collect();
        let msrs: Vec<(u32, u64)> = output.msrs.clone().into_iter().collect();
        all += 1;
        if printed(&output) != row.stderr || msrs != expected {
            wrong += 1;
            eprintln!("{}\n  QEMU: {:#?} {expected:x?}\n  here: {:#?} {msrs:x?}", row.name(), row.stderr, printed(&output));
        }
    }
    assert_eq!(wrong, 0, "{wrong} of {all} rows differ");
}

/// The folder of facts that are no part of this repository; `None`, with the reason said, where it is missing.
fn facts() -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let shared = std::env::var_os("CPUSIEVE_SHARED").map_or_else(beside, PathBuf::from);
    let facts = shared.join("facts");
    if facts.is_dir() {
        return Some(facts);
    }
    eprintln!("skipped: no {} (set CPUSIEVE_SHARED)", facts.display());
    None
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&oracle::unpack(path)).unwrap()
}

fn shown(value: &PropertyValue) -> serde_json::Value {
    match value {
        PropertyValue::Bool(on) => (*on).into(),
        PropertyValue::Number(number) => match i64::try_from(*number) {
            Ok(number) => number.into(),
            Err(_) => u64::try_from(*number).unwrap().into(),
        },
        PropertyValue::Text(text) => text.as_str().into(),
    }
}

/// Paths of other objects, which say nothing of the CPU.
const NO_FACTS: [&str; 1] = ["memory"];

#[test]
fn every_expansion_is_what_qmp_says() {
    let Some(facts) = facts() else { return };
    let hosts = hosts();
    let host = &hosts["self-pvm"];
    let (mut all, mut wrong) = (0, 0);
    for (release, known) in qemu::RELEASES.iter().enumerate() {
        let kvm = Accelerator::Kvm { host: &host.cpuid, kvm: &host.kvm };
        for (name, accelerator) in [("tcg", Accelerator::Tcg), ("kvm", kvm)] {
            for (file, kind) in [("full", Expansion::Full), ("static", Expansion::Static)] {
                let folder = facts.join(format!("qemu-{}-{name}", known.label));
                for (model, answer) in json(&folder.join(format!("expansion-{file}.json.gz"))).as_object().unwrap() {
                    let expected = answer["props"].as_object().unwrap();
                    let ours = expansion(release, accelerator, model, kind).unwrap();
                    let mut differ: Vec<String> = Vec::new();
                    for (key, value) in expected.iter().filter(|(key, _)| !NO_FACTS.contains(&key.as_str())) {
                        let own = ours.get(key.as_str()).map(shown);
                        if own.as_ref() != Some(value) {
                            differ.push(format!("{key}: QMP {value}, here {own:?}"));
                        }
                    }
                    differ.extend(ours.keys().filter(|key| !expected.contains_key(**key)).map(|key| format!("{key}: not in QMP")));
                    all += 1;
                    if !differ.is_empty() {
                        wrong += 1;
                        if wrong <= 12 {
                            eprintln!("{} {name} {model} {file}: {differ:#?}", known.label);
                        }
                    }
                }
            }
        }
    }
    assert_eq!(wrong, 0, "{wrong} of {all} expansions differ");
    eprintln!("{all} expansions");
}
