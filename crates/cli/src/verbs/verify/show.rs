//! The proof as text and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use cpusieve_answers::verify::{Mismatch, Outside, Part, Proof};
use cpusieve_model::Stage;
use serde_json::{Value, json};

use super::super::flags;
use super::Section;
use crate::json;
use crate::page::{self, GAINED, HEAD, LOST, QUIET, styled};

/// The mismatches of one cause that are shown to people; the JSON has all of them.
const SHOWN: usize = 12;

/// Columns of a part's name and the blank behind it.
const INDENT: &str = "       ";

pub(super) fn as_text(sections: &[Section], outside: Option<&Outside>) -> String {
    let proofs = || sections.iter().map(|section| &section.proof);
    let compared: usize = proofs().map(|proof| proof.compared).sum();
    let differences = proofs().flat_map(|proof| proof.mismatches.iter().map(|found| mismatch(proof.part, found)));
    let differences: Vec<Value> = differences.collect();
    let outside = outside.map(|outside| {
        let lost: Vec<Value> = outside.lost.iter().map(json::item).collect();
        let assumed: Vec<Value> = outside.assumed.iter().map(json::assumption).collect();
        json!({"generation": outside.generation, "lost": lost, "assumed": assumed})
    });
    json::pretty(&json!({
        "format": 1,
        "compared": compared,
        "same": compared > 0 && differences.is_empty(),
        "differences": differences,
        "unseen": proofs().flat_map(|proof| proof.unseen.iter()).collect::<Vec<_>>(),
        "parts": sections.iter().map(part).collect::<Vec<_>>(),
        "outside": outside,
    }))
}

fn mismatch(part: Part, found: &Mismatch) -> Value {
    let Mismatch { what, predicted, real, features, cause } = found;
    json!({
        "part": part.name(), "what": what, "predicted": predicted, "real": real, "features": features, "cause": cause,
    })
}

fn part(section: &Section) -> Value {
    let Proof { part, of, counted, compared, mismatches, unseen, findings, assumed } = &section.proof;
    let assumed = assumed.iter().map(|assumed| {
        json!({"what": assumed.what, "value": assumed.value, "because": assumed.because, "hangs": assumed.hangs})
    });
    json!({
        "part": part.name(),
        "of": of,
        "counted": counted,
        "compared": compared,
        "same": *compared > 0 && mismatches.is_empty(),
        "differences": mismatches.len(),
        "unseen": unseen,
        "findings": findings,
        "assumed": assumed.collect::<Vec<_>>(),
        "microseconds": section.took.and_then(|took| u64::try_from(took.as_micros()).ok()),
        "doubt": section.doubt,
    })
}

pub(super) fn text(sections: &[Section], outside: Option<&Outside>, width: usize) -> String {
    let mut page = String::new();
    for (number, section) in sections.iter().enumerate() {
        if number > 0 {
            page.push('\n');
        }
        one(&mut page, section, width);
    }
    if let Some(outside) = outside {
        around(&mut page, outside, width);
    }
    page
}

fn one(page: &mut String, section: &Section, width: usize) {
    let proof = &section.proof;
    let verdict = match (proof.compared, proof.mismatches.len()) {
        (0, _) => styled(LOST, "not compared"),
        (all, 0) => styled(GAINED, format!("{} as predicted", counted(all, proof.counted))),
        (all, some) => styled(LOST, format!("{some} of {} not as predicted", counted(all, proof.counted))),
    };
    let doubt = section.doubt.map_or_else(String::new, |doubt| format!(", {doubt}"));
    let took = section.took.map(|took| format!(" {}", styled(QUIET, format!("({}{doubt})", time(took)))));
    let took = took.unwrap_or_default();
    let name = styled(HEAD, format!("{:<6}", proof.part.name()));
    // Whatever could not be looked at has no name of its own.
    let of = if proof.of == proof.part.name() { String::new() } else { format!("{}: ", page::tame(&proof.of)) };
    page.push_str(&page::wrap(&format!("{of}{verdict}{took}"), &format!("{name} "), INDENT, width));
    for finding in &proof.findings {
        page.push_str(&page::wrap(&page::tame(finding), &format!("{INDENT}! "), &format!("{INDENT}  "), width));
    }
    for unseen in &proof.unseen {
        let first = format!("{INDENT}not compared: ");
        page.push_str(&page::wrap(&page::tame(unseen), &first, &format!("{INDENT}  "), width));
    }
    let mut causes: Vec<(&str, Vec<&Mismatch>)> = Vec::new();
    for found in &proof.mismatches {
        match causes.iter_mut().find(|(cause, _)| *cause == found.cause) {
            Some((_, others)) => others.push(found),
            None => causes.push((&found.cause, vec![found])),
        }
    }
    for (cause, found) in causes {
        of_cause(page, cause, &found, width);
    }
}

/// What differs for one cause: the cause, then a line for each.
fn of_cause(page: &mut String, cause: &str, found: &[&Mismatch], width: usize) {
    page.push_str(&page::wrap(&page::tame(cause), &format!("{INDENT}> "), &format!("{INDENT}  "), width));
    for Mismatch { what, predicted, real, features, .. } in found.iter().take(SHOWN) {
        let value = |value: &Option<String>| value.as_deref().map_or_else(|| "none".to_owned(), page::tame);
        let values = match (predicted, real) {
            (None, None) => String::new(),
            _ => format!(" predicted {}, real {}", value(predicted), value(real)),
        };
        // A word needs no features beside it, nor does a property.
        let named = features.iter().filter(|feature| !what.contains(feature.as_str()));
        let named = page::tame(&named.map(String::as_str).collect::<Vec<_>>().join(" "));
        let named = if named.is_empty() { named } else { styled(QUIET, format!(" ({named})")) };
        let line = format!("{}{values}{named}", page::tame(what));
        page.push_str(&page::wrap(&line, &format!("{INDENT}    "), &format!("{INDENT}      "), width));
    }
    if found.len() > SHOWN {
        let _ = writeln!(page, "{INDENT}    and {} more (--json shows all)", found.len() - SHOWN);
    }
}

/// What was taken outside of a machine that is itself a guest.
fn around(page: &mut String, outside: &Outside, width: usize) {
    let heading = format!("This machine is itself a guest, on {}", page::tame(outside.generation));
    let _ = writeln!(page, "\n{}", styled(HEAD, heading));
    if outside.lost.is_empty() {
        page.push_str(&page::wrap("Nothing is missing of what is known of this generation.", "  ", "  ", width));
        return;
    }
    let what = "Flags that CPUs of this generation have, and that do not reach this machine; the sieve that most likely \
                took them:";
    page.push_str(&page::wrap(what, "  ", "  ", width));
    let with = page::wrap(&format!("With {}.", flags::assumed(&outside.assumed)), "  ", "  ", width);
    let _ = writeln!(page, "{}", styled(QUIET, with.trim_end()));
    for stage in Stage::ALL.into_iter().map(Some).chain([None]) {
        let names: Vec<&str> =
            outside.lost.iter().filter(|item| item.at == stage).map(|item| item.flag.as_str()).collect();
        if !names.is_empty() {
            let name = stage.map_or("unknown", |stage| stage.name());
            let first = format!("  {} ", styled(QUIET, format!("{name:<8}")));
            page.push_str(&page::wrap(&styled(LOST, names.join(" ")), &first, "           ", width));
        }
    }
}

/// A count of a word whose plural is regular.
fn counted(count: usize, what: &str) -> String {
    match what.strip_suffix('y') {
        Some(stem) if count != 1 => format!("{count} {stem}ies"),
        _ => page::counted(count, what),
    }
}

/// A time that was measured once, for people.
fn time(took: Duration) -> String {
    let milliseconds = took.as_secs_f64() * 1000.0;
    if milliseconds < 100.0 { format!("{milliseconds:.1} ms") } else { format!("{:.1} s", milliseconds / 1000.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section() -> Section {
        let found = |what: &str| Mismatch {
            what: what.to_owned(),
            predicted: Some("0x1".to_owned()),
            real: None,
            features: vec!["avx".to_owned()],
            cause: "one cause".to_owned(),
        };
        let mut proof = Proof::new(Part::Vcpu, "a vCPU".to_owned(), "property");
        (proof.compared, proof.mismatches) = (20, (0..14).map(|number| found(&format!("{number}.EAX"))).collect());
        Section { proof, took: Some(Duration::from_micros(4200)), doubt: Some("once") }
    }

    #[test]
    fn differences_are_grouped_by_cause_and_counted() {
        let text = anstream::adapter::strip_str(&text(&[section()], None, 80)).to_string();
        assert!(text.starts_with("vcpu   a vCPU: 14 of 20 properties not as predicted (4.2 ms, once)\n"), "{text}");
        assert_eq!(text.matches("one cause").count(), 1);
        assert!(text.contains("0.EAX predicted 0x1, real none (avx)") && text.contains("and 2 more"), "{text}");
    }

    #[test]
    fn the_json_holds_every_difference_with_its_part() {
        let value: Value = serde_json::from_str(&as_text(&[section()], None)).unwrap();
        assert_eq!((value["differences"].as_array().unwrap().len(), value["same"].as_bool()), (14, Some(false)));
        assert_eq!(value["differences"][13]["part"], "vcpu");
        assert_eq!(value["parts"][0]["microseconds"], 4200);
    }
}
