//! A whole run: which works this machine can do, all of them measured, and what is doubtful about it.

use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cpusieve_knowledge::x86;
use cpusieve_probe::affinity;
use rustix::thread::sched_getcpu;

use crate::clock::Clock;
use crate::doubt::Doubt;
use crate::features::{UNSEEN, works};
use crate::flags::Flags;
use crate::measure::{self, Plan, Progress, Run};
use crate::report::{Fate, Lacking, Machine, Price, Report, Unpriced, Why};
use crate::work::Work;

/// How far the core's clock may move before it is a doubt.
const STEADY: f64 = 0.03;

/// The share of blocks, and of time, that others may take before it is a doubt.
const MAY_LOSE: f64 = 0.02;

/// The work that prices these features; all of it if there are none.
#[must_use]
pub fn wanted(features: &[&str]) -> Vec<&'static Work> {
    works().into_iter().filter(|work| features.is_empty() || features.contains(&work.feature)).collect()
}

/// Prices features, all that have work if none is named; `progress` returns whether to go on.
pub fn survey(
    features: &[&'static str],
    budget: Duration,
    progress: &mut (dyn FnMut(Progress) -> bool + Send),
) -> Report {
    let flags = Flags::here();
    let mut unpriced: Vec<Unpriced> = UNSEEN
        .iter()
        .filter(|(feature, _)| features.contains(feature))
        .map(|&(feature, why)| Unpriced { feature, work: None, why: Why::Unseen(why) })
        .collect();
    let mut possible = Vec::new();
    for work in wanted(features) {
        match work.ready(&flags) {
            Some(Ok(_)) => possible.push(work),
            Some(Err(refused)) => unpriced.push(left_out(work, Why::Refused(refused.0))),
            None => unpriced.push(left_out(work, Why::Lacking(lacking(work, &flags)))),
        }
    }
    let clock = Clock::look();
    let plan = Plan::new(budget, possible.len());
    let cpu = u32::try_from(sched_getcpu()).unwrap_or_default();
    let stolen = stolen(cpu);
    let run = bound(cpu, &possible, &flags, &plan, progress);
    let stolen = stolen.zip(self::stolen(cpu)).map(|(before, after)| after.saturating_sub(before));
    let mut prices: Vec<Price> =
        run.measured.iter().filter_map(|measured| Price::of(measured.work, measured)).collect();
    prices.sort_by(|a, b| b.ratio.median.total_cmp(&a.ratio.median));
    for measured in run.measured.iter().filter(|measured| measured.visits.is_empty()) {
        let why = measured.wrong.as_ref().map_or(Why::NoTime, |wrong| Why::Wrong(wrong.way));
        unpriced.push(left_out(measured.work, why));
    }
    let machine = machine(&flags);
    let doubts = doubts(&Found { run: &run, clock: &clock, plan: &plan, prices: &prices, cpu, stolen }, &machine);
    let ghz = crate::stats::median(&run.ghz);
    Report { machine, clock, ghz, prices, unpriced, doubts, time: run.time }
}

fn left_out(work: &Work, why: Why) -> Unpriced {
    Unpriced { feature: work.feature, work: Some(work.id), why }
}

/// The run, on the CPU on which this thread is now; unbound if the kernel does not allow that.
fn bound(
    cpu: u32,
    works: &[&'static Work],
    flags: &Flags,
    plan: &Plan,
    progress: &mut (dyn FnMut(Progress) -> bool + Send),
) -> Run {
    let progress = Mutex::new(progress);
    let turn = |_| {
        let mut progress = progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        measure::run(works, flags, plan, &mut **progress)
    };
    let found = affinity::on_each(&[cpu], turn).into_iter().find_map(|(_, found)| found.ok());
    found.unwrap_or_else(|| turn(cpu))
}

/// What a work lacks here, and what is known of why.
fn lacking(work: &Work, flags: &Flags) -> Vec<Lacking> {
    let fate = |feature: &'static str| Lacking { feature, fate: fate(feature, flags) };
    work.missing(flags).into_iter().map(fate).collect()
}

/// Where a missing feature went, as far as the CPU's generation tells.
#[must_use]
pub fn fate(feature: &str, flags: &Flags) -> Fate {
    if flags.is_without_state(feature) {
        return Fate::State;
    }
    let Some(generation) = generation(flags) else { return Fate::Unknown };
    if generation.has().any(|flag| flag == feature) {
        Fate::Sieve
    } else if generation.lacks().any(|flag| flag == feature) {
        Fate::Silicon
    } else {
        Fate::Unknown
    }
}

fn generation(flags: &Flags) -> Option<&'static x86::Generation> {
    let (family, model, stepping) = flags.cpuid().signature()?;
    match x86::by_signature(flags.cpuid().vendor()?, family, model, Some(stepping)).as_slice() {
        [(generation, _)] => Some(generation),
        _ => None,
    }
}

/// The machine that the numbers belong to.
#[must_use]
pub fn machine(flags: &Flags) -> Machine {
    let seen = cpusieve_probe::machine::look(flags.cpuid());
    let below: Vec<&str> = seen.vmm.into_iter().chain(seen.hypervisors.iter().filter_map(|below| below.name)).collect();
    let place = match seen.kind {
        cpusieve_probe::machine::Kind::BareMetal => "bare metal".to_owned(),
        cpusieve_probe::machine::Kind::Unknown => "unknown".to_owned(),
        _ if below.is_empty() => "guest".to_owned(),
        _ => format!("guest of {}", below.join(", ")),
    };
    Machine {
        brand: cpusieve_probe::brand(flags.cpuid()),
        generation: generation(flags).map(|generation| generation.name),
        signature: flags.cpuid().signature(),
        place,
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|release| release.trim().to_owned()),
        cpus: affinity::online().map_or(0, |cpus| cpus.len()),
        date: date(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())),
    }
}

/// The day of a time in seconds since 1970, in UTC (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

/// The time for which the hypervisor has run others on a CPU since the boot, in ticks of a hundredth of a second.
fn stolen(cpu: u32) -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix(&format!("cpu{cpu} ")))?;
    line.split_whitespace().nth(7)?.parse().ok()
}

/// What doubts are read off.
struct Found<'a> {
    run: &'a Run,
    clock: &'a Clock,
    plan: &'a Plan,
    prices: &'a [Price],
    cpu: u32,
    stolen: Option<u64>,
}

fn doubts(found: &Found<'_>, machine: &Machine) -> Vec<Doubt> {
    let Found { run, clock, plan, prices, cpu, stolen } = *found;
    let mut doubts = Vec::new();
    let mut ghz = run.ghz.clone();
    ghz.sort_unstable_by(f64::total_cmp);
    let tenth = |place: usize| ghz.get(ghz.len() * place / 10).copied();
    if let (Some(low), Some(high)) = (tenth(1), tenth(9))
        && high > low * (1.0 + STEADY)
    {
        doubts.push(Doubt::ClockMoved { low, high });
    }
    if !clock.resolves(plan.sample) {
        doubts.push(Doubt::CoarseClock { source: clock.source.clone(), step: clock.step });
    }
    let sum = |of: fn(&Price) -> usize| prices.iter().map(of).sum::<usize>() as f64;
    let dropped = sum(|price| price.dropped) / sum(|price| price.blocks).max(1.0);
    if dropped > MAY_LOSE {
        doubts.push(Doubt::Preempted(dropped));
    }
    let visits = run.measured.iter().flat_map(|measured| measured.visits.iter().map(move |visit| (visit, measured)));
    let shared = visits.clone().filter(|(visit, measured)| !measured.is_alone(visit)).count();
    let shared = shared as f64 / visits.count().max(1) as f64;
    if shared > MAY_LOSE {
        doubts.push(Doubt::SharedCore(shared));
    }
    if machine.cpus == 1 {
        doubts.push(Doubt::OneCpu);
    }
    let share = stolen.unwrap_or(0) as f64 / 100.0 / run.time.as_secs_f64().max(0.01);
    if share > MAY_LOSE {
        doubts.push(Doubt::Stolen(share.min(1.0)));
    }
    if let Some(below) = machine.place.strip_prefix("guest of ") {
        doubts.push(Doubt::Guest(below.to_owned()));
    }
    if is_hybrid() {
        doubts.push(Doubt::Hybrid { cpu });
    }
    let wide = prices.iter().filter(|price| price.ratio.spread() > plan.narrow || !price.ratio.is_certain());
    let wide: Vec<&'static str> = wide.map(|price| price.work).collect();
    if !wide.is_empty() {
        doubts.push(Doubt::Wide(wide));
    }
    if cfg!(debug_assertions) {
        doubts.push(Doubt::Unoptimised);
    }
    doubts
}

/// CPUID.7.0:EDX\[15\]: core types are mixed in this chip.
fn is_hybrid() -> bool {
    Flags::here().has("hybrid_cpu")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_the_calendars() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_795_392_000), "2026-11-23");
    }

    #[test]
    fn a_short_run_prices_and_names_what_it_left_out() {
        let features: Vec<&'static str> = works().iter().map(|work| work.feature).collect();
        let report = survey(&features, Duration::from_millis(300), &mut |_| true);
        for work in works() {
            let priced = report.prices.iter().any(|price| price.work == work.id);
            let named = report.unpriced.iter().any(|left| left.work == Some(work.id));
            assert!(priced != named, "{}", work.id);
        }
        assert!(report.prices.is_sorted_by(|a, b| a.ratio.median >= b.ratio.median));
    }

    #[test]
    fn who_took_a_flag_is_told_by_the_generation() {
        use cpusieve_model::{CpuidTable, Registers};
        // A Zen 4 whose AVX-512 and VNNI bits are gone, and which never had AVX-VNNI.
        let mut cpuid = CpuidTable::default();
        cpuid.insert(0, 0, Registers { eax: 7, ebx: 0x6874_7541, edx: 0x6974_6e65, ecx: 0x444d_4163 });
        cpuid.insert(1, 0, Registers { eax: 0x00a1_0f11, ..Registers::default() });
        cpuid.insert(7, 0, Registers::default());
        let flags = Flags::of(cpuid, Some(0xe7));
        assert_eq!(fate("avx512f", &flags), Fate::Sieve);
        assert_eq!(fate("avx_vnni", &flags), Fate::Silicon);
        assert_eq!(fate("no-such-flag", &flags), Fate::Unknown);
    }
}
