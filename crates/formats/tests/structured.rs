//! libvirt, QMP, Firecracker, lscpu and the laboratory: small samples of each, and all captures there are.

#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::disallowed_methods, reason = "a test reads its data")]

use std::io::Read as _;
use std::path::{Path, PathBuf};

use cpusieve_formats::limits::{MAX_DIAGNOSTICS, MAX_FIELDS, MAX_JSON_MEMBERS, MAX_XML_ATTRIBUTES, MAX_XML_NODES};
use cpusieve_formats::{Format, Parsed, Severity, firecracker, lab, libvirt_xml, lscpu, qmp, read, record};
use cpusieve_model::{
    BitFilter, CapabilityCheck, CpuidModifier, FlagList, MsrModifier, MsrReading, Register, Registers, Vendor,
};

fn shown(parsed: &Parsed) -> Vec<String> {
    parsed.diagnostics.iter().map(ToString::to_string).collect()
}

/// The folder of the data that is not in the repository; says why a test is skipped if it is not there.
fn shared(folder: &str) -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let root = std::env::var("CPUSIEVE_SHARED").unwrap_or_else(|_| beside.to_owned());
    let path = Path::new(&root).join("corpus").join(folder);
    if !path.is_dir() {
        eprintln!("skipped: {} is not there (CPUSIEVE_SHARED names the folder that holds corpus/)", path.display());
        return None;
    }
    Some(path)
}

/// All files of a folder whose names end so, unpacked; at least `least` of them.
fn files(folder: &Path, ending: &str, least: usize) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.ends_with(ending) || !path.is_file() {
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        if name.ends_with(".gz") {
            let mut unpacked = Vec::new();
            flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut unpacked).unwrap();
            bytes = unpacked;
        }
        files.push((name, bytes));
    }
    assert!(files.len() >= least, "{} files in {}", files.len(), folder.display());
    files
}

/// Reads all files of a folder: each is recognised, each diagnostic has one of the reasons, and the snapshot survives
/// being recorded.
fn replay(folder: &str, ending: &str, least: usize, format: Format, reasons: &[&str], look: impl Fn(&str, &Parsed)) {
    let Some(path) = shared(folder) else { return };
    for (name, bytes) in files(&path, ending, least) {
        let parsed = read(&name, &bytes);
        assert_eq!(parsed.format, format, "{name}");
        assert_eq!(parsed.ignored.diagnostics, 0, "{name}");
        for diagnostic in &parsed.diagnostics {
            assert!(reasons.iter().any(|reason| diagnostic.what.contains(reason)), "{diagnostic}");
            assert_ne!(diagnostic.severity, Severity::Error, "{diagnostic}");
        }
        let text = record::print(&parsed.snapshot);
        let again = record::parse("record", text.as_bytes());
        assert_eq!((again.snapshot, again.ignored.fields), (parsed.snapshot.clone(), 0), "{name}");
        look(&name, &parsed);
    }
}

#[test]
fn all_raw_cpuid_of_libvirt_is_read() {
    replay("libvirt", ".xml", 30, Format::LibvirtCpuid, &[], |name, parsed| {
        let cpu = &parsed.snapshot.cpus[0];
        assert!(cpu.cpuid.len() > 10 && cpu.cpuid.vendor() != Some(Vendor::Other), "{name}");
        // One file of libvirt's has an empty comment; its brand string takes the comment's place.
        assert!(parsed.snapshot.title.as_ref().is_some_and(|title| title.len() > 5), "{name}");
    });
}

#[test]
fn all_qmp_replies_of_libvirt_are_read() {
    replay("libvirt", ".json", 25, Format::Qmp, &[], |name, parsed| {
        let expansion = &parsed.snapshot.expansions[0];
        assert_eq!((parsed.snapshot.expansions.len(), expansion.name.as_str()), (1, "base"), "{name}");
        assert!(expansion.flags.len() > 150 && expansion.flags["sse2"], "{name}");
        assert!(expansion.other["family"].parse::<u32>().is_ok(), "{name}");
    });
}

#[test]
fn all_fingerprints_of_firecracker_are_read() {
    let reasons = ["CPUID and MSRs are those of a Firecracker guest"];
    replay("firecracker", ".json", 12, Format::FirecrackerFingerprint, &reasons, |name, parsed| {
        let cpu = &parsed.snapshot.cpus[0];
        assert!(cpu.cpuid.len() > 40 && cpu.msrs.len() > 30, "{name}");
        let release = parsed.snapshot.linux.as_ref().and_then(|linux| linux.release.clone()).unwrap();
        let kernel = name.split('_').next_back().unwrap().split("host").next().unwrap();
        assert!(release.starts_with(kernel), "{name} {release}");
        let vendor = if name.contains("_AMD_") { Vendor::Amd } else { Vendor::Intel };
        assert_eq!(cpu.cpuid.vendor(), Some(vendor), "{name}");
    });
}

#[test]
fn all_recorded_hosts_of_the_qemu_oracle_are_read() {
    let reasons = ["the field \"source\" is not known"];
    replay("qemu-oracle/hosts", ".json", 5, Format::Record, &reasons, |name, parsed| {
        let kvm = parsed.snapshot.kvm.as_ref().unwrap();
        let supported = kvm.supported.as_ref().unwrap();
        assert!(supported.len() > 40 && kvm.emulated.is_some() && kvm.caps[&72] == 1, "{name}");
        assert_eq!(kvm.supported_table().unwrap().vendor(), parsed.snapshot.vendor(), "{name}");
    });
}

#[test]
fn all_guests_of_the_laboratory_are_read() {
    replay("guests-tcg", ".json", 300, Format::LabCapture, &[], |name, parsed| {
        let linux = parsed.snapshot.linux.as_ref().unwrap();
        assert!(linux.release.is_some() && linux.cmdline.is_some(), "{name}");
        let cpu = &parsed.snapshot.cpus[0];
        assert!(cpu.cpuid.len() > 5 && cpu.cpuinfo.as_ref().is_some_and(|block| block.flags.is_some()), "{name}");
    });
    // One Bochs model panics before it could be asked.
    replay("guests-bochs", ".json", 11, Format::LabCapture, &["no CPU was captured"], |name, parsed| {
        assert_eq!(parsed.snapshot.cpus.is_empty(), name.contains("toliman"), "{name}");
        assert!(parsed.snapshot.kvm.is_some() || parsed.snapshot.cpus.is_empty(), "{name}");
    });
    replay("guests-kvm", ".json.gz", 7, Format::LabCapture, &["were spoilt on the console"], |name, parsed| {
        let kvm = parsed.snapshot.kvm.as_ref().unwrap();
        assert!(kvm.xcomp_guest_supp.is_some() && kvm.tsc_khz.is_some(), "{name}");
        assert!(kvm.params.contains_key("kvm_amd.nested") && kvm.msr_index.is_some(), "{name}");
    });
}

#[test]
fn nested_captures_hold_all_their_guests() {
    let Some(path) = shared("guests-kvm") else { return };
    let (mut guests, mut calls) = (0, 0);
    for (name, bytes) in files(&path, ".json.gz", 7) {
        let capture = lab::capture(&name, &bytes);
        assert_eq!((capture.setup.accel.as_str(), &capture.setup.status), ("tcg", &String::new()), "{name}");
        assert!(capture.setup.cpu.contains("+svm"), "{name}");
        for told in &capture.qemu {
            assert!(told.qemu.len() == 1 && told.expansions.len() >= 9, "{name}");
        }
        // A complete answer takes one call an entry.
        let entries = capture.parsed.snapshot.kvm.iter().flat_map(|kvm| &kvm.supported).flatten().count();
        assert!([0, entries].contains(&capture.host_cpuid_calls.len()), "{name}");
        calls += capture.host_cpuid_calls.len();
        for guest in &capture.nested {
            assert_eq!(guest.snapshot.cpus.is_empty(), guest.setup.status != "ok", "{name}");
            guests += guest.snapshot.cpus.len();
        }
    }
    assert!(guests >= 30 && calls >= 300, "{guests} {calls}");
}

const CPUDATA: &str = "<!-- A CPU -->
<cpudata arch='x86'>
  <cpuid eax_in='0x00000000' ecx_in='0x00' eax='0x00000007' ebx='0x756e6547' ecx='0x6c65746e' edx='0x49656e69'/>
  <cpuid eax_in='0x00000001' ecx_in='0x00' eax='0x000906a3' ebx='0x00000000' ecx='0x00000000' edx='0x00000000'/>
  <cpuid eax_in='0x00000007' ecx_in='0x01' eax='0x00400810' ebx='0x00000000' ecx='0x00000000' edx='0x00040000'/>
  <msr index='0x10a' edx='0x00000001' eax='0x0000002b'/>
</cpudata>
";

#[test]
fn raw_cpuid_of_libvirt_is_read() {
    let parsed = read("raw.xml", CPUDATA.as_bytes());
    assert_eq!((parsed.format, shown(&parsed)), (Format::LibvirtCpuid, vec![]));
    assert_eq!(parsed.snapshot.title.as_deref(), Some("A CPU"));
    let cpu = &parsed.snapshot.cpus[0];
    assert_eq!(cpu.cpuid.get(7, 1), Some(Registers { eax: 0x0040_0810, edx: 0x0004_0000, ..Registers::default() }));
    assert_eq!(cpu.msrs.get(0x10a), Some(0x1_0000_002b));
}

#[test]
fn what_is_wrong_in_raw_cpuid_is_told_with_its_line() {
    let text = CPUDATA
        .replace("eax='0x00400810'", "eax='0x1234567890'")
        .replace(" edx='0x00000001'", "")
        .replace("</cpudata>", "<cpuid function='2' eax='1'/>\n<cpuid eax='1'/>\n<tsc/><tsc/>\n</cpudata>");
    let parsed = read("raw.xml", text.as_bytes());
    assert_eq!(
        shown(&parsed),
        [
            "raw.xml:5: eax of <cpuid> is \"0x1234567890\"; expected a number of at most 32 bits, such as 0x0000000d",
            "raw.xml:6: <msr> is left out; expected index, edx and eax",
            "raw.xml:7: <cpuid> of leaf 0x2 without ebx, which counts as zero",
            "raw.xml:8: <cpuid> without its leaf is left out; expected eax_in='0x..'",
            "raw.xml:9: the element \"tsc\" is not known here and is left out (2 times)",
        ]
    );
    assert_eq!((parsed.ignored.values, parsed.ignored.fields), (3, 2));
    assert_eq!(parsed.snapshot.cpus[0].cpuid.get(2, 0).map(|leaf| leaf.eax), Some(1));
}

#[test]
fn masks_of_features_are_refused() {
    let line =
        "<cpuid eax_in='0x00000001' ecx_in='0x00' eax='0x00000000' ebx='0x0' ecx='0x00000001' edx='0x00000001'/>";
    for text in [
        format!("<!-- Features enabled by QEMU -->\n<cpudata arch='x86'>{line}</cpudata>"),
        format!("<cpudata arch='x86'>{line}</cpudata>"),
    ] {
        let parsed = read("x86_64-cpuid-A-enabled.xml", text.as_bytes());
        assert!(parsed.has_errors() && parsed.snapshot.cpus.is_empty());
        assert!(shown(&parsed)[0].contains("a mask of features"), "{:?}", shown(&parsed));
    }
}

#[test]
fn vmx_msrs_that_are_rotations_of_one_value_are_left_out() {
    // MSR CFH is 6ffH; reading it at 480H gave its bytes from the second on, and so forth.
    let msr = |index: u32| {
        let value = 0x6ff_u64.rotate_right((index - 0xcf) % 8 * 8);
        format!("<msr index='{index:#x}' edx='{:#x}' eax='{:#x}'/>\n", value >> 32, value & 0xffff_ffff)
    };
    assert!(msr(0x480).contains("edx='0xff000000' eax='0x6'"), "{}", msr(0x480));
    let msrs: String = [0xcf].into_iter().chain(0x480..=0x491).map(msr).collect();
    let parsed = read("raw.xml", CPUDATA.replace("</cpudata>", &format!("{msrs}</cpudata>")).as_bytes());
    let indices: Vec<_> = parsed.snapshot.cpus[0].msrs.iter().map(|(index, _)| index).collect();
    assert_eq!(indices, [0xcf, 0x10a]);
    assert_eq!(shown(&parsed).len(), 1);
    assert!(shown(&parsed)[0].contains("18 MSRs, those of VMX among them, are rotations of one value, 0x6ff"));
    // Real values do not all come from one.
    let real = msrs.replace(&msr(0x485), "<msr index='0x485' edx='0x0' eax='0x20000165'/>");
    let parsed = read("raw.xml", CPUDATA.replace("</cpudata>", &format!("{real}</cpudata>")).as_bytes());
    assert_eq!((parsed.snapshot.cpus[0].msrs.len(), shown(&parsed)), (20, vec![]));
}

#[test]
fn an_msr_that_amd_does_not_have_came_from_kvm() {
    let amd = CPUDATA.replace("756e6547", "68747541").replace("6c65746e", "444d4163").replace("49656e69", "69746e65");
    let parsed = read("raw.xml", amd.as_bytes());
    assert_eq!(shown(&parsed).len(), 1);
    assert!(shown(&parsed)[0].ends_with("KVM, not the CPU, was asked"));
    // A vCPU of AMD's may have it: then CPUID says so.
    let vcpu = amd.replace("<msr", "<cpuid eax_in='7' ecx_in='0' eax='1' ebx='0' ecx='0' edx='0x20000000'/>\n<msr");
    assert_eq!(shown(&read("raw.xml", vcpu.as_bytes())), Vec::<String>::new());
}

#[test]
fn xml_that_was_cut_off_gives_its_whole_elements() {
    let mut most = 0;
    for cut in 0..CPUDATA.trim_end().len() {
        let parsed = libvirt_xml::parse("raw.xml", &CPUDATA.as_bytes()[..cut]);
        assert!(parsed.has_errors(), "{cut}");
        let entries = parsed.snapshot.cpus.first().map_or(0, |cpu| cpu.cpuid.len());
        assert!(entries >= most, "{cut}");
        most = entries;
    }
    assert_eq!(most, 3);
    let parsed = read("raw.xml", CPUDATA.replace("<msr", "<<msr").as_bytes());
    assert_eq!(parsed.snapshot.cpus[0].cpuid.len(), 3);
    assert!(shown(&parsed)[0].starts_with("raw.xml:6: not well-formed XML"), "{:?}", shown(&parsed));
}

#[test]
fn hostile_xml_is_refused_at_once() {
    let laughs = "<!DOCTYPE l [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;'>]><cpudata arch='x86'>&b;</cpudata>";
    let attributes: String = (0..200_000).map(|n| format!(" a{n}=''")).collect();
    let spaces: String = (0..50_000).map(|n| format!("<a xmlns:b{n}='c'>")).collect();
    for text in [
        laughs.to_owned(),
        format!("<cpudata arch='x86'><cpuid{attributes}/></cpudata>"),
        format!("<cpudata arch='x86'>{spaces}"),
        format!("<cpudata arch='x86'>{}", "<a>".repeat(500_000)),
        format!("<cpudata arch='x86'>{}</cpudata>", "<a/>".repeat(MAX_XML_NODES as usize)),
        "<cpudata arch='arm'/>".to_owned(),
        "<cpu".to_owned(),
        "<cpudata <cpudata <cpudata/>".to_owned(),
    ] {
        let parsed = libvirt_xml::parse("x", text.as_bytes());
        assert!(parsed.has_errors(), "{}", &text[..text.len().min(60)]);
        assert!(parsed.diagnostics.len() <= MAX_DIAGNOSTICS);
    }
    let fits: String = (0..MAX_XML_ATTRIBUTES - 4).map(|n| format!(" a{n}=''")).collect();
    let text = CPUDATA.replace("<msr", &format!("<msr{fits}"));
    assert_eq!(read("x", text.as_bytes()).snapshot.cpus[0].msrs.len(), 1);
}

#[test]
fn latin_1_in_xml_is_read_and_told() {
    let text: Vec<u8> = CPUDATA.replace("A CPU", "\u{b5}P").replace('\n', "\r\n").chars().map(|c| c as u8).collect();
    let parsed = read("raw.xml", &text);
    assert_eq!(parsed.snapshot.title.as_deref(), Some("\u{b5}P"));
    assert_eq!(shown(&parsed), ["raw.xml:1: bytes that are not UTF-8, taken for Latin-1; expected XML in UTF-8"]);
    assert_eq!(parsed.snapshot.cpus[0].cpuid.len(), 3);
}

#[test]
fn cpu_elements_are_read_wherever_they_stand() {
    let guest = "<cpu mode='custom' match='exact'>
  <model fallback='forbid'>Skylake-Client-IBRS</model><vendor>Intel</vendor>
  <feature policy='require' name='ss'/><feature policy='disable' name='mpx'/><feature policy='optional' name='vmx'/>
</cpu>";
    let host = "<cpu><arch>x86_64</arch><model>Skylake-Client-IBRS</model><vendor>Intel</vendor>
<counter name='tsc' frequency='1'/><feature name='ss'/></cpu>";
    for (text, kind, features) in [
        (guest.to_owned(), "guest", 2),
        (format!("<domain type='kvm'>{guest}</domain>"), "guest", 2),
        (host.to_owned(), "host", 1),
        (format!("<capabilities><host>{host}</host></capabilities>"), "host", 1),
        (
            format!(
                "<domainCapabilities><cpu><mode name='maximum'/>{}</cpu></domainCapabilities>",
                guest.replace("<cpu mode='custom'", "<mode name='host-model'").replace("</cpu>", "</mode>")
            ),
            "host-model",
            2,
        ),
    ] {
        let parsed = read("cpu.xml", text.as_bytes());
        assert_eq!(parsed.format, Format::LibvirtCpu, "{text}");
        let expansion = &parsed.snapshot.expansions[0];
        assert_eq!((expansion.name.as_str(), expansion.flags["ss"]), ("Skylake-Client-IBRS", true));
        assert_eq!(
            (expansion.flags.len(), expansion.other["libvirt-cpu"].as_str()),
            (features, &*format!("\"{kind}\""))
        );
        assert_eq!(shown(&parsed).len(), 1);
        assert!(shown(&parsed)[0].contains("is the name of a CPU model, not CPUID"), "{:?}", shown(&parsed));
        assert!(parsed.snapshot.cpus.is_empty());
    }
    let parsed = read("cpu.xml", guest.replace("'disable' name='mpx'", "'maybe' name='ss'").as_bytes());
    assert!(shown(&parsed)[1].contains("the policy of \"ss\" is \"maybe\""), "{:?}", shown(&parsed));
    let parsed = read("cpu.xml", b"<cpu mode='host-passthrough' check='none'/>");
    assert!(shown(&parsed)[0].contains("\"host-passthrough\" names no model"), "{:?}", shown(&parsed));
}

#[test]
fn several_qmp_messages_one_after_the_other_are_read() {
    let text = r#"{"QMP":{"version":{"qemu":{"micro":3,"minor":1,"major":11},"package":"x"},"capabilities":[]}}
{"return": {}}
{"return": {"model": {"name": "base", "props": {"aes": true, "avx512f": false, "level": 13, "vendor": "x\"y",
  "list": [1, {"a": null}], "big": 123456789012345678901234567890}}}, "id": "model-expansion"}
{"return": [{"name": "max", "typename": "max-x86_64-cpu"}, {"name": "host"}], "id": "definitions"}
{"error": {"class": "GenericError", "desc": "The CPU type 'x' is not known"}}
{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "SHUTDOWN"}"#;
    let parsed = read("qmp.json", text.as_bytes());
    assert_eq!(parsed.format, Format::Qmp);
    assert_eq!(shown(&parsed), ["qmp.json:6: QEMU refused a command: \"The CPU type 'x' is not known\""]);
    assert_eq!(parsed.snapshot.qemu[0].version, "11.1.3");
    let expansion = &parsed.snapshot.expansions[0];
    assert_eq!(
        expansion.flags.iter().collect::<Vec<_>>(),
        [(&"aes".to_owned(), &true), (&"avx512f".to_owned(), &false)]
    );
    assert_eq!(expansion.other["level"], "13");
    assert_eq!(expansion.other["vendor"], r#""x\"y""#);
    assert_eq!(expansion.other["list"], r#"[1,{"a":null}]"#);
    assert_eq!(expansion.other["big"], "123456789012345678901234567890");
    // The empty reply, two definitions and the event.
    assert_eq!(parsed.ignored.values, 4);
    let nothing = read("qmp.json", b"{\"return\": {}}");
    assert!(nothing.has_errors() && shown(&nothing)[0].contains("no reply to query-cpu-model-expansion"));
    let array = qmp::parse("f", format!("[{}]", text.lines().nth(1).unwrap()).as_bytes());
    assert_eq!(array.ignored.values, 1);
}

/// A template of two leaves: one whole, one of which bits stay as they were.
const TEMPLATE: &str = r#"{"kvm_capabilities":["!56"],"cpuid_modifiers":[
{"leaf":"0x7","subleaf":"0b01","flags":1,"modifiers":[
 {"register":"eax","bitmap":"0b00000000000000000000000000010000"},{"register":"ebx","bitmap":"0b0000_0000_0000_0000_0000_0000_0000_0000"},
 {"register":"ecx","bitmap":"00000000000000000000000000000000"},{"register":"edx","bitmap":"0b10000000000000000000000000000000"}]},
{"leaf":"0x1","subleaf":"0x0","flags":0,"modifiers":[{"register":"ecx","bitmap":"0bx1"}]}],
"msr_modifiers":[{"addr":"0x10a","bitmap":"0bx000000000000000000000000000000000000000000000000000000000000001"},
{"addr":"0x10b","bitmap":"0b0000000000000000000000000000000000000000000000000000000000000101"}]}"#;

#[test]
fn a_template_gives_values_only_where_it_sets_every_bit() {
    let parsed = read("template.json", TEMPLATE.as_bytes());
    assert_eq!(parsed.format, Format::FirecrackerTemplate);
    let cpu = &parsed.snapshot.cpus[0];
    assert_eq!(cpu.cpuid.len(), 1);
    assert_eq!(cpu.cpuid.get(7, 1), Some(Registers { eax: 0x10, ebx: 0, ecx: 0, edx: 1 << 31 }));
    assert_eq!(cpu.msrs.iter().collect::<Vec<_>>(), [(0x10b, MsrReading::Value(5))]);
    assert_eq!(
        shown(&parsed),
        [
            "template.json: a CPU template: it changes a vCPU's CPUID and MSRs and does not hold them",
            "template.json: 1 registers and 1 MSRs have bits that stay as they were (x), and 1 CPUID entries are not whole: \
         these have no value and are left out",
        ]
    );
    let fingerprint = format!(
        r#"{{"firecracker_version":"1.16.0","kernel_version":"6.1.172","microcode_version":"0xd","bios_version":"1.0",
"bios_revision":"1.4","guest_cpu_config":{TEMPLATE}}}"#
    );
    let parsed = read("fingerprint.json", fingerprint.as_bytes());
    assert_eq!(parsed.format, Format::FirecrackerFingerprint);
    assert_eq!(
        parsed.snapshot.title.as_deref(),
        Some("Firecracker 1.16.0, microcode 0xd, BIOS 1.0, BIOS revision 1.4")
    );
    assert_eq!(parsed.snapshot.linux.unwrap().release.as_deref(), Some("6.1.172"));
}

#[test]
fn a_template_keeps_every_change_with_the_bits_that_stay() {
    let text = r#"{"kvm_capabilities":["!171","23"],
"cpuid_modifiers":[{"leaf":"0x7","subleaf":"0b0","flags":1,"modifiers":[{"register":"ebx","bitmap":"0b1x_0"},
{"register":"edx","bitmap":"0b1"}]},{"leaf":"0xd","subleaf":"0x1","flags":0,"modifiers":[]}],
"msr_modifiers":[{"addr":"0x10a","bitmap":"0bx1"}]}"#;
    let (template, diagnostics) = firecracker::template("t", text.as_bytes());
    assert_eq!(diagnostics, []);
    assert_eq!(template.capabilities, [CapabilityCheck::Remove(171), CapabilityCheck::Add(23)]);
    let bits = |mask, value| BitFilter { mask, value };
    let change = |leaf, subleaf, flags, register| CpuidModifier { leaf, subleaf, flags, register };
    assert_eq!(
        template.cpuid,
        [
            change(7, 0, 1, Some((Register::Ebx, bits(0b101, 0b100)))),
            change(7, 0, 1, Some((Register::Edx, bits(1, 1)))),
            change(0xd, 1, 0, None),
        ]
    );
    assert_eq!(template.msrs, [MsrModifier { index: 0x10a, bits: bits(1, 1) }]);
    let printed = firecracker::print_template(&template);
    assert_eq!(firecracker::template("t", printed.as_bytes()).0, template, "what is printed is read back");
    let (_, diagnostics) = firecracker::template("t", br#"{"kvm_capabilities":["!"]}"#);
    assert_eq!(diagnostics.len(), 1);
}

#[test]
fn what_is_wrong_in_a_template_is_told_with_its_line() {
    let text = TEMPLATE
        .replace("\"0x1\"", "\"1\"")
        .replace("\"edx\"", "\"efx\"")
        .replace("0bx1\"", "0b2\"")
        .replace("\"0x10b\",\"bitmap\":\"0b", "\"0x10b\",\"bitmap\":\"0b1");
    let parsed = firecracker::parse("t", text.as_bytes());
    let told = shown(&parsed);
    assert_eq!(told.len(), 6, "{told:?}");
    // The two remarks on the whole file come first.
    for (line, start) in told[2..].iter().zip([
        "t:4: cpuid_modifiers[0].modifiers[3].register is \"efx\"; expected eax, ebx, ecx or edx",
        "t:5: cpuid_modifiers[1].leaf is \"1\"; expected a string with 0x",
        "t:5: cpuid_modifiers[1].modifiers[0].bitmap is \"0b2\"; expected a bitmap of 0, 1 and x with at most 32 bits",
        "t:7: msr_modifiers[1].bitmap is \"0b1000",
    ]) {
        assert!(line.starts_with(start), "{line}");
    }
    assert!(parsed.snapshot.cpus.is_empty());
}

#[test]
fn lscpu_text_and_json_of_one_machine_say_the_same() {
    let text = read("lscpu.txt", include_bytes!("samples/lscpu.txt"));
    let json = read("lscpu.json", include_bytes!("samples/lscpu.json"));
    assert_eq!((text.format, json.format), (Format::LscpuText, Format::LscpuJson));
    assert_eq!((shown(&text), shown(&json)), (vec![], vec![]));
    assert_eq!(text.snapshot, json.snapshot);
    let block = text.snapshot.cpus[0].cpuinfo.as_ref().unwrap();
    assert_eq!((block.identity.family, block.identity.model, block.identity.stepping), (Some(25), Some(17), Some(1)));
    assert_eq!(text.snapshot.vendor(), Some(Vendor::Amd));
    assert!(block.flags.as_ref().is_some_and(|flags| flags.len() > 100 && !flags.contains("Vulnerable")));
    assert!(block.other.iter().any(|(name, _)| &**name == "Vulnerability L1tf"));
}

#[test]
fn nested_lscpu_json_and_odd_lines_are_read() {
    let json = r#"{"lscpu":[{"field":"Vendor ID:","data":"GenuineIntel","children":[
{"field":"Model name:","data":"X","children":[{"field":"Model:","data":"ten"},{"field":"Stepping:","data":"-"},
{"field":"Flags:","data":"fpu vme"}]},{"field":7}]}],"more":1}"#;
    let parsed = read("l", json.as_bytes());
    assert_eq!(parsed.snapshot.flags().map(FlagList::len), Some(2));
    assert_eq!(parsed.snapshot.title.as_deref(), Some("X"));
    assert_eq!(
        shown(&parsed),
        [
            "l:2: Model is \"ten\"; expected a decimal number",
            "l:3: lscpu[0].children[1].field is 7; expected a string",
            "l:3: the field \"more\" is not known here and is left out",
        ]
    );
    let german = lscpu::parse("l", "Architektur:  x86_64\nMarkierungen:  fpu vme de\n".as_bytes());
    assert_eq!(shown(&german), ["l: names that are not English; expected the output of LC_ALL=C lscpu"]);
    assert_eq!(german.snapshot.flags().map(FlagList::len), Some(3));
    let nothing = lscpu::parse("l", b"Architecture: x86_64\nrubbish\n");
    assert!(nothing.has_errors() && nothing.ignored.lines == 1);
}

#[test]
fn no_cut_and_no_changed_byte_of_any_sample_panics() {
    let lscpu: &[u8] = include_bytes!("samples/lscpu.json");
    let qmp = br#"{"return":{"model":{"name":"base","props":{"aes":true,"n":[1,{}]}}}}{"error":{"desc":"x"}}"#;
    let lab = br#"{"id":"q","cpu_arg":"max","cpuid":["0x00000001 0x00: eax=0x1 ebx=0x2 ecx=0x3 edx=0x4"],"msrs":{"0x1b":"0x1"},
"msrs_failed":["0x2"],"cpuinfo":"processor\t: 0\nflags\t: fpu\n","caps":{"1":2},"kvmdump_lines":["TSC_KHZ 5"]}"#;
    let nest = br#"{"id":"n","l1":{"cpuid":["0x0 0x0: eax=0x1 ebx=0x2 ecx=0x3 edx=0x4"]},"l2":[{"cpu_arg":"x"}],"qmp":{"7":{"replies":[{}]}}}"#;
    for sample in [CPUDATA.as_bytes(), TEMPLATE.as_bytes(), lscpu.get(..900).unwrap(), qmp, lab, nest] {
        for at in 0..sample.len() {
            let mut changed = sample.to_vec();
            for byte in [b'"', b'{', b'<', b'9', 0, 0xff] {
                changed[at] = byte;
                let parsed = read("x", &changed);
                assert!(parsed.diagnostics.len() <= MAX_DIAGNOSTICS);
            }
            for parser in [libvirt_xml::parse, firecracker::parse, lscpu::parse, qmp::parse, lab::parse, record::parse]
            {
                parser("x", &sample[..at]);
            }
        }
    }
}

#[test]
fn expansions_properties_and_fields_are_bounded() {
    let properties: Vec<String> = (0..MAX_JSON_MEMBERS + 2).map(|n| format!("\"p{n}\":true")).collect();
    let reply = |properties: &str| format!(r#"{{"return":{{"model":{{"name":"base","props":{{{properties}}}}}}}}}"#);
    let parsed = qmp::parse("q", reply(&properties.join(",")).as_bytes());
    assert_eq!((parsed.snapshot.expansions[0].flags.len(), parsed.ignored.values), (MAX_JSON_MEMBERS, 2));
    let parsed = qmp::parse("q", reply("\"aes\":true").repeat(MAX_FIELDS + 3).as_bytes());
    assert_eq!((parsed.snapshot.expansions.len(), parsed.ignored.values), (MAX_FIELDS, 3));
    let fields: String = (0..MAX_FIELDS + 4).map(|n| format!("field {n}: x\n")).collect();
    let parsed = lscpu::parse("l", format!("Vendor ID: x\nFlags: fpu\n{fields}").as_bytes());
    let block = parsed.snapshot.cpus[0].cpuinfo.as_ref().unwrap();
    assert_eq!((block.other.len(), parsed.ignored.fields), (MAX_FIELDS, 4));
}

#[test]
fn a_laboratory_capture_says_how_its_guest_was_started() {
    let text = br#"{"id":"q","qemu_version":"11.1.3","accel":"tcg","machine":"pc","smp":"1","cpu_arg":"EPYC,+xop",
"extra_args":["-m","1G"],"qemu_warnings":["w"],"kernel":"6.1","cmdline":"quiet","status":"ok","seconds":1.5,
"kernel_release":"6.1.0","proc_cmdline":"quiet","cpuid":["0x00000001 0x00: eax=0x1 ebx=0x2 ecx=0x3 edx=0x4",
"rubbish"],"msrs":{"0x0000001b":"0x00000000fee00900"},"msrs_failed":["0x00000802"],"odd":1}"#;
    let capture = lab::capture("q.json", text);
    let lab::Setup { id, emulator, cpu, extra, warnings, status, .. } = capture.setup;
    assert_eq!([id, emulator, cpu, status], ["q", "11.1.3", "EPYC,+xop", "ok"]);
    assert_eq!((extra, warnings), (vec!["-m".to_owned(), "1G".to_owned()], vec!["w".to_owned()]));
    let cpu = &capture.parsed.snapshot.cpus[0];
    assert_eq!((cpu.cpuid.len(), cpu.msrs.get(0x1b), cpu.msrs.len()), (1, Some(0xfee0_0900), 2));
    assert_eq!(
        shown(&capture.parsed),
        [
            "q.json:4: cpuid[1] is \"rubbish\"; expected \"0x00000007 0x00: eax=0x.. ebx=0x.. ecx=0x.. edx=0x..\"",
            "q.json:4: the field \"odd\" is not known here and is left out",
        ]
    );
}
