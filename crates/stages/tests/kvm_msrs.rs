//! KVM's feature MSRs, predicted from the CPUID, MSRs and kernel of the machine on which a real KVM answered.
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
use cpusieve_model::{Effect, Place, Snapshot, Stage};
use cpusieve_stages::Machine;
use cpusieve_stages::kvm::answer::{Input, Module, load};
use cpusieve_stages::kvm::msrs::{FeatureMsrs, feature_msrs};
use cpusieve_stages::linux::boot::{self, Unlisted, boot};

/// A capture with KVM's answers.
struct Capture {
    name: String,
    snapshot: Snapshot,
    /// The feature MSRs in KVM's order, which no snapshot keeps.
    order: Vec<u32>,
}

/// The captures of a folder, by path.
fn captures(folder: &Path) -> Vec<Capture> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    paths.sort();
    let read = paths.into_iter().map(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut bytes = std::fs::read(&path).unwrap();
        if name.ends_with(".gz") {
            let packed = std::mem::take(&mut bytes);
            flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
        }
        let mut snapshot = lab::capture(&name, &bytes).parsed.snapshot;
        if let Some(linux) = &mut snapshot.linux {
            linux.config = linux.release.as_deref().and_then(config);
        }
        Capture { name, snapshot, order: order(&String::from_utf8(bytes).unwrap()) }
    });
    read.filter(|capture| capture.snapshot.kvm.as_ref().is_some_and(|kvm| kvm.msr_features.is_some())).collect()
}

/// The keys of the object `msr_features`, in the order of the text.
fn order(text: &str) -> Vec<u32> {
    let object = text.split_once("\"msr_features\": {").and_then(|(_, rest)| rest.split_once('}'));
    let pairs = object.into_iter().flat_map(|(object, _)| object.split(','));
    let key = |pair: &str| {
        u32::from_str_radix(pair.split_once(':')?.0.trim().strip_prefix("\"0x")?.strip_suffix('"')?, 16).ok()
    };
    pairs.filter_map(key).collect()
}

/// What is kept of the configuration of a captured kernel.
fn config(release: &str) -> Option<BTreeMap<String, String>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus/guests-tcg/configs");
    let text = std::fs::read_to_string(folder.join(format!("{release}.config"))).ok()?;
    let options = text.lines().filter_map(|line| line.split_once('='));
    Some(options.map(|(option, value)| (option.to_owned(), value.to_owned())).collect())
}

/// The tree of a capture: the one that its release names, unless its flags line contradicts that tree.
fn tree(snapshot: &Snapshot) -> usize {
    let release = snapshot.linux.as_ref().and_then(|linux| linux.release.as_deref()).unwrap();
    let named = linux::nearest(release).tree;
    let candidates = Machine::new("host", snapshot).trees();
    if candidates.contains(named) { named } else { candidates.first().unwrap() }
}

/// Loads KVM on the machine of a capture and hands it to `with`.
fn loaded<T>(snapshot: &Snapshot, tree: usize, with: impl FnOnce(&Module<'_>) -> T) -> T {
    // The captures list MSRs that are not zero, and both emulators answer zero for MSRs that they do not know.
    loaded_as(snapshot, tree, Unlisted::Zero, with)
}

fn loaded_as<T>(snapshot: &Snapshot, tree: usize, unlisted: Unlisted, with: impl FnOnce(&Module<'_>) -> T) -> T {
    let seen = boot::Input { unlisted, ..boot::Input::of_snapshot("host", Stage::Host, snapshot).unwrap() };
    let kernels = [boot(&seen, tree)];
    let params = &snapshot.kvm.as_ref().unwrap().params;
    let input = Input {
        of: "host",
        cpuid: seen.cpuid,
        msrs: seen.msrs,
        unlisted: seen.unlisted,
        kernels: &kernels,
        cmdline: seen.cmdline,
        config: seen.config,
        params,
        permitted: 0,
    };
    with(&load(&input, tree).unwrap_or_else(|finding| panic!("{finding}")))
}

/// Registers that differ: index, KVM's value, the predicted one.
fn differences(made: &FeatureMsrs, seen: &BTreeMap<u32, u64>) -> Vec<String> {
    let made: BTreeMap<u32, Option<u64>> = made.values.iter().copied().collect();
    let indices: std::collections::BTreeSet<&u32> = made.keys().chain(seen.keys()).collect();
    let differs = |index: &u32| made.get(index).copied() != seen.get(index).map(|&value| Some(value));
    let told = |index: &u32| {
        let hex = |value: Option<u64>| value.map_or("none".to_owned(), |value| format!("{value:#018x}"));
        let value = made.get(index).copied().flatten();
        format!("{index:X}H: KVM {} predicted {}", hex(seen.get(index).copied()), hex(value))
    };
    indices.into_iter().filter(|index| differs(index)).map(told).collect()
}

#[test]
fn every_feature_msr_is_as_kvm_tells_it() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus");
    let mut wrong = Vec::new();
    let (mut hosts, mut registers) = (0, 0);
    for capture in ["guests-kvm", "guests-bochs"].iter().flat_map(|folder| captures(&own.join(folder))) {
        let Capture { name, snapshot, order } = capture;
        let made = loaded(&snapshot, tree(&snapshot), |module| feature_msrs(module, None));
        let seen = snapshot.kvm.as_ref().and_then(|kvm| kvm.msr_features.as_ref()).unwrap();
        wrong.extend(differences(&made, seen).into_iter().map(|line| format!("{name}: {line}")));
        let listed: Vec<u32> = made.values.iter().map(|(index, _)| *index).collect();
        if listed != order {
            wrong.push(format!("{name}: KVM's order {order:x?}, predicted {listed:x?}"));
        }
        hosts += 1;
        registers += seen.len();
    }
    eprintln!("{registers} feature MSRs of {hosts} hosts compared");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(hosts >= 12 && registers >= 100);
}

#[test]
fn each_named_bit_has_a_step_that_says_what_became_of_it() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus/guests-bochs");
    let capture = captures(&own).into_iter().find(|capture| capture.name.contains("broadwell")).unwrap();
    let made = loaded(&capture.snapshot, tree(&capture.snapshot), |module| feature_msrs(module, None));
    let effect = |feature: &str| made.steps.iter().find(|step| step.feature == feature).map(|step| step.effect);
    // Nothing of the hardware: KVM says it for every CPU, or because its kernel does not see the bug.
    assert_eq!(effect("pschange_mc_no"), Some(Effect::Forced));
    assert_eq!(effect("gds_no"), Some(Effect::Added));
    assert_eq!(effect("rdctl_no"), None);
    // Shadow VMCS is emulated; EPT is handed on; pause loops are the outer hypervisor's business.
    assert_eq!(effect("vmx_shadow_vmcs"), Some(Effect::Kept));
    assert_eq!(effect("vmx_ept"), Some(Effect::Kept));
    assert_eq!(effect("vmx_ple"), Some(Effect::Dropped));
    assert!(made.steps.iter().all(|step| matches!(step.place, Some(Place::Msr(_))) && step.at == Stage::Kvm));
}

#[test]
fn a_register_that_hangs_on_what_nobody_read_has_no_value() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus/guests-bochs");
    let mut capture = captures(&own).into_iter().find(|capture| capture.name.contains("broadwell")).unwrap();
    let tree = tree(&capture.snapshot);
    capture.snapshot.cpus.iter_mut().for_each(|cpu| cpu.msrs = cpusieve_model::MsrTable::default());
    let made = loaded_as(&capture.snapshot, tree, Unlisted::NotSeen, |module| feature_msrs(module, Some(0x2f)));
    let value = |index| made.values.iter().find(|(other, _)| *other == index).unwrap().1;
    assert_eq!((value(0x48b), value(0x48d), value(0x481), value(0x491)), (None, None, None, None));
    assert_eq!((value(0x48a), value(0x8b)), (Some(0x32), Some(0x2f_0000_0000)));
    assert!(made.assumed.iter().any(|assumed| assumed.what == "MSR 48BH"));
    assert!(!made.known().contains_key(&0x48b));
}
