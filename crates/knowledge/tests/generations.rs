//! How often the generation of a CPU is told from its flags alone, over real dumps.
//!
//! CPUID bits become flags by the table of features: what a bare-metal kernel that clears nothing would print. The
//! other people's dumps stay outside the repository; the tests are skipped without them.
#![allow(clippy::disallowed_methods, reason = "tests read files")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail by panics and print what they measured")]

mod shared;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cpusieve_knowledge::x86::{self, Known};
use cpusieve_model::{CpuidTable, Place, Register, Registers, State, Vendor, has_subleaves};
use serde_json::Value;

const HOST: &str = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush dts acpi \
    mmx fxsr sse sse2 ss ht tm pbe syscall nx pdpe1gb rdtscp lm constant_tsc art arch_perfmon pebs bts rep_good \
    nopl xtopology nonstop_tsc cpuid aperfmperf tsc_known_freq pni pclmulqdq dtes64 monitor ds_cpl vmx smx est \
    tm2 ssse3 sdbg fma cx16 xtpr pdcm pcid sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave avx \
    f16c rdrand lahf_lm abm 3dnowprefetch cpuid_fault epb invpcid_single ssbd ibrs ibpb stibp ibrs_enhanced \
    tpr_shadow vnmi flexpriority ept vpid ept_ad fsgsbase tsc_adjust bmi1 avx2 smep bmi2 erms invpcid rdseed adx \
    smap clflushopt clwb intel_pt sha_ni xsaveopt xsavec xgetbv1 xsaves split_lock_detect avx_vnni dtherm ida \
    arat pln pts hwp hwp_notify hwp_act_window hwp_epp hwp_pkg_req hfi umip pku ospke waitpkg gfni vaes \
    vpclmulqdq tme rdpid movdiri movdir64b fsrm md_clear serialize pconfig arch_lbr ibt flush_l1d \
    arch_capabilities";

const GUEST: &str = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr \
    sse sse2 ss ht syscall nx pdpe1gb rdtscp lm constant_tsc arch_perfmon rep_good nopl xtopology cpuid \
    tsc_known_freq pni pclmulqdq vmx ssse3 fma cx16 pdcm pcid sse4_1 sse4_2 x2apic movbe popcnt \
    tsc_deadline_timer aes xsave avx f16c rdrand hypervisor lahf_lm abm 3dnowprefetch cpuid_fault invpcid_single \
    ssbd ibrs ibpb stibp ibrs_enhanced tpr_shadow vnmi flexpriority ept vpid ept_ad fsgsbase tsc_adjust bmi1 \
    avx2 smep bmi2 erms invpcid rdseed adx smap clflushopt clwb sha_ni xsaveopt xsavec xgetbv1 xsaves avx_vnni \
    arat umip pku ospke waitpkg gfni vaes vpclmulqdq rdpid movdiri movdir64b fsrm md_clear serialize \
    arch_capabilities";

#[test]
fn host_and_guest_of_one_machine_are_the_same_generation() {
    let host = x86::guess(HOST.split_whitespace(), Known::default());
    let guest = x86::guess(GUEST.split_whitespace(), Known::default());
    assert_eq!(host[0].generation.id, "alderlake");
    assert_eq!(guest[0].generation.id, "alderlake");
    assert!(host[0].score > guest[0].score, "{} {}", host[0].score, guest[0].score);
    assert!(host[0].generation.hybrid && !host[0].because.is_empty());
}

/// A dump: its name and the table of its first CPU.
type Dump = (String, CpuidTable);

/// The files below a folder, sorted, whose names end so.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.to_string_lossy().ends_with(end) => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    found
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// The first CPU of an AIDA64 dump: `CPUID 00000007: A-B-C-D [SL 00]`; without tags the n-th line of a leaf is
/// subleaf n.
fn aida64(text: &str) -> CpuidTable {
    let mut table = CpuidTable::default();
    for line in text.lines().filter_map(|line| line.trim().strip_prefix("CPUID ")) {
        let Some((leaf, rest)) = line.split_at_checked(8) else { continue };
        let Ok(leaf) = u32::from_str_radix(leaf, 16) else { continue };
        if leaf == 0 && !table.is_empty() {
            break;
        }
        let rest = rest.trim_start_matches([':', ' ', '\t']);
        let (values, tag) = rest.split_once('[').unwrap_or((rest, ""));
        let values: Vec<u32> = values
            .split(['-', ' '])
            .filter(|value| !value.is_empty())
            .map_while(|value| u32::from_str_radix(value.trim(), 16).ok())
            .collect();
        let [eax, ebx, ecx, edx] = values[..] else { continue };
        let tag = tag.split_once("SL ").and_then(|(_, tag)| u32::from_str_radix(tag.split(']').next()?, 16).ok());
        let repeated = if has_subleaves(leaf) { u32::try_from(table.leaf(leaf).len()).unwrap() } else { 0 };
        // Old files list leaf 0DH with its valid components only: the second line is then the AVX state, component 2.
        let avx_state = leaf == 0xd && repeated == 1 && eax == 0x100;
        let subleaf = tag.unwrap_or(if avx_state { 2 } else { repeated });
        table.insert(leaf, subleaf, Registers { eax, ebx, ecx, edx });
    }
    table
}

/// libvirt's raw XML: the attributes of `<cpuid .../>`.
fn libvirt(text: &str) -> CpuidTable {
    let mut table = CpuidTable::default();
    for element in text.split("<cpuid ").skip(1) {
        let value = |key: &str| {
            let (_, rest) = element.split_once(&format!("{key}='0x")).unwrap();
            u32::from_str_radix(rest.split('\'').next().unwrap(), 16).unwrap()
        };
        let registers = Registers { eax: value(" eax"), ebx: value("ebx"), ecx: value(" ecx"), edx: value("edx") };
        table.insert(value("eax_in"), value("ecx_in"), registers);
    }
    table
}

/// A Firecracker fingerprint: what KVM offered a guest, after Firecracker's changes.
fn firecracker(text: &str) -> CpuidTable {
    let file: Value = serde_json::from_str(text).unwrap();
    let hexadecimal =
        |value: &Value| u32::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap();
    let mut table = CpuidTable::default();
    for leaf in file["guest_cpu_config"]["cpuid_modifiers"].as_array().unwrap() {
        let mut registers = Registers::default();
        for modifier in leaf["modifiers"].as_array().unwrap() {
            let register = Register::from_name(modifier["register"].as_str().unwrap()).unwrap();
            let bits = modifier["bitmap"].as_str().unwrap().trim_start_matches("0b");
            *registers.get_mut(register) = u32::from_str_radix(bits, 2).unwrap();
        }
        table.insert(hexadecimal(&leaf["leaf"]), hexadecimal(&leaf["subleaf"]), registers);
    }
    table
}

/// The flags that the bits of a table are printed as, or would be if their macro were.
fn flags(table: &CpuidTable) -> BTreeSet<&'static str> {
    let set = |place: &Place| place.cpuid().is_some_and(|bit| table.state(bit) == State::Present);
    x86::FEATURES.iter().filter(|feature| feature.places.iter().any(set)).map(|feature| feature.id).collect()
}

/// The generation that family, model and stepping name.
fn truth(table: &CpuidTable) -> Option<&'static str> {
    let (family, model, stepping) = table.signature()?;
    let found = x86::by_signature(table.vendor()?, family, model, Some(stepping));
    found.first().map(|(generation, _)| generation.id)
}

/// Counts the dumps whose generation stands first; prints the others.
fn score(what: &str, dumps: &[Dump], with_vendor: bool, as_guest: bool) -> f64 {
    let (mut right, mut all) = (0, 0);
    for (name, table) in dumps {
        let Some(truth) = truth(table) else { continue };
        let mut flags = flags(table);
        if as_guest {
            let hidden = |flag: &str| x86::TELLING.iter().any(|telling| telling.flag == flag && telling.host_only);
            flags.retain(|flag| !hidden(flag));
            flags.insert("hypervisor");
        }
        let vendor: Option<Vendor> = table.vendor().filter(|_| with_vendor);
        let guesses = x86::guess(flags, Known { vendor, ..Known::default() });
        all += 1;
        match guesses.first() {
            Some(best) if best.generation.id == truth => right += 1,
            best => println!("{what}: {name}: {truth}, taken for {:?}", best.map(|best| best.generation.id)),
        }
    }
    println!("{what}: {right} of {all} right");
    f64::from(right) / f64::from(all.max(1))
}

fn dumps(folder: &Path, end: &str, read: fn(&str) -> CpuidTable) -> Vec<Dump> {
    let read = |path: &PathBuf| (name(path), read(&String::from_utf8_lossy(&fs::read(path).unwrap())));
    let virtual_machine = |table: &CpuidTable| flags(table).contains("hypervisor");
    files(folder, end).iter().map(read).filter(|(_, table)| !virtual_machine(table)).collect()
}

#[test]
fn dumps_of_bare_machines_are_told_from_flags_alone() {
    let (Some(instlatx64), Some(xml)) = (shared::folder("corpus/instlatx64"), shared::folder("corpus/libvirt")) else {
        return;
    };
    let instlatx64 = dumps(&instlatx64, ".txt", aida64);
    let libvirt: Vec<Dump> =
        dumps(&xml, ".xml", libvirt).into_iter().filter(|(name, _)| !name.ends_with("abled.xml")).collect();
    assert!(score("InstLatx64", &instlatx64, false, false) > 0.93);
    assert!(score("InstLatx64, vendor known", &instlatx64, true, false) > 0.95);
    assert!(score("InstLatx64, as a guest would see it", &instlatx64, true, true) > 0.85);
    assert!(score("libvirt", &libvirt, false, false) > 0.93);
    assert!(score("libvirt, as a guest would see it", &libvirt, true, true) > 0.85);
}

#[test]
fn guests_under_firecracker_are_told_from_flags_alone() {
    let Some(folder) = shared::folder("corpus/firecracker") else { return };
    let files = files(&folder, ".json");
    let read = |path: &PathBuf| (name(path), firecracker(&fs::read_to_string(path).unwrap()));
    let dumps: Vec<Dump> = files.iter().map(read).collect();
    assert!(score("Firecracker", &dumps, true, false) > 0.6);
}

#[test]
fn emulated_bare_machines_are_told_from_their_printed_flags() {
    let Some(folder) = shared::folder("corpus/guests-bochs") else { return };
    let (mut right, mut all) = (0, 0);
    for path in files(&folder, ".json") {
        let capture: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let Some(cpuinfo) = capture["cpuinfo"].as_str() else { continue };
        let field = |key: &str| {
            let line = cpuinfo.lines().find(|line| line.split(':').next().is_some_and(|name| name.trim() == key))?;
            line.split_once(':').map(|(_, value)| value.trim())
        };
        let number = |key: &str| field(key).and_then(|value| value.parse::<u32>().ok());
        let (Some(flags), Some(family), Some(model)) = (field("flags"), number("cpu family"), number("model")) else {
            continue;
        };
        let vendor = Vendor::from_string(field("vendor_id").unwrap_or_default());
        let Some((truth, _)) = x86::by_signature(vendor, family, model, number("stepping")).first().copied() else {
            continue;
        };
        let guesses = x86::guess(flags.split_whitespace(), Known { kernel: Some((6, 1)), ..Known::default() });
        all += 1;
        match guesses.first() {
            Some(best) if best.generation.id == truth.id => right += 1,
            best => println!("{}: {}, taken for {:?}", name(&path), truth.id, best.map(|best| best.generation.id)),
        }
    }
    println!("Bochs: {right} of {all} right");
    assert!(right * 10 >= all * 9);
}
