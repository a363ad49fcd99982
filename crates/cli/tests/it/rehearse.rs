//! `rehearse` as its users meet it: exit status, JSON, what is left out, and a page that fits.

use std::process::Output;

use serde_json::Value;

use crate::common::{Folder, errors, host as record, json_of, run as program, text};

/// A host of the QEMU oracle, as a file.
fn host(folder: &Folder, name: &str) -> String {
    folder.file(&format!("{name}.json"), record(name))
}

fn run(arguments: &[&str]) -> Output {
    program(&[&["rehearse"], arguments].concat(), "")
}

fn answer(arguments: &[&str], status: i32) -> Value {
    json_of(&run(&[arguments, &["--json"]].concat()), status)
}

const DOMAIN: &[u8] = b"<domain type='kvm'>
  <name>web1</name>
  <vcpu>2</vcpu>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
  <cpu mode='custom' check='full'><model>EPYC-Rome</model><topology sockets='1' cores='2' threads='1'/></cpu>
</domain>";

#[test]
fn a_domain_that_libvirt_will_not_take_back_is_named_with_libvirts_words() {
    let folder = Folder::new("domain");
    let (host, guest) = (host(&folder, "milan-6.18"), folder.file("web1.xml", DOMAIN));
    let found = answer(&["--qemu", "7.2..10.0", &host, "--guests", &guest], 1);
    assert_eq!(found["format"], 1);
    let guest = &found["hosts"][0]["guests"][0];
    assert_eq!((guest["guest"].as_str(), guest["libvirt"].as_bool()), (Some("web1"), Some(true)));
    assert_eq!(guest["start"]["possible"], true);
    assert_eq!(guest["migrate"]["forth"]["possible"], false);
    assert!(guest["migrate"]["forth"]["why"][0].as_str().unwrap().contains("extra features:"), "{guest}");
    for change in ["gained", "lost", "changed"] {
        assert_eq!(guest[change], serde_json::json!([]), "the CPU itself is the same");
    }
}

#[test]
fn an_upgrade_of_the_kernel_says_who_takes_a_flag_and_ends_with_commands() {
    let folder = Folder::new("kernel");
    let host = host(&folder, "milan-6.18");
    let arguments = ["--host-kernel", "6.12..6.18", "--qemu", "10.0..10.0", "--machine", "pc-q35-10.0", &host];
    let found = answer(&arguments, 1);
    let lost = &found["hosts"][0]["guests"][0]["lost"][0];
    assert_eq!(
        (lost["feature"].as_str(), lost["at"].as_str(), lost["by"].as_str()),
        (Some("spec_ctrl"), Some("kvm"), Some("host"))
    );
    assert_eq!(lost["since"]["with"], "6.14");
    assert!(lost["rule"].as_str().unwrap().starts_with("KVM"));
    assert!(lost["cite"].as_str().unwrap().contains(':'));
    let page = text(&run(&arguments));
    assert!(page.starts_with("Linux 6.12 -> 6.18: 1 of 1 guest will not be as before"), "{page}");
    let (changes, commands) = (page.find("- spec_ctrl").unwrap(), page.find("\nCommands\n").unwrap());
    assert!(changes < commands && page.contains("install Linux 6.18"), "{page}");
    let long: Vec<&str> = page.lines().filter(|line| line.chars().count() > 100 && !line.contains("-cpu ")).collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn nothing_changes_where_nothing_is_upgraded_for_the_guest() {
    let folder = Folder::new("same");
    let host = host(&folder, "milan-6.18");
    let arguments = [
        "--host-kernel",
        "6.12..6.18",
        "--qemu",
        "10.0..10.0",
        "--cpu",
        "EPYC-Milan,-spec-ctrl",
        "--machine",
        "pc-q35-10.0",
    ];
    let output = run(&[&arguments[..], &[&host]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("nothing changes for any guest"));
}

#[test]
fn firecracker_gets_a_template() {
    let folder = Folder::new("firecracker");
    let host = host(&folder, "spr-6.18");
    let arguments = ["--vmm", "firecracker", "--host-kernel", "6.1..6.18", "--kvm-param", "nested=0..0", &host];
    let found = answer(&arguments, 1);
    let guest = &found["hosts"][0]["guests"][0];
    let gained: Vec<&str> =
        guest["gained"].as_array().unwrap().iter().filter_map(|one| one["feature"].as_str()).collect();
    assert!(gained.contains(&"ibt") && gained.contains(&"fsrs"), "{gained:?}");
    let template = guest["pinned"]["template"].to_string();
    let (read, diagnostics) = cpusieve_formats::firecracker::template("t", template.as_bytes());
    assert!(diagnostics.is_empty() && !read.cpuid.is_empty(), "{diagnostics:?}");
}

#[test]
fn what_cannot_be_used_is_named_and_left_out() {
    let folder = Folder::new("broken");
    let host = host(&folder, "milan-6.18");
    let broken = folder.file("broken.json", b"{\"kind\":");
    let guest = folder.file("guest.txt", b"CPU:\n   0x00000000 0x00: eax=0x00000001 ebx=0x68747541 ecx=0x444d4163 edx=0x69746e65\n   0x00000001 0x00: eax=0x00a20f12 ebx=0x00000000 ecx=0x80000000 edx=0x00008001\n");
    let no_domain = folder.file("no.xml", b"<domain>\n<");
    let output = run(&["--qemu", "7.2..10.0", &host, &broken, &guest, "--cpu", "EPYC", "--guests", &no_domain]);
    assert_eq!(output.status.code(), Some(3), "{}", errors(&output));
    let said = errors(&output);
    assert!(
        said.contains("broken.json") && said.contains("the hypervisor bit is set") && said.contains("no.xml:2"),
        "{said}"
    );
    let alone = run(&["--qemu", "7.2..10.0", &guest]);
    assert_eq!(alone.status.code(), Some(2));
}

#[test]
fn questions_that_mean_nothing_are_refused() {
    let folder = Folder::new("usage");
    let host = host(&folder, "milan-6.18");
    for (arguments, words) in [
        (&[][..], "nothing is upgraded"),
        (&["--host-kernel", "6.1..6.1"], "nothing is upgraded"),
        (&["--host-kernel", "6.1..x"], "no kernel release"),
        (&["--qemu", "7.2..x"], "no QEMU version"),
        (&["--qemu", "10.0"], "nothing tells which QEMU is upgraded; say from which: --qemu A..B"),
        (&["--vmm", "firecracker", "--vmm-version", "1.16"], "--vmm-version A..B"),
        (&["--vmm", "firecracker", "--qemu", "7.2..10.0"], "is for QEMU"),
        (&["--vmm-version", "1.12..1.16"], "not for QEMU"),
        (&["--microcode", "0x1..y"], "expected revisions"),
        (&["--qemu", "7.2..10.0", "--template", "T2"], "Firecracker alone"),
        (&["--kvm-param", "nosuch=1", "--host-kernel", "6.1..6.12"], "no parameter of KVM's modules"),
    ] {
        let output = run(&[arguments, &[&host]].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output));
        assert!(errors(&output).contains(words), "{arguments:?}: {}", errors(&output));
    }
}
