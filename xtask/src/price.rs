//! `cargo xtask price`: whether what `cpusieve price` says holds: again, and against OpenSSL.
//!
//! Nothing here asserts a time: it prints, and a person judges.

use std::process::{Command, ExitCode};

use cpusieve_formats::price::{self, Range};
use serde_json::Value;

use crate::Outcome;

/// How far a ratio of ours may lie from OpenSSL's.
const NEAR: f64 = 0.25;

/// `again A B`, `openssl FILE`.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["again", first, second] => again(first, second),
        ["openssl", file] => openssl(file),
        _ => {
            eprintln!("usage: cargo xtask price again A.json B.json | openssl FILE.json");
            Ok(ExitCode::from(2))
        }
    }
}

/// How many intervals of two runs of the same command overlap.
fn again(first: &str, second: &str) -> Outcome {
    let read = |file: &str| -> std::io::Result<price::Prices> { Ok(price::parse(file, &std::fs::read(file)?).0) };
    let (a, b) = (read(first)?, read(second)?);
    let (mut all, mut overlapping) = (0, 0);
    for row in &a.rows {
        let Some(other) = b.rows.iter().find(|other| (&other.feature, &other.work) == (&row.feature, &row.work)) else {
            println!("{:12} {:32} only in {first}", row.feature, row.work);
            continue;
        };
        let overlaps = row.ratio.low <= other.ratio.high && other.ratio.low <= row.ratio.high;
        all += 1;
        overlapping += usize::from(overlaps);
        let mark = if overlaps { ' ' } else { '!' };
        println!("{mark} {:12} {:32} {} {}", row.feature, row.work, shown(row.ratio), shown(other.ratio));
    }
    println!("{overlapping} of {all} intervals overlap");
    Ok(ExitCode::SUCCESS)
}

fn shown(range: Range) -> String {
    format!("{:8.3} [{:.3}, {:.3}]", range.median, range.low, range.high)
}

/// Our ratios beside those of `openssl speed`, which the file holds from the same run or a run of now.
fn openssl(file: &str) -> Outcome {
    if Command::new("openssl").arg("version").output().is_err() {
        println!("skipped: openssl is not installed");
        return Ok(ExitCode::SUCCESS);
    }
    let bytes = std::fs::read(file)?;
    let (prices, _) = price::parse(file, &bytes);
    let whole: Value = serde_json::from_slice(&bytes)?;
    let trials = whole.get("trials").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if trials.is_empty() {
        println!("skipped: {file} holds no trials of other programs");
    }
    for trial in trials {
        let word = |key: &str| trial.get(key).and_then(Value::as_str).unwrap_or_default();
        let number = |object: &str| trial.get(object).and_then(|range| range.get("median")).and_then(Value::as_f64);
        let Some(ours) = prices.rows.iter().find(|row| row.work == word("id")) else { continue };
        let (Some(theirs), Some(with), Some(without)) = (number("ratio"), number("with"), number("without")) else {
            println!("{:24} skipped: {}", word("id"), word("refused"));
            continue;
        };
        let apart = ours.ratio.median / theirs - 1.0;
        let mark = if apart.abs() <= NEAR { ' ' } else { '!' };
        let rate = |range: Option<Range>| range.map_or(0.0, |range| range.median / 1e9);
        println!(
            "{mark} {:24} ours {:6.2}x ({:.2} / {:.2} GB/s)  theirs {theirs:6.2}x ({:.2} / {:.2} GB/s)  {:+.0} %",
            word("id"),
            ours.ratio.median,
            rate(ours.rate_with),
            rate(ours.rate_without),
            with / 1e9,
            without / 1e9,
            apart * 100.0
        );
    }
    Ok(ExitCode::SUCCESS)
}
