//! What a newer host kernel alone changes on the same CPU, against Firecracker's fingerprints of the same servers under
//! Linux 5.10, 6.1 and 6.18; the silicon is a public dump of the same CPU, or of the same core where there is none.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests read files and say what they saw"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cpusieve_answers::predict::Kernel;
use cpusieve_answers::predict::kvm::{Question, predict};
use cpusieve_knowledge::x86;
use cpusieve_model::{CpuidBit, CpuidTable, Place, Register, Snapshot, Stage};

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

/// A change that is not explained: bit or register, the kernel with which it came, and the reason.
type Exception = (&'static str, &'static str, &'static str);

/// Firecracker sets these for every guest; KVM offers them from 6.14 on.
const BY_FIRECRACKER: &str = "Firecracker sets it under every kernel (cpu_config/x86_64/cpuid/normalize.rs)";

/// Sizes of the XSAVE area as they are in a vCPU whose XCR0 is still 1.
const AT_RUN_TIME: &str = "the fingerprint is of a vCPU: KVM computed it from XCR0 and XSS after reset";

/// Exceptions of all servers.
const OF_ALL: [Exception; 8] = [
    ("1.ECX[24] tsc_deadline_timer", "6.18", BY_FIRECRACKER),
    ("1.ECX[31] hypervisor", "6.18", BY_FIRECRACKER),
    ("7.0.EBX[6] fdp_excptn_only", "6.1", BY_FIRECRACKER),
    ("7.0.EBX[13] zero_fcs_fds", "6.1", BY_FIRECRACKER),
    ("D.0.EBX", "6.1", AT_RUN_TIME),
    ("D.0.EBX", "6.18", AT_RUN_TIME),
    ("D.1.EBX", "6.1", AT_RUN_TIME),
    ("D.1.EBX", "6.18", AT_RUN_TIME),
];

const CACHES: &str = "Firecracker hands the host's cache leaves on under every kernel; KVM does from 6.6 on";

const SERVERS: [Server; 4] = [
    Server {
        fingerprint: "AMD_MILAN",
        dump: "AuthenticAMD/AuthenticAMD0A50F00_K19_Cezanne_CPUID7.txt",
        exceptions: &[
            ("80000005.EAX", "6.18", CACHES),
            ("80000005.EBX", "6.18", CACHES),
            ("80000005.ECX", "6.18", CACHES),
            ("80000005.EDX", "6.18", CACHES),
        ],
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

/// AMX's tiles, for which Firecracker asks permission.
const TILES: u64 = 1 << 18;

fn offered(silicon: &Snapshot, release: &str) -> BTreeSet<CpuidBit> {
    let kernel = Kernel { release: Some(release), cmdline: Some(""), ..Kernel::new(Stage::Host) };
    // No fingerprint has VMX or SVM, nor SEV where KVM asks for it, from 5.15 on.
    let params = ["kvm_intel.nested", "kvm_amd.nested", "kvm_amd.sev"].map(|name| (name.to_owned(), "0".to_owned()));
    let question = Question { params: &params, permitted: TILES, ..Question::new(kernel) };
    let found = predict(silicon, &question).unwrap();
    bits(&found.view.supported_table().unwrap_or_else(|| panic!("{:?}", found.findings)))
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

/// A bit and its features, as the list of exceptions names them.
fn name(bit: CpuidBit) -> String {
    let feature = x86::by_place(Place::Cpuid(bit)).map_or(String::new(), |feature| format!(" {}", feature.id));
    format!("{bit:#}{feature}")
}

#[test]
fn what_the_host_kernel_alone_changes_comes_out_of_the_tables() {
    let Some(shared) = shared() else { return };
    let mut wrong = Vec::new();
    for server in &SERVERS {
        let fingerprints = KERNELS.map(|kernel| {
            read(&shared.join(format!("firecracker/fingerprint_{}_{kernel}host.json", server.fingerprint)))
        });
        let silicon = silicon(&shared.join("instlatx64").join(server.dump), &fingerprints[0]);
        let real = fingerprints.map(|snapshot| bits(&snapshot.first_cpuid().unwrap().cpuid));
        let made = RELEASES.map(|release| offered(&silicon, release));
        let mut unused: BTreeSet<&Exception> = server.exceptions.iter().collect();
        let (mut explained, mut listed) = (0, 0);
        for (step, kernel) in KERNELS.iter().enumerate().skip(1) {
            let change = |tables: &[BTreeSet<CpuidBit>; 3], bit: &CpuidBit| {
                i8::from(tables[step].contains(bit)) - i8::from(tables[step - 1].contains(bit))
            };
            let all: BTreeSet<CpuidBit> = real.iter().chain(&made).flatten().copied().collect();
            for bit in all {
                let (seen, predicted, name) = (change(&real, &bit), change(&made, &bit), name(bit));
                let lists = |of: &&Exception| {
                    of.1 == *kernel
                        && (of.0 == name || name.strip_prefix(of.0).is_some_and(|rest| rest.starts_with('[')))
                };
                let exception = server.exceptions.iter().chain(&OF_ALL).find(lists);
                match exception {
                    _ if seen == predicted => explained += usize::from(seen != 0),
                    Some(exception) => {
                        unused.remove(exception);
                        listed += 1;
                    }
                    None => wrong.push(format!(
                        "{}: {kernel}: {name}: real {seen:+}, predicted {predicted:+}",
                        server.fingerprint
                    )),
                }
            }
        }
        eprintln!("{}: {explained} changed bits explained, {listed} listed with a reason", server.fingerprint);
        wrong.extend(unused.iter().map(|exception| format!("{}: no exception: {exception:?}", server.fingerprint)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
