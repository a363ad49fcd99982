//! `verify` as its users meet it: kept proofs replayed, this machine asked, nothing left running.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use serde_json::Value;

use crate::common::{Folder, json_of, program, read, run as program_with};

fn run(arguments: &[&str], input: &str) -> Output {
    program_with(&[&["verify"], arguments].concat(), input)
}

fn answer(arguments: &[&str], input: &str, status: i32) -> Value {
    json_of(&run(&[arguments, &["--json", "-"]].concat(), input), status)
}

/// A proof that was kept.
fn kept() -> String {
    String::from_utf8(read("proofs/k6.12-max.json.gz")).unwrap()
}

#[test]
fn a_kept_proof_is_green_in_all_parts() {
    let found = answer(&[], &kept(), 0);
    let parts: Vec<_> = found["parts"].as_array().unwrap().iter().map(|part| part["part"].as_str().unwrap()).collect();
    assert_eq!(parts, ["host", "kvm", "vcpu", "qemu", "guest"]);
    for part in found["parts"].as_array().unwrap() {
        assert_eq!((&part["same"], &part["unseen"]), (&Value::Bool(true), &serde_json::json!([])), "{part:#}");
        assert!(part["compared"].as_u64().unwrap() > 50, "{part:#}");
    }
    assert_eq!(found["differences"], serde_json::json!([]));
    let one = answer(&["--guest"], &kept(), 0);
    assert_eq!(one["parts"].as_array().unwrap().len(), 1);
}

#[test]
fn a_register_that_the_vcpu_reads_otherwise_is_told_with_its_features() {
    let mut proof: Value = serde_json::from_str(&kept()).unwrap();
    let host = proof["cpus"][0]["cpuid"].as_array().unwrap().iter().find(|entry| entry["leaf"] == "0x00000007");
    let host = host.unwrap()["ebx"].clone();
    let answers = proof["proof"]["vcpu"]["answers"].as_array_mut().unwrap();
    let seven = answers.iter_mut().find(|entry| entry["leaf"] == "0x00000007" && entry["subleaf"] == 0).unwrap();
    // SMAP (bit 20) goes out of what the guest read.
    let own = u32::from_str_radix(&seven["ebx"].as_str().unwrap()[2..], 16).unwrap();
    assert_eq!(own >> 20 & 1, 1, "the capture is another one");
    seven["ebx"] = format!("{:#010x}", own & !(1 << 20)).into();
    let found = answer(&["--vcpu"], &proof.to_string(), 1);
    let difference = &found["differences"][0];
    assert_eq!((&difference["what"], &difference["features"]), (&"7.0.EBX".into(), &serde_json::json!(["smap"])));
    assert!(difference["cause"].as_str().unwrap().contains("hides bits"), "{difference:#} {host}");
}

#[test]
fn a_refused_msr_foretells_that_qemu_ends_and_names_the_property() {
    let mut proof: Value = serde_json::from_str(&kept()).unwrap();
    // A QEMU that announces IA32_ARCH_CAPABILITIES on every CPU.
    proof["qemu"] = serde_json::json!([{"version": "7.2.22", "path": "/usr/bin/qemu-system-x86_64"}]);
    let mut predicting = program();
    predicting.args(["predict", "--until", "vcpu", "--cpu", "host", "--json", "-"]).stdin(Stdio::piped());
    let mut child = predicting.stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(proof.to_string().as_bytes()).unwrap();
    let predicted: Value = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
    let value = &predicted["vcpu"]["msrs"]["0x0000010a"];
    let msr = |value: &Value, taken: bool| serde_json::json!({"index": "0x0000010a", "value": value, "taken": taken});
    proof["proof"]["vcpu"]["msrs"] = vec![msr(value, false), msr(&"0x0".into(), true)].into();
    let found = answer(&["--vcpu"], &proof.to_string(), 1);
    let cause = found["differences"][0]["cause"].as_str().unwrap();
    assert!(cause.contains("failed to set MSR 0x10a") && cause.contains("host,-arch-capabilities"), "{cause}");
}

#[test]
fn a_word_that_a_guest_prints_otherwise_is_told() {
    let text = kept();
    let mut proof: Value = serde_json::from_str(&text).unwrap();
    let lines = &mut proof["proof"]["guest"]["record"]["linux"]["cpuinfo"];
    *lines = lines.as_str().unwrap().replace(" smap", "").into();
    let found = answer(&["--guest"], &proof.to_string(), 1);
    assert_eq!(found["differences"][0]["what"], "flags: smap");
    assert_eq!(found["differences"][0]["predicted"], "printed");
    assert_eq!(found["differences"][0]["real"], Value::Null);
    let shown = run(&["--guest", "-"], &proof.to_string());
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.starts_with("guest  Linux 6.12") && shown.contains("1 of "), "{shown}");
}

#[test]
fn what_a_record_does_not_hold_is_named() {
    let found = answer(&["--vcpu", "--guest"], "{\"format\":1,\"kind\":\"cpusieve-record\",\"cpus\":[{\"cpu\":0}]}", 3);
    assert_eq!(found["unseen"].as_array().unwrap().len(), 2);
    assert!(found["unseen"][0].as_str().unwrap().contains("--keep"), "{found:#}");
}

#[test]
fn this_machine_is_asked_and_each_part_is_compared_or_named() {
    let folder = Folder::new("live");
    let (keep, clock) = (folder.join("proof.json"), Instant::now());
    let output = run(&["--host", "--kvm", "--vcpu", "--qemu", "--json", "--keep", keep.to_str().unwrap()], "");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let status = output.status.code().unwrap();
    assert!([0, 1, 3].contains(&status), "{}", String::from_utf8_lossy(&output.stderr));
    for part in found["parts"].as_array().unwrap() {
        let (name, compared) = (part["part"].as_str().unwrap(), part["compared"].as_u64().unwrap());
        assert!(compared > 0 || !part["unseen"].as_array().unwrap().is_empty(), "{part:#}");
        match (compared, part["same"].as_bool().unwrap()) {
            (0, _) => eprintln!("skipped: {name}: {}", part["unseen"]),
            (_, true) => eprintln!("proved: {name}: {}, {compared} as predicted", part["of"]),
            (_, false) => {
                eprintln!("found: {name}: {} of {compared} otherwise: {}", part["differences"], part["findings"])
            }
        }
    }
    // This kernel and QEMU are their makers' alone; what a KVM does is the machine's.
    let of = |part: &str| found["differences"].as_array().unwrap().iter().filter(|one| one["part"] == part).count();
    assert_eq!((of("host"), of("qemu")), (0, 0), "{:#}", found["differences"]);
    eprintln!("asked in {:.1?}", clock.elapsed());
    let again = answer(&[], &fs::read_to_string(keep).unwrap(), status);
    assert_eq!(again["differences"], found["differences"], "what was kept is what was asked");
}

/// A program that calls itself QEMU and then does what `then` says; a kernel image that is none.
fn pretend(folder: &Folder, then: &str) -> PathBuf {
    let program = folder.join("qemu-system-x86_64");
    let script =
        format!("#!/bin/sh\ncase \"$*\" in *--version*) echo QEMU emulator version 7.2.22; exit;; esac\n{then}\n");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut image = vec![0; 0x400];
    image[0x202..0x206].copy_from_slice(b"HdrS");
    let kernel = folder.join("vmlinuz");
    fs::write(&kernel, image).unwrap();
    kernel
}

#[test]
fn a_guest_that_does_not_report_is_told_with_its_last_lines() {
    let folder = Folder::new("panics");
    let kernel = pretend(&folder, "echo '[ 1.2] Kernel panic - not syncing: no init'; echo Call Trace");
    let path = format!("{}:/usr/bin:/bin", folder.path());
    let output = program().args(["verify", "--guest", "--kernel"]).arg(&kernel).env("PATH", path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3), "{text}");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("kernel panicked: no init") && text.contains("Call Trace"), "{text}");
    let missing = run(&["--guest", "--kernel", "/none"], "");
    assert_eq!(missing.status.code(), Some(3));
    let text = String::from_utf8(missing.stdout).unwrap();
    assert!(text.contains("--kernel FILE") || text.contains("search path"), "{text}");
}

#[test]
fn a_guest_that_hangs_and_a_qemu_that_aborts_end_in_time_with_their_last_lines() {
    let folder = Folder::new("hangs");
    let number = folder.join("number");
    let hangs = format!("echo $$ > {}; echo the last words of a guest; exec sleep 60", number.display());
    let aborts = "echo qemu-system-x86_64: error: failed to set MSR 0x48f >&2; kill -ABRT $$";
    for (then, told) in [
        (hangs.as_str(), &["did not end within 1 s", "the last words of a guest"][..]),
        (aborts, &["signal: 6", "failed to set MSR 0x48f"]),
    ] {
        let kernel = pretend(&folder, then);
        let path = format!("{}:/usr/bin:/bin", folder.path());
        let clock = Instant::now();
        let mut verify = program();
        verify.args(["verify", "--guest", "--json", "--limit", "1", "--kernel"]).arg(&kernel).env("PATH", path);
        let output = verify.output().unwrap();
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(3), "{found:#}");
        assert!(clock.elapsed() < Duration::from_secs(30));
        let unseen = found["unseen"][0].as_str().unwrap();
        assert!(told.iter().all(|part| unseen.contains(part)), "{unseen}");
    }
    let guest = format!("/proc/{}/cmdline", fs::read_to_string(&number).unwrap().trim());
    assert!(!fs::read_to_string(&guest).is_ok_and(|text| text.contains("sleep")), "the guest is still there");
}

#[test]
fn whoever_is_killed_leaves_no_guest_behind() {
    let folder = Folder::new("killed");
    let number = folder.join("number");
    let kernel = pretend(&folder, &format!("echo $$ > {}; exec sleep 60", number.display()));
    let path = format!("{}:/usr/bin:/bin", folder.path());
    let mut child = program().args(["verify", "--guest", "--kernel"]).arg(&kernel).env("PATH", path).spawn().unwrap();
    let written = |path: &Path| fs::read_to_string(path).ok().filter(|text| text.ends_with('\n'));
    let wait = |done: &dyn Fn() -> bool| {
        (0..1000).any(|_| {
            done() || {
                thread::sleep(Duration::from_millis(10));
                false
            }
        })
    };
    assert!(wait(&|| written(&number).is_some()), "the guest was not started");
    child.kill().unwrap();
    child.wait().unwrap();
    let guest = format!("/proc/{}/cmdline", written(&number).unwrap().trim());
    let gone = || !fs::read_to_string(&guest).is_ok_and(|text| text.contains("sleep"));
    assert!(wait(&gone), "the guest outlived the program");
}
