//! What a binary tells, put into small tables.
#![allow(clippy::unwrap_used, reason = "what is expected is what is tested")]

use cpusieve_import::tables::TableError;
use cpusieve_import::tables::qemu::{
    BinaryFacts, BinaryMachine, BinaryModel, BinaryProperty, QemuImportError, QemuTables,
};

fn tables() -> QemuTables {
    let text = |file: &str| match file {
        "releases.tsv" => "# releases\n7.2   7.2.22   x\n10.0  10.0.13  x\n",
        "bits.tsv" => "# bits\n1.EDX[0]  fpu  *  -  -  -  *\n",
        "aliases.tsv" => "# aliases\nsse3  pni\n",
        "models.tsv" => "# models\nHaswell  *  GenuineIntel  6  60  4  D  80000008  -  0  -  \"\"  -\n",
        "versions.tsv" => "# versions\nHaswell  1  *  -  -  -  -\nHaswell  2  *  Haswell-noTSX  -  -  hle=off\n",
        "machines.tsv" => {
            "# machines\npc-q35-10.0  10.0  q35  10.0  q35  1  qemu64  -  288  -\n\
             pc-q35-4.0  7.2  q35  4.0  -  legacy  qemu64  split  288  -\n\
             pc-q35-4.0  10.0  q35  4.0  -  legacy  qemu64  split  288  \"too old\"\n"
        }
        "properties.tsv" => {
            "# properties\nlbr_fmt  alias:lbr-fmt  -  *  *\nlegacy-cache  bool  on  *  *\npmu  bool  off  *  *\n"
        }
        _ => "# nothing\n",
    };
    QemuTables::parse(|file| Ok::<_, TableError>(text(file).to_owned())).unwrap()
}

fn machine(name: &str, alias: Option<&str>, deprecated: bool) -> BinaryMachine {
    let (alias, default_cpu) = (alias.map(str::to_owned), Some("qemu64".to_owned()));
    BinaryMachine { name: name.to_owned(), alias, default_cpu, max_cpus: 288, deprecated }
}

fn property(name: &str, kind: &str, default: Option<&str>) -> BinaryProperty {
    let (name, kind, default) = (name.to_owned(), kind.to_owned(), default.map(str::to_owned));
    BinaryProperty { name, kind, default, max_only: false }
}

/// What the tables say of 10.0.
fn known() -> BinaryFacts {
    let models = ["base", "max", "host", "Haswell", "Haswell-v1", "Haswell-v2", "Haswell-noTSX"];
    BinaryFacts {
        machines: vec![machine("pc-q35-4.0", None, true), machine("pc-q35-10.0", Some("q35"), false)],
        properties: vec![
            property("fpu", "bool", None),
            property("sse3", "bool", None),
            property("lbr_fmt", "uint64", None),
            property("legacy-cache", "bool", None),
            property("pmu", "bool", Some("false")),
        ],
        models: models.map(|name| BinaryModel { name: name.to_owned(), deprecated: false }).to_vec(),
    }
}

#[test]
fn what_is_known_changes_nothing() {
    let mut tables = tables();
    let before = tables.clone();
    assert!(tables.import_binary("10.0", &known()).unwrap().is_empty());
    assert_eq!(tables, before);
}

#[test]
fn a_new_machine_type_takes_what_it_does_not_tell_from_its_family() {
    let mut tables = tables();
    let mut facts = known();
    facts.machines.push(machine("pc-q35-10.1", None, true));
    assert!(tables.import_binary("10.0", &facts).unwrap().is_empty());
    let text = tables.print().into_iter().find(|(file, _)| *file == "machines.tsv").unwrap().1;
    let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0][..9], ["pc-q35-10.1", "10.0..", "q35", "10.1", "-", "1", "qemu64", "-", "288"]);
    assert_eq!(rows[0][9..].join(" "), "\"too old\"");
}

#[test]
fn a_machine_type_that_is_gone_loses_the_release_and_an_unknown_reason_is_said() {
    let mut tables = tables();
    let mut facts = known();
    facts.machines = vec![machine("pc-q35-10.0", Some("q35"), false), machine("isapc", None, true)];
    let said = tables.import_binary("7.2", &facts).unwrap();
    assert_eq!(said, ["machines: isapc is deprecated, and the binary does not tell why"]);
    let text = tables.print().into_iter().find(|(file, _)| *file == "machines.tsv").unwrap().1;
    let releases = |name| {
        text.lines()
            .filter(|row| row.starts_with(name))
            .map(|row| row.split_whitespace().nth(1).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!((releases("pc-q35-4.0"), releases("isapc")), (vec!["10.0.."], vec!["7.2"]));
}

#[test]
fn a_changed_property_is_a_row_of_its_own() {
    let mut tables = tables();
    let mut facts = known();
    facts.properties.pop();
    facts.properties.push(property("pmu", "OnOffAuto", Some("\"auto\"")));
    tables.import_binary("10.0", &facts).unwrap();
    let text = tables.print().into_iter().find(|(file, _)| *file == "properties.tsv").unwrap().1;
    let pmu: Vec<Vec<&str>> =
        text.lines().filter(|line| line.starts_with("pmu")).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(pmu, [["pmu", "bool", "off", "*", "7.2"], ["pmu", "on-off-auto", "auto", "*", "10.0.."]]);
}

#[test]
fn models_that_differ_are_said() {
    let mut facts = known();
    facts.models.retain(|model| model.name != "host" && model.name != "Haswell-noTSX");
    facts.models.push(BinaryModel { name: "Meteor".to_owned(), deprecated: false });
    facts.models[2].deprecated = true;
    let said = tables().import_binary("10.0", &facts).unwrap();
    assert_eq!(
        said,
        [
            "models: the binary says of Haswell: deprecated true",
            "models: the binary has no Haswell-noTSX",
            "models: Meteor is in no table",
        ]
    );
    assert_eq!(tables().import_binary("9.2", &facts), Err(QemuImportError::NoRelease("9.2".to_owned())));
}
