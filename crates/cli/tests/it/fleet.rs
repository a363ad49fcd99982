//! `fleet` as its users meet it.

use serde_json::Value;

use crate::common::{Folder, errors, host, json, run, text};

#[test]
fn a_folder_and_a_stream_of_records_have_the_same_baseline() {
    let folder = Folder::new("stream");
    let mut stream = Vec::new();
    for name in ["clx-5.10", "icx-6.1"] {
        folder.file(&format!("{name}.json"), host(name));
        let record: Value = serde_json::from_slice(&host(name)).unwrap();
        stream.extend_from_slice(record.to_string().as_bytes());
        stream.push(b'\n');
    }
    let files = run(&["fleet", "baseline", folder.path(), "--qemu", "10.0", "--json"], b"");
    let lines = run(&["fleet", "baseline", "-", "--qemu", "10.0", "--json"], &stream);
    assert_eq!((files.status.code(), lines.status.code()), (Some(0), Some(0)));
    let (files, lines) = (json(&files), json(&lines));
    assert_eq!(files["format"], 1);
    assert_eq!(files["hosts"], 2);
    for field in ["features", "model", "phys_bits", "xcr0", "msrs"] {
        assert_eq!(files[field], lines[field], "{field}");
    }
    let cpu = files["model"]["cpu"].as_str().unwrap();
    assert!(cpu.starts_with(files["model"]["name"].as_str().unwrap()));
    let features = files["features"].as_array().unwrap();
    assert!(features.contains(&"avx512f".into()) && !features.contains(&"gfni".into()), "{features:?}");
    let costs = files["costs"].as_array().unwrap();
    let of_clx = costs.iter().find(|cost| cost["host"].as_str().unwrap().contains("clx")).unwrap();
    assert!(of_clx["features"].as_array().unwrap().contains(&"gfni".into()));
    assert!(of_clx["alone"].as_array().unwrap().contains(&"gfni".into()));
}

#[test]
fn a_broken_input_is_named_and_left_out_or_stops_a_strict_run() {
    let folder = Folder::new("broken");
    folder.file("a.json", host("clx-5.10"));
    folder.file("b.txt", b"Dear Sir or Madam,\n");
    folder.file("c.json", host("clx-5.10"));
    let output = run(&["fleet", "baseline", folder.path(), "--json"], b"");
    assert_eq!(output.status.code(), Some(3));
    assert!(errors(&output).contains("b.txt"));
    let found = json(&output);
    assert_eq!(found["hosts"], 2);
    assert!(found["skipped"][0]["input"].as_str().unwrap().ends_with("b.txt"));
    assert!(found["duplicates"][0]["input"].as_str().unwrap().ends_with("c.json"));
    let strict = run(&["fleet", "baseline", folder.path(), "--strict"], b"");
    assert_eq!(strict.status.code(), Some(2));
    assert!(strict.stdout.is_empty() && errors(&strict).contains("b.txt"));
}

#[test]
fn a_guests_dump_is_no_host_and_nothing_is_no_fleet() {
    let folder = Folder::new("guest");
    let dump = b"CPU 0:\n   0x00000000 0x00: eax=0x00000001 ebx=0x756e6547 ecx=0x6c65746e edx=0x49656e69\n   \
                 0x00000001 0x00: eax=0x000906ed ebx=0x00000000 ecx=0x80000020 edx=0x07008021\n";
    let guest = folder.file("guest.cpuid", dump);
    let output = run(&["fleet", "baseline", &guest], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(errors(&output).contains("a guest's dump"), "{}", errors(&output));
    let empty = run(&["fleet", "baseline", "-"], b"");
    assert_eq!(empty.status.code(), Some(2));
    let missing = run(&["fleet", "baseline", "no-such-file"], b"");
    assert_eq!(missing.status.code(), Some(2));
    assert!(errors(&missing).contains("no-such-file"));
}

#[test]
fn vendors_that_are_mixed_are_said() {
    let folder = Folder::new("mixed");
    folder.file("a.json", host("clx-5.10"));
    folder.file("b.json", host("milan-6.18"));
    let output = run(&["fleet", "baseline", folder.path(), "--json"], b"");
    assert_eq!(output.status.code(), Some(0));
    let found = json(&output);
    assert_eq!(found["vendors"].as_array().unwrap().len(), 2);
    assert!(found["findings"][0].as_str().unwrap().starts_with("mixed vendors (1 Intel, 1 AMD)"));
}

#[test]
fn a_baseline_is_printed_for_whoever_starts_guests() {
    let folder = Folder::new("to");
    let a = folder.file("a.json", host("clx-5.10"));
    let b = folder.file("b.json", host("icx-6.1"));
    for (to, expected) in [
        ("qemu", "-cpu Cascadelake-Server-v"),
        ("libvirt", "<model fallback='forbid'>Cascadelake-Server-v"),
        ("firecracker", "\"cpuid_modifiers\""),
        ("proxmox", "reported-model Cascadelake-Server-v"),
        ("kubevirt", "model: Cascadelake-Server-v"),
        ("openstack", "cpu_models = Cascadelake-Server-v"),
    ] {
        let output = run(&["fleet", "baseline", &a, &b, "--qemu", "10.0", "--to", to], b"");
        assert_eq!(output.status.code(), Some(0), "{to}");
        assert!(text(&output).contains(expected), "{to}: {}", text(&output));
    }
    // What that libvirt has no name for is not written as if it had.
    let old = run(&["fleet", "baseline", &a, &b, "--qemu", "10.0", "--to", "libvirt", "--libvirt", "9.0"], b"");
    let (old, versions) = (text(&old), ["-v2</model>", "-v3</model>", "-v4</model>", "-v5</model>"]);
    let is_versioned = versions.iter().any(|version| old.contains(version));
    assert_eq!(is_versioned, old.contains("libvirt 9.0 has no name for: the model"), "{old}");
    let template = run(&["fleet", "baseline", &a, &b, "--to", "firecracker"], b"");
    let again = run(&["fleet", "baseline", "-"], &template.stdout);
    // A template is recognised for what it is, and is no host.
    assert_eq!(again.status.code(), Some(2));
}

#[test]
fn hosts_are_compared_in_both_directions() {
    let folder = Folder::new("compare");
    let a = folder.file("a.json", host("clx-5.10"));
    let b = folder.file("b.json", host("icx-6.1"));
    let amd = folder.file("amd.json", host("milan-6.18"));
    let same = run(&["fleet", "compare", &a, &a, "--json"], b"");
    assert_eq!((same.status.code(), json(&same)["relation"].as_str()), (Some(0), Some("identical")));
    let one = json(&run(&["fleet", "compare", &a, &b, "--json"], b""));
    let other = json(&run(&["fleet", "compare", &b, &a, "--json"], b""));
    assert_eq!((&one["only_a"], &one["only_b"]), (&other["only_b"], &other["only_a"]));
    assert_eq!((&one["b_on_a"], &one["a_on_b"]), (&other["a_on_b"], &other["b_on_a"]));
    let vendors = run(&["fleet", "compare", &a, &amd, "--json"], b"");
    assert_eq!((vendors.status.code(), json(&vendors)["relation"].as_str()), (Some(1), Some("incompatible")));
    assert_eq!(json(&vendors)["why"][0], "the vendor must be AMD, and is Intel");
}

#[test]
fn policies_of_a_libvirt_cpu_count_as_libvirt_counts_them() {
    let folder = Folder::new("policies");
    let host = folder.file(
        "host.xml",
        b"<cpu><arch>x86_64</arch><model>Penryn</model><vendor>Intel</vendor>\
        <feature name='vmx'/></cpu>",
    );
    let relation = |rest: &str| {
        let text = format!("<cpu mode='custom' {rest}</cpu>");
        let guest = folder.file("guest.xml", text.as_bytes());
        let output = run(&["fleet", "compare", &host, &guest, "--json"], b"");
        (output.status.code(), output.stdout.is_empty() || json(&output)["b_on_a"] == true)
    };
    let penryn = "match='exact'><model>Penryn</model>";
    assert_eq!(relation(penryn).0, Some(0));
    assert_eq!(relation(&format!("{penryn}<feature policy='require' name='aes'/>")).0, Some(1));
    assert_eq!(relation(&format!("{penryn}<feature policy='force' name='aes'/>")).0, Some(0));
    assert_eq!(relation(&format!("{penryn}<feature policy='optional' name='aes'/>")).0, Some(0));
    assert_eq!(relation(&format!("{penryn}<feature policy='forbid' name='vmx'/>")).0, Some(1));
    assert_eq!(relation(&format!("{penryn}<feature policy='disable' name='vmx'/>")).0, Some(0));
    assert_eq!(relation("match='strict'><model>Penryn</model>").0, Some(1));
    assert_eq!(relation(&format!("{penryn}<vendor>AMD</vendor>")).0, Some(1));
    assert_eq!(relation("match='exact'><model>NoSuchModel</model>").0, Some(2));
    assert_eq!(relation(&format!("{penryn}<feature policy='require' name='no_such_feature'/>")).0, Some(2));
}

#[test]
fn pools_gain_what_one_host_took() {
    let folder = Folder::new("pools");
    folder.file("a.json", host("clx-5.10"));
    folder.file("b.json", host("icx-6.1"));
    let output = run(&["fleet", "pools", folder.path(), "--k", "3", "--json"], b"");
    assert_eq!(output.status.code(), Some(0));
    let found = json(&output);
    let frontier = found["frontier"].as_array().unwrap().clone();
    for pool in frontier.iter().flat_map(|split| split["pools"].as_array().unwrap()) {
        let features = pool["features"].as_array().unwrap();
        let once: std::collections::HashSet<&str> = features.iter().filter_map(Value::as_str).collect();
        assert_eq!(features.len(), once.len(), "a feature of two properties is one");
    }
    // What a feature is worth decides what it weighs, unless that is given.
    assert!(found["weights"]["aes"].as_u64().unwrap() > 2, "{}", found["weights"]);
    let priced = found["weights"]["gfni"].as_u64().unwrap_or(1);
    assert_eq!(frontier.len(), 2);
    assert_eq!((&frontier[0]["best"], frontier[0]["gained"].as_array().unwrap().len()), (&Value::Bool(true), 0));
    let gained = frontier[1]["gained"].as_array().unwrap();
    assert!(gained.iter().any(|item| item["feature"] == "gfni" && item["hosts"] == 1), "{gained:?}");
    let weighed = json(&run(&["fleet", "pools", folder.path(), "--weight", "gfni=1000", "--json"], b""));
    let value = |frontier: &Value| frontier[1]["value"].as_u64().unwrap();
    assert_eq!(value(&weighed["frontier"]), value(&Value::Array(frontier)) + 1000 - priced);
    assert_eq!(weighed["weights"]["gfni"], 1000);
    assert_eq!(run(&["fleet", "pools", folder.path(), "--weight", "gfni=much"], b"").status.code(), Some(2));
    assert_eq!(run(&["fleet", "pools", folder.path(), "--k", "0"], b"").status.code(), Some(2));
}

/// A host's definition as libvirt writes it.
fn definition(model: &str, features: &[&str]) -> Vec<u8> {
    let features: String = features.iter().map(|name| format!("<feature name='{name}'/>\n")).collect();
    format!("<cpu>\n<arch>x86_64</arch><model>{model}</model><vendor>Intel</vendor>\n{features}</cpu>").into_bytes()
}

#[test]
fn definitions_of_libvirt_have_a_baseline_of_their_own() {
    let folder = Folder::new("definitions");
    let westmere = folder.file("a.xml", definition("Westmere", &["invtsc", "pclmuldq"]));
    let nehalem = folder.file("b.xml", definition("Nehalem", &["invtsc", "aes"]));
    let output = run(&["fleet", "baseline", &westmere, &nehalem, "--json"], b"");
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let found = json(&output);
    let of = &found["definition"];
    assert_eq!((&of["model"], &of["vendor"], &of["fallback"]), (&"Westmere".into(), &"Intel".into(), &"allow".into()));
    assert!(
        of["require"].as_array().unwrap().is_empty() && found["features"].as_array().unwrap().contains(&"aes".into())
    );
    assert_eq!(found["costs"][0]["features"][0], "pclmulqdq");
    assert!(found["assumed"][0]["what"] == "libvirt", "{}", found["assumed"]);
    // Whether invtsc may be there is asked of libvirt's map.
    let all = json(&run(&["fleet", "baseline", folder.path(), "--migratable", "off", "--json"], b""));
    assert_eq!(all["definition"]["require"][0], "invtsc");
    let pasted = run(&["fleet", "baseline", folder.path(), "--to", "libvirt"], b"");
    assert!(text(&pasted).contains("<model fallback='allow'>Westmere</model>"), "{}", text(&pasted));
    assert_eq!(text(&run(&["fleet", "baseline", folder.path(), "--to", "qemu"], b"")), "-cpu Westmere\n");
    // From standard input, several in one file, and what is to blame.
    let list = [b"<cpus>".as_slice(), &definition("Westmere", &[]), &definition("Nehelem", &[]), b"</cpus>"].concat();
    let unknown = run(&["fleet", "baseline", "-"], &list);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(errors(&unknown).contains("no CPU model `Nehelem` (it has `Nehalem`)"), "{}", errors(&unknown));
    folder.file("c.json", host("icx-6.1"));
    let mixed = run(&["fleet", "baseline", folder.path(), "--json"], b"");
    assert_eq!((mixed.status.code(), json(&mixed)["skipped"].as_array().unwrap().len()), (Some(3), 1));
}

#[test]
fn a_definition_is_compared_by_libvirts_map() {
    let folder = Folder::new("compared");
    let host = folder.file("host.xml", definition("Westmere", &["invtsc"]));
    let guest = |name: &str, inner: &str| {
        folder.file(name, format!("<cpu match='strict'>\n<model>Nehalem</model>\n{inner}</cpu>").as_bytes())
    };
    let more = "<feature policy='optional' name='aes'/><feature policy='disable' name='invtsc'/>";
    let compare = |guest: &str| run(&["fleet", "compare", &host, guest, "--json"], b"");
    let strict = compare(&guest("strict.xml", ""));
    assert_eq!((strict.status.code(), json(&strict)["relation"].as_str()), (Some(1), Some("incompatible")));
    let same = compare(&guest("same.xml", more));
    assert_eq!((same.status.code(), json(&same)["relation"].as_str()), (Some(0), Some("identical")));
    let forbidden = compare(&guest("forbidden.xml", "<feature policy='forbid' name='sse2'/>"));
    assert!(json(&forbidden)["why"][0].as_str().unwrap().contains("sse2"));
    // Every name is libvirt's, and a wrong one is told with its place.
    let wrong = compare(&guest("wrong.xml", "<feature policy='require' name='pclmulqdq'/>"));
    assert_eq!((wrong.status.code(), wrong.stdout.is_empty()), (Some(2), true));
    assert!(errors(&wrong).contains("wrong.xml:3: libvirt"), "{}", errors(&wrong));
    assert!(errors(&wrong).contains("it calls that `pclmuldq`"), "{}", errors(&wrong));
    let old = run(&["fleet", "compare", &host, &guest("old.xml", ""), "--libvirt", "9.0.0", "--json"], b"");
    assert!(json(&old)["assumed"].as_array().unwrap().is_empty());
    let qemu = json(&run(&["fleet", "compare", &host, &host, "--qemu", "10.0", "--json"], b""));
    assert!(qemu["notes"][0].as_str().unwrap().contains("of VMX"), "{}", qemu["notes"]);
}

#[test]
fn drift_tells_what_changed_on_each_host() {
    let (old, new) = (Folder::new("drift-old"), Folder::new("drift-new"));
    old.file("a.json", host("clx-5.10"));
    new.file("a.json", host("clx-5.10"));
    let same = run(&["fleet", "drift", old.path(), new.path()], b"");
    assert_eq!(same.status.code(), Some(0), "{}", errors(&same));
    old.file("b.json", host("clx-5.10"));
    new.file("b.json", host("icx-6.1"));
    new.file("c.json", host("icx-6.1"));
    let output = run(&["fleet", "drift", old.path(), new.path(), "--json"], b"");
    assert_eq!(output.status.code(), Some(1));
    let found = json(&output);
    assert_eq!(found["only_new"][0], "c");
    let b = &found["hosts"][1];
    assert_eq!((&b["host"], &b["back"]), (&Value::from("b"), &Value::Bool(false)));
    assert!(b["gained"].as_array().unwrap().contains(&"gfni".into()));
    assert!(b["changed"].as_array().unwrap().iter().any(|change| change["what"] == "CPU signature"));
}
