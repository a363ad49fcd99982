//! cpusieve: where did my CPU flag go, and how do I get it back?
//!
//! Thin: reads arguments and files, calls the library, prints, and sets the exit status.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "the program is where files and the environment are read")]

mod args;
mod input;
mod json;
mod page;
mod trees;
mod verbs;
mod worth;

use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, Verb};
use verbs::Done;

fn main() -> ExitCode {
    // The first process of a guest that `verify` or `price` has booted tells what it sees, and ends the guest.
    if let Some(port) = cpusieve_probe::guest::port() {
        page::complain(&cpusieve_probe::guest::run_with(port.as_ref(), verbs::price::inside));
        return Done::Nothing.into();
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return refused(&error),
    };
    if !matches!(arguments.verb, Some(Verb::Import(_) | Verb::Manual(_))) {
        trees::register(arguments.config.as_deref());
    }
    let done = match &arguments.verb {
        None => verbs::overview::run(arguments.json),
        Some(Verb::Record(options)) => verbs::record::run(options),
        Some(Verb::Diff(options)) => verbs::diff::run(options, arguments.json),
        Some(Verb::Why(options)) => verbs::why::run(options, arguments.json),
        Some(Verb::Name(options)) => verbs::name::run(options, arguments.json),
        Some(Verb::Predict(options)) => verbs::predict::run(options, arguments.json),
        Some(Verb::Models(options)) => verbs::models::run(options, arguments.json),
        Some(Verb::Want(options)) => verbs::want::run(options, arguments.json),
        Some(Verb::Rehearse(options)) => verbs::rehearse::run(options, arguments.json),
        Some(Verb::Verify(options)) => verbs::verify::run(options, arguments.json),
        Some(Verb::Trace(options)) => verbs::trace::run(options, arguments.json),
        Some(Verb::Doctor(options)) => verbs::doctor::run(options, arguments.json),
        Some(Verb::Check(options)) => verbs::check::run(options, arguments.json),
        Some(Verb::Key(options)) => verbs::key::run(options, arguments.json),
        Some(Verb::Import(options)) => verbs::import::run(options, arguments.config.as_deref(), arguments.json),
        Some(Verb::Manual(options)) => verbs::manual::run(options),
        Some(Verb::Price(options)) => verbs::price::run(options, arguments.json),
        Some(Verb::Fleet(options)) => verbs::fleet::run(options, arguments.json),
        Some(Verb::Report(options)) => verbs::report::run(options, arguments.json),
    };
    match done {
        Ok(done) => done.into(),
        Err(error) => {
            page::complain(&error);
            Done::Nothing.into()
        }
    }
}

/// Ends with what `clap` has to say: the help that was asked for, or what is wrong with the arguments.
fn refused(error: &clap::Error) -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let as_json = std::env::args_os().any(|word| word == "--json");
    let verb = words.find(|word| !word.as_encoded_bytes().starts_with(b"-"));
    // Wrong usage is 2 for every verb but `check`, whose status is read as a monitoring plugin's: there 2 would be
    // CRITICAL, an alarm about a machine that nobody has looked at.
    if error.use_stderr() && verb.is_some_and(|verb| verb == "check") {
        return verbs::check::misused(error, as_json).into();
    }
    let _ = error.print();
    if error.use_stderr() { Done::Nothing.into() } else { Done::Same.into() }
}
