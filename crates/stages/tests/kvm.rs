//! Real KVM on captured hosts, replayed: from the host's CPUID to every register of every entry that KVM answered.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests read files and say what they saw"
)]

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use cpusieve_formats::lab;
use cpusieve_knowledge::linux;
use cpusieve_model::{KvmCpuidEntry, Snapshot, Stage};
use cpusieve_stages::Machine;
use cpusieve_stages::kvm::answer::{Input, Output, answer};
use cpusieve_stages::linux::boot::{self, Unlisted, boot};

/// One captured host with KVM.
struct Capture {
    name: String,
    snapshot: Snapshot,
}

fn corpus(folder: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../corpus").join(folder)
}

fn read(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap();
    if path.extension().is_some_and(|extension| extension == "gz") {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&*bytes).read_to_end(&mut plain).unwrap();
        return plain;
    }
    bytes
}

/// The captures of a folder in which KVM answered.
fn captures(folder: &str) -> Vec<Capture> {
    let entries = std::fs::read_dir(corpus(folder)).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    paths.sort();
    let captured = paths.iter().map(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut snapshot = lab::capture(&name, &read(path)).parsed.snapshot;
        if let Some(linux) = &mut snapshot.linux {
            linux.config = linux.release.as_deref().and_then(config);
        }
        Capture { name, snapshot }
    });
    captured.filter(|capture| capture.snapshot.kvm.as_ref().is_some_and(|kvm| kvm.supported.is_some())).collect()
}

/// What is kept of the configuration of a captured kernel.
fn config(release: &str) -> Option<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(corpus("guests-tcg/configs").join(format!("{release}.config"))).ok()?;
    let options = text.lines().filter_map(|line| line.split_once('='));
    Some(options.map(|(option, value)| (option.to_owned(), value.to_owned())).collect())
}

fn tree(snapshot: &Snapshot) -> usize {
    let release = snapshot.linux.as_ref().and_then(|linux| linux.release.as_deref()).unwrap();
    let named = linux::nearest(release).tree;
    let candidates = Machine::new("host", snapshot).trees();
    if candidates.contains(named) { named } else { candidates.first().unwrap() }
}

fn predict(snapshot: &Snapshot, tree: usize) -> Output {
    let seen = boot::Input::of_snapshot("host", Stage::Host, snapshot).unwrap();
    // The captures list MSRs that are not zero, and both emulators answer zero for MSRs that they do not know.
    let host = boot::Input { unlisted: Unlisted::Zero, ..seen };
    let kernels = [boot(&host, tree)];
    let kvm = snapshot.kvm.as_ref().unwrap();
    let input = Input {
        of: "host",
        cpuid: host.cpuid,
        msrs: host.msrs,
        unlisted: host.unlisted,
        kernels: &kernels,
        cmdline: host.cmdline,
        config: host.config,
        params: &kvm.params,
        permitted: 0,
    };
    answer(&input, tree)
}

fn line(entry: &KvmCpuidEntry) -> String {
    let KvmCpuidEntry { leaf, subleaf, flags, registers } = *entry;
    let cpusieve_model::Registers { eax, ebx, ecx, edx } = registers;
    format!("{leaf:#010x} {subleaf:#x} flags {flags:#x}: {eax:08x} {ebx:08x} {ecx:08x} {edx:08x}")
}

/// The entries in which two answers differ; none if they are the same in the same order.
fn difference(what: &str, seen: &[KvmCpuidEntry], predicted: &[KvmCpuidEntry]) -> Vec<String> {
    if seen == predicted {
        return Vec::new();
    }
    let alone = |these: &[KvmCpuidEntry], those: &[KvmCpuidEntry], who: &str| {
        let alone = these.iter().filter(|entry| !those.contains(entry));
        alone.map(|entry| format!("  {what} {who}: {}", line(entry))).collect::<Vec<_>>()
    };
    let mut lines = alone(seen, predicted, "KVM      ");
    lines.extend(alone(predicted, seen, "predicted"));
    if lines.is_empty() {
        lines.push(format!("  {what}: the same entries in another order"));
    }
    lines
}

/// Replays a folder; the number of captures and of those that came out exactly.
fn replay(folder: &str) -> (usize, usize) {
    let captures = captures(folder);
    let mut exact = 0;
    for Capture { name, snapshot } in &captures {
        let tree = tree(snapshot);
        let output = predict(snapshot, tree);
        let kvm = snapshot.kvm.as_ref().unwrap();
        let of = |entries: &Option<Vec<KvmCpuidEntry>>| entries.clone().unwrap_or_default();
        let mut wrong = difference("supported", &of(&kvm.supported), &of(&output.view.supported));
        wrong.extend(difference("emulated", &of(&kvm.emulated), &of(&output.view.emulated)));
        if wrong.is_empty() {
            exact += 1;
        } else {
            eprintln!("{name} ({}) {:?}\n{}", linux::TREES[tree].label, output.findings, wrong.join("\n"));
        }
    }
    eprintln!("{folder}: {} hosts with KVM, {exact} answers exact", captures.len());
    (captures.len(), exact)
}

#[test]
fn real_kvm_answers_what_is_predicted() {
    let (hosts, exact) = replay("guests-kvm");
    assert!(hosts > 0);
    assert_eq!(hosts, exact);
}

#[test]
fn kvm_on_emulated_bare_metal_answers_what_is_predicted() {
    let (hosts, exact) = replay("guests-bochs");
    assert!(hosts > 0);
    assert_eq!(hosts, exact);
}
