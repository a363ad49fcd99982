//! `key`: a short name for what programs or snapshots rely on.

use cpusieve_answers::key::{self, Covers};
use cpusieve_answers::models::Level;
use cpusieve_stages::Machine;
use serde_json::json;

use super::{Done, Failure, record};
use crate::args::{KeyOptions, Purpose};
use crate::{input, json, page};

pub(crate) fn run(options: &KeyOptions, as_json: bool) -> Result<Done, Failure> {
    let snapshot = match &options.input {
        Some(path) => input::read(path)?,
        None => record::this_machine(),
    };
    let machine = Machine::new("machine", &snapshot);
    let key = match options.purpose {
        Purpose::Programs => key::instructions(&machine)?,
        Purpose::Snapshots => key::snapshot(&machine)?,
    };
    if as_json {
        let covers = match key.covers {
            Covers::Instructions => "programs",
            Covers::Snapshot => "snapshots",
        };
        let level = key.level.map(Level::name);
        let value = json!({"format": 1, "key": key.to_string(), "for": covers, "level": level, "parts": key.parts});
        page::print(&json::pretty(&value))?;
    } else {
        page::print(&format!("{key}\n"))?;
    }
    Ok(Done::Same)
}
