//! MB/s of `cpuid -r` parsing, beside what the machine can do at all: copying the bytes, and the obvious parser.
//!
//! Doubts are printed with the numbers: the best and the median of many rounds are shown, because the machine may be
//! shared.
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a benchmark reads the clock and prints")]

use std::hint::black_box;
use std::time::Instant;

use cpusieve_formats::{cpuid_r, cpuinfo, read};

const SAMPLE: &str = include_str!("../tests/samples/cpuid-r.txt");
const CPUINFO: &str = include_str!("../tests/samples/cpuinfo.txt");

/// Rounds of one measurement; each lasts about a millisecond.
const ROUNDS: usize = 201;

fn main() {
    let many: String = (0..64)
        .map(|n| SAMPLE.replace("CPU 0:", &format!("CPU {}:", 2 * n)).replace("CPU 1:", &format!("CPU {}:", 2 * n + 1)))
        .collect();
    let cpus: String = (0..128)
        .map(|n| {
            CPUINFO
                .replace("processor\t: 0", &format!("processor\t: {}", 2 * n))
                .replace("processor\t: 1", &format!("processor\t: {}", 2 * n + 1))
        })
        .collect();
    let cpuid = SAMPLE.as_bytes();
    println!("{:<44} {:>10} {:>10}   of {ROUNDS} rounds", "", "best MB/s", "median");
    measure("memcpy, 128 CPUs", many.len(), || many.as_bytes().to_vec());
    measure("lines() and from_str_radix, 2 CPUs", cpuid.len(), || obvious(SAMPLE));
    measure("cpuid_r::parse, 2 CPUs", cpuid.len(), || cpuid_r::parse("bench", cpuid));
    measure("read (recognised), 2 CPUs", cpuid.len(), || read("bench", cpuid));
    measure("lines() and from_str_radix, 128 CPUs", many.len(), || obvious(&many));
    measure("cpuid_r::parse, 128 CPUs", many.len(), || cpuid_r::parse("bench", many.as_bytes()));
    measure("cpuinfo::parse, 256 CPUs", cpus.len(), || cpuinfo::parse("bench", cpus.as_bytes()));
    println!("(this machine may be shared: only ratios between the lines mean something)");
}

fn measure<T>(what: &str, bytes: usize, mut run: impl FnMut() -> T) {
    let repeat = (1 << 19) / bytes.max(1) + 1;
    let mut speeds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..repeat {
                black_box(run());
            }
            (bytes * repeat) as f64 / start.elapsed().as_secs_f64() / 1e6
        })
        .collect();
    speeds.sort_by(f64::total_cmp);
    println!("{what:<44} {:>10.0} {:>10.0}", speeds[ROUNDS - 1], speeds[ROUNDS / 2]);
}

/// The parser that one writes first: no diagnostics, no limits, no other spelling.
fn obvious(text: &str) -> Vec<[u32; 6]> {
    let hex = |field: &str| u32::from_str_radix(field.rsplit("0x").next().unwrap_or(""), 16).ok();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let leaf = hex(fields.next()?)?;
            let subleaf = hex(fields.next()?.strip_suffix(':')?)?;
            let [eax, ebx, ecx, edx] =
                [hex(fields.next()?)?, hex(fields.next()?)?, hex(fields.next()?)?, hex(fields.next()?)?];
            Some([leaf, subleaf, eax, ebx, ecx, edx])
        })
        .collect()
}
