//! What a run found, as data: for text, JSON, pictures and the table that ships with cpusieve.

use std::time::Duration;

use crate::clock::Clock;
use crate::doubt::Doubt;
use crate::stats::Interval;
use crate::work::{Unit, Way, Work};

/// The machine that numbers belong to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// The CPU's name for itself, if it has one.
    pub brand: Option<String>,
    /// The generation by vendor, family and model: `Zen 4`; `None` if it is unknown or ambiguous.
    pub generation: Option<&'static str>,
    /// Display family, model and stepping.
    pub signature: Option<(u32, u32, u32)>,
    /// `bare metal`, or the hypervisor and VMM below.
    pub place: String,
    /// The kernel's release.
    pub kernel: Option<String>,
    /// The CPUs that are online.
    pub cpus: usize,
    /// The date in UTC, `2026-11-22`.
    pub date: String,
}

/// One feature's worth in one piece of work.
#[derive(Clone, Debug, PartialEq)]
pub struct Price {
    /// The feature's id.
    pub feature: &'static str,
    /// The work's id.
    pub work: &'static str,
    /// The work for people.
    pub title: &'static str,
    /// With the feature.
    pub with: Way,
    /// Without it.
    pub without: Way,
    /// What the rates count.
    pub unit: Unit,
    /// The time without divided by the time with.
    pub ratio: Interval,
    /// How much a second with the feature.
    pub rate_with: Interval,
    /// How much a second without it.
    pub rate_without: Interval,
    /// Blocks whose ratio lay far from the others'.
    pub outliers: usize,
    /// Blocks that were dropped because others had the CPU.
    pub dropped: usize,
    /// All blocks, those that were dropped included.
    pub blocks: usize,
}

/// A piece of work that was not timed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpriced {
    /// The feature's id.
    pub feature: &'static str,
    /// The work's id; `None` if the feature has no work.
    pub work: Option<&'static str>,
    /// Why.
    pub why: Why,
}

/// Why a piece of work was not timed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// A program may not use these features here.
    Lacking(Vec<Lacking>),
    /// The kernel or the machine does not allow it: the reason.
    Refused(&'static str),
    /// A way's result was wrong.
    Wrong(&'static str),
    /// No block was left: other programs always had the CPU, or the time was up.
    NoTime,
    /// No program can tell from inside: the reason.
    Unseen(&'static str),
}

/// A feature that is missing, and what is known of why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    /// The feature's id.
    pub feature: &'static str,
    /// Where it went.
    pub fate: Fate,
}

/// Where a missing feature went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// No CPU of this generation has it.
    Silicon,
    /// Every CPU of this generation has it: a sieve took it.
    Sieve,
    /// CPUID has it; the kernel has not enabled its state.
    State,
    /// It cannot be told.
    Unknown,
}

/// What a whole run found.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The machine.
    pub machine: Machine,
    /// The clock that things were timed with.
    pub clock: Clock,
    /// The core's clock in GHz: the median of all readings.
    pub ghz: Option<f64>,
    /// What was priced, the most worth first.
    pub prices: Vec<Price>,
    /// What was not.
    pub unpriced: Vec<Unpriced>,
    /// What may be wrong with the numbers.
    pub doubts: Vec<Doubt>,
    /// How long it took.
    pub time: Duration,
}

impl Price {
    pub(crate) fn of(work: &'static Work, measured: &crate::measure::Measured) -> Option<Self> {
        let amount = work.amount as f64 * 1e9;
        let sum = |of: fn(&crate::measure::Visit) -> usize| measured.visits.iter().map(of).sum::<usize>();
        let dropped = sum(|visit| visit.dropped);
        Some(Self {
            feature: work.feature,
            work: work.id,
            title: work.title,
            with: work.with,
            without: work.without,
            unit: work.unit,
            ratio: measured.ratio()?,
            rate_with: measured.with()?.per(amount),
            rate_without: measured.without()?.per(amount),
            outliers: sum(|visit| visit.outliers),
            dropped,
            blocks: sum(|visit| visit.blocks) + dropped,
        })
    }
}
