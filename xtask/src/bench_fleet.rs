//! A million hosts beside what the machine can read at most, and ten thousand dumps.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::bench::{installed, os, pair_of};
use crate::{cargo, root};

/// Hosts of the packed fleets.
const HOSTS: &str = "1000000";

/// Kinds of a fleet as they are: racks are full of equal machines.
const KINDS: &str = "300";

/// Dumps that are read as text.
const DUMPS: usize = 10_000;

/// How the line of leaf 1 begins.
const LEAF_1: &str = "0x00000001 0x00:";

/// Private memory that reading a packed fleet may take, in bytes: `RLIMIT_DATA`.
const PRIVATE: u32 = 16 << 20;

const RUNS: usize = 15;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// A folder that is gone afterwards.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn run(program: &Path, built: &Path) -> Outcome<()> {
    let folder = Folder(std::env::temp_dir().join(format!("cpusieve-bench-fleet-{}", std::process::id())));
    fs::create_dir_all(&folder.0)?;
    println!("\n{RUNS} runs each: fleets of {HOSTS} hosts, packed, in the page cache");
    let mut yardstick = cargo();
    yardstick.args(["build", "--release", "--quiet", "--package", "cpusieve-probe", "--example", "and"]);
    if !yardstick.status()?.success() {
        return Err("the yardstick's build failed".into());
    }
    let and = built.join("release/examples/and");
    let (unlike, alike) = (folder.0.join("unlike.arrow"), folder.0.join("alike.arrow"));
    let bytes = hosts(HOSTS, &unlike)?;
    hosts(KINDS, &alike)?;
    let read = [unlike.clone().into_os_string(), bytes.into()];
    let reading = ("mmap and AND of the same bytes", and.as_path(), read.as_slice());
    for (name, file) in [("fleet baseline, all hosts different", &unlike), ("fleet baseline, 300 kinds", &alike)] {
        let baseline = [os("fleet"), os("baseline"), file.clone().into_os_string(), os("--json")];
        pair_of(RUNS, reading, (name, program, &baseline))?;
        private(program, &baseline, name)?;
    }
    let who = [os("fleet"), os("who"), os("avx512f"), unlike.into_os_string()];
    pair_of(RUNS, ("/bin/true", Path::new("/bin/true"), &[]), ("fleet who, all hosts different", program, &who))?;
    dumps(program, &folder.0)
}

/// Makes a packed fleet, and says how many bytes its columns of numbers have.
fn hosts(kinds: &str, file: &Path) -> Outcome<String> {
    let mut maker = cargo();
    maker.args(["run", "--quiet", "--package", "cpusieve-store", "--example", "hosts", "--", HOSTS, kinds]).arg(file);
    let output = maker.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err("the fleet could not be made".into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Runs once more with a limit on private memory, which the kernel keeps.
fn private(program: &Path, arguments: &[OsString], name: &str) -> Outcome<()> {
    let Some(prlimit) = installed("prlimit") else {
        println!("prlimit(1) is not installed: private memory is not looked at");
        return Ok(());
    };
    let limited = Command::new(prlimit)
        .arg(format!("--data={PRIVATE}"))
        .arg(program)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    let word = if limited.success() { "runs" } else { "DOES NOT RUN" };
    println!("{name} {word} within {} MiB of private memory (RLIMIT_DATA)", PRIVATE >> 20);
    Ok(())
}

/// Texts of `cpuid -r`, each with its own APIC id, beside what libvirt takes for as many CPUs.
fn dumps(program: &Path, folder: &Path) -> Outcome<()> {
    let dumps = folder.join("dumps");
    fs::create_dir_all(&dumps)?;
    let sample = root().join("corpus/guests-tcg");
    let text = sample_dump(&sample)?;
    for number in 0..DUMPS {
        // The initial APIC id is the highest byte of EBX of leaf 1.
        let own = |line: &str| match line.trim_start().starts_with(LEAF_1) {
            true => line.replacen("ebx=0x00", &format!("ebx=0x{:02x}", number % 256), 1),
            false => line.to_owned(),
        };
        let own: Vec<String> = text.lines().map(own).collect();
        fs::write(dumps.join(format!("{number:05}.txt")), own.join("\n") + "\n")?;
    }
    println!("{DUMPS} dumps of {} bytes as text:", text.len());
    let baseline = [os("fleet"), os("baseline"), dumps.into_os_string(), os("--nested"), os("--json")];
    pair_of(3, ("/bin/true", Path::new("/bin/true"), &[]), ("fleet baseline of dumps", program, &baseline))?;
    if installed("virsh").is_none() {
        println!(
            "virsh is not installed; measured elsewhere, virsh 9.0 cpu-baseline: 285 ms for 8,000 <cpu> definitions,"
        );
        println!(
            "about 32 us a definition beside 30 ms of its start: 0.35 s for {DUMPS}, 32 s for {HOSTS} (extrapolated)"
        );
    }
    Ok(())
}

/// A dump of the corpus, as `cpuid -r` prints it.
fn sample_dump(folder: &Path) -> Outcome<String> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    for file in files {
        let output = Command::new("gzip").args(["-dcf"]).arg(&file).output()?;
        let Ok(capture) = serde_json::from_slice::<serde_json::Value>(&output.stdout) else { continue };
        let lines: Vec<&str> =
            capture["cpuid"].as_array().into_iter().flatten().filter_map(|line| line.as_str()).collect();
        if lines.iter().any(|line| line.trim_start().starts_with(LEAF_1)) {
            return Ok(format!("CPU 0:\n{}\n", lines.join("\n")));
        }
    }
    Err("the corpus has no dump to make others of".into())
}
