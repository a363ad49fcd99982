//! What a survey must be: answers of the same binaries, collected by another program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cpusieve_formats::qmp::{Message, Reply};
use cpusieve_probe::qmp::Survey;
use serde_json::Value;

use crate::fake::gunzipped;

/// The folder of a QEMU's answers under TCG, if it is there and of exactly this binary; else says why not.
pub(crate) fn folder(survey: &Survey) -> Option<PathBuf> {
    let root = std::env::var("CPUSIEVE_SHARED")
        .map_or_else(|_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let version = &survey.version;
    let folder = root.join(format!("facts/qemu-{}.{}-tcg", version.major, version.minor));
    let Ok(meta) = std::fs::read_to_string(folder.join("meta.json")) else {
        eprintln!("not compared: {} is missing (CPUSIEVE_SHARED names another place)", folder.display());
        return None;
    };
    let meta: Value = serde_json::from_str(&meta).unwrap();
    let collected = &meta["version"]["qemu"]["micro"];
    if collected.as_u64() != Some(version.micro) {
        eprintln!("not compared: this is {version}, the answers in {} are of micro {collected}", folder.display());
        return None;
    }
    Some(folder)
}

/// Compares a survey with the answers in a folder; how many values were the same.
pub(crate) fn compare(survey: &Survey, folder: &Path) -> usize {
    let mut definitions = reply(&gunzipped(&folder.join("cpu-definitions.json.gz"))).cpu_definitions().unwrap();
    definitions.sort_by(|a, b| a.name.cmp(&b.name));
    let mut ours = survey.definitions.clone();
    ours.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(ours, definitions);
    let mut machines = reply(&gunzipped(&folder.join("machines.json.gz"))).machines().unwrap();
    machines.sort_by(|a, b| a.name.cmp(&b.name));
    let mut ours = survey.machines.clone();
    ours.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(ours, machines);
    let mut compared = definitions.len() + machines.len();
    for (file, ours) in [("expansion-full.json.gz", &survey.full), ("expansion-static.json.gz", &survey.static_)] {
        let models: BTreeMap<String, Value> = serde_json::from_str(&gunzipped(&folder.join(file))).unwrap();
        for (name, ours) in ours {
            let theirs = reply(&serde_json::json!({"model": models[name]}).to_string()).expansion().unwrap();
            let ours = ours.as_ref().expect(name);
            assert_eq!(ours, &theirs, "{file}: {name}");
            compared += ours.flags.len() + ours.other.len();
        }
    }
    let text = gunzipped(&folder.join("properties.json.gz"));
    let lists: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
    let ours =
        [("device-list-properties", &survey.device_properties), ("qom-list-properties", &survey.type_properties)];
    for (question, by_type) in ours {
        for (typename, ours) in by_type {
            let mut theirs = reply(&lists[&format!("{question}:{typename}")].to_string()).properties().unwrap();
            theirs.sort_by(|a, b| a.name.cmp(&b.name));
            let mut ours = ours.clone();
            ours.sort_by(|a, b| a.name.cmp(&b.name));
            assert_eq!(ours, theirs, "{question} {typename}");
            compared += ours.len();
        }
    }
    compared
}

/// What a QEMU would have returned, as if it had just been read.
fn reply(json: &str) -> Reply {
    let line = format!("{{\"return\":{json}}}");
    match Message::read(line.as_bytes()).unwrap() {
        Message::Return { reply, .. } => reply,
        other => panic!("{other:?}"),
    }
}
