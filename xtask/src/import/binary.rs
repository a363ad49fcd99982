//! `cargo xtask import qemu --binary`: what a QEMU binary tells over QMP, into `knowledge/qemu` and against it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;

use cpusieve_answers::models;
use cpusieve_formats::qmp::ObjectProperty;
use cpusieve_import::tables::qemu::{BinaryFacts, BinaryMachine, BinaryModel, BinaryProperty};
use cpusieve_knowledge::qemu::{self as known, Fit};
use cpusieve_probe::qmp::{Start, Survey, survey};
use cpusieve_stages::qemu::{Accelerator, Expansion};

use super::qemu::{tables, write};
use super::{Request, Result, finish};

/// With which a type's name ends; what stands before it is the name that `-cpu` takes.
const TYPE: &str = "-x86_64-cpu";

/// Asks a binary and writes what it changes, or says it. Under TCG, which needs no hardware.
pub(super) fn import(root: &Path, request: &Request) -> Result<ExitCode> {
    let survey = survey(&Start::new(&request.folder, "tcg"), None)?;
    let version = &survey.version;
    let label = request.label.clone().unwrap_or_else(|| format!("{}.{}", version.major, version.minor));
    let mut tables = tables(root)?;
    let mut differences = tables.import_binary(&label, &facts(&survey))?;
    let releases = tables.releases();
    let entry = releases.position(&label).and_then(|at| releases.trees.get(at)).cloned();
    let entry = entry.ok_or("the release is in no table")?;
    if entry.version != version.to_string() {
        println!("the tables are of {}, the binary is {version}", entry.version);
    }
    differences.extend(write(root, &tables, request.check)?);
    differences.extend(expansions(&label, &survey));
    Ok(finish(&entry, &differences, request.check))
}

/// The answers as the tables take them.
fn facts(survey: &Survey) -> BinaryFacts {
    let machines = survey.machines.iter().map(|machine| BinaryMachine {
        name: machine.name.clone(),
        alias: machine.alias.clone(),
        default_cpu: machine.default_cpu_type.as_deref().map(|kind| kind.trim_end_matches(TYPE).to_owned()),
        max_cpus: machine.cpu_max.unwrap_or(0),
        deprecated: machine.deprecated.unwrap_or(false),
    });
    let models = survey
        .definitions
        .iter()
        .map(|model| BinaryModel { name: model.name.clone(), deprecated: model.deprecated.unwrap_or(false) });
    BinaryFacts { machines: machines.collect(), properties: properties(survey), models: models.collect() }
}

/// The properties of all types, each once: as the types tell them that can be made, else as the abstract one does.
fn properties(survey: &Survey) -> Vec<BinaryProperty> {
    let of = |name: &str| survey.device_properties.get(&format!("{name}{TYPE}")).map(Vec::as_slice).unwrap_or_default();
    let all: BTreeSet<&str> = of("base")
        .iter()
        .chain(survey.type_properties.values().flatten())
        .map(|property| property.name.as_str())
        .collect();
    let mut found: BTreeMap<&str, &ObjectProperty> = BTreeMap::new();
    for property in survey.type_properties.values().flatten().chain(of("base")).chain(of("max")) {
        found.insert(&property.name, property);
    }
    let row = |property: &ObjectProperty| BinaryProperty {
        name: property.name.clone(),
        kind: property.kind.clone(),
        default: property.default.clone(),
        max_only: !all.contains(property.name.as_str()),
    };
    found.into_values().map(row).collect()
}

/// Where what the models expand to is not what the tables say. The tables are those that this program was built with: an
/// import that changes them is checked by running it again.
fn expansions(label: &str, survey: &Survey) -> Vec<String> {
    let nearest = known::nearest(label);
    if nearest.fit != Fit::Same {
        println!("not compared: what the models expand to; this program was built without tables of {label}");
        return Vec::new();
    }
    let mut compared = 0;
    let mut found = Vec::new();
    for (kind, told) in [(Expansion::Full, &survey.full), (Expansion::Static, &survey.static_)] {
        for (name, model) in told {
            match model {
                Ok(model) => {
                    compared += 1;
                    found.extend(models::differences(nearest.release, Accelerator::Tcg, name, kind, model));
                }
                // `host` needs KVM.
                Err(_) if name == "host" => {}
                Err(refusal) => found.push(format!("{name}: refused: {refusal}")),
            }
        }
    }
    println!("{compared} expansions compared");
    found
}
