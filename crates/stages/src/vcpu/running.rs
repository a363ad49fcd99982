//! What a guest that executes CPUID reads: the table that the VMM set, with KVM's edits at run time.

use cpusieve_model::{CpuidTable, Register, Registers, has_subleaves};

use crate::kvm::answer::{enabled_components, xstate_required_size};
use crate::linux::boot::Capabilities;

/// The state of a vCPU on which its CPUID hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// CR4.OSXSAVE (bit 18): the guest's kernel switched XSAVE on.
    pub osxsave: bool,
    /// CR4.PKE (bit 22): it switched protection keys on.
    pub pke: bool,
    /// IA32_APIC_BASE\[11\]: the local APIC is on.
    pub apic: bool,
    /// IA32_MISC_ENABLE\[18\], if the VMM switched the quirk off that keeps KVM from showing it; `None` otherwise.
    pub mwait: Option<bool>,
    /// XCR0.
    pub xcr0: u64,
    /// IA32_XSS.
    pub xss: u64,
    /// The VMM lets the guest halt the CPU, so that there is nobody to kick.
    pub hlt_in_guest: bool,
    /// IA32_TSX_CTRL\[1\]: TSX is hidden.
    pub tsx_hidden: bool,
    /// Hyper-V's control of the invariant TSC is offered and not used.
    pub invtsc_suppressed: bool,
}

impl Default for Running {
    /// A vCPU after reset.
    fn default() -> Self {
        Self {
            osxsave: false,
            pke: false,
            apic: true,
            mwait: None,
            xcr0: 1,
            xss: 0,
            hlt_in_guest: false,
            tsx_hidden: false,
            invtsc_suppressed: false,
        }
    }
}

impl Running {
    /// A vCPU on which a Linux kernel runs that has these capabilities; `tree` is the guest's.
    #[must_use]
    pub fn linux(table: &CpuidTable, guest: &Capabilities, tree: usize) -> Self {
        let has = |name: &str| guest.has(tree, name);
        let (xcr0, xss) = enabled_components(guest, tree, |subleaf| entry(table, 0xd, subleaf).unwrap_or_default());
        let osxsave = has("XSAVE") && xcr0 != 0;
        Self { osxsave, pke: has("OSPKE"), xcr0: if osxsave { xcr0 } else { 1 }, xss, ..Self::default() }
    }
}

/// The bits that mirror the vCPU's state: register of the leaf, bit.
const OSXSAVE: (u32, Register, u8) = (1, Register::Ecx, 27);
const APIC: (u32, Register, u8) = (1, Register::Edx, 9);
const MWAIT: (u32, Register, u8) = (1, Register::Ecx, 3);
const OSPKE: (u32, Register, u8) = (7, Register::Ecx, 4);
const HLE: (u32, Register, u8) = (7, Register::Ebx, 4);
const RTM: (u32, Register, u8) = (7, Register::Ebx, 11);
const INVARIANT_TSC: (u32, Register, u8) = (0x8000_0007, Register::Edx, 8);
const PV_UNHALT: (u32, Register, u8) = (0x4000_0001, Register::Eax, 7);

/// The table after KVM's edits, `tree` being the host's kernel: `cpuid.c:kvm_update_cpuid_runtime` (`kvm_update_cpuid` up to
/// 5.6), and what `kvm_cpuid` changes in passing.
#[must_use]
pub fn running(table: &CpuidTable, state: &Running, tree: usize) -> CpuidTable {
    let release = crate::kvm::answer::release(tree);
    let mut edited = table.clone();
    put(&mut edited, OSXSAVE, state.osxsave);
    put(&mut edited, OSPKE, state.pke);
    // Up to 5.6 only IA32_APIC_BASE's own code changed the bit, in the same way.
    put(&mut edited, APIC, state.apic);
    if let Some(mwait) = state.mwait {
        put(&mut edited, MWAIT, mwait);
    }
    let cleared = [
        (state.hlt_in_guest, PV_UNHALT),
        (state.tsx_hidden, HLE),
        (state.tsx_hidden, RTM),
        (state.invtsc_suppressed && release >= (6, 3), INVARIANT_TSC),
    ];
    cleared.into_iter().filter(|(clears, _)| *clears).for_each(|(_, bit)| put(&mut edited, bit, false));
    xsave_sizes(&mut edited, table, state, tree);
    if (5, 13) <= release && release < (6, 4) {
        enclave_components(&mut edited, table);
    }
    edited
}

fn put(table: &mut CpuidTable, (leaf, register, bit): (u32, Register, u8), set: bool) {
    if let Some(mut registers) = table.get(leaf, 0) {
        let value = registers.get_mut(register);
        *value = if set { *value | 1 << bit } else { *value & !(1 << bit) };
        table.insert(leaf, 0, registers);
    }
}

/// EBX of 0DH: the size of what the guest switched on.
fn xsave_sizes(edited: &mut CpuidTable, table: &CpuidTable, state: &Running, tree: usize) {
    let size = |components: u64, compacted: bool| {
        xstate_required_size(|subleaf| entry(table, 0xd, subleaf).unwrap_or_default(), components, compacted, tree)
    };
    if let Some(first) = table.get(0xd, 0) {
        edited.insert(0xd, 0, Registers { ebx: size(state.xcr0, false), ..first });
    }
    // XSAVEC or XSAVES; supervisor components count from 6.18 on.
    if let Some(second) = table.get(0xd, 1).filter(|second| second.eax & 0b1010 != 0) {
        let supervisor = if crate::kvm::answer::release(tree) >= (6, 18) { state.xss } else { 0 };
        edited.insert(0xd, 1, Registers { ebx: size(state.xcr0 | supervisor, true), ..second });
    }
}

/// Leaf 12H, subleaf 1, from 5.13 to 6.3: enclaves may have the state components that the guest may have.
fn enclave_components(edited: &mut CpuidTable, table: &CpuidTable) {
    const LEGACY: u32 = 3;
    if let Some(attributes) = table.get(0x12, 1) {
        let components = table.get(0xd, 0).unwrap_or_default();
        let ecx = attributes.ecx & components.eax | LEGACY;
        edited.insert(0x12, 1, Registers { ecx, edx: attributes.edx & components.edx, ..attributes });
    }
}

/// What CPUID returns on a vCPU with this table, `tree` being the host's kernel: `cpuid.c:kvm_cpuid`.
///
/// A leaf out of range reads as the highest basic leaf, as on Intel's CPUs; as zeros for a guest of AMD's or Hygon's.
#[must_use]
pub fn read(table: &CpuidTable, leaf: u32, subleaf: u32, tree: usize) -> Registers {
    if let Some(registers) = entry(table, leaf, subleaf) {
        return registers;
    }
    let instead = out_of_range(table, leaf, tree);
    if let Some(registers) = instead.and_then(|basic| entry(table, basic, subleaf)) {
        return registers;
    }
    let leaf = instead.unwrap_or(leaf);
    // Subleaves of the topology that are not there still tell their own number and the x2APIC id.
    match entry(table, leaf, 1).filter(|_| matches!(leaf, 0xb | 0x1f)) {
        Some(level) => Registers { ecx: subleaf & 0xff, edx: level.edx, ..Registers::default() },
        None => Registers::default(),
    }
}

/// `kvm_find_cpuid_entry_index`: a leaf without subleaves answers for all.
fn entry(table: &CpuidTable, leaf: u32, subleaf: u32) -> Option<Registers> {
    table.get(leaf, if has_subleaves(leaf) { subleaf } else { 0 })
}

/// `cpuid.c:get_out_of_range_cpuid_entry`: the basic leaf that answers for one out of range; none for one within.
fn out_of_range(table: &CpuidTable, leaf: u32, tree: usize) -> Option<u32> {
    const AMD: [&str; 3] = ["AuthenticAMD", "AMDisbetter!", "HygonGenuine"];
    let basic = table.get(0, 0)?;
    let release = crate::kvm::answer::release(tree);
    if release >= (5, 4) && table.vendor_string().is_some_and(|vendor| AMD.contains(&vendor.as_str())) {
        return None;
    }
    let head = match leaf {
        0x4000_0000..=0x4fff_ffff if release >= (5, 7) => leaf & 0xffff_ff00,
        0xc000_0000.. if release >= (5, 7) => 0xc000_0000,
        _ => leaf & 0x8000_0000,
    };
    let within = table.get(head, 0).is_some_and(|first| leaf <= first.eax);
    (!within).then_some(basic.eax)
}
