//! The QEMU stage against real binaries of 5.2, 7.2, 10.0 and 11.1: warnings, errors and MSRs of every row.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests read files and say what they saw"
)]

mod oracle;

use cpusieve_stages::qemu::{Output, realize};
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
