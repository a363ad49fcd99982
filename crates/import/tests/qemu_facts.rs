//! Recorded answers of the real binaries, imported, change nothing.
#![allow(clippy::disallowed_methods, clippy::print_stderr, reason = "tests read files and say why they are skipped")]
#![allow(clippy::unwrap_used, reason = "tests fail by panics")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use cpusieve_import::tables::qemu::QemuTables;
use cpusieve_import::tables::qemu::{BinaryFacts, BinaryMachine, BinaryProperty};
use serde_json::Value;

fn stored(file: &str) -> String {
    std::fs::read_to_string(format!("{}/../../knowledge/qemu/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn facts() -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let folder = std::env::var("CPUSIEVE_SHARED").map_or_else(|_| beside(), PathBuf::from).join("facts");
    if !folder.is_dir() {
        eprintln!("skipped: {} is missing (CPUSIEVE_SHARED names another place)", folder.display());
        return None;
    }
    Some(folder)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Bool(on) => Some(if *on { "on" } else { "off" }.to_owned()),
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn machine(answer: &Value) -> BinaryMachine {
    let cpu = answer.get("default-cpu-type").and_then(Value::as_str);
    BinaryMachine {
        name: answer["name"].as_str().unwrap().to_owned(),
        alias: answer.get("alias").and_then(text),
        max_cpus: answer["cpu-max"].as_u64().unwrap(),
        default_cpu: cpu.map(|cpu| cpu.strip_suffix("-x86_64-cpu").unwrap().to_owned()),
        deprecated: answer["deprecated"].as_bool().unwrap(),
    }
}

fn properties(answers: &Value) -> Vec<BinaryProperty> {
    let list = |class: &str| answers[format!("qom-list-properties:{class}-x86_64-cpu")].as_array().unwrap();
    let mut found = BTreeMap::new();
    for (class, max_only) in [("max", true), ("qemu64", false)] {
        for answer in list(class) {
            let name = answer["name"].as_str().unwrap().to_owned();
            let kind = answer["type"].as_str().unwrap().to_owned();
            let default = answer.get("default-value").and_then(text);
            found.insert(name.clone(), BinaryProperty { name, kind, default, max_only });
        }
    }
    found.into_values().collect()
}

fn read(folder: &Path, label: &str, name: &str) -> Value {
    let file = File::open(folder.join(format!("qemu-{label}-tcg/{name}.json.gz"))).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn recorded_answers_change_no_table() {
    let Some(folder) = facts() else { return };
    let mut tables = QemuTables::parse(|file| Ok::<_, _>(stored(file))).unwrap();
    let before = tables.clone();
    for release in before.releases().trees.clone() {
        let (machines, list) = (read(&folder, &release.label, "machines"), read(&folder, &release.label, "properties"));
        let machines = machines.as_array().unwrap().iter().map(machine).collect();
        let facts = BinaryFacts { machines, properties: properties(&list), ..BinaryFacts::default() };
        // These answers tell nothing of models.
        tables.import_binary(&release.label, &facts).unwrap();
    }
    for ((file, now), (_, old)) in tables.print().into_iter().zip(before.print()) {
        assert_eq!(now, old, "{file}");
    }
}
