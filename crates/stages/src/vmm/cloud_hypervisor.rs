//! Cloud Hypervisor on KVM: all of KVM's answer, edits that all vCPUs have in common, and each vCPU's own.
//!
//! The CPU profile is `host`, the only one before 53; TDX and SEV-SNP guests are not modelled. Source:
//! `arch/src/x86_64/mod.rs`, `vmm/src/cpu.rs`.

use cpusieve_knowledge::vmm::{Vmm, hyperv_leaves};
use cpusieve_model::{KvmCpuidEntry, Register, Registers, Vendor};

use super::edits::{self, Setting};
use super::topology::{self, Topology, set_in_leaf, set_register};
use super::{Error, Vcpu, xstate};

const AMX_LEAVES: &str = "CLH0009";
const HOST_LEAF: &str = "CLH0010";
const PHYSICAL_BITS: &str = "CLH0011";
const HYPERV: &str = "CLH0012";
const TOPOLOGY: &str = "CLH0013";
const TSC_FREQUENCY: &str = "CLH0014";
const DYNAMIC_XSTATE: &str = "CLH0015";

/// Bits of a physical address of a CPU that does not say (`get_host_cpu_phys_bits`).
const PHYSICAL_BITS_UNTOLD: u32 = 36;

/// KVM's local APIC counts nanoseconds: 1,000,000 kHz.
const APIC_KHZ: u32 = 1_000_000;

/// What was asked of Cloud Hypervisor with `--cpus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `topology=`; `None` makes every vCPU a core of one package.
    pub topology: Option<Topology>,
    /// `kvm_hyperv=on`.
    pub kvm_hyperv: bool,
    /// `features=amx`.
    pub amx: bool,
    /// `nested=on`; releases before 50 do not know it and never switch it off.
    pub nested: bool,
    /// `max_phys_bits=`.
    pub max_phys_bits: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self { topology: None, kvm_hyperv: false, amx: false, nested: true, max_phys_bits: 46 }
    }
}

/// From the permission for AMX to the vCPU's table.
pub(super) fn configure(vcpu: &mut Vcpu<'_>, options: &Options) -> Result<(), Error> {
    let (cpu, cpus) = (vcpu.question.cpu, vcpu.question.cpus);
    if cpu >= cpus {
        return Err(Error::NoSuchCpu(cpu));
    }
    let flat = || {
        let cores = u16::try_from(cpus).map_err(|_| Error::Cpus(cpus, "at most 65535 can be numbered"))?;
        Ok(Topology { threads: 1, cores, dies: 1, packages: 1 })
    };
    let spot = options.topology.map_or_else(flat, Ok)?.check(cpus)?.spot(cpu);
    let leaf = vcpu.question.host.and_then(|host| host.get(0, 0)).or_else(|| vcpu.table.get(0, 0));
    let vendor = leaf.map_or(Vendor::Other, super::vendor);
    if options.amx {
        enable_amx(vcpu, vendor)?;
    }
    let setting = Setting { vendor, smp: cpus > 1, amx: options.amx, nested: options.nested };
    generate_common_cpuid(vcpu, options, setting);
    configure_vcpu(vcpu, options, setting, spot)
}

/// The position of the first release that does something, by its label.
fn release(label: &str) -> usize {
    Vmm::CloudHypervisor.since(label)
}

/// `hypervisor/src/hypervisor.rs:enable_amx_state_components`; before 50 `vmm/src/cpu.rs:CpuManager::new`.
fn enable_amx(vcpu: &mut Vcpu<'_>, vendor: Vendor) -> Result<(), Error> {
    if vcpu.question.release >= release("50") && vendor != Vendor::Intel {
        return Err(Error::Amx("the vendor is not Intel"));
    }
    if !xstate::amx_can_be_had(vcpu) {
        return Err(Error::Amx("the host's CPU or kernel does not have it"));
    }
    xstate::permit_amx(vcpu, DYNAMIC_XSTATE);
    Ok(())
}

/// What all vCPUs have in common.
fn generate_common_cpuid(vcpu: &mut Vcpu<'_>, options: &Options, setting: Setting) {
    let nested = Setting { nested: true, ..setting };
    edits::apply(vcpu, nested, |_| true);
    if !options.amx && vcpu.question.release >= release("50") {
        for leaf in [0x1d, 0x1e] {
            for register in Register::ALL {
                set_in_leaf(vcpu, leaf, register, 0, AMX_LEAVES);
            }
        }
    }
    for leaf in [0x8000_0005, 0x8000_0006] {
        fill_cache_leaf(vcpu, leaf);
    }
    set_physical_bits(vcpu, options, setting.vendor);
    for leaf in [0x8000_0002, 0x8000_0003, 0x8000_0004] {
        pass_brand_leaf(vcpu, leaf);
    }
    if options.kvm_hyperv {
        pose_as_hyperv(vcpu);
    }
}

/// The host's own answer where KVM's is zero.
fn fill_cache_leaf(vcpu: &mut Vcpu<'_>, leaf: u32) {
    if vcpu.table.get(leaf, 0).is_none_or(|registers| !registers.is_zero()) {
        return;
    }
    let host = vcpu.question.host;
    if host.and_then(|host| host.maximum(leaf)).is_some_and(|maximum| maximum < leaf) {
        return;
    }
    match host.and_then(|host| host.get(leaf, 0)) {
        Some(registers) => _ = vcpu.table.replace(leaf, 0, registers, HOST_LEAF),
        None => vcpu.assume(format!("host's leaf {leaf:08X}H"), "zero", "the host's CPUID was not seen"),
    }
}

/// The brand string is the host's; its leaves move to the end.
fn pass_brand_leaf(vcpu: &mut Vcpu<'_>, leaf: u32) {
    let seen = vcpu.question.host.and_then(|host| host.get(leaf, 0));
    let registers = seen.or_else(|| vcpu.table.get(leaf, 0)).unwrap_or_default();
    if seen.is_none() {
        vcpu.assume(format!("host's leaf {leaf:08X}H"), "what KVM offers", "the host's CPUID was not seen");
    }
    vcpu.table.remove(leaf, HOST_LEAF);
    vcpu.table.insert(KvmCpuidEntry { leaf, subleaf: 0, flags: 0, registers }, HOST_LEAF);
}

/// `physical_bits` into leaf 80000008H; from 53 on the guest's own width is told too.
fn set_physical_bits(vcpu: &mut Vcpu<'_>, options: &Options, vendor: Vendor) {
    let bits = host_physical_bits(vcpu, vendor).min(options.max_phys_bits.into());
    for high in [Some(7), (vcpu.question.release >= release("53")).then_some(23)].into_iter().flatten() {
        vcpu.table.field((0x8000_0008, 0, Register::Eax), high - 7..=high, bits, PHYSICAL_BITS);
    }
}

/// `get_host_cpu_phys_bits`; up to 52 less the bits that AMD's memory encryption takes.
fn host_physical_bits(vcpu: &mut Vcpu<'_>, vendor: Vendor) -> u32 {
    let Some(host) = vcpu.question.host else {
        let offered = vcpu.table.get(0x8000_0008, 0).map_or(PHYSICAL_BITS_UNTOLD, |leaf| leaf.eax & 0xff);
        vcpu.assume("host's width of physical addresses", format!("{offered} bits"), "the host's CPUID was not seen");
        return offered;
    };
    let encryption = host.get(0x8000_001f, 0).filter(|leaf| leaf.eax & 1 == 1 && vendor == Vendor::Amd);
    let reduced = encryption.filter(|_| vcpu.question.release < release("53")).map_or(0, |leaf| leaf.ebx >> 6 & 0x3f);
    host.get(0x8000_0008, 0).map_or(PHYSICAL_BITS_UNTOLD, |leaf| (leaf.eax & 0xff).saturating_sub(reduced))
}

/// Hyper-V's leaves in place of KVM's first two; what else KVM offers there stays.
fn pose_as_hyperv(vcpu: &mut Vcpu<'_>) {
    vcpu.table.remove(0x4000_0000, HYPERV);
    vcpu.table.remove(0x4000_0001, HYPERV);
    for answer in hyperv_leaves(vcpu.question.release) {
        let entry = KvmCpuidEntry { leaf: answer.leaf, subleaf: 0, flags: 0, registers: answer.registers };
        vcpu.table.insert(entry, HYPERV);
    }
}

/// What one vCPU has for itself.
fn configure_vcpu(vcpu: &mut Vcpu<'_>, options: &Options, setting: Setting, spot: topology::Spot) -> Result<(), Error> {
    for leaf in [0xb, 0x1f] {
        set_in_leaf(vcpu, leaf, Register::Edx, spot.x2apic_id, TOPOLOGY);
    }
    if setting.vendor == Vendor::Amd {
        set_register(vcpu, (0x8000_001e, 0, Register::Eax), spot.x2apic_id);
    }
    if !vcpu.table.field((1, 0, Register::Ebx), 24..=31, spot.x2apic_id, TOPOLOGY) {
        return Err(Error::MissingLeaf { leaf: 1, subleaf: 0 });
    }
    // All other edits were made for all vCPUs; they hold whatever is repeated here.
    edits::apply(vcpu, setting, |edit| edit.conditions.contains(&cpusieve_knowledge::vmm::Condition::WithoutNested));
    topology::update_cpuid_topology(vcpu, spot, setting.vendor);
    if !options.kvm_hyperv {
        tell_frequencies(vcpu);
    }
    Ok(())
}

/// Leaf 40000010H: the rates of TSC and local APIC, in kHz, if the host's TSC keeps its rate.
fn tell_frequencies(vcpu: &mut Vcpu<'_>) {
    let leaf = 0x4000_0010;
    let invariant = match vcpu.question.host {
        Some(host) => host.get(0x8000_0007, 0).is_some_and(|leaf| leaf.edx >> 8 & 1 == 1),
        None => {
            vcpu.assume("host's 80000007.EDX[8]", "not set", "the host's CPUID was not seen");
            false
        }
    };
    if !invariant {
        return;
    }
    let Some(eax) = vcpu.question.kvm.tsc_khz.and_then(|khz| u32::try_from(khz).ok()) else {
        vcpu.assume("leaf 40000010H", "not there", "KVM_GET_TSC_KHZ was not seen, and the leaf holds its answer");
        return;
    };
    set_in_leaf(vcpu, 0x4000_0000, Register::Eax, leaf, TSC_FREQUENCY);
    vcpu.table.remove(leaf, TSC_FREQUENCY);
    let registers = Registers { eax, ebx: APIC_KHZ, ..Registers::default() };
    vcpu.table.insert(KvmCpuidEntry { leaf, subleaf: 0, flags: 0, registers }, TSC_FREQUENCY);
}
