//! `price --cpu A --cpu B`: what is said where nothing can be priced, and that a guest does measure itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cpusieve_price::guests::{self, Asked, compare};
use cpusieve_probe::guest;
use serde_json::Value;

use crate::common::{errors, run as program, text};

fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = program(&[&["price"], arguments].concat(), "");
    (output.status.code().unwrap(), text(&output), errors(&output))
}

#[test]
fn without_hardware_nothing_is_made_up() {
    let cpuid = cpusieve_probe::cpuid::enumerate_here().table;
    if guests::hindrance(&cpuid).is_none() {
        eprintln!("skipped: KVM runs on hardware here");
        return;
    }
    let (status, text, _) = run(&["--cpu", "qemu64", "--cpu", "host"]);
    assert_eq!(status, 3);
    assert!(text.contains("TCG cannot price anything") && text.contains("kvm_intel or kvm_amd"), "{text}");
    let (status, json, _) = run(&["--cpu", "qemu64", "--cpu", "host", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((status, json["rows"].as_array().map(Vec::len)), (3, Some(0)));
    assert!(json["refused"].as_str().unwrap().contains("cannot price"));
}

#[test]
fn one_guest_alone_is_no_comparison() {
    let (status, text, errors) = run(&["--cpu", "host"]);
    assert_eq!((status, text.as_str()), (2, ""));
    assert!(errors.contains("--cpu A --cpu B"), "{errors}");
}

/// Under TCG, whose numbers mean nothing: only that a guest measures itself and that its report comes back.
#[test]
fn a_guest_measures_itself_and_reports() {
    let Some(kernel) = std::env::var_os("CPUSIEVE_KERNEL")
        .map(PathBuf::from)
        .or_else(|| guest::find(None).ok().map(|kernel| kernel.image))
    else {
        eprintln!("skipped: no kernel image (CPUSIEVE_KERNEL names one)");
        return;
    };
    let Some(qemu) = cpusieve_probe::qemu::find(&mut Vec::new()).into_iter().next() else {
        eprintln!("skipped: no qemu-system-x86_64");
        return;
    };
    let program = std::fs::read(env!("CARGO_BIN_EXE_cpusieve")).unwrap();
    let initramfs = guest::build(&program, None);
    let asked = Asked {
        binary: Path::new(&qemu.path),
        accelerator: "tcg",
        machine: "pc",
        cpu: "max",
        kernel: &kernel,
        initramfs: &initramfs,
        seconds: 1,
        limit: Duration::from_secs(120),
    };
    let told = guests::boot(&asked).unwrap();
    assert!(told.exits.iter().any(|exit| exit.id == "cpuid.0.0"), "{told:?}");
    let rows = compare(std::slice::from_ref(&told), std::slice::from_ref(&told));
    let one = rows.iter().find(|row| row.id == "cpuid.0.0").unwrap();
    assert_eq!(one.better.unwrap().median, 1.0);
    eprintln!("proved: a guest under TCG measured {} works and {} operations", told.rows.len(), told.exits.len());
}
