//! Microseconds of one realize: `-cpu` in, the vCPU's table and QEMU's messages out; and of its steps.
//!
//! Doubts are printed with the numbers: the best and the median of many rounds are shown, because the machine may be
//! shared.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    dead_code,
    reason = "a benchmark, and what it shares with tests"
)]

#[path = "../tests/oracle/mod.rs"]
mod oracle;

use std::hint::black_box;
use std::time::Instant;

use cpusieve_knowledge::qemu;
use cpusieve_stages::qemu::{Accelerator, Irqchip, Protected, Question, Smp, realize};

/// Rounds of one measurement, and questions in each.
const ROUNDS: usize = 101;
const REPEAT: u32 = 50;

/// Release, machine, `-cpu`.
const QUESTIONS: [(&str, &str, &str); 6] = [
    ("11.1", "q35", "host"),
    ("11.1", "q35", "SapphireRapids-v8"),
    ("11.1", "q35", "GraniteRapids,+avx10-512,check=off"),
    ("10.0", "pc-q35-2.4", "EPYC-Milan"),
    ("7.2", "pc-i440fx-1.4", "Haswell-noTSX-IBRS"),
    ("5.2", "q35", "qemu64"),
];

fn main() {
    let hosts = oracle::hosts();
    let host = &hosts["spr-6.18"];
    println!("{:<56} {:>8} {:>8}   us, of {ROUNDS} rounds of {REPEAT}", "", "best", "median");
    for (label, machine, cpu) in QUESTIONS {
        let release = qemu::nearest(label).release;
        let machine = qemu::machine(release, machine).unwrap();
        for (name, accelerator) in
            [("kvm", Accelerator::Kvm { host: &host.cpuid, kvm: &host.kvm }), ("tcg", Accelerator::Tcg)]
        {
            let (smp, irqchip, protected) = (Smp::default(), Irqchip::of(machine), Protected::default());
            let question = Question { release, machine, accelerator, cpu, smp, cpu_pm: false, irqchip, protected };
            let what = format!("{label} {name} {} {cpu}", machine.name);
            measure(&what, || drop(black_box(realize(black_box(question)))));
            if name == "kvm" {
                let output = realize(question);
                measure("  its steps", || drop(black_box(output.steps())));
                measure("  its properties", || drop(black_box(output.properties())));
            }
        }
    }
    let release = qemu::RELEASES.len() - 1;
    let machine = qemu::machine(release, "q35").unwrap();
    let start = Instant::now();
    let mut number = 0;
    for cpu in qemu::cpu_names(release) {
        let accelerator = Accelerator::Kvm { host: &host.cpuid, kvm: &host.kvm };
        let (smp, irqchip, protected) = (Smp::default(), Irqchip::of(machine), Protected::default());
        black_box(realize(Question { release, machine, accelerator, cpu, smp, cpu_pm: false, irqchip, protected }));
        number += 1;
    }
    println!("all {number} models of 11.1: {:.2} ms", start.elapsed().as_secs_f64() * 1e3);
    println!("(this machine may be shared: the best of all rounds is what the code can do)");
}

fn measure(what: &str, run: impl Fn()) {
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..REPEAT {
                run();
            }
            start.elapsed().as_secs_f64() * 1e6 / f64::from(REPEAT)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("{what:<56} {:>8.1} {:>8.1}", times[0], times[ROUNDS / 2]);
}
