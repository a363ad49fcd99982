//! The rows of `corpus/qemu-oracle`: what real QEMU binaries answered on recorded hosts.
#![allow(dead_code, reason = "every test file uses a part of it")]

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use cpusieve_formats::record;
use cpusieve_knowledge::qemu;
use cpusieve_model::{CpuidTable, KvmCpuidEntry, KvmView, Registers};
use cpusieve_stages::qemu::{Accelerator, Irqchip, Protected, Question, Smp};
use serde_json::Value;

/// A recorded host.
pub(crate) struct Host {
    pub cpuid: CpuidTable,
    pub kvm: KvmView,
}

/// One answer of a real QEMU.
pub(crate) struct Row {
    pub release: usize,
    pub host: String,
    pub cpu: String,
    pub machine: String,
    pub smp: Smp,
    /// Lines on standard error, without the program's name.
    pub stderr: Vec<String>,
    /// Whether QEMU ended.
    pub failed: bool,
    pub value: Value,
}

pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../corpus/qemu-oracle")
}

/// The text of a compressed file.
pub(crate) fn unpack(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

/// The hosts by name. The binaries ran on two CPUs, with a TSC of 2 GHz.
pub(crate) fn hosts() -> BTreeMap<String, Host> {
    let paths = std::fs::read_dir(folder().join("hosts")).unwrap().map(|entry| entry.unwrap().path());
    paths
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().trim_end_matches(".json.gz").to_owned();
            let snapshot = record::parse(&name, &unpack(&path)).snapshot;
            let mut kvm = snapshot.kvm.clone().unwrap();
            kvm.caps.insert(9, 2);
            kvm.tsc_khz = Some(2_000_000);
            (name, Host { cpuid: snapshot.cpus[0].cpuid.clone(), kvm })
        })
        .collect()
}

/// `hv-icx`, the host of the Hyper-V rows, of which no record exists: QEMU 5.2 hands on KVM's Hyper-V leaves as they are
/// with `hv-passthrough`, so its answer to that is what KVM offers; all else is another Ice Lake.
pub(crate) fn hyperv_host() -> Host {
    let mut host = hosts().remove("icx-6.1").unwrap();
    let passed = rows("hv").into_iter().find(|row| row.release == 0 && row.cpu.contains("hv-passthrough")).unwrap();
    let entries = passed.value["cpuid"].as_array().unwrap().iter().map(|entry| {
        let [leaf, subleaf, flags, eax, ebx, ecx, edx] =
            [0, 1, 2, 3, 4, 5, 6].map(|at| entry[at].as_u64().unwrap() as u32);
        KvmCpuidEntry { leaf, subleaf, flags, registers: Registers { eax, ebx, ecx, edx } }
    });
    host.kvm.hyperv = Some(entries.filter(|entry| entry.leaf < 0x4000_0100).collect());
    // Hyper-V at all, its VP index, its table by two ioctls.
    host.kvm.caps.extend([(44, 1), (149, 1), (167, 1), (191, 1)]);
    host
}

/// All rows of `results-SET-*.jsonl.gz`.
pub(crate) fn rows(set: &str) -> Vec<Row> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with(&format!("results-{set}")));
    paths.sort();
    assert!(!paths.is_empty(), "no rows of {set}");
    let texts = paths.iter().map(|path| String::from_utf8(unpack(path)).unwrap());
    texts.flat_map(|text| text.lines().map(row).collect::<Vec<_>>()).collect()
}

fn row(line: &str) -> Row {
    let value: Value = serde_json::from_str(line).unwrap();
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    let lines = value["stderr"].as_array().unwrap().iter().map(|line| line.as_str().unwrap());
    Row {
        release: qemu::nearest(value["ver"].as_str().unwrap()).release,
        host: text("host").unwrap_or_default(),
        cpu: text("cpu").unwrap(),
        machine: text("machine").unwrap_or_else(|| "q35".to_owned()),
        smp: smp(value["smp"].as_str().unwrap_or("1")),
        stderr: lines.map(|line| line.trim_start_matches("qemu-system-x86_64: ").to_owned()).collect(),
        // A guest that reports CPUID ends QEMU by itself, with status 1.
        failed: value["rc"] != 0 && value["rows"].as_array().is_none_or(Vec::is_empty),
        value,
    }
}

/// The rows name all parts that are not 1.
fn smp(text: &str) -> Smp {
    let mut smp = Smp::default();
    for part in text.split(',') {
        match part.split_once('=') {
            None => smp.cpus = part.parse().unwrap(),
            Some(("sockets", number)) => smp.sockets = number.parse().unwrap(),
            Some(("dies", number)) => smp.dies = number.parse().unwrap(),
            Some(("cores", number)) => smp.cores = number.parse().unwrap(),
            Some(("threads", number)) => smp.threads = number.parse().unwrap(),
            Some(other) => panic!("{other:?}"),
        }
    }
    smp
}

impl Row {
    pub(crate) fn question<'a>(&'a self, hosts: &'a BTreeMap<String, Host>) -> Question<'a> {
        let machine = qemu::machine(self.release, &self.machine).unwrap();
        let accelerator = match hosts.get(&self.host) {
            Some(host) => Accelerator::Kvm { host: &host.cpuid, kvm: &host.kvm },
            None => Accelerator::Tcg,
        };
        Question {
            release: self.release,
            machine,
            accelerator,
            cpu: &self.cpu,
            smp: self.smp,
            cpu_pm: false,
            irqchip: Irqchip::of(machine),
            protected: Protected::default(),
        }
    }

    pub(crate) fn name(&self) -> String {
        let release = qemu::RELEASES[self.release].label;
        format!("{release} {} -cpu {} -machine {} {:?}", self.host, self.cpu, self.machine, self.smp)
    }
}
