//! Every parser on hostile input: by libFuzzer where a nightly toolchain and cargo-fuzz are installed, else by a mutation
//! loop that needs neither.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use cpusieve_formats::{Format, fuzz};

use crate::{Outcome, root};

/// The targets of `fuzz/`, and the format that each is fed to; `read` recognises, `trace` reads traces, `libvirt_domain`
/// reads virtual machines, `stored` imported kernel trees.
const TARGETS: [(&str, Option<Format>); 16] = [
    ("cpuid_r", Some(Format::CpuidR)),
    ("kcpuid", Some(Format::Kcpuid)),
    ("aida64", Some(Format::Aida64)),
    ("libcpuid", Some(Format::Libcpuid)),
    ("cpuinfo", Some(Format::Cpuinfo)),
    ("flags_line", Some(Format::FlagsLine)),
    ("libvirt_xml", Some(Format::LibvirtCpuid)),
    ("libvirt_domain", None),
    ("qmp", Some(Format::Qmp)),
    ("firecracker", Some(Format::FirecrackerFingerprint)),
    ("lscpu", Some(Format::LscpuText)),
    ("record", Some(Format::Record)),
    ("lab", Some(Format::LabCapture)),
    ("read", None),
    ("trace", None),
    ("stored", None),
];

/// The longest input that the loop makes.
const LONGEST: usize = 64 << 10;

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let mut seconds = 60;
    let mut wanted = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seconds" => seconds = arguments.next().ok_or("--seconds needs a number")?.parse()?,
            name if TARGETS.iter().any(|(target, _)| *target == name) => wanted.push(name),
            other => return Err(format!("no target is called {other}").into()),
        }
    }
    let targets: Vec<_> = TARGETS.iter().filter(|(name, _)| wanted.is_empty() || wanted.contains(name)).collect();
    let each = Duration::from_secs((seconds / targets.len() as u64).max(1));
    let libfuzzer = Command::new("cargo")
        .args(["+nightly", "fuzz", "--version"])
        .current_dir(root())
        .output()
        .is_ok_and(|output| output.status.success());
    if !libfuzzer {
        println!("cargo +nightly fuzz is not installed: mutating without coverage feedback");
    }
    let mut sound = true;
    for &&(name, format) in &targets {
        let seeds = seed_folders(name)?;
        sound &= if libfuzzer { by_libfuzzer(name, &seeds, each)? } else { by_loop(name, format, &seeds, each)? };
    }
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A target's own seeds; all seeds for the recogniser.
fn seed_folders(name: &str) -> std::io::Result<Vec<PathBuf>> {
    let seeds = root().join("fuzz/seeds");
    if name != "read" {
        return Ok(vec![seeds.join(name)]);
    }
    fs::read_dir(seeds)?.map(|entry| Ok(entry?.path())).collect()
}

fn by_libfuzzer(name: &str, seeds: &[PathBuf], time: Duration) -> Result<bool, Box<dyn std::error::Error>> {
    let corpus = root().join("fuzz/corpus").join(name);
    fs::create_dir_all(&corpus)?;
    let status = Command::new("cargo")
        .args(["+nightly", "fuzz", "run", "--target", "x86_64-unknown-linux-gnu", name])
        .arg(&corpus)
        .args(seeds)
        .args(["--", &format!("-max_total_time={}", time.as_secs()), "-rss_limit_mb=1024"])
        .current_dir(root())
        .status()?;
    Ok(status.success())
}

fn by_loop(
    name: &str,
    format: Option<Format>,
    seeds: &[PathBuf],
    time: Duration,
) -> Result<bool, Box<dyn std::error::Error>> {
    let mut pool = Vec::new();
    for folder in seeds {
        for file in fs::read_dir(folder)? {
            pool.push(fs::read(file?.path())?);
        }
    }
    if pool.is_empty() {
        return Err(format!("fuzz/seeds holds nothing for {name}").into());
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (start, mut runs) = (Instant::now(), 0_u64);
    while start.elapsed() < time {
        let input = mutated(&pool, &mut random);
        let checked = match name {
            "trace" => cpusieve_trace::fuzz::check(&input),
            "stored" => cpusieve_import::stored::StoredTree::check_any(&input),
            "libvirt_domain" => fuzz::check_domain(&input),
            _ => fuzz::check(format, &input),
        };
        if let Err(broken) = checked {
            let kept = keep(name, &input)?;
            println!("{name}: {broken}; the input is kept in {}", kept.display());
            return Ok(false);
        }
        runs += 1;
    }
    println!("{name}: {runs} inputs in {} s, nothing broken", time.as_secs());
    Ok(true)
}

fn keep(name: &str, input: &[u8]) -> std::io::Result<PathBuf> {
    let folder = root().join("fuzz/artifacts").join(name);
    fs::create_dir_all(&folder)?;
    let path = folder.join("broken");
    fs::write(&path, input)?;
    Ok(path)
}

/// A seed with a few bytes flipped, cut, doubled, or spliced with another seed.
fn mutated(pool: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = pool[random.below(pool.len())].clone();
    for _ in 0..=random.below(8) {
        let at = random.below(bytes.len() + 1);
        match random.below(6) {
            0 if !bytes.is_empty() => bytes[at.saturating_sub(1)] = random.byte(),
            1 => bytes.truncate(at),
            2 => bytes.insert(at, random.byte()),
            3 => {
                let end = (at + random.below(200)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            4 => {
                let other = &pool[random.below(pool.len())];
                let from = random.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {
                let end = (at + random.below(40)).min(bytes.len());
                bytes.drain(at..end);
            }
        }
    }
    bytes.truncate(LONGEST);
    bytes
}

/// xorshift64: the same inputs every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }
}
