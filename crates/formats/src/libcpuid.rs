//! libcpuid's raw dumps (`cpuid_serialize_raw_data`), and its tests: a dump, a line of dashes, what libcpuid makes of it.
//!
//! The dump is either an AIDA64 dump or libcpuid's own form, `basic_cpuid[1]=00660f01 00040800 3ed8320b 178bfbff`,
//! where the index is the leaf, the leaf above 80000000H, or the subleaf. libcpuid asks for 32 leaves of both ranges
//! whatever the CPU announces, so that what lies above the maximum repeats the highest leaf; that is dropped here.
//! `ffffffff` four times marks an entry that was not read.

use cpusieve_model::{CpuidEntry, CpuidTable, Registers};

use crate::diagnostic::{Log, quote};
use crate::machine::Machine;
use crate::text::{Lines, Scan, prepare};
use crate::{Format, Parsed, aida64};

const EXPECTED: &str = "`basic_cpuid[1]=00000000 00000000 00000000 00000000`";

/// The arrays of `struct cpu_raw_data_t`: the leaf they hold, and whether the index is added to it.
const ARRAYS: [(&[u8], u32, bool); 7] = [
    (b"basic_cpuid", 0, true),
    (b"ext_cpuid", 0x8000_0000, true),
    (b"intel_fn4", 0x4, false),
    (b"intel_fn11", 0xb, false),
    (b"intel_fn12h", 0x12, false),
    (b"intel_fn14h", 0x14, false),
    (b"amd_fn8000001dh", 0x8000_001d, false),
];

/// Fields that precede the arrays.
const FIELDS: [&[u8]; 2] = [b"version", b"build_date"];

/// Reads a raw dump or a test.
#[must_use]
pub fn parse(name: &str, bytes: &[u8]) -> Parsed {
    let mut log = Log::new(name);
    let text = prepare(&mut log, bytes);
    let (dump, decoded_lines) = split(&text);
    log.ignored.lines += decoded_lines;
    if !is_native(dump) {
        let parsed = aida64::parse(name, dump);
        log.absorb(&parsed, 0);
        return log.finish(Format::Libcpuid, parsed.snapshot);
    }
    let mut machine = Machine::new();
    let mut lines = Lines::new(dump);
    while let Some((number, line)) = lines.next(&mut log) {
        native_line(&mut log, &mut machine, number, line.trim_ascii());
    }
    if machine.is_empty() {
        log.error_expected(0, "no line of registers", EXPECTED);
    }
    let mut snapshot = machine.finish();
    for cpu in &mut snapshot.cpus {
        let announced = announced(&cpu.cpuid);
        log.ignored.values += (cpu.cpuid.len() - announced.len()) as u64;
        cpu.cpuid = announced;
    }
    log.finish(Format::Libcpuid, snapshot)
}

/// The dump, and the number of lines of the decoded part behind it.
fn split(text: &[u8]) -> (&[u8], u64) {
    let mut lines = Lines::new(text);
    loop {
        let start = text.len() - lines.rest().len();
        let Some((_, line)) = lines.next_of_any_length() else { return (text, 0) };
        if is_separator(line) {
            let decoded = lines.rest().split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
            return (text.get(..start).unwrap_or(text), decoded.count() as u64);
        }
    }
}

/// The line of dashes between a test's dump and what is expected of it.
pub(crate) fn is_separator(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    line.len() >= 20 && line.iter().all(|&byte| byte == b'-')
}

fn is_native(dump: &[u8]) -> bool {
    let mut lines = Lines::new(dump);
    std::iter::from_fn(|| lines.next_of_any_length()).any(|(_, line)| native(line.trim_ascii()).is_some())
}

fn native_line(log: &mut Log, machine: &mut Machine, number: u32, line: &[u8]) {
    let key = line.split(|&byte| byte == b'=').next().unwrap_or_default();
    if line.is_empty() || FIELDS.contains(&key) {
        return;
    }
    if let Some(CpuidEntry { leaf, subleaf, registers }) = native(line) {
        if [registers.eax, registers.ebx, registers.ecx, registers.edx] == [u32::MAX; 4] {
            log.ignored.values += 1;
        } else if machine.cpu().and_then(|cpu| cpu.cpuid.get(leaf, subleaf)) != Some(registers) {
            // `basic_cpuid[4]` and `intel_fn4[0]` are the same entry.
            machine.entry(log, number, leaf, subleaf, registers);
        }
    } else if let Some(id) = head(line) {
        machine.start(log, number, Some(id));
    } else {
        log.ignored.lines += 1;
        log.warning_expected(number, format!("{} is not read", quote(line)), EXPECTED);
    }
}

/// `intel_fn4[0]=1c004121 01c0003f 0000003f 00000000`
pub(crate) fn native(line: &[u8]) -> Option<CpuidEntry> {
    let bracket = line.iter().position(|&byte| byte == b'[')?;
    let (name, rest) = line.split_at_checked(bracket)?;
    let &(_, base, adds) = ARRAYS.iter().find(|(array, ..)| *array == name)?;
    let mut scan = Scan(rest);
    scan.one_of(b"[")?;
    let index = scan.decimal().filter(|&index| index < 0x1000)?;
    scan.word(b"]=")?;
    let mut values = [0; 4];
    for value in &mut values {
        scan.blanks();
        *value = scan.hex_exactly::<8>()?;
    }
    let [eax, ebx, ecx, edx] = values;
    let (leaf, subleaf) = if adds { (base + index, 0) } else { (base, index) };
    scan.0.trim_ascii().is_empty().then_some(CpuidEntry { leaf, subleaf, registers: Registers { eax, ebx, ecx, edx } })
}

/// `_________________ Logical CPU #0 _________________`
fn head(line: &[u8]) -> Option<u32> {
    let mut scan = Scan(line.trim_ascii_start());
    while scan.one_of(b"_ ").is_some() {}
    scan.word(b"Logical CPU #")?;
    scan.decimal()
}

/// The entries at or below the maximum that their range announces.
fn announced(table: &CpuidTable) -> CpuidTable {
    let within = |entry: &&CpuidEntry| {
        entry.leaf & 0xffff == 0 || table.maximum(entry.leaf).is_none_or(|maximum| entry.leaf <= maximum)
    };
    table.entries().iter().filter(within).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NATIVE: &str = "version=0.4.1\n_________________ Logical CPU #1 _________________\n\
        basic_cpuid[0]=00000004 756e6547 6c65746e 49656e69\nbasic_cpuid[4]=1c004121 01c0003f 0000003f 00000000\n\
        basic_cpuid[5]=1c004121 01c0003f 0000003f 00000000\nbasic_cpuid[3]=ffffffff ffffffff ffffffff ffffffff\n\
        ext_cpuid[0]=80000001 00000000 00000000 00000000\nintel_fn4[0]=1c004121 01c0003f 0000003f 00000000\n\
        intel_fn4[1]=1c004122 01c0003f 0000003f 00000000\nintel_fn11[0]=1c004121 01c0003f 0000003f 00000000\n";

    #[test]
    fn native_dumps_lose_what_lies_above_the_maximum() {
        let parsed = parse("f", NATIVE.as_bytes());
        assert_eq!(parsed.diagnostics, []);
        let cpu = &parsed.snapshot.cpus[0];
        let seen: Vec<(u32, u32)> = cpu.cpuid.entries().iter().map(|entry| (entry.leaf, entry.subleaf)).collect();
        assert_eq!((cpu.id, seen), (1, vec![(0, 0), (4, 0), (4, 1), (0x8000_0000, 0)]));
        assert_eq!(parsed.ignored.values, 3);
    }

    #[test]
    fn what_a_test_expects_is_no_input() {
        let test = format!("{NATIVE}{}\nx86\ngeneral\n6\n", "-".repeat(80));
        let parsed = parse("f", test.as_bytes());
        assert_eq!((parsed.diagnostics.len(), parsed.ignored.lines), (0, 3));
        let aida = format!("CPUID 00000000: 00000001-00000002-00000003-00000004\n{}\nx86\n", "-".repeat(80));
        let parsed = parse("f", aida.as_bytes());
        assert_eq!(parsed.snapshot.cpus[0].cpuid.len(), 1);
        assert_eq!((parsed.diagnostics.len(), parsed.ignored.lines), (0, 1));
    }

    #[test]
    fn a_line_that_is_no_entry_is_reported() {
        let parsed = parse("f", format!("{NATIVE}arm_midr=0\nbasic_cpuid[1]=00000000\n").as_bytes());
        assert_eq!(parsed.diagnostics.iter().map(|d| d.line).collect::<Vec<_>>(), [11, 12]);
    }
}
