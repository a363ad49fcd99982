//! `kcpuid -r` of the Linux source tree (`tools/arch/x86/kcpuid/kcpuid.c:raw_dump_range`): one CPU, a heading for each
//! range, subleaves in decimal below a line `0x00000007: subleafs:`.
//!
//! kcpuid reads every leaf up to the range's maximum and leaves out what is all zero (`cpuid_store`). What it left out
//! is therefore known to be zero as long as something that follows shows that the dump went on; that is filled in here.

use std::collections::BTreeSet;

use cpusieve_model::{CpuidEntry, Registers};

use crate::diagnostic::{Log, quote};
use crate::machine::Machine;
use crate::text::{Lines, Scan, prepare};
use crate::{Format, Parsed};

const EXPECTED: &str = "`0x00000001: EAX=0x..., EBX=0x..., ECX=0x..., EDX=0x...`";

/// A line of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// `Basic Leafs :` and its like.
    Range,
    /// `0x00000007: subleafs:`
    Leaf(u32),
    /// A leaf without subleaves, and its registers.
    Entry(u32, Registers),
    /// A subleaf of the leaf named last, and its registers.
    Subleaf(u32, Registers),
}

/// Reads the output of `kcpuid -r`, or of `kcpuid -l LEAF`.
#[must_use]
pub fn parse(name: &str, bytes: &[u8]) -> Parsed {
    let mut log = Log::new(name);
    let text = prepare(&mut log, bytes);
    let mut machine = Machine::new();
    let mut seen = Seen::default();
    let mut lines = Lines::new(&text);
    while let Some((number, line)) = lines.next(&mut log) {
        let trimmed = line.trim_ascii();
        if trimmed.is_empty() || trimmed.iter().all(|&byte| byte == b'=') {
            continue;
        }
        match read_line(trimmed) {
            Some(Line::Range) => seen.range(),
            Some(Line::Leaf(leaf)) => seen.leaf(leaf, true),
            Some(Line::Entry(leaf, registers)) => {
                seen.leaf(leaf, false);
                machine.entry(&mut log, number, leaf, 0, registers);
            }
            Some(Line::Subleaf(subleaf, registers)) => match seen.leaf {
                Some(leaf) => machine.entry(&mut log, number, leaf, subleaf, registers),
                None => misread(&mut log, number, trimmed, "a line `0x...: subleafs:` before it"),
            },
            None => misread(&mut log, number, trimmed, EXPECTED),
        }
    }
    if machine.is_empty() {
        log.error_expected(0, "no line of registers", EXPECTED);
    }
    fill_zeros(&mut log, &mut machine, &seen);
    log.finish(Format::Kcpuid, machine.finish())
}

fn misread(log: &mut Log, number: u32, line: &[u8], expected: &str) {
    log.ignored.lines += 1;
    log.warning_expected(number, format!("{} is not read", quote(line)), expected);
}

/// What the order of the lines says about what was left out.
#[derive(Debug, Default)]
struct Seen {
    /// The leaf whose subleaves follow.
    leaf: Option<u32>,
    /// The highest leaf since the last heading.
    last: Option<u32>,
    /// Whether there are headings, that is, whether whole ranges are printed.
    headings: bool,
    /// Leaves that were printed with subleaves.
    with_subleaves: BTreeSet<u32>,
    /// Leaves after which their range ended with a new heading.
    ended: BTreeSet<u32>,
}

impl Seen {
    fn range(&mut self) {
        self.headings = true;
        self.ended.extend(self.last.take());
        self.leaf = None;
    }

    fn leaf(&mut self, leaf: u32, subleaves: bool) {
        self.last = Some(leaf);
        self.leaf = subleaves.then_some(leaf);
        if subleaves {
            self.with_subleaves.insert(leaf);
        }
    }
}

/// Puts in the all-zero entries that kcpuid read and did not print.
fn fill_zeros(log: &mut Log, machine: &mut Machine, seen: &Seen) {
    let Some(table) = machine.cpu().filter(|_| seen.headings).map(|cpu| cpu.cpuid.clone()) else {
        return;
    };
    let mut zeros = Vec::new();
    let mut before: Option<u32> = None;
    for leaf in leaves(table.entries()) {
        if let Some(before) = before.filter(|&before| before >> 16 == leaf >> 16) {
            zeros.extend((before.saturating_add(1)..leaf).map(|missing| (missing, 0)));
        }
        if seen.ended.contains(&leaf) {
            let maximum = table.maximum(leaf).filter(|&maximum| maximum >> 16 == leaf >> 16).unwrap_or(leaf);
            zeros.extend((leaf.saturating_add(1)..=maximum).map(|missing| (missing, 0)));
        }
        before = Some(leaf);
        if seen.with_subleaves.contains(&leaf) {
            let entries = table.leaf(leaf);
            let last = entries.last().map_or(0, |entry| entry.subleaf);
            // Leaf 7 announces how many subleaves it has, and kcpuid reads them all (32 at most).
            let announced = entries.first().filter(|first| leaf == 7 && first.subleaf == 0);
            let last = last.max(announced.map_or(0, |first| first.registers.eax & 0xff)).min(31);
            zeros.extend(
                (1..=last).filter(|&subleaf| table.get(leaf, subleaf).is_none()).map(|missing| (leaf, missing)),
            );
        }
        // A hostile maximum asks for 65,536 leaves; the machine's own limit is lower.
        zeros.truncate(crate::limits::MAX_ENTRIES);
    }
    for (leaf, subleaf) in zeros {
        machine.entry(log, 0, leaf, subleaf, Registers::default());
    }
}

/// The leaves of sorted entries, each once.
fn leaves(entries: &[CpuidEntry]) -> impl Iterator<Item = u32> + '_ {
    entries.chunk_by(|a, b| a.leaf == b.leaf).filter_map(|group| group.first()).map(|entry| entry.leaf)
}

/// A line of the format, without the blanks around it.
pub(crate) fn read_line(line: &[u8]) -> Option<Line> {
    if line.strip_suffix(b" Leafs :").is_some() {
        return Some(Line::Range);
    }
    let mut scan = Scan(line);
    if scan.word(b"0x").is_none() {
        let subleaf = scan.decimal()?;
        scan.one_of(b":")?;
        return registers(scan).map(|registers| Line::Subleaf(subleaf, registers));
    }
    let leaf = scan.hex()?;
    scan.one_of(b":")?;
    if scan.0.trim_ascii().eq_ignore_ascii_case(b"subleafs:") {
        return Some(Line::Leaf(leaf));
    }
    registers(scan).map(|registers| Line::Entry(leaf, registers))
}

/// ` EAX=0x00000000, EBX=0x00000000, ECX=0x00000000, EDX=0x00000000`
fn registers(mut scan: Scan<'_>) -> Option<Registers> {
    let mut values = [0; 4];
    for (value, name) in values.iter_mut().zip([b"EAX=", b"EBX=", b"ECX=", b"EDX="]) {
        scan.blanks();
        // The names in capitals and the commas tell kcpuid from cpuid.
        scan.0 = scan.0.strip_prefix(name)?;
        scan.word(b"0x")?;
        *value = scan.hex_exactly::<8>()?;
        let _comma = scan.one_of(b",");
    }
    let [eax, ebx, ecx, edx] = values;
    scan.0.trim_ascii().is_empty().then_some(Registers { eax, ebx, ecx, edx })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "Basic Leafs :\n================\n\
        0x00000000: EAX=0x00000009, EBX=0x68747541, ECX=0x444d4163, EDX=0x69746e65\n\
        0x00000001: EAX=0x00a00f11, EBX=0x01020800, ECX=0xfffa3203, EDX=0x178bfbff\n\
        0x00000007: subleafs:\n  0: EAX=0x00000002, EBX=0x219c07ab, ECX=0x00400684, EDX=0x00000010\n\
        0x00000008: subleafs:\n  0: EAX=0x00000001, EBX=0x00000000, ECX=0x00000000, EDX=0x00000000\n 11: \
        EAX=0x00000010, EBX=0x00000000, ECX=0x00000001, EDX=0x00000000\n\
        Extended Leafs :\n================\n\
        0x80000000: EAX=0x80000008, EBX=0x68747541, ECX=0x444d4163, EDX=0x69746e65\n";

    #[test]
    fn what_kcpuid_left_out_is_zero_and_what_it_may_not_have_reached_is_unknown() {
        let parsed = parse("f", DUMP.as_bytes());
        assert_eq!(parsed.diagnostics, []);
        let table = &parsed.snapshot.cpus[0].cpuid;
        let zero = Some(Registers::default());
        assert_eq!(table.get(8, 11).map(|registers| registers.eax), Some(0x10), "subleaves are decimal");
        assert_eq!(table.get(8, 10), zero);
        assert_eq!((table.get(7, 1), table.get(7, 2), table.get(7, 3)), (zero, zero, None));
        assert_eq!((table.get(6, 0), table.get(9, 0), table.get(10, 0)), (zero, zero, None));
        assert_eq!(table.get(0x8000_0001, 0), None, "the dump may have been cut off here");
    }

    #[test]
    fn a_single_leaf_fills_nothing_in() {
        let parsed =
            parse("f", b"0x00000007: subleafs:\n  0: EAX=0x00000002, EBX=0x00000001, ECX=0x00000002, EDX=0x00000003\n");
        assert_eq!(parsed.snapshot.cpus[0].cpuid.len(), 1);
    }

    #[test]
    fn subleaves_need_a_leaf() {
        let parsed =
            parse("f", b"Basic Leafs :\n  0: EAX=0x00000000, EBX=0x00000000, ECX=0x00000000, EDX=0x00000000\n");
        assert_eq!(parsed.diagnostics.iter().map(|d| d.line).collect::<Vec<_>>(), [0, 2]);
    }
}
