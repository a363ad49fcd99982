//! The parts of `price` beside the features: what leaving costs, and what other programs choose.

use std::time::Duration;

use cpusieve_price::chosen::trial::{self, TRIALS};
use cpusieve_price::chosen::{self as programs, Chosen};
use cpusieve_price::exits::{self as leaving, Exits};
use cpusieve_price::flags::Flags;
use cpusieve_price::start::{self, Start};
use cpusieve_probe::signals;
use serde_json::{Map, Value};

use super::chosen::Tried;
use super::{chosen, exits};
use crate::args::PricePart;

/// How long the exits are measured.
const EXITS: Duration = Duration::from_secs(2);

/// Pairs of runs of each program; a run of `openssl speed` takes a second.
const PAIRS: usize = 3;

/// What was found; what was not asked for is missing.
#[derive(Default)]
pub(super) struct Rest {
    leaving: Option<(Exits, Result<Start, String>)>,
    programs: Option<(Chosen, Vec<Tried>)>,
}

impl Rest {
    /// Measures the parts that are wanted; `progress` is told what is next.
    pub(super) fn measure(wanted: impl Fn(PricePart) -> bool, progress: &mut dyn FnMut(&str)) -> Self {
        let flags = Flags::here();
        let mut rest = Self::default();
        if wanted(PricePart::Exits) && !signals::interrupted() {
            progress("what leaving costs");
            let cost = leaving::measure(flags.cpuid(), EXITS);
            let start = start::measure(&cost);
            rest.leaving = Some((cost, start));
        }
        if wanted(PricePart::Programs) && !signals::interrupted() {
            progress("what other programs choose");
            let mut tried: Vec<Tried> = Vec::new();
            for one in TRIALS.iter().take_while(|_| !signals::interrupted()) {
                progress(one.title);
                tried.push((*one, trial::run(one, PAIRS)));
            }
            rest.programs = Some((programs::look(&flags), tried));
        }
        rest
    }

    /// The sections for people, each with an empty line before it.
    pub(super) fn text(&self, width: usize) -> String {
        let mut page = String::new();
        if let Some((cost, start)) = &self.leaving {
            page.extend(["\n", &exits::text(cost, start, width)]);
        }
        if let Some((chosen, tried)) = &self.programs {
            page.extend(["\n", &chosen::text(chosen, tried, width)]);
        }
        page
    }

    /// Adds the fields.
    pub(super) fn add_to(&self, fields: &mut Map<String, Value>) {
        if let Some((cost, start)) = &self.leaving {
            fields.insert("exits".to_owned(), exits::value(cost));
            fields.insert("start".to_owned(), exits::start_value(start));
        }
        if let Some((chosen, tried)) = &self.programs {
            fields.insert("chosen".to_owned(), chosen::value(chosen));
            fields.insert("trials".to_owned(), chosen::trials_value(tried));
        }
    }
}
