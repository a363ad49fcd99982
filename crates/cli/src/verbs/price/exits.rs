//! What leaving costs, by label, and what that means for the start of a process.

use std::fmt::Write as _;

use anstyle::Style;
use cpusieve_price::exits::{Cost, Exit, Exits, Label};
use cpusieve_price::start::Start;
use cpusieve_price::stats::Interval;
use serde_json::{Value, json};

use super::json::interval;
use crate::page::{self, DOUBT, GAINED, HEAD, LOST, QUIET, styled};

/// The labels, dearest first, with their words and styles.
const LABELS: [(Label, &str, Style); 3] =
    [(Label::Trapped, "trapped", LOST), (Label::Between, "in between", DOUBT), (Label::Native, "native", GAINED)];

/// Columns of the labels at the left.
const LABEL: usize = 12;

/// A bar's columns for each tenfold cost.
const TENFOLD: f64 = 4.0;

/// For people.
pub(super) fn text(exits: &Exits, start: &Result<Start, String>, width: usize) -> String {
    let mut page = String::new();
    let heading = styled(HEAD, "What leaving costs");
    let clock = format!("(a tenfold cost makes a bar 4 longer; time stamp counter at {:.2} GHz)", exits.ticks_per_ns);
    page.push_str(&page::wrap(&format!("{heading} {}", styled(QUIET, clock)), "", "  ", width));
    for (label, word, style) in LABELS {
        let mut rows: Vec<(&Exit, &Cost)> =
            exits.rows.iter().filter_map(|row| Some((row, row.cost.as_ref().ok()?))).collect();
        rows.retain(|(_, cost)| cost.label == label);
        rows.sort_by(|(_, a), (_, b)| b.ns.median.total_cmp(&a.ns.median));
        for (index, (row, cost)) in rows.iter().enumerate() {
            let word = if index == 0 { word } else { "" };
            one(&mut page, (word, style), row, cost, width);
            // Once for rows that say the same.
            if rows.get(index + 1).is_none_or(|(_, next)| next.because != cost.because) && label != Label::Native {
                let indent = " ".repeat(2 + LABEL);
                let _ =
                    writeln!(page, "{}", styled(QUIET, page::wrap(&cost.because, &indent, &indent, width).trim_end()));
            }
        }
    }
    for row in &exits.rows {
        if let Err(why) = &row.cost {
            let first = format!("  {:LABEL$}", "not timed");
            page.push_str(&page::wrap(&format!("{}: {why}", row.what), &first, &" ".repeat(4 + LABEL), width));
        }
    }
    of_start(&mut page, start, width);
    page
}

fn one(page: &mut String, (word, style): (&str, Style), row: &Exit, cost: &Cost, width: usize) {
    let bar = "▇".repeat(((cost.ns.median / 10.0).log10().max(0.0) * TENFOLD).round() as usize + 1);
    let mut line = format!("{}  {:>9} ± {:<4} {bar}", row.what, time(cost.ns.median), percent(cost.ns));
    // The cost and the bar stand below each other where there is room.
    let room = width.saturating_sub(2 + LABEL + 17 + 22);
    if row.what.chars().count() <= room {
        line = format!("{:room$}  {:>9} ± {:<4} {bar}", row.what, time(cost.ns.median), percent(cost.ns));
    }
    let _ = writeln!(page, "  {}{line}", styled(style, format!("{word:LABEL$}")));
}

/// What the start of a process pays.
fn of_start(page: &mut String, start: &Result<Start, String>, width: usize) {
    let line = match start {
        Ok(start) => {
            let most = start.leaves.iter().take(3).map(|(leaf, count)| format!("{count}× {leaf:X}H"));
            let each = if start.cpuids > 0 { start.ns / start.cpuids as f64 } else { 0.0 };
            format!(
                "{} executes {} CPUIDs ({}) at {} each: {} of the {} from its start to its end, {:.0} %. Every dynamic \
                 program pays that.",
                start.program,
                start.cpuids,
                most.collect::<Vec<_>>().join(", "),
                time(each),
                time(start.ns),
                time(start.whole_ns.median),
                start.share() * 100.0
            )
        }
        Err(why) => format!("not counted: {why}"),
    };
    let heading = styled(HEAD, "The start of a process: ");
    let _ = write!(page, "\n{}", page::wrap(&line, &heading, "  ", width));
    for unseen in start.as_ref().map_or(&[][..], |start| &start.unseen) {
        page.push_str(&page::wrap(&page::tame(unseen), &styled(DOUBT, "! not counted in "), "  ", width));
    }
}

/// A time in nanoseconds with three digits and a unit.
pub(super) fn time(ns: f64) -> String {
    let (number, unit) = match ns {
        ns if ns >= 1e6 => (ns / 1e6, "ms"),
        ns if ns >= 1e3 => (ns / 1e3, "µs"),
        ns => (ns, "ns"),
    };
    let decimals = if number >= 100.0 {
        0
    } else if number >= 10.0 {
        1
    } else {
        2
    };
    format!("{number:.decimals$} {unit}")
}

/// Half the interval's width in percent.
pub(super) fn percent(interval: Interval) -> String {
    format!("{:.0} %", (interval.spread() * 100.0).min(999.0))
}

/// As JSON: the rows, and the start of a process.
pub(super) fn value(exits: &Exits) -> Value {
    let rows = exits.rows.iter().map(|row| match &row.cost {
        Ok(cost) => json!({
            "id": row.id, "what": row.what, "ns": interval(&cost.ns), "ticks": cost.ticks,
            "outliers": cost.outliers, "label": cost.label.name(), "because": cost.because,
        }),
        Err(why) => json!({"id": row.id, "what": row.what, "refused": why}),
    });
    json!({
        "rows": rows.collect::<Vec<_>>(),
        "ticks_per_ns": exits.ticks_per_ns,
        "guest": exits.guest,
        "seconds": exits.took.as_secs_f64(),
    })
}

pub(super) fn start_value(start: &Result<Start, String>) -> Value {
    match start {
        Ok(start) => {
            let leaves =
                start.leaves.iter().map(|(leaf, count)| json!({"leaf": format!("{leaf:#010x}"), "count": count}));
            json!({
                "program": start.program, "cpuids": start.cpuids, "leaves": leaves.collect::<Vec<_>>(),
                "method": start.method, "unseen": start.unseen, "ns": start.ns,
                "whole_ns": interval(&start.whole_ns), "share": start.share(),
            })
        }
        Err(why) => json!({"refused": why}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_a_unit() {
        for (ns, shown) in
            [(9.876, "9.88 ns"), (98.76, "98.8 ns"), (987.6, "988 ns"), (4400.0, "4.40 µs"), (2.5e6, "2.50 ms")]
        {
            assert_eq!(time(ns), shown);
        }
    }
}
