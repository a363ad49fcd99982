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
use cpusieve_knowledge::rules;
use cpusieve_model::{CpuidTable, Effect, KvmCpuidEntry, KvmView, Registers, Snapshot, Stage};
use cpusieve_stages::Machine;
use cpusieve_stages::kvm::answer::{Finding, Input, Output, answer, calls};
use cpusieve_stages::linux::boot::{self, Unlisted, boot};
use cpusieve_stages::vcpu::{self, Running};

/// One captured host with KVM.
struct Capture {
    name: String,
    text: String,
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
        let bytes = read(path);
        let mut snapshot = lab::capture(&name, &bytes).parsed.snapshot;
        if let Some(linux) = &mut snapshot.linux {
            linux.config = linux.release.as_deref().and_then(config);
        }
        Capture { name, snapshot, text: String::from_utf8(bytes).unwrap() }
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
    let Registers { eax, ebx, ecx, edx } = registers;
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
    for Capture { name, snapshot, .. } in &captures {
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

/// Both folders.
fn all() -> impl Iterator<Item = Capture> {
    captures("guests-kvm").into_iter().chain(captures("guests-bochs"))
}

/// The calls of `do_host_cpuid` in a trace: leaf and subleaf.
fn traced(name: &str) -> Option<Vec<(u32, u32)>> {
    let name = name.split(".json").next().unwrap();
    let path = corpus("guests-kvm/trace").join(format!("{name}-trace-supported.txt.gz"));
    let text = path.exists().then(|| String::from_utf8(read(&path)).unwrap())?;
    let argument = |line: &str, key: &str| {
        let value = line.split_ascii_whitespace().find_map(|word| word.strip_prefix(key))?;
        u32::from_str_radix(value.strip_prefix("0x")?, 16).ok()
    };
    let lines = text.lines().filter(|line| line.contains("do_host_cpuid: "));
    Some(lines.map(|line| (argument(line, "a2=").unwrap(), argument(line, "a3=").unwrap())).collect())
}

#[test]
fn kvm_asks_the_processor_as_often_as_is_predicted() {
    let (mut traces, mut asked) = (0, 0);
    for Capture { name, snapshot, .. } in captures("guests-kvm") {
        let Some(traced) = traced(&name) else { continue };
        let tree = tree(&snapshot);
        let output = predict(&snapshot, tree);
        let predicted: Vec<(u32, u32)> = output.calls.iter().map(|call| (call.leaf, call.subleaf)).collect();
        assert_eq!(traced, predicted, "{name}");
        traces += 1;
        asked += traced.len();
        // QEMU tries with room for 1, 2, 4, ... entries: 58 entries take seven tries, and leaf 0 is seen in each.
        let entries = output.view.supported.unwrap().len();
        let retried = calls::by_qemu(&output.calls, entries, tree);
        assert_eq!(retried[&0], (entries + 1).next_power_of_two().ilog2() as usize + 1, "{name}");
    }
    eprintln!("{traces} traces, {asked} calls");
    assert!(traces > 0);
}

/// The lines of a list in a capture, as tables: `0x00000001 0x00: flags=0x0 eax=0x... ...`.
fn listed(text: &str, key: &str) -> Vec<(u32, u32, Registers)> {
    let list = text.split_once(&format!("\"{key}\": [")).map_or("", |(_, rest)| rest);
    let list = list.split_once(']').map_or("", |(list, _)| list);
    let number = |text: &str| u32::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
    let lines = list.split('"').filter(|line| line.trim_start().starts_with("0x"));
    lines
        .map(|line| {
            let (place, values) = line.split_once(':').unwrap();
            let mut place = place.split_ascii_whitespace().map(number);
            let value =
                |name: &str| number(values.split_ascii_whitespace().find_map(|word| word.strip_prefix(name)).unwrap());
            let registers =
                Registers { eax: value("eax="), ebx: value("ebx="), ecx: value("ecx="), edx: value("edx=") };
            (place.next().unwrap(), place.next().unwrap(), registers)
        })
        .collect()
}

/// A vCPU that got KVM's own answer and was read back: the edits of a vCPU after reset.
#[test]
fn a_vcpu_after_reset_has_the_edits_that_are_predicted() {
    let mut checked = 0;
    for Capture { name, snapshot, text } in all() {
        let after = listed(&text, "vcpu_get_cpuid2_after_set");
        let tree = tree(&snapshot);
        let set = snapshot.kvm.as_ref().and_then(KvmView::supported_table).unwrap();
        let edited = vcpu::running(&set, &Running::default(), tree);
        // The buffer that was read back into was larger than the answer.
        for (leaf, subleaf, seen) in after.into_iter().filter(|(_, _, registers)| !registers.is_zero()) {
            let (leaf_set, predicted) = (set.get(leaf, subleaf), edited.get(leaf, subleaf));
            assert_eq!(Some(seen), predicted, "{name}: {leaf:#x}.{subleaf:#x}, set {leaf_set:x?}");
            checked += 1;
        }
    }
    eprintln!("{checked} entries read back");
    assert!(checked > 0);
}

/// Laws of the steps: a rule and a cite for each, the effect that the answer shows, and no bit of the answer unexplained.
#[test]
fn every_step_has_a_rule_and_agrees_with_the_answer() {
    for Capture { name, snapshot, .. } in all() {
        let tree = tree(&snapshot);
        let output = predict(&snapshot, tree);
        let answer: CpuidTable = KvmView::supported_table(&output.view).unwrap();
        let host = &snapshot.cpus[0].cpuid;
        for step in &output.steps {
            let known = rules::rule(step.rule.0).is_some() || rules::condition(step.rule.0).is_some();
            assert!(known, "{name}: {} has no rule", step.feature);
            assert!(!step.cite.function().is_empty(), "{name}: {} has no cite", step.feature);
            let bit = step.place.unwrap().cpuid().unwrap();
            let set = |table: &CpuidTable| {
                table.get(bit.leaf, bit.subleaf).is_some_and(|leaf| leaf.get(bit.register) >> bit.bit & 1 == 1)
            };
            let expected = match (set(host), set(&answer)) {
                (_, false) => Effect::Dropped,
                (true, true) => Effect::Kept,
                (false, true) => Effect::Added,
            };
            assert_eq!(step.effect, expected, "{name}: {}", step.feature);
        }
    }
}

/// Laws of any answer: leaf 0 first, no entry twice, nothing above what is announced, and findings wherever there is none.
fn laws(name: &str, output: &Output) {
    let Some(entries) = &output.view.supported else {
        assert!(!output.findings.is_empty(), "{name}: neither answer nor finding");
        return;
    };
    assert_eq!(entries.first().map(|entry| entry.leaf), Some(0), "{name}");
    let table = KvmView::supported_table(&output.view).unwrap();
    // Leaf 2 alone may be answered several times, by old kernels.
    assert!(table.len() == entries.iter().filter(|entry| entry.flags & 6 != 2).count(), "{name}: an entry twice");
    for entry in entries {
        assert!(table.maximum(entry.leaf).is_some_and(|maximum| entry.leaf <= maximum), "{name}: {:#x}", entry.leaf);
    }
    assert!(output.calls.len() >= entries.len(), "{name}");
}

/// Other people's dumps of real silicon as hosts: nobody knows what KVM answered there, but the laws hold.
#[test]
fn dumps_of_real_silicon_keep_the_laws() {
    let root = std::env::var("CPUSIEVE_SHARED")
        .map_or_else(|_| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let folder = root.join("corpus/instlatx64");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("skipped: {} is missing (CPUSIEVE_SHARED names another place)", folder.display());
        return;
    };
    let vendors = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let files = vendors.flat_map(|vendor| std::fs::read_dir(vendor).unwrap().map(|entry| entry.unwrap().path()));
    let (mut dumps, mut answers) = (0, 0);
    for path in files.filter(|path| path.is_file()) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let snapshot = cpusieve_formats::read(&name, &std::fs::read(&path).unwrap()).snapshot;
        let Some(host) = boot::Input::of_snapshot("host", Stage::Host, &snapshot) else { continue };
        dumps += 1;
        for tree in 0..linux::TREES.len() {
            let kernels = [boot(&host, tree)];
            for permitted in [0, 1 << 18] {
                let output = answer(&unseen(&host, &kernels, permitted), tree);
                laws(&name, &output);
                answers += usize::from(output.view.supported.is_some());
            }
        }
    }
    eprintln!("{dumps} dumps, {answers} answers");
}

/// A host of which nothing is known but CPUID.
fn unseen<'a>(host: &boot::Input<'a>, kernels: &'a [boot::Output], permitted: u64) -> Input<'a> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    Input {
        of: "host",
        cpuid: host.cpuid,
        msrs: host.msrs,
        unlisted: Unlisted::NotSeen,
        kernels,
        cmdline: None,
        config: None,
        params: &NONE,
        permitted,
    }
}

/// Contradictory and random CPUID: no panic, and an end.
#[test]
fn garbage_is_answered_without_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as u32
    };
    let template = captures("guests-bochs").into_iter().find(|capture| capture.name.contains("icelake")).unwrap();
    for round in 0..60 {
        let mut table = template.snapshot.cpus[0].cpuid.clone();
        for leaf in (0..0x25).chain(0x8000_0000..0x8000_0023).chain(0xc000_0000..0xc000_0002) {
            for subleaf in 0..3 {
                if random().is_multiple_of(4) {
                    let registers = Registers { eax: random(), ebx: random(), ecx: random(), edx: random() };
                    table.insert(leaf, subleaf, registers);
                }
            }
        }
        let (first, second) = (table.get(0, 0).unwrap(), table.get(1, 0).unwrap());
        let vendor = [(0x756e_6547, 0x6c65_746e, 0x4965_6e69), (0x6874_7541, 0x444d_4163, 0x6974_6e65)][round % 2];
        let (ebx, ecx, edx) = vendor;
        table.insert(0, 0, Registers { eax: first.eax % 0x40, ebx, ecx, edx });
        let vmx = if round % 2 == 0 { second.ecx | 1 << 5 } else { second.ecx & !(1 << 5) };
        table.insert(1, 0, Registers { ecx: vmx, ..second });
        let host =
            boot::Input { cpuid: &table, ..boot::Input::of_snapshot("host", Stage::Host, &template.snapshot).unwrap() };
        for tree in 0..linux::TREES.len() {
            let kernels = [boot(&host, tree)];
            let output = answer(&unseen(&host, &kernels, u64::from(random())), tree);
            assert!(output.view.supported.is_some() || !output.findings.is_empty());
            let state = Running { xcr0: u64::from(random()), ..Running::default() };
            let edited = vcpu::running(&table, &state, tree);
            std::hint::black_box(vcpu::read(&edited, random(), random(), tree));
        }
    }
}

#[test]
fn impossible_hosts_give_a_finding_and_no_answer() {
    let capture = captures("guests-kvm").remove(0);
    let tree = tree(&capture.snapshot);
    let mut other = capture.snapshot.clone();
    other.kvm.as_mut().unwrap().params.insert("kvm_pvm.nested".to_owned(), "Y".to_owned());
    let output = predict(&other, tree);
    assert_eq!(output.findings, [Finding::OtherBackend("kvm_pvm".to_owned())]);
    assert!(output.view.supported.is_none());

    let mut both = capture.snapshot.clone();
    let leaf = both.cpus[0].cpuid.get(1, 0).unwrap();
    both.cpus[0].cpuid.insert(1, 0, Registers { ecx: leaf.ecx | 1 << 5, ..leaf });
    let output = predict(&both, tree);
    assert_eq!(output.findings, [Finding::BothVendors]);
    assert!(output.view.supported.is_none());

    let mut none = capture.snapshot;
    let leaf = none.cpus[0].cpuid.get(0x8000_0001, 0).unwrap();
    none.cpus[0].cpuid.insert(0x8000_0001, 0, Registers { ecx: leaf.ecx & !4, ..leaf });
    assert_eq!(predict(&none, tree).findings, [Finding::NoBackend]);
}
