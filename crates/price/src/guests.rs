//! Two guests that differ in `-cpu`, each of which measures itself: what a choice of `-cpu` costs.
//!
//! This program is the first process of both and runs there what it runs here. The guests are booted in turn, A, B, B, A, so
//! that what drifts on the host falls on both alike. Only hardware virtualisation can price anything: TCG translates
//! instructions, and a backend of KVM that does without VT-x or SVM runs privileged ones in software, so that what their
//! guests measure is the emulator.

use std::path::Path;
use std::time::Duration;

use cpusieve_formats::price::{self, Prices, Range};
use cpusieve_model::CpuidTable;
use cpusieve_probe::{guest, machine};

use crate::stats::Interval;

/// The word of the guest's command line that says for how many seconds it is to measure: `cpusieve_price=20`.
pub const WORD: &str = "cpusieve_price";

/// The section of the guest's report in which its measurements stand, as one line of JSON.
pub const SECTION: &str = "price";

/// For how many seconds this process is to measure: only the first process of a guest that was told so has a number.
#[must_use]
pub fn seconds() -> Option<u64> {
    std::env::var(WORD).ok()?.parse().ok().filter(|seconds| (1..=3600).contains(seconds))
}

/// Why guests cannot price anything here; `None` if they can.
///
/// Known to be hardware are `kvm_intel` and `kvm_amd`; of another backend, nobody knows what it is that it measures.
#[must_use]
pub fn hindrance(cpuid: &CpuidTable) -> Option<String> {
    let kvm = machine::look(cpuid).kvm;
    let tcg = "TCG cannot price anything: it translates instructions";
    if let Some(refusal) = kvm.refusal {
        return Some(format!("no KVM: {refusal}. {tcg}"));
    }
    let soft: Vec<&str> = kvm
        .backends
        .iter()
        .map(|backend| backend.module.as_str())
        .filter(|module| !matches!(*module, "kvm_intel" | "kvm_amd"))
        .collect();
    if !soft.is_empty() || kvm.backends.is_empty() {
        let who = if soft.is_empty() { "an unknown backend".to_owned() } else { soft.join(" and ") };
        let what = "cannot price anything: without VT-x or SVM, what a guest measures is the emulator";
        return Some(format!("/dev/kvm is served by {who}, which {what}. {tcg}"));
    }
    None
}

/// What is booted.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The QEMU binary.
    pub binary: &'a Path,
    /// `-accel`
    pub accelerator: &'a str,
    /// `-machine`
    pub machine: &'a str,
    /// `-cpu`
    pub cpu: &'a str,
    /// The kernel image.
    pub kernel: &'a Path,
    /// The initial file system, with this program in it.
    pub initramfs: &'a [u8],
    /// For how many seconds the guest measures.
    pub seconds: u64,
    /// How long the boot may take on top of that.
    pub limit: Duration,
}

/// Boots a guest and reads what it measured.
///
/// # Errors
///
/// Why there is none, with the last lines that QEMU and the guest wrote.
pub fn boot(asked: &Asked<'_>) -> Result<Prices, String> {
    let start = guest::Start {
        binary: asked.binary,
        accelerator: asked.accelerator,
        machine: asked.machine,
        cpu: asked.cpu,
        kernel: asked.kernel,
        initramfs: asked.initramfs,
        append: &format!("{WORD}={}", asked.seconds),
        limit: asked.limit + Duration::from_secs(asked.seconds * 2),
    };
    let boot = guest::boot(&start).map_err(|refusal| refusal.to_string())?;
    let last = || {
        let mut lines: Vec<&str> = boot.console.iter().chain(&boot.stderr).rev().take(4).map(String::as_str).collect();
        lines.reverse();
        format!("-cpu {}; the last lines: {}", asked.cpu, lines.join(" | "))
    };
    let report = boot.report.as_ref().map_err(|why| format!("{why}: {}", last()))?;
    let text = report.get(SECTION).ok_or_else(|| format!("the guest measured nothing: {}", last()))?;
    let (prices, mut diagnostics) = price::parse(asked.cpu, text.as_bytes());
    match diagnostics.pop() {
        Some(diagnostic) if prices.rows.is_empty() && prices.exits.is_empty() => Err(diagnostic.to_string()),
        _ => Ok(prices),
    }
}

/// What one guest got, in one row.
#[derive(Clone, Debug, PartialEq)]
pub enum Got {
    /// A rate (more is better) or a time (less is better).
    Measured(Interval),
    /// The guest lacks these features.
    Lacks(Vec<String>),
    /// It was not timed.
    Nothing,
}

/// One row of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// The work's or the operation's id.
    pub id: String,
    /// For people.
    pub title: String,
    /// Units a second, or nanoseconds.
    pub unit: String,
    /// The first guest's.
    pub a: Got,
    /// The second guest's.
    pub b: Got,
    /// How many times better the second is, if both were measured, with the interval of the worst and the best case; or what
    /// the missing feature is worth where it is, if one guest lacks it.
    pub better: Option<Interval>,
}

/// Compares what the boots of two guests found: works by their rates, operations by their cost. Each boot is one sample of
/// its guest, and the interval of a row spans those of its boots.
#[must_use]
pub fn compare(a: &[Prices], b: &[Prices]) -> Vec<Compared> {
    let mut rows = Vec::new();
    let all = || a.iter().chain(b);
    let mut works: Vec<(&str, &str, &str)> = Vec::new();
    for row in all().flat_map(|prices| &prices.rows) {
        if !works.iter().any(|(id, ..)| *id == row.work) {
            works.push((&row.work, &row.title, &row.unit));
        }
    }
    for (id, title, unit) in works {
        let (got_a, got_b) = (work(a, id), work(b, id));
        let better = match (&got_a, &got_b) {
            (Got::Measured(a), Got::Measured(b)) => Some(divided(*b, *a)),
            (Got::Lacks(_), Got::Measured(_)) => worth(b, id),
            (Got::Measured(_), Got::Lacks(_)) => worth(a, id).map(|worth| worth.per(1.0)),
            _ => None,
        };
        rows.push(Compared {
            id: id.to_owned(),
            title: title.to_owned(),
            unit: unit.to_owned(),
            a: got_a,
            b: got_b,
            better,
        });
    }
    let mut operations: Vec<(&str, &str)> = Vec::new();
    for exit in all().flat_map(|prices| &prices.exits) {
        if !operations.iter().any(|(id, _)| *id == exit.id) {
            operations.push((&exit.id, &exit.what));
        }
    }
    for (id, title) in operations {
        let (got_a, got_b) = (operation(a, id), operation(b, id));
        let better = match (&got_a, &got_b) {
            (Got::Measured(a), Got::Measured(b)) => Some(divided(*a, *b)),
            _ => None,
        };
        let unit = "ns".to_owned();
        rows.push(Compared { id: id.to_owned(), title: title.to_owned(), unit, a: got_a, b: got_b, better });
    }
    rows
}

/// The rate of a work, with the feature.
fn work(boots: &[Prices], id: &str) -> Got {
    let rows = boots.iter().flat_map(|prices| &prices.rows).filter(|row| row.work == id);
    match pooled(rows.filter_map(|row| row.rate_with)) {
        Some(interval) => Got::Measured(interval),
        None => {
            let lacking = boots.iter().flat_map(|prices| &prices.lacking).find(|(work, _)| work == id);
            lacking
                .filter(|(_, features)| !features.is_empty())
                .map_or(Got::Nothing, |(_, all)| Got::Lacks(all.clone()))
        }
    }
}

fn worth(boots: &[Prices], id: &str) -> Option<Interval> {
    let rows = boots.iter().flat_map(|prices| &prices.rows).filter(|row| row.work == id);
    pooled(rows.map(|row| row.ratio))
}

fn operation(boots: &[Prices], id: &str) -> Got {
    let rows = boots.iter().flat_map(|prices| &prices.exits).filter(|exit| exit.id == id);
    pooled(rows.map(|exit| exit.ns)).map_or(Got::Nothing, Got::Measured)
}

/// The median of the boots' medians, and the span of their intervals: boots differ more than what one boot sees.
fn pooled(ranges: impl Iterator<Item = Range>) -> Option<Interval> {
    let ranges: Vec<Range> = ranges.collect();
    let medians: Vec<f64> = ranges.iter().map(|range| range.median).collect();
    let median = crate::stats::median(&medians)?;
    let low = ranges.iter().map(|range| range.low).fold(f64::INFINITY, f64::min);
    let high = ranges.iter().map(|range| range.high).fold(0.0, f64::max);
    let n = ranges.iter().map(|range| usize::try_from(range.n).unwrap_or(0)).sum();
    Some(Interval { median, low, high, n })
}

fn divided(a: Interval, b: Interval) -> Interval {
    Interval { median: a.median / b.median, low: a.low / b.high, high: a.high / b.low, n: a.n.min(b.n) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(rate: f64, cpuid: f64, lacking: bool) -> Prices {
        let rows = if lacking {
            String::new()
        } else {
            format!(
                r#"{{"feature":"aes","work":"gcm","title":"AES-GCM","unit":"bytes","ratio":{{"median":11,"low":10,"high":12}},
                "with":{{"way":"x","rate":{{"median":{rate},"low":{},"high":{},"n":5}}}}}}"#,
                rate * 0.9,
                rate * 1.1
            )
        };
        let text = format!(
            r#"{{"prices":[{rows}],"unpriced":[{{"work":"gcm","lacking":[{{"feature":"aes"}}]}}],
            "exits":{{"rows":[{{"id":"cpuid.0.0","what":"CPUID 0H","label":"trapped","ns":{{"median":{cpuid},"low":{cpuid},"high":{cpuid}}}}}]}}}}"#
        );
        price::parse("test", text.as_bytes()).0
    }

    #[test]
    fn rates_and_costs_are_compared_so_that_more_is_better() {
        let rows = compare(&[told(2.0, 600.0, false)], &[told(4.0, 1200.0, false), told(6.0, 1200.0, false)]);
        let better = |id: &str| rows.iter().find(|row| row.id == id).unwrap().better.unwrap();
        assert_eq!(better("gcm").median, 2.5);
        assert!(better("gcm").low < 2.0 && better("gcm").high > 3.0);
        assert_eq!(better("cpuid.0.0").median, 0.5);
    }

    #[test]
    fn what_a_guest_lacks_is_priced_by_the_other() {
        let rows = compare(&[told(0.0, 600.0, true)], &[told(4.0, 600.0, false)]);
        assert_eq!(rows[0].a, Got::Lacks(vec!["aes".to_owned()]));
        assert_eq!(rows[0].better.unwrap().median, 11.0);
        let back = compare(&[told(4.0, 600.0, false)], &[told(0.0, 600.0, true)]);
        assert_eq!(back[0].better.unwrap().median, 1.0 / 11.0);
        assert!(compare(&[], &[]).is_empty());
    }

    #[test]
    fn whether_guests_can_price_here_is_said_with_a_reason() {
        let cpuid = cpusieve_probe::cpuid::enumerate_here().table;
        match hindrance(&cpuid) {
            None => println!("hardware KVM is here"),
            Some(why) => assert!(why.contains("TCG cannot price anything"), "{why}"),
        }
    }
}
