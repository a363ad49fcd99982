//! A Linux kernel on a vCPU: what it reads hangs on what it switched on, and that on what it read.

use std::collections::BTreeMap;

use cpusieve_model::{CpuidBit, CpuidEntry, CpuidTable, KvmCpuidEntry, MsrReading, MsrTable, Register, State};

use super::running::{Running, running};
use crate::linux::boot::{self, Input};

/// IA32_MISC_ENABLE
const MISC_ENABLE: u32 = 0x1a0;
/// MSR_PLATFORM_INFO
const PLATFORM_INFO: u32 = 0xce;
/// MSR_MISC_FEATURES_ENABLES
const MISC_FEATURES_ENABLES: u32 = 0x140;
/// MSR_AMD64_LS_CFG
const LS_CFG: u32 = 0xc001_1020;
/// XSAVE: 1.ECX\[26\].
const XSAVE: CpuidBit = CpuidBit::new(1, 0, Register::Ecx, 26);
/// `KVM_CPUID_FLAG_SIGNIFCANT_INDEX`
const SIGNIFICANT_INDEX: u32 = 1;

/// A kernel that has booted on a vCPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booted {
    /// What CPUID returns to it, once it runs.
    pub cpuid: CpuidTable,
    /// What it prints, and why.
    pub boot: boot::Output,
}

/// The table of `KVM_SET_CPUID2`, as KVM looks entries up: the subleaf counts where its flag says so. Of two entries for
/// the same leaf, the first answers (`cpuid.c:cpuid_entry2_find`).
#[must_use]
pub fn table(entries: &[KvmCpuidEntry]) -> CpuidTable {
    let looked_up = |entry: &KvmCpuidEntry| CpuidEntry {
        leaf: entry.leaf,
        subleaf: if entry.flags & SIGNIFICANT_INDEX == 0 { 0 } else { entry.subleaf },
        registers: entry.registers,
    };
    // The table keeps the last of several; the sort keeps the order of equals.
    let mut sorted: Vec<CpuidEntry> = entries.iter().rev().map(looked_up).collect();
    sorted.sort_by_key(|entry| (entry.leaf, entry.subleaf));
    sorted.into_iter().collect()
}

/// What a guest reads of the MSRs that tell a kernel what its CPU is: what the VMM wrote, and what KVM answers by itself
/// (`arch/x86/kvm/x86.c:kvm_vcpu_reset`, `kvm_arch_vcpu_create`). `ignores` is the parameter `kvm.ignore_msrs`: reading an
/// MSR that KVM does not know then gives zero.
#[must_use]
pub fn msrs(written: &BTreeMap<u32, u64>, ignores: bool) -> MsrTable {
    let mut table = MsrTable::default();
    table.insert(LS_CFG, if ignores { MsrReading::Value(0) } else { MsrReading::Unreadable });
    // Fast strings on; faults of CPUID can be had, and are off.
    let own = [(MISC_ENABLE, 1), (PLATFORM_INFO, 1 << 31), (MISC_FEATURES_ENABLES, 0)];
    for (index, value) in own.into_iter().chain(written.iter().map(|(&index, &value)| (index, value))) {
        table.insert(index, MsrReading::Value(value));
    }
    table
}

/// Boots a kernel of `tree` on a vCPU with the table `input.cpuid`, under KVM of a kernel of `host_tree`.
#[must_use]
pub fn boot(input: &Input<'_>, tree: usize, host_tree: usize) -> Booted {
    let table = input.cpuid;
    let attempt = |state: Running| {
        let cpuid = running(table, &state, host_tree);
        let boot = boot::boot(&Input { cpuid: &cpuid, ..*input }, tree);
        let after = Running::linux(table, boot.capabilities(), tree);
        (Booted { cpuid: running(table, &after, host_tree), boot }, after)
    };
    // A kernel that has XSAVE hardly ever leaves it off; protection keys it reports by itself when it switches them on.
    let guess = Running { osxsave: table.state(XSAVE) == State::Present, ..Running::default() };
    let (booted, after) = attempt(guess);
    if after.osxsave == guess.osxsave { booted } else { attempt(Running { osxsave: after.osxsave, ..guess }).0 }
}
