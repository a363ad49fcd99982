//! CPUID as real QEMUs gave it to vCPUs, every register of every row: tables of `KVM_SET_CPUID2` on recorded hosts, and
//! what the instruction returned to guests under TCG.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests read files and say what they saw"
)]

mod oracle;

use std::collections::{BTreeMap, BTreeSet};

use cpusieve_knowledge::qemu::RELEASES;
use cpusieve_model::{KvmCpuidEntry, Registers};
use cpusieve_stages::qemu::{Instruction, Running, Smp, realize};
use serde_json::Value;

use oracle::{Host, Row, hosts, rows};

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

/// Replays the tables of one set; `shown` says which entries its rows hold.
fn replay(set: &str, rows: &[Row], hosts: &BTreeMap<String, Host>, shown: fn(&KvmCpuidEntry) -> bool) {
    let mut wrong = Vec::new();
    for row in rows {
        let output = realize(row.question(hosts));
        let predicted: Vec<KvmCpuidEntry> = output.cpuid.into_iter().filter(shown).collect();
        let difference = match (row.failed, &output.error) {
            (true, None) => Some(format!("seen {:?}, predicted a table", row.stderr)),
            (false, Some(error)) => Some(format!("seen a table, predicted {error:?}")),
            (true, Some(_)) => None,
            (false, None) => difference(&predicted, &entries(&row.value["cpuid"])),
        };
        wrong.extend(difference.map(|difference| complaint(row, &difference)));
    }
    judge(set, rows.len(), &wrong);
}

fn complaint(row: &Row, difference: &str) -> String {
    format!("{} {} {} {} {:?}: {difference}", RELEASES[row.release].label, row.host, row.cpu, row.machine, row.smp)
}

fn judge(set: &str, rows: usize, wrong: &[String]) {
    eprintln!("{set}: {} of {rows} rows identical", rows - wrong.len());
    assert!(rows > 0 && wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_model_gives_the_table_that_qemu_gave() {
    replay("models", &rows("models"), &hosts(), |_| true);
}

#[test]
fn every_option_gives_the_table_that_qemu_gave() {
    replay("opts", &rows("opts"), &hosts(), |_| true);
}

#[test]
fn every_machine_type_gives_the_table_that_qemu_gave() {
    replay("mach", &rows("mach"), &hosts(), |_| true);
}

#[test]
fn every_topology_gives_the_table_that_qemu_gave() {
    replay("smp", &rows("smp"), &hosts(), |_| true);
}

#[test]
fn the_text_of_smp_is_read_as_the_rows_mean_it() {
    for row in rows("smp") {
        let machine = cpusieve_knowledge::qemu::machine(row.release, &row.machine).unwrap();
        let text = row.value["smp"].as_str().unwrap();
        assert_eq!(Smp::parse(row.release, machine, text), Ok((row.smp, None)), "{text}");
    }
}

/// The rows hold Hyper-V's and KVM's leaves alone.
#[test]
fn hyperv_gives_the_leaves_that_qemu_gave() {
    let (rows, mut hosts) = (rows("hv"), hosts());
    hosts.insert("hv-icx".to_owned(), oracle::hyperv_host());
    replay("hv", &rows, &hosts, |entry| (0x4000_0000..0x4000_0200).contains(&entry.leaf));
}

/// What the guest got, by leaf and subleaf.
fn answers(row: &Row) -> BTreeMap<(u32, u32), [u32; 4]> {
    let answer = |answer: &Value| {
        let [leaf, subleaf, eax, ebx, ecx, edx] = [0, 1, 2, 3, 4, 5].map(|at| number(&answer[at]));
        ((leaf, subleaf), [eax, ebx, ecx, edx])
    };
    row.value["rows"].as_array().unwrap().iter().map(answer).collect()
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

/// Under TCG the guest executed CPUID in real mode.
#[test]
fn tcg_answers_the_instruction_as_it_did() {
    let (rows, hosts) = (rows("tcgrom"), hosts());
    let asked: Asked = rows.iter().flat_map(answers).map(|(at, _)| at).collect();
    let mut wrong = Vec::new();
    for row in &rows {
        let differences = match Instruction::of(row.question(&hosts)) {
            Some(_) if row.failed => vec![format!("seen {:?}, predicted a CPU", row.stderr)],
            Some(instruction) => misanswered(&instruction, &answers(row), &asked),
            None if row.failed => Vec::new(),
            None => vec!["seen a CPU, predicted none".to_owned()],
        };
        if !differences.is_empty() {
            wrong.push(complaint(row, &differences.join("; ")));
        }
    }
    judge("tcgrom", rows.len(), &wrong);
}
