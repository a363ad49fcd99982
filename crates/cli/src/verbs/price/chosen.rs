//! What glibc and OpenSSL make of the flags, and what the same work costs them without some.

use std::fmt::Write as _;

use cpusieve_price::chosen::trial::{Outcome, Trial};
use cpusieve_price::chosen::{Chosen, glibc, openssl};
use cpusieve_price::work::Unit;
use serde_json::{Value, json};

use super::exits::percent;
use super::json::interval;
use super::text::rate;
use crate::page::{self, DOUBT, GAINED, HEAD, LOST, QUIET, styled};

/// What a trial found, or why it could not be run.
pub(super) type Tried = (Trial, Result<Outcome, String>);

/// Columns of the labels at the left.
const LABEL: usize = 10;

/// From so many columns on a trial fits into one line.
const WIDE: usize = 100;

/// The longest bar, in columns, and its ratio.
const BAR: (f64, f64) = (16.0, 16.0);

/// For people.
pub(super) fn text(chosen: &Chosen, trials: &[Tried], width: usize) -> String {
    let mut page = format!("{}\n", styled(HEAD, "What other programs choose"));
    let mut row = |label: &str, text: &str| {
        page.push_str(&page::wrap(text, &format!("  {label:LABEL$}"), &" ".repeat(2 + LABEL), width));
    };
    match &chosen.glibc {
        Ok(linker) => row("glibc", &of_glibc(linker)),
        Err(why) => row("glibc", &format!("skipped: {why}")),
    }
    match &chosen.openssl {
        Ok(found) => row("OpenSSL", &of_openssl(found)),
        Err(why) => row("OpenSSL", &format!("skipped: {why}")),
    }
    if trials.is_empty() {
        return page;
    }
    let _ = writeln!(page, "\n{}", styled(HEAD, "The same work by these programs, told to overlook a feature"));
    for (trial, tried) in trials {
        match tried {
            Ok(outcome) => one(&mut page, outcome, width),
            Err(why) => {
                let first = format!("  {}: ", trial.title);
                page.push_str(&page::wrap(&format!("skipped: {}", page::tame(why)), &first, "    ", width));
            }
        }
    }
    let told: Vec<&str> = trials.iter().filter_map(|(_, tried)| Some(tried.as_ref().ok()?.told.as_str())).collect();
    if let Some(first) = told.first() {
        let line = format!("without: {}, and so on; --json has them all", page::tame(first));
        let _ = writeln!(page, "{}", styled(QUIET, page::wrap(&line, "  ", "    ", width).trim_end()));
    }
    page
}

fn of_glibc(linker: &glibc::Linker) -> String {
    let name = |level: &str| level.trim_start_matches("x86-64-").to_owned();
    let levels: Vec<String> = linker.searched.iter().map(|level| name(level)).collect();
    let levels = if levels.is_empty() { "none above the baseline".to_owned() } else { levels.join(" ") };
    let release = linker.release.as_deref().unwrap_or("");
    let verdict = if linker.agrees() {
        styled(GAINED, "as the flags allow")
    } else {
        let allowed: Vec<String> = linker.allowed.iter().map(|level| name(level)).collect();
        styled(LOST, format!("but the flags allow {}", allowed.join(" ")))
    };
    let missing = if linker.missing.is_empty() {
        String::new()
    } else {
        format!("; the next level needs {}", linker.missing.join(" "))
    };
    let thresholds = linker.thresholds.iter().map(|(name, bytes)| {
        format!(", {} from {}", name.trim_end_matches("_threshold").replace('_', " "), size(*bytes))
    });
    format!(
        "{release} takes libraries of x86-64 {levels}, {verdict}{missing}{}",
        styled(QUIET, thresholds.collect::<String>())
    )
}

/// Bytes in the largest unit of which there is a whole number.
fn size(bytes: u64) -> String {
    match bytes {
        bytes if bytes >= 1 << 20 && bytes % (1 << 20) == 0 => format!("{} MiB", bytes >> 20),
        bytes if bytes % 1024 == 0 => format!("{} KiB", bytes >> 10),
        bytes => format!("{bytes} B"),
    }
}

fn of_openssl(found: &openssl::Capabilities) -> String {
    let release = found.release.trim_start_matches("OpenSSL ");
    let release = release.split(' ').next().unwrap_or(release);
    let verdict = if found.agrees() {
        styled(GAINED, "as CPUID gives it")
    } else {
        let told: Vec<String> = found.told.iter().map(|word| format!("{word:#x}")).collect();
        styled(DOUBT, format!("but it tells {}", told.join(" ")))
    };
    format!("{} works with OPENSSL_ia32cap {}, {verdict}", page::tame(release), found.computed)
}

fn one(page: &mut String, outcome: &Outcome, width: usize) {
    let ratio = outcome.ratio;
    let (columns, most) = BAR;
    let bar = "▇".repeat((ratio.median.clamp(1.0, most).log2() / most.log2() * columns).round() as usize);
    let features = outcome.trial.features.join("+");
    let rates = format!("{} / {}", rate(outcome.with.median, Unit::Bytes), rate(outcome.without.median, Unit::Bytes));
    let line = format!("{:6.2}x ± {:<4} {rates:>23} {bar}", ratio.median, percent(ratio));
    let what = format!("{features:14} {}", outcome.trial.title);
    if width >= WIDE {
        let _ = writeln!(page, "  {what:42} {line}");
    } else {
        let _ = writeln!(page, "  {what}\n    {}", line.trim());
    }
}

/// As JSON.
pub(super) fn value(chosen: &Chosen) -> Value {
    let glibc = match &chosen.glibc {
        Ok(linker) => {
            let thresholds = linker.thresholds.iter().map(|(name, bytes)| (name.clone(), json!(bytes)));
            json!({
                "release": linker.release, "allowed": linker.allowed, "searched": linker.searched,
                "missing": linker.missing, "agrees": linker.agrees(),
                "thresholds": thresholds.collect::<serde_json::Map<_, _>>(),
            })
        }
        Err(why) => json!({"refused": why}),
    };
    let words = |words: &[u32]| words.iter().map(|word| format!("{word:#010x}")).collect::<Vec<_>>();
    let openssl = match &chosen.openssl {
        Ok(found) => json!({
            "release": found.release, "computed": words(&found.computed.0), "told": words(&found.told),
            "agrees": found.agrees(),
        }),
        Err(why) => json!({"refused": why}),
    };
    json!({"glibc": glibc, "openssl": openssl})
}

pub(super) fn trials_value(trials: &[Tried]) -> Value {
    let each = trials.iter().map(|(trial, tried)| match tried {
        Ok(outcome) => json!({
            "id": trial.id, "features": trial.features, "title": trial.title, "program": outcome.program,
            "told": outcome.told, "unit": "bytes", "with": interval(&outcome.with),
            "without": interval(&outcome.without), "ratio": interval(&outcome.ratio),
        }),
        Err(why) => json!({"id": trial.id, "features": trial.features, "title": trial.title, "refused": why}),
    });
    Value::Array(each.collect())
}
