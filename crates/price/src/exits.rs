//! What leaving costs: one CPUID by leaf, the time stamp counter, the clocks, a system call, a page fault, the counters and
//! the random numbers of the CPU, each labelled native, trapped or in between ([`Label`]) by its cost.
//!
//! Everything is timed in turn, a batch of each after the other, so that what disturbs the machine disturbs all alike. What may
//! fault runs in a process of its own.

mod child;
mod counter;
mod instructions;
mod judge;
mod operation;

use std::time::{Duration, Instant};

use cpusieve_model::{CpuidTable, Register};

use crate::stats::Interval;

pub use judge::Label;
use operation::Operation;

/// How long a batch should be: long beside the 20 to 50 ns that reading the counter costs.
const BATCH_NS: f64 = 20_000.0;

/// Batches of each operation at most.
const BATCHES: usize = 301;

/// Batches of each operation at least, however short the time.
const BATCHES_AT_LEAST: usize = 15;

/// A batch that is this many times as long as the median was disturbed.
const OUTLIER: f64 = 3.0;

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Exits {
    /// Each operation.
    pub rows: Vec<Exit>,
    /// Ticks of the time stamp counter in a nanosecond.
    pub ticks_per_ns: f64,
    /// Whether CPUID says that this is a guest.
    pub guest: bool,
    /// How long it took.
    pub took: Duration,
}

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Exit {
    /// A name that stays: `cpuid.7.0`, `rdtsc`, `clock.monotonic`.
    pub id: String,
    /// For people.
    pub what: String,
    /// What it costs, or why that is not known.
    pub cost: Result<Cost, String>,
}

/// What an operation costs.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// Nanoseconds.
    pub ns: Interval,
    /// Ticks of the time stamp counter: the median.
    pub ticks: f64,
    /// Batches that took more than three times the median: somebody else had the CPU.
    pub outliers: usize,
    /// Native or not.
    pub label: Label,
    /// By which evidence.
    pub because: String,
}

impl Exits {
    /// The row of this name.
    #[must_use]
    pub fn row(&self, id: &str) -> Option<&Exit> {
        self.rows.iter().find(|row| row.id == id)
    }

    /// The median cost of one CPUID, in nanoseconds: of this leaf if it was measured, else of leaf 0.
    #[must_use]
    pub fn cpuid_ns(&self, leaf: u32) -> Option<f64> {
        let measured = |leaf: u32| {
            let named = self.rows.iter().find(|row| row.id.starts_with(&operation::cpuid_id(leaf)));
            named.and_then(|row| row.cost.as_ref().ok()).map(|cost| cost.ns.median)
        };
        measured(leaf).or_else(|| measured(0))
    }
}

/// Measures on the CPU on which this thread happens to run, for about `time`; `cpuid` says which instructions there are.
#[must_use]
pub fn measure(cpuid: &CpuidTable, time: Duration) -> Exits {
    let clock = Instant::now();
    let first = instructions::ticks();
    let mut samples: Vec<(Operation, Taken)> = Operation::all(cpuid).into_iter().map(Taken::new).collect();
    for round in 0..BATCHES {
        if round >= BATCHES_AT_LEAST && clock.elapsed() >= time {
            break;
        }
        samples.iter_mut().for_each(|(operation, taken)| taken.batch(operation));
    }
    let took = clock.elapsed();
    let ticks_per_ns = ratio(instructions::ticks().saturating_sub(first) as f64, took.as_secs_f64() * 1e9);
    let guest = cpuid.get(1, 0).is_some_and(|leaf| leaf.get(Register::Ecx) >> 31 == 1);
    Exits { rows: rows(samples, ticks_per_ns, guest), ticks_per_ns, guest, took }
}

fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

/// Batches of one operation.
struct Taken {
    /// Operations in a batch.
    times: u32,
    /// Ticks of one operation, batch by batch; or why there are none.
    ticks: Result<Vec<f64>, String>,
}

impl Taken {
    fn new(mut operation: Operation) -> (Operation, Self) {
        let ticks = match operation.refused() {
            Some(why) => Err(why),
            None => operation.at_once().unwrap_or_else(|| Ok(Vec::with_capacity(BATCHES))),
        };
        let mut taken = Self { times: 1, ticks };
        if operation.is_in_turn() && taken.ticks.is_ok() {
            // The first ones fill caches and page tables.
            let one = (0..4).map(|_| operation.run(2)).min().unwrap_or(1) as f64 / 2.0;
            // The counter runs at 1 to 5 GHz: near enough to choose a number.
            let fitting = (BATCH_NS * 2.0 / one.max(1.0)).ceil();
            taken.times = (fitting as u32).clamp(1, operation.most());
        }
        (operation, taken)
    }

    fn batch(&mut self, operation: &mut Operation) {
        if let Ok(ticks) = &mut self.ticks
            && operation.is_in_turn()
        {
            ticks.push(operation.run(self.times) as f64 / f64::from(self.times));
        }
    }
}

/// Labels all, beside what a system call and the cheapest CPUID cost.
fn rows(samples: Vec<(Operation, Taken)>, ticks_per_ns: f64, guest: bool) -> Vec<Exit> {
    let median = |taken: &Taken| taken.ticks.as_ref().ok().and_then(|ticks| Interval::of(ticks)).map(|all| all.median);
    let call = samples.iter().find(|(operation, _)| matches!(operation, Operation::Call));
    let call = call.and_then(|(_, taken)| median(taken)).unwrap_or(0.0);
    let leaves = samples.iter().filter(|(operation, _)| matches!(operation, Operation::Cpuid { .. }));
    let cheapest = leaves.filter_map(|(_, taken)| median(taken)).fold(f64::INFINITY, f64::min);
    let row = |(operation, taken): (Operation, Taken)| {
        let cost = taken.ticks.and_then(|ticks| {
            let all = Interval::of(&ticks).ok_or("the time was up")?;
            let telling = if matches!(operation, Operation::Cpuid { .. }) { cheapest } else { all.median };
            let (label, because) = judge::judge(operation.kind(), telling, call, guest);
            let outliers = ticks.iter().filter(|&&ticks| ticks > all.median * OUTLIER).count();
            let ns = all.scaled(ratio(1.0, ticks_per_ns));
            Ok(Cost { ns, ticks: all.median, outliers, label, because })
        });
        Exit { id: operation.id(), what: operation.what(), cost }
    };
    samples.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_measured_and_every_row_is_labelled_or_refused_with_a_reason() {
        let cpuid = cpusieve_probe::cpuid::enumerate_here().table;
        let exits = measure(&cpuid, Duration::from_millis(1));
        let mut ids: Vec<&str> = exits.rows.iter().map(|row| row.id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), exits.rows.len());
        for row in &exits.rows {
            match &row.cost {
                Ok(cost) => assert!(cost.ns.low <= cost.ns.median && cost.ns.median > 0.0, "{row:?}"),
                Err(why) => assert!(!why.is_empty()),
            }
        }
        assert!(exits.cpuid_ns(0).is_some());
        // A leaf that was not measured costs what leaf 0 costs.
        assert_eq!(exits.cpuid_ns(0x1234), exits.cpuid_ns(0));
        // All leaves exit or none.
        let labels: Vec<_> = exits.rows.iter().filter(|row| row.id.starts_with("cpuid.")).collect();
        let label = |row: &&Exit| row.cost.as_ref().map(|cost| cost.label).unwrap();
        assert!(labels.windows(2).all(|pair| label(&pair[0]) == label(&pair[1])));
    }

    #[test]
    fn what_the_cpu_lacks_is_not_executed() {
        let exits = measure(&CpuidTable::default(), Duration::ZERO);
        for absent in ["rdtscp", "rdrand", "rdseed"] {
            assert!(exits.row(absent).unwrap().cost.as_ref().unwrap_err().contains("lacks"), "{absent}");
        }
    }
}
