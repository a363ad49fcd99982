//! `cargo xtask lab nested`: a real KVM and a real QEMU inside an emulated host, asked, and compared with predictions.
//!
//! QEMU's emulator has AMD's SVM with nested paging, so a kernel that it boots can load `kvm-amd`. The initial file system
//! of that host holds the modules, a QEMU with its libraries, the kernel again for the guests, and their initial file
//! system; `/init` is the same program in both.

mod capture;
mod compare;
mod known;
mod matrix;
mod proofs;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use cpusieve_formats::lab;
use cpusieve_probe::guest as guests;
use serde_json::json;

use super::archive::{Archive, Kernel};
use super::guest::{self, Boot, Start};
use super::modules::Module;
use super::qemu::{Packed, Qemu};
use super::{built, cache, config_of, init, keep_capture, keep_config, name};
use crate::Outcome;

use compare::Verdict;
use matrix::Job;

/// The longest that the host may take, apart from its guests. It takes 4 to 20 s on a core of its own.
const HOST_LIMIT: Duration = Duration::from_secs(120);

/// The longest that a guest may take. One takes 6 to 20 s on a core of its own.
const GUEST_LIMIT: Duration = Duration::from_secs(180);

/// The longest that the proofs of the program itself may take, apart from guests. They take 60 to 120 s on a core of their
/// own.
const PROOFS_LIMIT: Duration = Duration::from_secs(1200);

/// MiB: its file system of 110 MiB is in memory, and unpacked beside the archive; a guest of `verify` has 512.
const HOST_MEMORY: u32 = 2048;

const GUEST_MEMORY: u32 = 256;

/// Where a host has what its guests boot.
const GUEST_KERNEL: &str = "/guest/vmlinuz";
const GUEST_INITRAMFS: &str = "/guest/initramfs";

/// Where a host has the program that is proved.
const PROGRAM: &str = "/usr/bin/cpusieve";

/// vCPUs of the guest that is watched.
const WATCHED_CPUS: u32 = 2;

/// The first major version whose emulator is known to let a hypervisor see XSETBV, in `target/i386/tcg/translate.c`. 7.2
/// does not (8 and 9 were not looked at): KVM then knows nothing of its guest's XCR0, leaf 0DH keeps the sizes of another
/// one, and the guest's kernel does without XSAVE.
const FAITHFUL: u32 = 10;

/// From where such a QEMU is fetched if the machine's own is older.
const SUITE: &str = "trixie";

const USAGE: &str = "\
cargo xtask lab nested [--quick] [--kernel SERIES|RELEASE]... [--cpu S] [--append CMDLINE] [--options S]
                       [--guest CPU]... [--proofs] [--keep DIR]";

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    quick: bool,
    kernels: Vec<String>,
    cpu: Option<String>,
    append: String,
    parameters: String,
    guests: Vec<String>,
    proofs: bool,
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
                "--cpu" => options.cpu = Some(rest.next()?.clone()),
                "--append" => options.append.clone_from(rest.next()?),
                "--options" => options.parameters.clone_from(rest.next()?),
                "--guest" => options.guests.push(rest.next()?.clone()),
                "--proofs" => options.proofs = true,
                "--keep" => options.keep = Some(rest.next()?.into()),
                _ => return None,
            }
        }
        Some(options)
    }

    /// The jobs: those of the matrix on the kernels that are named, or the one that is described, on each of them.
    fn jobs(&self) -> Vec<Job<'_>> {
        let plain = self.guests.is_empty() && self.append.is_empty() && self.parameters.is_empty() && !self.proofs;
        let described = self.cpu.is_some() || !plain;
        let jobs = if self.quick { matrix::quick() } else { matrix::all() };
        let kernels: Vec<&str> = self.kernels.iter().map(String::as_str).collect();
        if !described {
            let wanted = |job: &Job<'_>| kernels.is_empty() || kernels.contains(&job.kernel);
            return jobs.into_iter().filter(wanted).collect();
        }
        let kernels = if kernels.is_empty() { vec!["6.1"] } else { kernels };
        let guests: Vec<&str> = self.guests.iter().map(String::as_str).collect();
        let cpu = self.cpu.as_deref().unwrap_or(matrix::CPU);
        let (append, options) = (self.append.as_str(), self.parameters.as_str());
        let (parts, kills) = if self.proofs { (matrix::PARTS, matrix::KILLS) } else { (&[][..], 0) };
        let proofs = self.proofs;
        let job = |kernel| Job { kernel, cpu, append, options, guests: guests.clone(), proofs, parts, kills };
        kernels.into_iter().map(job).collect()
    }
}

pub(super) fn run(arguments: &[String]) -> Outcome {
    let Some(options) = Options::read(arguments) else {
        eprintln!("{USAGE}");
        return Ok(ExitCode::from(2));
    };
    let jobs = options.jobs();
    if jobs.is_empty() {
        eprintln!("lab: no job of the matrix is for these kernels; describe one with --cpu, --options or --guest");
        return Ok(ExitCode::from(2));
    }
    match Lab::set_up(&jobs, options.quick) {
        Ok(mut lab) => {
            let done = lab.all(&jobs, options.keep.as_deref(), options.quick);
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

/// How a job ended.
enum End {
    /// Everything was told, and is as predicted.
    Agrees,
    /// What was told is as predicted; the rest would have taken too long.
    Late,
    /// Something is otherwise, or was not told.
    Differs,
}

/// What every job needs.
struct Lab {
    /// What emulates the hosts.
    outer: Qemu,
    /// What runs the guests: its version, and what is put into the hosts.
    inner: (String, Packed),
    init: Vec<u8>,
    /// The program that is proved, if a job does that.
    program: Option<Vec<u8>>,
    archive: Archive,
    /// A folder of this run's own.
    scratch: PathBuf,
}

impl Lab {
    /// With what can be had on this machine and from the archive; if all of it must be there, the kernels too.
    fn set_up(jobs: &[Job<'_>], all: bool) -> Result<Self, Box<dyn Error>> {
        let cache = cache()?;
        let mut archive = Archive::new(&cache);
        let installed = Qemu::installed()?;
        let inner = (installed.version.clone(), installed.pack()?);
        let outer = if installed.major() < FAITHFUL { archive.qemu(SUITE)? } else { installed };
        for job in jobs.iter().filter(|_| all) {
            let release = archive.kernel(job.kernel)?.release;
            archive.kvm(&release)?;
        }
        let init = init()?;
        let proofs = jobs.iter().any(|job| job.proofs);
        let program = if proofs { Some(built("cpusieve", "cpusieve")?) } else { None };
        let scratch = cache.join(format!("nested-{}", std::process::id()));
        fs::create_dir_all(&scratch)?;
        Ok(Self { outer, inner, init, program, archive, scratch })
    }

    /// Does one job after the other: each of them has a core busy for minutes.
    fn all(&mut self, jobs: &[Job<'_>], keep: Option<&Path>, quick: bool) -> Outcome {
        let (outer, inner) = (&self.outer.version, &self.inner.0);
        println!("{} hosts with KVM, emulated by QEMU {outer}; guests by QEMU {inner}", jobs.len());
        let (mut exact, mut late) = (0, 0);
        for job in jobs {
            match self.one(job, keep) {
                Ok(End::Agrees) => exact += 1,
                Ok(End::Late) => late += 1,
                Ok(End::Differs) => {}
                Err(error) => println!("no report  {} -cpu {}: {error}", job.kernel, job.cpu),
            }
        }
        println!("{} hosts: {exact} agree with everything in them, {late} ran out of time", jobs.len());
        let excused = if quick { late } else { 0 };
        Ok(if exact + excused == jobs.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// One job, from boot to comparison.
    fn one(&mut self, job: &Job<'_>, keep: Option<&Path>) -> Result<End, Box<dyn Error>> {
        let kernel = self.archive.kernel(job.kernel)?;
        let modules = self.archive.kvm(&kernel.release)?;
        let id = job_name(&self.inner.0, &kernel.release, job);
        let (boot, inner_cmdline) = self.boot(job, &kernel, &modules)?;
        let started = capture::Started {
            id: &id,
            outer: &self.outer.version,
            inner: &self.inner.0,
            release: &kernel.release,
            inner_cmdline: &inner_cmdline,
        };
        let (told, missing) = capture::json(&started, job, &boot);
        let text = serde_json::to_vec_pretty(&told)?;
        if let Some(folder) = keep {
            keep_capture(folder, &id, &text)?;
            keep_config(folder, &kernel)?;
        }
        let seconds = boot.took.as_secs_f64();
        println!("{id}: {} after {seconds:.0} s", boot.status);
        let problems = boot.sections.get("problems").map(String::as_str).unwrap_or_default();
        problems.lines().for_each(|line| println!("  not loaded: {line}"));
        missing.iter().for_each(|part| println!("  {} not seen: {}", part.what, part.why));
        if !boot.whole {
            boot.warnings.iter().chain(&boot.console_tail).for_each(|line| println!("  | {line}"));
        }
        let capture = lab::capture(&id, &text);
        let mut verdicts = compare::compare(&capture, &kernel.config);
        if job.proofs {
            verdicts.extend(proofs::proofs(&boot.sections, &compare::predicted_calls(&capture, &kernel.config), job));
        }
        verdicts.iter().for_each(|verdict| print(&id, verdict));
        verdicts.retain(|verdict| known::why(&id, &verdict.what, &verdict.differences).is_none());
        let any = |is: fn(&Verdict) -> bool| verdicts.iter().any(is);
        Ok(if any(|verdict| verdict.compared && !verdict.differences.is_empty()) {
            End::Differs
        } else if boot.status == guest::LATE || any(|verdict| verdict.late) {
            End::Late
        } else if boot.whole && !any(|verdict| !verdict.compared) {
            End::Agrees
        } else {
            End::Differs
        })
    }

    /// Boots the host and waits until it has told everything; the guests' command line too.
    fn boot(&self, job: &Job<'_>, kernel: &Kernel, modules: &[Module]) -> Result<(Boot, String), Box<dyn Error>> {
        let cpus = |number| if job.watches(number) { WATCHED_CPUS } else { 1 };
        let guests = (0..).zip(&job.guests).map(|(number, cpu)| guest_of(number, cpu, cpus(number)));
        let guests: Vec<Start<'_>> = guests.collect();
        let initramfs = self.scratch.join("host.cpio");
        fs::write(&initramfs, self.file_system(job, kernel, modules, &guests)?)?;
        let host = Start {
            accel: "tcg",
            cpus: 1,
            memory: HOST_MEMORY,
            image: &kernel.image,
            initramfs: &initramfs,
            cpu: job.cpu,
            append: job.append,
            scratch: self.scratch.join("host"),
        };
        // What an earlier host wrote must not be taken for this one's.
        for file in [host.console(), host.report()] {
            fs::write(file, "")?;
        }
        let proofs = if job.proofs { PROOFS_LIMIT } else { Duration::ZERO };
        let limit = HOST_LIMIT + proofs + GUEST_LIMIT * u32::try_from(guests.len())?;
        Ok((guest::boot(&self.outer, &host, limit)?, guests.first().map(Start::cmdline).unwrap_or_default()))
    }

    /// The host's initial file system: QEMU, the modules, what the guests boot, and the plan.
    fn file_system(
        &self,
        job: &Job<'_>,
        kernel: &Kernel,
        modules: &[Module],
        guests: &[Start<'_>],
    ) -> Result<Vec<u8>, Box<dyn Error>> {
        let Packed { program: qemu, files: packed } = &self.inner.1;
        let mut files = guests::Archive::new(&self.init);
        packed.iter().for_each(|(path, data)| files.file(path, data));
        files.file(GUEST_KERNEL, &fs::read(&kernel.image)?);
        files.file(GUEST_INITRAMFS, &guests::build(&self.init, kernel.msr.as_deref()));
        if let Some(msr) = &kernel.msr {
            files.file("/msr.ko", msr);
        }
        let program = self.program.as_ref().filter(|_| job.proofs);
        if let Some(program) = program {
            files.file(PROGRAM, program);
            files.file(&format!("/boot/config-{}", kernel.release), config_of(kernel).as_bytes());
            if let Some(msr) = &kernel.msr {
                files.file("/guest/msr.ko", msr);
            }
        }
        let mut loaded = Vec::new();
        for Module { name, object } in modules {
            let file = format!("/modules/{name}.ko");
            files.file(&file, object);
            loaded.push(json!({"file": file, "options": options_of(name, job.options)}));
        }
        let started = guests.iter().enumerate().map(|(number, guest)| {
            let (console, report, seconds) = (guest.console(), guest.report(), GUEST_LIMIT.as_secs());
            json!({
                "arguments": guest.arguments(), "console": console, "report": report, "seconds": seconds,
                "watched": job.watches(number),
            })
        });
        let plan = json!({
            "modules": loaded, "qemu": qemu, "guests": started.collect::<Vec<_>>(), "program": program.map(|_| PROGRAM),
            "kernel": GUEST_KERNEL, "parts": job.parts, "kills": job.kills,
        });
        files.file("/plan.json", plan.to_string().as_bytes());
        Ok(files.finish())
    }
}

/// How a host starts one of its guests.
fn guest_of(number: usize, cpu: &str, cpus: u32) -> Start<'_> {
    Start {
        accel: "kvm",
        cpus,
        memory: GUEST_MEMORY,
        image: Path::new(GUEST_KERNEL),
        initramfs: Path::new(GUEST_INITRAMFS),
        cpu,
        append: "",
        scratch: format!("/run/{number}").into(),
    }
}

fn print(id: &str, verdict: &Verdict) {
    let known = known::why(id, &verdict.what, &verdict.differences);
    let word = match (verdict.compared, verdict.differences.is_empty()) {
        (false, _) => "no report",
        (true, true) => "same",
        (true, false) if known.is_some() => "known",
        (true, false) => "DIFFERENT",
    };
    println!("  {word:<10} {}: {}", verdict.what, known.unwrap_or(&verdict.said));
    verdict.differences.iter().for_each(|line| println!("             {line}"));
}

/// The parameters that are this module's: those of `kvm` have its name in front, all others are `kvm_amd`'s.
fn options_of(module: &str, options: &str) -> String {
    let words = options.split_ascii_whitespace();
    let own = words.filter_map(|word| match (module, word.strip_prefix("kvm.")) {
        ("kvm", Some(own)) => Some(own),
        ("kvm-amd", None) => Some(word),
        _ => None,
    });
    own.collect::<Vec<_>>().join(" ")
}

/// What a job is called: the parameters stand behind the CPU.
fn job_name(qemu: &str, release: &str, job: &Job<'_>) -> String {
    name(qemu, release, format!("{} {}", job.cpu, job.options).trim_end(), job.append)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Options> {
        Options::read(&text.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn jobs_are_those_of_the_matrix_or_the_one_described() {
        assert_eq!(read("--quick").unwrap().jobs(), matrix::quick());
        assert_eq!(read("").unwrap().jobs(), matrix::all());
        assert!(read("--kernel 6.12").unwrap().jobs().iter().all(|job| job.kernel == "6.12"));
        assert!(read("--kernel 4.4").unwrap().jobs().is_empty());
        let options = read("--kernel 6.12 --kernel 7.3 --options npt=0 --guest host --guest max,-avx").unwrap();
        let jobs = options.jobs();
        assert_eq!(jobs.len(), 2);
        assert_eq!((jobs[1].kernel, jobs[1].cpu, jobs[1].options), ("7.3", matrix::CPU, "npt=0"));
        assert_eq!(jobs[0].guests, ["host", "max,-avx"]);
        assert!(read("--guest").is_none() && read("6.1").is_none());
    }

    #[test]
    fn every_job_of_the_matrix_has_a_name_of_its_own() {
        let jobs = matrix::all();
        let names: std::collections::BTreeSet<_> = jobs.iter().map(|job| job_name("7.2.22", job.kernel, job)).collect();
        assert_eq!(names.len(), jobs.len());
    }

    #[test]
    fn parameters_go_to_their_module() {
        let options = "nested=0 kvm.ignore_msrs=1 npt=0";
        assert_eq!(options_of("kvm-amd", options), "nested=0 npt=0");
        assert_eq!(options_of("kvm", options), "ignore_msrs=1");
        assert_eq!(options_of("irqbypass", options), "");
    }
}
