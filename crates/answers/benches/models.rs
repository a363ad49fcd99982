//! Milliseconds for all models of one QEMU on one host: what runs, and what each of the others lacks.
//!
//! The best and the median of many rounds are shown, because the machine may be shared.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    unreachable_pub,
    reason = "a benchmark, and what it shares with tests"
)]

#[path = "../../stages/tests/oracle/mod.rs"]
mod oracle;

use std::hint::black_box;
use std::time::Instant;

use cpusieve_answers::models::{Setting, card, catalogue, compare};
use cpusieve_knowledge::qemu::{self, RELEASES};
use cpusieve_stages::qemu::Accelerator;

const ROUNDS: usize = 101;

fn main() {
    let hosts = oracle::hosts();
    let host = &hosts["spr-6.18"];
    println!("{:<56} {:>8} {:>8}   ms, of {ROUNDS} rounds", "", "best", "median");
    for (release, known) in RELEASES.iter().enumerate() {
        let machine = qemu::machine(release, "q35").unwrap();
        let accelerator = Some(Accelerator::Kvm { host: &host.cpuid, kvm: &host.kvm });
        let setting = Setting { release, machine, accelerator };
        let all = catalogue(&setting).entries.len();
        measure(&format!("all {all} models of {}", known.label), || drop(black_box(catalogue(black_box(&setting)))));
        measure("  one of them", || drop(black_box(card(&setting, "Haswell", None))));
        measure("  two of them", || drop(black_box(compare(&setting, "Haswell", &setting, "EPYC-Rome"))));
    }
    println!("(this machine may be shared: the best of all rounds is what the code can do)");
}

fn measure(what: &str, run: impl Fn()) {
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("{what:<56} {:>8.2} {:>8.2}", times[0], times[ROUNDS / 2]);
}
