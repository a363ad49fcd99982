//! What the panel shows of a feature, as data for the script: every sentence once.

use std::collections::HashMap;

use cpusieve_answers::name;
use cpusieve_knowledge::rules::RemedyKind;
use cpusieve_knowledge::x86;
use cpusieve_model::{Place, Step};
use serde_json::{Value, json};

use crate::sieve::heading;
use crate::table::{cause, sections};
use crate::way::{Cause, Way, Ways};

/// Texts, each kept once; a feature refers to them by number.
#[derive(Default)]
pub(crate) struct Texts {
    all: Vec<String>,
    known: HashMap<String, usize>,
}

impl Texts {
    fn number(&mut self, text: &str) -> usize {
        if let Some(&number) = self.known.get(text) {
            return number;
        }
        self.all.push(text.to_owned());
        self.known.insert(text.to_owned(), self.all.len() - 1);
        self.all.len() - 1
    }

    fn optional(&mut self, text: &str) -> Value {
        if text.is_empty() { Value::Null } else { json!(self.number(text)) }
    }
}

/// Everything about all features.
pub(crate) fn of_ways(ways: &Ways) -> Value {
    let mut texts = Texts::default();
    let features: Vec<Value> = ways.ways.iter().map(|way| feature(way, &mut texts)).collect();
    let sections: Vec<Value> = sections(ways)
        .iter()
        .map(|section| json!({"g": section.id, "f": section.fate.name(), "m": section.members}))
        .collect();
    let stages: Vec<Value> =
        cpusieve_model::Stage::ALL.iter().map(|&stage| json!([stage.name(), heading(stage)])).collect();
    json!({"kind": "ways", "stages": stages, "texts": texts.all, "features": features, "sections": sections})
}

fn feature(way: &Way, texts: &mut Texts) -> Value {
    let known = x86::feature(&way.feature);
    json!({
        "n": way.feature,
        "t": known.map(|known| texts.number(known.title)),
        "b": way.place.map(|place: Place| place.to_string()),
        "f": way.fate.name(),
        "c": cause(way).map(|cause| words(cause, texts)),
        "e": way.enters.as_ref().filter(|enters| cause(way).is_none_or(|cause| cause.rule != enters.rule))
            .map(|enters| words(enters, texts)),
        "s": way.steps.iter().map(|each| step(each, texts)).collect::<Vec<_>>(),
        "a": known.map(|known| names(known, texts)),
        "p": way.price,
    })
}

fn words(cause: &Cause, texts: &mut Texts) -> Value {
    let remedy = cause.remedy.as_ref().filter(|remedy| !remedy.text.is_empty());
    let others: Vec<Value> = cause
        .others
        .iter()
        .map(|other| json!([other.at.name(), texts.number(&other.cause), texts.number(other.cite.0), other.rule.0]))
        .collect();
    json!({
        "at": cause.at.map(|stage| stage.name()),
        "rule": texts.optional(&cause.rule),
        "title": texts.number(&cause.title),
        "text": texts.number(&cause.text),
        "cite": texts.optional(&cause.cite),
        "sure": cause.confidence.map(cpusieve_answers::reason::Confidence::name),
        "remedy": remedy.map(|remedy| json!([remedy.kind != RemedyKind::None, texts.number(&remedy.text)])),
        "cpu": remedy.and_then(|remedy| remedy.cpu.clone()),
        "follows": cause.follows,
        "others": others,
    })
}

fn step(step: &Step, texts: &mut Texts) -> Value {
    let because: Vec<usize> = step
        .because
        .iter()
        .map(|evidence| texts.number(&format!("{}: {}", evidence.source(), evidence.value())))
        .collect();
    json!([step.at.name(), step.effect.name(), texts.optional(step.rule.0), texts.optional(step.cite.0), because])
}

/// System and name, pair by pair.
pub(crate) fn name_pairs(feature: &'static x86::Feature) -> Vec<(String, String)> {
    let card = name::card(feature);
    let mut pairs: Vec<(String, String)> = Vec::new();
    if let Some(newest) = card.linux.last() {
        pairs.push(("Linux".to_owned(), format!("X86_FEATURE_{}", newest.macro_name)));
    }
    for bit in &card.qemu {
        if let Some(name) = bit.name {
            pairs.push(("QEMU".to_owned(), name.to_owned()));
        }
    }
    pairs.extend(card.elsewhere.iter().map(|&(system, name)| (system.to_owned(), name.to_owned())));
    let mut seen: Vec<(String, String)> = Vec::new();
    for pair in pairs {
        if !seen.contains(&pair) {
            seen.push(pair);
        }
    }
    seen
}

fn names(feature: &'static x86::Feature, texts: &mut Texts) -> Value {
    name_pairs(feature).iter().map(|(system, name)| json!([texts.number(system), texts.number(name)])).collect()
}
