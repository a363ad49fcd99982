//! Baselines over real hosts: the result is what each host's own offer says, and runs unfiltered on every one.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests read files and say what they saw"
)]

use std::io::Read as _;
use std::path::{Path, PathBuf};

use cpusieve_fleet::{Baseline, Catalogue, Fleet, Host, Kept, Kind, Memory, Setting, Weights, baseline, drift, pools};
use cpusieve_knowledge::qemu;
use cpusieve_model::Snapshot;
use cpusieve_stages::linux::boot::Unlisted;
use cpusieve_stages::qemu::realize;

fn setting(version: &str) -> Setting<'static> {
    let release = qemu::nearest(version).release;
    let machine = qemu::machine(release, "q35").unwrap();
    Setting { release, machine, kernel: None, params: &[], nested: false }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.is_file());
    files.sort();
    files
}

fn fleet<'f>(files: impl IntoIterator<Item = &'f PathBuf>, setting: &Setting<'_>) -> Fleet {
    let mut fleet = Fleet::default();
    for file in files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let mut bytes = std::fs::read(file).unwrap();
        if file.extension().is_some_and(|end| end == "gz") {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&*bytes).read_to_end(&mut plain).unwrap();
            bytes = plain;
        }
        let seen = cpusieve_formats::read(&name, &bytes).snapshot;
        match Host::of(&name, &seen, Unlisted::NotSeen, setting) {
            Ok(host) => fleet.push(host),
            Err(why) => eprintln!("{name}: {why}"),
        }
    }
    fleet
}

/// Asks QEMU on every kind of host, with `enforce`, which makes it refuse what it would otherwise take out.
fn runs_unfiltered(fleet: &Fleet, setting: &Setting<'_>, found: &Baseline) {
    let model = found.model.as_ref().unwrap_or_else(|| panic!("no model: {:?}", found.findings));
    let cpu = format!("{},enforce", model.cpu);
    let catalogue = Catalogue::of(setting.release);
    for kind in fleet.kinds() {
        let output = realize(kind.ground.as_ref().unwrap().question(setting, &cpu));
        let has: Vec<&str> = catalogue.in_words(output.words().unwrap()).map(|property| property.id).collect();
        let lacks: Vec<_> = found.features.iter().filter(|id| !has.contains(id)).collect();
        assert!(lacks.is_empty(), "{cpu}: {lacks:?}");
        assert_eq!(output.error, None, "{cpu}");
        assert_eq!(output.filtered().next(), None, "{cpu}");
    }
}

#[test]
fn hosts_of_the_oracle_have_baselines_with_every_release() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus/qemu-oracle/hosts");
    let files = files(&folder);
    for release in qemu::RELEASES {
        let setting = setting(release.label);
        let intel: Vec<_> = files.iter().filter(|file| !file.to_string_lossy().contains("mil")).collect();
        for some in [&files.iter().collect::<Vec<_>>(), &intel] {
            let fleet = fleet(some.iter().copied(), &setting);
            let found = baseline(&fleet, &setting, true).unwrap();
            runs_unfiltered(&fleet, &setting, &found);
        }
    }
}

#[test]
fn alone_a_host_has_what_its_qemu_gives_for_host() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus/qemu-oracle/hosts");
    for release in qemu::RELEASES {
        let setting = setting(release.label);
        let catalogue = Catalogue::of(setting.release);
        for file in &files(&folder) {
            let fleet = fleet([file], &setting);
            for (migratable, cpu) in [(true, "host"), (false, "host,migratable=off")] {
                let found = baseline(&fleet, &setting, migratable).unwrap();
                let output = realize(fleet.kinds()[0].ground.as_ref().unwrap().question(&setting, cpu));
                let mut given: Vec<&str> = catalogue.in_words(output.words().unwrap()).map(|p| p.id).collect();
                given.dedup();
                assert_eq!(found.features, given, "{} {file:?} {cpu}", release.label);
            }
        }
    }
}

#[test]
fn each_of_libvirts_hosts_alone_and_with_its_neighbour() {
    let folder = std::env::var_os("CPUSIEVE_SHARED").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"));
    let folder = folder.join("corpus/libvirt");
    if !folder.is_dir() {
        eprintln!("skipped: {} is not there", folder.display());
        return;
    }
    let mut files = files(&folder);
    files.retain(|file| file.extension().is_some_and(|end| end == "xml"));
    for release in ["5.2", "10.0"] {
        let setting = setting(release);
        for pair in files.windows(2) {
            let fleet = fleet(pair, &setting);
            let Some(found) = baseline(&fleet, &setting, true) else { continue };
            let model = found.model.as_ref().unwrap();
            assert_eq!(model.given_up, [""; 0], "{pair:?}");
            let cpu = &model.cpu;
            eprintln!("{:?} {cpu}", pair.iter().map(|file| file.file_stem().unwrap()).collect::<Vec<_>>());
            runs_unfiltered(&fleet, &setting, &found);
        }
    }
}

/// Hosts whose words alone were kept are judged by these; that is what QEMU says when it can be asked.
#[test]
fn words_say_what_qemu_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus/qemu-oracle/hosts");
    let files = files(&folder);
    for release in qemu::RELEASES {
        let setting = setting(release.label);
        let intel: Vec<_> = files.iter().filter(|file| !file.to_string_lossy().contains("mil")).collect();
        for some in [&files.iter().collect::<Vec<_>>(), &intel] {
            let whole = fleet(some.iter().copied(), &setting);
            let asked = baseline(&whole, &setting, true).unwrap();
            // One host keeps what QEMU is asked on, of the others the words: kept one by one, and as a sum.
            for known in 0..whole.kinds().len() {
                let mut of_words = Fleet::default();
                for (at, kind) in whole.kinds().iter().enumerate() {
                    let ground = kind.ground.clone().filter(|_| at == known);
                    of_words.push_kind(Kind { ground, ..kind.clone() }, []);
                }
                let found = baseline(&of_words, &setting, true).unwrap();
                assert_eq!(found.features, asked.features, "{} {known}", release.label);
                let cpu = |found: &Baseline| found.model.as_ref().map(|model| model.cpu.clone());
                assert_eq!(cpu(&found), cpu(&asked), "{} {known}", release.label);
            }
        }
    }
}

#[test]
fn pools_are_a_frontier_and_each_of_them_runs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus/qemu-oracle/hosts");
    let setting = setting("10.0");
    let fleet = fleet(&files(&folder), &setting);
    let found = pools(&fleet, &setting, true, &Weights::new(), 9).unwrap();
    assert_eq!(found.len(), fleet.kinds().len(), "no more pools than kinds");
    assert_eq!(found[0].pools[0].features, baseline(&fleet, &setting, true).unwrap().features);
    assert!(found.windows(2).all(|pair| pair[0].value <= pair[1].value));
    for split in &found {
        let hosts: usize = split.pools.iter().map(|pool| pool.hosts.len()).sum();
        assert_eq!(hosts, fleet.members().len());
        assert!(split.best && split.pools.iter().all(|pool| pool.model.is_some()));
    }
    // The three Intel hosts have AVX-512 among them as soon as the two others are elsewhere.
    let avx512f = found[1].gained.iter().find(|(id, _)| *id == "avx512f");
    assert_eq!(avx512f, Some(&("avx512f", 3)));
}

#[test]
fn a_host_drifts_with_its_kernel() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus/qemu-oracle/hosts");
    let file = files(&folder).into_iter().find(|file| file.to_string_lossy().contains("icx")).unwrap();
    let catalogue = Catalogue::of(setting("10.0").release);
    let kept = |kernel| {
        let setting = Setting { kernel: Some(kernel), ..setting("10.0") };
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&*std::fs::read(&file).unwrap()).read_to_end(&mut plain).unwrap();
        let seen = cpusieve_formats::read("icx", &plain).snapshot;
        Kept::of(&Host::of("icx", &seen, Unlisted::NotSeen, &setting).unwrap(), &catalogue, true)
    };
    let (old, new) = (kept("5.10"), kept("6.12"));
    assert!(drift(&old, &old).offers_the_same() && drift(&old, &old).changed.is_empty());
    let found = drift(&old, &new);
    let back = drift(&new, &old);
    assert_eq!((&found.gained, &found.lost), (&back.lost, &back.gained));
    assert_eq!((found.back, found.forth), (found.gained.is_empty(), found.lost.is_empty()));
    assert!(!found.gained.is_empty(), "a newer KVM offers more");
}

#[test]
fn a_remembered_host_is_the_host_itself() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus/qemu-oracle/hosts");
    let setting = Setting { nested: true, ..setting("10.0") };
    let memory = Memory::default();
    for file in &files(&folder) {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&*std::fs::read(file).unwrap()).read_to_end(&mut plain).unwrap();
        let record = cpusieve_formats::read("host", &plain).snapshot;
        let bare = Snapshot { cpus: vec![record.cpus[0].clone()], ..Snapshot::default() };
        for number in [0, 7, 200] {
            let mut seen = bare.clone();
            seen.cpus[0].cpuinfo = None;
            let mut leaf = seen.cpus[0].cpuid.get(1, 0).unwrap();
            leaf.ebx = leaf.ebx & 0x00ff_ffff | number << 24;
            seen.cpus[0].cpuid.insert(1, 0, leaf);
            let facts = |host: Host| (host.offer, host.assumed, host.tsc_khz, host.nested);
            let itself = Host::of("a", &seen, Unlisted::NotSeen, &setting).map(facts);
            let remembered = memory.host("a", &seen, Unlisted::NotSeen, &setting).map(facts);
            assert_eq!(itself, remembered, "{file:?}");
        }
    }
}

/// `svm` brings words into effect that models have without it: they are taken out by name.
#[test]
fn hosts_with_nested_svm_have_a_model() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus/guests-kvm");
    let mut nested = 0;
    for version in ["7.2", "10.0", "11.1"] {
        let setting = Setting { nested: true, ..setting(version) };
        for file in files(&folder) {
            let fleet = fleet([&file], &setting);
            let found = baseline(&fleet, &setting, true).unwrap();
            nested += usize::from(found.features.contains(&"svm"));
            runs_unfiltered(&fleet, &setting, &found);
        }
    }
    assert!(nested > 3, "{nested} hosts with svm");
}
