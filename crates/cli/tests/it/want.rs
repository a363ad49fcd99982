//! `want` as its users meet it: exit status, JSON, and what is to be pasted.

use std::process::Output;

use serde_json::Value;

use crate::common::{errors, host as record, json_of, run as program, text};

/// Asks on a host of the QEMU oracle, with its kernel named.
fn run(host: &str, arguments: &[&str]) -> Output {
    let kernel = host.rsplit('-').next().unwrap();
    let asked = ["want", "--host-kernel", kernel, "--guest-kernel", "6.12", "--machine", "q35"];
    program(&[&asked, arguments, &["-"]].concat(), record(host))
}

fn answer(host: &str, arguments: &[&str], status: i32) -> Value {
    json_of(&run(host, &[arguments, &["--json"]].concat()), status)
}

#[test]
fn the_command_comes_first_and_then_what_it_gives_up() {
    let output = run("milan-6.18", &["nonstop_tsc", "--qemu", "7.2"]);
    assert_eq!(output.status.code(), Some(0));
    let text = text(&output);
    let command = text.find("1  -cpu host,+invtsc\n").unwrap();
    let migration = text.find("QEMU refuses to migrate a guest with invtsc").unwrap();
    assert!(command < migration);
    assert!(text.contains("also gains   constant_tsc\n"), "what was wanted is no news");
}

#[test]
fn json_has_the_settings_and_their_price() {
    let answer = answer("spr-6.18", &["flush_l1d", "--qemu", "7.2"], 0);
    assert_eq!(answer["format"], 1);
    assert_eq!(answer["granted"], false);
    assert_eq!(answer["solutions"][0]["settings"]["cpu"], "host,migratable=off");
    assert_eq!(answer["solutions"][1]["changes"][0]["kind"], "qemu");
    assert_eq!(answer["solutions"][1]["disturbance"], "upgrade");
    assert_eq!(answer["solutions"][0]["paste"]["text"], "-accel kvm -machine q35 -cpu host,migratable=off\n");
    let costs: Vec<u64> =
        answer["solutions"].as_array().unwrap().iter().map(|one| one["cost"].as_u64().unwrap()).collect();
    assert!(costs.is_sorted());
}

#[test]
fn the_exit_status_says_whether_it_can_be_had() {
    assert_eq!(answer("spr-6.18", &["avx2"], 0)["granted"], true);
    let acpi = answer("spr-6.18", &["acpi"], 1);
    assert_eq!((&acpi["hindrances"][0]["at"], &acpi["hindrances"][0]["rule"]), (&"kvm".into(), &"KVM0105".into()));
    let unheard = run("spr-6.18", &["avx521f"]);
    assert_eq!(unheard.status.code(), Some(2));
    assert!(errors(&unheard).contains("perhaps avx512f"), "{}", errors(&unheard));
    let alone = run("spr-6.18", &[]);
    assert_eq!(alone.status.code(), Some(2));
    let both = run("spr-6.18", &["avx2", "--without", "AVX2"]);
    assert_eq!(both.status.code(), Some(2));
    assert!(errors(&both).contains("avx2 is wanted and unwanted at once"));
    let model = run("spr-6.18", &["avx2", "--qemu", "5.2", "--cpu", "SapphireRapids"]);
    assert_eq!(model.status.code(), Some(2));
    assert!(errors(&model).contains("unable to find CPU model"));
}

#[test]
fn libvirt_gets_elements_under_its_own_names() {
    let arguments = ["nonstop_tsc", "--without", "pclmulqdq", "--to", "libvirt", "--qemu", "7.2"];
    let output = run("milan-6.18", &arguments);
    let xml = text(&output);
    assert!(xml.contains("<feature policy='require' name='invtsc'/>"), "{xml}");
    assert!(xml.contains("<feature policy='disable' name='pclmuldq'/>"), "libvirt's own spelling: {xml}");
    assert!(xml.contains("<cpu mode='host-passthrough' check='none'>"), "{xml}");
    let named = run("milan-6.18", &["vaes", "--cpu", "EPYC-Milan,kvm=off,pmu=on", "--to", "libvirt"]);
    let xml = text(&named);
    assert!(xml.contains("<model fallback='forbid'>EPYC-Milan</model>"), "{xml}");
    assert!(xml.contains("<kvm><hidden state='on'/></kvm>") && xml.contains("<pmu state='on'/>"), "{xml}");
    let told = |arguments: &[&str]| errors(&run("milan-6.18", arguments));
    let beyond = told(&["nonstop_tsc", "--cpu", "host,x-hv-max-vps=4", "--to", "libvirt"]);
    assert!(beyond.contains("libvirt has no element for x-hv-max-vps=4 of -cpu"), "{beyond}");
}

#[test]
fn a_template_of_firecracker_holds_bits_alone() {
    let output = run("milan-6.18", &["nonstop_tsc", "--without", "avx2", "--to", "firecracker"]);
    assert_eq!(output.status.code(), Some(0));
    let template: Value = serde_json::from_slice(&output.stdout).unwrap();
    let modifiers = template["cpuid_modifiers"].as_array().unwrap();
    assert_eq!(modifiers.len(), 2);
    assert_eq!((&modifiers[0]["leaf"], &modifiers[0]["flags"]), (&"0x7".into(), &1.into()));
    assert_eq!(modifiers[0]["modifiers"][0]["bitmap"], format!("0b{}0xxxxx", "x".repeat(26)));
    assert_eq!(modifiers[1]["leaf"], "0x80000007");
    assert_eq!(modifiers[1]["modifiers"][0]["register"], "edx");
    // What KVM does not offer, no template gives: the bit would have nothing behind it.
    let svm = run("milan-6.18", &["svm", "--kvm-param", "nested=0", "--to", "firecracker"]);
    assert_eq!(svm.status.code(), Some(1));
    assert!(errors(&svm).contains("svm: this host's KVM does not offer it"), "{}", errors(&svm));
}

#[test]
fn proxmox_gets_a_model_of_its_own() {
    let output = run("milan-6.18", &["nonstop_tsc", "--without", "avx2", "--to", "proxmox"]);
    let text = text(&output);
    assert!(text.contains("cpu-model: cpusieve\n\tflags -avx2;+invtsc\n\treported-model host\n"), "{text}");
    assert!(text.contains("cpu: custom-cpusieve\nmachine: q35\n"), "{text}");
    let other = run("spr-6.18", &["flush_l1d", "--qemu", "7.2", "--to", "proxmox"]);
    let text = String::from_utf8(other.stdout).unwrap();
    assert!(text.contains("args: -cpu host,migratable=off\n"), "{text}");
}

#[test]
fn kubevirt_gets_fields_and_is_told_what_has_none() {
    let arguments = ["nonstop_tsc", "--without", "pclmulqdq", "--cpu", "host,kvm=off,pmu=on", "--to", "kubevirt"];
    let output = run("milan-6.18", &arguments);
    assert_eq!(output.status.code(), Some(0));
    let yaml = text(&output);
    assert!(yaml.starts_with("spec:\n  domain:\n    cpu:\n      model: host-passthrough\n      features:\n"), "{yaml}");
    assert!(yaml.contains("        - name: \"invtsc\"\n          policy: require\n"), "{yaml}");
    assert!(yaml.contains("        - name: \"pclmuldq\"\n          policy: disable\n"), "{yaml}");
    assert!(yaml.contains("    features:\n      kvm:\n        hidden: true\n"), "{yaml}");
    assert!(yaml.ends_with("    machine:\n      type: q35\n"), "{yaml}");
    assert!(errors(&output).contains("KubeVirt has no field for pmu=on of -cpu"), "{}", errors(&output));
}

#[test]
fn nova_gets_its_section_and_the_flavor_the_rest() {
    let arguments = ["nonstop_tsc", "--without", "pclmulqdq", "--cpu", "host,kvm=off,pmu=on", "--to", "openstack"];
    let output = run("milan-6.18", &arguments);
    let ini = text(&output);
    let section = "[libvirt]\ncpu_mode = host-passthrough\ncpu_model_extra_flags = ";
    assert!(ini.contains(section), "{ini}");
    assert!(ini.contains("+invtsc") && ini.contains("-pclmuldq"), "{ini}");
    assert!(ini.contains("hw_machine_type = x86_64=q35\n"), "{ini}");
    assert!(ini.ends_with("hw:hide_hypervisor_id=true\nhw:pmu=true\n"), "{ini}");
    let named = answer("milan-6.18", &["vaes", "--cpu", "EPYC-Milan", "--to", "openstack"], 0);
    let paste = &named["solutions"][0]["paste"];
    let paste = if paste.is_null() { &named["paste"] } else { paste };
    assert_eq!(paste["system"], "openstack");
    assert!(paste["text"].as_str().unwrap().contains("cpu_mode = custom\ncpu_models = EPYC-Milan"), "{paste}");
}

#[test]
fn what_is_pasted_into_a_shell_is_one_word() {
    let output = run("milan-6.18", &["nonstop_tsc", "--cpu", "host,model-id=$(id)'s", "--to", "qemu", "--qemu", "7.2"]);
    assert_eq!(text(&output), "-accel kvm -machine q35 -cpu 'host,model-id=$(id)'\\''s,+invtsc'\n");
}
