//! `cpuid -r` of Todd Allen's cpuid: `CPU n:` (`CPU:` with `-1`), then a line for each leaf and subleaf.
//!
//! The tool prints every leaf, all-zero ones too, and on many CPUs the heads of ranges that the CPU does not have
//! (20000000H, 80860000H, C0000000H), which hold the registers of the highest basic leaf there. All is kept as it
//! stood; `CpuidTable::state` knows the announced maxima. Which CPU `-1` ran on is not told, and is called 0 here.

use std::fmt::Write;

use cpusieve_model::{CpuidEntry, Registers, Snapshot};

use crate::diagnostic::{Log, quote};
use crate::machine::Machine;
use crate::text::{Lines, Scan, hex_digits, prepare};
use crate::{Format, Parsed};

/// What a line of registers looks like, for messages.
pub(crate) const EXPECTED: &str = "`0x00000007 0x00: eax=0x... ebx=0x... ecx=0x... edx=0x...`";

/// The length of the line that every release prints for subleaves below 100H, its end included.
const LINE: usize = 80;

/// Reads the output of `cpuid -r`, with one or many CPUs.
#[must_use]
pub fn parse(name: &str, bytes: &[u8]) -> Parsed {
    let mut log = Log::new(name);
    let text = prepare(&mut log, bytes);
    let mut machine = Machine::new();
    let mut lines = Lines::new(&text);
    loop {
        while let Some(entry) = usual_line(lines.rest()) {
            lines.skip_line_of(LINE);
            machine.entry(&mut log, lines.number(), entry.leaf, entry.subleaf, entry.registers);
        }
        let Some((number, line)) = lines.next(&mut log) else { break };
        other_line(&mut log, &mut machine, number, line);
    }
    if machine.is_empty() {
        log.error_expected(0, "no line of registers", EXPECTED);
    }
    log.finish(Format::CpuidR, machine.finish())
}

/// The line at its fixed columns, as the tool prints it. Nearly all lines of real dumps; twice as fast as [`entry`].
#[inline]
fn usual_line(rest: &[u8]) -> Option<CpuidEntry> {
    let (leaf, rest) = rest.strip_prefix(b"   0x")?.split_first_chunk::<8>()?;
    let (subleaf, rest) = rest.strip_prefix(b" 0x")?.split_first_chunk::<2>()?;
    let (eax, rest) = rest.strip_prefix(b": eax=0x")?.split_first_chunk::<8>()?;
    let (ebx, rest) = rest.strip_prefix(b" ebx=0x")?.split_first_chunk::<8>()?;
    let (ecx, rest) = rest.strip_prefix(b" ecx=0x")?.split_first_chunk::<8>()?;
    let (edx, rest) = rest.strip_prefix(b" edx=0x")?.split_first_chunk::<8>()?;
    rest.strip_prefix(b"\n")?;
    let registers =
        Registers { eax: hex_digits(eax)?, ebx: hex_digits(ebx)?, ecx: hex_digits(ecx)?, edx: hex_digits(edx)? };
    Some(CpuidEntry { leaf: hex_digits(leaf)?, subleaf: hex_digits(subleaf)?, registers })
}

/// Any other line: blank, the head of a CPU, or registers written in another way.
fn other_line(log: &mut Log, machine: &mut Machine, number: u32, line: &[u8]) {
    let line = line.trim_ascii();
    if line.is_empty() {
        return;
    }
    if let Some(entry) = entry(line) {
        machine.entry(log, number, entry.leaf, entry.subleaf, entry.registers);
    } else if let Some(id) = head(line) {
        machine.start(log, number, Some(id));
    } else {
        log.ignored.lines += 1;
        log.warning_expected(number, format!("{} is not read", quote(line)), EXPECTED);
    }
}

/// Registers with any number of blanks and digits; the subleaf may be missing, as in releases before 2009.
pub(crate) fn entry(line: &[u8]) -> Option<CpuidEntry> {
    let mut scan = Scan(line.trim_ascii());
    let leaf = scan.word(b"0x").and_then(|()| scan.hex())?;
    let subleaf = if scan.blanks() { scan.word(b"0x").and_then(|()| scan.hex())? } else { 0 };
    scan.one_of(b":")?;
    let mut registers = [0; 4];
    for (register, name) in registers.iter_mut().zip([b"eax=", b"ebx=", b"ecx=", b"edx="]) {
        scan.blanks();
        scan.word(name)?;
        scan.word(b"0x")?;
        // Fewer than eight digits are a line that was cut off, not a small number.
        *register = scan.hex_exactly::<8>()?;
    }
    let [eax, ebx, ecx, edx] = registers;
    scan.0.is_empty().then_some(CpuidEntry { leaf, subleaf, registers: Registers { eax, ebx, ecx, edx } })
}

/// The number in `CPU 3:`; 0 for `CPU:`.
pub(crate) fn head(line: &[u8]) -> Option<u32> {
    let mut scan = Scan(line.trim_ascii());
    scan.word(b"CPU")?;
    let id = if scan.blanks() { scan.decimal()? } else { 0 };
    scan.one_of(b":")?;
    scan.0.is_empty().then_some(id)
}

/// The snapshot's CPUID tables as `cpuid -r` prints them, so that `cpuid -f` reads them. CPUs of which no CPUID was
/// seen are left out.
#[must_use]
pub fn print_cpuid_r(snapshot: &Snapshot) -> String {
    let seen = || snapshot.cpus.iter().filter(|cpu| !cpu.cpuid.is_empty());
    let entries: usize = seen().map(|cpu| cpu.cpuid.len()).sum();
    let mut text = String::with_capacity(entries.saturating_mul(LINE) + seen().count().saturating_mul(16));
    for cpu in seen() {
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "CPU {}:", cpu.id);
        for CpuidEntry { leaf, subleaf, registers: Registers { eax, ebx, ecx, edx } } in cpu.cpuid.entries() {
            let _infallible = writeln!(
                text,
                "   {leaf:#010x} {subleaf:#04x}: eax={eax:#010x} ebx={ebx:#010x} ecx={ecx:#010x} edx={edx:#010x}"
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_at_fixed_columns_and_at_any() {
        let usual = b"   0x00000007 0x01: eax=0x00000020 ebx=0x00000001 ecx=0x00000002 edx=0xffffffff\n";
        assert_eq!(usual.len(), LINE);
        let want =
            CpuidEntry { leaf: 7, subleaf: 1, registers: Registers { eax: 0x20, ebx: 1, ecx: 2, edx: 0xffff_ffff } };
        assert_eq!(usual_line(usual), Some(want));
        assert_eq!(entry(usual), Some(want));
        assert_eq!(entry(b"0x7 0x1: EAX=0x00000020 ebx=0x00000001  ecx=0x00000002 edx=0xFFFFFFFF"), Some(want));
        for end in ["0xffffffff0", "0xfffffff", "0xffffffff x", "ffffffff"] {
            let line = format!("0x7 0x1: eax=0x00000020 ebx=0x00000001 ecx=0x00000002 edx={end}");
            assert_eq!(entry(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn heads_name_a_cpu_or_none() {
        assert_eq!(head(b"CPU 12:"), Some(12));
        assert_eq!(head(b"CPU:"), Some(0));
        assert_eq!(head(b"CPU 12: x"), None);
        assert_eq!(head(b"CPU x:"), None);
    }

    #[test]
    fn what_is_not_registers_is_named_by_line() {
        let text = b"CPU 0:\n   0x00000000 0x00: eax=0x0000001c ebx=0x6874\n\nnoise\n";
        let parsed = parse("f", text);
        assert_eq!(parsed.diagnostics.iter().map(|d| d.line).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(parsed.ignored.lines, 2);
        assert!(
            parsed.diagnostics[1].to_string().starts_with("f:4: \"noise\" is not read; expected `0x"),
            "{}",
            parsed.diagnostics[1]
        );
    }
}
