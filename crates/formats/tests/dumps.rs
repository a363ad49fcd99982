//! Replays of text dumps: samples of this repository, and whole collections where they are present.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests read files, say why they are skipped, and fail where something is missing"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cpusieve_formats::{Format, Parsed, print_cpuid_r, read};
use cpusieve_model::{Cpu, CpuidEntry, MsrReading, Registers, Snapshot};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

fn sample(name: &str) -> Parsed {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples").join(name);
    read(name, &fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// The folder of a collection outside the repository, or `None` with the reason printed.
fn collection(name: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let folder = std::env::var_os("CPUSIEVE_SHARED").map_or_else(beside, PathBuf::from).join("corpus").join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: {} is not there (set CPUSIEVE_SHARED)", folder.display());
    None
}

/// All files below a folder whose names end so.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, end));
        } else if path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The leaves below C0000000H that no range head announces away: what every tool must agree on.
fn common(cpu: &Cpu) -> Vec<CpuidEntry> {
    let heads = [0x2000_0000, 0x8086_0000, 0xc000_0000];
    cpu.cpuid.entries().iter().filter(|entry| !heads.contains(&entry.leaf)).copied().collect()
}

#[test]
fn cpuid_r_is_read_and_printed_back_byte_for_byte() {
    let parsed = sample("cpuid-r.txt");
    assert_eq!((parsed.format, &*parsed.diagnostics, parsed.ignored.lines), (Format::CpuidR, &[][..], 0));
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples/cpuid-r.txt")).unwrap();
    assert_eq!(print_cpuid_r(&parsed.snapshot), text);
    assert_eq!(parsed.snapshot.title.as_deref(), Some("AMD EPYC"));
    let single = sample("cpuid-1r.txt");
    assert_eq!((single.format, single.diagnostics.len(), single.snapshot.cpus.len()), (Format::CpuidR, 0, 1));
}

#[test]
fn kcpuid_of_two_kernels_agrees_with_cpuid() {
    let cpuid = sample("cpuid-r.txt");
    for name in ["kcpuid-6.1.txt", "kcpuid-7.3.txt"] {
        let parsed = sample(name);
        assert_eq!((parsed.format, &*parsed.diagnostics), (Format::Kcpuid, &[][..]), "{name}");
        let ours = &parsed.snapshot.cpus[0].cpuid;
        for entry in ours.entries() {
            // kcpuid ran on either CPU: the APIC ids differ, and so do sizes that follow XCR0.
            if let Some(other) = cpuid.snapshot.cpus.iter().find_map(|cpu| cpu.cpuid.get(entry.leaf, entry.subleaf)) {
                let masked = |mut registers: Registers| {
                    match entry.leaf {
                        1 => registers.ebx &= 0x00ff_ffff,
                        0xb => registers.edx = 0,
                        0xd => registers.ebx = 0,
                        0x8000_001e => (registers.eax, registers.ebx) = (0, 0),
                        _ => {}
                    }
                    registers
                };
                let (leaf, subleaf) = (entry.leaf, entry.subleaf);
                assert_eq!(masked(entry.registers), masked(other), "{name}: {leaf:#x} {subleaf:#x}");
            }
        }
        assert_eq!(ours.get(2, 0), Some(Registers::default()), "{name}: left out because it is zero");
        assert_eq!(ours.get(0xd, 11).map(|registers| registers.eax), Some(0x10), "{name}");
        assert_eq!(ours.get(0xd, 3), Some(Registers::default()), "{name}");
    }
}

#[test]
fn aida64_holds_what_cpuid_r_holds() {
    let (cpuid, aida) = (sample("cpuid-r.txt"), sample("aida64.txt"));
    assert_eq!((aida.format, &*aida.diagnostics), (Format::Aida64, &[][..]));
    for (ours, theirs) in aida.snapshot.cpus.iter().zip(&cpuid.snapshot.cpus) {
        assert_eq!((ours.id, ours.cpuid.entries()), (theirs.id, &*common(theirs)));
        assert_eq!(ours.msrs.get(0x1b), Some(0xfee0_0000 + u64::from(9 - ours.id) * 0x100));
        assert!(ours.msrs.iter().any(|reading| reading == (0x10a, MsrReading::Unreadable)));
    }
}

#[test]
fn everest_without_tags_is_numbered() {
    let (cpuid, everest) = (sample("cpuid-r.txt"), sample("everest.txt"));
    assert_eq!((everest.format, &*everest.diagnostics), (Format::Aida64, &[][..]));
    assert_eq!(everest.snapshot.cpus.iter().map(|cpu| cpu.id).collect::<Vec<_>>(), [0, 1]);
    for (ours, theirs) in everest.snapshot.cpus.iter().zip(&cpuid.snapshot.cpus) {
        let subleaves = |leaf| ours.cpuid.leaf(leaf).iter().map(|entry| entry.subleaf).collect::<Vec<_>>();
        assert_eq!(subleaves(0xd), [0, 2]);
        assert_eq!(ours.cpuid.leaf(0x8000_001d), theirs.cpuid.leaf(0x8000_001d));
        assert_eq!(ours.cpuid.leaf(7), theirs.cpuid.leaf(7));
    }
}

#[test]
fn libcpuid_loses_what_it_repeats() {
    let (cpuid, libcpuid) = (sample("cpuid-r.txt"), sample("libcpuid.test"));
    assert_eq!((libcpuid.format, &*libcpuid.diagnostics), (Format::Libcpuid, &[][..]));
    assert!(libcpuid.ignored.values > 0 && libcpuid.ignored.lines == 15, "{:?}", libcpuid.ignored);
    for (ours, theirs) in libcpuid.snapshot.cpus.iter().zip(&cpuid.snapshot.cpus) {
        assert!(ours.cpuid.len() > 40);
        for entry in ours.cpuid.entries() {
            let seen = theirs.cpuid.get(entry.leaf, entry.subleaf).unwrap_or_default();
            assert_eq!(entry.registers, seen, "{:#x} {:#x}", entry.leaf, entry.subleaf);
        }
    }
}

#[test]
fn cpuinfo_and_its_flags_alone_agree() {
    let (cpuinfo, flags) = (sample("cpuinfo.txt"), sample("flags-wrapped.txt"));
    assert_eq!((cpuinfo.format, &*cpuinfo.diagnostics), (Format::Cpuinfo, &[][..]));
    assert_eq!((flags.format, &*flags.diagnostics), (Format::FlagsLine, &[][..]));
    assert_eq!(cpuinfo.snapshot.flags(), flags.snapshot.flags());
    assert_eq!(cpuinfo.snapshot.cpus.len(), 2);
    let first = cpuinfo.snapshot.cpus[0].cpuinfo.as_ref().unwrap();
    assert_eq!((first.identity.family, first.identity.vendor.as_deref()), (Some(25), Some("AuthenticAMD")));
    assert!(first.flags.as_ref().unwrap().contains("hypervisor") && first.other.len() > 10);
}

/// Why a real dump of the collection may give a diagnostic: the words of the diagnostic, and the reason.
const EXPLAINED: [(&str, &str); 1] =
    [("these MSRs name no CPU", "Everest and early AIDA64 have one section of MSRs for the machine")];

#[test]
fn every_dump_of_the_instlatx64_collection_is_read() {
    let Some(folder) = collection("instlatx64") else { return };
    let (mut cpus, mut entries, mut values, mut failed) = (0, 0, 0, 0);
    let mut unexplained = Vec::new();
    let mut used: BTreeMap<&str, u32> = BTreeMap::new();
    let files = files(&folder, ".txt");
    for path in &files {
        let parsed = read(&path.to_string_lossy(), &fs::read(path).unwrap());
        assert_eq!(parsed.format, Format::Aida64, "{}", path.display());
        for diagnostic in parsed.diagnostics {
            match EXPLAINED.iter().find(|(words, _)| diagnostic.what.contains(words)) {
                Some((words, _)) => *used.entry(words).or_default() += 1,
                None => unexplained.push(diagnostic.to_string()),
            }
        }
        for cpu in &parsed.snapshot.cpus {
            cpus += 1;
            entries += cpu.cpuid.len();
            let readable = cpu.msrs.iter().filter(|(_, reading)| *reading != MsrReading::Unreadable).count();
            values += readable;
            failed += cpu.msrs.len() - readable;
        }
    }
    assert_eq!(unexplained, Vec::<String>::new());
    assert_eq!(used.len(), EXPLAINED.len(), "an explanation that nothing needs: {used:?}");
    // Counted by an independent reader of the same collection.
    assert_eq!((files.len(), cpus, entries, values), (150, 1693, 95732, 45283), "{failed} MSRs failed");
}

#[test]
fn cpuid_and_cpuinfo_of_guests_are_read() {
    let Some(folder) = collection("guests-tcg") else { return };
    let (mut dumps, mut texts) = (0, 0);
    for path in files(&folder, ".json") {
        let name = path.to_string_lossy().into_owned();
        let guest: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        if let Some(lines) = guest["cpuid"].as_array().filter(|lines| !lines.is_empty()) {
            let text: Vec<&str> = lines.iter().map(|line| line.as_str().unwrap()).collect();
            let parsed = read(&name, text.join("\n").as_bytes());
            assert_eq!((parsed.format, &*parsed.diagnostics), (Format::CpuidR, &[][..]), "{name}");
            assert_eq!(parsed.snapshot.cpus[0].cpuid.len(), lines.len(), "{name}");
            dumps += 1;
        }
        if let Some(text) = guest["cpuinfo"].as_str().filter(|text| !text.is_empty()) {
            let parsed = read(&name, text.as_bytes());
            assert_eq!((parsed.format, &*parsed.diagnostics), (Format::Cpuinfo, &[][..]), "{name}");
            let flags = text.lines().find(|line| line.starts_with("flags")).unwrap().split_once(": ").unwrap().1;
            let ours: Vec<&str> = parsed.snapshot.flags().unwrap().iter().collect();
            assert_eq!(ours.join(" "), flags.trim_end(), "{name}");
            texts += 1;
        }
    }
    assert!(dumps >= 300 && texts >= 300, "{dumps} dumps, {texts} texts");
}

prop_compose! {
    fn registers()(eax: u32, ebx: u32, ecx: u32, edx: u32) -> Registers {
        Registers { eax, ebx, ecx, edx }
    }
}

prop_compose! {
    fn machine()(cpus in btree_map(0..9000_u32, vec(((0..0x30_u32, 0..0x200_u32), registers()), 1..40), 0..6)) -> Snapshot {
        let entry = |((leaf, subleaf), registers)| CpuidEntry { leaf, subleaf, registers };
        let cpus = cpus
            .into_iter()
            .map(|(id, rows)| Cpu { id, cpuid: rows.into_iter().map(entry).collect(), ..Cpu::default() })
            .collect();
        Snapshot { cpus, ..Snapshot::default() }
    }
}

proptest! {
    #[test]
    fn what_is_printed_as_cpuid_r_is_read_back(snapshot in machine()) {
        let text = print_cpuid_r(&snapshot);
        let parsed = cpusieve_formats::cpuid_r::parse("printed", text.as_bytes());
        prop_assert_eq!(&parsed.snapshot.cpus, &snapshot.cpus);
        prop_assert!(snapshot.cpus.is_empty() || parsed.diagnostics.is_empty());
    }
}
