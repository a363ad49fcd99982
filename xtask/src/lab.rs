//! `cargo xtask lab`: real kernels under an emulated CPU, predicted and compared word for word.
//!
//! The laboratory proves the Linux stage against kernels that boot now, with CPUs that nobody captured before. It takes
//! QEMU from this machine and kernels from the distribution; where one of them is missing it says so and proves nothing.

mod archive;
mod bounded;
mod capture;
mod fuzz_qemu;
mod guest;
mod libvirt;
mod matrix;
mod modules;
mod nested;
mod qemu;
mod random;

use std::error::Error;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use archive::{Archive, Kernel};
use capture::Comparison;
use guest::{Boot, Start};
use qemu::Qemu;

use crate::{Outcome, cargo};

/// Boots at a time, at most; fewer on a machine with fewer CPUs.
const AT_A_TIME: usize = 4;

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    /// Three boots, and no failure where the laboratory cannot work.
    quick: bool,
    /// Series or releases; each then boots every row.
    kernels: Vec<String>,
    /// `-cpu` strings in place of the matrix.
    cpus: Vec<String>,
    /// The command line's addition for `cpus`.
    append: String,
    /// Random machines in place of the matrix: how many, and from which seed.
    random: usize,
    seed: u64,
    /// Where captures are kept.
    keep: Option<PathBuf>,
}

impl Options {
    fn read(arguments: &[String]) -> Option<Self> {
        let mut options = Self::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "--quick" => options.quick = true,
                "--kernel" => options.kernels.push(rest.next()?.clone()),
                "--cpu" => options.cpus.push(rest.next()?.clone()),
                "--append" => options.append.clone_from(rest.next()?),
                "--random" => options.random = rest.next()?.parse().ok()?,
                "--seed" => options.seed = rest.next()?.parse().ok()?,
                "--keep" => options.keep = Some(rest.next()?.into()),
                _ => return None,
            }
        }
        Some(options)
    }

    /// `-cpu` and the command line's addition, for each machine that is to boot.
    fn rows<'a>(&'a self, random: &'a [(String, String)]) -> Vec<(&'a str, &'a str)> {
        if self.random > 0 {
            return random.iter().map(|(cpu, append)| (cpu.as_str(), append.as_str())).collect();
        }
        match (self.cpus.is_empty(), self.quick) {
            (false, _) => self.cpus.iter().map(|cpu| (cpu.as_str(), self.append.as_str())).collect(),
            (true, true) => matrix::QUICK.to_vec(),
            (true, false) => matrix::ROWS.to_vec(),
        }
    }
}

pub(crate) fn run(arguments: &[String]) -> Outcome {
    match arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        Some(("nested", rest)) => return nested::run(rest),
        Some(("fuzz-qemu", rest)) => return fuzz_qemu::run(rest),
        _ => {}
    }
    if let Some(("libvirt", rest)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return libvirt::run(rest);
    }
    let Some(options) = Options::read(arguments) else {
        eprintln!(
            "cargo xtask lab [--quick] [--kernel SERIES|RELEASE]... [--cpu S]... [--append CMDLINE] [--random N [--seed N]] \
             [--keep DIR]"
        );
        return Ok(ExitCode::from(2));
    };
    match Lab::set_up(&options) {
        Ok(lab) => {
            let done = lab.run(&options);
            fs::remove_dir_all(&lab.scratch)?;
            done
        }
        Err(error) if options.quick => {
            println!("lab: skipped: {error}");
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("lab: {error}");
            Ok(ExitCode::from(2))
        }
    }
}

/// What boots need: QEMU, kernels, and an initial file system for each of them.
struct Lab {
    qemu: Qemu,
    kernels: Vec<(Kernel, PathBuf)>,
    /// A folder of this run's own.
    scratch: PathBuf,
}

/// One boot of the plan: a kernel's place, `-cpu`, the command line's addition.
type Plan<'a> = (usize, &'a str, &'a str);

impl Lab {
    fn set_up(options: &Options) -> Result<Self, Box<dyn Error>> {
        let qemu = Qemu::installed()?;
        let cache = cache()?;
        let kernels = kernels(&cache, options)?;
        let init = init()?;
        let scratch = cache.join(format!("run-{}", std::process::id()));
        fs::create_dir_all(&scratch)?;
        let with_initramfs = |kernel: Kernel| -> Result<_, Box<dyn Error>> {
            let path = scratch.join(format!("{}.cpio", kernel.release));
            fs::write(&path, cpusieve_probe::guest::build(&init, kernel.msr.as_deref()))?;
            Ok((kernel, path))
        };
        let kernels = kernels.into_iter().map(with_initramfs).collect::<Result<_, _>>()?;
        Ok(Self { qemu, kernels, scratch })
    }

    fn run(&self, options: &Options) -> Outcome {
        let release = cpusieve_knowledge::qemu::nearest(&self.qemu.version).release;
        let random = random::rows(release, options.seed, options.random);
        let rows = options.rows(&random);
        let each = !options.kernels.is_empty() && options.random == 0;
        let plan: Vec<Plan<'_>> = if each {
            let kernels = 0..self.kernels.len();
            kernels.flat_map(|kernel| rows.iter().map(move |(cpu, append)| (kernel, *cpu, *append))).collect()
        } else {
            let dealt = rows.iter().enumerate();
            dealt.map(|(place, (cpu, append))| (place % self.kernels.len(), *cpu, *append)).collect()
        };
        if let Some(folder) = &options.keep {
            self.kernels.iter().try_for_each(|(kernel, _)| keep_config(folder, kernel))?;
        }
        println!("{} boots under QEMU {} (TCG)", plan.len(), self.qemu.version);
        let tally = self.boot_all(&plan, options.keep.as_deref())?;
        println!(
            "{} boots: {} agree, {} differ, {} did not report",
            plan.len(),
            tally.agree,
            tally.differ,
            tally.silent
        );
        let late = if options.quick { tally.late } else { 0 };
        Ok(if tally.agree + late == plan.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Boots the whole plan and prints a line for each boot as it ends.
    fn boot_all(&self, plan: &[Plan<'_>], keep: Option<&Path>) -> Result<Tally, Box<dyn Error>> {
        let workers = thread::available_parallelism().map_or(1, usize::from).min(AT_A_TIME).min(plan.len());
        let next = AtomicUsize::new(0);
        let (sender, ended) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..workers {
                let (sender, next) = (sender.clone(), &next);
                scope.spawn(move || {
                    while let Some(planned) = plan.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let done = self.one(planned, keep).map_err(|error| error.to_string());
                        if sender.send((*planned, done)).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(sender);
            let mut tally = Tally::default();
            for ((kernel, cpu, append), done) in ended {
                let release = self.kernels.get(kernel).map_or("", |(kernel, _)| &kernel.release);
                tally.row(release, &format!("-cpu {cpu} {append}"), done?);
            }
            Ok(tally)
        })
    }

    /// One boot of the plan, and the comparison if it told what it saw.
    fn one(&self, plan: &Plan<'_>, keep: Option<&Path>) -> Result<(Boot, Option<Comparison>), Box<dyn Error>> {
        let (place, cpu, append) = *plan;
        let (kernel, initramfs) = self.kernels.get(place).ok_or("no such kernel")?;
        let id = name(&self.qemu.version, &kernel.release, cpu, append);
        let scratch = self.scratch.join(id.replace('.', "_"));
        let start = Start { accel: "tcg", cpus: 1, memory: 512, image: &kernel.image, initramfs, cpu, append, scratch };
        let boot = guest::boot(&self.qemu, &start, guest::LIMIT)?;
        let capture = serde_json::to_vec_pretty(&capture::json(&id, &self.qemu.version, &kernel.release, cpu, &boot))?;
        if let Some(folder) = keep {
            keep_capture(folder, &id, &capture)?;
        }
        let comparison = if boot.whole { Some(capture::compare(&id, &capture, &kernel.config)?) } else { None };
        Ok((boot, comparison))
    }
}

/// Keeps a capture as it is in a corpus.
fn keep_capture(folder: &Path, id: &str, capture: &[u8]) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder)?;
    let file = File::create(folder.join(format!("{id}.json.gz")))?;
    let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::best());
    packed.write_all(capture)?;
    packed.finish()?;
    Ok(())
}

/// Keeps what a kernel was built with, beside the captures.
fn keep_config(folder: &Path, kernel: &Kernel) -> Result<(), Box<dyn Error>> {
    let configs = folder.join("configs");
    fs::create_dir_all(&configs)?;
    Ok(fs::write(configs.join(format!("{}.config", kernel.release)), config_of(kernel))?)
}

/// What a kernel was built with, as a file of options.
fn config_of(kernel: &Kernel) -> String {
    let lines = kernel.config.iter().map(|(option, value)| format!("{option}={value}\n"));
    "# The options of this kernel on which CPU features hang.\n".to_owned() + &lines.collect::<String>()
}

/// How many boots ended in which way.
#[derive(Default)]
struct Tally {
    agree: usize,
    differ: usize,
    silent: usize,
    /// Those of the silent ones that ran out of time.
    late: usize,
}

impl Tally {
    fn row(&mut self, release: &str, machine: &str, (boot, comparison): (Boot, Option<Comparison>)) {
        let seconds = boot.took.as_secs_f64();
        let Some(Comparison { tree, flags, differences }) = comparison else {
            self.silent += 1;
            self.late += usize::from(boot.status == guest::LATE);
            let why = boot.console_tail.iter().find(|line| cpusieve_probe::guest::panic(line).is_some());
            let last = why.or(boot.console_tail.last()).or(boot.warnings.last()).map_or("", String::as_str);
            println!("no report  {release:<28} {seconds:>4.1} s  {machine}\n           {}: {last}", boot.status);
            return;
        };
        let same = differences.is_empty();
        *(if same { &mut self.agree } else { &mut self.differ }) += 1;
        let verdict = if same { "same" } else { "DIFFERENT" };
        println!("{verdict:<10} {release:<28} {seconds:>4.1} s  {machine}  ({flags} flags, tree {tree})");
        differences.iter().for_each(|line| println!("           {line}"));
    }
}

/// `$CPUSIEVE_LAB`, or `~/.cache/cpusieve-lab`.
fn cache() -> Result<PathBuf, Box<dyn Error>> {
    let named = std::env::var_os("CPUSIEVE_LAB").map(PathBuf::from);
    let usual = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/cpusieve-lab"));
    let folder = named.or_else(usual).ok_or("neither CPUSIEVE_LAB nor HOME says where kernels can be kept")?;
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(folder.canonicalize()?)
}

/// The kernels that were asked for. `--quick` takes one, which is not downloaded if one is here.
fn kernels(cache: &Path, options: &Options) -> Result<Vec<Kernel>, Box<dyn Error>> {
    let mut archive = Archive::new(cache);
    if options.quick && options.kernels.is_empty() {
        return match archive.any_local() {
            Some(kernel) => Ok(vec![kernel]),
            None => Ok(vec![archive.kernel("6.1")?]),
        };
    }
    let usual: Vec<String> = matrix::KERNELS.map(str::to_owned).into();
    let wanted = if options.kernels.is_empty() { &usual } else { &options.kernels };
    wanted.iter().map(|wanted| archive.kernel(wanted)).collect()
}

/// The program that is `/init` in the guests.
fn init() -> Result<Vec<u8>, Box<dyn Error>> {
    built("xtask", "lab-init")
}

/// A program of this workspace: built beside this one, static as everything here is, and without its symbols, of which it
/// has more than of everything else.
fn built(package: &str, program: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    if !cargo().args(["build", "--quiet", "--package", package, "--bin", program]).status()?.success() {
        return Err(format!("{program} could not be built").into());
    }
    let path = std::env::current_exe()?.with_file_name(program);
    let short = path.with_extension(format!("stripped-{}", std::process::id()));
    let stripped = Command::new("strip").arg("-o").arg(&short).arg(&path).status().is_ok_and(|status| status.success());
    let read = fs::read(if stripped { &short } else { &path });
    // A machine without `strip` has not written it.
    let _gone = fs::remove_file(&short);
    Ok(read.map_err(|error| format!("{}: {error}", path.display()))?)
}

/// What a boot is called: the two numbers of QEMU and of the kernel, and what was asked for, fit for a file.
fn name(qemu: &str, release: &str, cpu: &str, append: &str) -> String {
    let series = |version: &str| version.split(['.', '-']).take(2).collect::<Vec<_>>().join(".");
    let end = if append.is_empty() { String::new() } else { format!("-c_{append}") };
    let name = format!("q{}-k{}-{cpu}{end}", series(qemu), series(release));
    let plain = |character: char| character.is_ascii_alphanumeric() || "+-=.".contains(character);
    name.chars().map(|character| if plain(character) { character } else { '_' }).take(160).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_taken_or_refused() {
        let read = |text: &str| Options::read(&text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let options = read("--quick --kernel 6.1 --kernel 7.3 --cpu max,-avx --append nopcid --keep out").unwrap();
        assert_eq!(options.kernels, ["6.1", "7.3"]);
        assert_eq!(options.rows(&[]), [("max,-avx", "nopcid")]);
        assert!(read("--kernel").is_none() && read("6.1").is_none());
        assert_eq!(read("--quick").unwrap().rows(&[]).len(), 3);
    }

    #[test]
    fn every_boot_of_the_matrix_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = matrix::ROWS
            .iter()
            .map(|(cpu, append)| name("7.2.22 (Debian)", "6.1.0-56-cloud-amd64", cpu, append))
            .collect();
        assert_eq!(names.len(), matrix::ROWS.len());
        assert!(names.contains("q7.2-k6.1-Haswell-c_clearcpuid=156"));
    }
}
