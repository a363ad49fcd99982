//! Everything that must be green, in the order in which it fails soonest.

use std::process::{Command, ExitCode};
use std::time::Instant;

use crate::{Outcome, cargo, deny, import};

pub(crate) fn run() -> Outcome {
    let step = |name: &str, run: &mut dyn FnMut() -> Outcome| -> Result<bool, Box<dyn std::error::Error>> {
        println!("== {name}");
        let start = Instant::now();
        let passed = run()? == ExitCode::SUCCESS;
        println!("== {name}: {} in {:.1} s\n", if passed { "passed" } else { "FAILED" }, start.elapsed().as_secs_f64());
        Ok(passed)
    };
    let mut green = true;
    green &= step("format", &mut || status(cargo().args(["fmt", "--all", "--check"])))?;
    green &= step("knowledge", &mut || import::run(&["check".to_owned()]))?;
    green &= step("dependencies", &mut deny::run)?;
    green &= step("lints", &mut || {
        status(cargo().args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))
    })?;
    green &= step("tests and doctests", &mut || status(cargo().args(["test", "--workspace", "--no-fail-fast"])))?;
    green &= step("the program, by the README's command", &mut || {
        status(cargo().args(["run", "--quiet", "--", "--version"]))
    })?;
    green &= step("documentation", &mut || {
        status(cargo().args(["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    println!("{}", if green { "all green" } else { "NOT green" });
    Ok(if green { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn status(command: &mut Command) -> Outcome {
    Ok(if command.status()?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
