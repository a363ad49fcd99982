//! Two ways to do the same work, timed in turn.
//!
//! A *sample* is one way run for a quarter of a millisecond. A *block* is with, without, without, with: what drifts slowly
//! falls on both alike. A *visit* is some blocks in memory of its own: where buffers happen to lie is noise too. Works take
//! turns, so that the visits of each are spread over the whole run, and what changes slowly on the machine is seen as
//! noise of the result instead of spoiling it. Visits during which somebody else used the core, its other thread most likely,
//! are left out and counted. The samples of the statistics are visits, not blocks: neighbouring blocks are
//! not independent. A block in which other programs had the CPU is dropped and counted.

use std::time::{Duration, Instant};

use crate::clock::{core_ghz, core_room, nanoseconds, thread_time};
use crate::flags::Flags;
use crate::stats::{Interval, median, outliers};
use crate::work::{Pair, Side, Work, Wrong};

/// How long and how well to measure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// The time for everything. What is begun is ended, so it is overrun by some milliseconds.
    pub budget: Duration,
    /// How long a sample is to take.
    pub sample: Duration,
    /// The blocks of a visit.
    pub blocks: usize,
    /// The relative half-width of the ratio's interval at which a work is done: 0.02.
    pub narrow: f64,
    /// The fewest visits with which a work is done.
    pub visits: usize,
}

/// The most visits that a work gets: beyond, noise is not what more samples cure.
const VISITS_AT_MOST: usize = 60;

/// The share of a block's time that may pass without this thread running: clock readings and the kernel's own work.
const MAY_WAIT: f64 = 0.04;

impl Plan {
    /// A plan for `works` works in `budget`.
    #[must_use]
    pub fn new(budget: Duration, works: usize) -> Self {
        let sample = Duration::from_micros(250);
        // Twenty visits each should fit with room to spare into the time.
        let visit = budget.as_secs_f64() / (works.max(1) * 32) as f64;
        let blocks = (visit / (4.0 * sample.as_secs_f64())) as usize;
        Self { budget, sample, blocks: blocks.clamp(3, 16), narrow: 0.02, visits: 20 }
    }
}

/// What one visit found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Visit {
    /// The time of one run with the feature, in nanoseconds: the median of the blocks.
    pub with: f64,
    /// The same without it.
    pub without: f64,
    /// The time without divided by the time with, block by block: the median. Above 1 the feature is worth something.
    pub ratio: f64,
    /// Blocks that count.
    pub blocks: usize,
    /// Blocks that were dropped because others had the CPU.
    pub dropped: usize,
    /// Blocks whose ratio lies far from the others'. They count: a median does not mind.
    pub outliers: usize,
    /// The core's room before or after the visit, the smaller: [`core_room`].
    pub room: f64,
}

/// The share of the most room seen with which a core counts as this program's alone.
const ALONE: f64 = 0.9;

/// A work and what its visits found so far.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The work.
    pub work: &'static Work,
    /// The visits, in order.
    pub visits: Vec<Visit>,
    /// Why it was not timed.
    pub wrong: Option<Wrong>,
    /// The most room that the core had in the run.
    pub most_room: f64,
    /// How often a sample runs each way.
    runs: Option<(u32, u32)>,
}

impl Measured {
    /// Nothing found yet.
    #[must_use]
    pub fn new(work: &'static Work) -> Self {
        Self { work, visits: Vec::new(), wrong: None, most_room: 0.0, runs: None }
    }

    /// The time without divided by the time with.
    #[must_use]
    pub fn ratio(&self) -> Option<Interval> {
        self.interval(|visit| visit.ratio)
    }

    /// The time of one run with the feature, in nanoseconds.
    #[must_use]
    pub fn with(&self) -> Option<Interval> {
        self.interval(|visit| visit.with)
    }

    /// The time of one run without the feature, in nanoseconds.
    #[must_use]
    pub fn without(&self) -> Option<Interval> {
        self.interval(|visit| visit.without)
    }

    /// The visits during which nobody else used the core, by all signs; all of them where these are too few for an
    /// interval.
    pub fn alone(&self) -> impl Iterator<Item = &Visit> + Clone {
        let enough = self.visits.iter().filter(|visit| self.is_alone(visit)).count() >= 6;
        self.visits.iter().filter(move |visit| !enough || self.is_alone(visit))
    }

    /// Whether nobody else used the core during this visit, by its room.
    #[must_use]
    pub fn is_alone(&self, visit: &Visit) -> bool {
        visit.room >= ALONE * self.most_room
    }

    fn interval(&self, of: impl Fn(&Visit) -> f64) -> Option<Interval> {
        Interval::of(&self.alone().map(of).collect::<Vec<_>>())
    }

    fn is_done(&self, plan: &Plan) -> bool {
        let narrow = || self.ratio().is_some_and(|ratio| ratio.is_certain() && ratio.spread() <= plan.narrow);
        let visits = self.alone().count();
        self.wrong.is_some() || visits >= VISITS_AT_MOST || (visits >= plan.visits && narrow())
    }
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Which work is being visited.
    pub work: &'static str,
    /// Works that are done.
    pub done: usize,
    /// All works.
    pub works: usize,
    /// The time since the beginning.
    pub elapsed: Duration,
}

/// What a run found.
#[derive(Clone, Debug)]
pub struct Run {
    /// Each work, in the order in which they were given.
    pub measured: Vec<Measured>,
    /// The core's clock in GHz before each visit.
    pub ghz: Vec<f64>,
    /// How long it took.
    pub time: Duration,
}

/// Measures works in turn until all are narrow, the time is up, or `progress` returns `false`.
///
/// The calling thread should be bound to one CPU. Works whose ways this CPU lacks are left without visits.
pub fn run(works: &[&'static Work], flags: &Flags, plan: &Plan, progress: &mut dyn FnMut(Progress) -> bool) -> Run {
    let start = Instant::now();
    let mut run =
        Run { measured: works.iter().map(|work| Measured::new(work)).collect(), ghz: Vec::new(), time: Duration::ZERO };
    let count = works.len();
    let mut most_room = 0.0_f64;
    'rounds: loop {
        let before: usize = run.measured.iter().map(|measured| measured.visits.len()).sum();
        let mut done = run.measured.iter().filter(|measured| measured.is_done(plan)).count();
        for measured in &mut run.measured {
            if measured.is_done(plan) {
                continue;
            }
            let step = Progress { work: measured.work.id, done, works: count, elapsed: start.elapsed() };
            if !progress(step) || start.elapsed() >= plan.budget {
                break 'rounds;
            }
            run.ghz.extend(core_ghz());
            visit(measured, flags, plan);
            most_room = measured.visits.last().map_or(most_room, |visit| visit.room.max(most_room));
            measured.most_room = most_room;
            done += usize::from(measured.is_done(plan));
        }
        let after: usize = run.measured.iter().map(|measured| measured.visits.len()).sum();
        // Nothing more can be found out, or nothing at all.
        if after == before {
            break;
        }
    }
    for measured in &mut run.measured {
        measured.most_room = most_room;
    }
    run.time = start.elapsed();
    run
}

/// Visits a work once: makes it, checks it the first time, and times some blocks.
pub fn visit(measured: &mut Measured, flags: &Flags, plan: &Plan) {
    let Some(Ok(mut pair)) = measured.work.ready(flags) else { return };
    if measured.visits.is_empty() {
        measured.wrong = pair.check().err();
    }
    if measured.wrong.is_some() {
        return;
    }
    let (with, without) = *measured
        .runs
        .get_or_insert_with(|| (runs(&mut *pair, Side::With, plan), runs(&mut *pair, Side::Without, plan)));
    // Caches, branch predictors and the core's clock get used to it.
    sample(&mut *pair, Side::Without, without);
    sample(&mut *pair, Side::With, with);
    let before = core_room();
    let mut blocks: Vec<[f64; 3]> = Vec::with_capacity(plan.blocks);
    let mut dropped = 0;
    while blocks.len() < plan.blocks && dropped < plan.blocks * 3 {
        let (wall, cpu) = (Instant::now(), thread_time());
        let first = sample(&mut *pair, Side::With, with);
        let second = sample(&mut *pair, Side::Without, without) + sample(&mut *pair, Side::Without, without);
        let first = first + sample(&mut *pair, Side::With, with);
        let (cpu, wall) = (thread_time().saturating_sub(cpu), wall.elapsed());
        let waited = wall.saturating_sub(cpu).as_secs_f64() / wall.as_secs_f64();
        if waited > MAY_WAIT && !pair.waits() {
            dropped += 1;
            continue;
        }
        let (first, second) = (first / 2.0 / f64::from(with), second / 2.0 / f64::from(without));
        blocks.push([first, second, second / first]);
    }
    let column = |index: usize| blocks.iter().filter_map(|block| block.get(index).copied()).collect::<Vec<f64>>();
    let (Some(with), Some(without), Some(ratio)) = (median(&column(0)), median(&column(1)), median(&column(2))) else {
        return;
    };
    let outliers = outliers(&column(2));
    let room = core_room().min(before);
    measured.visits.push(Visit { with, without, ratio, blocks: blocks.len(), dropped, outliers, room });
}

/// The nanoseconds that `runs` runs take.
fn sample(pair: &mut dyn Pair, side: Side, runs: u32) -> f64 {
    pair.enter(side);
    let start = Instant::now();
    for _ in 0..runs {
        pair.run(side);
    }
    let time = start.elapsed();
    pair.leave(side);
    nanoseconds(time)
}

/// How many runs a sample needs. The fastest of some tries counts: what interrupts only makes it slower.
fn runs(pair: &mut dyn Pair, side: Side, plan: &Plan) -> u32 {
    let wanted = nanoseconds(plan.sample);
    let mut runs = 1_u32;
    loop {
        let time = (0..3).map(|_| sample(pair, side, runs)).fold(f64::INFINITY, f64::min).max(1.0);
        if time >= wanted / 4.0 || runs >= 1 << 24 {
            return (f64::from(runs) * wanted / time).ceil().clamp(1.0, f64::from(1 << 26)) as u32;
        }
        runs *= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::{Kernel, Unit, Way};

    const PLAIN: Way = Way { name: "plain", needs: &[] };

    /// Work whose way with the feature forgets the last number.
    static WRONG: Work = Work {
        id: "wrong",
        feature: "popcnt",
        title: "a sum",
        with: PLAIN,
        without: PLAIN,
        unit: Unit::Bytes,
        amount: 1,
        make: || {
            Kernel::boxed(
                || ([1_u32, 2, 3], 0),
                |state| state.1 = state.0[0] + state.0[1],
                |state| state.1 = state.0.iter().sum(),
                |state| state.1,
                |_| 6,
            )
        },
    };

    static RIGHT: Work = Work {
        id: "right",
        make: || {
            let sum: fn(&mut ([u32; 3], u32)) = |state| state.1 = state.0.iter().sum();
            Kernel::boxed(|| ([1_u32, 2, 3], 0), sum, sum, |state| state.1, |_| 6)
        },
        ..WRONG
    };

    #[test]
    fn what_is_wrong_is_not_timed() {
        let plan = Plan::new(Duration::from_millis(200), 2);
        let run = run(&[&WRONG, &RIGHT], &Flags::here(), &plan, &mut |_| true);
        let [wrong, right] = run.measured.as_slice() else { panic!("two works") };
        assert_eq!(wrong.wrong, Some(Wrong { way: "the way with it" }));
        assert!(wrong.visits.is_empty() && wrong.ratio().is_none());
        assert_eq!(right.wrong, None);
    }

    #[test]
    fn a_run_ends_when_nobody_waits_for_it_any_more() {
        let plan = Plan::new(Duration::from_secs(3600), 1);
        let mut asked = 0;
        let run = run(&[&RIGHT], &Flags::here(), &plan, &mut |_| {
            asked += 1;
            asked < 3
        });
        assert_eq!(asked, 3);
        assert!(run.measured.iter().all(|measured| measured.visits.len() <= 2));
    }

    #[test]
    fn plans_fit_their_time() {
        for (seconds, works) in [(1, 1), (1, 60), (75, 50), (3600, 50), (75, 0)] {
            let plan = Plan::new(Duration::from_secs(seconds), works);
            assert!((3..=16).contains(&plan.blocks), "{seconds} s for {works} works");
        }
    }
}
