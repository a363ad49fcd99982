//! What each function of the two VMMs does, on hand-made answers of KVM.

mod cloud_hypervisor;
mod firecracker;

use cpusieve_model::Effect;

use super::firecracker::Template;
use super::*;

const INTEL: [u32; 3] = [0x756e_6547, 0x6c65_746e, 0x4965_6e69];
const AMD: [u32; 3] = [0x6874_7541, 0x444d_4163, 0x6974_6e65];

fn registers(eax: u32, ebx: u32, ecx: u32, edx: u32) -> Registers {
    Registers { eax, ebx, ecx, edx }
}

fn entry(leaf: u32, subleaf: u32, registers: Registers) -> KvmCpuidEntry {
    KvmCpuidEntry { leaf, subleaf, flags: u32::from(cpusieve_model::has_subleaves(leaf)), registers }
}

/// KVM's answer on a server: every leaf that either VMM writes to. AMX is offered, its state is not permitted.
fn supported([ebx, ecx, edx]: [u32; 3], signature: u32) -> Vec<KvmCpuidEntry> {
    let zero = Registers::default();
    let mut entries = vec![
        entry(0, 0, registers(0x1f, ebx, ecx, edx)),
        entry(1, 0, registers(signature, 0x0040_0800, 1 << 5 | 1 << 15 | 1, 1 << 28 | 1)),
        entry(4, 0, registers(0xfc00_4121, 0x02c0_003f, 0x3f, 0)),
        entry(4, 1, registers(0xfc1f_c163, 0x0380_003f, 0x9fff, 4)),
        entry(4, 2, zero),
        entry(6, 0, registers(0b110, 0, 1 << 3, 0)),
        entry(7, 0, registers(1, 0, 1 << 5, 1 << 29 | 1 << 25 | 1 << 24 | 1 << 22)),
        entry(7, 1, registers(1 << 21 | 1 << 4, 0, 0, 1 << 8)),
        entry(0xa, 0, registers(0x0830_0402, 0, 0, 0x603)),
        entry(0xb, 0, zero),
        entry(0xd, 0, registers(7, 0x340, 0x340, 0)),
        entry(0xd, 1, registers(0b1_1111, 0x340, 0, 0)),
        entry(0xd, 2, registers(0x100, 0x240, 0, 0)),
        entry(0x1d, 0, registers(1, 0, 0, 0)),
        entry(0x1e, 0, registers(0, 0x4010, 0, 0)),
        entry(0x1f, 0, zero),
        entry(0x4000_0000, 0, registers(0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d)),
        entry(0x4000_0001, 0, registers(0x0100_7efb, 0, 0, 0)),
        entry(0x8000_0000, 0, registers(0x8000_0021, 0, 0, 0)),
        entry(0x8000_0001, 0, registers(0, 0, 0x21 | 1 << 2, 0x2c10_0800)),
    ];
    entries.extend((0x8000_0002..=0x8000_0006).map(|leaf| entry(leaf, 0, zero)));
    entries.push(entry(0x8000_0007, 0, registers(0, 0, 0, 0)));
    entries.push(entry(0x8000_0008, 0, registers(0x3934, 0, 0, 0)));
    entries.push(entry(0x8000_001e, 0, zero));
    entries
}

/// The CPU under it.
fn host([ebx, ecx, edx]: [u32; 3], signature: u32) -> CpuidTable {
    let mut table = CpuidTable::default();
    for (leaf, subleaf, registers) in [
        (0, 0, registers(0x1f, ebx, ecx, edx)),
        (1, 0, registers(signature, 0, 0, 0)),
        (0xd, 17, registers(0x40, 0xac0, 2, 0)),
        (0xd, 18, registers(0x2000, 0xb00, 6, 0)),
        (0x8000_0000, 0, registers(0x8000_0021, 0, 0, 0)),
        (0x8000_0005, 0, registers(1, 2, 3, 4)),
        (0x8000_0006, 0, registers(5, 6, 7, 0x0003_9140)),
        (0x8000_0007, 0, registers(0, 0, 0, 1 << 8)),
        (0x8000_0008, 0, registers(0x3934, 0, 0, 0)),
        (0x8000_001d, 0, registers(0x121, 1, 2, 3)),
        (0x8000_001d, 1, registers(0x163, 4, 5, 6)),
        (0x8000_001d, 2, registers(0, 0, 0, 0)),
        (0x8000_001e, 0, registers(9, 0x0102, 0x0203, 0)),
        (0x8000_001f, 0, registers(1, 5 << 6 | 51, 0, 0)),
    ] {
        table.insert(leaf, subleaf, registers);
    }
    let brand: Vec<u32> = b"Intel(R) Xeon(R) Platinum 8275CL CPU @ 2.50GHz\0\0"
        .chunks(4)
        .map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    for (leaf, words) in (0x8000_0002..).zip(brand.chunks(4)) {
        table.insert(leaf, 0, registers(words[0], words[1], words[2], words[3]));
    }
    table
}

const SAPPHIRE_RAPIDS: u32 = 0x806f8;
const MILAN: u32 = 0x00a0_0f11;

/// One machine of either kind.
struct Bench {
    host: CpuidTable,
    kvm: KvmView,
    cpus: u32,
    cpu: u32,
}

impl Bench {
    fn new(vendor: [u32; 3], signature: u32) -> Self {
        let msr_features = BTreeMap::from([(0x10a, 0xc08_e0eb)]);
        let kvm = KvmView {
            supported: Some(supported(vendor, signature)),
            msr_features: Some(msr_features),
            msr_index: Some(vec![0x10, 0x10a, 0x140]),
            ..KvmView::default()
        };
        Self { host: host(vendor, signature), kvm, cpus: 1, cpu: 0 }
    }

    fn configure(&self, version: &str, options: Options<'_>) -> Output {
        let release = options.vmm().nearest(version).release;
        let (host, kvm) = (Some(&self.host), &self.kvm);
        configure(&Question { release, options, host, kvm, cpus: self.cpus, cpu: self.cpu })
    }

    fn firecracker(&self, version: &str, smt: bool, template: Template<'_>) -> Output {
        self.configure(version, Options::Firecracker(super::firecracker::Options { smt, template }))
    }

    fn cloud_hypervisor(&self, version: &str, options: super::cloud_hypervisor::Options) -> Output {
        self.configure(version, Options::CloudHypervisor(options))
    }
}

fn get(output: &Output, leaf: u32, subleaf: u32) -> Registers {
    let found = output.cpuid.iter().find(|entry| (entry.leaf, entry.subleaf) == (leaf, subleaf));
    found.unwrap_or_else(|| panic!("{leaf:x}.{subleaf} is missing: {:?}", output.error)).registers
}

fn step<'o>(output: &'o Output, feature: &str) -> (Effect, &'o str) {
    let found = output.steps.iter().find(|step| step.feature == feature);
    found.map(|step| (step.effect, step.rule.0)).unwrap_or_else(|| panic!("{feature}"))
}

#[test]
fn no_answer_of_kvm_makes_it_panic_and_no_edit_is_made_twice() {
    // A linear congruential generator: what matters is that odd tables come about.
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    for round in 0..600 {
        let (vendor, signature) = if round % 2 == 0 { (INTEL, SAPPHIRE_RAPIDS) } else { (AMD, MILAN) };
        let mut bench = Bench::new(vendor, signature);
        let supported = bench.kvm.supported.as_mut().unwrap();
        for entry in &mut *supported {
            // Whole words, so that every bit of a field is met; the vendor stays.
            if entry.leaf != 0 && random() % 4 == 0 {
                entry.registers = registers(random(), random() << 1, random(), random() << 1);
            }
        }
        let drop = random() as usize % supported.len();
        // Cloud Hypervisor adds a missing leaf 0BH without the APIC id, and before 50 a missing 1FH; it would be there the
        // second time.
        if random() % 3 == 0 && supported[drop].leaf != 0xb {
            supported.remove(drop);
        }
        bench.cpus = random() % 40;
        bench.cpu = random() % 8;
        let topology = [random() % 3, random() % 9, random() % 3, random() % 3].map(|count| count as u16);
        let [threads, cores, dies, packages] = topology;
        let topology = (random() % 2 == 0).then_some(Topology { threads, cores, dies, packages });
        let [kvm_hyperv, amx, nested, smt] = [0; 4].map(|_| random() % 2 == 0);
        let options = super::cloud_hypervisor::Options { topology, kvm_hyperv, amx, nested, max_phys_bits: 46 };
        let version = ["50", "51", "52", "53"][random() as usize % 4];
        let once = bench.cloud_hypervisor(version, options);
        let twice = |first: &Output| {
            let kvm = KvmView { supported: Some(first.cpuid.clone()), ..bench.kvm.clone() };
            Bench { host: bench.host.clone(), kvm, ..bench }
        };
        // The order of the leaves that are taken out and put in again may change.
        let sorted = |mut output: Output| {
            output.cpuid.sort_by_key(|entry| (entry.leaf, entry.subleaf));
            output.cpuid
        };
        if once.error.is_none() {
            for (again, once) in sorted(twice(&once).cloud_hypervisor(version, options)).iter().zip(sorted(once)) {
                assert_eq!(*again, once, "round {round}, {version}, {options:?}");
            }
        }
        let version = ["1.5", "1.11", "1.12", "1.16"][random() as usize % 4];
        let once = bench.firecracker(version, smt, Template::None);
        if once.error.is_none() {
            assert_eq!(twice(&once).firecracker(version, smt, Template::None).cpuid, once.cpuid, "{round}");
        }
    }
}
