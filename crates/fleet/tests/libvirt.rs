//! libvirt's own cases of comparing and of baselines: sets of features as it has them, where the case file holds enough.
//!
//! The case file names most inputs of libvirt's tests by file. Those that it shows as the result of another case are
//! rebuilt from there; those of which nothing is shown cannot be judged, and are counted.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests read files and say what they saw"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cpusieve_fleet::{Answer, Definition, answer, feature, newest};
use cpusieve_model::ModelExpansion;
use serde_json::Value;

fn shared() -> PathBuf {
    let folder = std::env::var_os("CPUSIEVE_SHARED").map(PathBuf::from);
    folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"))
}

fn cases() -> Option<Vec<Value>> {
    let file = shared().join("facts/libvirt-baseline-cases.json");
    let Ok(text) = std::fs::read_to_string(&file) else {
        eprintln!("skipped: {} is not there", file.display());
        return None;
    };
    Some(serde_json::from_str::<Value>(&text).unwrap()["cases"].as_array().unwrap().clone())
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().map(|list| list.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

/// A `<cpu>` as the case file tells it of a result.
fn definition(told: &Value) -> Option<Definition> {
    let name = told["model"].as_str()?.to_owned();
    let mut expansion = ModelExpansion { name, ..ModelExpansion::default() };
    for (policy, is_on) in [("require", true), ("disable", false)] {
        for name in strings(&told[policy]) {
            expansion.flags.insert(name.to_owned(), is_on);
        }
    }
    for (field, key) in [("vendor", "libvirt-vendor"), ("match", "libvirt-match")] {
        if let Some(text) = told[field].as_str() {
            expansion.other.insert(key.to_owned(), format!("\"{text}\""));
        }
    }
    let kind = if told["mode"].is_null() { "host" } else { "guest" };
    expansion.other.insert("libvirt-cpu".to_owned(), format!("\"{kind}\""));
    Definition::of_expansion(&expansion).map_err(|error| eprintln!("{}: {error}", told["file"])).ok()
}

/// Every definition that a case shows as its result, by file.
fn results(cases: &[Value]) -> BTreeMap<String, Definition> {
    let fields = ["expected", "expected_host", "expected_guest", "expected_json"];
    let shown = cases.iter().flat_map(|case| fields.iter().map(|field| &case[*field]));
    shown.filter_map(|told| Some((told["file"].as_str()?.to_owned(), definition(told)?))).collect()
}

fn ids<'n>(names: impl IntoIterator<Item = &'n str>) -> BTreeSet<&'static str> {
    let catalogue = newest();
    names.into_iter().map(|name| feature(name, &catalogue).unwrap_or_else(|| panic!("{name}"))).collect()
}

/// Features that QEMU's newest definitions of models have and libvirt's map does not count as part of them: put into QEMU's
/// models, and marked `added` or left out of the map so that running guests keep their definition
/// (`src/cpu_map/x86_*.xml`).
const NOT_IN_THE_MAP: [&str; 6] = ["vme", "arat", "pclmulqdq", "topoext", "pku", "xsaveopt"];

/// What one side has and the other has not, but for what libvirt's map leaves out of models.
fn differences(ours: &BTreeSet<&'static str>, libvirts: &BTreeSet<&'static str>) -> Vec<String> {
    let more = ours.difference(libvirts).filter(|id| !NOT_IN_THE_MAP.contains(id)).map(|id| format!("+{id}"));
    more.chain(libvirts.difference(ours).map(|id| format!("-{id}"))).collect()
}

#[test]
fn baselines_are_the_sets_that_libvirt_computes() {
    let Some(cases) = cases() else { return };
    let results = results(&cases);
    let (mut same, mut other, mut unknown) = (0, Vec::new(), Vec::new());
    for case in cases.iter().filter(|case| ["baseline", "cpuid-baseline"].contains(&case["kind"].as_str().unwrap())) {
        let inputs: Option<Vec<Definition>> = match case["inputs"].as_array() {
            Some(files) => files.iter().map(|file| results.get(file.as_str().unwrap()).cloned()).collect(),
            // Features beside the model are only counted there.
            None => {
                let cpus = case["cpus"].as_array().unwrap().iter();
                cpus.map(|cpu| if cpu["features"] == 0 { definition(cpu) } else { None }).collect()
            }
        };
        let Some(inputs) = inputs else {
            unknown.push(case["id"].as_str().unwrap());
            continue;
        };
        let mut common = inputs.iter().map(Definition::expanded);
        let first = common.next().unwrap();
        let ours = common.fold(first, |all, one| all.intersection(&one).copied().collect());
        let differ = differences(&ours, &ids(strings(&case["sets"]["intersection"])));
        if differ.is_empty() { same += 1 } else { other.push(format!("{}: {}", case["id"], differ.join(" "))) }
    }
    eprintln!("{same} baselines the same; without their inputs: {unknown:?}");
    assert!(other.is_empty(), "{other:#?}");
}

/// What QEMU told libvirt of a host, and libvirt's definition of it.
#[test]
fn definitions_expand_to_what_qemu_told_libvirt() {
    let Some(cases) = cases() else { return };
    let (mut same, mut other, mut unknown) = (0, Vec::new(), 0);
    let catalogue = newest();
    for case in cases.iter().filter(|case| case["kind"] == "cpuid") {
        let reply = case["qemu_json"].as_str().map(|file| shared().join("corpus/libvirt").join(file));
        let bytes = reply.and_then(|file| std::fs::read(file).ok());
        let (Some(bytes), Some(told)) = (bytes, definition(&case["expected_json"])) else {
            unknown += 1;
            continue;
        };
        let seen = cpusieve_formats::read("reply", &bytes).snapshot;
        let flags = &seen.expansions.first().unwrap().flags;
        // What this QEMU does not know is neither on nor off.
        let state = |id: &str| {
            let mut names = catalogue.properties().iter().filter(|property| property.id == id);
            names.find_map(|property| flags.get(property.name).copied())
        };
        let wrong: Vec<_> = told.expanded().into_iter().filter(|id| state(id) == Some(false)).collect();
        let wrong: Vec<_> = wrong.into_iter().filter(|id| !NOT_IN_THE_MAP.contains(id)).collect();
        if wrong.is_empty() { same += 1 } else { other.push(format!("{}: {wrong:?}", case["id"])) }
    }
    eprintln!("{same} definitions of hosts the same, {unknown} without QEMU's reply");
    assert!(other.is_empty(), "{other:#?}");
}

#[test]
fn a_host_has_the_features_that_libvirt_finds() {
    let Some(cases) = cases() else { return };
    let results = results(&cases);
    let Some(host) = results.get("x86_64-host+host-model.xml") else { return };
    let catalogue = newest();
    for case in cases.iter().filter(|case| case["kind"] == "has-feature") {
        let found = feature(case["feature"].as_str().unwrap(), &catalogue).map(|id| host.expanded().contains(id));
        assert_eq!(found, case["expected"].as_bool(), "{}", case["id"]);
    }
}

#[test]
fn comparisons_are_what_libvirt_answers() {
    let Some(cases) = cases() else { return };
    let mut known = results(&cases);
    // libvirt's test host is what host-model becomes on it.
    if let Some(host) = known.get("x86_64-host+host-model.xml").cloned() {
        known.insert("x86_64-host.xml".to_owned(), Definition { guest: false, strict: false, ..host });
    }
    let (mut same, mut wrong, mut unknown) = (0, Vec::new(), Vec::new());
    for case in cases.iter().filter(|case| case["kind"] == "compare") {
        let side = |field: &str| known.get(case[field].as_str().unwrap());
        let (Some(host), Some(cpu)) = (side("host"), side("cpu")) else {
            unknown.push(case["id"].as_str().unwrap());
            continue;
        };
        let ours = match answer(host, cpu) {
            Answer::Identical => "IDENTICAL",
            Answer::Superset => "SUPERSET",
            Answer::Incompatible => "INCOMPATIBLE",
        };
        if case["expected"] == ours { same += 1 } else { wrong.push(format!("{}: {ours}", case["id"])) }
    }
    eprintln!("{same} comparisons the same, without their inputs: {unknown:?}");
    assert!(wrong.is_empty(), "{wrong:?}");
}
