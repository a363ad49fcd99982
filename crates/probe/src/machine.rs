//! What this machine is: bare metal or a guest, of which hypervisor, in which VMM, and who serves `/dev/kvm`.
//!
//! A hypervisor says who it is in leaf 40000000H. A VMM does not: Firecracker, QEMU and Cloud Hypervisor all show KVM's
//! signature. What tells them apart are the tables that their firmware leaves behind, DMI's vendor and product, and the
//! six letters of the ACPI tables' author.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;

use cpusieve_model::{CpuidTable, Vendor};

use crate::files::Root;
use crate::kvm;

/// What can be told of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Bare metal, or a guest.
    pub kind: Kind,
    /// The hypervisors that show themselves in CPUID, the outermost interface first.
    pub hypervisors: Vec<Hypervisor>,
    /// DMI's system vendor and product: `Amazon EC2 m5.large`.
    pub dmi: Option<String>,
    /// The author of the ACPI tables, without trailing blanks: `FIRECK`. Root alone may read it.
    pub acpi_author: Option<String>,
    /// The VMM, as far as the two before give it away.
    pub vmm: Option<&'static str>,
    /// Who serves `/dev/kvm`.
    pub kvm: KvmDevice,
}

/// Bare metal or guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No sign of a hypervisor.
    BareMetal,
    /// 1.ECX\[31\] is set, or a hypervisor shows its leaves.
    Guest,
    /// The firmware is a VMM's, but CPUID shows no hypervisor (`-cpu host,hypervisor=off,kvm=off`).
    HiddenGuest,
    /// CPUID was not seen.
    Unknown,
}

/// A hypervisor that shows itself in CPUID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hypervisor {
    /// The first leaf of its range: 40000000H, 40000100H, ...
    pub leaf: u32,
    /// The twelve bytes of EBX, ECX and EDX, without trailing zeroes; bytes that are not printable become `?`.
    pub signature: String,
    /// Whose signature this is, if it is known.
    pub name: Option<&'static str>,
}

/// Whether `/dev/kvm` answers, and who serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvmDevice {
    /// `None` if the device is open to this process, else why not.
    pub refusal: Option<String>,
    /// The backend modules that are loaded; without any, those that are built in and fit the CPU. More than one means
    /// that which of them serves the device cannot be told from here.
    pub backends: Vec<Backend>,
}

/// A module that does KVM's work on one kind of CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The module: `kvm_intel`, `kvm_amd`, or another one.
    pub module: String,
    /// Whether it is part of the kernel image.
    pub built_in: bool,
}

/// Signatures of leaf 40000000H, and whose they are.
const SIGNATURES: [(&str, &str); 16] = [
    ("KVMKVMKVM", "KVM"),
    ("Linux KVM Hv", "KVM, as Hyper-V"),
    ("TCGTCGTCGTCG", "QEMU's TCG"),
    ("Microsoft Hv", "Hyper-V"),
    ("VMwareVMware", "VMware"),
    ("XenVMMXenVMM", "Xen"),
    ("bhyve bhyve ", "bhyve"),
    ("ACRNACRNACRN", "ACRN"),
    ("Jailhouse", "Jailhouse"),
    ("QNXQVMBSQG", "QNX"),
    ("VBoxVBoxVBox", "VirtualBox"),
    (" lrpepyh  vr", "Parallels"),
    ("HAXMHAXMHAXM", "HAXM"),
    ("___ NVMM ___", "NetBSD's NVMM"),
    ("OpenBSDVMM58", "OpenBSD's vmm"),
    ("SRESRESRESRE", "Lockheed Martin's LMHS"),
];

/// Authors of ACPI tables that only a VMM writes.
const ACPI_AUTHORS: [(&str, &str); 7] = [
    ("FIRECK", "Firecracker"),
    ("CLOUDH", "Cloud Hypervisor"),
    ("CROSVM", "crosvm"),
    ("BOCHS", "QEMU"),
    ("VBOX", "VirtualBox"),
    ("AMAZON", "Amazon EC2"),
    ("Xen", "Xen"),
];

/// Beginnings of DMI's vendor and product that only a VMM or a cloud writes.
const DMI_BEGINNINGS: [(&str, &str); 10] = [
    ("QEMU", "QEMU"),
    ("Cloud Hypervisor", "Cloud Hypervisor"),
    ("VMware", "VMware"),
    ("innotek GmbH", "VirtualBox"),
    ("Xen", "Xen"),
    ("Microsoft Corporation Virtual Machine", "Hyper-V"),
    ("Google Google Compute Engine", "Google Compute Engine"),
    ("OpenStack", "OpenStack"),
    ("Parallels", "Parallels"),
    ("Red Hat KVM", "QEMU"),
];

/// Looks at the machine, with the CPUID of one of its CPUs.
#[must_use]
pub fn look(cpuid: &CpuidTable) -> Machine {
    look_below(&Root::machine(), cpuid)
}

pub(crate) fn look_below(root: &Root, cpuid: &CpuidTable) -> Machine {
    let hypervisors = hypervisors(cpuid);
    let dmi = dmi(root);
    let acpi_author = acpi_author(root);
    let by_acpi = acpi_author.as_deref().and_then(|author| named(&ACPI_AUTHORS, |known| author == known));
    let by_dmi = dmi.as_deref().and_then(|dmi| named(&DMI_BEGINNINGS, |known| dmi.starts_with(known)));
    // EC2's bare-metal machines have Amazon's firmware too: it tells the VMM only where there is one.
    let vmm = by_acpi.or(by_dmi);
    let virtual_bit = cpuid.get(1, 0).map(|leaf| leaf.ecx >> 31 == 1);
    let kind = match virtual_bit {
        None => Kind::Unknown,
        Some(true) => Kind::Guest,
        Some(false) if hypervisors.iter().any(|hypervisor| hypervisor.name.is_some()) => Kind::Guest,
        Some(false) if vmm.is_some_and(|vmm| !vmm.starts_with("Amazon")) => Kind::HiddenGuest,
        Some(false) => Kind::BareMetal,
    };
    let vmm = vmm.filter(|_| matches!(kind, Kind::Guest | Kind::HiddenGuest));
    let device = KvmDevice {
        refusal: kvm::open(root).err().map(|refusal| refusal.to_string()),
        backends: backends(root, cpuid.vendor()),
    };
    Machine { kind, hypervisors, dmi, acpi_author, vmm, kvm: device }
}

/// The clock that the kernel reads time from: `tsc`, `kvm-clock`, `hpet`.
#[must_use]
pub fn clocksource() -> Option<String> {
    Root::machine().value("sys/devices/system/clocksource/clocksource0/current_clocksource").ok()
}

fn named(table: &[(&'static str, &'static str)], is: impl Fn(&str) -> bool) -> Option<&'static str> {
    table.iter().find(|(known, _)| is(known)).map(|(_, name)| *name)
}

/// The hypervisors' signatures in a CPU's table. A head that announces no leaf of the hypervisors' range is none:
/// silicon answers there with the data of another leaf.
#[must_use]
pub fn hypervisors(cpuid: &CpuidTable) -> Vec<Hypervisor> {
    let heads = cpuid.entries().iter().filter(|entry| entry.leaf >> 16 == 0x4000 && entry.leaf & 0xff == 0);
    let announced = heads.filter(|entry| (entry.leaf..=entry.leaf | 0xffff).contains(&entry.registers.eax));
    announced
        .map(|entry| {
            let registers = entry.registers;
            let bytes = [registers.ebx, registers.ecx, registers.edx].map(u32::to_le_bytes).concat();
            let printable = |&byte: &u8| if (0x20..0x7f).contains(&byte) { char::from(byte) } else { '?' };
            let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            let signature: String = bytes.iter().take(end).map(printable).collect();
            let name = named(&SIGNATURES, |known| signature == known);
            Hypervisor { leaf: entry.leaf, signature, name }
        })
        .filter(|hypervisor| !hypervisor.signature.is_empty())
        .collect()
}

fn dmi(root: &Root) -> Option<String> {
    let part = |name: &str| root.value(&format!("sys/class/dmi/id/{name}")).ok().filter(|text| !text.is_empty());
    let parts: Vec<_> = [part("sys_vendor"), part("product_name")].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

/// Bytes 10 to 15 of the header that every ACPI table has (ACPI specification, 5.2.6: OEMID).
fn acpi_author(root: &Root) -> Option<String> {
    let author = ["FACP", "APIC", "DSDT"].into_iter().find_map(|name| {
        let table = File::open(root.path(&format!("sys/firmware/acpi/tables/{name}"))).ok()?;
        let mut author = [0; 6];
        table.read_exact_at(&mut author, 10).ok()?;
        Some(author)
    })?;
    let text: String = author.iter().map(|&byte| char::from(byte)).filter(|c| c.is_ascii_graphic()).collect();
    (!text.is_empty()).then_some(text)
}

fn backends(root: &Root, vendor: Option<Vendor>) -> Vec<Backend> {
    let modules = kvm::modules(root).unwrap_or_default();
    let all: Vec<_> = modules
        .into_iter()
        .filter(|module| module != "kvm")
        // Only a loaded module has a state (`kernel/module/main.c:show_initstate`).
        .map(|module| Backend { built_in: !root.path(&format!("sys/module/{module}/initstate")).exists(), module })
        .collect();
    let loaded: Vec<_> = all.iter().filter(|backend| !backend.built_in).cloned().collect();
    if !loaded.is_empty() {
        return loaded;
    }
    // A built-in backend keeps its folder on a CPU that it does not serve.
    let fits = |backend: &Backend| match (backend.module.as_str(), vendor) {
        ("kvm_intel", Some(vendor)) => matches!(vendor, Vendor::Intel | Vendor::Centaur | Vendor::Zhaoxin),
        ("kvm_amd", Some(vendor)) => matches!(vendor, Vendor::Amd | Vendor::Hygon),
        _ => true,
    };
    all.into_iter().filter(fits).collect()
}

impl fmt::Display for Machine {
    /// One or two sentences for people, without a line break.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::BareMetal => f.write_str("bare metal")?,
            Kind::Guest => f.write_str("a guest")?,
            Kind::HiddenGuest => f.write_str("a guest whose CPUID hides the hypervisor")?,
            Kind::Unknown => f.write_str("a machine whose CPUID was not seen")?,
        }
        for (number, hypervisor) in self.hypervisors.iter().enumerate() {
            let name = hypervisor.name.unwrap_or("a hypervisor that is not known");
            f.write_str(if number == 0 { " of " } else { ", behind it " })?;
            write!(f, "{name} (CPUID.{:X}H says \"{}\")", hypervisor.leaf, hypervisor.signature)?;
        }
        if let Some(vmm) = self.vmm {
            write!(f, ", by its firmware's tables in {vmm}")?;
        }
        let modules: Vec<_> = self.kvm.backends.iter().map(|backend| backend.module.as_str()).collect();
        match (&self.kvm.refusal, modules.as_slice()) {
            (None, []) => f.write_str("; /dev/kvm answers, its backend cannot be told"),
            (None, modules) => write!(f, "; /dev/kvm is served by {}", modules.join(" or ")),
            (Some(refusal), _) => write!(f, "; no KVM: {refusal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use cpusieve_model::Registers;

    use super::*;
    use crate::testing::Folder;

    fn cpu(bit: bool, heads: &[(u32, u32, &[u8; 12])]) -> CpuidTable {
        let mut table = CpuidTable::default();
        table.insert(0, 0, Registers { eax: 1, ebx: 0x6874_7541, ecx: 0x444d_4163, edx: 0x6974_6e65 });
        table.insert(1, 0, Registers { ecx: u32::from(bit) << 31, ..Registers::default() });
        for &(leaf, eax, signature) in heads {
            let word = |at: usize| u32::from_le_bytes(signature[at..at + 4].try_into().unwrap());
            table.insert(leaf, 0, Registers { eax, ebx: word(0), ecx: word(4), edx: word(8) });
        }
        table
    }

    #[test]
    fn signatures_are_named_and_foreign_answers_are_none() {
        let both =
            cpu(true, &[(0x4000_0000, 0x4000_000a, b"Microsoft Hv"), (0x4000_0100, 0x4000_0101, b"KVMKVMKVM\0\0\0")]);
        let found = hypervisors(&both);
        let seen: Vec<_> = found.iter().map(|h| (h.leaf, h.signature.as_str(), h.name)).collect();
        let expected = [(0x4000_0000, "Microsoft Hv", Some("Hyper-V")), (0x4000_0100, "KVMKVMKVM", Some("KVM"))];
        assert_eq!(seen, expected);
        // The highest basic leaf of an Intel CPU, out of range.
        assert_eq!(hypervisors(&cpu(false, &[(0x4000_0000, 7, b"abcdefghijkl")])), []);
        assert_eq!(hypervisors(&cpu(true, &[(0x4000_0000, 0x4000_0000, &[0; 12])])), []);
        let odd = hypervisors(&cpu(true, &[(0x4000_0000, 0x4000_0000, b"\x01\xffbcdefghijk")]));
        assert_eq!((odd[0].signature.as_str(), odd[0].name), ("??bcdefghijk", None));
    }

    #[test]
    fn bare_metal_guest_and_hidden_guest_are_told_apart() {
        let folder = Folder::new("machine");
        let kind = |cpuid: &CpuidTable| look_below(&folder.root(), cpuid).kind;
        assert_eq!(kind(&CpuidTable::default()), Kind::Unknown);
        assert_eq!(kind(&cpu(false, &[])), Kind::BareMetal);
        assert_eq!(kind(&cpu(true, &[])), Kind::Guest);
        assert_eq!(kind(&cpu(false, &[(0x4000_0000, 0x4000_0001, b"KVMKVMKVM\0\0\0")])), Kind::Guest);
        folder.write("sys/class/dmi/id/sys_vendor", b"QEMU\n");
        folder.write("sys/class/dmi/id/product_name", b"Standard PC (Q35 + ICH9, 2009)\n");
        assert_eq!(kind(&cpu(false, &[])), Kind::HiddenGuest);
        let machine = look_below(&folder.root(), &cpu(true, &[]));
        assert_eq!(machine.vmm, Some("QEMU"));
        assert_eq!(machine.dmi.as_deref(), Some("QEMU Standard PC (Q35 + ICH9, 2009)"));
    }

    #[test]
    fn the_author_of_the_acpi_tables_tells_the_vmm() {
        let folder = Folder::new("machine-acpi");
        folder.write("sys/firmware/acpi/tables/FACP", b"FACP\x14\x01\0\0\x06\x66FIRECKFCVMFADT");
        let kvm = cpu(true, &[(0x4000_0000, 0x4000_0001, b"KVMKVMKVM\0\0\0")]);
        let machine = look_below(&folder.root(), &kvm);
        assert_eq!(machine.vmm, Some("Firecracker"));
        let text = machine.to_string();
        let expected = "a guest of KVM (CPUID.40000000H says \"KVMKVMKVM\"), by its firmware's tables in Firecracker; \
                        no KVM: ";
        assert!(text.starts_with(expected), "{text}");
        folder.write("sys/firmware/acpi/tables/FACP", b"FACP\x14");
        assert_eq!(look_below(&folder.root(), &kvm).acpi_author, None);
    }

    #[test]
    fn a_loaded_backend_wins_and_a_built_in_one_must_fit_the_cpu() {
        let folder = Folder::new("machine-backend");
        folder.write("sys/module/kvm/initstate", b"live\n");
        folder.write("sys/module/kvm_intel/parameters/nested", b"Y\n");
        folder.write("sys/module/kvm_amd/parameters/nested", b"1\n");
        let names = |vendor| -> Vec<_> {
            let backends = backends(&folder.root(), Some(vendor));
            backends.into_iter().map(|backend| (backend.module, backend.built_in)).collect()
        };
        assert_eq!(names(Vendor::Hygon), [("kvm_amd".to_owned(), true)]);
        assert_eq!(names(Vendor::Zhaoxin), [("kvm_intel".to_owned(), true)]);
        folder.write("sys/module/kvm_other/initstate", b"live\n");
        assert_eq!(names(Vendor::Amd), [("kvm_other".to_owned(), false)]);
    }
}
