//! `check`: one line and one status, as monitoring plugins print them.

use std::path::Path;

use cpusieve_answers::check::{self, Answer, Status, Wanted};
use cpusieve_answers::models::Level;
use cpusieve_stages::Machine;
use serde_json::{Value, json};

use super::{Done, Failure, record};
use crate::args::{CheckOptions, LevelName};
use crate::{input, json, page};

pub(crate) fn run(options: &CheckOptions, as_json: bool) -> Result<Done, Failure> {
    let (status, line, value) = match asked(options) {
        Ok(answer) => (answer.status, told(&answer), as_value(&answer)),
        Err(error) => unknown(&error.to_string()),
    };
    Ok(end(status, &line, &value, as_json))
}

/// What arguments come to that cannot be understood: UNKNOWN, on the line that monitoring shows; all that `clap` has to
/// say of them goes to standard error.
pub(crate) fn misused(error: &clap::Error, as_json: bool) -> Done {
    let _ = error.print();
    let told = error.render().to_string();
    let first = told.lines().next().unwrap_or_default();
    let (status, line, value) = unknown(first.strip_prefix("error: ").unwrap_or(first));
    end(status, &line, &value, as_json)
}

/// The status, the line and the JSON of what could not be checked.
fn unknown(error: &str) -> (Status, String, Value) {
    let value = json!({"format": 1, "status": Status::Unknown.name(), "error": error});
    // A `|` ends the text.
    (Status::Unknown, page::tame(error).replace('|', "?"), value)
}

/// Prints the line, and ends with the status that goes with it in the plugins' protocol.
fn end(status: Status, line: &str, value: &Value, as_json: bool) -> Done {
    let text = if as_json { json::pretty(value) } else { format!("CPUSIEVE {} - {line}\n", status.name()) };
    let status = match (page::print(&text), status) {
        (Ok(()), Status::Ok) => 0,
        (Ok(()), Status::Warning) => 1,
        (Ok(()), Status::Critical) => 2,
        (Ok(()), Status::Unknown) => 3,
        // What nobody could be told is not known.
        (Err(error), _) => {
            page::complain(&error);
            3
        }
    };
    Done::Plugin(status)
}

fn asked(options: &CheckOptions) -> Result<Answer, Failure> {
    let level = options.level.map(|level| match level {
        LevelName::V1 => Level::V1,
        LevelName::V2 => Level::V2,
        LevelName::V3 => Level::V3,
        LevelName::V4 => Level::V4,
    });
    let mut features = options.features.clone();
    if let Some(path) = &options.baseline {
        features.extend(baseline(path)?);
    }
    if features.is_empty() && options.prefer.is_empty() && level.is_none() {
        return Err("nothing was asked for: give --features, --prefer, --level or --baseline".into());
    }
    let snapshot = match &options.input {
        Some(path) => input::read(path)?,
        None => record::this_machine(),
    };
    let machine = Machine::new("machine", &snapshot);
    if machine.cpuid().is_none() && machine.flags().is_none() {
        return Err("neither CPUID nor a flags line was seen".into());
    }
    Ok(check::check(&machine, &Wanted { features, level, preferred: options.prefer.clone() })?)
}

/// The features of a baseline.
fn baseline(path: &Path) -> Result<Vec<String>, Failure> {
    let name = input::name(path);
    let bytes = input::bytes(path, &name)?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| format!("{name}: {error}"))?;
    let features = value.get("features").and_then(Value::as_array);
    let features = features.ok_or_else(|| format!("{name}: no `features`, as fleet baseline --json prints them"))?;
    Ok(features.iter().filter_map(|feature| feature.as_str().map(str::to_owned)).collect())
}

/// The text behind the status, and the values that monitoring draws.
fn told(answer: &Answer) -> String {
    let lacking = answer.missing.len() + answer.less.len();
    let level = answer.level.map_or("below x86-64-v1", Level::name);
    let text = match (answer.missing.as_slice(), answer.less.as_slice()) {
        ([], []) => format!("all {} there, {level}", answer.asked),
        ([], less) => format!("not there, though preferred: {}; {level}", less.join(" ")),
        (missing, _) => format!("missing: {}; {level}", missing.join(" ")),
    };
    // A `|` ends the text.
    let text = page::tame(&text).replace('|', "?");
    format!("{text} | asked={} missing={lacking}", answer.asked)
}

fn as_value(answer: &Answer) -> Value {
    json!({
        "format": 1,
        "status": answer.status.name(),
        "asked": answer.asked,
        "missing": answer.missing,
        "less": answer.less,
        "level": answer.level.map(Level::name),
    })
}
