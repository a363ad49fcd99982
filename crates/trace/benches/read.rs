//! Events a second that the stream reader takes, beside what it costs to look at their bytes at all.
//!
//! A guest that does nothing but CPUID causes less than a million events a second and vCPU: an exit takes a microsecond or
//! more.
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a benchmark reads the clock and prints")]

use std::hint::black_box;
use std::time::Instant;

use cpusieve_trace::count::Counts;
use cpusieve_trace::read::Reader;

/// Events of one measurement, and measurements.
const EVENTS: usize = 20_000;
const ROUNDS: usize = 51;

fn main() {
    let line = |n: usize| {
        let (leaf, vcpu) = ([0, 1, 4, 7, 0xd, 0x8000_0000_u32][n % 6], n % 4);
        let (head, flags) = (format!("       CPU {vcpu}/KVM-20{vcpu}     [00{vcpu}]"), "..... ");
        if n.is_multiple_of(2) {
            format!(
                "{head} {flags}   67.845586: kvm_exit: vcpu {vcpu} reason cpuid rip 0xffffffff810012{vcpu}4 info1 0x0000000000000000 info2 0x0000000000000000 intr_info 0x00000000 error_code 0x00000000\n"
            )
        } else {
            format!(
                "{head} {flags}   67.845587: kvm_cpuid: func {leaf:x} idx 0 rax 16 rbx 68747541 rcx 444d4163 rdx 69746e65, cpuid entry found\n"
            )
        }
    };
    let text: String = (0..EVENTS).map(line).collect();
    let lines = |text: &str| text.bytes().filter(|&byte| byte == b'\n').count();
    println!("{:<40} {:>12} {:>12}   of {ROUNDS} rounds", "", "best", "median");
    measure("line feeds counted", || lines(&text));
    measure("read and counted", || {
        let (mut counts, mut reader) = (Counts::default(), Reader::default());
        text.as_bytes().chunks(4096).for_each(|chunk| reader.push(chunk, &mut |event| counts.add(event)));
        counts
    });
    println!("(events a second; this machine may be shared: the best says what is possible)");
}

fn measure<T>(what: &str, mut run: impl FnMut() -> T) {
    let mut speeds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            black_box(run());
            EVENTS as f64 / start.elapsed().as_secs_f64()
        })
        .collect();
    speeds.sort_by(f64::total_cmp);
    let at = |place: usize| speeds.get(place).copied().unwrap_or(0.0);
    println!("{what:<40} {:>12.0} {:>12.0}", at(ROUNDS - 1), at(ROUNDS / 2));
}
