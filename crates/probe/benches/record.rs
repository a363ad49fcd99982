//! CPUID of all CPUs, beside `cpuid -r`: the same work by two processes in turn, and what of it is ours in the library.
//!
//! `cargo bench -p cpusieve-probe --bench record`
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "measures processes and prints the figures")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use cpusieve_probe::{Only, Options, cpuid, kvm, linux, record};

/// Given to this program by itself: record, print as `cpuid -r` does, and end.
const DUMP: &str = "--dump";

/// Measured runs of each process, after as many as a tenth that are not counted.
const RUNS: usize = 201;

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == DUMP) {
        return dump();
    }
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("no figures: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dump() -> ExitCode {
    let mut text = String::new();
    for cpu in record(Options::only(Only::Cpuid)).cpus {
        let _ = writeln!(text, "CPU {}:", cpu.id);
        for entry in cpu.cpuid.entries() {
            let (leaf, subleaf, r) = (entry.leaf, entry.subleaf, entry.registers);
            let _ = writeln!(
                text,
                "   {leaf:#010x} {subleaf:#04x}: eax={:#010x} ebx={:#010x} ecx={:#010x} edx={:#010x}",
                r.eax, r.ebx, r.ecx, r.edx
            );
        }
    }
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn measure() -> std::io::Result<()> {
    let snapshot = record(Options::only(Only::Cpuid));
    let pairs: usize = snapshot.cpus.iter().map(|cpu| cpu.cpuid.len()).sum();
    println!("{} CPUs, {pairs} pairs of leaf and subleaf", snapshot.cpus.len());

    let one = times(2000, || {
        std::hint::black_box(cpuid::instruction(1, 0));
    });
    show("one CPUID instruction", &one);
    show("record of CPUID, in the library", &times(RUNS, || drop(record(Options::only(Only::Cpuid)))));
    show("kernel, in the library", &times(RUNS / 10, || drop(linux::view(&mut Vec::new()))));
    show("KVM, in the library", &times(RUNS / 10, || drop(kvm::view(&mut Vec::new()))));
    show("record of everything, in the library", &times(RUNS / 10, || drop(record(Options::default()))));

    let own = std::env::current_exe()?;
    let other = Path::new("cpuid");
    if let Err(error) = run(other, "-r") {
        println!("skipped: no comparison with cpuid -r, which cannot be run here: {error}");
        return Ok(());
    }
    // In turn, so that a neighbour's noise falls on both.
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..RUNS + RUNS / 10 {
        let (mine, yours) = (run(&own, DUMP)?, run(other, "-r")?);
        if round >= RUNS / 10 {
            ours.push(mine);
            theirs.push(yours);
        }
    }
    ours.sort_unstable();
    theirs.sort_unstable();
    show("our process", &ours);
    show("cpuid -r", &theirs);
    let ratio = |at: usize| theirs[at].as_secs_f64() / ours[at].as_secs_f64();
    println!("cpuid -r takes {:.2} times as long at the minimum, {:.2} times at the median", ratio(0), ratio(RUNS / 2));
    doubts(&one, &snapshot);
    Ok(())
}

/// What may be wrong with the figures.
fn doubts(one: &[Duration], snapshot: &cpusieve_model::Snapshot) {
    if one[one.len() / 2] > Duration::from_micros(1) {
        println!("doubt: CPUID takes over 1 µs here, so it exits to a hypervisor; on bare metal processes weigh more");
    }
    let guest = snapshot.cpus.first().and_then(|cpu| cpu.cpuid.hypervisor_signature());
    if let Some(signature) = guest {
        println!("doubt: this is a guest ({signature}); its clock and its CPUs may be shared");
    }
}

fn run(program: &Path, argument: &str) -> std::io::Result<Duration> {
    let begin = Instant::now();
    let status = Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    let taken = begin.elapsed();
    if status.success() { Ok(taken) } else { Err(std::io::Error::other(format!("{} failed", program.display()))) }
}

/// Sorted times of `runs` calls.
fn times(runs: usize, mut work: impl FnMut()) -> Vec<Duration> {
    let mut times: Vec<_> = (0..runs)
        .map(|_| {
            let begin = Instant::now();
            work();
            begin.elapsed()
        })
        .collect();
    times.sort_unstable();
    times
}

fn show(what: &str, sorted: &[Duration]) {
    let micros = |at: usize| sorted[at].as_secs_f64() * 1e6;
    println!("{what}: min {:.1} µs, median {:.1} µs ({} runs)", micros(0), micros(sorted.len() / 2), sorted.len());
}
