//! Microseconds of the whole way, from a host's silicon to its guest's flags line, with the steps of all stages.
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

use cpusieve_answers::predict::way::{Route, Vm, until_guest, until_vcpu};
use cpusieve_answers::predict::{Kernel, kvm, predict};
use cpusieve_model::{Snapshot, Stage};
use cpusieve_stages::linux::boot::Unlisted;

/// Rounds of one measurement, and predictions in each: short rounds, of which few are interrupted.
const ROUNDS: usize = 1001;
const REPEAT: u32 = 2;

/// Host, and the text of `-cpu`.
const WAYS: [(&str, &str); 5] = [
    ("qemu-oracle/hosts/spr-6.18.json.gz", "host"),
    ("qemu-oracle/hosts/spr-6.18.json.gz", "SapphireRapids-v3"),
    ("qemu-oracle/hosts/milan-6.18.json.gz", "host"),
    ("qemu-oracle/hosts/milan-6.18.json.gz", "EPYC-Milan-v2"),
    ("guests-bochs/bochs30-k6.1-corei7_icelake_u.json.gz", "host"),
];

/// More than any prediction allocates, in bytes.
const GROWN: usize = 4 << 20;

fn main() {
    // The allocator keeps what it was given back once, as in a program that has answered before; otherwise the rounds
    // would measure how fast the system hands out pages.
    drop(black_box(vec![1_u8; GROWN]));
    println!("{:<64} {:>8} {:>8}   us, of {ROUNDS} rounds of {REPEAT}", "", "best", "median");
    for (name, cpu) in WAYS {
        let snapshot = read(name);
        let host = Kernel { unlisted: Unlisted::Zero, ..Kernel::new(Stage::Host) };
        let question = kvm::Question { predicted: true, ..kvm::Question::new(host) };
        let vm = Vm { qemu: Some("10.0"), machine: Some("q35"), cpu: Some(cpu), ..Vm::default() };
        let guest = Kernel { release: Some("6.12"), ..Kernel::new(Stage::Guest) };
        let route = Route { kvm: question, vm, guest };
        measure(&format!("{name} -cpu {cpu}"), || {
            let found = until_guest(black_box(&snapshot), &route).unwrap();
            black_box(found.vcpu.qemu.steps());
            drop(black_box(found));
        });
        measure("  until its vCPU", || drop(black_box(until_vcpu(black_box(&snapshot), &route).unwrap())));
        measure("  until KVM", || drop(black_box(kvm::predict(black_box(&snapshot), &question).unwrap())));
        measure("  until the host's kernel", || drop(black_box(predict(black_box(&snapshot), &host).unwrap())));
    }
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
    println!("{what:<64} {:>8.1} {:>8.1}", times[0], times[ROUNDS / 2]);
}

fn read(name: &str) -> Snapshot {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../corpus").join(name);
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut plain).unwrap();
    cpusieve_formats::read(name, &plain).snapshot
}
