//! CPUID dumps of AIDA64 and Everest, as InstLatx64 collects them, in all the forms they have had since 2002.
//!
//! A line is `CPUID leaf: EAX-EBX-ECX-EDX [SL subleaf] [text]` or `MSR index: value`, below a heading that names the
//! CPU; old dumps lack the colon, the heading, or the subleaf. Without `[SL xx]` the n-th repetition of a leaf is
//! subleaf n, except for leaf 0DH (`Untagged` numbers it). All other sections are noise, and are counted. Windows numbers
//! the CPUs, and so do the dumps.

mod untagged;

use cpusieve_model::{MsrReading, Registers, has_subleaves};

use crate::diagnostic::{Log, quote};
use crate::machine::Machine;
use crate::text::{Lines, Scan, find, prepare};
use crate::{Format, Parsed};
use untagged::Untagged;

pub(crate) const EXPECTED: &str = "`CPUID 00000007: 00000000-00000000-00000000-00000000 [SL 00]`";
const EXPECTED_MSR: &str = "`MSR 0000010A: 0000-0000-0000-0000` or `< FAILED >`";

/// One line of registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) leaf: u32,
    /// The subleaf of `[SL xx]`.
    pub(crate) subleaf: Option<u32>,
    pub(crate) registers: Registers,
}

/// Reads a dump.
#[must_use]
pub fn parse(name: &str, bytes: &[u8]) -> Parsed {
    let mut log = Log::new(name);
    let text = prepare(&mut log, bytes);
    let mut dump = Dump::new();
    let mut lines = Lines::new(&text);
    while let Some((number, line)) = lines.next(&mut log) {
        dump.line(&mut log, number, line.trim_ascii());
    }
    if dump.machine.is_empty() {
        log.error_expected(0, "no line of registers", EXPECTED);
    }
    log.finish(Format::Aida64, dump.machine.finish())
}

/// A dump while it is read.
struct Dump {
    machine: Machine,
    untagged: Untagged,
    /// What `(CPU #1)` counts from.
    base: Option<u32>,
    /// Whether nothing was read since the last heading that names a CPU.
    fresh: bool,
    /// Whether a section of MSRs that names no CPU has begun, and has not been reported yet.
    nameless_msrs: bool,
}

impl Dump {
    fn new() -> Self {
        Self { machine: Machine::new(), untagged: Untagged::default(), base: None, fresh: false, nameless_msrs: false }
    }

    fn line(&mut self, log: &mut Log, number: u32, line: &[u8]) {
        match line.first() {
            None => {}
            Some(b'C' | b'c') if names_row(line, b"CPUID") => match row(line) {
                Some(row) => self.row(log, number, row),
                None => misread(log, number, line, EXPECTED),
            },
            Some(b'M' | b'm') if names_row(line, b"MSR") => match msr(line) {
                Some((index, reading)) => self.msr(log, number, index, reading),
                None => misread(log, number, line, EXPECTED_MSR),
            },
            Some(b'C' | b'c' | b'M' | b'm' | b'-') => self.heading(log, number, line),
            Some(_) => log.ignored.lines += 1,
        }
    }

    /// A heading, or noise.
    fn heading(&mut self, log: &mut Log, number: u32, line: &[u8]) {
        let Some(heading) = heading(line) else {
            log.ignored.lines += 1;
            return;
        };
        self.nameless_msrs = false;
        let id = match heading {
            Heading::Cpu { id, .. } => id,
            // The base is 1 in all known files; one that counts from 0 is taken as it is.
            Heading::OldCpu { number } => number.saturating_sub(*self.base.get_or_insert(number.min(1))),
            Heading::NamelessMsrs => {
                self.nameless_msrs = true;
                return;
            }
            Heading::Other => return,
        };
        let msrs = matches!(heading, Heading::Cpu { msrs: true, .. });
        if (msrs || self.machine.lacks_cpuid(id)) && self.machine.go_to(id) {
            self.fresh = !msrs;
            return;
        }
        self.machine.start(log, number, Some(id));
        self.untagged = Untagged::default();
        self.fresh = true;
    }

    fn row(&mut self, log: &mut Log, number: u32, row: Row) {
        let Row { leaf, subleaf, registers } = row;
        // Without headings a new CPU starts where leaf 0 comes again; with one, its own leaf 0 follows it.
        let again = leaf == 0 && subleaf.is_none_or(|subleaf| subleaf == 0);
        if again && !self.fresh && self.machine.cpu().is_some_and(|cpu| cpu.cpuid.get(0, 0).is_some()) {
            self.machine.start(log, number, None);
            self.untagged = Untagged::default();
        }
        self.fresh = false;
        let subleaf = match subleaf {
            Some(subleaf) => subleaf,
            None if has_subleaves(leaf) => {
                self.untagged.subleaf(self.machine.cpu().map(|cpu| &cpu.cpuid), leaf, registers)
            }
            None => 0,
        };
        self.machine.entry(log, number, leaf, subleaf, registers);
    }

    fn msr(&mut self, log: &mut Log, number: u32, index: u32, reading: MsrReading) {
        if self.nameless_msrs {
            self.nameless_msrs = false;
            if self.machine.go_to_first() && self.machine.has_many() {
                log.note(number, "these MSRs name no CPU; they are taken for the first one's");
            }
        }
        self.machine.msr(log, number, index, reading);
    }
}

fn misread(log: &mut Log, number: u32, line: &[u8], expected: &str) {
    log.ignored.lines += 1;
    log.warning_expected(number, format!("{} is not read", quote(line)), expected);
}

/// Whether the line is `word` and an eight-digit number: `CPUID Revision` and the like are noise.
fn names_row(line: &[u8], word: &[u8]) -> bool {
    let mut scan = Scan(line);
    scan.word(word).is_some() && index(&mut scan).is_some()
}

/// Blanks or underscores, and a number of eight digits, possibly as `0x0000000d` or `0000000Dh`.
fn index(scan: &mut Scan<'_>) -> Option<u32> {
    let mut apart = false;
    while scan.one_of(b" \t_").is_some() {
        apart = true;
    }
    let _prefix = scan.word(b"0x");
    apart.then(|| scan.hex_exactly::<8>()).flatten()
}

/// `CPUID 00000004: FC004121-02C0003F-0000003F-00000000 [SL 00] [text]`
pub(crate) fn row(line: &[u8]) -> Option<Row> {
    let mut scan = Scan(line);
    scan.word(b"CPUID")?;
    let leaf = index(&mut scan)?;
    let _suffix = scan.word(b"h");
    scan.blanks();
    let _colon = scan.one_of(b":=");
    let mut values = [0; 4];
    for (position, value) in values.iter_mut().enumerate() {
        let blank = scan.blanks();
        let dash = position > 0 && scan.one_of(b"-").is_some();
        if position > 0 && !blank && !dash {
            return None;
        }
        scan.blanks();
        *value = scan.hex_exactly::<8>()?;
    }
    let [eax, ebx, ecx, edx] = values;
    Some(Row { leaf, subleaf: tag(scan.0), registers: Registers { eax, ebx, ecx, edx } })
}

/// The number in `[SL 0a]`.
fn tag(rest: &[u8]) -> Option<u32> {
    let mut scan = Scan(rest);
    loop {
        let start = scan.0.iter().position(|&byte| byte == b'[')?;
        scan.0 = scan.0.get(start + 1..)?;
        scan.blanks();
        if scan.word(b"SL").is_some() && scan.blanks() {
            let subleaf = scan.hex()?;
            scan.blanks();
            return scan.one_of(b"]").map(|_| subleaf);
        }
    }
}

/// `MSR 0000010A: 0000-0000-0DA9-FDEB`, `MSR C0010070: < FAILED >`
fn msr(line: &[u8]) -> Option<(u32, MsrReading)> {
    let mut scan = Scan(line);
    scan.word(b"MSR")?;
    let index = index(&mut scan)?;
    scan.blanks();
    let _colon = scan.one_of(b":=");
    scan.blanks();
    if scan.one_of(b"<").is_some() {
        scan.blanks();
        return scan.word(b"FAILED").map(|()| (index, MsrReading::Unreadable));
    }
    let mut value = 0;
    for position in 0..4 {
        if position > 0 {
            scan.one_of(b"-")?;
        }
        value = value << 16 | u64::from(scan.hex_exactly::<4>()?);
    }
    Some((index, MsrReading::Value(value)))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heading {
    /// `------[ CPUID Registers / Logical CPU #0 ]------`, `------[ Logical CPU #0 ]------`, and the same for MSRs.
    Cpu { id: u32, msrs: bool },
    /// `CPUID Registers (CPU #2 Virtual):`, where `Virtual` is a second thread.
    OldCpu { number: u32 },
    /// `------[ MSR Registers ]------`
    NamelessMsrs,
    /// Any other section; also `------[ MSR Registers / Logical CPU # Clock (TSC),3094 MHz ]------`, which belongs to
    /// the CPU before it.
    Other,
}

fn heading(line: &[u8]) -> Option<Heading> {
    let mut scan = Scan(line);
    if scan.word(b"CPUID Registers (CPU #").is_some() {
        scan.blanks();
        return scan.decimal().map(|number| Heading::OldCpu { number });
    }
    let dashes = line.iter().take_while(|&&byte| byte == b'-').count();
    let title = line.get(dashes..)?.strip_prefix(b"[")?.trim_ascii();
    let msrs = title.starts_with(b"MSR Registers");
    let number = find(title, b"Logical CPU #").and_then(|at| {
        let mut scan = Scan(title.get(at + b"Logical CPU #".len()..)?);
        scan.decimal().filter(|_| scan.0.first().is_none_or(|&byte| byte == b' ' || byte == b']'))
    });
    Some(match number {
        Some(id) => Heading::Cpu { id, msrs },
        None if msrs && find(title, b"Logical CPU").is_none() => Heading::NamelessMsrs,
        None => Heading::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_all_ages_are_read() {
        let registers = Registers { eax: 0xa, ebx: 0x1b, ecx: 2, edx: 3 };
        for (line, subleaf) in [
            ("CPUID 00000004: 0000000A-0000001B-00000002-00000003", None),
            ("CPUID 00000004: 0000000A-0000001B-00000002-00000003 [SL 0b] [L1D: 48 KB]", Some(0xb)),
            ("CPUID 00000004: 0000000A-0000001B-00000002-00000003 [x] [SL 0B]", Some(0xb)),
            ("CPUID 00000004  \t0000000A-0000001B-00000002-00000003 ", None),
            ("CPUID 00000004 0000000A-0000001B-00000002-00000003", None),
            ("CPUID 00000004 :0000000A-0000001B-00000002-00000003", None),
            ("CPUID 00000004: 0000000a 0000001b 00000002 00000003", None),
            ("cpuid_00000004h = 0000000A - 0000001B - 00000002 - 00000003", None),
        ] {
            assert_eq!(row(line.as_bytes()), Some(Row { leaf: 4, subleaf, registers }), "{line}");
        }
        for line in ["CPUID 0000004: 1-2-3-4", "CPUID 00000004: 0000000A-0000001B-00000002", "CPUID00000004"] {
            assert_eq!(row(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn msrs_have_a_value_or_failed() {
        assert_eq!(msr(b"MSR 0000010A: 0000-0000-0DA9-FDEB [x]"), Some((0x10a, MsrReading::Value(0x0da9_fdeb))));
        assert_eq!(msr(b"MSR C0010070: < FAILED >"), Some((0xc001_0070, MsrReading::Unreadable)));
        assert_eq!(msr(b"MSR C0010070: 0000-0000"), None);
    }

    #[test]
    fn headings_name_a_cpu_or_not() {
        let of = |line: &str| heading(line.as_bytes());
        assert_eq!(of("------[ CPUID Registers / Logical CPU #11 ]------"), Some(Heading::Cpu { id: 11, msrs: false }));
        assert_eq!(of("------[ Logical CPU #0 ]------"), Some(Heading::Cpu { id: 0, msrs: false }));
        assert_eq!(of("------[ MSR Registers / Logical CPU #2 ]------"), Some(Heading::Cpu { id: 2, msrs: true }));
        assert_eq!(of("------[ MSR Registers / Logical CPU # Clock (TSC),3094 MHz ]------"), Some(Heading::Other));
        assert_eq!(of("------[ MSR Registers ]------"), Some(Heading::NamelessMsrs));
        assert_eq!(of("------[ All CPUs ]------"), Some(Heading::Other));
        assert_eq!(of("CPUID Registers (CPU #2 Virtual):"), Some(Heading::OldCpu { number: 2 }));
        assert_eq!(of("CPUID Manufacturer : GenuineIntel"), None);
    }

    #[test]
    fn noise_is_counted_and_bad_rows_are_reported() {
        let text = "CPUID Revision : 00000500h\nTjmax = 0\n\nCPUID 00000000: 0000000A-756E6547-6C65746E\n";
        let parsed = parse("f", text.as_bytes());
        assert_eq!(parsed.ignored.lines, 3);
        assert_eq!(parsed.diagnostics.iter().map(|d| d.line).collect::<Vec<_>>(), [0, 4]);
    }

    #[test]
    fn without_headings_leaf_0_starts_a_cpu() {
        let row = "CPUID 00000000: 00000000-00000000-00000000-00000000\n";
        let ids: Vec<u32> = parse("f", row.repeat(3).as_bytes()).snapshot.cpus.iter().map(|cpu| cpu.id).collect();
        assert_eq!(ids, [0, 1, 2]);
    }
}
