//! Cloud Hypervisor's topology: `--cpus topology=threads:cores:dies:packages`, and the leaves that tell it.
//!
//! Source: `arch/src/x86_64/mod.rs:get_x2apic_id`, `update_cpuid_topology`.

use cpusieve_knowledge::vmm::Vmm;
use cpusieve_model::{KvmCpuidEntry, Register, Registers, Vendor};

use super::table::SIGNIFICANT_INDEX;
use super::{Error, Vcpu};

const RULE: &str = "CLH0013";

/// Threads, cores, dies and packages; each is at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Threads in a core: 1 or 2.
    pub threads: u16,
    /// Cores in a die.
    pub cores: u16,
    /// Dies in a package.
    pub dies: u16,
    /// Packages.
    pub packages: u16,
}

/// A topology that was checked, as numbers that do not overflow.
#[derive(Clone, Copy)]
pub(super) struct Checked {
    threads: u32,
    cores: u32,
    dies: u32,
}

/// Where a vCPU is.
#[derive(Clone, Copy)]
pub(super) struct Spot {
    pub(super) shape: Checked,
    pub(super) x2apic_id: u32,
}

impl Topology {
    /// What is valid on x86 (`vmm/src/config.rs:validate`): no empty level, at most two threads, room for all vCPUs.
    pub(super) fn check(self, cpus: u32) -> Result<Checked, Error> {
        let [threads, cores, dies, packages] = [self.threads, self.cores, self.dies, self.packages].map(u32::from);
        let all = [threads, cores, dies, packages].into_iter().try_fold(1_u32, u32::checked_mul);
        if all.is_none_or(|all| all == 0 || all > u32::from(u16::MAX)) {
            return Err(Error::Topology);
        }
        if threads > 2 {
            return Err(Error::Cpus(threads, "a core has at most 2 threads"));
        }
        if all.is_some_and(|all| all < cpus) {
            return Err(Error::Cpus(cpus, "the topology has room for fewer"));
        }
        Ok(Checked { threads, cores, dies })
    }
}

/// The bits that number so many things.
const fn width(count: u32) -> u32 {
    u32::BITS - count.saturating_sub(1).leading_zeros()
}

impl Checked {
    /// `get_x2apic_id`: thread, core, die and package, each in as many bits as its level needs.
    pub(super) fn spot(self, cpu: u32) -> Spot {
        let Self { threads, cores, dies } = self;
        let (core_shift, die_shift) = (width(threads), width(threads) + width(cores));
        let die = cpu / (threads * cores);
        let (thread, core) = (cpu % threads, cpu / threads % cores);
        let (die, package) = (die % dies, die / dies);
        let package_shift = die_shift + width(dies);
        let x2apic_id = thread | (core << core_shift) | (die << die_shift) | (package << package_shift);
        Spot { shape: self, x2apic_id }
    }
}

/// `CpuidPatch::set_cpuid_reg` without an index: the register of every entry of a leaf; nothing if there is none.
pub(super) fn set_in_leaf(vcpu: &mut Vcpu<'_>, leaf: u32, register: Register, value: u32, rule: &'static str) {
    let subleaves: Vec<u32> =
        vcpu.table.entries().iter().filter(|entry| entry.leaf == leaf).map(|entry| entry.subleaf).collect();
    for subleaf in subleaves {
        vcpu.table.write((leaf, subleaf, register), u32::MAX, value, rule);
    }
}

/// `CpuidPatch::set_cpuid_reg` with an index: an entry that is not there is added with zeros.
pub(super) fn set_register(vcpu: &mut Vcpu<'_>, place: (u32, u32, Register), value: u32) {
    add_if_missing(vcpu, place.0, place.1);
    vcpu.table.write(place, u32::MAX, value, RULE);
}

fn add_if_missing(vcpu: &mut Vcpu<'_>, leaf: u32, subleaf: u32) {
    if vcpu.table.entry(leaf, subleaf).is_none() {
        let entry = KvmCpuidEntry { leaf, subleaf, flags: SIGNIFICANT_INDEX, registers: Registers::default() };
        vcpu.table.insert(entry, RULE);
    }
}

/// `update_cpuid_topology`.
pub(super) fn update_cpuid_topology(vcpu: &mut Vcpu<'_>, spot: Spot, vendor: Vendor) {
    let Checked { threads, cores, dies } = spot.shape;
    let thread_width = width(threads);
    let core_width = thread_width + width(cores);
    let die_width = core_width + width(dies);
    let package = dies * cores * threads;
    // Before 50 the number was not shifted into its field, so KVM's value stayed.
    let since_50 = vcpu.question.release >= Vmm::CloudHypervisor.since("50");
    if since_50 {
        vcpu.table.field((1, 0, Register::Ebx), 16..=23, package & 0xff, RULE);
    }
    vcpu.table.field((1, 0, Register::Edx), 28..=28, 1, RULE);
    // EAX, EBX, and the kind of level in ECX; subleaves are not numbered in ECX.
    let levels = [
        (0xb, 0, thread_width, threads, 1),
        (0xb, 1, die_width, package, 2),
        (0x1f, 0, thread_width, threads, 1),
        (0x1f, 1, core_width, cores * threads, 2),
        (0x1f, 2, die_width, package, 5),
    ];
    for (leaf, subleaf, shift, count, kind) in levels {
        set_register(vcpu, (leaf, subleaf, Register::Eax), shift);
        set_register(vcpu, (leaf, subleaf, Register::Ebx), count);
        set_register(vcpu, (leaf, subleaf, Register::Ecx), kind << 8);
        // Entries that KVM offers have the id already; those added here got it from 50 on, 0BH's second always.
        if (leaf, subleaf) == (0xb, 1) || leaf == 0x1f && since_50 {
            set_register(vcpu, (leaf, subleaf, Register::Edx), spot.x2apic_id);
        }
    }
    if vendor == Vendor::Amd {
        update_amd(vcpu, spot, [thread_width, core_width, die_width]);
    }
}

/// The part of `update_cpuid_topology` for AMD.
fn update_amd(vcpu: &mut Vcpu<'_>, spot: Spot, [thread_width, core_width, die_width]: [u32; 3]) {
    let Checked { threads, cores, dies } = spot.shape;
    let x2apic_id = spot.x2apic_id;
    let of = |register| (0x8000_001e, 0, register);
    set_register(vcpu, of(Register::Ebx), threads.saturating_sub(1) << 8 | x2apic_id & 0xff);
    set_register(vcpu, of(Register::Ecx), dies.saturating_sub(1) << 8 | (thread_width + die_width) & 0xff);
    set_register(vcpu, of(Register::Edx), 0);
    let die = cores * threads;
    if die < 2 {
        set_register(vcpu, (0x8000_0008, 0, Register::Ecx), 0);
        return;
    }
    // CMP_LEGACY and TOPOEXT.
    add_if_missing(vcpu, 0x8000_0001, 0);
    vcpu.table.field((0x8000_0001, 0, Register::Ecx), 1..=1, 1, RULE);
    vcpu.table.field((0x8000_0001, 0, Register::Ecx), 22..=22, 1, RULE);
    // The number is not masked, so more than 255 CPUs in a die reach into the APIC id.
    set_register(vcpu, (1, 0, Register::Ebx), x2apic_id << 24 | 8 << 8 | die << 16);
    let bits = thread_width + core_width + die_width;
    set_register(vcpu, (0x8000_0008, 0, Register::Ecx), bits << 12 | die.saturating_sub(1));
}
