//! What `rehearse` says of a newer host kernel under Firecracker, held against Firecracker's fingerprints of the same
//! servers under Linux 5.10, 6.1 and 6.18; the silicon is a public dump of the same CPU, or of the same core.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests read files and say what they saw"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cpusieve_answers::rehearse::{Guest, Host, Question, Range, Upgrade, rehearse};
use cpusieve_knowledge::x86;
use cpusieve_model::{CpuidBit, CpuidTable, Place, Register, Snapshot};
use cpusieve_stages::linux::boot::Unlisted;
use cpusieve_stages::vmm::{Options, firecracker};

const KERNELS: [&str; 3] = ["5.10", "6.1", "6.18"];

/// The releases that the fingerprints name.
const RELEASES: [&str; 3] =
    ["5.10.255-253.1008.amzn2.x86_64", "6.1.172-216.329.amzn2023.x86_64", "6.18.30-61.116.amzn2023.x86_64"];

/// A server, and the dump that stands for its silicon.
struct Server {
    fingerprint: &'static str,
    dump: &'static str,
    exceptions: &'static [Exception],
}

/// A change that is not as it was said: bit or register, the kernel with which it came, and the reason.
type Exception = (&'static str, &'static str, &'static str);

const SERVERS: [Server; 4] = [
    Server {
        fingerprint: "AMD_MILAN",
        dump: "AuthenticAMD/AuthenticAMD0A50F00_K19_Cezanne_CPUID7.txt",
        exceptions: &[],
    },
    Server {
        fingerprint: "INTEL_CASCADELAKE",
        dump: "GenuineIntel/GenuineIntel0050657_CascadeLakeX_CPUID2.txt",
        exceptions: &[],
    },
    Server {
        fingerprint: "INTEL_ICELAKE",
        dump: "GenuineIntel/GenuineIntel00A0671_RocketLake_01_CPUID.txt",
        exceptions: &[],
    },
    Server {
        fingerprint: "INTEL_SAPPHIRE_RAPIDS",
        dump: "GenuineIntel/GenuineIntel00806F8_SapphireRapids_05_CPUID.txt",
        exceptions: &[],
    },
];

fn shared() -> Option<PathBuf> {
    let folder = std::env::var_os("CPUSIEVE_SHARED").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"));
    let folder = folder.join("corpus");
    if folder.join("firecracker").is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: {} is not there", folder.display());
    None
}

fn read(path: &Path) -> Snapshot {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    cpusieve_formats::read(&path.display().to_string(), &bytes).snapshot
}

/// The silicon: the first CPU of the dump, with what the same core in another package has otherwise, where KVM hands the
/// server's own on as it is: the signature, the widths of addresses, and (up to 5.10) the leaf of encrypted memory.
fn silicon(dump: &Path, fingerprint: &Snapshot) -> Snapshot {
    let mut silicon = read(dump);
    silicon.cpus.truncate(1);
    let own = &mut silicon.cpus[0].cpuid;
    let told = &fingerprint.first_cpuid().unwrap().cpuid;
    for (leaf, mask) in [(0x1, u32::MAX), (0x8000_0008, 0xffff)] {
        let mut registers = own.get(leaf, 0).unwrap();
        registers.eax = registers.eax & !mask | told.get(leaf, 0).unwrap().eax & mask;
        own.insert(leaf, 0, registers);
    }
    if own.get(0x8000_001f, 0).is_some() {
        own.insert(0x8000_001f, 0, told.get(0x8000_001f, 0).unwrap());
    }
    silicon
}

/// The bits that are set in a table.
fn bits(table: &CpuidTable) -> BTreeSet<CpuidBit> {
    let mut set = BTreeSet::new();
    for entry in table.entries() {
        for register in Register::ALL {
            let value = entry.registers.get(register);
            let of = |bit| CpuidBit::new(entry.leaf, entry.subleaf, register, bit);
            set.extend((0..32).filter(|bit| value >> bit & 1 == 1).map(of));
        }
    }
    set
}

/// A bit and its features, as the list of exceptions names them.
fn name(bit: CpuidBit) -> String {
    let feature = x86::by_place(Place::Cpuid(bit)).map_or(String::new(), |feature| format!(" {}", feature.id));
    format!("{bit:#}{feature}")
}

/// What changes on a server, as it was said: gained and lost bits, other values taken apart.
fn said(silicon: &Snapshot, from: &str, to: &str) -> (BTreeSet<CpuidBit>, BTreeSet<CpuidBit>) {
    let params = ["kvm_intel.nested", "kvm_amd.nested", "kvm_amd.sev"];
    let upgrade = Upgrade {
        host_kernel: Range::parse(&format!("{from}..{to}")),
        vmm: Range::parse("1.16..1.16"),
        // No fingerprint has VMX or SVM, nor SEV where KVM asks for it, from 5.15 on.
        params: params.map(|name| (name.to_owned(), Range::parse("0..0"))).to_vec(),
        ..Upgrade::default()
    };
    let guests = [Guest { name: "microVM".to_owned(), ..Guest::default() }];
    let options = Some(Options::Firecracker(firecracker::Options::default()));
    let question = Question { upgrade, options, guests: &guests, guest_kernel: Some("6.1") };
    let host = Host { name: "server", snapshot: silicon, unlisted: Unlisted::NotSeen };
    let found = rehearse(&[host], &question);
    let guest = &found.hosts[0].as_ref().unwrap().guests[0];
    assert!(guest.start.possible, "{:?}", guest.start);
    let (mut gained, mut lost) = (BTreeSet::new(), BTreeSet::new());
    for change in &guest.changes {
        if let Place::Cpuid(bit) = change.place {
            if change.telling().is_none() {
                eprintln!("nobody did {} {:?}", change.name(), change.feature);
            }
            let _ = if change.gained { gained.insert(bit) } else { lost.insert(bit) };
        }
    }
    for value in &guest.values {
        for position in (0..32).filter(|position| (value.before ^ value.after) >> position & 1 == 1) {
            let bit = CpuidBit::new(value.leaf, value.subleaf, value.register, position);
            let _ = if value.after >> position & 1 == 1 { gained.insert(bit) } else { lost.insert(bit) };
        }
    }
    (gained, lost)
}

#[test]
fn what_the_host_kernel_changed_is_what_was_said() {
    let Some(shared) = shared() else { return };
    let mut wrong = Vec::new();
    for server in &SERVERS {
        let fingerprints = KERNELS.map(|kernel| {
            read(&shared.join(format!("firecracker/fingerprint_{}_{kernel}host.json", server.fingerprint)))
        });
        let silicon = silicon(&shared.join("instlatx64").join(server.dump), &fingerprints[0]);
        let real = fingerprints.map(|snapshot| bits(&snapshot.first_cpuid().unwrap().cpuid));
        let mut unused: BTreeSet<&Exception> = server.exceptions.iter().collect();
        let (mut right, mut listed) = (0, 0);
        for (step, kernel) in KERNELS.iter().enumerate().skip(1) {
            let (gained, lost) = said(&silicon, RELEASES[step - 1], RELEASES[step]);
            let (before, after) = (&real[step - 1], &real[step]);
            let all: BTreeSet<CpuidBit> = before.iter().chain(after).chain(&gained).chain(&lost).copied().collect();
            for bit in all {
                let seen = i8::from(after.contains(&bit)) - i8::from(before.contains(&bit));
                let predicted = i8::from(gained.contains(&bit)) - i8::from(lost.contains(&bit));
                let name = name(bit);
                let lists = |of: &&Exception| {
                    of.1 == *kernel
                        && (of.0 == name || name.strip_prefix(of.0).is_some_and(|rest| rest.starts_with('[')))
                };
                match server.exceptions.iter().find(lists) {
                    _ if seen == predicted => right += usize::from(seen != 0),
                    Some(exception) => {
                        unused.remove(exception);
                        listed += 1;
                    }
                    None => wrong
                        .push(format!("{}: {kernel}: {name}: real {seen:+}, said {predicted:+}", server.fingerprint)),
                }
            }
        }
        eprintln!("{}: {right} changed bits as it was said, {listed} listed with a reason", server.fingerprint);
        wrong.extend(unused.iter().map(|exception| format!("{}: no exception: {exception:?}", server.fingerprint)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
