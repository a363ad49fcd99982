//! The CPUs of one dump while it is read: numbers once, entries once, all within the limits.

use std::collections::BTreeMap;

use cpusieve_model::{Cpu, CpuidTable, MsrReading, Registers, Snapshot};

use crate::diagnostic::Log;
use crate::limits::{MAX_CPUS, MAX_ENTRIES, MAX_MSRS};

/// Where the next entry goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Current {
    /// No CPU was named yet: an entry opens one.
    None,
    /// The CPU at this index.
    Cpu(usize),
    /// A CPU that is left out, with the reason already reported.
    LeftOut,
}

/// The CPUs of one dump while it is read.
#[derive(Debug)]
pub(crate) struct Machine {
    cpus: Vec<Cpu>,
    /// Where each CPU stands in `cpus`.
    by_id: BTreeMap<u32, usize>,
    current: Current,
    /// Whether the current CPU's overflow was reported.
    full: bool,
}

impl Machine {
    pub(crate) const fn new() -> Self {
        Self { cpus: Vec::new(), by_id: BTreeMap::new(), current: Current::None, full: false }
    }

    /// Opens the CPU number `id`, or the next number that is free. A number that stands twice is left out.
    pub(crate) fn start(&mut self, log: &mut Log, line: u32, id: Option<u32>) {
        self.full = false;
        let next = self.by_id.last_key_value().map_or(0, |(&last, _)| last.saturating_add(1));
        let id = id.unwrap_or(next);
        self.current = if self.by_id.contains_key(&id) {
            log.error_expected(
                line,
                format!("CPU {id} for the second time; this part is not used"),
                "each CPU once, and one machine in one file",
            );
            Current::LeftOut
        } else if self.cpus.len() >= MAX_CPUS {
            log.error_expected(line, format!("CPU {id} is not used"), format!("at most {MAX_CPUS} CPUs"));
            Current::LeftOut
        } else {
            self.by_id.insert(id, self.cpus.len());
            self.cpus.push(Cpu { id, ..Cpu::default() });
            Current::Cpu(self.cpus.len() - 1)
        };
    }

    /// Goes back to the CPU number `id`, if it was opened before.
    pub(crate) fn go_to(&mut self, id: u32) -> bool {
        let found = self.by_id.get(&id);
        if let Some(&index) = found {
            self.current = Current::Cpu(index);
            self.full = false;
        }
        found.is_some()
    }

    /// Whether the CPU number `id` was opened and has no CPUID entry yet.
    pub(crate) fn lacks_cpuid(&self, id: u32) -> bool {
        self.by_id.get(&id).and_then(|&index| self.cpus.get(index)).is_some_and(|cpu| cpu.cpuid.is_empty())
    }

    /// Goes back to the CPU that was opened first, if there is one.
    pub(crate) fn go_to_first(&mut self) -> bool {
        let first = self.cpus.first().map(|cpu| cpu.id);
        first.is_some_and(|id| self.go_to(id))
    }

    pub(crate) const fn has_many(&self) -> bool {
        self.cpus.len() > 1
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.cpus.is_empty()
    }

    /// The CPU that is being read.
    #[inline]
    pub(crate) fn cpu(&self) -> Option<&Cpu> {
        match self.current {
            Current::Cpu(index) => self.cpus.get(index),
            Current::None | Current::LeftOut => None,
        }
    }

    /// The CPU that is being read, opened if none was named yet.
    #[inline]
    pub(crate) fn cpu_mut(&mut self, log: &mut Log, line: u32) -> Option<&mut Cpu> {
        if self.current == Current::None {
            self.start(log, line, None);
        }
        match self.current {
            Current::Cpu(index) => self.cpus.get_mut(index),
            Current::None | Current::LeftOut => None,
        }
    }

    /// Puts an entry in. The first of several entries for one leaf and subleaf counts; a second that differs is reported.
    #[inline]
    pub(crate) fn entry(&mut self, log: &mut Log, line: u32, leaf: u32, subleaf: u32, registers: Registers) {
        let Some(cpu) = self.cpu_mut(log, line) else {
            log.ignored.values += 1;
            return;
        };
        if cpu.cpuid.len() >= MAX_ENTRIES {
            self.overflow(log, line, "CPUID entries", MAX_ENTRIES);
            return;
        }
        if let Some(before) = cpu.cpuid.insert(leaf, subleaf, registers) {
            cpu.cpuid.insert(leaf, subleaf, before);
            log.ignored.values += 1;
            if before != registers {
                log.warning(
                    line,
                    format!("leaf {leaf:#x} subleaf {subleaf:#x} for the second time, with other values"),
                );
            }
        }
    }

    /// Puts an MSR reading in; the first reading of an MSR counts (many change between two reads).
    pub(crate) fn msr(&mut self, log: &mut Log, line: u32, index: u32, reading: MsrReading) {
        let Some(cpu) = self.cpu_mut(log, line) else {
            log.ignored.values += 1;
            return;
        };
        if cpu.msrs.len() >= MAX_MSRS {
            self.overflow(log, line, "MSRs", MAX_MSRS);
            return;
        }
        if let Some(before) = cpu.msrs.insert(index, reading) {
            cpu.msrs.insert(index, before);
            log.ignored.values += 1;
        }
    }

    fn overflow(&mut self, log: &mut Log, line: u32, what: &str, limit: usize) {
        log.ignored.values += 1;
        if !self.full {
            self.full = true;
            log.error_expected(line, format!("too many {what} for one CPU"), format!("at most {limit}"));
        }
    }

    /// The snapshot: the CPUs by number, under the first brand string.
    pub(crate) fn finish(self) -> Snapshot {
        let mut cpus = self.cpus;
        cpus.sort_by_key(|cpu| cpu.id);
        let title = cpus.iter().find_map(|cpu| brand(&cpu.cpuid));
        Snapshot { title, cpus, ..Snapshot::default() }
    }
}

/// The brand string of leaves 80000002H to 80000004H, without the blanks around it.
pub(crate) fn brand(table: &CpuidTable) -> Option<String> {
    let mut bytes = Vec::with_capacity(48);
    for leaf in 0x8000_0002..=0x8000_0004 {
        let Registers { eax, ebx, ecx, edx } = table.get(leaf, 0)?;
        bytes.extend([eax, ebx, ecx, edx].into_iter().flat_map(u32::to_le_bytes));
    }
    let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    let text: String =
        text.iter().map(|&byte| if (0x20..0x7f).contains(&byte) { char::from(byte) } else { '?' }).collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Format;

    const ONE: Registers = Registers { eax: 1, ebx: 0, ecx: 0, edx: 0 };

    #[test]
    fn the_first_of_two_entries_counts() {
        let (mut machine, mut log) = (Machine::new(), Log::new("f"));
        machine.entry(&mut log, 1, 7, 0, ONE);
        machine.entry(&mut log, 2, 7, 0, ONE);
        machine.entry(&mut log, 3, 7, 0, Registers::default());
        let parsed = log.finish(Format::Unknown, machine.finish());
        assert_eq!(parsed.snapshot.cpus[0].cpuid.get(7, 0), Some(ONE));
        assert_eq!((parsed.ignored.values, parsed.diagnostics.len()), (2, 1));
    }

    #[test]
    fn a_cpu_that_stands_twice_is_used_once() {
        let (mut machine, mut log) = (Machine::new(), Log::new("f"));
        for line in 1..=2 {
            machine.start(&mut log, line, Some(4));
            machine.entry(&mut log, line, line, 0, ONE);
        }
        let parsed = log.finish(Format::Unknown, machine.finish());
        assert_eq!((parsed.snapshot.cpus.len(), parsed.snapshot.cpus[0].cpuid.len()), (1, 1));
        assert_eq!((parsed.ignored.values, parsed.diagnostics[0].line), (1, 2));
    }

    #[test]
    fn cpus_entries_and_msrs_are_bounded() {
        let (mut machine, mut log) = (Machine::new(), Log::new("f"));
        for leaf in 0..=MAX_ENTRIES as u32 {
            machine.entry(&mut log, 1, leaf, 0, ONE);
            machine.msr(&mut log, 1, leaf, MsrReading::Unreadable);
        }
        assert_eq!(machine.cpus[0].cpuid.len(), MAX_ENTRIES);
        assert_eq!(machine.cpus[0].msrs.len(), MAX_MSRS);
        for id in 1..=MAX_CPUS as u32 {
            machine.start(&mut log, 1, Some(id));
        }
        assert_eq!(machine.cpus.len(), MAX_CPUS);
        assert_eq!(log.ignored.values, 2);
        assert_eq!(log.finish(Format::Unknown, machine.finish()).diagnostics.len(), 2);
    }
}
