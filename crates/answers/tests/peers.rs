//! Two ends that are no host with its guest: nested guests, strangers, one CPU under two kernels, CPUID without a line.
#![allow(clippy::unwrap_used, reason = "a test that cannot read its corpus has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cpusieve_answers::diff::{self, Diff, Item, Relation};
use cpusieve_answers::reason::Confidence;
use cpusieve_formats::lab::{self, Capture};
use cpusieve_model::{Cpu, CpuidTable, Cpuinfo, Evidence, FlagList, Place, Snapshot, Stage};

/// Captures of an outer guest (an emulated CPU, without a hypervisor of KVM's) and of guests inside it.
const NESTED: [&str; 4] = ["k5.10-max", "k6.1-max", "k6.12-max", "k7.3-EPYC-Milan"];

/// One emulated CPU under three kernels.
const ONE_CPU: [&str; 3] = ["k5.10-max", "k6.1-max", "k6.12-max"];

/// The flags line of a 2007 desktop CPU, put together by hand: SSE4.1, and nothing of what came later.
const CORE_2: &str = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush dts acpi mmx fxsr \
    sse sse2 ss ht tm pbe syscall nx lm constant_tsc arch_perfmon pebs bts rep_good nopl cpuid aperfmperf pni dtes64 \
    monitor ds_cpl vmx est tm2 ssse3 cx16 xtpr pdcm sse4_1 lahf_lm pti tpr_shadow vnmi flexpriority vpid dtherm";

#[allow(clippy::disallowed_methods, reason = "a test reads the corpus")]
fn capture(name: &str) -> Capture {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus/guests-kvm").join(format!("{name}.json"));
    lab::capture(name, &fs::read(file).unwrap())
}

#[allow(clippy::disallowed_methods, reason = "a test reads the corpus")]
fn example(name: &str) -> Snapshot {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus/examples").join(name);
    cpusieve_formats::read(name, &fs::read(path).unwrap()).snapshot
}

fn line(flags: &str) -> Snapshot {
    let cpuinfo = Some(Cpuinfo { flags: Some(FlagList::from_line(flags)), ..Cpuinfo::default() });
    Snapshot { cpus: vec![Cpu { cpuinfo, ..Cpu::default() }], ..Snapshot::default() }
}

/// What a paste of `/proc/cpuinfo` leaves of a machine.
fn cpuinfo_alone(snapshot: &Snapshot) -> Snapshot {
    let cpus = snapshot.cpus.iter().map(|cpu| Cpu { cpuinfo: cpu.cpuinfo.clone(), ..Cpu::default() }).collect();
    Snapshot { cpus, ..Snapshot::default() }
}

/// What a dump of CPUID leaves of a machine.
fn cpuid_alone(snapshot: &Snapshot) -> Snapshot {
    let cpus = snapshot.cpus.iter().map(|cpu| Cpu { cpuid: cpu.cpuid.clone(), ..Cpu::default() }).collect();
    Snapshot { cpus, ..Snapshot::default() }
}

/// The same machine without the hypervisor bit; with `signature`, leaf 40000000H stays.
fn without_the_bit(snapshot: &Snapshot, signature: bool) -> Snapshot {
    let mut changed = snapshot.clone();
    for cpu in &mut changed.cpus {
        let seen = std::mem::take(&mut cpu.cpuid);
        let stays = |leaf: u32| signature || leaf >> 16 != 0x4000;
        cpu.cpuid = seen.entries().iter().filter(|entry| stays(entry.leaf)).copied().collect();
        if let Some(mut leaf) = cpu.cpuid.get(1, 0) {
            leaf.ecx &= !(1 << 31);
            cpu.cpuid.insert(1, 0, leaf);
        }
        if let Some(flags) = cpu.cpuinfo.as_mut().and_then(|cpuinfo| cpuinfo.flags.as_mut()) {
            *flags = flags.iter().filter(|&flag| flag != "hypervisor").collect();
        }
    }
    changed
}

fn compare(first: &Snapshot, second: &Snapshot) -> Diff {
    diff::diff(first, second).unwrap()
}

fn items(diff: &Diff) -> impl Iterator<Item = &Item> {
    diff.lost.iter().chain(&diff.gained)
}

fn names(items: &[Item]) -> Vec<&str> {
    items.iter().map(|item| item.flag.as_str()).collect()
}

/// Every outer guest with each guest inside it that shows its hypervisor and another line.
fn nested() -> Vec<(String, Snapshot, Snapshot)> {
    let mut pairs = Vec::new();
    for name in NESTED {
        let capture = capture(name);
        let outer = &capture.parsed.snapshot;
        let shows = |flags: &FlagList| flags.contains("hypervisor") && Some(flags) != outer.flags();
        for inner in capture.nested.iter().filter(|guest| guest.snapshot.flags().is_some_and(shows)) {
            let name = format!("{name}, {} -cpu {}", inner.setup.emulator, inner.setup.cpu);
            pairs.push((name, outer.clone(), inner.snapshot.clone()));
        }
    }
    assert!(pairs.len() >= 30, "{} pairs", pairs.len());
    pairs
}

#[test]
fn a_nested_guest_is_found_in_either_order() {
    for (name, outer, inner) in nested() {
        let (forward, backward) = (compare(&outer, &inner), compare(&inner, &outer));
        assert_eq!(forward.relation, Relation::OuterAndInner, "{name}");
        assert_eq!(backward.relation, Relation::InnerAndOuter, "{name}");
        assert_eq!((&forward.lost, &forward.gained), (&backward.gained, &backward.lost), "{name}");
        assert!(items(&backward).all(|item| item.at != Some(Stage::Silicon)), "{name}: the CPU is blamed");
    }
}

#[test]
fn what_registers_show_of_nested_guests_is_certain() {
    let mut certain = 0;
    for (name, outer, inner) in nested() {
        for item in items(&compare(&outer, &inner)) {
            let decided = item.steps.iter().filter(|step| step.rule == item.rule && Some(step.at) == item.at);
            let seen = decided.flat_map(|step| &step.because).any(|by| matches!(by, Evidence::Register { .. }));
            let expected = if seen { Confidence::Certain } else { Confidence::Likely };
            assert!(item.confidence >= expected, "{name}: {} {}", item.flag, item.rule);
            if seen {
                assert_eq!(item.confidence, Confidence::Certain, "{name}: {} {}", item.flag, item.rule);
                certain += 1;
            }
        }
    }
    assert!(certain >= 300, "{certain}");
}

#[test]
fn two_guests_of_one_host_are_not_nested_and_their_cpu_is_not_blamed() {
    let [genoa, milan] = ["d-k7.3-EPYC-Genoa-force", "k7.3-EPYC-Milan"].map(|name| capture(name).parsed.snapshot);
    for (first, second) in [(&genoa, &milan), (&milan, &genoa)] {
        let full = compare(first, second);
        let alone = compare(&cpuinfo_alone(first), &cpuinfo_alone(second));
        assert!(full.lost.len() + full.gained.len() > 5, "{full:?}");
        for found in [full, alone] {
            assert_eq!(found.relation, Relation::Guests);
            for item in items(&found) {
                assert_ne!(item.at, Some(Stage::Silicon), "{}", item.flag);
                if item.at == Some(Stage::Qemu) {
                    assert_eq!(item.confidence, Confidence::Possible, "{}", item.flag);
                    assert!(item.others.iter().any(|other| other.at == Stage::Silicon), "{}", item.flag);
                }
            }
            assert!(items(&found).any(|item| item.at == Some(Stage::Qemu)));
        }
    }
}

#[test]
fn a_guest_that_hides_the_bit_is_a_guest_by_its_signature() {
    let mut seen = 0;
    for (name, outer, inner) in nested() {
        let host = without_the_bit(&outer, false);
        let signature = |snapshot: &Snapshot| snapshot.first_cpuid()?.cpuid.hypervisor_signature();
        if signature(&inner).is_some_and(|signature| signature == "KVMKVMKVM") {
            let hidden = without_the_bit(&inner, true);
            assert_eq!(compare(&host, &hidden).relation, Relation::HostAndGuest, "{name}");
            assert_eq!(compare(&hidden, &host).relation, Relation::GuestAndHost, "{name}");
            seen += 1;
        }
    }
    assert!(seen >= 20, "{seen}");
}

#[test]
fn a_host_that_has_too_little_is_not_the_guests_host() {
    let (host, guest) = (line(CORE_2), example("hybrid-guest.flags"));
    let found = compare(&host, &guest);
    assert_eq!(found.relation, Relation::Strangers);
    assert!(found.gained.len() > 50, "{}", found.gained.len());
    let avx2 = found.gained.iter().find(|item| item.flag == "avx2").unwrap();
    assert_eq!(avx2.at, Some(Stage::Silicon));
    let hypervisor = found.gained.iter().find(|item| item.flag == "hypervisor").unwrap();
    assert_eq!((hypervisor.at, hypervisor.confidence), (Some(Stage::Qemu), Confidence::Certain));
    let lost = |flag: &str| found.lost.iter().find(|item| item.flag == flag).map(|item| (item.at, item.confidence));
    assert_eq!(lost("dtes64"), Some((Some(Stage::Qemu), Confidence::Possible)));
    assert_eq!(lost("ds_cpl"), Some((Some(Stage::Kvm), Confidence::Likely)), "KVM offers it to nobody");
    assert_eq!(compare(&guest, &host).relation, Relation::Strangers);
    assert_eq!(compare(&example("hybrid-host.flags"), &guest).relation, Relation::HostAndGuest);
}

#[test]
fn an_emulators_guest_is_no_guest_of_kvm() {
    let capture = capture("k6.12-max");
    let emulated = &capture.parsed.snapshot;
    let host = without_the_bit(&capture.nested[0].snapshot, false);
    assert_eq!(compare(&host, emulated).relation, Relation::Strangers);
}

/// The flags that differ are the kernel's doing: both show the same bits to it.
fn assert_the_kernel_is_named(name: &str, first: &Snapshot, second: &Snapshot) -> usize {
    let table = |snapshot: &Snapshot| -> CpuidTable { snapshot.first_cpuid().unwrap().cpuid.clone() };
    let (here, there) = (table(first), table(second));
    let mut checked = 0;
    let found = compare(first, second);
    assert!(matches!(found.relation, Relation::Guests | Relation::Hosts | Relation::Equal), "{name}");
    for item in items(&found) {
        let differs = |bit| here.state(bit).known() != there.state(bit).known();
        if item.place.and_then(Place::cpuid).is_some_and(differs) {
            continue;
        }
        assert!(matches!(item.at, Some(Stage::Guest | Stage::Host)), "{name}: {} {:?}", item.flag, item.at);
        assert!(!item.rule.0.is_empty(), "{name}: {}", item.flag);
        checked += 1;
    }
    checked
}

#[test]
fn one_cpu_under_two_kernels_is_told_apart_by_the_kernels_rules() {
    let captures = ONE_CPU.map(|name| (name, capture(name).parsed.snapshot));
    let mut checked = 0;
    for (one, first) in &captures {
        for (other, second) in captures.iter().filter(|(other, _)| other != one) {
            checked += assert_the_kernel_is_named(&format!("{one} and {other}"), first, second);
        }
    }
    assert!(checked >= 4, "{checked}");
    let [(_, old), _, (_, new)] = &captures;
    let found = compare(new, old);
    let by = |flag: &str| found.lost.iter().find(|item| item.flag == flag).map(|item| (item.rule.0, item.confidence));
    // 6.9 began to look at the topology leaf of AMD CPUs; 5.10 was built without 5-level paging.
    assert_eq!(by("xtopology"), Some(("LNX1010", Confidence::Likely)), "{:?}", names(&found.lost));
    assert_eq!(by("la57"), Some(("LNX0418", Confidence::Likely)), "{:?}", names(&found.lost));
}

/// Boots of one emulated CPU, by kernel; empty if they are not there.
#[allow(clippy::disallowed_methods, clippy::print_stderr, reason = "a test reads the corpus, and says if it cannot")]
fn emulated() -> BTreeMap<String, Vec<(String, Snapshot)>> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let folder = std::env::var_os("CPUSIEVE_SHARED").map_or_else(beside, PathBuf::from).join("corpus/guests-tcg");
    let mut found: BTreeMap<String, Vec<(String, Snapshot)>> = BTreeMap::new();
    let Ok(files) = fs::read_dir(&folder) else {
        eprintln!("skipped: {} is not there (set CPUSIEVE_SHARED)", folder.display());
        return found;
    };
    for path in files.filter_map(|file| Some(file.ok()?.path())) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut words = name.splitn(3, '-');
        if let (Some(qemu), Some(kernel), Some(cpu)) = (words.next(), words.next(), words.next())
            && cpu.ends_with(".json")
            && !cpu.contains("-c_")
        {
            let snapshot = cpusieve_formats::read(&name, &fs::read(&path).unwrap()).snapshot;
            if snapshot.flags().is_some() {
                found.entry(format!("{qemu}-{cpu}")).or_default().push((kernel.to_owned(), snapshot));
            }
        }
    }
    found
}

#[test]
fn emulated_cpus_under_two_kernels_are_told_apart_by_the_kernels_rules() {
    let found = emulated();
    let mut checked = 0;
    for (cpu, boots) in &found {
        for (one, first) in boots {
            for (other, second) in boots.iter().filter(|(other, _)| other != one) {
                checked += assert_the_kernel_is_named(&format!("{cpu} under {one} and {other}"), first, second);
            }
        }
    }
    assert!(found.is_empty() || checked >= 60, "{checked}");
}

#[test]
fn the_constant_tsc_of_old_kernels_is_their_model_rule() {
    for (cpu, boots) in emulated() {
        let lacks = |snapshot: &&(String, Snapshot)| !snapshot.1.flags().unwrap().contains("constant_tsc");
        for (newer, without) in boots.iter().filter(lacks) {
            for (older, with) in boots.iter().filter(|boot| !lacks(boot)) {
                for (first, second) in [(with, without), (&cpuinfo_alone(with), &cpuinfo_alone(without))] {
                    let found = compare(first, second);
                    let item = found.lost.iter().find(|item| item.flag == "constant_tsc").unwrap();
                    assert_eq!(item.rule.0, "LNX0102", "{cpu} under {older} and {newer}");
                }
            }
        }
    }
}

#[test]
fn one_cpu_on_two_machines_lacks_nothing_in_silicon_first() {
    let host = without_the_bit(&capture("k6.12-max").parsed.snapshot, false);
    let mut lesser = cpuinfo_alone(&host);
    for cpuinfo in lesser.cpus.iter_mut().filter_map(|cpu| cpu.cpuinfo.as_mut()) {
        let flags = cpuinfo.flags.take().unwrap();
        cpuinfo.flags = Some(flags.iter().filter(|flag| !["smap", "rdseed"].contains(flag)).collect());
    }
    let found = compare(&cpuinfo_alone(&host), &lesser);
    assert_eq!((found.relation, names(&found.lost)), (Relation::Hosts, vec!["rdseed", "smap"]));
    for item in &found.lost {
        assert_ne!(item.rule.0, "SIL0001", "{}", item.flag);
        assert_eq!(item.confidence, Confidence::Possible, "{}", item.flag);
    }
}

#[test]
fn what_cpuid_does_not_tell_is_no_difference() {
    let mut undecided = 0;
    for name in NESTED {
        let host = without_the_bit(&capture(name).parsed.snapshot, false);
        let dump = cpuid_alone(&host);
        for (first, second) in [(&host, &dump), (&dump, &host)] {
            let found = compare(first, second);
            for flag in &found.undecided {
                assert!(items(&found).all(|item| item.flag != *flag), "{name}: {flag}");
                assert!(host.flags().unwrap().contains(flag), "{name}: {flag}");
            }
            let concluded =
                found.assumed.iter().filter(|assumed| assumed.value.starts_with("concluded from CPUID for Linux"));
            assert!(concluded.count() == 1 || found.relation == Relation::Equal, "{name}: {:?}", found.assumed);
            undecided += found.undecided.len();
            assert!(found.assumed.iter().all(|assumed| assumed.because != "nothing tells the release"), "{name}");
        }
    }
    assert!(undecided > 0);
}

#[test]
fn a_dump_is_a_host_too_and_says_so() {
    for (name, outer, inner) in nested() {
        let found = compare(&cpuid_alone(&without_the_bit(&outer, false)), &cpuinfo_alone(&inner));
        assert_eq!(found.relation, Relation::HostAndGuest, "{name}");
        let of = |what: &str| found.assumed.iter().find(|assumed| assumed.what == what);
        assert!(of("host flags").is_some_and(|assumed| assumed.value.starts_with("concluded from CPUID")), "{name}");
        assert!(of("host kernel").is_none(), "{name}: {:?}", found.assumed);
        for flag in &found.undecided {
            assert!(items(&found).all(|item| item.flag != *flag), "{name}: {flag}");
        }
    }
}
