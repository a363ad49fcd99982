//! Everything that must be green, in the order in which it fails soonest.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, ExitCode, Stdio};
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
    let mut counts = Counts::default();
    green &= step("tests and doctests", &mut || {
        counted(cargo().args(["test", "--workspace", "--no-fail-fast"]), &mut counts)
    })?;
    green &= step("the program, by the README's command", &mut || {
        status(cargo().args(["run", "--quiet", "--", "--version"]))
    })?;
    green &= step("documentation", &mut || {
        status(cargo().args(["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    println!("{}", if green { "all green" } else { "NOT green" });
    println!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.ignored);
    Ok(if green { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn status(command: &mut Command) -> Outcome {
    Ok(if command.status()?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What all test programs together counted.
#[derive(Default)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// Runs tests, shows what they print, and adds up their closing lines.
fn counted(command: &mut Command, counts: &mut Counts) -> Outcome {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    for line in child.stdout.take().into_iter().flat_map(|stdout| BufReader::new(stdout).lines()) {
        let line = line?;
        println!("{line}");
        if let Some(result) = line.strip_prefix("test result: ") {
            counts.passed += before(result, " passed");
            counts.failed += before(result, " failed");
            counts.ignored += before(result, " ignored");
        }
    }
    Ok(if child.wait()?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The number that stands before a word.
fn before(text: &str, word: &str) -> u64 {
    let number = text.split(word).next().and_then(|head| head.rsplit(' ').next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::before;

    #[test]
    fn closing_lines_are_read() {
        let line = "ok. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!((before(line, " passed"), before(line, " failed"), before(line, " ignored")), (12, 3, 1));
    }
}
