//! Prices as JSON.

use cpusieve_price::clock::Clock;
use cpusieve_price::report::{Fate, Machine, Price, Report, Unpriced, Why};
use cpusieve_price::stats::Interval;
use cpusieve_price::work::{Unit, Way};
use serde_json::{Map, Value, json};

use super::text;

pub(super) fn report(report: &Report) -> Map<String, Value> {
    let fields = json!({
        "format": 1,
        "machine": machine(&report.machine),
        "clock": clock(&report.clock),
        "ghz": report.ghz,
        "seconds": report.time.as_secs_f64(),
        "prices": report.prices.iter().map(price).collect::<Vec<_>>(),
        "unpriced": report.unpriced.iter().map(unpriced).collect::<Vec<_>>(),
        "doubts": report.doubts.iter().map(|doubt| json!({"doubt": doubt.name(), "text": doubt.to_string()})).collect::<Vec<_>>(),
    });
    if let Value::Object(fields) = fields { fields } else { Map::new() }
}

/// The machine that numbers belong to.
pub(super) fn machine(machine: &Machine) -> Value {
    let signature = machine
        .signature
        .map(|(family, model, stepping)| json!({"family": family, "model": model, "stepping": stepping}));
    json!({
        "brand": machine.brand,
        "generation": machine.generation,
        "signature": signature,
        "place": machine.place,
        "kernel": machine.kernel,
        "cpus": machine.cpus,
        "date": machine.date,
    })
}

fn clock(clock: &Clock) -> Value {
    json!({"source": clock.source, "cost_ns": clock.cost, "step_ns": clock.step})
}

/// A median and its interval of 95 %.
pub(super) fn interval(interval: &Interval) -> Value {
    json!({"median": interval.median, "low": interval.low, "high": interval.high, "n": interval.n})
}

fn way(way: &Way, rate: &Interval) -> Value {
    json!({"way": way.name, "needs": way.needs, "rate": interval(rate)})
}

fn price(price: &Price) -> Value {
    json!({
        "feature": price.feature,
        "work": price.work,
        "title": price.title,
        "ratio": interval(&price.ratio),
        "unit": unit(price.unit),
        "with": way(&price.with, &price.rate_with),
        "without": way(&price.without, &price.rate_without),
        "blocks": price.blocks,
        "outliers": price.outliers,
        "dropped": price.dropped,
    })
}

/// What a rate counts in a second.
pub(super) fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Bytes => "bytes",
        Unit::Operations(name) => name,
    }
}

fn unpriced(left: &Unpriced) -> Value {
    let lacking = match &left.why {
        Why::Lacking(lacking) => {
            lacking.iter().map(|lacking| json!({"feature": lacking.feature, "taken_by": fate(lacking.fate)})).collect()
        }
        _ => Vec::new(),
    };
    let why = match left.why {
        Why::Lacking(_) => "lacking",
        Why::Refused(_) => "refused",
        Why::Wrong(_) => "wrong-result",
        Why::NoTime => "no-time",
        Why::Unseen(_) => "unseen",
    };
    json!({"feature": left.feature, "work": left.work, "why": why, "text": text::why(&left.why), "lacking": lacking})
}

const fn fate(fate: Fate) -> &'static str {
    match fate {
        Fate::Silicon => "silicon",
        Fate::Sieve => "sieve",
        Fate::State => "xcr0",
        Fate::Unknown => "unknown",
    }
}
