//! `doctor`: whether a machine is a good host.

use std::fmt::Write as _;

use cpusieve_answers::doctor::{self, Check, Live, Verdict};
use cpusieve_model::Snapshot;
use cpusieve_probe::machine;
use serde_json::{Value, json};

use super::{Done, Failure, record};
use crate::args::DoctorOptions;
use crate::page::{self, DOUBT, GAINED, HEAD, LOST, QUIET, styled};
use crate::{input, json};

pub(crate) fn run(options: &DoctorOptions, as_json: bool) -> Result<Done, Failure> {
    let (snapshot, live) = match &options.record {
        Some(path) => (input::read(path)?, None),
        None => this_machine(),
    };
    let checks = doctor::examine(&snapshot, live.as_ref());
    if as_json {
        page::print(&json::pretty(&json!({"format": 1, "checks": checks.iter().map(value).collect::<Vec<_>>()})))?;
    } else {
        page::print(&text(&checks, page::width()))?;
    }
    let any = |verdict| checks.iter().any(|check| check.verdict == verdict);
    Ok(match () {
        () if any(Verdict::Bad) || any(Verdict::Less) => Done::Different,
        () if any(Verdict::Unknown) => Done::InPart,
        () => Done::Same,
    })
}

fn this_machine() -> (Snapshot, Option<Live>) {
    let snapshot = record::this_machine();
    let cpuid = snapshot.first_cpuid().map(|cpu| cpu.cpuid.clone()).unwrap_or_default();
    let kvm = machine::look(&cpuid).kvm;
    let backends = kvm.backends.into_iter().map(|backend| backend.module).collect();
    let live = Live { refusal: kvm.refusal, backends, clocksource: machine::clocksource() };
    (snapshot, Some(live))
}

fn text(checks: &[Check], width: usize) -> String {
    let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    let head = format!(
        "{} good, {} less than could be, {} bad, {} not seen.",
        count(Verdict::Good),
        count(Verdict::Less),
        count(Verdict::Bad),
        count(Verdict::Unknown)
    );
    let mut page = page::wrap(&styled(HEAD, head), "", "", width);
    page.push('\n');
    let column = checks.iter().map(|check| check.what.len()).max().unwrap_or(0) + 2;
    for check in checks {
        let (sign, style) = match check.verdict {
            Verdict::Good => ("+", GAINED),
            Verdict::Less => ("!", DOUBT),
            Verdict::Bad => ("x", LOST),
            Verdict::Unknown => ("?", QUIET),
        };
        let first = format!("  {} {:<column$}", styled(style, sign), check.what);
        let indent = " ".repeat(column + 4);
        page.push_str(&page::wrap(&page::tame(&check.reason), &first, &indent, width));
        if matches!(check.verdict, Verdict::Good) {
            continue;
        }
        if let Some(remedy) = check.remedy {
            page.push_str(&page::wrap(remedy, &format!("{indent}> "), &format!("{indent}  "), width));
        }
        if let Some(cite) = check.cite {
            let _ = writeln!(page, "{indent}{}", styled(QUIET, cite.0));
        }
    }
    page
}

fn value(check: &Check) -> Value {
    json!({
        "check": check.id,
        "verdict": check.verdict.name(),
        "reason": check.reason,
        "remedy": check.remedy,
        "cite": check.cite.map(|cite| cite.0),
    })
}
