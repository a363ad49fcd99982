//! Hosts that were met before under another number: racks are full of equal machines, and predicting one is enough.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cpusieve_model::{Cpu, CpuidTable, MsrTable, Registers, Snapshot};
use cpusieve_stages::linux::boot::Unlisted;

use crate::host::{Host, NotAHost, Setting};

/// Kinds of input that are remembered; of more, the others are predicted again.
const MOST: usize = 4096;

/// What hosts were made of inputs of CPUID and MSRs alone. It is for one [`Setting`].
#[derive(Debug, Default)]
pub struct Memory(Mutex<HashMap<Vec<Seen>, Answer>>);

/// What was made of an input.
type Answer = Arc<Result<Host, NotAHost>>;

/// What one CPU shows, but for its number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Seen {
    cpuid: CpuidTable,
    msrs: MsrTable,
    zero: bool,
}

impl Memory {
    /// The same as [`Host::of`], without asking the stages twice for inputs that differ in the numbers of CPUs alone.
    ///
    /// # Errors
    /// As [`Host::of`].
    pub fn host(
        &self,
        name: &str,
        seen: &Snapshot,
        unlisted: Unlisted,
        setting: &Setting<'_>,
    ) -> Result<Host, NotAHost> {
        let Some(key) = key(seen, unlisted) else { return Host::of(name, seen, unlisted, setting) };
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let answer = known.unwrap_or_else(|| {
            let made = Arc::new(Host::of(name, seen, unlisted, setting));
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if all.len() < MOST {
                all.insert(key, Arc::clone(&made));
            }
            made
        });
        match &*answer {
            Ok(host) => Ok(Host { name: name.to_owned(), ..host.clone() }),
            Err(error) => Err(error.clone()),
        }
    }
}

/// What the prediction of an input hangs on; `None` if it shows more than CPUID and MSRs.
fn key(seen: &Snapshot, unlisted: Unlisted) -> Option<Vec<Seen>> {
    let bare = |cpu: &Cpu| cpu.cpuinfo.is_none() && !cpu.cpuid.is_empty();
    if seen.linux.is_some() || seen.kvm.is_some() || !seen.cpus.iter().all(bare) {
        return None;
    }
    let zero = unlisted == Unlisted::Zero;
    let mut key: Vec<Seen> = Vec::new();
    for cpu in &seen.cpus {
        let one = Seen { cpuid: without_number(&cpu.cpuid), msrs: cpu.msrs.clone(), zero };
        if !key.contains(&one) {
            key.push(one);
        }
    }
    Some(key)
}

/// A table without the APIC ids: the only values in which equal CPUs of equal machines must differ, and which neither
/// Linux, KVM nor QEMU makes features of.
fn without_number(table: &CpuidTable) -> CpuidTable {
    let mut plain = CpuidTable::default();
    for entry in table.entries() {
        let Registers { mut eax, mut ebx, ecx, mut edx } = entry.registers;
        match entry.leaf {
            1 => ebx &= 0x00ff_ffff,
            0xb | 0x1f => edx = 0,
            0x8000_001e => eax = 0,
            _ => {}
        }
        plain.insert(entry.leaf, entry.subleaf, Registers { eax, ebx, ecx, edx });
    }
    plain
}
