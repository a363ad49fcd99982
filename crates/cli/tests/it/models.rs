//! `models` as its users meet it.

use serde_json::Value;

use crate::common::{Folder, host, run, text_of};

/// Asks on a host with Sapphire Rapids.
fn text(arguments: &[&str], status: i32) -> String {
    text_of(&run(&[&["models"], arguments].concat(), host("spr-6.18")), status)
}

fn value(arguments: &[&str], status: i32) -> Value {
    serde_json::from_str(&text(&[arguments, &["--json"]].concat(), status)).unwrap()
}

const HOST: [&str; 2] = ["--host", "-"];

#[test]
fn the_list_says_what_runs_and_what_is_best() {
    let page = text(&[&HOST[..], &["--qemu", "10.0", "--machine", "q35"]].concat(), 0);
    let mut lines = page.lines();
    assert_eq!(lines.next().unwrap().split(" under").next(), Some("CPU models of QEMU 10.0 on pc-q35-10.0"));
    assert!(lines.next().unwrap().starts_with("The most that runs here is Icelake-Server-v2, with"), "{page}");
    let runs = page.find("run here with all their features").unwrap();
    let lack = page.find("lack something here").unwrap();
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text} is not in\n{page}"));
    assert!((runs..lack).contains(&at("Haswell-v2 ")) && at("Haswell-v1 ") > lack);
    assert!(page.contains("= Haswell; lacks 2: hle rtm"));
    assert!(page.contains("= qemu64; the default without -cpu"));
    assert!(page.lines().all(|line| line.chars().count() <= 100), "{page}");
}

#[test]
fn the_list_as_json_has_every_name() {
    let list = value(&[&HOST[..], &["--qemu", "7.2"]].concat(), 0);
    assert_eq!((&list["format"], &list["qemu"], &list["accel"]), (&1.into(), &"7.2".into(), &"kvm".into()));
    assert_eq!((&list["machine"], &list["default"]), (&"pc-i440fx-7.2".into(), &"qemu64".into()));
    let models = list["models"].as_array().unwrap();
    let haswell = models.iter().find(|model| model["name"] == "Haswell-v1").unwrap();
    assert_eq!((&haswell["runs"], &haswell["level"]), (&false.into(), &"x86-64-v3".into()));
    let lacks: Vec<&str> =
        haswell["lacks"].as_array().unwrap().iter().map(|lack| lack["bit"].as_str().unwrap()).collect();
    assert_eq!(lacks, ["CPUID.(EAX=07H,ECX=0):EBX[4]", "CPUID.(EAX=07H,ECX=0):EBX[11]"]);
    let best = models.iter().find(|model| model["name"] == list["best"]).unwrap();
    assert_eq!(best["runs"], true);
}

#[test]
fn a_card_says_what_the_name_means() {
    let q35 = text(&["SandyBridge", "--qemu", "10.0", "--machine", "q35", "--accel", "tcg"], 1);
    assert!(q35.contains("SandyBridge-v1, because the machine type says so"), "{q35}");
    assert!(q35.contains("no version on pc-i440fx-2.4..4.0, pc-q35-2.4..4.0"), "{q35}");
    assert!(q35.contains("v2 on microvm"), "{q35}");
    let old = value(&["SandyBridge", "--qemu", "10.0", "--machine", "pc-q35-4.0", "--accel", "tcg"], 1);
    assert_eq!((&old["meaning"]["version"], &old["meaning"]["by"]), (&Value::Null, &"machine".into()));
    assert_eq!(old["newest"]["machine"], "pc-q35-10.0");
    let microvm = value(&["SandyBridge", "--qemu", "10.0", "--machine", "microvm", "--accel", "tcg"], 1);
    assert_eq!(microvm["meaning"]["version"], 2);
    let alias = value(&["SandyBridge-IBRS", "--qemu", "10.0", "--accel", "tcg"], 1);
    assert_eq!((&alias["meaning"]["by"], &alias["first"]), (&"alias".into(), &"5.2".into()));
}

#[test]
fn what_is_taken_has_a_reason_and_a_remedy() {
    let card = value(&[&HOST[..], &["Haswell@7.2"]].concat(), 1);
    let lack = &card["lacks"][0];
    assert_eq!(lack["feature"], "hle");
    for field in ["at", "rule", "cause", "cite"] {
        assert!(!lack[field].as_str().unwrap().is_empty(), "{field}");
    }
    assert_eq!(card["without"], "Haswell,-hle,-rtm");
    assert_eq!(card["instead"][0], "Haswell-noTSX-IBRS");
    let runs = text(&[&HOST[..], &["Haswell,-hle,-rtm", "--qemu", "7.2"]].concat(), 0);
    assert!(runs.contains("All of it runs on"), "{runs}");
}

#[test]
fn two_models_differ_in_what_is_listed() {
    let same = text(&["Haswell-v2", "Haswell-noTSX", "--qemu", "10.0"], 0);
    assert!(same.contains("are the same"), "{same}");
    let page = text(&["SandyBridge", "SandyBridge-IBRS", "--qemu", "10.0", "--machine", "q35"], 1);
    let expected = "\
SandyBridge and SandyBridge-IBRS (QEMU 10.0 on pc-q35-10.0)
  with 1        +spec-ctrl
  model-id      \"Intel Xeon E312xx (Sandy Bridge)\" → \"Intel Xeon E312xx (Sandy Bridge, IBRS update)\"
";
    assert!(page.starts_with(expected), "{page}");
    let found = value(&["SandyBridge", "SandyBridge-IBRS", "--qemu", "7.2"], 1);
    assert_eq!(found["only_right"][0]["feature"], "spec-ctrl");
    assert_eq!(found["only_left"], Value::Array(Vec::new()));
    let releases = value(&["EPYC-Milan@7.2", "EPYC-Milan@10.0"], 0);
    assert_eq!((&releases["left"]["qemu"], &releases["right"]["qemu"]), (&"7.2".into(), &"10.0".into()));
}

#[test]
fn wrong_names_are_answered_with_the_right_ones() {
    let wrong = |arguments: &[&str], words: &str| {
        let output = run(&[&["models"], arguments].concat(), "");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{said}");
        assert!(said.contains(words), "{said}");
    };
    let tcg = ["--accel", "tcg"];
    wrong(&[&["sandibridge@10.0"], &tcg[..]].concat(), "perhaps SandyBridge");
    wrong(&[&["EPYC-Genoa@7.2"], &tcg[..]].concat(), "QEMU 7.2 has no CPU model `EPYC-Genoa`; 10.0, 11.1 has");
    wrong(&[&["Haswell@git"], &tcg[..]].concat(), "`git` is no QEMU version");
    wrong(&[&["@7.2"], &tcg[..]].concat(), "names no CPU model before its @");
    wrong(&[&["Haswell,avx=perhaps", "--qemu", "7.2"], &tcg[..]].concat(), "avx");
    wrong(&["Haswell@7.2", "Haswel@10.0"], "perhaps Haswell");
    wrong(&[&["a\u{1b}[2J@7.2"], &tcg[..]].concat(), "`a?[2J`");
    wrong(&["Haswell@7.2", "Haswell@10.0", "--machine", "pc-q35-9.2"], "QEMU 7.2 has no machine type");
}

#[test]
fn a_host_without_kvm_leaves_the_definitions() {
    // GenuineIntel, family 6, with FPU and CMOV, and no VMX.
    let dump = "CPU:\n   0x00000000 0x00: eax=0x00000001 ebx=0x756e6547 ecx=0x6c65746e edx=0x49656e69\n   \
                0x00000001 0x00: eax=0x000906ed ebx=0x00000800 ecx=0x00000000 edx=0x07008021\n";
    let folder = Folder::new("models");
    let host = ["--qemu", "10.0", "--host", &folder.file("host.cpuid", dump)];
    let list = value(&host, 3);
    assert!(list["host_unknown"].as_str().unwrap().contains("vmx"), "{}", list["host_unknown"]);
    assert!(list["models"].as_array().unwrap().iter().all(|model| model["runs"].is_null()));
    let page = text(&host, 3);
    assert!(
        page.contains("what they define (90)") && page.contains("  ! what runs on this host is not known"),
        "{page}"
    );
    assert_eq!(value(&[&["host"], &host[..]].concat(), 3)["features"], Value::Null);
}
