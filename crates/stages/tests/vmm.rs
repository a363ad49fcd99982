//! Firecracker's normalization against its own fingerprints: what its guests saw on known CPUs and host kernels.
//!
//! A fingerprint is what came out, so KVM's answer that went in is not known and KVM's own leaves cannot be checked with
//! it. What can be: that configuring once more changes nothing, and that the leaves which do not depend on KVM come out of
//! a dump of the same silicon as they stand in the fingerprint.
#![allow(clippy::disallowed_methods, reason = "tests read files")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests fail by panics and say why they skip"
)]

use std::path::PathBuf;

use cpusieve_knowledge::vmm::Vmm;
use cpusieve_model::{CpuTemplate, CpuidTable, KvmCpuidEntry, KvmView, Register, Registers};
use cpusieve_stages::vmm::{Options, Question, configure, firecracker};

/// A file or folder below `corpus` of the data outside the repository; if it is missing, says so.
fn corpus(path: &str) -> Option<PathBuf> {
    let root = std::env::var("CPUSIEVE_SHARED")
        .map_or_else(|_| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let path = root.join("corpus").join(path);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: {} is missing (CPUSIEVE_SHARED names another place)", path.display());
    None
}

/// The entries of a fingerprint, with their flags, in its order.
fn entries(template: &CpuTemplate) -> Vec<KvmCpuidEntry> {
    let mut entries: Vec<KvmCpuidEntry> = Vec::new();
    for modifier in &template.cpuid {
        let (register, bits) = modifier.register.unwrap();
        assert_eq!(bits.mask, u64::from(u32::MAX));
        let key = (modifier.leaf, modifier.subleaf);
        if entries.last().map(|entry| (entry.leaf, entry.subleaf)) != Some(key) {
            let (leaf, subleaf) = key;
            entries.push(KvmCpuidEntry { leaf, subleaf, flags: modifier.flags, registers: Registers::default() });
        }
        *entries.last_mut().unwrap().registers.get_mut(register) = u32::try_from(bits.value).unwrap();
    }
    entries
}

fn fingerprint(name: &str, bytes: &[u8]) -> (CpuTemplate, Vec<KvmCpuidEntry>) {
    let (template, diagnostics) = cpusieve_formats::firecracker::template(name, bytes);
    assert_eq!(diagnostics, [], "{name}");
    let entries = entries(&template);
    (template, entries)
}

fn run(host: &CpuidTable, supported: Vec<KvmCpuidEntry>) -> cpusieve_stages::vmm::Output {
    let kvm = KvmView { supported: Some(supported), ..KvmView::default() };
    let options = Options::Firecracker(firecracker::Options::default());
    configure(&Question { release: Vmm::Firecracker.newest(), options, host: Some(host), kvm: &kvm, cpus: 1, cpu: 0 })
}

#[test]
fn configuring_a_guest_of_firecracker_again_changes_nothing() {
    let Some(folder) = corpus("firecracker") else { return };
    let mut count = 0;
    for file in std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()) {
        let name = file.display().to_string();
        let (template, entries) = fingerprint(&name, &std::fs::read(&file).unwrap());
        let host: CpuidTable =
            cpusieve_formats::read(&name, &std::fs::read(&file).unwrap()).snapshot.cpus[0].cpuid.clone();
        let output = run(&host, entries.clone());
        assert_eq!(output.error, None, "{name}");
        assert_eq!(output.cpuid, entries, "{name}");
        assert_eq!((output.assumed, output.warnings), (vec![], vec![]), "{name}");
        // The MSRs of the boot protocol that the fingerprint holds; 10H runs.
        let held = template.msrs.iter().filter(|msr| msr.index != 0x10 && output.msrs.contains_key(&msr.index));
        let same = held.inspect(|msr| assert_eq!(output.msrs[&msr.index], msr.bits.value, "{name}: {:x}", msr.index));
        assert!(same.count() >= 5, "{name}");
        count += 1;
    }
    println!("{count} fingerprints");
    assert!(count > 0);
}

#[test]
fn leaves_that_do_not_depend_on_kvm_come_out_of_the_silicon() {
    let pairs = [
        ("INTEL_SAPPHIRE_RAPIDS_6.1host", "instlatx64/GenuineIntel/GenuineIntel00806F8_SapphireRapids_05_CPUID.txt"),
        ("INTEL_CASCADELAKE_5.10host", "libvirt/x86_64-cpuid-Xeon-Platinum-9242.xml"),
    ];
    for (guest, silicon) in pairs {
        let Some(guest) = corpus(&format!("firecracker/fingerprint_{guest}.json")) else { continue };
        let Some(silicon) = corpus(silicon) else { continue };
        let (_, expected) = fingerprint("fingerprint", &std::fs::read(guest).unwrap());
        let name = silicon.display().to_string();
        let parsed = cpusieve_formats::read(&name, &std::fs::read(&silicon).unwrap());
        let host = &parsed.snapshot.first_cpuid().unwrap().cpuid;
        let output = run(host, as_offered(&expected, host));
        assert_eq!(output.error, None, "{name}");
        let places = |entries: &[KvmCpuidEntry]| entries.iter().map(|e| (e.leaf, e.subleaf)).collect::<Vec<_>>();
        assert_eq!(places(&output.cpuid), places(&expected), "{name}");
        for (ours, real) in output.cpuid.iter().zip(&expected) {
            let place = format!("{name}: {:x}.{:x}", ours.leaf, ours.subleaf);
            let mask = comparable(real);
            for register in Register::ALL {
                let mask = mask.get(register);
                assert_eq!(
                    ours.registers.get(register) & mask,
                    real.registers.get(register) & mask,
                    "{place} {register}"
                );
            }
        }
    }
}

/// The leaves that Firecracker makes out of the host's CPU or its own configuration, as KVM hands on the silicon's; the
/// others as they came out.
fn as_offered(guest: &[KvmCpuidEntry], host: &CpuidTable) -> Vec<KvmCpuidEntry> {
    let raw = |entry: &KvmCpuidEntry| {
        let mut entry = *entry;
        let host = host.get(entry.leaf, entry.subleaf);
        match (entry.leaf, host) {
            (1, Some(host)) => {
                entry.registers.ebx = host.ebx;
                // PDCM, the timer and the hypervisor bit as on bare metal; HTT as there are threads.
                entry.registers.ecx = entry.registers.ecx & !(1 << 24 | 1 << 31) | 1 << 15;
                entry.registers.edx |= 1 << 28;
            }
            (6, Some(host)) => entry.registers.eax |= host.eax & 2,
            (7, Some(_)) if entry.subleaf == 0 => {
                entry.registers.ebx &= !(1 << 6 | 1 << 13);
                entry.registers.ecx |= 1 << 5;
            }
            (4 | 0xa | 0xb | 0x1f | 0x8000_0002..=0x8000_0006, Some(host)) => entry.registers = host,
            _ => {}
        }
        entry
    };
    // KVM lists the first subleaf of the topology leaves alone.
    guest.iter().filter(|entry| !(matches!(entry.leaf, 0xb | 0x1f) && entry.subleaf > 0)).map(raw).collect()
}

/// The bits that do not depend on which model of the generation it is: not the size of the third level cache, and not the
/// frequency in the brand string.
fn comparable(entry: &KvmCpuidEntry) -> Registers {
    let all = Registers { eax: u32::MAX, ebx: u32::MAX, ecx: u32::MAX, edx: u32::MAX };
    match (entry.leaf, entry.registers.eax >> 5 & 7) {
        (4, 3) => Registers { ebx: 0, ecx: 0, ..all },
        // "Intel(R) Xeon(R) Processor"
        (0x8000_0003, _) => Registers { ecx: 0xffff, edx: 0, ..all },
        (0x8000_0004, _) => Registers::default(),
        _ => all,
    }
}
