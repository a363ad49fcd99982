//! One case put to a real QEMU and to the stage, and how their answers differ.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cpusieve_knowledge::qemu;
use cpusieve_model::{CpuidTable, KvmCpuidEntry, KvmView, Registers};
use cpusieve_stages::qemu::{Accelerator, Instruction, Irqchip, Protected, Question, Running, Smp, realize};

use super::super::bounded;
use super::super::qemu::Qemu;
use super::case::Case;
use super::rom;

/// A case takes a quarter of a second.
const LIMIT: Duration = Duration::from_secs(30);

/// The position of 7.2 among the releases.
const V7_2: usize = 1;

/// Leaf, subleaf and flags with their registers.
type Entry = ([u32; 3], Registers);

/// A host whose answers a real QEMU is given in place of this machine's.
pub(super) struct Host {
    /// The record, which the program reads.
    pub(super) record: PathBuf,
    /// The program that runs QEMU with these answers: `PROGRAM RECORD OUTPUT QEMU ARGUMENTS...`.
    pub(super) through: PathBuf,
    pub(super) cpuid: CpuidTable,
    pub(super) kvm: KvmView,
}

/// A real QEMU, and what stands for it here.
pub(super) struct Pair {
    pub(super) qemu: Qemu,
    pub(super) release: usize,
    pub(super) host: Option<Host>,
}

/// What a QEMU said and showed.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    /// The lines on stderr, without the program's name.
    lines: Vec<String>,
    /// `None` if there was no vCPU.
    table: Option<Vec<Entry>>,
    /// The feature MSRs that were written to a vCPU.
    msrs: BTreeMap<u32, u64>,
    /// Whether QEMU was stopped at its time limit or crashed.
    broken: Option<String>,
}

impl Pair {
    /// How the two differ, line by line; empty if they agree.
    pub(super) fn differences(&self, case: &Case, scratch: &Path) -> Result<Vec<String>, Box<dyn Error>> {
        let seen = self.seen(case, scratch)?;
        let predicted = self.predicted(case);
        // Some refusals of QEMU's are aborts.
        let broken = seen.broken.iter().filter(|_| predicted.table.is_some() || seen.lines != predicted.lines);
        let mut differences: Vec<String> = broken.map(|how| format!("QEMU: {how}")).collect();
        differences.extend(lines(&seen.lines, &predicted.lines));
        match (&seen.table, &predicted.table) {
            (Some(seen), Some(predicted)) => differences.extend(self.registers(seen, predicted)),
            (Some(_), None) => differences.push("QEMU has a vCPU, here is none".to_owned()),
            (None, Some(_)) => differences.push("QEMU has no vCPU, here is one".to_owned()),
            (None, None) => {}
        }
        differences.extend(msrs(&seen.msrs, &predicted.msrs));
        Ok(differences)
    }

    /// The registers that differ. Leaf 1CH of 7.2 is left out under TCG, where QEMU leaves all of them as they were
    /// (`cpu_x86_cpuid`).
    fn registers(&self, seen: &[Entry], predicted: &[Entry]) -> Vec<String> {
        let unset = |entry: &&Entry| self.host.is_none() && self.release == V7_2 && entry.0[0] == 0x1c;
        let set = |entries: &[Entry]| entries.iter().filter(|entry| !unset(entry)).copied().collect::<Vec<_>>();
        registers(&set(seen), &set(predicted))
    }

    fn seen(&self, case: &Case, scratch: &Path) -> Result<Shown, Box<dyn Error>> {
        let output = scratch.with_extension("answers");
        // Left by the case before.
        let _gone = fs::remove_file(&output);
        let rom = scratch.with_extension("rom");
        fs::write(&rom, rom::image())?;
        let ended = match &self.host {
            None => bounded::run(self.qemu.command().args(arguments(case, "tcg", &rom, Some(&output))), LIMIT)?,
            Some(host) => {
                let qemu = self.qemu.command();
                let mut command = Command::new(&host.through);
                command.arg(&host.record).arg(&output).arg(qemu.get_program()).args(qemu.get_args());
                bounded::run(command.args(arguments(case, "kvm", &rom, None)), LIMIT)?
            }
        };
        let mut written = fs::read(&output).unwrap_or_default();
        // What the first vCPU was given does not count if QEMU refused what came after it.
        if self.host.is_some() && !ended.status.is_some_and(|status| status.success()) {
            written.clear();
        }
        let table = match self.host {
            None => rom::answers(&written).map(|answers| {
                answers.into_iter().map(|((leaf, subleaf), registers)| ([leaf, subleaf, 0], registers)).collect()
            }),
            Some(_) => table(&String::from_utf8_lossy(&written)),
        };
        let msrs = if self.host.is_some() { written_msrs(&String::from_utf8_lossy(&written)) } else { BTreeMap::new() };
        let name = |line: &str| line.trim_start_matches("qemu-system-x86_64: ").to_owned();
        let broken = match ended.status {
            None => Some("did not end".to_owned()),
            Some(status) if status.code().is_none() => Some(status.to_string()),
            Some(_) => None,
        };
        Ok(Shown { lines: ended.stderr.lines().map(name).collect(), table, msrs, broken })
    }

    fn predicted(&self, case: &Case) -> Shown {
        let nothing = |lines: Vec<String>| Shown { lines, table: None, msrs: BTreeMap::new(), broken: None };
        let (smp, warning) = match Smp::parse(self.release, case.machine, &case.smp) {
            Ok(parsed) => parsed,
            Err(error) => return nothing(error.warning.into_iter().chain([error.message]).collect()),
        };
        let cpu = case.cpu();
        let accelerator = match &self.host {
            None => Accelerator::Tcg,
            Some(host) => Accelerator::Kvm { host: &host.cpuid, kvm: &host.kvm },
        };
        let question = Question {
            release: self.release,
            machine: case.machine,
            accelerator,
            cpu: &cpu,
            smp,
            cpu_pm: case.cpu_pm,
            irqchip: case.irqchip.unwrap_or(Irqchip::of(case.machine)),
            protected: Protected::default(),
        };
        let output = realize(question);
        let error = output.error.as_ref().map(ToString::to_string);
        let lines = warning.into_iter().chain(output.warnings).chain(error.clone()).collect();
        let table = match (&self.host, error) {
            (_, Some(_)) => None,
            // A table may be empty: `base` of an old machine without KVM's leaves.
            (Some(_), None) => {
                Some(output.cpuid.iter().map(entry).collect::<Vec<_>>()).filter(|table| !table.is_empty())
            }
            (None, None) => Instruction::of(question).map(|instruction| {
                let returned = |(leaf, subleaf)| instruction.returns(Running::RESET, leaf, subleaf);
                rom::asked().map(|at| ([at.0, at.1, 0], returned(at))).collect()
            }),
        };
        let msrs = if self.host.is_some() { output.msrs } else { BTreeMap::new() };
        Shown { lines, table, msrs, broken: None }
    }
}

fn entry(entry: &KvmCpuidEntry) -> Entry {
    ([entry.leaf, entry.subleaf, entry.flags], entry.registers)
}

/// QEMU's arguments: firmware that asks, a port for the answers, a port that ends it.
fn arguments(case: &Case, accelerator: &str, rom: &Path, answers: Option<&Path>) -> Vec<OsString> {
    let cpu = case.cpu();
    let fixed = ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-m", "16", "-accel", accelerator];
    let machine = case.machine();
    let asked = ["-machine", &machine, "-cpu", &cpu, "-smp", &case.smp];
    let mut arguments: Vec<OsString> = fixed.into_iter().chain(asked).map(OsString::from).collect();
    if case.cpu_pm {
        arguments.extend(["-overcommit", "cpu-pm=on"].map(OsString::from));
    }
    arguments.extend([OsString::from("-bios"), rom.into()]);
    if let Some(answers) = answers {
        let [data, end] = rom::PORTS;
        let file = answers.display().to_string().replace(',', ",,");
        let devices = [
            ("-chardev", format!("file,id=answers,path={file}")),
            ("-device", format!("isa-debugcon,iobase={data:#x},chardev=answers")),
            ("-device", format!("isa-debug-exit,iobase={end:#x},iosize=1")),
        ];
        arguments.extend(devices.into_iter().flat_map(|(name, value)| [name.into(), value.into()]));
    }
    arguments
}

/// A table of `KVM_SET_CPUID2`, an entry a line, seven hexadecimal numbers each; `None` if there is none.
fn table(text: &str) -> Option<Vec<Entry>> {
    let number = |word: &str| u32::from_str_radix(word, 16).ok();
    let entry = |line: &str| {
        let numbers: Vec<u32> = line.split(' ').map_while(number).collect();
        let &[leaf, subleaf, flags, eax, ebx, ecx, edx] = numbers.as_slice() else { return None };
        Some(([leaf, subleaf, flags], Registers { eax, ebx, ecx, edx }))
    };
    let table: Vec<_> = text.lines().filter_map(entry).collect();
    (!table.is_empty()).then_some(table)
}

/// The feature MSRs among those that a vCPU was given: lines of `m`, index and value, both hexadecimal.
fn written_msrs(text: &str) -> BTreeMap<u32, u64> {
    let msr = |line: &str| {
        let (index, value) = line.strip_prefix("m ")?.split_once(' ')?;
        Some((u32::from_str_radix(index, 16).ok()?, u64::from_str_radix(value, 16).ok()?))
    };
    let feature = |index: &u32| matches!(index, 0x8b | 0xcf | 0x10a | 0x345 | 0x480..=0x491);
    text.lines().filter_map(msr).filter(|(index, _)| feature(index)).collect()
}

fn msrs(seen: &BTreeMap<u32, u64>, predicted: &BTreeMap<u32, u64>) -> Vec<String> {
    let indices: BTreeSet<u32> = seen.keys().chain(predicted.keys()).copied().collect();
    let both = indices.into_iter().map(|index| (index, seen.get(&index), predicted.get(&index)));
    let shown = |value: Option<&u64>| value.map_or("nothing".to_owned(), |value| format!("{value:#x}"));
    let differ = both.filter(|(_, seen, predicted)| seen != predicted);
    differ.map(|(index, seen, here)| format!("MSR {index:x}: QEMU {}, here {}", shown(seen), shown(here))).collect()
}

/// Lines that one says and the other does not, or that stand elsewhere.
fn lines(seen: &[String], predicted: &[String]) -> Vec<String> {
    if seen == predicted {
        return Vec::new();
    }
    let without = |these: &[String], those: &[String], who: &str| {
        let alone = these.iter().filter(|line| !those.contains(line));
        alone.map(|line| format!("{who}: {line}")).take(8).collect::<Vec<_>>()
    };
    let mut differences = without(seen, predicted, "QEMU says");
    differences.extend(without(predicted, seen, "here"));
    if differences.is_empty() {
        differences.push(format!(
            "QEMU says the same {} lines as the {} here, in another order",
            seen.len(),
            predicted.len()
        ));
    }
    differences
}

fn registers(seen: &[Entry], predicted: &[Entry]) -> Vec<String> {
    if seen == predicted {
        return Vec::new();
    }
    let shown = |(at, registers): &Entry| {
        let ([leaf, subleaf, flags], Registers { eax, ebx, ecx, edx }) = (at, registers);
        format!("{leaf:x}.{subleaf:x}/{flags} {eax:08x} {ebx:08x} {ecx:08x} {edx:08x}")
    };
    let without = |these: &[Entry], those: &[Entry], who: &str| {
        let alone = these.iter().filter(|row| !those.contains(row));
        alone.map(|row| format!("{who}: {}", shown(row))).take(12).collect::<Vec<_>>()
    };
    let mut differences = without(seen, predicted, "QEMU shows");
    differences.extend(without(predicted, seen, "here"));
    if differences.is_empty() {
        differences.push("the same entries in another order".to_owned());
    }
    differences
}

/// The position of the release of which a QEMU is, if it is known.
pub(super) fn release(version: &str) -> Result<usize, String> {
    let nearest = qemu::nearest(version);
    match nearest.fit {
        qemu::Fit::Same => Ok(nearest.release),
        _ => Err(format!("QEMU {version} is none of the known releases")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_line_by_line() {
        let read = table("0 0 0 d 1 2 3\nnoise\n80000000 0 0 80000008 0 0 0\n").unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read[1], ([0x8000_0000, 0, 0], Registers { eax: 0x8000_0008, ebx: 0, ecx: 0, edx: 0 }));
        assert!(table("msr 10 0\n").is_none());
    }

    #[test]
    fn lines_differ_in_words_or_in_order() {
        let told = |lines: &[&str]| lines.iter().map(ToString::to_string).collect::<Vec<_>>();
        let lines = |seen: &[&str], predicted: &[&str]| lines(&told(seen), &told(predicted));
        assert!(lines(&["a", "b"], &["a", "b"]).is_empty());
        assert_eq!(lines(&["a", "b"], &["a", "c"]), ["QEMU says: b", "here: c"]);
        assert_eq!(lines(&["a", "b"], &["b", "a"]).len(), 1);
    }
}
