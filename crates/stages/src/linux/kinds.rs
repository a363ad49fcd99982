//! CPUs of different kinds in one machine: what a kernel knows of all of them is what every kind has.

use cpusieve_model::{Cpu, CpuidEntry, CpuidTable, Snapshot};

/// The CPUs that differ from the first one of which CPUID was seen in what is not their place in the machine, one of each
/// kind; none where all are equal.
#[must_use]
pub fn others(snapshot: &Snapshot) -> Vec<&Cpu> {
    let Some(first) = snapshot.first_cpuid() else { return Vec::new() };
    let mut kinds: Vec<&Cpu> = vec![first];
    for cpu in snapshot.cpus.iter().filter(|cpu| !cpu.cpuid.is_empty()) {
        if kinds.iter().all(|kind| !std::ptr::eq(*kind, cpu) && !same_kind(&kind.cpuid, &cpu.cpuid)) {
            kinds.push(cpu);
        }
    }
    kinds.split_off(1)
}

/// Whether two CPUs announce the same, but for their numbers in the machine and for what they share with neighbours.
fn same_kind(one: &CpuidTable, other: &CpuidTable) -> bool {
    /// Topology, caches and what the operating system assigned: leaves that differ between equal CPUs.
    const OF_PLACE: [u32; 8] = [0x4, 0xb, 0x1b, 0x1f, 0x8000_001d, 0x8000_001e, 0x8000_0026, 0x4000_0000];
    let of_kind = |entry: &&CpuidEntry| !OF_PLACE.contains(&entry.leaf) && entry.leaf >> 16 != 0x4000;
    let plain = |entry: &CpuidEntry| {
        let mut entry = *entry;
        if entry.leaf == 1 {
            entry.registers.ebx &= 0x00ff_ff00;
        }
        // The current size of the XSAVE area, and the last byte of it that is in use.
        if entry.leaf == 0xd && entry.subleaf < 2 {
            entry.registers.ebx = 0;
        }
        entry
    };
    one.entries().iter().filter(of_kind).map(plain).eq(other.entries().iter().filter(of_kind).map(plain))
}
