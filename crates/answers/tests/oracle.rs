//! The answers against real QEMUs: what four releases gave to vCPUs on recorded hosts, register by register.
#![allow(clippy::unwrap_used, reason = "a test that cannot read its corpus has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use cpusieve_knowledge::{kvm, linux, qemu};
use cpusieve_model::{Cpu, CpuidBit, CpuidTable, LinuxView, Place, QemuBinary, Register, Registers, Snapshot, Stage, State};
use cpusieve_stages::qemu::CpuArgument;
use cpusieve_stages::{Machine, World};

const HOSTS: [&str; 4] = ["clx-5.10", "icx-6.1", "milan-6.18", "spr-6.18"];

#[allow(clippy::disallowed_methods, clippy::print_stderr, reason = "a test reads the corpus")]
fn shared(name: &str) -> Option<PathBuf> {
    let root = std::env::var("CPUSIEVE_SHARED")
        .map_or_else(|_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let path = root.join("corpus").join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: {} is missing (CPUSIEVE_SHARED names another place)", path.display());
    None
}

struct Line {
    host: String,
    release: String,
    cpu: String,
    smp: Option<String>,
    machine: Option<String>,
    table: CpuidTable,
}

#[allow(clippy::disallowed_methods, reason = "a test reads the corpus")]
fn lines(folder: &Path) -> Vec<Line> {
    let mut lines = Vec::new();
    for kind in ["opts", "models", "mach", "smp"] {
        for release in ["5.2", "7.2", "10.0", "11.1"] {
            let packed = fs::read(folder.join(format!("results-{kind}-{release}.jsonl.gz"))).unwrap();
            let mut text = String::new();
            flate2::read::GzDecoder::new(packed.as_slice()).read_to_string(&mut text).unwrap();
            for line in text.lines() {
                let v: serde_json::Value = serde_json::from_str(line).unwrap();
                if v["rc"] != 0 { continue; }
                let mut table = CpuidTable::default();
                for row in v["cpuid"].as_array().unwrap() {
                    let n: Vec<u32> = row.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect();
                    let sub = if n[2] & 1 == 1 { n[1] } else { 0 };
                    table.insert(n[0], sub, Registers { eax: n[3], ebx: n[4], ecx: n[5], edx: n[6] });
                }
                let s = |k: &str| v[k].as_str().map(str::to_owned);
                lines.push(Line { host: s("host").unwrap(), release: s("ver").unwrap(), cpu: s("cpu").unwrap(), smp: s("smp"), machine: s("machine"), table });
            }
        }
    }
    lines
}

#[allow(clippy::disallowed_methods, reason = "a test reads the corpus")]
fn host(folder: &Path, name: &str) -> Snapshot {
    let bytes = fs::read(folder.join("hosts").join(format!("{name}.json"))).unwrap();
    let mut s = cpusieve_formats::read(name, &bytes).snapshot;
    let release = name.rsplit_once('-').unwrap().1;
    if release != "pvm" { s.linux = Some(LinuxView { release: Some(release.to_owned()), ..LinuxView::default() }); }
    s
}

fn is_set(table: &CpuidTable, bit: CpuidBit) -> bool {
    table.get(bit.leaf, bit.subleaf).is_some_and(|r| r.get(bit.register) >> bit.bit & 1 == 1)
}

#[test]
fn predicted() {
    let Some(folder) = shared("qemu-oracle") else { return };
    let lines = lines(&folder);
    let mut counts: BTreeMap<(String, String), [usize; 3]> = BTreeMap::new();
    let mut wrong: BTreeMap<String, (usize, String)> = BTreeMap::new();
    let mut unknown: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for name in HOSTS {
        let snap = host(&folder, name);
        let machine = Machine::new("host", &snap);
        for line in lines.iter().filter(|l| l.host == name) {
            let cpu = match line.cpu.as_str() {
                "host" | "max" => CpuArgument::Host { migratable: true },
                "host,migratable=off" | "max,migratable=off" => CpuArgument::Host { migratable: false },
                c if !c.starts_with("host") && !c.starts_with("max") => CpuArgument::Other,
                _ => continue,
            };
            let world = World { qemu: qemu::nearest(&line.release).release, cpu, ..World::of_host(&machine) };
            let kind = match cpu { CpuArgument::Other => "model", CpuArgument::Host { migratable: true } => "host", _ => "nomig" };
            for feature in linux::features(world.host_tree) {
                let Some(bit) = linux::place(world.host_tree, feature).and_then(Place::cpuid) else { continue };
                let real = is_set(&line.table, bit);
                let state = world.delivered(feature.id(), bit);
                let slot = counts.entry((format!("{kind} {name}"), line.release.clone())).or_default();
                let key = format!("{kind} {name} {} {} {bit}", line.release, feature.id());
                match state.known() {
                    None => { slot[1] += 1; let e = unknown.entry(key).or_default(); e.0 += 1; e.1 = format!("real {real} {} smp {:?} {:?}", line.cpu, line.smp, line.machine); }
                    Some(k) if k == real => slot[2] += 1,
                    Some(_) => { slot[0] += 1; let e = wrong.entry(key).or_default(); e.0 += 1; e.1 = format!("real {real} {} smp {:?} {:?}", line.cpu, line.smp, line.machine); }
                }
            }
        }
    }
    for (k, v) in &counts { println!("COUNT {k:?} {v:?}"); }
    for (k, v) in &wrong { println!("WRONG {k} {v:?}"); }
    for (k, v) in unknown.iter().filter(|(k, _)| !k.starts_with("model")) { println!("UNKNOWN {k} {v:?}"); }
}

fn kvm_count(name: &str, snap: &Snapshot) {
    let answer = snap.kvm.as_ref().unwrap().supported_table().unwrap();
    let mut silicon = snap.clone();
    silicon.kvm = None;
    let machine = Machine::new("host", &silicon);
    let world = World::of_host(&machine);
    let tree = world.host_tree;
    let mut n = [0; 3];
    for cap in kvm::caps(tree) {
        let bit = cap.place;
        let id = linux::at(tree, Place::Cpuid(bit)).map_or("", linux::Feature::id);
        let seen = machine.capability(tree, id).state;
        let incoming = if seen.known().is_some() { seen } else { machine.bit(tree, bit).0 };
        let d = cpusieve_stages::kvm::offer(&machine, tree, id, bit, incoming);
        let real = is_set(&answer, bit);
        let raw = machine.bit(tree, bit).0;
        match d.state.known() {
            None => { n[1] += 1; println!("KUNKNOWN {name} {} {bit} real {real} raw {raw:?} cap {seen:?} {:?} {:?}", cap.macro_name, cap.kind, d.step.rule); }
            Some(k) if k == real => n[2] += 1,
            Some(_) => { n[0] += 1; println!("KWRONG {name} {} {bit} real {real} raw {raw:?} cap {seen:?} {:?} {:?}", cap.macro_name, cap.kind, d.step.rule); }
        }
    }
    println!("KCOUNT {name} tree {} {n:?}", linux::TREES[tree].label);
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a test reads the corpus")]
fn kvm_from_silicon() {
    let Some(folder) = shared("qemu-oracle") else { return };
    for name in HOSTS { kvm_count(name, &host(&folder, name)); }
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus/guests-kvm");
    for dir in [own, shared("guests-bochs").unwrap()] {
        let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let c = cpusieve_formats::lab::capture(&name, &fs::read(&path).unwrap());
            let s = c.parsed.snapshot;
            if s.kvm.as_ref().and_then(|k| k.supported_table()).is_some() { kvm_count(&name, &s); } else { println!("no kvm {name}"); }
        }
    }
}

#[test]
fn seen() {
    let Some(folder) = shared("qemu-oracle") else { return };
    let lines = lines(&folder);
    let mut bad: BTreeMap<String, (usize, String)> = BTreeMap::new();
    let mut n = 0;
    for name in HOSTS {
        let mut snap = host(&folder, name);
        for line in lines.iter().filter(|l| l.host == name) {
            snap.qemu = vec![QemuBinary { version: line.release.clone(), ..QemuBinary::default() }];
            let guest = Snapshot { cpus: vec![Cpu { cpuid: line.table.clone(), ..Cpu::default() }], ..Snapshot::default() };
            let found = cpusieve_answers::diff::diff(&snap, &guest).unwrap();
            let offered = snap.kvm.as_ref().unwrap().supported_table().unwrap();
            for (items, lost) in [(&found.lost, true), (&found.gained, false)] {
                for item in items {
                    let Some(bit) = item.place.and_then(Place::cpuid) else { continue };
                    let (o, g) = (is_set(&offered, bit), is_set(&line.table, bit));
                    let proved = match (lost, o, g) {
                        _ if matches!(item.flag.as_str(), "ospke" | "osxsave") => Stage::Vcpu,
                        (true, _, true) => Stage::Guest,
                        (true, false, false) | (false, true, true) => Stage::Kvm,
                        (true, true, false) | (false, false, true) => Stage::Qemu,
                        (false, _, false) => Stage::Guest,
                    };
                    n += 1;
                    if item.at != Some(proved) || item.confidence != cpusieve_answers::reason::Confidence::Certain {
                        let e = bad.entry(format!("{name} {} lost {lost} {} at {:?} proved {proved:?} {:?} {}", line.release, item.flag, item.at, item.confidence, item.rule)).or_default();
                        e.0 += 1; e.1 = line.cpu.clone();
                    }
                }
            }
            if found.relation != cpusieve_answers::diff::Relation::HostAndGuest {
                let e = bad.entry(format!("{name} {} relation {:?}", line.release, found.relation)).or_default(); e.0 += 1; e.1 = line.cpu.clone();
            }
        }
    }
    println!("SEEN {n}");
    for (k, v) in &bad { println!("BAD {k} {v:?}"); }
}
