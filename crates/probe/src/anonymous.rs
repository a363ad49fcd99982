//! Taking out of a snapshot what tells one machine from its likes: serial numbers, names, identifiers of disks.

use std::path::Path;

use cpusieve_model::{CpuidEntry, CpuidTable, MsrTable, Snapshot};

/// MSRs that hold a chip's number: `MSR_PPIN` and `MSR_AMD_PPIN` (`arch/x86/include/asm/msr-index.h`).
const SERIAL_MSRS: [u32; 2] = [0x4f, 0xc001_02f1];

/// The leaf of the processor serial number (Intel SDM volume 2A, CPUID leaf 03H), which only old CPUs have.
const SERIAL_LEAF: u32 = 3;

/// What stands for a value that was taken out.
const HIDDEN: &str = "...";

/// Kernel parameters whose values decide over flags and name nothing: whole names, or beginnings that end in `.`, `_`.
const TELLING: [&str; 78] = [
    "acpi",
    "amd_iommu",
    "amd_pstate",
    "apic",
    "cet",
    "clearcpuid",
    "clocksource",
    "dis_ucode_ldr",
    "disable_mtrr_cleanup",
    "gather_data_sampling",
    "hpet",
    "hugepagesz",
    "hv_",
    "ibt",
    "idle",
    "indirect_target_selection",
    "init_on_alloc",
    "intel_idle.",
    "intel_iommu",
    "intel_pstate",
    "iommu",
    "isolcpus",
    "kpti",
    "kvm-amd.",
    "kvm-intel.",
    "kvm.",
    "kvm_",
    "l1tf",
    "l1d_flush",
    "lapic",
    "maxcpus",
    "mce",
    "mds",
    "mem",
    "mem_encrypt",
    "microcode",
    "microcode.",
    "mitigations",
    "mmio_stale_data",
    "nmi_watchdog",
    "no5lvl",
    "noapic",
    "nohz",
    "nopku",
    "nopti",
    "nosmap",
    "nosmep",
    "nosmt",
    "nox2apic",
    "noxsave",
    "nr_cpus",
    "numa",
    "panic",
    "pci",
    "possible_cpus",
    "preempt",
    "pti",
    "processor.",
    "rdt",
    "reg_file_data_sampling",
    "retbleed",
    "setcpuid",
    "spec_rstack_overflow",
    "spec_store_bypass_disable",
    "spectre_bhi",
    "spectre_v2",
    "spectre_v2_user",
    "split_lock_detect",
    "srbds",
    "srso",
    "tsa",
    "tsc",
    "tsx",
    "tsx_async_abort",
    "vmscape",
    "vsyscall",
    "x2apic_phys",
    "xen_",
];

/// Folders of the system, whose paths name nobody.
const SYSTEM_FOLDERS: [&str; 4] = ["/usr", "/bin", "/opt", "/nix/store"];

/// Takes out what identifies this one machine; what identifies its kind (brand, features, microcode) stays.
///
/// Gone are: the serial number of leaf 3, the MSRs with a chip's number, the values of kernel parameters that are not
/// known to be harmless and everything behind `--` of the command line, the folders of QEMU binaries outside the
/// system's, and a title that is not the CPU's brand. What is gone reads as not seen, never as zero.
pub fn anonymise(snapshot: &mut Snapshot) {
    for cpu in &mut snapshot.cpus {
        cpu.cpuid = without_serial(&cpu.cpuid);
        let harmless = cpu.msrs.iter().filter(|(index, _)| !SERIAL_MSRS.contains(index));
        cpu.msrs = harmless.fold(MsrTable::default(), |mut table, (index, reading)| {
            table.insert(index, reading);
            table
        });
    }
    snapshot.title = snapshot.cpus.first().and_then(|cpu| crate::record::brand(&cpu.cpuid));
    if let Some(cmdline) = snapshot.linux.as_mut().and_then(|linux| linux.cmdline.as_mut()) {
        *cmdline = harmless_cmdline(cmdline);
    }
    for binary in &mut snapshot.qemu {
        binary.path = harmless_path(&binary.path);
    }
    for part in snapshot.missing.iter_mut().filter(|part| part.what == "qemu") {
        part.why = "a QEMU binary did not tell its version".to_owned();
    }
}

fn without_serial(table: &CpuidTable) -> CpuidTable {
    let harmless = |entry: &&CpuidEntry| entry.leaf != SERIAL_LEAF || entry.registers.is_zero();
    table.entries().iter().filter(harmless).copied().collect()
}

fn harmless_cmdline(cmdline: &str) -> String {
    let mut words = Vec::new();
    for word in parameters(cmdline) {
        if word == "--" {
            words.push(format!("-- {HIDDEN}"));
            break;
        }
        words.push(match word.split_once('=') {
            Some((name, _)) if !tells(name) => format!("{name}={HIDDEN}"),
            _ => word.to_owned(),
        });
    }
    words.join(" ")
}

/// The words of a command line. A double quote holds a word together (`lib/cmdline.c:next_arg`).
fn parameters(cmdline: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let end = move |c: char| {
        quoted ^= c == '"';
        !quoted && c.is_ascii_whitespace()
    };
    cmdline.split(end).filter(|word| !word.is_empty())
}

/// Whether the values of a parameter may stay. Dashes and underscores are the same to the kernel.
fn tells(name: &str) -> bool {
    let same = |a: char, b: char| a == b || (matches!(a, '-' | '_') && matches!(b, '-' | '_'));
    let begins = |known: &str| name.len() >= known.len() && known.chars().zip(name.chars()).all(|(a, b)| same(a, b));
    TELLING.iter().any(|known| begins(known) && (name.len() == known.len() || known.ends_with(['.', '_'])))
}

fn harmless_path(path: &str) -> String {
    let path = Path::new(path);
    if SYSTEM_FOLDERS.iter().any(|folder| path.starts_with(folder)) {
        return path.to_string_lossy().into_owned();
    }
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use cpusieve_model::{Cpu, LinuxView, MissingPart, MsrReading, QemuBinary, Registers};

    use super::*;

    #[test]
    fn serials_and_names_go_and_the_kind_of_machine_stays() {
        let mut cpu = Cpu::default();
        cpu.cpuid.insert(1, 0, Registers { edx: 1 << 18, ..Registers::default() });
        cpu.cpuid.insert(3, 0, Registers { ecx: 0x1234, edx: 0x5678, ..Registers::default() });
        for leaf in 0x8000_0002..=0x8000_0004 {
            cpu.cpuid.insert(leaf, 0, Registers { eax: u32::from_le_bytes(*b"CPU "), ..Registers::default() });
        }
        for index in [0x4f, 0xc001_02f1, 0x10a] {
            cpu.msrs.insert(index, MsrReading::Value(7));
        }
        let qemu = |path: &str| QemuBinary { version: "8.2.2".into(), path: path.into() };
        let mut snapshot = Snapshot {
            title: Some("alices-laptop".into()),
            cpus: vec![cpu],
            linux: Some(LinuxView { cmdline: Some("root=UUID=1 nosmt".into()), ..LinuxView::default() }),
            qemu: vec![qemu("/usr/bin/qemu-kvm"), qemu("/home/alice/bin/qemu-kvm")],
            missing: vec![MissingPart { what: "qemu".into(), why: "/home/alice/x".into(), remedy: None }],
            ..Snapshot::default()
        };
        anonymise(&mut snapshot);
        let text = format!("{snapshot:?}");
        assert!(!text.contains("alice") && !text.contains("UUID"), "{text}");
        assert_eq!(snapshot.title.as_deref(), Some("CPU"));
        let cpu = &snapshot.cpus[0];
        assert_eq!(cpu.cpuid.get(3, 0), None);
        assert!(cpu.cpuid.get(1, 0).is_some());
        assert_eq!(cpu.msrs.get(0x10a), Some(7));
        assert_eq!(cpu.msrs.get(0x4f), None);
        assert_eq!(cpu.msrs.get(0xc001_02f1), None);
        let paths: Vec<_> = snapshot.qemu.iter().map(|binary| binary.path.as_str()).collect();
        assert_eq!(paths, ["/usr/bin/qemu-kvm", "qemu-kvm"]);
        let once = snapshot.clone();
        anonymise(&mut snapshot);
        assert_eq!(snapshot, once, "what is gone is gone");
    }

    #[test]
    fn a_leaf_3_without_a_serial_stays() {
        let mut table = CpuidTable::default();
        table.insert(3, 0, Registers::default());
        assert_eq!(without_serial(&table), table);
    }

    #[test]
    fn the_command_line_keeps_what_decides_over_flags() {
        let clean = |cmdline| harmless_cmdline(cmdline);
        assert_eq!(
            clean("BOOT_IMAGE=/vmlinuz root=UUID=0f-1e ro quiet mitigations=off kvm-intel.nested=1 clearcpuid=512"),
            "BOOT_IMAGE=... root=... ro quiet mitigations=off kvm-intel.nested=1 clearcpuid=512"
        );
        assert_eq!(
            clean("kvm_intel.ept=0 kvm.enable_pmu=0 tsx=on tsxx=secret"),
            "kvm_intel.ept=0 kvm.enable_pmu=0 tsx=on tsxx=..."
        );
        assert_eq!(clean("dyndbg=\"file a.c +p; b\" nosmt -- --token=s3cret name"), "dyndbg=... nosmt -- ...");
        assert_eq!(clean("systemd.hostname=\"my host"), "systemd.hostname=...");
        assert_eq!(clean(""), "");
    }

    #[test]
    fn names_whose_values_stay_are_sorted_enough_to_be_unique() {
        let unique: std::collections::BTreeSet<_> = TELLING.iter().collect();
        assert_eq!(unique.len(), TELLING.len());
    }
}
