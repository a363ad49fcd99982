//! A vCPU of our own: what its guest must read from a table, and what it reads.

use std::collections::BTreeSet;

use cpusieve_knowledge::qemu::{self, RELEASES};
use cpusieve_model::{CpuidTable, KvmCpuidEntry, QemuBinary, Register, Snapshot, VcpuCapture, has_subleaves};
use cpusieve_stages::Machine;
use cpusieve_stages::vcpu::{Running, guest, read, running};

use super::guest::register_mismatch;
use super::{Mismatch, Part, Proof};
use crate::predict::way::{NoWay, Route, VcpuPrediction, Vm, until_vcpu};

/// What a vCPU is to be given and asked.
#[derive(Clone, Debug)]
pub struct VcpuQuestion {
    /// What QEMU would make, with `-cpu host`.
    pub prediction: VcpuPrediction,
    /// The table: QEMU's, or, where QEMU would end before it has one, what KVM offers.
    pub table: Vec<KvmCpuidEntry>,
    /// What CPUID is executed for: every entry, and what lies just beyond.
    pub pairs: Vec<(u32, u32)>,
    /// The MSRs that QEMU would write, in its order, and after each that is not zero, zero; then those that the table
    /// promises to the guest.
    pub msrs: Vec<(u32, u64)>,
}

/// The installed QEMU of the newest release; of several, the first on the search path.
#[must_use]
pub fn newest_qemu(snapshot: &Snapshot) -> Option<&QemuBinary> {
    snapshot.qemu.iter().rev().max_by_key(|binary| qemu::nearest(&binary.version).release)
}

/// What a vCPU on the machine of a snapshot is to be given, with `-cpu host` on the newest QEMU that is installed.
///
/// # Errors
/// If there is no prediction of QEMU's table.
pub fn vcpu_question(snapshot: &Snapshot) -> Result<VcpuQuestion, NoWay> {
    let vm = Vm {
        qemu: newest_qemu(snapshot).map(|binary| binary.version.as_str()),
        machine: Some("pc"),
        cpu: Some("host"),
        ..Vm::default()
    };
    let prediction = until_vcpu(snapshot, &Route { vm, ..Route::default() })?;
    let mut table = prediction.qemu.cpuid.clone();
    if table.is_empty() {
        let offered = prediction.kvm.as_ref().and_then(|kvm| kvm.view.supported.clone());
        table = offered.unwrap_or_default();
    }
    let pairs = pairs(&table);
    let msrs = msrs(&prediction, &guest::table(&table));
    Ok(VcpuQuestion { prediction, table, pairs, msrs })
}

/// Every entry of a table, the subleaf and the leaf behind it, and the ends of all ranges.
fn pairs(table: &[KvmCpuidEntry]) -> Vec<(u32, u32)> {
    let mut pairs: BTreeSet<(u32, u32)> = BTreeSet::new();
    for entry in table {
        let behind = |leaf: u32| (leaf.saturating_add(1), 0);
        pairs.extend([(entry.leaf, entry.subleaf), behind(entry.leaf)]);
        // A leaf without subleaves answers for all of them.
        pairs.insert((entry.leaf, entry.subleaf.saturating_add(1)));
    }
    pairs.extend([0, 0x3fff_ffff, 0x4000_0000, 0x4000_0100, 0x7fff_ffff, 0x8000_0000].map(|leaf| (leaf, 0)));
    pairs.extend([0x8000_ffff, 0x8086_0000, 0xc000_0000, 0xffff_ffff].map(|leaf| (leaf, 0)));
    pairs.into_iter().collect()
}

/// An MSR that a bit of CPUID promises, and QEMU's property for the bit.
struct Promise {
    /// The MSRs, both included.
    msrs: (u32, u32),
    /// Leaf, subleaf, register and bit.
    bit: (u32, u32, Register, u8),
    /// What is added to `-cpu` to take the bit away.
    property: &'static str,
}

/// Intel SDM volume 4, AMD APM volume 2; the properties are QEMU's (`target/i386/cpu.c:feature_word_info`). QEMU resets
/// those that are no feature MSRs to zero (`target/i386/kvm/kvm.c:kvm_put_msrs`).
const PROMISES: [Promise; 11] = [
    Promise { msrs: (0x10a, 0x10a), bit: (7, 0, Register::Edx, 29), property: "-arch-capabilities" },
    Promise { msrs: (0xcf, 0xcf), bit: (7, 0, Register::Edx, 30), property: "-core-capability" },
    Promise { msrs: (0x345, 0x345), bit: (1, 0, Register::Ecx, 15), property: "pmu=off" },
    Promise { msrs: (0x480, 0x491), bit: (1, 0, Register::Ecx, 5), property: "-vmx" },
    Promise { msrs: (0x3b, 0x3b), bit: (7, 0, Register::Ebx, 1), property: "-tsc-adjust" },
    Promise { msrs: (0x48, 0x48), bit: (7, 0, Register::Edx, 26), property: "-spec-ctrl" },
    Promise { msrs: (0xe1, 0xe1), bit: (7, 0, Register::Ecx, 5), property: "-waitpkg" },
    Promise { msrs: (0x6e0, 0x6e0), bit: (1, 0, Register::Ecx, 24), property: "-tsc-deadline" },
    Promise { msrs: (0xda0, 0xda0), bit: (0xd, 1, Register::Eax, 3), property: "-xsaves" },
    Promise { msrs: (0xc000_0103, 0xc000_0103), bit: (0x8000_0001, 0, Register::Edx, 27), property: "-rdtscp" },
    Promise { msrs: (0xc001_011f, 0xc001_011f), bit: (0x8000_0008, 0, Register::Ebx, 25), property: "-virt-ssbd" },
];

fn promise(index: u32) -> Option<&'static Promise> {
    PROMISES.iter().find(|promise| (promise.msrs.0..=promise.msrs.1).contains(&index))
}

/// The position of an MSR among those that QEMU writes (`target/i386/kvm/kvm.c:kvm_init_msrs`).
fn order(index: u32) -> usize {
    let of = |msr: u32| match msr {
        0x10a => 0,
        0xcf => 1,
        0x345 => 2,
        0x8b => 4,
        _ => 3,
    };
    of(index)
}

fn msrs(prediction: &VcpuPrediction, table: &CpuidTable) -> Vec<(u32, u64)> {
    let mut written: Vec<(u32, u64)> = prediction.qemu.msrs.iter().map(|(&index, &value)| (index, value)).collect();
    written.sort_by_key(|&(index, _)| (order(index), index));
    let mut all = Vec::new();
    for (index, value) in written {
        all.push((index, value));
        // Without the bit, QEMU writes zero.
        if value != 0 && promise(index).is_some() {
            all.push((index, 0));
        }
    }
    let has = |(leaf, subleaf, register, bit): (u32, u32, Register, u8)| {
        table.get(leaf, subleaf).is_some_and(|registers| registers.get(register) >> bit & 1 == 1)
    };
    for promise in PROMISES.iter().filter(|promise| promise.msrs.0 == promise.msrs.1 && has(promise.bit)) {
        if all.iter().all(|(index, _)| *index != promise.msrs.0) {
            all.push((promise.msrs.0, 0));
        }
    }
    all
}

/// Holds what a vCPU read against its table, and its MSRs against what QEMU would write. `tree` is the host's kernel.
#[must_use]
pub fn vcpu(snapshot: &Snapshot, question: &VcpuQuestion, capture: &VcpuCapture) -> Proof {
    let tree = question.prediction.kvm.as_ref().map_or(0, |kvm| kvm.host.tree);
    let release = RELEASES.get(question.prediction.release).map_or("", |release| release.label);
    let of = format!("a vCPU with QEMU {release}'s table for -cpu host");
    let mut proof = Proof { assumed: question.prediction.assumed.clone(), ..Proof::new(Part::Vcpu, of, "item") };
    if let Some(backend) = Machine::new("host", snapshot).other_kvm_backend() {
        let what = "what it does to a running guest's CPUID is not known, only seen";
        proof.findings.push(format!("/dev/kvm is served by {backend}, neither VMX nor SVM: {what}"));
    }
    if let Some(error) = &question.prediction.qemu.error {
        proof
            .findings
            .push(format!("QEMU {release} would end before it has a table ({error}); KVM's offer stands for it"));
    }
    if let Some(refused) = &capture.refused {
        proof.compared += 1;
        proof.mismatches.push(Mismatch {
            what: "the table".to_owned(),
            predicted: Some("taken".to_owned()),
            real: Some(format!("refused: {refused}")),
            features: Vec::new(),
            cause: "this KVM does not take what it offers; QEMU would end with kvm_arch_init_vcpu's error".to_owned(),
        });
        return proof;
    }
    if let Some(failed) = &capture.failed {
        proof.unseen.push(format!("the guest's program: {failed}"));
    }
    registers(&mut proof, snapshot, capture, tree);
    promised(&mut proof, question, capture);
    proof
}

fn registers(proof: &mut Proof, snapshot: &Snapshot, capture: &VcpuCapture, tree: usize) {
    let table = running(&guest::table(&capture.table), &Running::default(), tree);
    let host = snapshot.first_cpuid().map(|cpu| &cpu.cpuid);
    let (mut foreign, mut same_as_host) = (0, 0);
    for answer in &capture.answers {
        let (leaf, subleaf) = (answer.leaf, answer.subleaf);
        let expected = read(&table, leaf, subleaf, tree);
        let of_host = host.and_then(|host| host.get(leaf, if has_subleaves(leaf) { subleaf } else { 0 }));
        for register in Register::ALL {
            proof.compared += 1;
            let (made, real) = (expected.get(register), answer.registers.get(register));
            let physical = of_host.map(|registers| registers.get(register));
            if physical.is_some_and(|physical| physical != made) {
                foreign += 1;
                same_as_host += usize::from(physical == Some(real));
            }
            if made != real {
                // A leaf without subleaves is asked for two, and answers both alike.
                let subleaf = if has_subleaves(leaf) { subleaf } else { 0 };
                let cause = cause(made, real, physical);
                let found = Mismatch { cause, ..register_mismatch((leaf, subleaf, register), made, real) };
                if !proof.mismatches.contains(&found) {
                    proof.mismatches.push(found);
                }
            }
        }
    }
    if foreign > 0 && same_as_host * 10 > foreign * 9 {
        let what =
            "this KVM does not intercept CPUID: the guest reads the host's own registers, whatever its table says";
        proof.findings.push(what.to_owned());
    }
}

/// Where a value may come from that is not the table's.
fn cause(made: u32, real: u32, host: Option<u32>) -> String {
    let (more, less) = (real & !made, made & !real);
    match host {
        Some(host) if host == real => "the guest reads the host's own register instead of its table".to_owned(),
        Some(host) if more != 0 && more & !host == 0 => {
            let less = if less == 0 { "" } else { ", and hides bits that the table has" };
            format!("KVM adds bits of the host's own CPUID that the table does not have{less}")
        }
        _ if more == 0 => "KVM hides bits that the table has".to_owned(),
        _ => "KVM edits this register while the guest runs, in a way that is not known".to_owned(),
    }
}

/// The MSRs that were refused: which of them end QEMU, and what avoids it.
fn promised(proof: &mut Proof, question: &VcpuQuestion, capture: &VcpuCapture) {
    let release = RELEASES.get(question.prediction.release).map_or("", |release| release.label);
    let taken = |index: u32, value: u64| capture.msrs.contains(&(index, value, true));
    for &(index, value, took) in &capture.msrs {
        let writes = question.prediction.qemu.msrs.get(&index) == Some(&value);
        let in_question = writes || !question.prediction.qemu.msrs.contains_key(&index);
        proof.compared += usize::from(in_question);
        if took || !in_question {
            continue;
        }
        let property = promise(index).map(|promise| promise.property);
        let cause = match (writes, property) {
            (true, Some(property)) if taken(index, 0) => format!(
                "QEMU {release} -cpu host would end with `failed to set MSR {index:#x} to {value:#x}`; \
                 -cpu host,{property} avoids it"
            ),
            (true, _) => format!(
                "QEMU {release} would end with `failed to set MSR {index:#x} to {value:#x}`; no property of -cpu avoids it"
            ),
            (false, Some(property)) => format!(
                "the table promises this MSR, and KVM does not let it be written; -cpu host,{property} takes the promise back"
            ),
            (false, None) => "the table promises this MSR, and KVM does not let it be written".to_owned(),
        };
        proof.mismatches.push(Mismatch {
            what: format!("MSR {index:X}H = {value:#x}"),
            predicted: Some("taken".to_owned()),
            real: Some("refused".to_owned()),
            features: Vec::new(),
            cause,
        });
    }
}

/// What has to be added to `-cpu host` so that QEMU does not end over an MSR that KVM refuses; empty if nothing, or
/// nothing helps.
#[must_use]
pub(super) fn remedies(refused: &VcpuCapture) -> Vec<&'static str> {
    let zero_taken = |index: u32| refused.msrs.contains(&(index, 0, true));
    let refused = refused.msrs.iter().filter(|(index, value, took)| !took && *value != 0 && zero_taken(*index));
    let mut properties: Vec<&'static str> = refused.filter_map(|(index, ..)| Some(promise(*index)?.property)).collect();
    properties.dedup();
    properties
}

#[cfg(test)]
mod tests {
    use cpusieve_knowledge::linux::TREES;
    use cpusieve_model::{Cpu, CpuidEntry, Registers};

    use super::*;

    #[test]
    fn pairs_reach_beyond_every_entry() {
        let entry = |leaf, subleaf| KvmCpuidEntry { leaf, subleaf, flags: 0, registers: Default::default() };
        let pairs = pairs(&[entry(0xd, 2), entry(u32::MAX, u32::MAX)]);
        for pair in [(0xd, 2), (0xd, 3), (0xe, 0), (0x8000_0000, 0), (u32::MAX, u32::MAX)] {
            assert!(pairs.contains(&pair), "{pair:x?}");
        }
    }

    #[test]
    fn a_cause_names_where_the_bits_come_from() {
        assert!(cause(0, 3, Some(3)).contains("own register"));
        assert!(
            cause(4, 3, Some(0xff)).contains("adds bits of the host's own CPUID")
                && cause(4, 3, Some(0xff)).contains("hides")
        );
        assert!(cause(7, 3, Some(0xff)).contains("hides"));
        assert!(cause(0, 8, Some(3)).contains("not known"));
    }

    #[test]
    fn a_backend_that_does_not_intercept_is_found() {
        let table = |eax: u32| {
            let registers = |leaf: u32| Registers { eax: eax.max(8), ebx: eax ^ leaf, ecx: eax, edx: eax };
            (0..8).map(|leaf| (leaf, registers(leaf))).collect::<Vec<_>>()
        };
        let mut snapshot = Snapshot { cpus: vec![Cpu::default()], ..Snapshot::default() };
        for (leaf, registers) in table(0xff) {
            snapshot.cpus[0].cpuid.insert(leaf, 0, registers);
        }
        let entry = |(leaf, registers)| KvmCpuidEntry { leaf, subleaf: 0, flags: 0, registers };
        let answer = |(leaf, registers)| CpuidEntry { leaf, subleaf: 0, registers };
        let told = |answers: Vec<(u32, Registers)>| {
            let capture = VcpuCapture {
                table: table(0x10).into_iter().map(entry).collect(),
                answers: answers.into_iter().map(answer).collect(),
                ..VcpuCapture::default()
            };
            let mut proof = Proof::new(Part::Vcpu, String::new(), "item");
            registers(&mut proof, &snapshot, &capture, TREES.len() - 1);
            proof
        };
        let native = told(table(0xff));
        assert!(native.findings[0].contains("does not intercept"), "{native:?}");
        assert!(!native.mismatches.is_empty());
        let intercepted = told(table(0x10));
        assert_eq!(intercepted.findings, [""; 0]);
    }

    #[test]
    fn a_property_helps_only_where_zero_is_taken() {
        let of = |msrs: &[(u32, u64, bool)]| VcpuCapture { msrs: msrs.to_vec(), ..VcpuCapture::default() };
        assert_eq!(remedies(&of(&[(0x10a, 0x69, false), (0x10a, 0, true)])), ["-arch-capabilities"]);
        assert_eq!(remedies(&of(&[(0x10a, 0x69, false), (0x10a, 0, false)])), [""; 0]);
        assert_eq!(remedies(&of(&[(0x10a, 0x69, true), (0x10a, 0, true)])), [""; 0]);
    }

    #[test]
    fn promises_do_not_overlap_and_qemu_writes_in_its_order() {
        for (number, promise) in PROMISES.iter().enumerate() {
            assert!(promise.msrs.0 <= promise.msrs.1);
            let overlaps = |other: &Promise| other.msrs.0 <= promise.msrs.1 && promise.msrs.0 <= other.msrs.1;
            assert_eq!(PROMISES.iter().position(overlaps), Some(number));
        }
        assert!(order(0x10a) < order(0x480) && order(0x480) < order(0x8b));
    }
}
