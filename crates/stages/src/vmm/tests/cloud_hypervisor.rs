//! Cloud Hypervisor: topology and options.

use super::super::cloud_hypervisor;
use super::*;

#[test]
fn cloud_hypervisor_numbers_every_level() {
    let mut bench = Bench::new(INTEL, SAPPHIRE_RAPIDS);
    (bench.cpus, bench.cpu) = (24, 23);
    let topology = Topology { threads: 2, cores: 3, dies: 2, packages: 2 };
    let options = cloud_hypervisor::Options { topology: Some(topology), ..cloud_hypervisor::Options::default() };
    let output = bench.cloud_hypervisor("53", options);
    // Thread 1 of core 2 of die 1 of package 1.
    let id = 1 | 2 << 1 | 1 << 3 | 1 << 4;
    assert_eq!(get(&output, 1, 0).ebx, id << 24 | 12 << 16 | 8 << 8);
    assert_eq!(get(&output, 0xb, 0), registers(1, 2, 0x100, id));
    assert_eq!(get(&output, 0xb, 1), registers(4, 12, 0x200, id));
    assert_eq!(get(&output, 0x1f, 1), registers(3, 6, 0x200, id));
    assert_eq!(get(&output, 0x1f, 2), registers(4, 12, 0x500, id));
    // 48 and 49 leave KVM's number of CPUs, and the id out of the entries that they add.
    let before = bench.cloud_hypervisor("49", options);
    assert_eq!(get(&before, 1, 0).ebx, id << 24 | 0x40 << 16 | 8 << 8);
    assert_eq!((get(&before, 0x1f, 0).edx, get(&before, 0x1f, 2).edx), (id, 0));
    bench.cpus = 25;
    assert!(matches!(bench.cloud_hypervisor("53", options).error, Some(Error::Cpus(25, _))));
    let empty = cloud_hypervisor::Options { topology: Some(Topology { cores: 0, ..topology }), ..options };
    assert_eq!(bench.cloud_hypervisor("53", empty).error, Some(Error::Topology));
}

#[test]
fn cloud_hypervisor_on_amd_sets_the_topology_features() {
    let mut bench = Bench::new(AMD, MILAN);
    (bench.cpus, bench.cpu) = (4, 2);
    let output = bench.cloud_hypervisor("53", cloud_hypervisor::Options::default());
    assert_eq!(get(&output, 1, 0).ebx, 2 << 24 | 4 << 16 | 8 << 8);
    assert_eq!(get(&output, 0x8000_001e, 0), registers(2, 2, 2, 0));
    assert_eq!(get(&output, 0x8000_0008, 0).ecx, 4 << 12 | 3);
    assert_eq!(step(&output, "topoext"), (Effect::Added, "CLH0013"));
    assert_eq!(step(&output, "cmp_legacy"), (Effect::Added, "CLH0013"));
    assert_eq!(step(&output, "svm"), (Effect::Kept, "CLH0001"));
    // 52 is less the bits that memory encryption takes.
    assert_eq!(get(&output, 0x8000_0008, 0).eax, 0x2e_392e);
    let options =
        cloud_hypervisor::Options { max_phys_bits: 64, nested: false, ..cloud_hypervisor::Options::default() };
    assert_eq!(get(&bench.cloud_hypervisor("53", options), 0x8000_0008, 0).eax, 0x34_3934);
    let before = bench.cloud_hypervisor("52", options);
    assert_eq!(get(&before, 0x8000_0008, 0).eax, 0x392f);
    // 50 and 51 leave SVM although nested virtualization was switched off.
    assert_eq!(step(&before, "svm"), (Effect::Dropped, "CLH0005"));
    assert_eq!(step(&bench.cloud_hypervisor("51", options), "svm"), (Effect::Kept, "CLH0001"));
    bench.cpus = 1;
    bench.cpu = 0;
    let alone = bench.cloud_hypervisor("53", options);
    assert_eq!((get(&alone, 0x8000_0008, 0).ecx, get(&alone, 0x8000_0001, 0).ecx >> 22), (0, 0));
}

#[test]
fn cloud_hypervisor_edits_by_option() {
    let mut bench = Bench::new(INTEL, SAPPHIRE_RAPIDS);
    bench.kvm.tsc_khz = Some(2_400_000);
    let plain = bench.cloud_hypervisor("53", cloud_hypervisor::Options::default());
    for (feature, expected) in [
        ("hypervisor", (Effect::Added, "CLH0002")),
        ("mtrr", (Effect::Added, "CLH0003")),
        ("tsc_deadline_timer", (Effect::Added, "CLH0004")),
        ("vmx", (Effect::Kept, "CLH0001")),
        ("amx_tile", (Effect::Dropped, "CLH0006")),
        ("amx_fp16", (Effect::Dropped, "CLH0006")),
        ("kvm_msi_ext_dest_id", (Effect::Added, "CLH0007")),
        ("pdcm", (Effect::Kept, "CLH0001")),
    ] {
        assert_eq!(step(&plain, feature), expected, "{feature}");
    }
    assert_eq!((get(&plain, 0x1d, 0), get(&plain, 0x1e, 0)), (Registers::default(), Registers::default()));
    assert_eq!(get(&plain, 0x8000_0005, 0), registers(1, 2, 3, 4));
    assert_eq!(get(&plain, 0x4000_0000, 0).eax, 0x4000_0010);
    assert_eq!(plain.cpuid.last().map(|entry| entry.registers), Some(registers(2_400_000, 1_000_000, 0, 0)));
    assert_eq!((plain.msrs[&0x1a0], plain.msrs[&0x2ff]), (1, 0x806));
    let before = bench.cloud_hypervisor("49", cloud_hypervisor::Options { nested: false, ..Default::default() });
    assert_eq!(step(&before, "amx_fp16"), (Effect::Kept, "CLH0001"));
    assert_eq!((get(&before, 0x1e, 0).ebx, step(&before, "vmx").0), (0x4010, Effect::Kept));
    let amx =
        bench.cloud_hypervisor("53", cloud_hypervisor::Options { amx: true, nested: false, ..Default::default() });
    assert_eq!((step(&amx, "amx_tile").0, step(&amx, "vmx")), (Effect::Kept, (Effect::Dropped, "CLH0005")));
    assert_eq!(get(&amx, 0xd, 0).eax, 0x6_0007);
    assert_eq!(
        amx.cpuid.iter().filter(|entry| entry.leaf == 0xd).map(|entry| entry.subleaf).collect::<Vec<_>>(),
        [0, 1, 2, 17, 18]
    );
}

#[test]
fn cloud_hypervisor_poses_as_hyperv() {
    let bench = Bench::new(INTEL, SAPPHIRE_RAPIDS);
    let options = cloud_hypervisor::Options { kvm_hyperv: true, ..cloud_hypervisor::Options::default() };
    let output = bench.cloud_hypervisor("53", options);
    assert_eq!(get(&output, 0x4000_0001, 0).eax, u32::from_le_bytes(*b"Hv#1"));
    assert_eq!(get(&output, 0x4000_0003, 0), registers(0xa7f, 0, 0, 0x118));
    assert_eq!(get(&bench.cloud_hypervisor("52", options), 0x4000_0003, 0), registers(0x20e, 0, 0, 8));
    assert!(output.cpuid.iter().all(|entry| entry.leaf != 0x4000_0010));
    // The words of the signature are not read as KVM's features.
    let kvm: Vec<_> = output.steps.iter().filter(|step| step.feature.starts_with("kvm")).collect();
    assert!(!kvm.is_empty() && kvm.iter().all(|step| step.effect == Effect::Dropped && step.rule.0 == "CLH0012"));
}
