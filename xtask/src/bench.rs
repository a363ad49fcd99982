//! Whole processes beside their yardsticks, as ratios. Spawn and wait, interleaved, so that a busy moment hits both.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use crate::{Outcome, cargo, root};

const RUNS: usize = 101;

/// One run: milliseconds of wall clock, and the largest resident set in KiB.
#[derive(Clone, Copy)]
struct Run {
    milliseconds: f64,
    kibibytes: i64,
}

pub(crate) fn run() -> Outcome {
    if !cargo().args(["build", "--release", "--quiet", "--package", "cpusieve"]).status()?.success() {
        return Err("the release build failed".into());
    }
    // This program stands in the folder of the debug build, wherever that is.
    let built = std::env::current_exe()?;
    let program = built.ancestors().nth(2).ok_or("the build folder has no parent")?.join("release/cpusieve");
    let sample = |name: &str| root().join("corpus/examples").join(name);
    println!("{RUNS} runs each, interleaved; wall clock of spawn to wait in ms; peak resident set in MiB");
    println!("{:<46} {:>7} {:>7} {:>7} {:>8} {:>9}", "", "min", "median", "p90", "MiB", "ratio");
    let (host, guest) = (sample("hybrid-host.flags"), sample("hybrid-guest.flags"));
    let diff = [os("diff"), host.clone().into_os_string(), guest.into_os_string()];
    pair(("/bin/true", Path::new("/bin/true"), &[]), ("diff of two flags lines", &program, &diff))?;
    if let Some(cpuid) = installed("cpuid") {
        let many = std::env::temp_dir().join(format!("cpusieve-bench-{}.txt", std::process::id()));
        let dump = Command::new(&cpuid).arg("-r").stdout(File::create(&many)?).status()?;
        if dump.success() {
            let record = [os("record"), os("--only"), os("cpuid")];
            pair(("cpuid -r", &cpuid, &[os("-r")]), ("record --only cpuid", &program, &record))?;
            let decode = [os("-f"), many.clone().into_os_string()];
            let diff = [os("diff"), many.clone().into_os_string(), host.into_os_string()];
            pair(("cpuid -f DUMP", &cpuid, &decode), ("diff of a dump and a flags line", &program, &diff))?;
        }
        fs::remove_file(many)?;
    } else {
        println!("cpuid(1) is not installed: record has no yardstick here");
    }
    way(&program)?;
    match installed("qemu-system-x86_64") {
        Some(qemu) => beside_qemu(&program, &qemu)?,
        None => println!("qemu-system-x86_64 is not installed: models and predict have no yardstick here"),
    }
    crate::bench_fleet::run(&program, built.ancestors().nth(2).unwrap_or(Path::new(".")))?;
    println!("Doubts: a shared machine moves all of these; under a hypervisor each CPUID is an exit of microseconds.");
    Ok(ExitCode::SUCCESS)
}

/// The whole way from silicon to a guest's flags, beside the least that a process costs.
fn way(program: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let host = root().join("corpus/qemu-oracle/hosts/spr-6.18.json.gz");
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(File::open(host)?).read_to_end(&mut plain)?;
    let record = std::env::temp_dir().join(format!("cpusieve-bench-{}.json", std::process::id()));
    fs::write(&record, plain)?;
    let until = |stage: &str, rest: &[&str]| -> Vec<std::ffi::OsString> {
        let words = ["predict", "--until", stage].into_iter().chain(rest.iter().copied());
        words.map(os).chain([record.clone().into_os_string()]).collect()
    };
    let nothing = ("/bin/true", Path::new("/bin/true"), &[][..]);
    pair(nothing, ("predict --until kvm --json", program, &until("kvm", &["--json"])))?;
    pair(nothing, ("predict --until guest", program, &until("guest", &[])))?;
    pair(nothing, ("predict --until guest --json", program, &until("guest", &["--json"])))?;
    Ok(fs::remove_file(record)?)
}

/// The installed QEMU, under TCG, which asks nothing of the host: its models over QMP, and the start of one vCPU.
fn beside_qemu(program: &Path, qemu: &Path) -> Result<(), Box<dyn std::error::Error>> {
    // The shell only gives it the questions and becomes it.
    let asks = |questions: &[&str], machine: &str| {
        let questions: Vec<String> = questions.iter().map(|name| format!("{{\"execute\":\"{name}\"}}")).collect();
        let (questions, qemu) = (questions.join(" "), qemu.display());
        let quiet = "-nodefaults -no-user-config -display none -S -qmp stdio";
        [os("-c"), os(&format!("printf '%s' '{questions}' | exec {qemu} -accel tcg -machine {machine} {quiet}"))]
    };
    let shell = Path::new("/bin/sh");
    let version = Command::new(qemu).arg("--version").output()?.stdout;
    let version = String::from_utf8_lossy(&version);
    let version = version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let release = ["--accel", "tcg", "--qemu", version.unwrap_or("7.2"), "--json"].map(os);
    let models: Vec<_> = [os("models")].into_iter().chain(release.clone()).collect();
    let definitions = asks(&["qmp_capabilities", "query-cpu-definitions", "quit"], "none");
    pair(("QEMU's query-cpu-definitions", shell, &definitions), ("models --accel tcg", program, &models))?;
    let vcpu = asks(&["qmp_capabilities", "quit"], "q35 -cpu EPYC-Milan");
    let capture = root().join("corpus/guests-kvm/k6.12-max.json").into_os_string();
    let words = ["predict", "--until", "vcpu", "--machine", "q35", "--cpu", "EPYC-Milan"].map(os);
    let predict: Vec<_> = words.into_iter().chain(release).chain([capture]).collect();
    pair(("QEMU -cpu EPYC-Milan up to its vCPU", shell, &vcpu), ("predict --until vcpu --accel tcg", program, &predict))
}

pub(crate) fn os(text: &str) -> std::ffi::OsString {
    text.into()
}

pub(crate) fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}

pub(crate) type Subject<'a> = (&'a str, &'a Path, &'a [std::ffi::OsString]);

/// Measures a yardstick and ours in turn.
fn pair(yardstick: Subject<'_>, ours: Subject<'_>) -> Result<(), Box<dyn std::error::Error>> {
    pair_of(RUNS, yardstick, ours)
}

/// The same, with so many runs of each.
pub(crate) fn pair_of(
    runs: usize,
    yardstick: Subject<'_>,
    ours: Subject<'_>,
) -> Result<(), Box<dyn std::error::Error>> {
    let (mut theirs, mut mine) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        theirs.push(once(yardstick)?);
        mine.push(once(ours)?);
    }
    let base = row(yardstick.0, &mut theirs, None);
    row(ours.0, &mut mine, Some(base));
    Ok(())
}

fn once((_, program, arguments): Subject<'_>) -> Result<Run, Box<dyn std::error::Error>> {
    let start = Instant::now();
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let pid = libc::pid_t::try_from(child.id())?;
    let mut status = 0;
    // SAFETY: an all-zero rusage is a valid value of this plain C struct.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live locals, and the child is ours and was not waited for.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;
    if waited != pid {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(Run { milliseconds, kibibytes: usage.ru_maxrss })
}

/// Prints one row and returns the median.
fn row(name: &str, runs: &mut [Run], base: Option<f64>) -> f64 {
    runs.sort_by(|one, other| one.milliseconds.total_cmp(&other.milliseconds));
    let at = |share: usize| runs[(runs.len() - 1) * share / 100].milliseconds;
    let peak = runs.iter().map(|run| run.kibibytes).max().unwrap_or(0);
    let ratio = base.map_or_else(String::new, |base| format!("{:.2}x", at(50) / base));
    println!("{name:<46} {:>7.2} {:>7.2} {:>7.2} {:>8.1} {ratio:>9}", at(0), at(50), at(90), peak as f64 / 1024.0);
    at(50)
}
