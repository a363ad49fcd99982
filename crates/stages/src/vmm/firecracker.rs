//! Firecracker: all of KVM's answer, a CPU template, and the normalization of each vCPU.
//!
//! Source: `src/vmm/src/cpu_config/x86_64/` and `src/vmm/src/arch/x86_64/vcpu.rs:configure`.

mod amd;
mod intel;

use cpusieve_knowledge::vmm::Vmm;
use cpusieve_model::{CpuTemplate, KvmCpuidEntry, Register, Registers, Vendor};

use super::edits::{self, Setting};
use super::table::SIGNIFICANT_INDEX;
use super::{Error, Vcpu, template, xstate};

// The rules of knowledge/rules/firecracker.toml for which the functions here stand.
const TEMPLATE: &str = "FCR0014";
const CUSTOM_TEMPLATE: &str = "FCR0015";
const TOPOLOGY: &str = "FCR0016";
const HOST_LEAF: &str = "FCR0018";
const BRAND: &str = "FCR0019";
const DYNAMIC_XSTATE: &str = "FCR0020";
const PACKAGE: &str = "FCR0022";
const CACHE_SHARING: &str = "FCR0023";

/// `MAX_SUPPORTED_VCPUS`.
const MAX_VCPUS: u32 = 32;

/// What was asked of Firecracker.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// `smt` of the machine configuration: two vCPUs are the threads of one core.
    pub smt: bool,
    /// The CPU template.
    pub template: Template<'a>,
}

/// A CPU template.
#[derive(Clone, Copy, Debug, Default)]
pub enum Template<'a> {
    /// None.
    #[default]
    None,
    /// One of Firecracker's own, by name: `T2CL`.
    Static(&'a str),
    /// One out of a file.
    Custom(&'a CpuTemplate),
}

/// The place of this vCPU among the others.
#[derive(Clone, Copy)]
struct Place {
    /// The vCPU's number, which is its APIC id.
    index: u32,
    /// The number of vCPUs.
    count: u32,
    /// The bits of the APIC id that tell the threads of a core.
    thread_bits: u32,
    /// The threads of a core.
    threads: u32,
}

/// From the permission for AMX to the normalized table.
pub(super) fn configure(vcpu: &mut Vcpu<'_>, options: &Options<'_>) -> Result<(), Error> {
    let place = place(vcpu, options)?;
    vcpu.table.sort();
    let offered = required(vcpu, 0, 0)?;
    let vendor = match super::vendor(offered) {
        vendor @ (Vendor::Intel | Vendor::Amd) => vendor,
        _ => return Err(Error::UnsupportedVendor),
    };
    if vcpu.question.release >= release("1.12") && xstate::amx_can_be_had(vcpu) {
        xstate::permit_amx(vcpu, DYNAMIC_XSTATE);
    }
    match options.template {
        Template::None => {}
        Template::Static(name) => {
            let host = vcpu.question.host.and_then(|host| host.vendor()).unwrap_or(vendor);
            let template = template::get_cpu_template(vcpu, name, host)?;
            template::apply_template(vcpu, &template, TEMPLATE)?;
        }
        Template::Custom(template) => template::apply_template(vcpu, template, CUSTOM_TEMPLATE)?,
    }
    let host = vcpu.question.host.and_then(|host| host.get(0, 0)).unwrap_or(offered);
    normalize(vcpu, vendor, host, place)
}

/// The position of the first release that does something, by its label.
fn release(label: &str) -> usize {
    Vmm::Firecracker.since(label)
}

/// `src/vmm/src/vmm_config/machine_config.rs:update`, and the number of bits that `configure` derives from it.
fn place(vcpu: &Vcpu<'_>, options: &Options<'_>) -> Result<Place, Error> {
    let (index, count) = (vcpu.question.cpu, vcpu.question.cpus);
    if count == 0 || count > MAX_VCPUS {
        return Err(Error::Cpus(count, "at least 1 and at most 32 are taken"));
    }
    if options.smt && count > 1 && !count.is_multiple_of(2) {
        return Err(Error::Cpus(count, "with smt their number is 1 or even"));
    }
    if index >= count {
        return Err(Error::NoSuchCpu(index));
    }
    let thread_bits = u32::from(count > 1 && options.smt);
    Ok(Place { index, count, thread_bits, threads: 1 << thread_bits })
}

/// `Cpuid::normalize`.
fn normalize(vcpu: &mut Vcpu<'_>, vendor: Vendor, host_leaf_0: Registers, place: Place) -> Result<(), Error> {
    let setting = Setting { vendor, smp: place.count > 1, amx: true, nested: true };
    update_vendor_id(vcpu, host_leaf_0);
    update_feature_info_entry(vcpu, setting, place)?;
    update_extended_topology_entry(vcpu, place)?;
    update_extended_cache_features(vcpu)?;
    match vendor {
        Vendor::Amd => amd::normalize(vcpu, setting, place),
        _ => intel::normalize(vcpu, setting, place),
    }
}

/// An error if the entry is not there.
fn required(vcpu: &Vcpu<'_>, leaf: u32, subleaf: u32) -> Result<Registers, Error> {
    vcpu.table.get(leaf, subleaf).ok_or(Error::MissingLeaf { leaf, subleaf })
}

/// The edits of `knowledge/vmm/bits.tsv` to one entry, which must be there.
fn edit_bits(vcpu: &mut Vcpu<'_>, setting: Setting, leaf: u32, subleaf: u32) -> Result<(), Error> {
    required(vcpu, leaf, subleaf)?;
    edits::apply(vcpu, setting, |edit| (edit.bit.leaf, edit.bit.subleaf) == (leaf, subleaf));
    Ok(())
}

/// Writes what the host's CPU answers over an entry, which must be there; without the host's answer KVM's stays.
fn pass_host_leaf(vcpu: &mut Vcpu<'_>, leaf: u32) -> Result<(), Error> {
    required(vcpu, leaf, 0)?;
    match vcpu.question.host.and_then(|host| host.get(leaf, 0)) {
        Some(registers) => _ = vcpu.table.replace(leaf, 0, registers, HOST_LEAF),
        None => vcpu.assume(
            format!("host's leaf {leaf:08X}H"),
            "what KVM offers",
            "the host's CPUID was not seen, and Firecracker reads this leaf there",
        ),
    }
    Ok(())
}

/// The vendor is the host's: a template cannot change it.
fn update_vendor_id(vcpu: &mut Vcpu<'_>, host: Registers) {
    for register in [Register::Ebx, Register::Ecx, Register::Edx] {
        vcpu.table.write((0, 0, register), u32::MAX, host.get(register), HOST_LEAF);
    }
}

fn update_feature_info_entry(vcpu: &mut Vcpu<'_>, setting: Setting, place: Place) -> Result<(), Error> {
    required(vcpu, 1, 0)?;
    let ebx = (1, 0, Register::Ebx);
    // CLFLUSH lines in units of 8 bytes.
    vcpu.table.field(ebx, 8..=15, 8, PACKAGE);
    vcpu.table.field(ebx, 16..=23, place.count.next_power_of_two(), PACKAGE);
    vcpu.table.field(ebx, 24..=31, place.index, PACKAGE);
    edit_bits(vcpu, setting, 1, 0)
}

fn update_extended_topology_entry(vcpu: &mut Vcpu<'_>, place: Place) -> Result<(), Error> {
    let newest = release("1.12");
    if vcpu.table.entry(0xb, 1).is_none() {
        let entry = KvmCpuidEntry { leaf: 0xb, subleaf: 1, flags: SIGNIFICANT_INDEX, registers: Registers::default() };
        vcpu.table.insert(entry, TOPOLOGY);
    }
    for subleaf in 0..256 {
        if vcpu.table.entry(0xb, subleaf).is_none() {
            break;
        }
        let (eax, ebx, ecx) = match subleaf {
            // Threads of a core.
            0 => (place.thread_bits, place.threads, 1 << 8),
            // Cores of the package: the bits of the highest APIC id there can be; 7 were taken before 1.12.
            1 => {
                let bits = if vcpu.question.release >= newest { MAX_VCPUS.next_power_of_two().ilog2() } else { 7 };
                (bits, place.count, 2 << 8 | 1)
            }
            _ if vcpu.question.release == newest => return Err(Error::UnexpectedSubleaf(subleaf)),
            _ => {
                if vcpu.question.release > newest {
                    vcpu.warnings.push(format!("subleaf {subleaf} of leaf 0xb was not expected"));
                }
                (0, 0, subleaf)
            }
        };
        vcpu.table.replace(0xb, subleaf, Registers { eax, ebx, ecx, edx: place.index }, TOPOLOGY);
        vcpu.table.set_flags(0xb, subleaf, SIGNIFICANT_INDEX);
    }
    Ok(())
}

fn update_extended_cache_features(vcpu: &mut Vcpu<'_>) -> Result<(), Error> {
    pass_host_leaf(vcpu, 0x8000_0005)?;
    pass_host_leaf(vcpu, 0x8000_0006)?;
    // Reserved bits.
    vcpu.table.field((0x8000_0006, 0, Register::Edx), 16..=17, 0, HOST_LEAF);
    Ok(())
}

/// The vCPUs that share a cache of this level (1 to 3), less one; `None` for other levels, which are left alone.
fn sharing(place: Place, level: u32) -> Option<u32> {
    match level {
        1 | 2 => Some(place.threads.saturating_sub(1)),
        3 => Some(place.count.saturating_sub(1)),
        _ => None,
    }
}

/// `apply_brand_string`: 48 bytes, with zeros behind the text.
fn apply_brand_string(vcpu: &mut Vcpu<'_>, brand: &[u8]) -> Result<(), Error> {
    let word = |index: usize| {
        let mut bytes = [0; 4];
        for (byte, from) in bytes.iter_mut().zip(brand.iter().skip(index.saturating_mul(4))) {
            *byte = *from;
        }
        u32::from_le_bytes(bytes)
    };
    for (leaf, first) in [(0x8000_0002, 0), (0x8000_0003, 4), (0x8000_0004, 8)] {
        required(vcpu, leaf, 0)?;
        let registers =
            Registers { eax: word(first), ebx: word(first + 1), ecx: word(first + 2), edx: word(first + 3) };
        vcpu.table.replace(leaf, 0, registers, BRAND);
    }
    Ok(())
}
