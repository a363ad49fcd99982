//! Microseconds of one prediction with all its steps, for captured boots of different vendors.
//!
//! Doubts are printed with the numbers: the best and the median of many rounds are shown, because the machine may be
//! shared.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark"
)]

use std::hint::black_box;
use std::io::Read as _;
use std::path::PathBuf;
use std::time::Instant;

use cpusieve_formats::lab;
use cpusieve_knowledge::linux;
use cpusieve_model::{Snapshot, Stage};
use cpusieve_stages::linux::boot::{Input, Unlisted, boot};

/// Rounds of one measurement, and predictions in each.
const ROUNDS: usize = 101;
const REPEAT: u32 = 50;

const BOOTS: [&str; 5] = [
    "guests-tcg/q11.1-k7.3-max.json.gz",
    "guests-tcg/q11.1-k7.3-SapphireRapids_FORCE.json.gz",
    "guests-tcg/q11.1-k6.1-EPYC-Genoa.json.gz",
    "guests-tcg/q11.1-k6.1-YongFeng.json.gz",
    "guests-bochs/bochs30-k6.1-corei7_icelake_u.json.gz",
];

fn main() {
    println!("{:<56} {:>8} {:>8}   us a prediction, of {ROUNDS} rounds of {REPEAT}", "", "best", "median");
    for name in BOOTS {
        let snapshot = read(name);
        let tree = linux::nearest(snapshot.linux.as_ref().unwrap().release.as_deref().unwrap()).tree;
        let seen = Input::of_snapshot("guest", Stage::Guest, &snapshot).unwrap();
        measure(name, &Input { unlisted: Unlisted::Zero, ..seen }, tree);
        measure("  the same, command line and MSRs assumed", &Input { cmdline: None, config: None, ..seen }, tree);
    }
    println!("(this machine may be shared: the best of all rounds is what the code can do)");
}

fn measure(what: &str, input: &Input<'_>, tree: usize) {
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..REPEAT {
                black_box(boot(black_box(input), tree));
            }
            start.elapsed().as_secs_f64() * 1e6 / f64::from(REPEAT)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("{what:<56} {:>8.1} {:>8.1}", times[0], times[ROUNDS / 2]);
}

fn read(name: &str) -> Snapshot {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../corpus").join(name);
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    lab::capture(name, &bytes).parsed.snapshot
}
