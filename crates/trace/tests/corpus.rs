//! Traces of a real KVM: counts equal those made by hand from the raw text, and what the KVM stage says that KVM must ask.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests read files and say what they skip"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use cpusieve_knowledge::linux;
use cpusieve_model::{Snapshot, Stage};
use cpusieve_stages::kvm::answer::{self, Input, answer, calls};
use cpusieve_stages::linux::boot::{self, Unlisted, boot};
use cpusieve_trace::count::Counts;
use cpusieve_trace::read::{Form, Reader, read};

/// The folders of captures: this repository's part, and all of them where they are.
fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let shared = std::env::var_os("CPUSIEVE_SHARED").map_or_else(|| root.join("../shared"), PathBuf::from);
    let all = [root.join("corpus/guests-kvm"), shared.join("corpus/guests-kvm")];
    let (there, missing): (Vec<_>, Vec<_>) = all.into_iter().partition(|folder| folder.is_dir());
    missing.iter().for_each(|folder| eprintln!("skipped: {} is not there", folder.display()));
    there
}

fn unpacked(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    let mut text = Vec::new();
    if path.extension().is_some_and(|end| end == "gz") {
        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut text).unwrap();
        return text;
    }
    bytes
}

/// The traces whose names end so, by the name of their capture.
fn traces(end: &str) -> BTreeMap<String, PathBuf> {
    let entries = folders().into_iter().filter_map(|folder| fs::read_dir(folder.join("trace")).ok()).flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    let named = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.strip_suffix(end)?.to_owned();
        Some((name, path))
    };
    paths.filter_map(named).collect()
}

fn snapshot(name: &str) -> Option<Snapshot> {
    let files = folders()
        .into_iter()
        .flat_map(|folder| [folder.join(format!("{name}.json")), folder.join(format!("{name}.json.gz"))]);
    let path = files.into_iter().find(|path| path.is_file())?;
    Some(cpusieve_formats::read(name, &unpacked(&path)).snapshot)
}

/// The calls that the KVM stage predicts for one ioctl on a captured host, the entries of the answer, and the tree.
fn predicted(snapshot: &Snapshot) -> (Vec<answer::Call>, usize, usize) {
    let seen = boot::Input::of_snapshot("host", Stage::Host, snapshot).unwrap();
    // The captures list MSRs that are not zero; their emulator answers zero for the others.
    let host = boot::Input { unlisted: Unlisted::Zero, ..seen };
    let tree = linux::nearest(snapshot.linux.as_ref().unwrap().release.as_deref().unwrap()).tree;
    let kernels = [boot(&host, tree)];
    let input = Input {
        of: "host",
        cpuid: host.cpuid,
        msrs: host.msrs,
        unlisted: host.unlisted,
        kernels: &kernels,
        cmdline: host.cmdline,
        config: host.config,
        params: &snapshot.kvm.as_ref().unwrap().params,
        permitted: 0,
    };
    let output = answer(&input, tree);
    let entries = output.view.supported.as_deref().unwrap_or_default().len();
    (output.calls, entries, tree)
}

#[test]
fn kvms_own_calls_are_those_that_one_ioctl_must_make() {
    let mut compared = 0;
    for (name, path) in traces("-trace-supported.txt.gz") {
        let text = unpacked(&path);
        let found = read(&text).unwrap();
        assert_eq!((found.form, found.ignored), (Form::Events, 0), "{name}: {:?}", found.first_ignored);
        let raw = String::from_utf8_lossy(&text).matches(" do_host_cpuid: (").count() as u64;
        assert_eq!(found.counts.host.calls.total(), raw, "{name}");
        assert!(!found.counts.lost.any());
        let Some(snapshot) = snapshot(&name) else { continue };
        let (expected, entries, tree) = predicted(&snapshot);
        let pairs: Vec<_> = expected.iter().map(|call| (call.leaf, call.subleaf)).collect();
        let against = found.counts.host.against(&pairs);
        assert_eq!(
            (against.complete, against.short.len(), against.other.len()),
            (1, 0, 0),
            "{name}: {:x?}",
            against.other
        );
        compared += 1;

        // QEMU's attempts with growing room, printed as a trace, are recognised as attempts.
        let rooms = std::iter::successors(Some(1), |room| Some(room * 2)).take_while(|room| *room <= entries * 2);
        let mut printed = String::new();
        let (mut tries, mut enough) = (0, 0);
        for room in rooms {
            for call in calls::within(&expected, room, tree) {
                let (leaf, subleaf) = (call.leaf, call.subleaf);
                printed += &format!(
                    "            qemu-77      [001] .....    55.5: do_host_cpuid: (do_host_cpuid+0x0/0x140 [kvm]) \
                     leaf={leaf:#x} subleaf={subleaf:#x}\n"
                );
            }
            tries += 1;
            enough += usize::from(room >= entries);
        }
        let counts = read(printed.as_bytes()).unwrap().counts;
        let against = counts.host.against(&pairs);
        assert_eq!((against.complete, against.short.len(), against.other.len()), (enough, tries - enough, 0), "{name}");
        let by_leaf = counts.host.calls.rows().fold(BTreeMap::new(), |mut sums, (asked, count)| {
            *sums.entry(asked.leaf).or_default() += count as usize;
            sums
        });
        assert_eq!(by_leaf, calls::by_qemu(&expected, entries, tree), "{name}");
    }
    eprintln!("{compared} hosts");
    assert!(compared >= 5);
}

/// Counts as `awk` would: the word after `func`, on lines that hold `kvm_cpuid:`.
fn by_hand(text: &str) -> (BTreeMap<u32, u64>, u64, u64) {
    let (mut leaves, mut missing, mut others) = (BTreeMap::new(), 0, 0);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<_> = line.split_whitespace().collect();
        if let Some(at) = words.iter().position(|word| *word == "kvm_cpuid:") {
            *leaves.entry(u32::from_str_radix(words[at + 2], 16).unwrap()).or_default() += 1;
            missing += u64::from(line.ends_with("not found") || line.contains("not found,"));
        } else {
            others += 1;
        }
    }
    (leaves, missing, others)
}

#[test]
fn a_guests_boot_is_counted_as_by_hand() {
    let mut seen = 0;
    for (name, path) in traces("-trace-l2-0.txt.gz") {
        let text = unpacked(&path);
        let (leaves, missing, others) = by_hand(&String::from_utf8_lossy(&text));
        let found = read(&text).unwrap();
        assert_eq!(found.ignored, 0, "{name}: {:?}", found.first_ignored);
        let counts = &found.counts;
        let mut counted = BTreeMap::new();
        for (asked, count) in counts.guests.by_question().rows() {
            *counted.entry(asked.leaf).or_default() += count;
        }
        assert_eq!(counted, leaves, "{name}");
        assert_eq!(counts.guests.not_found.total(), missing, "{name}");
        assert_eq!(counts.others, others, "{name}");
        let tasks: Vec<_> = counts.tasks.values().map(|task| task.comm.as_str()).collect();
        assert!(tasks.contains(&"CPU 0/KVM"), "{name}: {tasks:?}");
        eprintln!("{name}: {} CPUIDs", counts.guests.cpuid.total());
        seen += 1;

        // The bytes may come in any pieces.
        for size in [1, 4096] {
            let (mut pieces, mut reader) = (Counts::default(), Reader::default());
            let part = &text[..text.len().min(100_000)];
            part.chunks(size).for_each(|chunk| reader.push(chunk, &mut |event| pieces.add(event)));
            reader.finish(&mut |event| pieces.add(event));
            assert_eq!(pieces, read(part).unwrap().counts, "{name}, pieces of {size}");
        }
    }
    if seen == 0 {
        eprintln!("skipped: no trace of a guest's boot");
    }
}
