//! The record: what is printed is read back, and what is wrong is told and survived.

use std::collections::BTreeMap;

use cpusieve_formats::limits::{MAX_CPUS, MAX_DIAGNOSTICS, MAX_ENTRIES, MAX_MSRS};
use cpusieve_formats::{Format, Parsed, Severity, read, record};
use cpusieve_model::{
    Cpu, CpuIdentity, CpuidEntry, Cpuinfo, FlagList, KvmCpuidEntry, KvmView, LinuxView, MissingPart, ModelExpansion,
    MsrReading, MsrTable, QemuBinary, Registers, Snapshot,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;

fn shown(parsed: &Parsed) -> Vec<String> {
    parsed.diagnostics.iter().map(ToString::to_string).collect()
}

fn registers() -> impl Strategy<Value = Registers> {
    any::<[u32; 4]>().prop_map(|[eax, ebx, ecx, edx]| Registers { eax, ebx, ecx, edx })
}

fn flags() -> impl Strategy<Value = FlagList> {
    vec("[a-z0-9_]{1,9}", 0..5).prop_map(|names| names.iter().map(String::as_str).collect())
}

fn cpuinfo() -> impl Strategy<Value = Cpuinfo> {
    let identity = (of(any::<String>()), of(any::<u32>()), of(any::<u32>()), of(any::<u32>()), of(any::<u64>()));
    let identity = identity.prop_map(|(text, family, model, stepping, microcode)| CpuIdentity {
        vendor: text.clone(),
        family,
        model,
        stepping,
        brand: text,
        microcode,
    });
    let other = vec((any::<String>(), any::<String>()), 0..3)
        .prop_map(|other| other.into_iter().map(|(name, value)| (name.into(), value.into())).collect());
    (identity, of(flags()), of(flags()), of(flags()), other)
        .prop_map(|(identity, flags, vmx_flags, bugs, other)| Cpuinfo { identity, flags, vmx_flags, bugs, other })
}

fn msrs() -> impl Strategy<Value = MsrTable> {
    btree_map(any::<u32>(), of(any::<u64>()), 0..5).prop_map(|readings| {
        let mut table = MsrTable::default();
        for (index, value) in readings {
            table.insert(index, value.map_or(MsrReading::Unreadable, MsrReading::Value));
        }
        table
    })
}

fn cpus() -> impl Strategy<Value = Vec<Cpu>> {
    let entry = (any::<u32>(), any::<u32>(), registers());
    let entry = entry.prop_map(|(leaf, subleaf, registers)| CpuidEntry { leaf, subleaf, registers });
    let cpu = (vec(entry, 0..6), msrs(), of(cpuinfo()));
    (btree_set(any::<u32>(), 1..4), vec(cpu, 3)).prop_map(|(ids, cpus)| {
        let cpus = ids.into_iter().zip(cpus);
        cpus.map(|(id, (entries, msrs, cpuinfo))| Cpu { id, cpuid: entries.into_iter().collect(), msrs, cpuinfo })
            .collect()
    })
}

fn texts() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(any::<String>(), any::<String>(), 0..3)
}

/// A text of `/proc/cpuinfo` with the first CPUs of a machine, so that blocks follow from it.
fn cpuinfo_text() -> impl Strategy<Value = String> {
    (1..3_u32, flags()).prop_map(|(count, flags)| {
        let flags = flags.iter().collect::<Vec<_>>().join(" ");
        (0..count).map(|cpu| format!("processor\t: {cpu}\nmodel\t\t: 6\nflags\t\t: {flags}\n\n")).collect()
    })
}

fn kvm() -> impl Strategy<Value = KvmView> {
    let entries = || {
        let entry = (any::<u32>(), any::<u32>(), any::<u32>(), registers());
        let entry =
            entry.prop_map(|(leaf, subleaf, flags, registers)| KvmCpuidEntry { leaf, subleaf, flags, registers });
        of(vec(entry, 0..4))
    };
    let parts = (
        (entries(), entries(), entries()),
        of(btree_map(any::<u32>(), any::<u64>(), 0..4)),
        of(vec(any::<u32>(), 0..4)),
        btree_map(any::<u32>(), any::<i64>(), 0..4),
        (of(any::<u64>()), of(any::<u64>())),
        texts(),
    );
    parts.prop_map(|(tables, msr_features, msr_index, caps, (xcomp_guest_supp, tsc_khz), params)| {
        let (supported, emulated, hyperv) = tables;
        KvmView { supported, emulated, hyperv, msr_features, msr_index, caps, xcomp_guest_supp, tsc_khz, params }
    })
}

fn snapshots() -> impl Strategy<Value = Snapshot> {
    let linux = (of(any::<String>()), of(any::<String>()), of(cpuinfo_text()), of(texts()));
    let linux = linux.prop_map(|(release, cmdline, cpuinfo, config)| LinuxView { release, cmdline, cpuinfo, config });
    let qemu = (any::<String>(), any::<String>()).prop_map(|(version, path)| QemuBinary { version, path });
    let expansion = (any::<String>(), btree_map(any::<String>(), any::<bool>(), 0..3), texts());
    let expansion = expansion.prop_map(|(name, flags, other)| ModelExpansion { name, flags, other });
    let missing = (any::<String>(), any::<String>(), of(any::<String>()));
    let missing = missing.prop_map(|(what, why, remedy)| MissingPart { what, why, remedy });
    let parts = (
        of(any::<String>()),
        cpus(),
        any::<bool>(),
        of(linux),
        of(kvm()),
        vec(qemu, 0..2),
        vec(expansion, 0..2),
        vec(missing, 0..2),
    );
    parts.prop_map(|(title, mut cpus, renumber, linux, kvm, qemu, expansions, missing)| {
        // Half of the machines have CPUs 0, 1, ...: those of which the text of /proc/cpuinfo speaks.
        if renumber {
            cpus.iter_mut().zip(0..).for_each(|(cpu, id)| cpu.id = id);
        }
        Snapshot { title, cpus, linux, kvm, qemu, expansions, missing }
    })
}

proptest! {
    #[test]
    fn what_is_printed_is_read_back(snapshot in snapshots()) {
        let text = record::print(&snapshot);
        let parsed = read("record.json", text.as_bytes());
        prop_assert_eq!(parsed.format, Format::Record);
        prop_assert_eq!(&parsed.snapshot, &snapshot);
        prop_assert_eq!(shown(&parsed), Vec::<String>::new());
        prop_assert_eq!(&record::print(&parsed.snapshot), &text);
        prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
    }
}

#[test]
fn blocks_that_follow_from_the_text_are_not_written_again() {
    let text = "processor\t: 0\nflags\t\t: fpu vme\n\nprocessor\t: 1\nflags\t\t: fpu\n\n";
    let linux = LinuxView { cpuinfo: Some(text.to_owned()), ..LinuxView::default() };
    let only_text = Snapshot { linux: Some(linux), ..Snapshot::default() };
    let filled = read("f", record::print(&only_text).as_bytes()).snapshot;
    assert_eq!(filled.cpus.len(), 2);
    assert_eq!(filled.flags().map(FlagList::len), Some(2));
    let printed = record::print(&filled);
    assert_eq!(printed.matches("cpuinfo").count(), 1, "{printed}");
    assert_eq!(read("f", printed.as_bytes()).snapshot, filled);
    // A block that was taken away stays away.
    let mut without = filled;
    without.cpus[1].cpuinfo = None;
    assert_eq!(read("f", record::print(&without).as_bytes()).snapshot, without);
}

#[test]
fn an_entry_stands_on_one_line() {
    let mut snapshot = Snapshot { cpus: vec![Cpu::default()], ..Snapshot::default() };
    snapshot.cpus[0].cpuid.insert(7, 1, Registers { eax: 0x10, ebx: 0, ecx: 0, edx: 0xffff_ffff });
    snapshot.cpus[0].msrs.insert(0x10a, MsrReading::Value(0x69));
    snapshot.cpus[0].msrs.insert(0x345, MsrReading::Unreadable);
    let expected = r#"{"format":1,"kind":"cpusieve-record",
 "cpus":[
  {"cpu":0,"cpuid":[
   {"leaf":"0x00000007","subleaf":1,"eax":"0x00000010","ebx":"0x00000000","ecx":"0x00000000","edx":"0xffffffff"}],
   "msrs":{
    "0x0000010a":"0x0000000000000069",
    "0x00000345":null}}]}
"#;
    assert_eq!(record::print(&snapshot), expected);
}

#[test]
fn another_format_or_kind_is_refused() {
    for (text, message) in [
        (
            r#"{"format":2,"kind":"cpusieve-record","cpus":[{"cpu":0}]}"#,
            "r:1: a record of format 2, which this program does not read; expected format 1",
        ),
        (r#"{"kind":"other","format":1,"cpus":[{"cpu":0}]}"#, "r:1: kind is \"other\"; expected \"cpusieve-record\""),
        ("[]", "r:1: not a record; expected one JSON object"),
        ("", "r:1: the JSON ends too early; expected a value"),
    ] {
        let parsed = record::parse("r", text.as_bytes());
        assert_eq!(shown(&parsed), [message]);
        assert!(parsed.has_errors());
        assert_eq!(parsed.snapshot, Snapshot::default());
    }
}

#[test]
fn unknown_fields_are_counted_and_told_once() {
    let text = r#"{"format":1,"kind":"cpusieve-record","new":1,
"cpus":[{"cpu":0,"socket":0},
{"cpu":1,"socket":0}]}"#;
    let parsed = read("r", text.as_bytes());
    assert_eq!(
        shown(&parsed),
        [
            "r:1: the field \"new\" is not known here and is left out",
            "r:2: the field \"cpus[].socket\" is not known here and is left out (2 times)",
        ]
    );
    assert!(parsed.diagnostics.iter().all(|diagnostic| diagnostic.severity == Severity::Note));
    assert_eq!((parsed.ignored.fields, parsed.snapshot.cpus.len()), (3, 2));
}

#[test]
fn wrong_values_are_told_with_their_path_and_line_and_the_rest_is_read() {
    let text = r#"{"format":1,"kind":"cpusieve-record","title":7,
"cpus":[{"cpu":0,"cpuid":[
{"leaf":"0x1","subleaf":0,"eax":"0x1","ebx":"0x2","ecx":"0x3","edx":"0x4"},
{"leaf":"0x1","subleaf":0,"eax":"0x1","ebx":"0x2","ecx":"0x3","edx":"0x5"},
{"leaf":7,"subleaf":0,"eax":"0x1","ebx":"0x2","ecx":"0x3","edx":"0x4"},
{"leaf":"0x7","subleaf":1,"eax":"0x123456789","ebx":"0x2","ecx":"0x3","edx":"0x4"},
{"leaf":"0x7","subleaf":2,"eax":"0x1","ebx":"0x2","ecx":"0x3"}],
"msrs":{"10a":"0x1",
"0x10b":5,"0x10c":"0x1"}},
{"cpu":0}],
"linux":[],"kvm":{"caps":{"x":1,"72":true,"73":2},
"tsc_khz":-1,"supported":{}}}"#;
    let parsed = read("r", text.as_bytes());
    assert_eq!(
        shown(&parsed),
        [
            "r:1: title is 7; expected a string",
            "r:4: cpus[0].cpuid[1]: leaf 0x1 subleaf 0x0 for the second time, with other values",
            "r:5: cpus[0].cpuid[2].leaf is 7; expected a hexadecimal string of at most 32 bits, such as \"0x0000000d\"",
            "r:6: cpus[0].cpuid[3].eax is \"0x123456789\"; expected a hexadecimal string of at most 32 bits, such as \"0x0000000d\"",
            "r:7: cpus[0].cpuid[4] is not whole and is left out; expected leaf, eax, ebx, ecx and edx",
            "r:8: cpus[0].msrs.10a: the key is not the index of an MSR; expected a hexadecimal key, such as \"0x0000010a\"",
            "r:9: cpus[0].msrs[\"0x10b\"] is 5; expected a hexadecimal string of at most 64 bits, such as \"0x000000000000002b\"",
            "r:10: cpus[1]: CPU 0 for the second time; it is left out",
            "r:11: linux is an array; expected an object",
            "r:11: kvm.caps.x: the key is not the number of a KVM capability; expected a decimal number",
            "r:11: kvm.caps.72 is true; expected a whole number",
            "r:12: kvm.tsc_khz is -1; expected a whole number that is not negative",
            "r:12: kvm.supported is an object; expected an array",
        ]
    );
    let cpu = &parsed.snapshot.cpus[0];
    assert_eq!((cpu.cpuid.len(), cpu.cpuid.get(1, 0).map(|leaf| leaf.edx)), (1, Some(4)));
    assert_eq!((cpu.msrs.len(), cpu.msrs.get(0x10c)), (1, Some(1)));
    assert_eq!(parsed.snapshot.kvm.map(|kvm| kvm.caps), Some(BTreeMap::from([(73, 2)])));
}

#[test]
fn a_record_that_was_cut_off_gives_what_stands_before_the_cut() {
    let mut snapshot = Snapshot { cpus: vec![Cpu::default(); 2], ..Snapshot::default() };
    for (id, cpu) in snapshot.cpus.iter_mut().enumerate() {
        cpu.id = id as u32;
        (0..3).for_each(|leaf| _ = cpu.cpuid.insert(leaf, 0, Registers { eax: leaf, ..Registers::default() }));
    }
    let text = record::print(&snapshot);
    let end = text.trim_end().len();
    let mut most = 0;
    for cut in 0..text.len() {
        let parsed = record::parse("r", &text.as_bytes()[..cut]);
        assert_eq!(parsed.has_errors(), cut < end, "{cut}");
        let entries: usize = parsed.snapshot.cpus.iter().map(|cpu| cpu.cpuid.len()).sum();
        assert!(entries >= most, "{cut}");
        most = entries;
        for (cpu, whole) in parsed.snapshot.cpus.iter().zip(&snapshot.cpus) {
            assert!(cpu.cpuid.entries().iter().all(|entry| whole.cpuid.entries().contains(entry)), "{cut}");
        }
    }
    assert_eq!(most, 6);
}

#[test]
fn cpus_entries_and_msrs_are_bounded() {
    let cpus: Vec<String> = (0..MAX_CPUS + 5).map(|cpu| format!("{{\"cpu\":{cpu}}}")).collect();
    let entry = |leaf| format!(r#"{{"leaf":"{leaf:#x}","eax":"0x1","ebx":"0x2","ecx":"0x3","edx":"0x4"}}"#);
    let entries: Vec<String> = (0..MAX_ENTRIES + 150).map(entry).collect();
    let msrs: Vec<String> = (0..MAX_MSRS + 5).map(|msr| format!("\"{msr:#x}\":null")).collect();
    let parsed = record::parse(
        "r",
        format!(r#"{{"format":1,"kind":"cpusieve-record","cpus":[{}]}}"#, cpus.join(",")).as_bytes(),
    );
    assert_eq!((parsed.snapshot.cpus.len(), parsed.ignored.values), (MAX_CPUS, 5));
    let text = format!(
        r#"{{"format":1,"kind":"cpusieve-record","cpus":[{{"cpuid":[{}],"msrs":{{{}}}}}],"kvm":{{"supported":[{}]}}}}"#,
        entries.join(","),
        msrs.join(","),
        entries.join(",")
    );
    let parsed = record::parse("r", text.as_bytes());
    assert_eq!(parsed.snapshot.cpus[0].cpuid.len(), MAX_ENTRIES);
    assert_eq!(parsed.snapshot.cpus[0].msrs.len(), MAX_MSRS);
    assert_eq!(parsed.snapshot.kvm.and_then(|kvm| kvm.supported).map(|list| list.len()), Some(MAX_ENTRIES));
    assert_eq!((parsed.ignored.values, parsed.diagnostics.len()), (305, MAX_DIAGNOSTICS));
}

#[test]
fn line_ends_and_a_byte_order_mark_do_not_matter() {
    let snapshot = Snapshot { title: Some("caf\u{e9}".to_owned()), cpus: vec![Cpu::default()], ..Snapshot::default() };
    let text = record::print(&snapshot);
    let crlf = format!("\u{feff}{}", text.replace('\n', "\r\n"));
    let utf16: Vec<u8> = crlf.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for bytes in [crlf.into_bytes(), utf16] {
        let parsed = read("r", &bytes);
        assert_eq!((parsed.snapshot, parsed.diagnostics), (snapshot.clone(), vec![]));
    }
    let latin1: Vec<u8> = text.chars().map(|c| c as u8).collect();
    let parsed = read("r", &latin1);
    assert_eq!(parsed.snapshot, snapshot);
    assert_eq!(shown(&parsed), ["r:2: bytes that are not UTF-8; expected JSON in UTF-8"]);
}

#[test]
fn cpus_are_sorted_by_number() {
    let text = r#"{"format":1,"kind":"cpusieve-record","cpus":[{"cpu":3},{"cpu":1},{"msrs":{"0x1":null}}]}"#;
    let ids: Vec<_> = read("r", text.as_bytes()).snapshot.cpus.iter().map(|cpu| (cpu.id, cpu.msrs.len())).collect();
    assert_eq!(ids, [(1, 0), (3, 0), (4, 1)]);
}

#[test]
fn a_second_record_is_not_read_silently() {
    let text = record::print(&Snapshot::default());
    let parsed = read("r", format!("{text}{text}").as_bytes());
    assert_eq!(shown(&parsed), ["r:2: more JSON after the record is not read; expected one record in one file"]);
}

#[test]
fn what_is_wrong_inside_the_text_of_cpuinfo_is_told_with_its_line() {
    let text = r#"{"format":1,"kind":"cpusieve-record",
"linux":{"cpuinfo":"processor\t: 0\nrubbish\nflags\t: fpu\n"}}"#;
    let parsed = read("r", text.as_bytes());
    assert_eq!(parsed.diagnostics.len(), 1, "{:?}", shown(&parsed));
    assert!(shown(&parsed)[0].starts_with("r:2: linux.cpuinfo: line 2 of the text: "), "{:?}", shown(&parsed));
    assert_eq!(parsed.snapshot.flags().map(FlagList::len), Some(1));
}

#[test]
fn strings_and_members_are_bounded() {
    use cpusieve_formats::limits::{MAX_JSON_MEMBERS, MAX_JSON_STRINGS};
    let members: String = (0..MAX_JSON_MEMBERS + 3).map(|n| format!("\"{n}\":\"y\",")).collect();
    let text = format!(r#"{{"format":1,"kind":"cpusieve-record","linux":{{"config":{{{members}"x":1}}}}}}"#);
    let parsed = record::parse("r", text.as_bytes());
    let config = parsed.snapshot.linux.and_then(|linux| linux.config).unwrap_or_default();
    assert_eq!((config.len(), parsed.ignored.values), (MAX_JSON_MEMBERS, 4));
    let flags = format!("[{}\"a\"]", "\"a\",".repeat(MAX_ENTRIES - 1));
    let cpus = MAX_JSON_STRINGS / MAX_ENTRIES + 1;
    let cpus: Vec<String> = (0..cpus).map(|_| format!(r#"{{"cpuinfo":{{"flags":{flags}}}}}"#)).collect();
    let text = format!(r#"{{"format":1,"kind":"cpusieve-record","cpus":[{}]}}"#, cpus.join(","));
    let parsed = record::parse("r", text.as_bytes());
    assert_eq!(parsed.ignored.values, MAX_ENTRIES as u64);
    assert_eq!(
        parsed.snapshot.cpus.last().and_then(|cpu| cpu.cpuinfo.as_ref()?.flags.as_ref()).map(FlagList::len),
        Some(0)
    );
}
