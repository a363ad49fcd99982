//! Everything that a binary knows of CPU models.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cpusieve_formats::qmp::{CpuDefinition, Expansion, MachineType, Notice, ObjectProperty, Version};
use cpusieve_model::ModelExpansion;

use super::{QmpError, Session, Start};

/// The QOM type from which all x86-64 CPUs descend. It is abstract.
const CPU_TYPE: &str = "x86_64-cpu";

/// Models whose types are asked for their properties: the plain one, and those with properties
/// of their own.
const TYPES_OF: [&str; 3] = ["base", "max", "host"];

/// Everything that a binary knows of CPU models with one accelerator, without a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// The QEMU's version.
    pub version: Version,
    /// `query-machines`.
    pub machines: Vec<MachineType>,
    /// `query-cpu-definitions`.
    pub definitions: Vec<CpuDefinition>,
    /// Full expansions by the name that was asked for; or why there is none.
    pub full: BTreeMap<String, Result<ModelExpansion, String>>,
    /// Static expansions by the name that was asked for; or why there is none.
    pub static_: BTreeMap<String, Result<ModelExpansion, String>>,
    /// `device-list-properties` by type: those of `base`, `max` and, if there is one, `host`.
    pub device_properties: BTreeMap<String, Vec<ObjectProperty>>,
    /// `qom-list-properties` by type: those of the abstract `x86_64-cpu`.
    pub type_properties: BTreeMap<String, Vec<ObjectProperty>>,
    /// What QEMU said on stderr.
    pub notices: Vec<Notice>,
    /// All that was said ([`Session::transcript`]).
    pub transcript: Vec<String>,
    /// How long it took, from before the program was started until after it had ended.
    pub took: Duration,
}

/// Asks a binary everything it knows of CPU models: all of them, or those in `models`. A machine or CPU in `start` is
/// not used, because without a machine a QEMU answers for the model alone.
///
/// # Errors
///
/// If QEMU cannot be run or stops answering. A model that it refuses to expand is no error: its entry says why.
pub fn survey(start: &Start, models: Option<&[&str]>) -> Result<Survey, QmpError> {
    let clock = Instant::now();
    let mut session = Start { machine: "none".to_owned(), cpu: None, smp: None, ..start.clone() }.open()?;
    let version = session.query_version()?;
    let machines = session.machines()?;
    let definitions = session.cpu_definitions()?;
    let wanted = |name: &str| models.is_none_or(|models| models.contains(&name));
    let names: Vec<&str> = definitions.iter().map(|model| model.name.as_str()).filter(|name| wanted(name)).collect();
    let full = expand(&mut session, Expansion::Full, &names)?;
    let static_ = expand(&mut session, Expansion::Static, &names)?;
    let mut device_properties = BTreeMap::new();
    for model in definitions.iter().filter(|model| TYPES_OF.contains(&model.name.as_str())) {
        if let Some(typename) = &model.typename {
            device_properties.insert(typename.clone(), session.device_properties(typename)?);
        }
    }
    let type_properties = BTreeMap::from([(CPU_TYPE.to_owned(), session.type_properties(CPU_TYPE)?)]);
    let notices = session.notices();
    let transcript = session.transcript();
    session.close()?;
    let took = clock.elapsed();
    Ok(Survey {
        version,
        machines,
        definitions,
        full,
        static_,
        device_properties,
        type_properties,
        notices,
        transcript,
        took,
    })
}

fn expand(
    session: &mut Session,
    expansion: Expansion,
    names: &[&str],
) -> Result<BTreeMap<String, Result<ModelExpansion, String>>, QmpError> {
    let mut expanded = BTreeMap::new();
    for &name in names {
        let model = match session.expand(expansion, name, &[]) {
            Ok(model) => Ok(model),
            Err(QmpError::Refused { description, .. }) => Err(description),
            Err(other) => return Err(other),
        };
        expanded.insert(name.to_owned(), model);
    }
    Ok(expanded)
}
