//! What random command lines found (`cargo xtask lab fuzz-qemu`): each line was printed by the real binary.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests read files")]

mod oracle;

use cpusieve_knowledge::qemu;
use cpusieve_model::{KvmCpuidEntry, Registers};
use cpusieve_stages::qemu::{Accelerator, Irqchip, Output, Protected, Question, Smp, SmpError, realize};

use oracle::{Host, hosts};

/// Release, machine, `-smp`, `-cpu`, and what QEMU prints.
type Found = (&'static str, &'static str, &'static str, &'static str, &'static [&'static str]);

/// Under TCG.
const EMULATED: [Found; 25] = [
    // Boards: ISA's CPUs, addresses, APIC ids, the firmware's files.
    ("5.2", "pc-1.0", "1", "max", &["Machine type 'pc-1.0' is deprecated: use a newer machine type instead"]),
    ("11.1", "isapc", "1", "max", &["warning: cpu type max-x86_64-cpu is deprecated for isapc machine"]),
    ("11.1", "isapc", "1", "pentium3", &[]),
    ("10.0", "q35", "1", "max,phys-bits=32", &["Address space limit 0xffffffff < 0x8ffffffff phys-bits too low (32)"]),
    ("10.0", "pc", "1", "max,phys-bits=32", &["Address space limit 0xffffffff < 0x17fffffff phys-bits too low (32)"]),
    ("10.0", "pc", "1", "max,phys-bits=33", &[]),
    ("7.2", "q35", "1", "max,phys-bits=32", &[]),
    ("7.2", "q35", "1", "max,phys-bits=35", &["Address space limit 0x7ffffffff < 0x8ffffffff phys-bits too low (35)"]),
    ("7.2", "q35", "5,sockets=5,maxcpus=255", "base", &[WIDE]),
    ("7.2", "q35", "1,threads=3,maxcpus=255", "base", &[WIDE]),
    ("10.0", "q35", "1,threads=3,maxcpus=255", "base", &[]),
    ("5.2", "pc-i440fx-2.1", "1", "Penryn,level=0,check=off", &[FIRMWARE]),
    ("5.2", "pc-i440fx-2.6", "1", "Penryn,level=0,check=off", &[]),
    ("7.2", "pc-i440fx-2.1", "1", "Penryn,level=0,check=off", &[]),
    ("10.0", "pc-q35-8.0", "1,maxcpus=255", "base", &[SMBIOS]),
    ("10.0", "pc-q35-8.0", "1,maxcpus=254", "base", &[]),
    ("10.0", "pc-q35-8.1", "1,maxcpus=255", "base", &[]),
    // Words and numbers.
    ("5.2", "q35", "1", "base,hv-vpindex=on", &["kernel doesn't allow setting HyperV VP_INDEX"]),
    ("10.0", "q35", "1", "base,hv-vpindex=on", &[]),
    ("5.2", "q35", "1", "base,tsc-freq=1e9", &[]),
    ("7.2", "q35", "1", "base,tsc-freq=1e9", &["bad numerical value 1e9"]),
    ("11.1", "q35", "1", "max,phys-bits=31", &["phys-bits should be at least 32 (but is 31)"]),
    (
        "11.1",
        "q35",
        "1",
        "base,avx10-version=3",
        &["can't apply global base-x86_64-cpu.avx10-version=3: avx10-version can be at most 2"],
    ),
    (
        "5.2",
        "q35",
        "1",
        "base,pclmuldq=1",
        &["can't apply global base-x86_64-cpu.pclmuldq=1: Parameter 'pclmulqdq' expects 'on' or 'off'"],
    ),
    (
        "7.2",
        "q35",
        "1",
        "base,pclmuldq=1",
        &["can't apply global base-x86_64-cpu.pclmuldq=1: Parameter 'pclmuldq' expects 'on' or 'off'"],
    ),
];

const WIDE: &str = "current -smp configuration requires kernel irqchip and X2APIC API support.";
const SMBIOS: &str = "SMBIOS 2.0 doesn't support number of processor cores/threads more than 255, use -machine \
                      smbios-entry-point-type=64 option to enable SMBIOS 3.0 support";
const FIRMWARE: &str = "warning: Unknown firmware file in legacy mode: etc/msr_feature_control";

fn told(
    host: Option<&Host>,
    irqchip: Option<Irqchip>,
    (release, machine, smp, cpu, _): Found,
) -> (Output, Vec<String>) {
    let release = qemu::nearest(release).release;
    let machine = qemu::machine(release, machine).unwrap();
    let (smp, _) = Smp::parse(release, machine, smp).unwrap();
    let accelerator = host.map_or(Accelerator::Tcg, |host| Accelerator::Kvm { host: &host.cpuid, kvm: &host.kvm });
    let irqchip = irqchip.unwrap_or(Irqchip::of(machine));
    let protected = Protected::default();
    let output = realize(Question { release, machine, accelerator, cpu, smp, cpu_pm: false, irqchip, protected });
    let error = output.error.iter().map(ToString::to_string);
    let lines = output.warnings.iter().cloned().chain(error).collect();
    (output, lines)
}

#[test]
fn boards_words_and_numbers_under_tcg() {
    for found in EMULATED {
        assert_eq!(told(None, None, found).1, found.4, "{found:?}");
    }
}

/// The oldest machines of 5.2 number CPUs as they come, and say so where the topology would not.
#[test]
fn apic_ids_in_compatibility_mode() {
    let said = |machine, smp| {
        let (_, lines) = told(None, None, ("5.2", machine, smp, "base", &[]));
        lines.iter().any(|line| line.starts_with("APIC IDs set in compatibility mode"))
    };
    assert!(said("pc-1.2", "12,dies=3") && said("pc-1.3", "6,cores=3"));
    assert!(!said("pc-1.3", "4,cores=2") && !said("pc-i440fx-1.4", "6,cores=3"));
}

/// On recorded hosts.
#[test]
fn what_kvm_has_decides() {
    let hosts = hosts();
    let (intel, amd) = (&hosts["icx-6.1"], &hosts["milan-6.18"]);
    let lines = |host, irqchip, found| told(Some(host), irqchip, found).1;
    // A PMU is the host's, and every vCPU says so.
    let pmu = lines(amd, None, ("11.1", "q35", "2", "host,vendor=GenuineIntel,check=off", &[]));
    assert_eq!(pmu, ["host doesn't support requested feature: vPMU"; 2]);
    let old = lines(amd, None, ("11.1", "pc-q35-6.2", "1", "host,family=5", &[]));
    assert_eq!(old.last().unwrap(), "AMD performance-monitoring is supported from K7 and later");
    // QEMU's own local APIC.
    let apic = lines(amd, Some(Irqchip::Off), ("7.2", "q35", "1", "athlon,check=off", &[]));
    assert_eq!(
        apic,
        [
            "warning: Userspace local APIC is deprecated for KVM.",
            "warning: Do not use kernel-irqchip except for the -M isapc machine type.",
        ]
    );
    assert!(lines(amd, Some(Irqchip::Off), ("7.2", "q35", "1", "486", &[])).is_empty());
    // Local machine check exceptions are Intel's.
    let lmce = lines(amd, None, ("10.0", "q35", "1", "EPYC,lmce=on,check=off", &[]));
    assert_eq!(
        lmce,
        ["kvm: LMCE not supported", "kvm_init_vcpu: kvm_arch_init_vcpu failed (0): Operation not supported",]
    );
    assert!(lines(intel, None, ("10.0", "q35", "1", "Nehalem,lmce=on,check=off", &[])).is_empty());
    // An AVX10 that is newer than QEMU: on `spr-6.18` made up.
    let mut newer = oracle::hosts().remove("spr-6.18").unwrap();
    for entry in newer.kvm.supported.iter_mut().flatten().filter(|entry| (entry.leaf, entry.subleaf) == (7, 1)) {
        entry.registers.edx |= 1 << 19;
    }
    let registers = Registers { eax: 1, ebx: 7 << 16 | 3, ecx: 0, edx: 0 };
    newer.kvm.supported.as_mut().unwrap().push(KvmCpuidEntry { leaf: 0x24, subleaf: 0, flags: 1, registers });
    assert_eq!(lines(&newer, None, ("11.1", "q35", "1", "host", &[])), ["avx10-version can be at most 2"]);
    // A frequency below a kilohertz is none, so that VMware's leaf stays away.
    let (output, _) = told(Some(intel), None, ("7.2", "q35", "1", "host,tsc-frequency=999", &[]));
    assert!(output.cpuid.iter().all(|entry| entry.leaf != 0x4000_0010));
}

/// KVM is not given subleaves without a size, or more than a hundred entries; a guest under TCG reads them all.
#[test]
fn a_guest_under_tcg_reads_what_no_table_holds() {
    let (output, _) = told(None, None, ("7.2", "pc", "1", "Opteron_G4,check=off", &[]));
    let second = output.cpuid.iter().find(|entry| (entry.leaf, entry.subleaf) == (0xd, 1)).unwrap();
    assert_eq!((second.registers.eax, second.registers.ebx), (0, 0x340));
    assert!(told(None, None, ("10.0", "pc", "1", "qemu64,level-func7=200,check=off", &[])).1.is_empty());
}

/// 7.2 warns of a zero also where it then refuses.
#[test]
fn a_topology_is_warned_of_and_refused() {
    let release = qemu::nearest("7.2").release;
    let machine = qemu::machine(release, "pc").unwrap();
    let SmpError { message, warning, .. } =
        Smp::parse(release, machine, "12,sockets=4,threads=2,maxcpus=0").unwrap_err();
    assert!(message.starts_with("Invalid CPU topology: product of the hierarchy must match maxcpus"));
    assert!(warning.unwrap().starts_with("warning: Deprecated CPU topology (considered invalid)"));
}
