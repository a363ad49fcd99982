//! QEMU's models against what real binaries said of them.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    unreachable_pub,
    reason = "tests read files and say what they saw, and share their reader with the stage's tests"
)]

#[path = "../../stages/tests/oracle/mod.rs"]
mod oracle;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use cpusieve_answers::models::{
    Catalogue, Entry, Level, Meaning, Naming, NoModel, Setting, card, catalogue, compare, means,
};
use cpusieve_knowledge::qemu::{self, RELEASES};
use cpusieve_model::{Place, Register};
use cpusieve_stages::qemu::Accelerator;
use oracle::{Host, hosts, rows};

fn setting<'a>(release: &str, machine: &str, host: Option<&'a Host>) -> Setting<'a> {
    let release = qemu::nearest(release).release;
    let machine = qemu::machine(release, machine).unwrap();
    let accelerator = host.map(|host| Accelerator::Kvm { host: &host.cpuid, kvm: &host.kvm });
    Setting { release, machine, accelerator }
}

/// The entry that a name stands for.
fn entry<'c>(catalogue: &'c Catalogue, name: &str) -> Option<&'c Entry> {
    catalogue.entries.iter().find(|entry| entry.name == name || entry.also.contains(&name))
}

/// A bit as QEMU's warnings name it: the register's number, its subleaf if that is told, its register, the bit.
type Warned = (u32, Option<u32>, Option<Register>, u8);

/// `CPUID.07H:EBX.hle [bit 4]`, `CPUID[eax=07h,ecx=00h].EBX.hle [bit 4]`, `MSR(10AH).rdctl-no [bit 0]`
fn warned(line: &str) -> Option<Warned> {
    let rest = line.strip_prefix("warning: host doesn't support requested feature: ")?;
    let (rest, bit) = rest.split_once(" [bit ")?;
    let bit = bit.trim_end_matches(']').parse().unwrap();
    let number = |text: &str| u32::from_str_radix(text.trim_end_matches(['H', 'h']), 16).unwrap();
    if let Some(rest) = rest.strip_prefix("MSR(") {
        return Some((number(rest.split_once(')').unwrap().0), None, None, bit));
    }
    let (leaf, subleaf, rest) = match rest.strip_prefix("CPUID[eax=") {
        Some(rest) => {
            let (place, rest) = rest.split_once("].").unwrap();
            let (leaf, subleaf) =
                place.split_once(",ecx=").map_or((place, None), |(leaf, sub)| (leaf, Some(number(sub))));
            (number(leaf), subleaf, rest)
        }
        None => {
            let (leaf, rest) = rest.strip_prefix("CPUID.").unwrap().split_once(':').unwrap();
            (number(leaf), None, rest)
        }
    };
    Some((leaf, subleaf, Register::from_name(&rest[..3]), bit))
}

fn is(place: Place, (number, subleaf, register, bit): Warned) -> bool {
    match place {
        Place::Cpuid(own) => {
            (own.leaf, Some(own.register), own.bit) == (number, register, bit)
                && subleaf.is_none_or(|subleaf| subleaf == own.subleaf)
        }
        Place::Msr(own) => (own.index, None, own.bit) == (number, register, bit),
        Place::Linux(_) => false,
    }
}

#[test]
fn every_model_lacks_what_qemu_warns_of() {
    let hosts = hosts();
    let mut known: BTreeMap<(usize, String, String), Catalogue> = BTreeMap::new();
    let (mut compared, mut bits) = (0, 0);
    for row in rows("models") {
        let place = (row.release, row.machine.clone(), row.host.clone());
        let found = known
            .entry(place)
            .or_insert_with(|| catalogue(&setting(RELEASES[row.release].label, &row.machine, Some(&hosts[&row.host]))));
        let Some(entry) = entry(found, &row.cpu) else {
            assert!(["max", "host", "base"].contains(&row.cpu.as_str()), "{}: no entry", row.name());
            continue;
        };
        let warned: Vec<Warned> = row.stderr.iter().filter_map(|line| warned(line)).collect();
        let lacks = entry.lacks.as_ref().unwrap();
        let same = lacks.len() == warned.len() && lacks.iter().zip(&warned).all(|(place, warned)| is(*place, *warned));
        assert!(same, "{}\n  QEMU: {warned:x?}\n  here: {lacks:?}", row.name());
        assert_eq!(entry.runs(), Some(warned.is_empty()));
        compared += 1;
        bits += warned.len();
    }
    eprintln!("{compared} models lack {bits} bits, the same as QEMU's");
    assert!(compared > 400);
}

/// The folder of facts that are no part of this repository; `None`, with the reason said, where it is missing.
fn facts() -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let facts = std::env::var_os("CPUSIEVE_SHARED").map_or_else(beside, PathBuf::from).join("facts");
    if facts.is_dir() {
        return Some(facts);
    }
    eprintln!("skipped: no {} (set CPUSIEVE_SHARED)", facts.display());
    None
}

/// `query-cpu-definitions` of every release, asked without a machine.
#[test]
fn names_and_aliases_are_those_that_qmp_tells() {
    let Some(facts) = facts() else { return };
    let mut compared = 0;
    for (release, known) in RELEASES.iter().enumerate() {
        let text = oracle::unpack(&facts.join(format!("qemu-{}-tcg/cpu-definitions.json.gz", known.label)));
        let definitions: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let none = qemu::machine(release, "none").unwrap();
        let mut told = BTreeSet::new();
        for definition in definitions.as_array().unwrap() {
            let name = definition["name"].as_str().unwrap();
            if ["max", "host", "base"].contains(&name) {
                continue;
            }
            told.insert(name.to_owned());
            let resolved = qemu::resolve(release, name).unwrap();
            let own = means(release, none, name).map(|version| format!("{}-v{version}", resolved.model.name));
            let alias = definition["alias-of"].as_str();
            assert_eq!(own.as_deref().filter(|own| *own != name), alias, "{} {name}", known.label);
            let deprecated = resolved.model.deprecated.is_some();
            assert_eq!(definition["deprecated"].as_bool().unwrap_or(false), deprecated, "{} {name}", known.label);
            compared += 1;
        }
        let own: BTreeSet<String> = qemu::cpu_names(release).map(str::to_owned).collect();
        assert_eq!(own, told, "{}", known.label);
    }
    eprintln!("{compared} names mean what QMP says");
}

#[test]
fn the_machine_type_decides_what_a_bare_name_means() {
    let number = |release: &str, machine: &str, name: &str| {
        let Setting { release, machine, .. } = setting(release, machine, None);
        means(release, machine, name)
    };
    assert_eq!(number("10.0", "q35", "SandyBridge"), Some(1));
    assert_eq!(number("10.0", "pc-q35-4.1", "SandyBridge"), Some(1));
    assert_eq!(number("10.0", "pc-q35-4.0", "SandyBridge"), None);
    assert_eq!(number("10.0", "microvm", "SandyBridge"), Some(2));
    assert_eq!(number("10.0", "pc-q35-4.0", "SandyBridge-IBRS"), Some(2));
    let found = card(&setting("10.0", "pc-q35-4.0", None), "SandyBridge", None).unwrap();
    assert!(matches!(found.meaning, Meaning::Model { version: None, naming: Naming::Machine, .. }));
    assert_eq!((found.first, found.level), (Some(0), Some(Level::V2)));
    let choices: Vec<Option<u8>> = found.by_machine.iter().map(|(version, _)| *version).collect();
    assert_eq!(choices, [Some(1), None, Some(2)]);
    let microvm = card(&setting("10.0", "microvm", None), "SandyBridge", None).unwrap();
    assert!(microvm.features.unwrap().iter().any(|feature| feature.name == "spec-ctrl"));
    assert!(!found.features.unwrap().iter().any(|feature| feature.name == "spec-ctrl"));
}

#[test]
fn every_name_of_every_release_has_an_entry_on_every_machine_type() {
    for (release, known) in RELEASES.iter().enumerate() {
        for machine in ["q35", "pc", "microvm", "pc-q35-2.9"] {
            let Ok(machine) = qemu::machine(release, machine) else { continue };
            let found = catalogue(&Setting { release, machine, accelerator: Some(Accelerator::Tcg) });
            for name in qemu::cpu_names(release) {
                let entry = entry(&found, name).unwrap_or_else(|| panic!("{} {name}", known.label));
                assert_eq!(entry.version.map(|version| version.number), means(release, machine, name));
            }
        }
    }
}

#[test]
fn sandybridge_and_its_second_version_differ_in_two_things() {
    for release in RELEASES.iter().map(|release| release.label) {
        let setting = setting(release, "q35", None);
        let found = compare(&setting, "SandyBridge", &setting, "SandyBridge-IBRS").unwrap();
        assert!(found.left.is_empty() && found.caches.is_none());
        assert_eq!(found.right.iter().map(|feature| feature.name.as_str()).collect::<Vec<_>>(), ["spec-ctrl"]);
        assert_eq!(
            found.properties.iter().map(|changed| changed.property).collect::<Vec<_>>(),
            ["model-id"],
            "{release}"
        );
        assert!(compare(&setting, "Haswell-v2", &setting, "Haswell-noTSX").unwrap().is_same());
    }
}

#[test]
fn releases_differ_in_what_they_changed() {
    let (old, new) = (setting("7.2", "q35", None), setting("10.0", "q35", None));
    let same = compare(&old, "SandyBridge", &new, "SandyBridge").unwrap();
    let names =
        |features: &[cpusieve_answers::models::Feature]| features.iter().map(|f| f.name.clone()).collect::<Vec<_>>();
    eprintln!("SandyBridge of 7.2 and 10.0: {:?} {:?} {:?}", names(&same.left), names(&same.right), same.properties);
    assert!(matches!(compare(&old, "EPYC-Genoa", &new, "EPYC-Genoa"), Err(NoModel::Unknown { .. })));
}

#[test]
fn what_is_taken_has_a_reason_and_a_way_around() {
    let hosts = hosts();
    let setting = setting("7.2", "q35", Some(&hosts["spr-6.18"]));
    let found = card(&setting, "Haswell", None).unwrap();
    let lacks = found.lacks.unwrap();
    assert_eq!(lacks.iter().map(|lack| lack.feature.name.as_str()).collect::<Vec<_>>(), ["hle", "rtm"]);
    assert!(lacks.iter().all(|lack| !lack.reason.rule.0.is_empty() && !lack.reason.cite.0.is_empty()));
    assert_eq!(found.without.as_deref(), Some("Haswell,-hle,-rtm"));
    assert_eq!(found.instead, ["Haswell-noTSX-IBRS", "Haswell-noTSX"]);
    let again = card(&setting, "Haswell,-hle,-rtm", None).unwrap();
    assert!(again.lacks.unwrap().is_empty());
}

#[test]
fn the_best_model_runs_unfiltered_and_is_of_the_hosts_vendor() {
    let hosts = hosts();
    for (name, expected) in [("milan-6.18", "EPYC-Milan"), ("spr-6.18", "")] {
        let setting = setting("11.1", "q35", Some(&hosts[name]));
        let found = catalogue(&setting);
        let best = &found.entries[found.best.unwrap()];
        eprintln!("{name}: {} with {} features", best.name, best.features);
        assert_eq!(best.runs(), Some(true));
        assert!(best.name.starts_with(expected), "{}", best.name);
        assert!(
            found
                .entries
                .iter()
                .filter(|entry| entry.runs() == Some(true) && entry.model.vendor == best.model.vendor)
                .all(|entry| entry.features <= best.features)
        );
    }
}

#[test]
fn a_name_that_is_unknown_says_where_it_is_known() {
    let setting = setting("7.2", "q35", None);
    let error = card(&setting, "EPYC-Genoa", None).unwrap_err().to_string();
    assert_eq!(error, "QEMU 7.2 has no CPU model `EPYC-Genoa`; 10.0, 11.1 has");
    let error = card(&setting, "sandybridge", None).unwrap_err().to_string();
    assert!(error.starts_with("QEMU 7.2 has no CPU model `sandybridge`; perhaps SandyBridge"), "{error}");
    assert!(card(&setting, "Haswell,nonsense=1", None).unwrap_err().to_string().contains("nonsense"));
}
