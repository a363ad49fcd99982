//! Firecracker: normalization and templates.

use cpusieve_model::{BitFilter, CapabilityCheck, CpuTemplate, CpuidModifier, MsrModifier, Register};

use super::super::cloud_hypervisor;
use super::super::firecracker;
use super::*;

#[test]
fn firecracker_numbers_threads_cores_and_packages() {
    let mut bench = Bench::new(INTEL, SAPPHIRE_RAPIDS);
    (bench.cpus, bench.cpu) = (6, 3);
    let output = bench.firecracker("1.16", true, Template::None);
    assert_eq!(get(&output, 1, 0).ebx, 3 << 24 | 8 << 16 | 8 << 8);
    assert_eq!(get(&output, 0xb, 0), registers(1, 2, 0x100, 3));
    assert_eq!(get(&output, 0xb, 1), registers(5, 6, 0x201, 3));
    assert_eq!(get(&output, 0x1f, 1), get(&output, 0xb, 1));
    // Threads share the first level, all vCPUs the third; 3 cores.
    assert_eq!(get(&output, 4, 0).eax, 2 << 26 | 1 << 14 | 0x121);
    assert_eq!(get(&output, 4, 1).eax, 2 << 26 | 5 << 14 | 0x163);
    assert_eq!(get(&output, 4, 2), Registers::default());
    assert_eq!(step(&output, "ht"), (Effect::Forced, "FCR0006"));
    let without_smt = bench.firecracker("1.16", false, Template::None);
    assert_eq!(get(&without_smt, 0xb, 0), registers(0, 1, 0x100, 3));
    // Before 1.12 leaf 1FH stayed KVM's, and 7 bits of the APIC id were told.
    let before = bench.firecracker("1.11", true, Template::None);
    assert_eq!((get(&before, 0xb, 1).eax, get(&before, 0x1f, 0)), (7, Registers::default()));
    assert!(before.cpuid.is_sorted_by_key(|entry| (entry.leaf, entry.subleaf)));
}

#[test]
fn firecracker_takes_numbers_of_vcpus_that_it_knows() {
    let mut bench = Bench::new(INTEL, SAPPHIRE_RAPIDS);
    for (cpus, cpu, smt, works) in
        [(0, 0, false, false), (33, 0, false, false), (3, 0, true, false), (3, 2, false, true), (2, 2, false, false)]
    {
        (bench.cpus, bench.cpu) = (cpus, cpu);
        assert_eq!(bench.firecracker("1.16", smt, Template::None).error.is_none(), works, "{cpus} {cpu} {smt}");
    }
}

#[test]
fn firecracker_edits_the_bits_of_its_table_with_their_rules() {
    let output = Bench::new(INTEL, SAPPHIRE_RAPIDS).firecracker("1.16", false, Template::None);
    for (feature, expected) in [
        ("pdcm", (Effect::Dropped, "FCR0003")),
        ("tsc_deadline_timer", (Effect::Added, "FCR0004")),
        ("hypervisor", (Effect::Added, "FCR0005")),
        ("ht", (Effect::Dropped, "FCR0007")),
        ("ida", (Effect::Dropped, "FCR0008")),
        ("epb", (Effect::Dropped, "FCR0009")),
        ("zero_fcs_fds", (Effect::Added, "FCR0010")),
        ("waitpkg", (Effect::Dropped, "FCR0011")),
        ("arch_capabilities", (Effect::Kept, "FCR0001")),
        ("vmx", (Effect::Kept, "FCR0001")),
    ] {
        assert_eq!(step(&output, feature), expected, "{feature}");
    }
    let step = output.steps.iter().find(|step| step.feature == "pdcm").unwrap();
    assert_eq!(step.cite.function(), "update_feature_info_entry");
    assert_eq!(step.because[0].value(), "1.ECX = 0x00008021, bit 15 is 1");
    assert_eq!(get(&output, 0xa, 0), Registers::default());
    let before = Bench::new(INTEL, SAPPHIRE_RAPIDS).firecracker("1.11", false, Template::None);
    assert_eq!(get(&before, 7, 0).ecx, 1 << 5);
}

#[test]
fn firecracker_reads_caches_and_brand_from_the_host() {
    let bench = Bench::new(INTEL, SAPPHIRE_RAPIDS);
    let output = bench.firecracker("1.16", false, Template::None);
    assert_eq!(get(&output, 0x8000_0005, 0), registers(1, 2, 3, 4));
    assert_eq!(get(&output, 0x8000_0006, 0), registers(5, 6, 7, 0x9140));
    assert_eq!(get(&output, 0x8000_0003, 0).ecx, u32::from_le_bytes(*b"or @"));
    assert_eq!(get(&output, 0x8000_0003, 0).edx, u32::from_le_bytes(*b" 2.5"));
    let question = Question {
        release: Vmm::Firecracker.newest(),
        options: Options::Firecracker(firecracker::Options::default()),
        host: None,
        kvm: &bench.kvm,
        cpus: 1,
        cpu: 0,
    };
    let blind = configure(&question);
    assert_eq!((blind.error, blind.assumed.len()), (None, 4), "{:?}", blind.assumed);
}

#[test]
fn firecracker_on_amd_fills_the_topology_leaves() {
    let mut bench = Bench::new(AMD, MILAN);
    (bench.cpus, bench.cpu) = (4, 3);
    let output = bench.firecracker("1.16", true, Template::None);
    assert_eq!(get(&output, 0x8000_001d, 0), registers(1 << 14 | 0x121, 1, 2, 3));
    assert_eq!(get(&output, 0x8000_001d, 1).eax, 3 << 14 | 0x163);
    assert_eq!(get(&output, 0x8000_001e, 0), registers(3, 0x0101, 0, 0));
    assert_eq!(get(&output, 0x8000_0008, 0).ecx, 0x7003);
    assert_eq!(get(&output, 0x8000_0000, 0).eax, 0x8000_0021);
    assert_eq!(get(&output, 0x8000_0002, 0).ebx, u32::from_le_bytes(*b"EPYC"));
    assert_eq!(step(&output, "topoext"), (Effect::Added, "FCR0013"));
    assert_eq!(step(&output, "arch_capabilities"), (Effect::Dropped, "FCR0012"));
    assert!(output.steps.iter().all(|step| step.feature != "zero_fcs_fds"));
    let before = bench.firecracker("1.10", true, Template::None);
    assert_eq!(get(&before, 0x8000_0000, 0).eax, 0x8000_001f);
}

#[test]
fn the_permission_for_amx_shows_its_state() {
    let mut bench = Bench::new(INTEL, SAPPHIRE_RAPIDS);
    let output = bench.firecracker("1.12", false, Template::None);
    assert_eq!(get(&output, 0xd, 0), registers(0x6_0007, 0x2b00, 0x2b00, 0));
    assert_eq!(get(&output, 0xd, 17), registers(0x40, 0xac0, 2, 0));
    assert_eq!(get(&output, 0xd, 18), registers(0x2000, 0xb00, 6, 0));
    // Compact: 240H, AVX 100H, then two aligned components.
    assert_eq!(get(&output, 0xd, 1).ebx, 0x240 + 0x100 + 0x40 + 0x2000);
    assert_eq!(get(&bench.firecracker("1.11", false, Template::None), 0xd, 0).eax, 7);
    bench.kvm.xcomp_guest_supp = Some(7);
    assert_eq!(get(&bench.firecracker("1.12", false, Template::None), 0xd, 0).eax, 7);
    let options = cloud_hypervisor::Options { amx: true, ..cloud_hypervisor::Options::default() };
    assert!(matches!(bench.cloud_hypervisor("52", options).error, Some(Error::Amx(_))));
    assert!(matches!(Bench::new(AMD, MILAN).cloud_hypervisor("52", options).error, Some(Error::Amx(_))));
}

#[test]
fn a_static_template_is_taken_on_its_hosts_alone() {
    let cascade_lake = Bench::new(INTEL, 0x50657);
    let output = cascade_lake.firecracker("1.16", false, Template::Static("T2S"));
    assert_eq!(get(&output, 1, 0).eax, 0x306f2);
    assert_eq!(output.msrs[&0x10a], 0xc08_0c4c);
    assert_eq!(step(&output, "vmx"), (Effect::Dropped, "FCR0014"));
    assert_eq!(step(&output, "mtrr"), (Effect::Added, "FCR0014"));
    // Normalization comes after the template, and wins.
    assert_eq!(step(&output, "zero_fcs_fds"), (Effect::Added, "FCR0010"));
    assert_eq!(cascade_lake.firecracker("1.7", false, Template::Static("T2S")).msrs[&0x10a], 0x408_0c4c);
    // T2CL leaves bits of what KVM says.
    let kept = cascade_lake.firecracker("1.16", false, Template::Static("T2CL")).msrs[&0x10a];
    assert_eq!(kept, 0xc08_e0eb & !0xffff_ffff_e2f5_1e00);
    let refused = |bench: &Bench, version, name| bench.firecracker(version, false, Template::Static(name)).error;
    assert_eq!(refused(&cascade_lake, "1.16", "T2A"), Some(Error::TemplateVendor("T2A".to_owned())));
    assert_eq!(refused(&cascade_lake, "1.16", "T9"), Some(Error::NoSuchTemplate("T9".to_owned())));
    let newer = Bench::new(INTEL, SAPPHIRE_RAPIDS);
    let signature = SAPPHIRE_RAPIDS;
    assert_eq!(refused(&newer, "1.16", "T2"), Some(Error::TemplateHost { template: "T2".to_owned(), signature }));
    // D.1 and all other entries are there; 1.11 asks for the vendor alone.
    assert_eq!(refused(&newer, "1.11", "T2"), None);
    let warned = |bench: &Bench, version| bench.firecracker(version, false, Template::Static("C3")).warnings.len();
    assert_eq!((warned(&Bench::new(INTEL, 0x50654), "1.16"), warned(&cascade_lake, "1.16")), (1, 0));
    assert_eq!((warned(&Bench::new(INTEL, 0x406f1), "1.11"), warned(&newer, "1.11")), (1, 0));
}

#[test]
fn a_custom_template_changes_what_there_is() {
    let mut bench = Bench::new(INTEL, SAPPHIRE_RAPIDS);
    let change = |leaf, register| CpuidModifier {
        leaf,
        subleaf: 0,
        flags: 0,
        register: Some((register, BitFilter { mask: 1 << 24 | 1 << 13, value: 1 << 13 })),
    };
    let mut template = CpuTemplate { cpuid: vec![change(7, Register::Edx)], ..CpuTemplate::default() };
    let output = bench.firecracker("1.16", false, Template::Custom(&template));
    assert_eq!(step(&output, "amx_tile"), (Effect::Dropped, "FCR0015"));
    assert_eq!(output.cpuid.iter().find(|entry| entry.leaf == 7).map(|entry| entry.flags), Some(0));
    template.msrs = vec![MsrModifier { index: 0x140, bits: BitFilter { mask: 1, value: 1 } }];
    let open = bench.firecracker("1.16", false, Template::Custom(&template));
    assert_eq!((open.error, open.assumed.len(), open.msrs.get(&0x140)), (None, 1, None));
    template.msrs = vec![MsrModifier { index: 0x122, bits: BitFilter::default() }];
    let error =
        |bench: &Bench, template: &CpuTemplate| bench.firecracker("1.16", false, Template::Custom(template)).error;
    assert_eq!(error(&bench, &template), Some(Error::TemplateMsr(0x122)));
    template = CpuTemplate { cpuid: vec![change(0x99, Register::Eax)], ..CpuTemplate::default() };
    assert_eq!(error(&bench, &template), Some(Error::TemplateLeaf { leaf: 0x99, subleaf: 0 }));
    template = CpuTemplate { capabilities: vec![CapabilityCheck::Add(171)], ..CpuTemplate::default() };
    assert_eq!(error(&bench, &template), None);
    bench.kvm.caps.insert(171, 0);
    assert_eq!(error(&bench, &template), Some(Error::TemplateCapability(171)));
}

#[test]
fn firecracker_refuses_what_it_cannot_write_to() {
    let without = |leaf: u32| {
        let mut bench = Bench::new(INTEL, SAPPHIRE_RAPIDS);
        bench.kvm.supported.as_mut().unwrap().retain(|entry| entry.leaf != leaf);
        bench.firecracker("1.16", false, Template::None).error
    };
    for leaf in [0, 1, 6, 7, 0xa, 0x8000_0002, 0x8000_0005, 0x8000_0006] {
        assert_eq!(without(leaf), Some(Error::MissingLeaf { leaf, subleaf: 0 }));
    }
    assert_eq!((without(4), without(0x1f), without(0x4000_0001)), (None, None, None));
    let mut bench = Bench::new(INTEL, SAPPHIRE_RAPIDS);
    bench.kvm.supported.as_mut().unwrap().extend([1, 2].map(|subleaf| entry(0xb, subleaf, Registers::default())));
    assert_eq!(bench.firecracker("1.12", false, Template::None).error, Some(Error::UnexpectedSubleaf(2)));
    assert_eq!(bench.firecracker("1.13", false, Template::None).warnings.len(), 1);
    assert_eq!(bench.firecracker("1.11", false, Template::None).warnings.len(), 0);
    let other = Bench::new([1, 2, 3], 0).firecracker("1.16", false, Template::None);
    assert_eq!(other.error, Some(Error::UnsupportedVendor));
    bench.kvm.supported = None;
    assert_eq!(bench.firecracker("1.16", false, Template::None).error, Some(Error::KvmNotSeen));
}
