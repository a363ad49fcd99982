//! `price`: what CPU features are worth, and what leaving costs, on this machine.

mod chosen;
mod exits;
mod guests;

use std::time::Duration;

use cpusieve_price::chosen::trial::{self, TRIALS};
use cpusieve_price::flags::Flags;
use cpusieve_price::{exits as leaving, start};
use serde_json::json;

use super::{Done, Failure};
use crate::args::PriceOptions;
use crate::json::pretty;
use crate::page;

pub(crate) fn run(options: &PriceOptions, as_json: bool) -> Result<Done, Failure> {
    if !options.guests.cpu.is_empty() {
        return guests::run(&options.guests, 20, as_json);
    }
    let flags = Flags::here();
    let cost = leaving::measure(flags.cpuid(), Duration::from_secs(2));
    let start = start::measure(&cost);
    let chosen_ = cpusieve_price::chosen::look(&flags);
    let trials: Vec<chosen::Tried> = TRIALS.iter().map(|one| (*one, trial::run(one, 3))).collect();
    page::print(&if as_json {
        pretty(&json!({"format": 1, "exits": exits::value(&cost), "start": exits::start_value(&start),
            "chosen": chosen::value(&chosen_), "trials": chosen::trials_value(&trials)}))
    } else {
        exits::text(&cost, &start, page::width()) + "\n" + &chosen::text(&chosen_, &trials, page::width())
    })?;
    Ok(Done::Same)
}

/// What the first process of a guest adds to its report.
pub(crate) fn inside() -> Vec<(&'static str, String)> {
    let Some(_seconds) = cpusieve_price::guests::seconds() else { return Vec::new() };
    let flags = Flags::here();
    let cost = leaving::measure(flags.cpuid(), Duration::from_secs(2));
    let value = json!({"format": 1, "exits": exits::value(&cost)});
    vec![(cpusieve_price::guests::SECTION, value.to_string())]
}
