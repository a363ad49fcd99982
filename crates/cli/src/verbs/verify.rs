//! `verify`: the prediction held against the real thing.

use std::fmt::Write as _;

use cpusieve_answers::verify::{self, Difference, Verified};
use cpusieve_knowledge::linux;
use cpusieve_model::Snapshot;
use cpusieve_stages::linux::boot::Unlisted;
use serde_json::{Value, json};

use super::{Done, Failure, record};
use crate::args::VerifyOptions;
use crate::page::{self, GAINED, HEAD, LOST, QUIET, styled};
use crate::{input, json};

pub(crate) fn run(options: &VerifyOptions, as_json: bool) -> Result<Done, Failure> {
    // KVM is all that can be verified so far, so that the flag only says what happens anyway.
    let VerifyOptions { kvm: _, record: path } = options;
    let (name, (snapshot, unlisted)) = match path {
        Some(path) => (input::name(path), input::read_for_boot(path)?),
        None => ("this machine".to_owned(), (record::this_machine(), Unlisted::NotSeen)),
    };
    let found = verify::kvm(&snapshot, unlisted).map_err(|refusal| format!("{name}: {refusal}"))?;
    let unseen = unseen(&snapshot, &found);
    page::print(&if as_json { as_text(&found, &unseen) } else { text(&found, &unseen, page::width()) })?;
    Ok(match (found.differences.is_empty(), unseen.is_empty()) {
        (false, _) => Done::Different,
        (true, false) => Done::InPart,
        (true, true) => Done::Same,
    })
}

/// What could not be compared, with what the recorder says of it.
fn unseen(snapshot: &Snapshot, found: &Verified) -> Vec<String> {
    let mut unseen = found.unseen.clone();
    if !unseen.is_empty() {
        let of_kvm = snapshot.missing.iter().filter(|part| part.what == "kvm" || part.what == "msrs");
        unseen.extend(of_kvm.map(record::missing));
    }
    unseen
}

fn as_text(found: &Verified, unseen: &[String]) -> String {
    let hex = |value: Option<u64>| value.map_or(Value::Null, |value| Value::from(format!("{value:#x}")));
    let differences = found.differences.iter().map(|difference| {
        let Difference { what, predicted, real, features, cause } = difference;
        json!({
            "what": what.to_string(), "predicted": hex(*predicted), "real": hex(*real),
            "features": features, "cause": cause,
        })
    });
    json::pretty(&json!({
        "format": 1,
        "kernel": linux::TREES.get(found.prediction.host.tree).map(|tree| tree.label),
        "compared": found.compared,
        "same": found.compared > 0 && found.differences.is_empty(),
        "differences": differences.collect::<Vec<_>>(),
        "unseen": unseen,
        "findings": found.prediction.findings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "assumed": found.prediction.assumed.iter().map(|assumed| {
            json!({"what": assumed.what, "value": assumed.value, "because": assumed.because, "hangs": assumed.hangs})
        }).collect::<Vec<_>>(),
    }))
}

fn text(found: &Verified, unseen: &[String], width: usize) -> String {
    let mut page = String::new();
    let label = linux::TREES.get(found.prediction.host.tree).map_or("", |tree| tree.label);
    let verdict = match (found.compared, found.differences.len()) {
        (0, _) => styled(LOST, "nothing could be compared"),
        (all, 0) => styled(GAINED, format!("{} as predicted", page::counted(all, "register"))),
        (all, some) => styled(LOST, format!("{some} of {} not as predicted", page::counted(all, "register"))),
    };
    let _ = writeln!(page, "{} {verdict}", styled(HEAD, format!("KVM of Linux {label}:")));
    for finding in &found.prediction.findings {
        page.push_str(&page::wrap(&page::tame(&finding.to_string()), "  ! ", "    ", width));
    }
    for part in unseen {
        page.push_str(&page::wrap(&page::tame(part), "  not compared: ", "    ", width));
    }
    for Difference { what, predicted, real, features, cause } in &found.differences {
        let hex = |value: &Option<u64>| value.map_or_else(|| "none".to_owned(), |value| format!("{value:#x}"));
        let line = format!("predicted {}, real {}  {}", hex(predicted), hex(real), features.join(" "));
        let _ = writeln!(page, "\n{}", styled(HEAD, what));
        page.push_str(&page::wrap(&line, "  ", "    ", width));
        page.push_str(&page::wrap(&styled(QUIET, page::tame(cause)), "  ", "    ", width));
    }
    page
}
