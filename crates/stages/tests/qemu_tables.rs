//! CPUID as real QEMUs gave it to vCPUs, every register of every row: tables of `KVM_SET_CPUID2` on recorded hosts, and
//! what the instruction returned to guests under TCG.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests read files and say what they saw"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use cpusieve_knowledge::qemu;
use cpusieve_model::{CpuidTable, KvmCpuidEntry, KvmView, Registers};
use cpusieve_stages::qemu::{Accelerator, Instruction, Irqchip, Protected, Question, Running, Smp, realize};
use serde_json::Value;

const RELEASES: [&str; 4] = ["5.2", "7.2", "10.0", "11.1"];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../corpus/qemu-oracle")
}

fn unpacked(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

/// The rows of a file of answers.
fn rows(name: &str) -> Vec<Value> {
    let bytes = unpacked(&folder().join(format!("results-{name}.jsonl.gz")));
    let text = String::from_utf8(bytes).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A recorded host: its CPUID and its KVM.
struct Host {
    cpuid: CpuidTable,
    kvm: KvmView,
}

fn host(name: &str) -> Host {
    let bytes = unpacked(&folder().join(format!("hosts/{name}.json.gz")));
    let snapshot = cpusieve_formats::record::parse(name, &bytes).snapshot;
    let cpuid = snapshot.first_cpuid().unwrap().cpuid.clone();
    // Whoever answered QEMU's ioctls in the host's place said that every TSC runs at 2 GHz.
    Host { cpuid, kvm: KvmView { tsc_khz: Some(2_000_000), ..snapshot.kvm.unwrap() } }
}

/// The host of the Hyper-V answers, of which no record exists: QEMU 5.2 hands on KVM's Hyper-V leaves as they are with
/// `hv-passthrough`, so its answer to that is what KVM offers; all else is another Ice Lake.
fn hyperv_host() -> Host {
    let passed = rows("hv").into_iter().find(|row| row["ver"] == "5.2" && text(row, "cpu").contains("hv-passthrough"));
    let mut host = host("icx-6.1");
    let offered = entries(&passed.unwrap()["cpuid"]).into_iter().filter(|entry| entry.leaf < 0x4000_0100);
    host.kvm.hyperv = Some(offered.collect());
    // Hyper-V at all, its VP index, its table by a system ioctl.
    host.kvm.caps.extend([(44, 1), (149, 1), (167, 1), (191, 1)]);
    host
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap()
}

fn number(value: &Value) -> u32 {
    value.as_u64().unwrap().try_into().unwrap()
}

fn entries(table: &Value) -> Vec<KvmCpuidEntry> {
    let entry = |row: &Value| {
        let [leaf, subleaf, flags, eax, ebx, ecx, edx] = [0, 1, 2, 3, 4, 5, 6].map(|at| number(&row[at]));
        KvmCpuidEntry { leaf, subleaf, flags, registers: Registers { eax, ebx, ecx, edx } }
    };
    table.as_array().unwrap().iter().map(entry).collect()
}

/// The question that a row was the answer to.
fn question<'a>(row: &'a Value, accelerator: Accelerator<'a>) -> Question<'a> {
    let release = qemu::nearest(text(row, "ver")).release;
    let machine = qemu::machine(release, row["machine"].as_str().unwrap_or("q35")).unwrap();
    let smp = row["smp"].as_str().map_or_else(Smp::default, |smp| Smp::parse(release, machine, smp).unwrap().0);
    let irqchip = Irqchip::of(machine);
    Question { release, machine, accelerator, cpu: text(row, "cpu"), smp, cpu_pm: false, irqchip, protected: Protected::default() }
}

/// Entries that are in one table and not in the other.
fn difference(predicted: &[KvmCpuidEntry], seen: &[KvmCpuidEntry]) -> Option<String> {
    if predicted == seen {
        return None;
    }
    let without = |these: &[KvmCpuidEntry], those: &[KvmCpuidEntry]| {
        let shown = |entry: &&KvmCpuidEntry| {
            let Registers { eax, ebx, ecx, edx } = entry.registers;
            format!("{:x}.{:x}/{}: {eax:x} {ebx:x} {ecx:x} {edx:x}", entry.leaf, entry.subleaf, entry.flags)
        };
        these.iter().filter(|entry| !those.contains(entry)).map(|entry| shown(&entry)).collect::<Vec<_>>().join("; ")
    };
    Some(format!("seen {}, predicted {}", without(seen, predicted), without(predicted, seen)))
}

/// Replays the tables of one file; gives the number of rows and what differs.
fn replay(name: &str, hosts: &mut BTreeMap<String, Host>) -> (usize, Vec<String>) {
    let rows = rows(name);
    let mut wrong = Vec::new();
    for row in &rows {
        let label = text(row, "host");
        let read = || if label == "hv-icx" { hyperv_host() } else { host(label) };
        let host = hosts.entry(label.to_owned()).or_insert_with(read);
        let question = question(row, Accelerator::Kvm { host: &host.cpuid, kvm: &host.kvm });
        let output = realize(question);
        let mut predicted = output.cpuid;
        if label == "hv-icx" {
            predicted.retain(|entry| (0x4000_0000..0x4000_0200).contains(&entry.leaf));
        }
        let ends = row["rc"] != 0;
        let difference = match (ends, &output.error) {
            (true, None) => Some(format!("seen {}, predicted a table", row["stderr"])),
            (false, Some(error)) => Some(format!("seen a table, predicted {error:?}")),
            (true, Some(_)) => None,
            (false, None) => difference(&predicted, &entries(&row["cpuid"])),
        };
        if let Some(difference) = difference {
            let asked = format!("{label} {} {} {}", row["cpu"], row["machine"], row["smp"]);
            wrong.push(format!("{name}: {asked}: {difference}"));
        }
    }
    (rows.len(), wrong)
}

fn replay_kind(kind: &str) {
    let mut hosts = BTreeMap::new();
    let results = RELEASES.map(|release| replay(&format!("{kind}-{release}"), &mut hosts));
    judge(kind, &results);
}

fn judge(kind: &str, results: &[(usize, Vec<String>)]) {
    let rows: usize = results.iter().map(|(rows, _)| rows).sum();
    let wrong: Vec<&str> = results.iter().flat_map(|(_, wrong)| wrong).map(String::as_str).collect();
    eprintln!("{kind}: {} of {rows} rows identical", rows - wrong.len());
    assert!(rows > 0 && wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_model_gives_the_table_that_qemu_gave() {
    replay_kind("models");
}

#[test]
fn every_option_gives_the_table_that_qemu_gave() {
    replay_kind("opts");
}

#[test]
fn every_machine_type_gives_the_table_that_qemu_gave() {
    replay_kind("mach");
}

#[test]
fn every_topology_gives_the_table_that_qemu_gave() {
    replay_kind("smp");
}

#[test]
fn hyperv_gives_the_leaves_that_qemu_gave() {
    judge("hv", &[replay("hv", &mut BTreeMap::new())]);
}

/// What the guest got, by leaf and subleaf.
fn answers(row: &Value) -> BTreeMap<(u32, u32), [u32; 4]> {
    let answer = |answer: &Value| {
        let [leaf, subleaf, eax, ebx, ecx, edx] = [0, 1, 2, 3, 4, 5].map(|at| number(&answer[at]));
        ((leaf, subleaf), [eax, ebx, ecx, edx])
    };
    row["rows"].as_array().unwrap().iter().map(answer).collect()
}

/// What differs between the instruction and its answers, over the leaves that the guest asked for: those up to the
/// levels that it was told, and the heads of all ranges. Answers of zeros are not in the rows.
fn misanswered(instruction: &Instruction<'_>, seen: &BTreeMap<(u32, u32), [u32; 4]>, asked: &Asked) -> Vec<String> {
    let limits = [0, 0x8000_0000].map(|head| seen.get(&(head, 0)).map_or(0, |registers| registers[0]));
    let limit = |leaf: u32| if leaf < 0x4000_0000 { limits[0] } else { limits[1] };
    let told = |leaf: u32| leaf & 0xffff == 0 || leaf == 0x4000_0100 || leaf <= limit(leaf);
    let mut wrong = Vec::new();
    for &(leaf, subleaf) in asked.iter().filter(|at| told(at.0) || seen.contains_key(at)) {
        let Registers { eax, ebx, ecx, edx } = instruction.returns(Running::RESET, leaf, subleaf);
        let (predicted, seen) = ([eax, ebx, ecx, edx], seen.get(&(leaf, subleaf)).copied().unwrap_or_default());
        if predicted != seen {
            wrong.push(format!("{leaf:x}.{subleaf:x}: seen {seen:x?}, predicted {predicted:x?}"));
        }
    }
    wrong
}

type Asked = BTreeSet<(u32, u32)>;

/// Under TCG the guest executed CPUID in real mode. A row without answers is a QEMU that did not start.
#[test]
fn tcg_answers_the_instruction_as_it_did() {
    let all = RELEASES.map(|release| rows(&format!("tcgrom-{release}")));
    let asked: Asked = all.iter().flatten().flat_map(answers).map(|(at, _)| at).collect();
    let results = all.each_ref().map(|rows| {
        let mut wrong = Vec::new();
        for row in rows {
            let seen = answers(row);
            let differences = match Instruction::of(question(row, Accelerator::Tcg)) {
                Some(instruction) if !seen.is_empty() => misanswered(&instruction, &seen, &asked),
                Some(_) => vec![format!("seen {}, predicted a CPU", row["stderr"])],
                None if seen.is_empty() => Vec::new(),
                None => vec!["seen a CPU, predicted none".to_owned()],
            };
            if !differences.is_empty() {
                wrong.push(format!("tcg {}: {}: {}", row["ver"], row["cpu"], differences.join("; ")));
            }
        }
        (rows.len(), wrong)
    });
    judge("tcgrom", &results);
}
