//! `report`: an answer as one HTML file, or its picture as SVG.

use std::fs;
use std::path::Path;

use cpusieve_answers::diff;
use cpusieve_report::{Ends, Page, html, of_diff, of_prices, of_rehearsal, svg};

use super::{Done, Failure, fleet, predict};
use crate::args::{Output, ReportDiffOptions, ReportOptions, ReportVerb};
use crate::input::{self, InputError};
use crate::worth::Worths;
use crate::{json, page};

pub(crate) fn run(options: &ReportOptions, as_json: bool) -> Result<Done, Failure> {
    if as_json {
        page::warn(&"--json changes nothing here: the page holds the JSON, and the verb itself prints it");
    }
    let (made, done, output) = match &options.verb {
        ReportVerb::Diff(options) => (of_two(options)?, Done::Same, &options.output),
        ReportVerb::Predict(options) => {
            let (made, done) = predict::report::page(&options.predict)?;
            (made, done, &options.output)
        }
        ReportVerb::Rehearse(options) => {
            let (name, json) = kept(&options.input)?;
            (of_rehearsal(json).map_err(|why| format!("{name}: {why}"))?, Done::Same, &options.output)
        }
        ReportVerb::Price(options) => {
            let (name, json) = kept(&options.input)?;
            (of_prices(json).map_err(|why| format!("{name}: {why}"))?, Done::Same, &options.output)
        }
        ReportVerb::Fleet(options) => {
            let (made, done) = fleet::report::page(options)?;
            (made, done, &options.output)
        }
    };
    write(&made, output)?;
    Ok(done)
}

fn of_two(options: &ReportDiffOptions) -> Result<Page, Failure> {
    if options.a == Path::new("-") && options.b == Path::new("-") {
        return Err(InputError::TwiceStandardInput.into());
    }
    let (a, b) = (input::read(&options.a)?, input::read(&options.b)?);
    let found = diff::diff(&a, &b).map_err(|why| super::diff::no_diff(why, &options.a, &options.b))?;
    let (first, second) = (input::name(&options.a), input::name(&options.b));
    let ends = Ends { first: (&first, &a), second: (&second, &b) };
    let made = of_diff(&ends, json::diff(&found, &Worths::known(None)?));
    made.map_err(|why| super::diff::no_diff(why, &options.a, &options.b).into())
}

/// A verb's answer that was kept, and what its file is called.
fn kept(path: &Path) -> Result<(String, String), Failure> {
    let name = input::name(path);
    let bytes = input::bytes(path, &name)?;
    let json = String::from_utf8(bytes).map_err(|error| format!("{name}: {error}"))?;
    Ok((name, json))
}

fn write(made: &Page, output: &Output) -> Result<(), Failure> {
    let text = if output.svg { svg(made) } else { html(made) };
    match &output.output {
        Some(path) => fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?,
        None => page::print_as_it_is(&text)?,
    }
    Ok(())
}
