//! What a running QEMU says of a model, held against what the tables say.

use cpusieve_model::ModelExpansion;
use cpusieve_stages::qemu::{Accelerator, Expansion, PropertyValue, expansion};

/// A path of another object, which says nothing of the CPU.
const OTHER_OBJECT: &str = "memory";

/// Where a QEMU's reply to `query-cpu-model-expansion` differs from what is expected of `release` and `accelerator`, one
/// sentence for each property; empty if they are the same.
#[must_use]
pub fn differences(
    release: usize,
    accelerator: Accelerator<'_>,
    model: &str,
    kind: Expansion,
    told: &ModelExpansion,
) -> Vec<String> {
    let own = match expansion(release, accelerator, model, kind) {
        Ok(own) => own,
        Err(refusal) => return vec![format!("{model}: {refusal} is expected")],
    };
    let flags = told.flags.iter().map(|(name, on)| (name, on.to_string()));
    let other = told.other.iter().map(|(name, text)| (name, text.clone()));
    let mut found = Vec::new();
    for (name, value) in flags.chain(other).filter(|(name, _)| *name != OTHER_OBJECT) {
        match own.get(name.as_str()).map(json) {
            Some(expected) if expected == value => {}
            Some(expected) => found.push(format!("{model}: {name} is {value}; {expected} is expected")),
            None => found.push(format!("{model}: {name} is {value}; it is not known")),
        }
    }
    let silent = own.keys().filter(|name| !told.flags.contains_key(**name) && !told.other.contains_key(**name));
    found.extend(silent.map(|name| format!("{model}: {name} is not told")));
    found
}

/// A value as JSON text.
fn json(value: &PropertyValue) -> String {
    match value {
        PropertyValue::Bool(on) => on.to_string(),
        PropertyValue::Number(number) => number.to_string(),
        PropertyValue::Text(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}
