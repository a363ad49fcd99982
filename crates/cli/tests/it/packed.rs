//! Packed fleets as their users meet them: the same answers as from the files that they were packed from.

use std::fs;
use std::process::Output;

use serde_json::Value;

use crate::common::{Folder, errors, host, json as json_from, run as program, text};

fn run(arguments: &[&str]) -> Output {
    program(arguments, "")
}

fn json(arguments: &[&str]) -> Value {
    json_from(&run(&[arguments, &["--json"]].concat()))
}

/// A folder of hosts, and the same packed both ways; equal hosts are neighbours, as they are in the packed file.
fn packed(name: &str) -> Folder {
    let folder = Folder::new(name);
    for name in ["clx-5.10", "icx-6.1", "milan-6.18"] {
        folder.file(&format!("hosts/{name}.json"), host(name));
    }
    folder.file("hosts/icx-6.1-twin.json", host("icx-6.1"));
    let (arrow, parquet, hosts) = (folder.at("f.arrow"), folder.at("f.parquet"), folder.at("hosts"));
    let said = json(&["fleet", "pack", "-o", &arrow, "--parquet", &parquet, &hosts, "--qemu", "10.0"]);
    assert_eq!((said["hosts"].as_u64(), said["kinds"].as_u64()), (Some(4), Some(3)));
    assert_eq!(said["files"][0]["bytes"].as_u64().unwrap(), fs::metadata(&arrow).unwrap().len());
    folder
}

#[test]
fn every_verb_answers_from_packed_files_as_from_the_hosts_themselves() {
    let folder = packed("same");
    let hosts = folder.at("hosts");
    for packed in ["f.arrow", "f.parquet"] {
        let packed = folder.at(packed);
        for verb in [&["baseline"][..], &["pools", "--k", "3"], &["who", "gfni"]] {
            let ask = |input: &str| {
                let mut found = json(&[&["fleet"], verb, &[input, "--qemu", "10.0"]].concat());
                // What is said of inputs is said of other inputs.
                for of_inputs in ["duplicates", "lacking"] {
                    found.as_object_mut().unwrap().remove(of_inputs);
                }
                found
            };
            assert_eq!(ask(&hosts), ask(&packed), "{verb:?} {packed}");
        }
        let drift = json(&["fleet", "drift", &hosts, &packed, "--qemu", "10.0"]);
        assert_eq!(drift["hosts"].as_array().unwrap().len(), 4, "{drift}");
        for host in drift["hosts"].as_array().unwrap() {
            let nothing = |field: &str| host[field].as_array().unwrap().is_empty();
            assert!(nothing("changed") && nothing("gained") && nothing("lost"), "{host}");
        }
        let one = folder.at("hosts/icx-6.1.json");
        let compared = json(&["fleet", "compare", &one, &packed, "--qemu", "10.0"]);
        let common = json(&["fleet", "baseline", &packed, "--qemu", "10.0"])["features"].as_array().unwrap().len();
        assert_eq!((&compared["b_on_a"], compared["common"].as_u64()), (&true.into(), Some(common as u64)));
    }
    // Beside other inputs.
    let both = json(&["fleet", "baseline", &folder.at("f.arrow"), &hosts, "--qemu", "10.0"]);
    let alone = json(&["fleet", "baseline", &hosts, "--qemu", "10.0"]);
    assert_eq!((both["hosts"].as_u64(), &both["features"]), (Some(8), &alone["features"]));
    // A packed fleet is packed again as it was.
    let again = folder.at("again.arrow");
    run(&["fleet", "pack", "-o", &again, &folder.at("f.arrow"), "--qemu", "10.0"]);
    assert_eq!(fs::read(again).unwrap(), fs::read(folder.at("f.arrow")).unwrap());
}

#[test]
fn a_file_for_other_software_and_a_damaged_one_are_named() {
    let folder = packed("other");
    let (arrow, hosts) = (folder.at("f.arrow"), folder.at("hosts"));
    let other = run(&["fleet", "baseline", &arrow, "--qemu", "7.2"]);
    assert_eq!(other.status.code(), Some(2));
    assert!(errors(&other).contains("packed for QEMU 10.0"), "{}", errors(&other));
    // With nothing named, what it was packed for counts, and that is said.
    let found = json(&["fleet", "baseline", &arrow]);
    assert_eq!((&found["qemu"], &found["assumed"][0]["what"]), (&"10.0".into(), &"software".into()));
    assert!(found["assumed"][0]["value"].as_str().unwrap().starts_with("QEMU 10.0, machine pc"));
    let parquet = json(&["fleet", "pools", "--k", "1", &folder.at("f.parquet")]);
    assert_eq!(parquet["qemu"], "10.0");
    let whole = fs::read(&arrow).unwrap();
    let broken = folder.file("broken.arrow", &whole[..whole.len() / 2]);
    let output = run(&["fleet", "baseline", &hosts, &broken, "--qemu", "10.0", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((found["hosts"].as_u64(), found["skipped"][0]["input"].as_str()), (Some(4), Some(broken.as_str())));
    let strict = run(&["fleet", "baseline", &hosts, &broken, "--qemu", "10.0", "--strict"]);
    assert_eq!(strict.status.code(), Some(2));
    let nothing = folder.file("nothing.arrow", b"");
    assert_eq!(run(&["fleet", "baseline", &nothing]).status.code(), Some(2));
}

#[test]
fn one_broken_record_among_ten_thousand_is_named() {
    let folder = Folder::new("many");
    let dump = |number: u32| {
        // A Zen 3 host in a few leaves; hosts differ in their APIC ids.
        format!(
            "CPU 0:\n   0x00000000 0x00: eax=0x00000001 ebx=0x68747541 ecx=0x444d4163 edx=0x69746e65\n   \
             0x00000001 0x00: eax=0x00a20f12 ebx=0x{:02x}000800 ecx=0x02000000 edx=0x07008001\n   \
             0x80000000 0x00: eax=0x80000001 ebx=0x00000000 ecx=0x00000000 edx=0x00000000\n   \
             0x80000001 0x00: eax=0x00a20f12 ebx=0x00000000 ecx=0x00000004 edx=0x20000000\n",
            number % 256
        )
    };
    for number in 0..10_000 {
        let bytes = if number == 7_777 { b"CPU 0:\n   0x0000".to_vec() } else { dump(number).into_bytes() };
        folder.file(&format!("hosts/{number:05}.txt"), bytes);
    }
    let hosts = folder.at("hosts");
    let output = run(&["fleet", "baseline", &hosts, "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["hosts"], 9_999);
    assert_eq!(found["skipped"].as_array().unwrap().len(), 1);
    assert!(found["skipped"][0]["input"].as_str().unwrap().ends_with("07777.txt"));
    assert!(errors(&output).contains("07777.txt"));
    let strict = run(&["fleet", "baseline", &hosts, "--strict"]);
    assert_eq!((strict.status.code(), strict.stdout.is_empty()), (Some(2), true));
    assert!(errors(&strict).contains("07777.txt"));
}

#[test]
fn queries_are_printed_for_every_engine() {
    for (engine, and) in
        [("duckdb", "bit_and"), ("datafusion", "bit_and"), ("clickhouse", "groupBitAnd"), ("spark", "bit_and")]
    {
        let query = text(&run(&["fleet", "sql", "baseline", "--engine", engine, "it's.parquet"]));
        assert!(query.contains(&format!("{and}(host_7_0_ebx)")) && query.ends_with(";\n"), "{query}");
        assert!(query.contains(if engine == "spark" { "it's" } else { "it''s" }), "{query}");
    }
    assert_eq!(run(&["fleet", "sql", "who", "--engine", "duckdb", "f.arrow"]).status.code(), Some(2));
    let unknown = run(&["fleet", "sql", "who", "--feature", "warp", "--engine", "duckdb", "f.arrow"]);
    assert!(errors(&unknown).contains("`warp`"));
}
