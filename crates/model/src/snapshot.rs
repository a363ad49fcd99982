//! What was seen of one machine. Every part may be missing, and a missing part was not seen: it is not zero.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{CpuidTable, MsrTable, Registers, Vendor};

/// Everything that one input says of one machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// What the input calls the machine: a CPU's brand, a file's comment, a host name.
    pub title: Option<String>,
    /// The CPUs, by number; hybrids differ from CPU to CPU.
    pub cpus: Vec<Cpu>,
    /// What the machine's Linux kernel says.
    pub linux: Option<LinuxView>,
    /// What the machine's KVM answers.
    pub kvm: Option<KvmView>,
    /// The QEMU binaries that were found.
    pub qemu: Vec<QemuBinary>,
    /// QMP `query-cpu-model-expansion` replies.
    pub expansions: Vec<ModelExpansion>,
    /// Parts that a recorder tried to see and could not.
    pub missing: Vec<MissingPart>,
}

/// One logical CPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// The CPU's number in its system.
    pub id: u32,
    /// What CPUID returned on it.
    pub cpuid: CpuidTable,
    /// The MSRs that were read on it.
    pub msrs: MsrTable,
    /// Its block of `/proc/cpuinfo`.
    pub cpuinfo: Option<Cpuinfo>,
}

/// A line of flags: the names, in the order in which they were printed. Shared between CPUs that print the same.
///
/// No name has control characters in it; each is replaced by `?`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlagList(Arc<[Box<str>]>);

impl FlagList {
    /// The names of a line, separated by white space, in their order.
    #[must_use]
    pub fn from_line(line: &str) -> Self {
        line.split_ascii_whitespace().collect()
    }

    /// The names, in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> + DoubleEndedIterator + Clone {
        self.0.iter().map(|name| &**name)
    }

    /// The name at this position.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&str> {
        self.0.get(index).map(|name| &**name)
    }

    /// Whether a name is in the line.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|flag| &**flag == name)
    }

    /// The number of names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the line is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> FromIterator<&'a str> for FlagList {
    fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> Self {
        Self(names.into_iter().map(name).collect())
    }
}

/// A name that can be shown: whoever wrote the line does not talk to the reader's terminal.
fn name(text: &str) -> Box<str> {
    if text.chars().any(char::is_control) { text.replace(char::is_control, "?").into() } else { text.into() }
}

/// Who a CPU says it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CpuIdentity {
    /// The vendor string: `GenuineIntel`.
    pub vendor: Option<String>,
    /// The display family.
    pub family: Option<u32>,
    /// The display model.
    pub model: Option<u32>,
    /// The stepping.
    pub stepping: Option<u32>,
    /// The brand string.
    pub brand: Option<String>,
    /// The microcode revision as Linux shows it.
    pub microcode: Option<u64>,
}

/// One CPU's block of `/proc/cpuinfo`, or what `lscpu` makes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpuinfo {
    /// Who the CPU says it is.
    pub identity: CpuIdentity,
    /// The `flags` line.
    pub flags: Option<FlagList>,
    /// The `vmx flags` line.
    pub vmx_flags: Option<FlagList>,
    /// The `bugs` line.
    pub bugs: Option<FlagList>,
    /// All other fields, in their order, as they stood.
    pub other: Vec<(Box<str>, Box<str>)>,
}

/// What is known of a Linux kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinuxView {
    /// `uname -r`.
    pub release: Option<String>,
    /// `/proc/cmdline`.
    pub cmdline: Option<String>,
    /// The text of `/proc/cpuinfo`, as it stood.
    pub cpuinfo: Option<String>,
    /// Kernel configuration: `CONFIG_X86_5LEVEL` to `y`. `None` if it was not seen.
    pub config: Option<BTreeMap<String, String>>,
}

/// One `kvm_cpuid_entry2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KvmCpuidEntry {
    /// `function`: the leaf.
    pub leaf: u32,
    /// `index`: the subleaf.
    pub subleaf: u32,
    /// `flags`: bit 0 is `KVM_CPUID_FLAG_SIGNIFCANT_INDEX`.
    pub flags: u32,
    /// The registers.
    pub registers: Registers,
}

/// What KVM answers on `/dev/kvm`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KvmView {
    /// `KVM_GET_SUPPORTED_CPUID`, in KVM's order.
    pub supported: Option<Vec<KvmCpuidEntry>>,
    /// `KVM_GET_EMULATED_CPUID`, in KVM's order.
    pub emulated: Option<Vec<KvmCpuidEntry>>,
    /// `KVM_GET_SUPPORTED_HV_CPUID`, in KVM's order.
    pub hyperv: Option<Vec<KvmCpuidEntry>>,
    /// Feature MSRs: `KVM_GET_MSR_FEATURE_INDEX_LIST` and their values.
    pub msr_features: Option<BTreeMap<u32, u64>>,
    /// `KVM_GET_MSR_INDEX_LIST`, in KVM's order.
    pub msr_index: Option<Vec<u32>>,
    /// `KVM_CHECK_EXTENSION` by capability number.
    pub caps: BTreeMap<u32, i64>,
    /// `KVM_X86_XCOMP_GUEST_SUPP`: the XCR0 bits that a guest may have with permission.
    pub xcomp_guest_supp: Option<u64>,
    /// `KVM_GET_TSC_KHZ`, in kHz.
    pub tsc_khz: Option<u64>,
    /// Module parameters: `kvm_amd.nested` to `1`.
    pub params: BTreeMap<String, String>,
}

impl KvmView {
    /// `KVM_GET_SUPPORTED_CPUID` as a table; `None` if it was not seen.
    #[must_use]
    pub fn supported_table(&self) -> Option<CpuidTable> {
        let entries = self.supported.as_ref()?;
        let mut table = CpuidTable::default();
        for entry in entries {
            table.insert(entry.leaf, entry.subleaf, entry.registers);
        }
        Some(table)
    }
}

/// A QEMU binary that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QemuBinary {
    /// Its version: `7.2.22`.
    pub version: String,
    /// Where it is.
    pub path: String,
}

/// A QMP `query-cpu-model-expansion` reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelExpansion {
    /// The model's name: `base`, `max`.
    pub name: String,
    /// Properties that are booleans, by QEMU's name. A property that is missing is not known to that QEMU.
    pub flags: BTreeMap<String, bool>,
    /// All other properties, as their JSON text.
    pub other: BTreeMap<String, String>,
}

/// A part that a recorder tried to see and could not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingPart {
    /// What: `msrs`, `kvm`.
    pub what: String,
    /// Why, as the machine put it.
    pub why: String,
    /// What the user can do about it, if anything.
    pub remedy: Option<String>,
}

impl Snapshot {
    /// The first CPU's `flags` line, if any CPU has one.
    #[must_use]
    pub fn flags(&self) -> Option<&FlagList> {
        self.cpus.iter().find_map(|cpu| cpu.cpuinfo.as_ref()?.flags.as_ref())
    }

    /// The first CPU on which CPUID was seen.
    #[must_use]
    pub fn first_cpuid(&self) -> Option<&Cpu> {
        self.cpus.iter().find(|cpu| !cpu.cpuid.is_empty())
    }

    /// The vendor, from CPUID or from `/proc/cpuinfo`.
    #[must_use]
    pub fn vendor(&self) -> Option<Vendor> {
        self.cpus.iter().find_map(|cpu| {
            let told = || Some(Vendor::from_string(cpu.cpuinfo.as_ref()?.identity.vendor.as_ref()?));
            cpu.cpuid.vendor().or_else(told)
        })
    }
}
