//! `cargo xtask lab fuzz-qemu`: random command lines put to real QEMUs and to the stage, and every difference made as
//! small as it can be.

mod ask;
mod case;
mod rom;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use cpusieve_formats::record;
use cpusieve_knowledge::qemu::{self, RELEASES};

use ask::{Host, Pair};
pub(super) use case::Numbers;
use case::{Case, Dice};

use super::qemu::Qemu;
use crate::Outcome;

const USAGE: &str = "\
cargo xtask lab fuzz-qemu [--seed N] [--count N] [--qemu PROGRAM]... [--host RECORD --through PROGRAM]
                          [--machine M --cpu S [--smp S]]";

/// Cases at a time, at most.
const AT_A_TIME: usize = 4;

/// Cases for each QEMU, if nobody says how many: some three minutes on two cores.
const COUNT: usize = 1000;

#[derive(Debug, PartialEq, Eq)]
struct Options {
    seed: u64,
    count: usize,
    programs: Vec<PathBuf>,
    host: Option<PathBuf>,
    through: Option<PathBuf>,
    /// One case in place of random ones.
    cpu: Option<String>,
    machine: String,
    smp: String,
}

impl Options {
    fn read(arguments: &[String]) -> Option<Self> {
        let mut options = Self {
            seed: 1,
            count: COUNT,
            programs: Vec::new(),
            host: None,
            through: None,
            cpu: None,
            machine: "q35".to_owned(),
            smp: "1".to_owned(),
        };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let value = rest.next()?;
            match argument.as_str() {
                "--seed" => options.seed = value.parse().ok()?,
                "--count" => options.count = value.parse().ok()?,
                "--qemu" => options.programs.push(value.into()),
                "--host" => options.host = Some(value.into()),
                "--through" => options.through = Some(value.into()),
                "--cpu" => options.cpu = Some(value.clone()),
                "--machine" => options.machine.clone_from(value),
                "--smp" => options.smp.clone_from(value),
                _ => return None,
            }
        }
        (options.host.is_some() == options.through.is_some()).then_some(options)
    }

    fn qemus(&self) -> Result<Vec<Qemu>, Box<dyn Error>> {
        if self.programs.is_empty() {
            return Ok(vec![Qemu::installed()?]);
        }
        self.programs.iter().map(|program| Qemu::named(program)).collect()
    }

    fn host(&self) -> Result<Option<Host>, Box<dyn Error>> {
        let (Some(path), Some(through)) = (&self.host, &self.through) else { return Ok(None) };
        let snapshot = record::parse(&path.display().to_string(), &fs::read(path)?).snapshot;
        let kvm = snapshot.kvm.ok_or("the record has no KVM")?;
        let cpuid = snapshot.cpus.into_iter().next().ok_or("the record has no CPU")?.cpuid;
        Ok(Some(Host { record: path.clone(), through: through.clone(), cpuid, kvm }))
    }

    /// The case that was asked for by name.
    fn one(&self, release: usize) -> Result<Option<Case>, Box<dyn Error>> {
        let Some(cpu) = &self.cpu else { return Ok(None) };
        let machine = qemu::machine(release, &self.machine)?;
        let mut parts = cpu.split(',').map(str::to_owned);
        let model = parts.next().unwrap_or_default();
        Ok(Some(Case { machine, irqchip: None, smp: self.smp.clone(), model, parts: parts.collect(), cpu_pm: false }))
    }
}

pub(super) fn run(arguments: &[String]) -> Outcome {
    let Some(options) = Options::read(arguments) else {
        eprintln!("{USAGE}");
        return Ok(ExitCode::from(2));
    };
    let scratch = super::cache()?.join(format!("fuzz-{}", std::process::id()));
    fs::create_dir_all(&scratch)?;
    let done = all(&options, &scratch);
    fs::remove_dir_all(&scratch)?;
    done
}

fn all(options: &Options, scratch: &Path) -> Outcome {
    let mut same = true;
    for qemu in options.qemus()? {
        let release = ask::release(&qemu.version)?;
        let pair = Pair { qemu, release, host: options.host()? };
        let cases = match options.one(release)? {
            Some(case) => vec![case],
            None => {
                let mut dice = Dice::new(release, options.seed, pair.host.is_some());
                (0..options.count).filter_map(|_| dice.draw()).collect()
            }
        };
        same &= one_release(&pair, &cases, scratch)?;
    }
    Ok(if same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Puts the cases to one QEMU; whether all agree. Differences that look alike are shown once.
fn one_release(pair: &Pair, cases: &[Case], scratch: &Path) -> Result<bool, Box<dyn Error>> {
    let workers = thread::available_parallelism().map_or(1, usize::from).min(AT_A_TIME).min(cases.len());
    let (next, differ) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let shown: Mutex<BTreeMap<String, usize>> = Mutex::default();
    let work = |worker: usize| -> Result<(), String> {
        let scratch = scratch.join(format!("{worker}"));
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let ask = |case: &Case| pair.differences(case, &scratch).map_err(|error| error.to_string());
            if ask(case)?.is_empty() {
                continue;
            }
            differ.fetch_add(1, Ordering::Relaxed);
            let case = smallest(case.clone(), &|case| Ok(!ask(case)?.is_empty()))?;
            let differences = ask(&case)?;
            let kind = kind(&differences);
            let mut shown = shown.lock().map_err(|error| error.to_string())?;
            let times = shown.entry(kind).or_default();
            *times += 1;
            if *times <= 2 {
                println!("{} {case}", RELEASES.get(pair.release).map_or("", |release| release.label));
                differences.iter().for_each(|line| println!("    {line}"));
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|worker| scope.spawn(move || work(worker))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| Err("a worker panicked".to_owned())))
    })?;
    let differ = differ.into_inner();
    println!("QEMU {}: {} cases, {} agree, {differ} differ", pair.qemu.version, cases.len(), cases.len() - differ);
    Ok(differ == 0)
}

/// The smallest case that still differs: parts are taken away as long as one can be spared.
fn smallest(case: Case, differs: &dyn Fn(&Case) -> Result<bool, String>) -> Result<Case, String> {
    for simpler in case.simpler() {
        if differs(&simpler)? {
            return smallest(simpler, differs);
        }
    }
    Ok(case)
}

/// What differences of one cause have in common: their text without digits and quoted names.
fn kind(differences: &[String]) -> String {
    let first = differences.first().map_or("", String::as_str);
    let plain = |text: &str| text.chars().filter(|character| !character.is_ascii_digit()).take(60).collect::<String>();
    match first.strip_prefix("QEMU shows: ") {
        // The leaf tells more than its registers.
        Some(row) => row.split('/').next().unwrap_or_default().to_owned(),
        None => plain(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_taken_or_refused() {
        let read = |text: &str| Options::read(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        let options = read("--seed 7 --count 20 --qemu a --qemu b").unwrap();
        assert_eq!((options.seed, options.count, options.programs.len()), (7, 20, 2));
        assert!(read("--seed").is_none() && read("--seed x").is_none() && read("--host r").is_none());
        assert!(read("").is_some());
    }

    #[test]
    fn what_does_not_matter_is_taken_away() {
        let machine = qemu::machine(0, "q35").unwrap();
        let parts = ["+avx", "level=4", "-sse"].map(str::to_owned).to_vec();
        let case = Case { machine, irqchip: None, smp: "4".to_owned(), model: "max".to_owned(), parts, cpu_pm: true };
        let small = smallest(case, &|case| Ok(case.parts.iter().any(|part| part == "level=4"))).unwrap();
        assert_eq!((small.cpu().as_str(), small.smp.as_str(), small.cpu_pm), ("max,level=4", "1", false));
    }
}
