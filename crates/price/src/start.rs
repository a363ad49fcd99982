//! What CPUID costs the start of a process: a dynamic program asks dozens of times before its `main`, and each may exit.

use std::process::{Command, Stdio};
use std::time::Instant;

use cpusieve_trace::exec;

use crate::exits::Exits;
use crate::stats::Interval;

/// The program that does nothing but start and end.
pub const PROGRAM: &str = "/bin/true";

/// How often it is started to be timed.
const STARTS: usize = 41;

/// A start of a program, and the part of CPUID in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// The program.
    pub program: &'static str,
    /// CPUIDs that it executed, its libraries included.
    pub cpuids: u64,
    /// How many of them are of which leaf, the most frequent first.
    pub leaves: Vec<(u32, u64)>,
    /// How they were counted.
    pub method: &'static str,
    /// Files in which none could be counted, each with the reason.
    pub unseen: Vec<String>,
    /// What they cost together, in nanoseconds, at the median cost of each leaf.
    pub ns: f64,
    /// How long the whole takes, from the request to start it to the report of its end, in nanoseconds.
    pub whole_ns: Interval,
}

impl Start {
    /// The share of CPUID in the whole, 0 to 1.
    #[must_use]
    pub fn share(&self) -> f64 {
        if self.whole_ns.median > 0.0 { (self.ns / self.whole_ns.median).min(1.0) } else { 0.0 }
    }
}

/// Counts the CPUIDs of [`PROGRAM`], and times it.
///
/// # Errors
///
/// Why it cannot be started, watched or timed, for people.
pub fn measure(exits: &Exits) -> Result<Start, String> {
    let mut command = Command::new(PROGRAM);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let executed = exec::run(&mut command).map_err(|refusal| refusal.to_string())?;
    let mut leaves: Vec<(u32, u64)> = Vec::new();
    for ((_, asked), count) in executed.counts.rows() {
        match leaves.iter_mut().find(|(leaf, _)| *leaf == asked.leaf) {
            Some((_, sum)) => *sum += count,
            None => leaves.push((asked.leaf, count)),
        }
    }
    leaves.sort_by_key(|&(leaf, count)| (std::cmp::Reverse(count), leaf));
    let cost = |&(leaf, count): &(u32, u64)| Some(exits.cpuid_ns(leaf)? * count as f64);
    let ns = leaves.iter().map(cost).sum::<Option<f64>>().ok_or("the cost of one CPUID is not known")?;
    let unseen = executed.unseen.iter().map(|(file, why)| format!("{file}: {why}")).collect();
    let (cpuids, method) = (executed.counts.total(), executed.method.name());
    Ok(Start { program: PROGRAM, cpuids, leaves, method, unseen, ns, whole_ns: whole()? })
}

/// How long a start takes.
fn whole() -> Result<Interval, String> {
    let once = || {
        let clock = Instant::now();
        let mut command = Command::new(PROGRAM);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().map(|_| clock.elapsed().as_secs_f64() * 1e9)
    };
    let times: Vec<f64> =
        (0..STARTS).map(|_| once()).collect::<Result<_, _>>().map_err(|error| format!("{PROGRAM}: {error}"))?;
    Interval::of(&times).ok_or_else(|| format!("{PROGRAM} was not timed"))
}
