//! The program as its users meet it: text, JSON, exit status, bad input.

use std::path::Path;
use std::process::Output;
use std::{env, fs};

use serde_json::Value;

use crate::common::{Folder, corpus, errors, run as program, text};

fn example(name: &str) -> String {
    corpus(&format!("examples/{name}"))
}

fn run(arguments: &[&str]) -> Output {
    program(arguments, "")
}

fn diff(a: &str, b: &str, more: &[&str]) -> Output {
    run(&[&["diff", &example(a), &example(b)], more].concat())
}

#[test]
fn the_readme_shows_what_the_program_prints() {
    let output = diff("hybrid-host.flags", "hybrid-guest.flags", &[]);
    assert_eq!(output.status.code(), Some(1));
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md")).unwrap();
    let printed = text(&output);
    assert!(readme.contains(printed.trim_end()), "the README's first screen is not what is printed:\n{printed}");
}

#[test]
fn json_has_the_fields_of_the_contract() {
    let output = diff("hybrid-host.flags", "hybrid-guest.flags", &["--json"]);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["format"], 1);
    assert_eq!(value["lost"].as_array().unwrap().len(), 35);
    assert_eq!(value["gained"].as_array().unwrap().len(), 1);
    assert_eq!(value["kept"], 105);
    for item in value["lost"].as_array().unwrap().iter().chain(value["gained"].as_array().unwrap()) {
        for field in ["flag", "at", "rule", "cause", "cite", "confidence"] {
            assert!(item[field].is_string(), "{field} of {item}");
        }
        assert!(["certain", "likely", "possible"].contains(&item["confidence"].as_str().unwrap()));
        assert!(item["remedy"]["kind"].is_string() && item["remedy"]["text"].is_string());
        assert!(item["remedy"].get("cpu").is_some() && item["others"].is_array());
    }
    let acpi = value["lost"].as_array().unwrap().iter().find(|item| item["flag"] == "acpi").unwrap();
    assert_eq!(acpi["bit"], "CPUID.01H:EDX[22]");
    assert_eq!(acpi["at"], "kvm");
}

#[test]
fn equal_ends_end_with_status_0_and_different_ones_with_1() {
    assert_eq!(diff("hybrid-host.flags", "hybrid-host.flags", &[]).status.code(), Some(0));
    assert_eq!(diff("hybrid-guest.flags", "hybrid-host.flags", &[]).status.code(), Some(1));
}

#[test]
fn bad_input_ends_with_status_2_and_names_the_file() {
    let folder = Folder::new("bad");
    let empty = folder.file("empty", b"");
    let binary = folder.file("binary", [0xff, 0x00, 0x9c, 0x01].repeat(1000));
    let host = example("hybrid-host.flags");
    for bad in [&*empty, &binary, "/nowhere/at/all", "/"] {
        let output = run(&["diff", &host, bad]);
        assert_eq!(output.status.code(), Some(2), "{bad}: {}", errors(&output));
        assert!(errors(&output).contains(bad), "{}", errors(&output));
        assert!(output.stdout.is_empty());
    }
    assert_eq!(run(&["diff", "-", "-"]).status.code(), Some(2));
    assert_eq!(run(&["frobnicate"]).status.code(), Some(2));
}

#[test]
fn a_typo_gets_a_suggestion() {
    let output = run(&["why", "avx521f"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(errors(&output).contains("avx512f"), "{}", errors(&output));
}

#[test]
fn a_hidden_feature_is_explained() {
    let shown = text(&run(&["why", "spec_ctrl"]));
    for words in ["18*32+26", "mkcapflags.sh", "ibrs", "ibpb"] {
        assert!(shown.contains(words), "{words} is missing:\n{shown}");
    }
}

#[test]
fn names_of_all_systems_lead_to_the_same_feature() {
    for name in ["pni", "sse3", "SSE3", "invtsc", "nonstop_tsc", "sse4.1", "pclmuldq", "lahf-lm"] {
        let output = run(&["name", name, "--json"]);
        assert_eq!(output.status.code(), Some(0), "{name}");
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(!value["features"].as_array().unwrap().is_empty(), "{name}");
    }
}

#[test]
fn no_colour_reaches_a_pipe() {
    for arguments in [&["why", "acpi"][..], &["name", "acpi"], &["--help"], &["diff", "--help"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0));
        assert!(!output.stdout.contains(&0x1b), "{arguments:?}");
    }
}

#[test]
fn a_record_of_this_machine_is_read_back() {
    let output = run(&["record", "--only", "cpuid"]);
    let folder = Folder::new("record");
    let path = folder.file("record", &output.stdout);
    let parsed = cpusieve_formats::read("record", &output.stdout);
    assert!(!parsed.has_errors(), "{:?}", parsed.diagnostics);
    assert!(!parsed.snapshot.cpus.is_empty());
    // A machine compared with itself is the same, whatever it is.
    assert_eq!(run(&["diff", &path, &path]).status.code(), Some(0));
}

#[test]
fn a_whole_record_holds_the_flags_of_this_machine() {
    let folder = Folder::new("whole");
    let path = folder.file("record", run(&["record"]).stdout);
    let output = run(&["diff", &path, "/proc/cpuinfo", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["relation"], "Equal");
}

#[test]
fn the_bare_program_says_what_this_machine_is() {
    let output = run(&["--json"]);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["format"], 1);
    let hypervisor = fs::read_to_string("/proc/cpuinfo").unwrap().contains(" hypervisor");
    let kind = value["machine"]["kind"].as_str().unwrap();
    assert_eq!(kind.starts_with("guest"), hypervisor, "{kind}");
    assert!(value["guest"]["kept"].as_u64().unwrap() > 0);
}

#[test]
fn what_an_input_says_does_not_reach_the_terminal_as_a_command() {
    let lscpu = br#"{"lscpu":[{"field":"Flags:","data":"fpu vme de pse \u001b]0;title\u0007 tsc msr sse"}]}"#;
    let folder = Folder::new("escape");
    let path = folder.file("lscpu.json", lscpu);
    let output = run(&["diff", &path, &example("hybrid-host.flags"), "--json"]);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["unknown"], serde_json::json!(["?]0;title?"]));
}

#[test]
fn the_long_form_tells_each_cause_once() {
    let shown = text(&diff("hybrid-host.flags", "hybrid-guest.flags", &["--long"]));
    assert_eq!(shown.matches("KVM does not look at the CPU for this leaf.").count(), 1, "{shown}");
    assert!(shown.contains("hwp_epp         CPUID.06H:EAX[10]\n"), "{shown}");
}

#[test]
fn a_monitor_takes_wrong_usage_for_unknown_and_not_for_critical() {
    for arguments in [
        &["check", "--bad"][..],
        &["check", "--level", "x86-64-v9"],
        &["check", "--features"],
        &["--json", "check", "--level", "v|2"],
        &["check", "/nowhere/at-all", "--level", "x86-64-v2"],
        &["check"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        let printed = text(&output);
        if arguments.contains(&"--json") {
            let value: Value = serde_json::from_str(&printed).unwrap();
            assert_eq!((&value["format"], &value["status"]), (&1.into(), &"UNKNOWN".into()));
        } else {
            assert!(printed.starts_with("CPUSIEVE UNKNOWN - ") && printed.lines().count() == 1, "{printed}");
        }
    }
    assert!(errors(&run(&["check", "--bad"])).contains("Usage: cpusieve check"));
    assert_eq!(run(&["check", "--help"]).status.code(), Some(0));
    // Every other verb: wrong usage.
    for arguments in [&["key", "--bad"][..], &["--bad"], &["name"], &["chek"]] {
        assert_eq!(run(arguments).status.code(), Some(2), "{arguments:?}");
    }
}
