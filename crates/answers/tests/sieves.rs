//! The sieve that `diff` blames is the one that took the flag: over many predicted hosts and guests, against what the
//! tables between the sieves prove.
#![allow(clippy::unwrap_used, reason = "a test that cannot read its corpus has failed")]

mod truth;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use cpusieve_answers::diff::{self, Diff, Relation};
use cpusieve_answers::predict::Kernel;
use cpusieve_answers::predict::kvm;
use cpusieve_answers::predict::way::{GuestPrediction, Route, Vm, until_guest};
use cpusieve_answers::reason::Confidence;
use cpusieve_formats::lab;
use cpusieve_knowledge::linux;
use cpusieve_model::{Cpu, CpuidTable, Cpuinfo, LinuxView, MsrReading, Registers, Snapshot, Stage, Vendor};
use truth::Truth;

/// Host kernels, and the QEMU beside each.
const HOSTS: [(&str, &str); 4] = [("5.10", "5.2"), ("6.1", "7.2"), ("6.12", "10.0"), ("7.3", "11.1")];

/// What is known of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    /// KVM's answers, QEMU and its command line, CPUID and flags of both ends.
    All,
    /// CPUID, flags and kernels of both ends.
    Cpuid,
    /// The host's CPUID and kernel, the guest's flags line.
    HostCpuid,
    /// Two flags lines.
    Lines,
}

const SEEN: [Seen; 4] = [Seen::All, Seen::Cpuid, Seen::HostCpuid, Seen::Lines];

/// The same CPU as bare metal: without the hypervisor bit and the hypervisor's leaves, and nothing but it.
fn bare(snapshot: &Snapshot) -> Option<Snapshot> {
    let cpu = snapshot.first_cpuid()?;
    let mut cpuid: CpuidTable =
        cpu.cpuid.entries().iter().filter(|entry| entry.leaf >> 16 != 0x4000).copied().collect();
    let first = cpuid.get(1, 0)?;
    cpuid.insert(1, 0, Registers { ecx: first.ecx & !(1 << 31), ..first });
    Some(Snapshot { cpus: vec![Cpu { cpuid, msrs: cpu.msrs.clone(), ..Cpu::default() }], ..Snapshot::default() })
}

#[allow(clippy::disallowed_methods, reason = "a test reads the corpus")]
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    let (folders, mut files): (Vec<_>, Vec<_>) = found.into_iter().partition(|path| path.is_dir());
    files.extend(folders.iter().flat_map(|folder| self::files(folder)));
    files
}

#[allow(clippy::disallowed_methods, reason = "a test reads the corpus")]
fn bytes(path: &Path) -> Vec<u8> {
    let mut bytes = fs::read(path).unwrap();
    if path.extension().is_some_and(|end| end == "gz") {
        let packed = std::mem::take(&mut bytes);
        flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut bytes).unwrap();
    }
    bytes
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// The machines of the repository's corpus that were booted whole.
fn own_hosts() -> Vec<(String, Snapshot)> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus");
    let captured = ["guests-bochs", "guests-kvm"].iter().flat_map(|folder| files(&corpus.join(folder)));
    let captured =
        captured.filter(|path| path.to_string_lossy().contains("json") && !path.to_string_lossy().contains("trace"));
    let captured = captured.map(|path| (name(&path), lab::capture(&name(&path), &bytes(&path)).parsed.snapshot));
    let records = files(&corpus.join("qemu-oracle/hosts")).into_iter();
    let records = records.map(|path| (name(&path), cpusieve_formats::read(&name(&path), &bytes(&path)).snapshot));
    captured.chain(records).filter_map(|(name, snapshot)| Some((name, bare(&snapshot)?))).collect()
}

/// Dumps of real CPUs that are not part of the repository; says so if they are missing.
#[allow(clippy::disallowed_methods, clippy::print_stderr, reason = "a test reads files and says why it is skipped")]
fn dumps() -> Vec<(String, Snapshot)> {
    let root = std::env::var("CPUSIEVE_SHARED")
        .map_or_else(|_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let folder = root.join("corpus/instlatx64");
    if !folder.is_dir() {
        eprintln!("skipped: {} is missing (CPUSIEVE_SHARED names another place)", folder.display());
        return Vec::new();
    }
    let texts = files(&folder).into_iter().filter(|path| path.extension().is_some_and(|end| end == "txt"));
    let read = texts.map(|path| (name(&path), cpusieve_formats::read(&name(&path), &bytes(&path)).snapshot));
    read.filter_map(|(name, snapshot)| Some((name, bare(&snapshot)?))).collect()
}

/// A machine with this CPUID and these MSRs, on which a kernel of this tree prints this line.
fn end(cpu: Option<Cpu>, flags: &[&str], tree: usize) -> Snapshot {
    let linux = cpu
        .is_some()
        .then(|| LinuxView { release: Some(linux::TREES[tree].version.to_owned()), ..LinuxView::default() });
    let cpuinfo = Some(Cpuinfo { flags: Some(flags.iter().copied().collect()), ..Cpuinfo::default() });
    Snapshot { cpus: vec![Cpu { cpuinfo, ..cpu.unwrap_or_default() }], linux, ..Snapshot::default() }
}

/// A vCPU's table as a program in the guest reads it: with the leaves that are zero.
fn read(table: &CpuidTable) -> CpuidTable {
    let mut read = table.clone();
    for first in [0, 0x8000_0000] {
        let last = table.get(first, 0).map_or(first, |registers| registers.eax);
        for leaf in (first..=last).filter(|leaf| table.leaf(*leaf).is_empty()) {
            read.insert(leaf, 0, Registers::default());
        }
    }
    read
}

/// What is left of a prediction if only so much was seen, compared.
fn compared(found: &GuestPrediction, host: &Snapshot, seen: Seen) -> Option<Diff> {
    if seen == Seen::All {
        return found.against_host(host);
    }
    let kernel = &found.vcpu.kvm.as_ref().unwrap().host;
    let silicon = host.first_cpuid().unwrap();
    let mut vcpu = Cpu { cpuid: read(&found.cpuid), ..Cpu::default() };
    for (&index, &value) in &found.vcpu.qemu.msrs {
        vcpu.msrs.insert(index, MsrReading::Value(value));
    }
    let (ours, theirs) = match seen {
        Seen::Lines => (None, None),
        Seen::HostCpuid => (Some(silicon.clone()), None),
        _ => (Some(silicon.clone()), Some(vcpu)),
    };
    let host = end(ours, &kernel.boot.flags, kernel.tree);
    let guest = end(theirs, &found.guest.boot.flags, found.guest.tree);
    diff::diff(&host, &guest).ok()
}

/// Counts, and what disagrees.
#[derive(Default)]
struct Tally {
    pairs: usize,
    certain: BTreeMap<Seen, usize>,
    others: BTreeMap<Seen, usize>,
    wrong: BTreeMap<String, Vec<String>>,
    doubtful: BTreeMap<String, BTreeSet<String>>,
}

impl Tally {
    fn take(&mut self, found: &GuestPrediction, host: &Snapshot, label: &str) {
        let truth = Truth::new(found, host.first_cpuid().unwrap());
        self.pairs += 1;
        for seen in SEEN {
            let Some(diff) = compared(found, host, seen).filter(|diff| diff.relation == Relation::HostAndGuest) else {
                continue;
            };
            let lost = diff.lost.iter().map(|item| (item, truth.lost(&item.flag)));
            let gained = diff.gained.iter().map(|item| (item, truth.gained(&item.flag)));
            for (item, proved) in lost.chain(gained).filter_map(|(item, proved)| Some((item, proved?))) {
                let certain = item.confidence == Confidence::Certain;
                let counts = if certain { &mut self.certain } else { &mut self.others };
                *counts.entry(seen).or_default() += 1;
                if item.at == Some(proved) {
                    continue;
                }
                let at = item.at.map_or("nobody", Stage::name);
                let case = format!("{seen:?}: {} at {at} by {}, proved {proved}", item.flag, item.rule);
                if certain {
                    self.wrong.entry(case).or_default().push(label.to_owned());
                } else {
                    self.doubtful.entry(case).or_default().insert(label.to_owned());
                }
            }
        }
    }

    #[allow(clippy::print_stderr, reason = "what is likely and wrong is listed")]
    fn close(self, least: usize) {
        eprintln!("{} pairs; certain {:?}, others {:?}", self.pairs, self.certain, self.others);
        for (case, labels) in &self.doubtful {
            eprintln!("not certain, and wrong: {case} ({}, such as {})", labels.len(), labels.first().unwrap());
        }
        let wrong: Vec<String> =
            self.wrong.iter().map(|(case, labels)| format!("{case} ({}: {})", labels.len(), labels[0])).collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(self.pairs >= least, "{} pairs", self.pairs);
    }
}

/// The guests of one host: some pairs of host kernel and QEMU, three times `-cpu`.
fn guests(tally: &mut Tally, name: &str, host: &Snapshot, pairs: &[(&str, &str)]) {
    let amd = matches!(host.vendor(), Some(Vendor::Amd | Vendor::Hygon));
    for &(release, version) in pairs {
        for cpu in ["host", "host,migratable=off", if amd { "EPYC" } else { "Skylake-Client" }] {
            let kernel = Kernel { release: Some(release), ..Kernel::new(Stage::Host) };
            let route = Route {
                kvm: kvm::Question::new(kernel),
                vm: Vm { qemu: Some(version), machine: Some("pc"), cpu: Some(cpu), ..Vm::default() },
                guest: Kernel { release: Some(release), ..Kernel::new(Stage::Guest) },
            };
            let Ok(found) = until_guest(host, &route) else { continue };
            tally.take(&found, host, &format!("{name}, Linux {release}, QEMU {version} -cpu {cpu}"));
        }
    }
}

#[test]
fn the_sieve_that_is_blamed_is_the_first_that_lacks_it_on_machines_of_the_corpus() {
    let mut tally = Tally::default();
    for (name, host) in own_hosts() {
        guests(&mut tally, &name, &host, &HOSTS);
    }
    tally.close(100);
}

#[test]
fn the_sieve_that_is_blamed_is_the_first_that_lacks_it_on_real_cpus() {
    let dumps = dumps();
    let mut tally = Tally::default();
    // Half of the pairs each, in turn: the answers to these are many.
    for (index, (name, host)) in dumps.iter().enumerate() {
        guests(&mut tally, name, host, if index % 2 == 0 { &HOSTS[..2] } else { &HOSTS[2..] });
    }
    tally.close(if dumps.is_empty() { 0 } else { 400 });
}
