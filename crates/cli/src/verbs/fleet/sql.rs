//! `fleet sql`: the query with which another engine answers.

use cpusieve_fleet::Catalogue;
use cpusieve_knowledge::qemu::{self, Fit, RELEASES};
use cpusieve_store::{Engine, Question, query};
use serde_json::json;

use super::who::property;
use super::{Done, Failure};
use crate::args::{Engine as Named, SqlOptions, SqlQuestion};
use crate::{json, page};

pub(super) fn run(options: &SqlOptions, as_json: bool) -> Result<Done, Failure> {
    let release = match options.qemu.as_deref().map(qemu::nearest) {
        None => RELEASES.len().saturating_sub(1),
        Some(nearest) if nearest.fit == Fit::Unreadable => return Err("--qemu names no version".into()),
        Some(nearest) => nearest.release,
    };
    let catalogue = Catalogue::of(release);
    let engine = match options.engine {
        Named::Duckdb => Engine::DuckDb,
        Named::Datafusion => Engine::DataFusion,
        Named::Clickhouse => Engine::ClickHouse,
        Named::Spark => Engine::Spark,
    };
    let feature = options.feature.as_deref().unwrap_or("");
    let question = match options.question {
        SqlQuestion::Baseline => Question::Baseline,
        SqlQuestion::Features => Question::Features,
        SqlQuestion::Kinds => Question::Kinds,
        SqlQuestion::Who => Question::Who(property(feature, &catalogue)?),
    };
    let query = query(engine, question, &options.file, &catalogue);
    let note = engine.note(&options.file);
    if as_json {
        page::print(&json::pretty(&json!({"format": 1, "query": query, "note": note})))?;
    } else {
        if let Some(note) = note {
            page::warn(&note);
        }
        page::print(&query)?;
    }
    Ok(Done::Same)
}
