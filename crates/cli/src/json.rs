//! The stable JSON, format 1.

use cpusieve_answers::diff::{Assumption, Diff, Item, Relation};
use cpusieve_answers::reason::Remedy;
use cpusieve_model::{Evidence, Place, Step};
use serde_json::{Map, Value, json};

use crate::worth::Worths;

/// A value as a pretty text with a newline at its end.
pub(crate) fn pretty(value: &Value) -> String {
    // Not by way of the formatter, which takes twice as long; a value can always be printed.
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

/// The answer of `diff`.
pub(crate) fn diff(diff: &Diff, worths: &Worths) -> String {
    let priced = |one: &Item| {
        let mut value = item(one);
        if let (Value::Object(fields), Some(price)) = (&mut value, worths.of(&one.flag)) {
            fields.insert("price".to_owned(), price);
        }
        value
    };
    pretty(&json!({
        "format": 1,
        "relation": relation(diff.relation),
        "assumed": diff.assumed.iter().map(assumption).collect::<Vec<_>>(),
        "lost": diff.lost.iter().map(priced).collect::<Vec<_>>(),
        "gained": diff.gained.iter().map(priced).collect::<Vec<_>>(),
        "kept": diff.kept,
        "unknown": diff.unknown,
        "undecided": diff.undecided,
    }))
}

/// The word for a relation: it stays, whatever the library calls it.
const fn relation(relation: Relation) -> &'static str {
    match relation {
        Relation::HostAndGuest => "HostAndGuest",
        Relation::GuestAndHost => "GuestAndHost",
        Relation::Hosts => "Hosts",
        Relation::Guests => "Guests",
        Relation::OuterAndInner => "OuterAndInner",
        Relation::InnerAndOuter => "InnerAndOuter",
        Relation::Strangers => "Strangers",
        Relation::DifferentVendors => "DifferentVendors",
        Relation::Equal => "Equal",
    }
}

/// Something that the answer rests on.
pub(crate) fn assumption(assumed: &Assumption) -> Value {
    json!({"what": assumed.what, "value": assumed.value, "because": assumed.because})
}

/// One flag's answer.
pub(crate) fn item(item: &Item) -> Value {
    let mut fields = Map::new();
    let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
    put("flag", json!(item.flag));
    put("bit", json!(item.place.map(|place| place.to_string())));
    put("at", json!(item.at.map_or("unknown", |stage| stage.name())));
    put("rule", json!((!item.rule.0.is_empty()).then_some(item.rule.0)));
    put("title", json!(item.title));
    put("cause", json!(item.cause));
    put("cite", json!((!item.cite.0.is_empty()).then_some(item.cite.0)));
    put("confidence", json!(item.confidence.name()));
    put("remedy", remedy(&item.remedy));
    put("follows", json!(item.follows));
    let others = item
        .others
        .iter()
        .map(|other| json!({"at": other.at.name(), "rule": other.rule.0, "cause": other.cause, "cite": other.cite.0}));
    put("others", Value::Array(others.collect()));
    put("steps", Value::Array(item.steps.iter().map(step).collect()));
    Value::Object(fields)
}

/// A remedy.
pub(crate) fn remedy(remedy: &Remedy) -> Value {
    json!({"kind": remedy.kind.name(), "text": remedy.text, "cpu": remedy.cpu})
}

/// A step.
pub(crate) fn step(step: &Step) -> Value {
    json!({
        "feature": step.feature,
        "bit": step.place.map(|place: Place| place.to_string()),
        "at": step.at.name(),
        "effect": step.effect.name(),
        "rule": step.rule.0,
        "cite": step.cite.0,
        "because": step.because.iter().map(evidence).collect::<Vec<_>>(),
    })
}

fn evidence(evidence: &Evidence) -> Value {
    json!({"source": evidence.source(), "value": evidence.value()})
}
