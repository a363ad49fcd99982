//! Everything that this machine's stages show, in one [`Snapshot`].

use cpusieve_model::{Cpu, CpuidTable, KvmView, MissingPart, MsrTable, Snapshot};

use crate::cpuid::Enumeration;
use crate::files::Root;
use crate::{Refusal, affinity, cpuid, kvm, linux, msr, qemu};

/// Which parts are recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Only {
    /// All of them.
    #[default]
    Everything,
    /// CPUID of all CPUs, and nothing else.
    Cpuid,
}

/// What [`record`] does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Which parts are recorded.
    pub only: Only,
}

impl Options {
    /// Options that record these parts.
    #[must_use]
    pub fn only(only: Only) -> Self {
        Self { only }
    }
}

/// Records this machine. What it does not show is named in [`Snapshot::missing`]; nothing is an error.
///
/// CPUID and MSRs are read on each online CPU, on which a thread is pinned meanwhile. The `flags` lines stay in the
/// text of `/proc/cpuinfo`: [`Cpu::cpuinfo`] is left to whoever parses that.
#[must_use]
pub fn record(options: Options) -> Snapshot {
    let mut missing = Vec::new();
    let everything = options.only == Only::Everything;
    let cpus = cpus(everything, &mut missing);
    let title = cpus.first().and_then(|cpu| brand(&cpu.cpuid));
    let mut snapshot = Snapshot { title, cpus, ..Snapshot::default() };
    if everything {
        snapshot.linux = Some(linux::view(&mut missing));
        snapshot.kvm = kvm_view(snapshot.cpus.first().map(|cpu| cpu.id), &mut missing);
        snapshot.qemu = qemu::find(&mut missing);
    }
    snapshot.missing = missing;
    snapshot
}

/// What KVM answers on a CPU: it hands on registers that tell the CPU's place in the machine, and the first CPU is the
/// one that others take for the machine.
fn kvm_view(cpu: Option<u32>, missing: &mut Vec<MissingPart>) -> Option<KvmView> {
    let ask = |_| {
        let mut missing = Vec::new();
        (kvm::view(&mut missing), missing)
    };
    let asked = cpu.and_then(|cpu| affinity::on_each(&[cpu], ask).pop());
    match asked {
        Some((_, Ok((view, refused)))) => {
            missing.extend(refused);
            view
        }
        _ => kvm::view(missing),
    }
}

/// What one visit to a CPU brought.
struct Visit {
    found: Enumeration,
    msrs: Option<Result<MsrTable, Refusal>>,
}

fn cpus(with_msrs: bool, missing: &mut Vec<MissingPart>) -> Vec<Cpu> {
    let online = match affinity::online_below(&Root::machine()) {
        Ok(online) => online,
        Err(refusal) => {
            missing.push(refusal.missing("CPUID", None));
            return Vec::new();
        }
    };
    let visit = |cpu| {
        let found = cpuid::enumerate_here();
        let msrs = with_msrs.then(|| msr::read(cpu, found.table.vendor()));
        Visit { found, msrs }
    };
    let mut cpus = Vec::with_capacity(online.len());
    let mut losses = Losses::default();
    for (id, visited) in affinity::on_each(&online, visit) {
        match visited {
            Ok(visit) => {
                losses.cut(id, &visit.found.cut);
                let msrs = visit.msrs.and_then(|msrs| msrs.map_err(|refusal| losses.msrs(id, refusal)).ok());
                cpus.push(Cpu { id, cpuid: visit.found.table, msrs: msrs.unwrap_or_default(), cpuinfo: None });
            }
            Err(refusal) => losses.cpu(id, refusal),
        }
    }
    losses.name(missing);
    cpus
}

/// What was lost on which CPUs, with the first reason of each kind: one reason for a thousand CPUs is enough.
#[derive(Default)]
struct Losses {
    unvisited: (Vec<u32>, Option<Refusal>),
    unread: (Vec<u32>, Option<Refusal>),
    cut: (Vec<u32>, Vec<u32>),
}

impl Losses {
    fn cpu(&mut self, cpu: u32, refusal: Refusal) {
        self.unvisited.0.push(cpu);
        self.unvisited.1.get_or_insert(refusal);
    }

    fn msrs(&mut self, cpu: u32, refusal: Refusal) {
        self.unread.0.push(cpu);
        self.unread.1.get_or_insert(refusal);
    }

    fn cut(&mut self, cpu: u32, leaves: &[u32]) {
        if !leaves.is_empty() {
            self.cut.0.push(cpu);
            self.cut.1.extend(leaves);
        }
    }

    fn name(mut self, missing: &mut Vec<MissingPart>) {
        if let (cpus, Some(refusal)) = &self.unvisited {
            let remedy = "run outside the cpuset that keeps this process from these CPUs";
            missing.push(refusal.missing(&format!("CPUID of {}", listed(cpus)), Some(remedy)));
        }
        if let (cpus, Some(refusal)) = &self.unread {
            missing.push(refusal.missing(&format!("MSRs of {}", listed(cpus)), msr::remedy(refusal)));
        }
        let (cpus, leaves) = &mut self.cut;
        leaves.sort_unstable();
        leaves.dedup();
        if !leaves.is_empty() {
            let leaves: Vec<_> = leaves.iter().map(|leaf| format!("{leaf:X}H")).collect();
            let why = format!("more leaves or subleaves are announced behind {} than any CPU has", leaves.join(", "));
            missing.push(MissingPart { what: format!("CPUID of {}", listed(cpus)), why, remedy: None });
        }
    }
}

/// CPU numbers as the kernel lists them: `CPU 0`, `CPUs 0-3,8`.
fn listed(cpus: &[u32]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(cpu) => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let range = |&(first, last): &(u32, u32)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    let list = ranges.iter().map(range).collect::<Vec<_>>().join(",");
    if cpus.len() == 1 { format!("CPU {list}") } else { format!("CPUs {list}") }
}

/// The brand string of leaves 80000002H to 80000004H, without the white space around it; bytes that are not printable
/// become `?`. `None` if the leaves were not seen or hold no text.
#[must_use]
pub fn brand(cpuid: &CpuidTable) -> Option<String> {
    let mut bytes = Vec::with_capacity(48);
    for leaf in 0x8000_0002..=0x8000_0004 {
        let registers = cpuid.get(leaf, 0)?;
        let words = [registers.eax, registers.ebx, registers.ecx, registers.edx];
        bytes.extend(words.into_iter().flat_map(u32::to_le_bytes));
    }
    let printable = |&byte: &u8| if (0x20..0x7f).contains(&byte) { char::from(byte) } else { '?' };
    let text: String = bytes.iter().take_while(|&&byte| byte != 0).map(printable).collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::io;

    use cpusieve_model::Registers;

    use super::*;

    #[test]
    fn cpus_are_listed_as_the_kernel_does() {
        assert_eq!(listed(&[3]), "CPU 3");
        assert_eq!(listed(&[0, 1, 2, 5, 7, 8]), "CPUs 0-2,5,7-8");
        assert_eq!(listed(&[u32::MAX]), format!("CPU {}", u32::MAX));
    }

    #[test]
    fn losses_are_named_once_with_all_cpus() {
        let mut losses = Losses::default();
        for cpu in 4..8 {
            losses.cpu(cpu, Refusal::Pin { cpu, source: io::Error::from_raw_os_error(22) });
        }
        losses.msrs(0, Refusal::file("/dev/cpu/0/msr".as_ref(), io::Error::from_raw_os_error(2)));
        losses.cut(1, &[0xd, 4]);
        losses.cut(2, &[4]);
        let mut missing = Vec::new();
        losses.name(&mut missing);
        let what: Vec<_> = missing.iter().map(|part| part.what.as_str()).collect();
        assert_eq!(what, ["CPUID of CPUs 4-7", "MSRs of CPU 0", "CPUID of CPUs 1-2"]);
        assert_eq!(missing[0].why, "sched_setaffinity to CPU 4: Invalid argument (os error 22)");
        assert!(missing[1].remedy.as_deref().unwrap().contains("modprobe msr"));
        assert!(missing[2].why.contains("4H, DH"), "{}", missing[2].why);
    }

    #[test]
    fn a_brand_is_text_or_nothing() {
        let mut table = CpuidTable::default();
        assert_eq!(brand(&table), None);
        for leaf in 0x8000_0002..=0x8000_0004 {
            table.insert(leaf, 0, Registers::default());
        }
        assert_eq!(brand(&table), None);
        let word = |text: &[u8; 4]| u32::from_le_bytes(*text);
        let begin = Registers { eax: word(b"  AM"), ebx: word(b"D EP"), ecx: word(b"YC\0x"), edx: 0 };
        table.insert(0x8000_0002, 0, begin);
        assert_eq!(brand(&table).as_deref(), Some("AMD EPYC"));
    }
}
