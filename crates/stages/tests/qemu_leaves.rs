//! Leaves that no recorded host or answer shows: enclaves, encrypted guests, idle vCPUs, modules, tables that are full.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests read files")]

mod oracle;

use std::collections::BTreeMap;

use cpusieve_knowledge::qemu;
use cpusieve_model::{KvmCpuidEntry, Registers};
use cpusieve_stages::qemu::{
    Accelerator, EpcSection, Instruction, Irqchip, Protected, Question, Running, Sev, Smp, realize,
};

use oracle::{Host, hosts};

fn question<'a>(release: &str, host: &'a Host, cpu: &'a str) -> Question<'a> {
    let release = qemu::nearest(release).release;
    Question {
        release,
        machine: qemu::machine(release, "q35").unwrap(),
        accelerator: Accelerator::Kvm { host: &host.cpuid, kvm: &host.kvm },
        cpu,
        smp: Smp::default(),
        cpu_pm: false,
        irqchip: Irqchip::Kernel,
        protected: Protected::default(),
    }
}

fn host(name: &str) -> Host {
    let mut hosts: BTreeMap<String, Host> = hosts();
    hosts.remove(name).unwrap()
}

fn leaf(question: Question<'_>, leaf: u32, subleaf: u32) -> [u32; 4] {
    let table = realize(question).cpuid;
    let entry = table.iter().find(|entry| (entry.leaf, entry.subleaf) == (leaf, subleaf));
    let Registers { eax, ebx, ecx, edx } = entry.map_or_else(Registers::default, |entry| entry.registers);
    [eax, ebx, ecx, edx]
}

/// The same question on the machine of this record, put to a real QEMU 7.2.22, ended it with these words.
#[test]
fn a_table_that_is_full_ends_qemu() {
    let host = host("self-pvm");
    let ending = |release, cpu| realize(question(release, &host, cpu)).error.unwrap().to_string();
    let no_space = "cpuid_data is full, no space for cpuid(eax:0x7,ecx:0x5c)";
    assert_eq!(ending("7.2", "host,level-func7=200"), no_space);
    assert_eq!(ending("7.2", "qemu64,xlevel2=0xc0000100"), "unsupported xlevel2 value: 0xc0000100");
    assert!(
        ending("10.0", "qemu64,xlevel2=0xc0000100").starts_with("cpuid_data is full, no space for cpuid(eax:0xc00000")
    );
}

#[test]
fn absurd_levels_do_not_hang() {
    let host = host("self-pvm");
    for release in ["5.2", "7.2", "10.0", "11.1"] {
        for cpu in ["host,level=0xffffffff", "host,xlevel=0xffffffff", "host,level=0x80000008,level-func7=0xffffffff"] {
            let _ = realize(question(release, &host, cpu));
        }
    }
}

#[test]
fn an_encrypted_guest_is_told_so() {
    let host = host("milan-6.18");
    let sev = Sev { encrypted_state: true, nested_paging: true, c_bit: 51, reduced_phys_bits: 5 };
    let told = |release| {
        let protected = Protected { sev: Some(sev), ..Protected::default() };
        leaf(Question { protected, ..question(release, &host, "EPYC") }, 0x8000_001f, 0)
    };
    assert_eq!(told("5.2"), [0x2, 51 | 5 << 6, 0, 0]);
    assert_eq!(told("7.2"), [0xa, 51 | 5 << 6, 0, 0]);
    assert_eq!(told("11.1"), [0x1a, 51 | 5 << 6, 0, 0]);
    assert_eq!(leaf(question("11.1", &host, "EPYC"), 0x8000_001f, 0), [0; 4]);
}

/// An Ice Lake whose KVM offers SGX, in the words of its leaf 12H.
fn sgx_host() -> Host {
    let mut host = host("icx-6.1");
    let supported = host.kvm.supported.as_mut().unwrap();
    supported.iter_mut().filter(|entry| (entry.leaf, entry.subleaf) == (7, 0)).for_each(|entry| {
        entry.registers.ebx |= 1 << 2;
    });
    supported.retain(|entry| entry.leaf != 0x12);
    let entry = |subleaf, [eax, ebx, ecx, edx]: [u32; 4]| KvmCpuidEntry {
        leaf: 0x12,
        subleaf,
        flags: 1,
        registers: Registers { eax, ebx, ecx, edx },
    };
    supported.push(entry(0, [0x3, 0x1, 0, 0x241f]));
    supported.push(entry(1, [0x36, 0xff, 0x2ff, 0]));
    host.cpuid.insert(0x12, 2, Registers { eax: 0x7020_0001, ebx: 0, ecx: 0x05c0_0001, edx: 0 });
    host
}

#[test]
fn an_enclave_page_cache_is_described_section_by_section() {
    let host = sgx_host();
    let epc = [EpcSection { address: 0x1_8000_0000, size: 0x400_0000 }];
    let protected = Protected { epc: &epc, ..Protected::default() };
    let told = |subleaf| leaf(Question { protected, ..question("10.0", &host, "host") }, 0x12, subleaf);
    assert_eq!(told(0), [0x3, 0x1, 0, 0x241f]);
    // Without the provisioning key; XFRM is the guest's XCR0.
    assert_eq!(told(1), [0x26, 0, 0x2e7, 0]);
    assert_eq!(told(2), [0x8000_0001, 0x1, 0x400_0001, 0]);
    assert_eq!(told(3), [0; 4]);
    let provisioning = Protected { provisioning: true, ..protected };
    assert_eq!(leaf(Question { protected: provisioning, ..question("10.0", &host, "host") }, 0x12, 1)[0], 0x36);
}

#[test]
fn an_idle_vcpu_waits_as_the_host_does() {
    let mut host = host("icx-6.1");
    host.cpuid.insert(5, 0, Registers { eax: 0x40, ebx: 0x40, ecx: 0x3, edx: 0x20 });
    host.kvm.caps.insert(143, 0xf);
    let told = |release, cpu_pm| leaf(Question { cpu_pm, ..question(release, &host, "host") }, 5, 0);
    for release in ["5.2", "7.2", "10.0", "11.1"] {
        assert_eq!(told(release, false), [0, 0, 3, 0], "{release}");
        assert_eq!(told(release, true), [0x40, 0x40, 3, 0x20], "{release}");
    }
}

/// `include/hw/i386/topology.h`: modules came with 9.1 and widen the APIC id between cores and dies.
#[test]
fn modules_are_a_level_of_their_own() {
    let host = host("spr-6.18");
    let smp = Smp { cpus: 16, sockets: 1, dies: 2, modules: 2, cores: 2, threads: 2 };
    let told = |subleaf| leaf(Question { smp, ..question("10.0", &host, "host") }, 0x1f, subleaf);
    let levels = [0, 1, 2, 3, 4].map(told);
    assert_eq!(
        levels.map(|level| [level[0], level[1], level[2] >> 8]),
        [[1, 2, 1], [2, 4, 2], [3, 8, 3], [4, 16, 5], [0, 0, 0]]
    );
}

/// CPUs after the first differ in their APIC id alone.
#[test]
fn a_cpu_is_told_its_own_apic_id() {
    let host = host("milan-6.18");
    let smp = Smp { cpus: 8, sockets: 2, dies: 1, modules: 1, cores: 2, threads: 2 };
    let instruction = Instruction::of(Question { smp, ..question("10.0", &host, "EPYC-Rome") }).unwrap();
    let last = Running { apic_id: 7, core_id: 1, ..Running::RESET };
    assert_eq!(instruction.returns(last, 1, 0).ebx >> 24, 7);
    assert_eq!(instruction.returns(last, 0xb, 1).edx, 7);
    // Core 1 of node 1, two threads to a core.
    let node = instruction.returns(last, 0x8000_001e, 0);
    assert_eq!((node.eax, node.ebx, node.ecx), (7, 0x101, 1));
}
