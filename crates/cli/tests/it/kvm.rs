//! `predict --until kvm` and `verify` as their users meet them.

use cpusieve_model::KvmCpuidEntry;
use serde_json::Value;

use crate::common::{json_of, read, run};

fn answer(arguments: &[&str], input: &[u8], status: i32) -> Value {
    json_of(&run(&[arguments, &["--json", "-"]].concat(), input), status)
}

/// A captured host with KVM.
fn host(name: &str) -> Vec<u8> {
    read(&format!("guests-kvm/{name}.json"))
}

/// The entries of a capture, as the JSON of `predict` prints them.
fn entries(entries: &[KvmCpuidEntry]) -> Value {
    let hex = |value: u32| format!("{value:#010x}");
    let entry = |entry: &KvmCpuidEntry| {
        let registers = entry.registers;
        serde_json::json!({
            "leaf": hex(entry.leaf), "subleaf": entry.subleaf, "flags": entry.flags,
            "eax": hex(registers.eax), "ebx": hex(registers.ebx), "ecx": hex(registers.ecx), "edx": hex(registers.edx),
        })
    };
    entries.iter().map(entry).collect()
}

#[test]
fn what_is_predicted_is_what_kvm_answers() {
    for name in ["k5.10-max", "k6.1-max", "d-k6.12-max-nested0", "k7.3-EPYC-Milan"] {
        let bytes = host(name);
        let seen = cpusieve_formats::read(name, &bytes).snapshot.kvm.unwrap();
        let predicted = answer(&["predict", "--until", "kvm", "--kvm", "predicted"], &bytes, 0);
        assert_eq!(predicted["format"], 1);
        assert_eq!(predicted["kvm"]["origin"]["supported"], "predicted");
        assert_eq!(predicted["kvm"]["supported"], entries(seen.supported.as_deref().unwrap()), "{name}");
        assert_eq!(predicted["kvm"]["emulated"], entries(seen.emulated.as_deref().unwrap()), "{name}");
        let msrs: serde_json::Map<String, Value> = seen
            .msr_features
            .unwrap()
            .into_iter()
            .map(|(index, value)| (format!("{index:#010x}"), format!("{value:#018x}").into()))
            .collect();
        assert_eq!(predicted["kvm"]["msr_features"], Value::Object(msrs), "{name}");
        assert!(!predicted["host"]["flags"].as_array().unwrap().is_empty());
        let at = |stage: &str| predicted["steps"].as_array().unwrap().iter().filter(|step| step["at"] == stage).count();
        assert!(at("host") > 50 && at("kvm") > 50, "{name}");
        let own = answer(&["predict", "--until", "kvm"], &bytes, 0);
        assert_eq!(own["kvm"]["origin"]["supported"], "seen");
        assert_eq!(own["kvm"]["supported"], predicted["kvm"]["supported"], "{name}");
    }
}

#[test]
fn an_answer_that_was_seen_stands_and_the_steps_say_so() {
    let text = String::from_utf8(host("k6.12-max")).unwrap();
    // KVM's own answer with x2APIC (1.ECX[21]) gone, as no release would have it.
    let line = "0x00000001 0x00: flags=0x0 eax=0x00000663 ebx=0x00000800 ecx=0x76f83203";
    assert!(text.contains(line), "the capture is another one");
    let spoilt = text.replace(line, &line.replace("76f83203", "76d83203"));
    let found = answer(&["predict", "--until", "kvm"], spoilt.as_bytes(), 0);
    assert_eq!(found["kvm"]["supported"][1]["ecx"], "0x76d83203");
    let step = |feature: &str| {
        let steps = found["steps"].as_array().unwrap();
        steps.iter().find(|step| step["at"] == "kvm" && step["feature"] == feature).unwrap().clone()
    };
    assert_eq!(step("x2apic")["effect"], "dropped");
    assert!(step("x2apic")["because"][0]["value"].as_str().unwrap().contains("bit 21 is 0"));
    assert_eq!(step("pni")["effect"], "kept");
    let verified = answer(&["verify", "--kvm"], spoilt.as_bytes(), 1);
    assert_eq!(verified["differences"].as_array().unwrap().len(), 1, "{verified:#}");
    let difference = &verified["differences"][0];
    assert_eq!(difference["what"], "supported 1.ECX");
    assert_eq!(difference["features"], serde_json::json!(["x2apic"]));
    assert!(difference["cause"].as_str().unwrap().contains("no known release"), "{difference}");
}

#[test]
fn another_kernel_or_another_parameter_is_another_question() {
    let bytes = host("k6.12-max");
    let leaf = |found: &Value, leaf: &str, register: &str| {
        let entries = found["kvm"]["supported"].as_array().unwrap().clone();
        let entry = entries.iter().find(|entry| entry["leaf"] == leaf).map(|entry| entry[register].clone());
        u32::from_str_radix(&entry.unwrap().as_str().unwrap()[2..], 16).unwrap()
    };
    let svm = |found: &Value| leaf(found, "0x80000001", "ecx") >> 2 & 1;
    assert_eq!(svm(&answer(&["predict", "--until", "kvm"], &bytes, 0)), 1);
    for given in ["nested=0", "kvm_amd.nested=0", "kvm-amd.nested=N"] {
        let off = answer(&["predict", "--until", "kvm", "--kvm-param", given], &bytes, 0);
        assert_eq!((svm(&off), off["kvm"]["origin"]["supported"].as_str()), (0, Some("predicted")), "{given}");
    }
    let hypervisor = |found: &Value| leaf(found, "0x00000001", "ecx") >> 31;
    let newer = answer(&["predict", "--until", "kvm", "--host-kernel", "6.18"], &bytes, 0);
    assert_eq!(hypervisor(&newer), 1, "offered from 6.14 on");
    let wrong = run(&["predict", "--until", "kvm", "--kvm-param", "nestde=1", "-"], &bytes);
    let error = String::from_utf8(wrong.stderr).unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(error.contains("`nestde`") && error.contains("kvm_amd.nested"), "{error}");
    let wrong = run(&["predict", "--until", "kvm", "--kvm-param", "nested", "-"], &bytes);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn a_host_without_kvm_is_a_finding_and_no_table() {
    let dump = b"CPU 0:\n   0x00000000 0x00: eax=0x00000001 ebx=0x756e6547 ecx=0x6c65746e edx=0x49656e69\n   \
        0x00000001 0x00: eax=0x000906ed ebx=0x00000000 ecx=0x00000000 edx=0x07008021\n";
    let found = answer(&["predict", "--until", "kvm", "--kvm-param", "nested=1"], dump, 3);
    assert!(found["kvm"].get("supported").is_none());
    assert!(found["findings"][0].as_str().unwrap().contains("neither vmx nor svm"), "{found:#}");
    let output = run(&["verify", "-"], dump);
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn verify_asks_this_machines_kvm() {
    let output = run(&["verify", "--kvm", "--json"], b"");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    match output.status.code() {
        Some(0) => eprintln!("{} registers of this machine's KVM are as predicted", found["compared"]),
        Some(1) => panic!("this machine's KVM answers otherwise: {:#}", found["differences"]),
        Some(3) => eprintln!("skipped: {}", found["unseen"]),
        other => panic!("{other:?}: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

#[test]
fn the_table_for_people_holds_every_register() {
    let output = run(&["predict", "--until", "kvm", "-"], host("k6.12-max"));
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["supported (", "emulated (", "feature MSRs (", "80000001   0  00000663", "not offered (", "added ("] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}
