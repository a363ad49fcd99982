//! The stages and the answers against real QEMUs: what four releases gave to vCPUs on recorded hosts, bit by bit.
//!
//! The hosts are put together: a dump of the silicon, taken under another system, and the answer of a KVM on another
//! machine of that model, which went through Firecracker. So QEMU's part is exact, and what KVM makes of the silicon is
//! not: [`COMPOSITE`] lists where the halves contradict each other.
#![allow(clippy::unwrap_used, reason = "a test that cannot read its corpus has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use cpusieve_answers::diff::{self, Item, Relation};
use cpusieve_answers::reason::Confidence;
use cpusieve_formats::lab;
use cpusieve_knowledge::{kvm, linux, qemu};
use cpusieve_model::{Cpu, CpuidBit, CpuidTable, LinuxView, Place, QemuBinary, Register, Registers, Snapshot, Stage};
use cpusieve_stages::qemu::CpuArgument;
use cpusieve_stages::{Machine, World};
use serde_json::Value;

/// The hosts that run VMX or SVM, and the kernel tree of their KVM.
const HOSTS: [(&str, &str); 4] =
    [("clx-5.10", "5.10"), ("icx-6.1", "6.1"), ("milan-6.18", "6.18"), ("spr-6.18", "6.18")];
/// A host whose KVM is neither VMX nor SVM, recorded whole; QEMU treats its answer as any other. The release is of no
/// matter but for the names of features.
const OTHER_BACKEND: (&str, &str) = ("self-pvm", "6.18");
const RELEASES: [&str; 4] = ["5.2", "7.2", "10.0", "11.1"];

/// KVM sets these in the running guest; the table that QEMU hands over cannot have them.
const RUNTIME: [&str; 2] = ["osxsave", "ospke"];

/// CPUID shows SYSCALL in 64-bit mode alone, and the dumps of the silicon were taken in another.
const SYSCALL: CpuidBit = CpuidBit::new(0x8000_0001, 0, Register::Edx, 11);

/// What KVM's half of a host denies of the silicon's half, and why.
///
/// TSX: the kernel may switch it off at boot, which CPUID then shows. PDCM on 5.10, ARCH_CAPABILITIES on AMD: KVM's tables
/// of these trees offer both, the answers that went through Firecracker lack them. INTEL_PSFD: the
/// dump ends before 7.2, so older microcode. ERMS and FSRM: two machines that differ.
const COMPOSITE: [(&str, &str); 11] = [
    ("clx-5.10", "HLE"),
    ("clx-5.10", "PDCM"),
    ("clx-5.10", "RTM"),
    ("icx-6.1", "HLE"),
    ("icx-6.1", "INTEL_PSFD"),
    ("icx-6.1", "RTM"),
    ("milan-6.18", "ARCH_CAPABILITIES"),
    ("milan-6.18", "ERMS"),
    ("milan-6.18", "FSRM"),
    ("spr-6.18", "HLE"),
    ("spr-6.18", "RTM"),
];

/// A folder of the data outside the repository; says so if it is missing.
#[allow(clippy::disallowed_methods, clippy::print_stderr, reason = "a test reads files and says why it is skipped")]
fn shared(name: &str) -> Option<PathBuf> {
    let root = std::env::var("CPUSIEVE_SHARED")
        .map_or_else(|_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let folder = root.join("corpus").join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: {} is missing (CPUSIEVE_SHARED names another place)", folder.display());
    None
}

/// One vCPU: what was asked of a QEMU on a host, and the table that it handed to KVM.
struct Vcpu {
    host: String,
    release: String,
    cpu: String,
    machine: String,
    smp: String,
    table: CpuidTable,
}

/// Every vCPU that a QEMU made; those that differ in nothing that matters here once.
fn vcpus(folder: &Path) -> Vec<Vcpu> {
    let mut seen = BTreeSet::new();
    let mut vcpus = Vec::new();
    for release in RELEASES {
        for kind in ["opts", "models", "mach", "smp"] {
            let text = unpacked(&folder.join(format!("results-{kind}-{release}.jsonl.gz")));
            let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            for line in lines.filter(|line| line["rc"] == 0) {
                let of = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
                let same = (of("host"), of("cpu"), line["cpuid"].to_string());
                if seen.insert((release, same)) {
                    let table = table(&line["cpuid"]);
                    let (host, cpu, machine, smp) = (of("host"), of("cpu"), of("machine"), of("smp"));
                    vcpus.push(Vcpu { host, release: release.to_owned(), cpu, machine, smp, table });
                }
            }
        }
    }
    vcpus
}

#[allow(clippy::disallowed_methods, reason = "a test reads the corpus")]
fn unpacked(path: &Path) -> String {
    let packed = fs::read(path).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed.as_slice()).read_to_string(&mut text).unwrap();
    text
}

/// `[[leaf, subleaf, flags, eax, ebx, ecx, edx], ...]`; the subleaf counts only if the flags say so.
fn table(rows: &Value) -> CpuidTable {
    const SUBLEAF_COUNTS: u32 = 1;
    let mut table = CpuidTable::default();
    for row in rows.as_array().unwrap() {
        let numbers = row.as_array().unwrap().iter().map(|number| u32::try_from(number.as_u64().unwrap()).unwrap());
        let [leaf, subleaf, flags, eax, ebx, ecx, edx] = numbers.collect::<Vec<_>>().try_into().unwrap();
        let subleaf = if flags & SUBLEAF_COUNTS == 0 { 0 } else { subleaf };
        table.insert(leaf, subleaf, Registers { eax, ebx, ecx, edx });
    }
    table
}

#[allow(clippy::disallowed_methods, reason = "a test reads the corpus")]
fn host(folder: &Path, name: &str, release: &str) -> Snapshot {
    let bytes = fs::read(folder.join("hosts").join(format!("{name}.json"))).unwrap();
    let mut host = cpusieve_formats::read(name, &bytes).snapshot;
    host.linux = Some(LinuxView { release: Some(release.to_owned()), ..LinuxView::default() });
    host
}

fn is_set(table: &CpuidTable, bit: CpuidBit) -> bool {
    table.get(bit.leaf, bit.subleaf).is_some_and(|registers| registers.get(bit.register) >> bit.bit & 1 == 1)
}

fn offered(host: &Snapshot) -> CpuidTable {
    host.kvm.as_ref().unwrap().supported_table().unwrap()
}

/// `-cpu` as the stages take it; none for `host` with features put in or taken out.
fn argument(cpu: &str) -> Option<CpuArgument> {
    match cpu.split_once(',') {
        None if matches!(cpu, "host" | "max") => Some(CpuArgument::Host { migratable: true }),
        Some(("host" | "max", "migratable=off")) => Some(CpuArgument::Host { migratable: false }),
        Some(("host" | "max", _)) => None,
        _ => Some(CpuArgument::Other),
    }
}

/// Machine types up to 2.3 switch `arat` off, which the stage, that knows no machine type, cannot say.
fn lacks_arat(machine: &str) -> bool {
    let version = machine.rsplit('-').next().and_then(|version| version.split_once('.'));
    let number = |digits: &str| digits.parse::<u32>().unwrap();
    version.is_some_and(|(major, minor)| (number(major), number(minor)) < (2, 4))
}

#[test]
fn what_a_qemu_will_give_is_never_predicted_wrongly() {
    let Some(folder) = shared("qemu-oracle") else { return };
    let (mut right, mut unknown) = (0, BTreeMap::new());
    let vcpus = vcpus(&folder);
    for (name, release) in HOSTS.into_iter().chain([OTHER_BACKEND]) {
        let record = host(&folder, name, release);
        let machine = Machine::new("host", &record);
        for vcpu in vcpus.iter().filter(|vcpu| vcpu.host == name) {
            let Some(cpu) = argument(&vcpu.cpu) else { continue };
            let world = World { qemu: qemu::nearest(&vcpu.release).release, cpu, ..World::of_host(&machine) };
            for feature in linux::features(world.host_tree).filter(|feature| !RUNTIME.contains(&feature.id())) {
                let Some(bit) = linux::place(world.host_tree, feature).and_then(Place::cpuid) else { continue };
                if feature.id() == "arat" && lacks_arat(&vcpu.machine) {
                    continue;
                }
                match world.delivered(feature.id(), bit).known() {
                    None if cpu == CpuArgument::Other => {}
                    None => *unknown.entry(feature.id()).or_insert(0) += 1,
                    Some(given) => {
                        let Vcpu { release, cpu, machine, smp, .. } = vcpu;
                        let case = format!("{name}, QEMU {release} -cpu {cpu} {machine} {smp}: {}", feature.id());
                        assert_eq!(given, is_set(&vcpu.table, bit), "{case}");
                        right += 1;
                    }
                }
            }
        }
    }
    assert!(right >= 100_000, "{right} bits");
    // The topology decides, and on AMD under 11.1 the machine type; nothing else is left open with `-cpu host`.
    assert_eq!(unknown.into_keys().collect::<Vec<_>>(), ["arch_capabilities", "ht"]);
}

/// The sieve that the three registers prove.
fn proved(item: &Item, lost: bool, offered: &CpuidTable, given: &CpuidTable) -> Option<Stage> {
    let bit = item.place.and_then(Place::cpuid)?;
    if RUNTIME.contains(&item.flag.as_str()) {
        return Some(Stage::Vcpu);
    }
    Some(match (lost, is_set(offered, bit), is_set(given, bit)) {
        (true, _, true) | (false, _, false) => Stage::Guest,
        (true, false, false) | (false, true, true) => Stage::Kvm,
        (true, true, false) | (false, false, true) => Stage::Qemu,
    })
}

#[test]
fn with_the_guests_cpuid_every_sieve_is_the_one_that_the_registers_prove() {
    let Some(folder) = shared("qemu-oracle") else { return };
    let (mut checked, mut unsure) = (0, BTreeSet::new());
    // A vendor that was set by hand makes two strangers of host and guest.
    let vcpus: Vec<Vcpu> = vcpus(&folder).into_iter().filter(|vcpu| !vcpu.cpu.contains("vendor=")).collect();
    for (name, release) in HOSTS {
        let mut record = host(&folder, name, release);
        for cpu in &mut record.cpus {
            let mut registers = cpu.cpuid.get(SYSCALL.leaf, 0).unwrap();
            registers.edx |= 1 << SYSCALL.bit;
            cpu.cpuid.insert(SYSCALL.leaf, 0, registers);
        }
        let offered = offered(&record);
        for vcpu in vcpus.iter().filter(|vcpu| vcpu.host == name) {
            record.qemu = vec![QemuBinary { version: vcpu.release.clone(), ..QemuBinary::default() }];
            let cpus = vec![Cpu { cpuid: vcpu.table.clone(), ..Cpu::default() }];
            let found = diff::diff(&record, &Snapshot { cpus, ..Snapshot::default() }).unwrap();
            assert_eq!(found.relation, Relation::HostAndGuest);
            for (items, lost) in [(&found.lost, true), (&found.gained, false)] {
                for item in items {
                    let Some(proved) = proved(item, lost, &offered, &vcpu.table) else { continue };
                    let case = format!("{name}, QEMU {} -cpu {}: {}", vcpu.release, vcpu.cpu, item.flag);
                    assert_eq!(item.at, Some(proved), "{case}: {} {}", item.rule, item.cause);
                    // Of the guest's kernel nothing is known.
                    if item.confidence != Confidence::Certain && proved != Stage::Guest {
                        unsure.insert((item.flag.clone(), vcpu.cpu.clone()));
                    }
                    checked += 1;
                }
            }
        }
    }
    assert!(checked >= 70_000, "{checked} flags");
    assert_eq!(unsure, BTreeSet::new());
}

/// KVM's bits that were predicted from the silicon alone otherwise than KVM says; how many were left open, how many right.
fn from_silicon(record: &Snapshot) -> (BTreeSet<&'static str>, usize, usize) {
    let answer = offered(record);
    let silicon = Snapshot { kvm: None, ..record.clone() };
    let machine = Machine::new("host", &silicon);
    let tree = World::of_host(&machine).host_tree;
    let (mut wrong, mut open, mut right) = (BTreeSet::new(), 0, 0);
    for cap in kvm::caps(tree) {
        let id = linux::at(tree, Place::Cpuid(cap.place)).map_or("", linux::Feature::id);
        let seen = machine.capability(tree, id).state;
        let incoming = if seen.known().is_some() { seen } else { machine.bit(tree, cap.place).0 };
        match cpusieve_stages::kvm::offer(&machine, tree, id, cap.place, incoming).state.known() {
            None => open += 1,
            Some(offered) if offered == is_set(&answer, cap.place) => right += 1,
            Some(_) => drop(wrong.insert(cap.macro_name)),
        }
    }
    (wrong, open, right)
}

#[test]
fn kvm_is_predicted_from_silicon_but_for_what_other_machines_explain() {
    let Some(folder) = shared("qemu-oracle") else { return };
    let mut wrong = Vec::new();
    for (name, release) in HOSTS {
        let (contradicted, open, right) = from_silicon(&host(&folder, name, release));
        wrong.extend(contradicted.into_iter().map(|bit| (name, bit)));
        assert!(open <= 24 && right >= 150, "{name}: {open} open, {right} right");
    }
    assert_eq!(wrong, COMPOSITE);
}

/// Captures of whole machines, emulated ones: silicon, kernel and KVM's answer are of one piece.
#[allow(clippy::disallowed_methods, reason = "a test reads the corpus")]
fn captures(folder: &Path) -> Vec<(String, Snapshot)> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = paths.filter(|path| path.is_file()).collect();
    paths.sort();
    let read = paths.iter().map(|path| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let snapshot = lab::capture(&name, &fs::read(path).unwrap()).parsed.snapshot;
        (name, snapshot)
    });
    read.filter(|(_, snapshot)| snapshot.kvm.as_ref().is_some_and(|kvm| kvm.supported.is_some())).collect()
}

#[test]
fn kvm_is_never_predicted_wrongly_from_the_silicon_of_its_own_machine() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus/guests-kvm");
    let mut seen = 0;
    for folder in [Some(own), shared("guests-bochs")].into_iter().flatten() {
        for (name, record) in captures(&folder) {
            let (wrong, open, right) = from_silicon(&record);
            assert!(wrong.is_empty(), "{name}: {wrong:?}");
            assert!(open <= 11 && right >= 160, "{name}: {open} open, {right} right");
            seen += 1;
        }
    }
    assert!(seen >= 7, "{seen} captures");
}
