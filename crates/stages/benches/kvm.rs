//! Microseconds of one prediction of KVM's answers with all its steps, for captured hosts of different vendors and kernels.
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
use cpusieve_stages::kvm::answer::{Input, answer, load};
use cpusieve_stages::kvm::msrs::feature_msrs;
use cpusieve_stages::linux::boot::{self, Unlisted, boot};

/// Rounds of one measurement, and predictions in each.
const ROUNDS: usize = 101;
const REPEAT: u32 = 50;

const HOSTS: [&str; 5] = [
    "guests-kvm/k5.10-max.json",
    "guests-kvm/k6.12-max.json",
    "guests-kvm/k7.3-EPYC-Milan.json",
    "guests-bochs/bochs30-k6.1-corei7_icelake_u.json.gz",
    "guests-bochs/bochs30-k6.1-core2_penryn_t9600.json.gz",
];

fn main() {
    println!("{:<56} {:>8} {:>8}   us a prediction, of {ROUNDS} rounds of {REPEAT}", "", "best", "median");
    for name in HOSTS {
        let snapshot = read(name);
        let tree = linux::nearest(snapshot.linux.as_ref().unwrap().release.as_deref().unwrap()).tree;
        let seen = boot::Input::of_snapshot("host", Stage::Host, &snapshot).unwrap();
        let host = boot::Input { unlisted: Unlisted::Zero, ..seen };
        let kernels = [boot(&host, tree)];
        let input = Input {
            of: "host",
            cpuid: host.cpuid,
            msrs: host.msrs,
            unlisted: host.unlisted,
            kernels: &kernels,
            cmdline: host.cmdline,
            config: host.config,
            params: &snapshot.kvm.as_ref().unwrap().params,
            permitted: 0,
        };
        measure(name, || answer(black_box(&input), tree));
        let module = load(&input, tree).unwrap();
        measure("  its feature MSRs", || feature_msrs(black_box(&module), None));
    }
    println!("(this machine may be shared: the best of all rounds is what the code can do)");
}

fn measure<T>(what: &str, predict: impl Fn() -> T) {
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..REPEAT {
                black_box(predict());
            }
            start.elapsed().as_secs_f64() * 1e6 / f64::from(REPEAT)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("{what:<56} {:>8.1} {:>8.1}", times[0], times[ROUNDS / 2]);
}

fn read(name: &str) -> Snapshot {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../corpus").join(name);
    let bytes = std::fs::read(path).unwrap();
    let mut plain = Vec::new();
    if name.ends_with(".gz") {
        flate2::read::GzDecoder::new(&*bytes).read_to_end(&mut plain).unwrap();
    } else {
        plain = bytes;
    }
    lab::capture(name, &plain).parsed.snapshot
}
