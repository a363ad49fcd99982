//! Raw CPUID of real hosts against what QEMU saw there: silicon, host kernel, KVM and QEMU in one go.
//!
//! Kernel and parameters of these hosts are unknown: all known kernels are tried, with nested virtualisation on and off
//! and with transactions left on (`tsx=on`, the default of some distributions), and the hypothesis under which the fewest
//! bits come out otherwise is taken.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests read files and say what they saw"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cpusieve_answers::predict::Kernel;
use cpusieve_answers::predict::kvm::{Question, predict};
use cpusieve_knowledge::{linux, qemu, x86};
use cpusieve_model::{CpuidBit, CpuidTable, KvmView, ModelExpansion, Place, Snapshot, Stage, State};
use cpusieve_stages::Machine;
use cpusieve_stages::qemu::{CpuArgument, Qemu, give};

fn shared() -> Option<PathBuf> {
    let folder = std::env::var_os("CPUSIEVE_SHARED").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"));
    let folder = folder.join("corpus/libvirt");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: {} is not there", folder.display());
    None
}

fn read(path: &Path) -> Snapshot {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    cpusieve_formats::read(&path.display().to_string(), &bytes).snapshot
}

/// The oldest QEMU that is known; these hosts ran older ones, which lack some properties and know no others.
const QEMU: Qemu = Qemu { release: 0, cpu: CpuArgument::Host { migratable: true } };

/// What QEMU said of each bit that it has a name for.
fn seen(expansion: &ModelExpansion) -> BTreeMap<CpuidBit, bool> {
    let mut seen = BTreeMap::new();
    for (name, &value) in &expansion.flags {
        for place in qemu::places(QEMU.release, name).filter_map(Place::cpuid) {
            seen.entry(place).or_insert(value);
        }
    }
    seen
}

/// What these hosts may have run.
#[derive(Clone, Copy, Debug)]
struct Hypothesis {
    release: &'static str,
    nested: &'static str,
    cmdline: &'static str,
}

fn hypotheses() -> impl Iterator<Item = Hypothesis> {
    let trees = linux::TREES.iter().map(|tree| tree.label);
    trees.flat_map(|release| {
        let with = move |(nested, cmdline)| Hypothesis { release, nested, cmdline };
        [("0", ""), ("1", ""), ("0", "tsx=on"), ("1", "tsx=on")].map(with)
    })
}

/// What comes out otherwise under a hypothesis, `+` if QEMU saw it and `-` if it did not; `None` without KVM.
fn misfits(silicon: &Snapshot, seen: &BTreeMap<CpuidBit, bool>, hypothesis: Hypothesis) -> Option<Vec<String>> {
    let Hypothesis { release, nested, cmdline } = hypothesis;
    let kernel = Kernel { release: Some(release), cmdline: Some(cmdline), ..Kernel::new(Stage::Host) };
    let params = [("nested".to_owned(), nested.to_owned())];
    let found = predict(silicon, &Question { params: &params, ..Question::new(kernel) }).unwrap();
    let table: CpuidTable = found.view.supported_table()?;
    let listed = found.msr_index.iter().filter(|(_, listed)| **listed).map(|(index, _)| *index).collect();
    let kvm = KvmView { msr_index: Some(listed), params: BTreeMap::new(), ..found.view };
    let host = Snapshot { kvm: Some(kvm), ..silicon.clone() };
    let host = Machine::new("host", &host);
    let mut wrong = Vec::new();
    for (&bit, &value) in seen {
        let feature = x86::by_place(Place::Cpuid(bit)).map_or("", |feature| feature.id);
        let offered = State::from_bit(table.state(bit) == State::Present);
        let outcome = give(QEMU, &host, feature, bit, offered).state;
        // HT hangs on `-smp`, which the reply does not tell: it is that of a single CPU.
        if outcome.known() != Some(value) && (feature, value) != ("ht", false) {
            let name = qemu::name(QEMU.release, Place::Cpuid(bit)).unwrap_or(feature);
            wrong.push(format!("{}{name}", if value { "+" } else { "-" }));
        }
    }
    Some(wrong)
}

/// A QEMU before 2.8 does not know the word of leaf 6.
const NO_LEAF_6: &str = "the reply was converted from a QEMU that does not know leaf 6";
const OLD_SVM: &str = "kvm_amd older than any known: RDTSCP came to it with Linux 4.5";
const OLDER: &str = "KVM older than any known";
const PATCHED: &str = "a distribution's kernel with parts of later ones";

/// Bits that no known kernel explains: host, bit, reason.
const EXCEPTIONS: [(&str, &str, &str); 25] = [
    ("A10-5800K", "-tsc-deadline", OLDER),
    ("A10-5800K", "-arat", NO_LEAF_6),
    ("A10-5800K", "-rdtscp", OLD_SVM),
    ("Core-i5-650", "+kvm-hint-dedicated", "a QEMU older than any known turns the hint on by itself"),
    ("Core-i7-3740QM", "-arat", NO_LEAF_6),
    ("Core-i7-3740QM", "+xsaveopt", "the dump of its CPUID lacks subleaf D.1"),
    ("Core-i7-7700", "-xsaves", OLDER),
    ("Core2-E6850", "-arat", NO_LEAF_6),
    ("EPYC-7601-32-Core-ibpb", "-rdtscp", OLD_SVM),
    ("Hygon-C86-7185-32-core", "+virt-ssbd", PATCHED),
    ("Ice-Lake-Server", "+mpx", "the CPU announces MPX, and not its state components"),
    ("Ice-Lake-Server", "+wbnoinvd", PATCHED),
    ("Opteron-6234", "-rdtscp", OLD_SVM),
    ("Phenom-B95", "-tsc-deadline", OLDER),
    ("Phenom-B95", "-arat", NO_LEAF_6),
    ("Phenom-B95", "-rdtscp", OLD_SVM),
    ("Ryzen-7-1800X-Eight-Core", "-sha-ni", OLDER),
    ("Xeon-E5-2630-v3", "-arat", NO_LEAF_6),
    ("Xeon-E5-2650-v3", "-arat", NO_LEAF_6),
    ("Xeon-E5-2650-v3", "-tsc-adjust", OLDER),
    ("Xeon-E5-2650-v3", "-xsaveopt", OLDER),
    ("Xeon-E5-2650", "+stibp", PATCHED),
    ("Xeon-E7540", "+stibp", PATCHED),
    ("Xeon-Gold-5115", "-xsaves", OLDER),
    ("Xeon-Gold-6148", "-xsaves", OLDER),
];

#[test]
fn what_qemu_saw_on_real_hosts_follows_from_their_cpuid() {
    let Some(folder) = shared() else { return };
    let mut hosts: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    hosts.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    hosts.sort();
    let mut unlisted = Vec::new();
    let (mut bits, mut listed, mut whole) = (0, 0, 0);
    for path in &hosts {
        let name = path.file_stem().unwrap().to_string_lossy().replace("x86_64-cpuid-", "");
        let silicon = read(&path.with_extension("xml"));
        let seen = seen(read(path).expansions.first().unwrap());
        let tried = hypotheses().filter_map(|hypothesis| Some((hypothesis, misfits(&silicon, &seen, hypothesis)?)));
        let Some((Hypothesis { release, nested, cmdline }, wrong)) = tried.min_by_key(|(_, wrong)| wrong.len()) else {
            unlisted.push(format!("{name}: no KVM under any hypothesis"));
            continue;
        };
        eprintln!(
            "{name}: {} of {} bits unexplained under Linux {release} nested={nested} {cmdline}: {}",
            wrong.len(),
            seen.len(),
            wrong.join(" ")
        );
        bits += seen.len();
        whole += usize::from(wrong.is_empty());
        for bit in wrong {
            match EXCEPTIONS.iter().find(|(host, exception, _)| (*host, *exception) == (&name, &bit)) {
                Some(_) => listed += 1,
                None => unlisted.push(format!("{name}: {bit}")),
            }
        }
    }
    eprintln!("{bits} bits of {} hosts, {listed} listed with a reason; {whole} hosts without any", hosts.len());
    assert!(unlisted.is_empty(), "{}", unlisted.join("\n"));
    // An exception that no host needs any more is not one; hosts that are not here are not asked.
    let known = |host: &str| hosts.iter().any(|path| path.to_string_lossy().ends_with(&format!("cpuid-{host}.json")));
    let of_these = EXCEPTIONS.iter().filter(|(host, ..)| known(host)).count();
    assert_eq!(listed, of_these, "some exceptions are none");
}
