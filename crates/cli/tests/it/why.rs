//! `why` on what people paste, as its users meet it.

use std::path::{Path, PathBuf};
use std::{env, fs};

use regex_lite::RegexBuilder;
use serde_json::Value;

use crate::common::{Folder, run, text_of};

fn text(arguments: &[&str], input: &str) -> String {
    text_of(&run(arguments, input), 0)
}

fn json(arguments: &[&str], input: &str) -> Value {
    serde_json::from_str(&text(&[arguments, &["--json"]].concat(), input)).unwrap()
}

const PASTE: &str = "\
2021 qemu-system-x86_64: warning: host doesn't support requested feature: CPUID.07H:EBX.hle [bit 4]
something else
2021 qemu-system-x86_64: error: failed to set MSR 0x48b to 0x137bff00000000
";

#[test]
fn a_good_answer_names_what_the_notes_of_collected_messages_ask_for() {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let folder = env::var_os("CPUSIEVE_SHARED").map_or(beside, PathBuf::from).join("examples/errors");
    let Ok(files) = fs::read_dir(&folder) else {
        eprintln!("skipped: the collected messages are not here; CPUSIEVE_SHARED names their folder");
        return;
    };
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    let (mut asked, mut missing) = (0, Vec::new());
    for path in &files {
        let case: toml::Table = fs::read_to_string(path).unwrap().parse().unwrap();
        let shown = text(&["why", "-"], case["text"].as_str().unwrap());
        for pattern in case["expect"]["must_name"].as_array().unwrap() {
            let pattern = pattern.as_str().unwrap();
            asked += 1;
            if !RegexBuilder::new(pattern).case_insensitive(true).build().unwrap().is_match(&shown) {
                missing.push(format!("{}: {pattern}", path.file_name().unwrap().to_string_lossy()));
            }
        }
    }
    eprintln!("{} of {asked} patterns of {} messages are matched", asked - missing.len(), files.len());
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn a_paste_comes_from_arguments_a_file_or_standard_input() {
    let from_stdin = json(&["why", "-"], PASTE);
    let folder = Folder::new("paste");
    let path = folder.file("paste.log", PASTE);
    assert_eq!(json(&["why", "--file", &path], ""), from_stdin);
    assert_eq!(json(&["why", &path], ""), from_stdin);
    assert_eq!(json(&["why", PASTE], ""), from_stdin);
    let lines: Vec<&str> = PASTE.lines().collect();
    assert_eq!(json(&[&["why"], &lines[..]].concat(), ""), from_stdin);
    // Without quotation marks the shell makes words of it.
    let words: Vec<&str> = lines[2].split(' ').collect();
    assert_eq!(json(&[&["why"], &words[..]].concat(), "")["features"], serde_json::json!(["vmx"]));
}

#[test]
fn the_json_is_as_documented() {
    let found = json(&["why", "-"], PASTE);
    assert_eq!(found["format"], 1);
    assert_eq!(found["features"], serde_json::json!(["vmx", "hle"]));
    assert_eq!(found["bits"], serde_json::json!(["CPUID.0x1.0:ECX[5]", "MSR.0x48b", "CPUID.0x7.0:EBX[4]"]));
    assert_eq!((&found["stage"], &found["severity"]), (&"kvm".into(), &"fatal".into()));
    assert_eq!(found["cpu"], "host,-vmx");
    assert!(found["remedy"].as_str().unwrap().contains("vmx"));
    assert_eq!((&found["lines"], &found["ignored"]), (&3.into(), &1.into()));
    assert_eq!(found["causes"][1]["severity"], "harmless");
    assert_eq!(found["causes"][1]["lines"], serde_json::json!([1]));
}

#[test]
fn flags_stay_flags_and_bytes_are_decoded() {
    assert!(text(&["why", "acpi"], "").starts_with("acpi"));
    assert!(text(&["why", "-"], "acpi\n").starts_with("acpi"));
    assert_eq!(json(&["why", "acpi", "ibt"], "")["answers"].as_array().unwrap().len(), 2);
    for bytes in [&["why", "c4", "e2", "7d", "78", "c0"][..], &["why", "c4e27d78c0"], &["why", "c4 e2 7d 78 c0"]] {
        assert_eq!(json(bytes, "")["features"], serde_json::json!(["avx2"]), "{bytes:?}");
    }
}

#[test]
fn what_says_nothing_is_refused_and_nothing_reaches_the_terminal_that_it_would_obey() {
    let output = run(&["why", "-"], "Dear Sir,\n\u{1b}[2Jyours\n");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("2 lines"), "{output:?}");
    assert!(output.stdout.is_empty());
    let shown =
        text(&["why", "-"], "CPU model 'evil\u{7}\u{1b}]0;x' not found\nmissing features: a\u{1b}[31m-b, c-d\n");
    assert!(!shown.contains('\u{1b}') && !shown.contains('\u{7}'), "{shown:?}");
    assert_eq!(run(&["why"], "").status.code(), Some(2));
    assert_eq!(run(&["why", "--file", "/nowhere/at/all"], "").status.code(), Some(2));
}

#[test]
fn a_host_decides_who_took_a_feature() {
    let host = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus/examples/hybrid-host.flags");
    let arguments = ["why", "missing features: monitor,avx2", "--host", host.to_str().unwrap()];
    let found = json(&arguments, "");
    let features = found["causes"][0]["features"].as_array().unwrap();
    assert!(features.iter().all(|feature| feature["on_host"]["at"].is_string()), "{features:?}");
    assert!(text(&arguments, "").contains("on this host"));
}
