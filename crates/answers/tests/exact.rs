//! Captured boots beside one another: where CPUID was seen, the exact kernel's steps explain every flag.
#![allow(clippy::unwrap_used, reason = "a test that cannot read its corpus has failed")]

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use cpusieve_answers::diff::{self, Diff, Item, Relation};
use cpusieve_formats::lab;
use cpusieve_model::{Registers, Snapshot, Stage};

/// The boots of a folder of the corpus that came up, by name.
#[allow(clippy::disallowed_methods, reason = "a test reads the corpus")]
fn boots(folder: &str) -> Vec<(String, Snapshot)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus").join(folder);
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "gz"));
    paths.sort();
    let read = paths.iter().map(|path| {
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().trim_end_matches(".json.gz").to_owned();
        (name.clone(), lab::capture(&name, &bytes).parsed.snapshot)
    });
    read.filter(|(_, snapshot)| snapshot.flags().is_some()).collect()
}

/// The same CPU as bare metal: without the hypervisor bit and the hypervisor's leaves.
fn bare(snapshot: &Snapshot) -> Snapshot {
    let mut bare = snapshot.clone();
    for cpu in &mut bare.cpus {
        let seen = std::mem::take(&mut cpu.cpuid);
        cpu.cpuid = seen.entries().iter().filter(|entry| entry.leaf >> 16 != 0x4000).copied().collect();
        let first = cpu.cpuid.get(1, 0).unwrap();
        cpu.cpuid.insert(1, 0, Registers { ecx: first.ecx & !(1 << 31), ..first });
        let cpuinfo = cpu.cpuinfo.as_mut().unwrap();
        cpuinfo.flags = cpuinfo.flags.take().map(|flags| flags.iter().filter(|&flag| flag != "hypervisor").collect());
    }
    bare
}

/// The same CPU as a guest of KVM, by its signature.
fn under_kvm(snapshot: &Snapshot) -> Snapshot {
    let mut guest = snapshot.clone();
    for cpu in &mut guest.cpus {
        let signature = Registers { eax: 0x4000_0001, ebx: 0x4b4d_564b, ecx: 0x564b_4d56, edx: 0x4d };
        cpu.cpuid.insert(0x4000_0000, 0, signature);
    }
    guest
}

fn items(diff: &Diff) -> impl Iterator<Item = &Item> {
    diff.lost.iter().chain(&diff.gained)
}

#[test]
fn no_flag_is_unexplained_where_cpuid_was_seen() {
    let (mut explained, mut pairs) = (0, 0);
    for folder in ["guests-tcg", "guests-lab", "guests-bochs"] {
        for pair in boots(folder).windows(2) {
            let [(one, first), (other, second)] = pair else { continue };
            let hosted = diff::diff(&bare(first), &under_kvm(second)).unwrap();
            pairs += usize::from(hosted.relation == Relation::HostAndGuest);
            for found in [diff::diff(first, second).unwrap(), hosted] {
                for item in items(&found) {
                    assert!(
                        item.at.is_some() && !item.rule.0.is_empty(),
                        "{one}, {other}: {} {}",
                        item.flag,
                        item.cause
                    );
                    explained += 1;
                }
            }
        }
    }
    assert!(explained >= 5_000 && pairs >= 60, "{explained} flags, {pairs} pairs");
}

#[test]
fn what_only_another_hypervisor_sets_explains_no_bare_metal_flag() {
    let boots = boots("guests-lab");
    let named = |name: &str| &boots.iter().find(|(other, _)| other.starts_with(name)).unwrap().1;
    // An Atom reads its frequency from MSRs; a Snow Ridge that hides its hypervisor does not, VMware's or not.
    let atom = bare(named("q7.2-k5.10-Skylake-Client_family=6_model=55"));
    let found = diff::diff(&atom, &under_kvm(named("q7.2-k5.10-Snowridge_hypervisor=off"))).unwrap();
    for flag in ["tsc_reliable", "tsc_known_freq"] {
        let item = found.lost.iter().find(|item| item.flag == flag).unwrap();
        assert_eq!((item.at, item.rule.0), (Some(Stage::Guest), "LNX0125"), "{flag}");
    }
}
