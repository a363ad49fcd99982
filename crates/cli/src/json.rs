//! The stable JSON, format 1.

pub(crate) mod layout;

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

/// Adds a step to a text, in one line: what [`step`] is, without making it first. A prediction has more than a thousand.
pub(crate) fn append_step(text: &mut String, step: &Step) {
    text.push_str("{\"feature\":");
    append_quoted(text, |text| text.push_str(&step.feature));
    text.push_str(",\"bit\":");
    match step.place {
        Some(place) => append_quoted(text, |text| place.append_to(text)),
        None => text.push_str("null"),
    }
    let words = [
        (",\"at\":", step.at.name()),
        (",\"effect\":", step.effect.name()),
        (",\"rule\":", step.rule.0),
        (",\"cite\":", step.cite.0),
    ];
    for (key, word) in words {
        text.push_str(key);
        append_quoted(text, |text| text.push_str(word));
    }
    text.push_str(",\"because\":[");
    for (index, evidence) in step.because.iter().enumerate() {
        text.push_str(if index == 0 { "{\"source\":" } else { ",{\"source\":" });
        append_quoted(text, |text| evidence.append_source(text));
        text.push_str(",\"value\":");
        append_quoted(text, |text| evidence.append_value(text));
        text.push('}');
    }
    text.push_str("]}");
}

/// Adds what `append` adds, as a JSON string.
fn append_quoted(text: &mut String, append: impl FnOnce(&mut String)) {
    text.push('"');
    let start = text.len();
    append(text);
    let special = |byte: u8| (byte < b' ') | (byte == b'"') | (byte == b'\\');
    // To the end in any case: so it is many bytes at a time.
    let added = text.as_bytes().get(start..).unwrap_or_default();
    if added.iter().fold(false, |any, &byte| any | special(byte)) {
        // A string can always be printed; the first quote stands already.
        let quoted = serde_json::to_string(&text.split_off(start)).unwrap_or_default();
        text.push_str(quoted.strip_prefix('"').unwrap_or(&quoted));
    } else {
        text.push('"');
    }
}

fn evidence(evidence: &Evidence) -> Value {
    json!({"source": evidence.source(), "value": evidence.value()})
}

#[cfg(test)]
mod tests {
    use cpusieve_model::{Cite, CpuidBit, Effect, Register, RuleId, Stage};

    use super::*;

    #[test]
    fn a_step_that_is_added_is_the_step_that_is_made() {
        let bit = CpuidBit::new(7, 0, Register::Ebx, 16);
        let flag = |name: &'static str| Evidence::Flag { of: "host", name: name.into(), printed: false };
        let because = [
            Evidence::Register { of: "host", answer: "CPUID", bit, value: Some(0x1_0000) },
            Evidence::Register { of: "guest", answer: "CPUID", bit, value: None },
            flag("avx2"),
            Evidence::Setting { source: "-cpu", text: "host,model-id=\"a\\b\"\u{7}\n\u{e9}".to_owned() },
        ];
        for (place, count) in [(Some(Place::Cpuid(bit)), 4), (None, 1), (None, 0)] {
            let made = Step {
                feature: "a \"feature\"".into(),
                place,
                at: Stage::Kvm,
                effect: Effect::Dropped,
                rule: RuleId("KVM0001"),
                cite: Cite("file:function"),
                because: because.iter().take(count).cloned().collect(),
            };
            let mut text = "[".to_owned();
            append_step(&mut text, &made);
            assert_eq!(text, format!("[{}", step(&made)));
        }
    }
}
