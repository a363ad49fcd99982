//! The answers against captured truth: guests that real QEMUs started on a real kvm_amd, which was asked what it offers.
//!
//! The captures hold what each sieve let through: the host's CPUID, KVM's own table, the guest's CPUID. So the sieve that
//! took a flag is known without cpusieve: the first whose output lacks the bit.
#![allow(clippy::unwrap_used, reason = "a test that cannot read its corpus has failed")]

use std::fs;
use std::path::Path;

use cpusieve_answers::diff::{self, Diff, Item};
use cpusieve_answers::reason::Confidence;
use cpusieve_formats::lab::{self, Guest};
use cpusieve_knowledge::linux;
use cpusieve_model::{
    Cpu, CpuidBit, CpuidTable, Cpuinfo, Effect, FlagList, Place, QemuBinary, Register, Snapshot, Stage,
};
use cpusieve_stages::Machine;
use cpusieve_stages::linux::boot::{Input, boot};

/// The captures with guests of their own; the other three have an outer guest alone.
const NESTED: [&str; 4] = ["k5.10-max", "k6.1-max", "k6.12-max", "k7.3-EPYC-Milan"];
const OUTER_ALONE: [&str; 3] = ["d-k6.1-max-clear", "d-k6.12-max-nested0", "d-k7.3-EPYC-Genoa-force"];

/// KVM offers none of these to anybody and sets them in a running vCPU that asks for them.
const RUNTIME: [&str; 1] = ["ospke"];

/// 1.ECX\[31\].
const HYPERVISOR: CpuidBit = CpuidBit::new(1, 0, Register::Ecx, 31);

/// One host, one guest, and what is known of both.
struct Pair {
    name: String,
    cpu: String,
    host: Snapshot,
    guest: Snapshot,
}

#[allow(clippy::disallowed_methods, reason = "a test reads the corpus")]
fn capture(name: &str) -> lab::Capture {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus/guests-kvm").join(format!("{name}.json"));
    lab::capture(name, &fs::read(file).unwrap())
}

/// Every guest that booted and shows its hypervisor, with its host.
///
/// The outer guest stands for bare metal: its hypervisor bit and the leaves of the emulator that ran it are taken out.
fn pairs() -> Vec<Pair> {
    let mut pairs = Vec::new();
    for name in NESTED {
        let capture = capture(name);
        let host = bare(&capture.parsed.snapshot);
        let shows = |guest: &&Guest| guest.snapshot.flags().is_some_and(|flags| flags.contains("hypervisor"));
        for guest in capture.nested.iter().filter(shows) {
            let version = guest.setup.emulator.split(' ').next().unwrap().to_owned();
            let qemu = vec![QemuBinary { version, ..QemuBinary::default() }];
            let cpu = guest.setup.cpu.clone();
            let name = format!("{name}, QEMU {} -cpu {cpu}", guest.setup.emulator);
            pairs.push(Pair { name, cpu, host: Snapshot { qemu, ..host.clone() }, guest: guest.snapshot.clone() });
        }
    }
    assert!(pairs.len() >= 30, "{} pairs", pairs.len());
    pairs
}

fn bare(snapshot: &Snapshot) -> Snapshot {
    let mut bare = snapshot.clone();
    for cpu in &mut bare.cpus {
        let seen = std::mem::take(&mut cpu.cpuid);
        for entry in seen.entries().iter().filter(|entry| entry.leaf >> 16 != 0x4000) {
            let mut registers = entry.registers;
            if (entry.leaf, entry.subleaf) == (HYPERVISOR.leaf, HYPERVISOR.subleaf) {
                *registers.get_mut(HYPERVISOR.register) &= !(1 << HYPERVISOR.bit);
            }
            cpu.cpuid.insert(entry.leaf, entry.subleaf, registers);
        }
        if let Some(flags) = cpu.cpuinfo.as_mut().and_then(|cpuinfo| cpuinfo.flags.as_mut()) {
            *flags = flags.iter().filter(|&flag| flag != "hypervisor").collect();
        }
    }
    bare
}

/// What a paste of `/proc/cpuinfo` leaves of a machine.
fn cpuinfo_alone(snapshot: &Snapshot) -> Snapshot {
    let cpus = snapshot.cpus.iter().map(|cpu| Cpu { cpuinfo: cpu.cpuinfo.clone(), ..Cpu::default() }).collect();
    Snapshot { cpus, ..Snapshot::default() }
}

fn compare(host: &Snapshot, guest: &Snapshot) -> Diff {
    diff::diff(host, guest).unwrap()
}

fn is_set(table: &CpuidTable, bit: CpuidBit) -> bool {
    table.get(bit.leaf, bit.subleaf).is_some_and(|registers| registers.get(bit.register) >> bit.bit & 1 == 1)
}

/// The sieve that the captured registers prove; `None` for a flag that is no CPUID bit.
fn proved(pair: &Pair, item: &Item, lost: bool) -> Option<Stage> {
    let bit = item.place.and_then(Place::cpuid)?;
    if RUNTIME.contains(&item.flag.as_str()) {
        return Some(Stage::Vcpu);
    }
    let offered = is_set(&pair.host.kvm.as_ref().unwrap().supported_table().unwrap(), bit);
    let given = is_set(&pair.guest.first_cpuid().unwrap().cpuid, bit);
    Some(match (lost, offered, given) {
        (true, _, true) => Stage::Guest,
        (true, false, false) | (false, true, true) => Stage::Kvm,
        (true, true, false) | (false, false, true) => Stage::Qemu,
        (false, _, false) => Stage::Guest,
    })
}

#[test]
fn with_records_every_sieve_is_the_one_that_the_registers_prove() {
    let mut checked = 0;
    for pair in pairs() {
        let found = compare(&pair.host, &pair.guest);
        for (items, lost) in [(&found.lost, true), (&found.gained, false)] {
            for item in items {
                let name = format!("{}: {}", pair.name, item.flag);
                assert!(item.at.is_some() && !item.rule.0.is_empty(), "{name}: not explained");
                if let Some(proved) = proved(&pair, item, lost) {
                    assert_eq!(item.at, Some(proved), "{name}: {} {}", item.rule, item.cause);
                    checked += 1;
                }
            }
        }
    }
    assert!(checked >= 500, "{checked} flags");
}

#[test]
fn with_records_nothing_is_a_guess() {
    for pair in pairs() {
        let found = compare(&pair.host, &pair.guest);
        for item in found.lost.iter().chain(&found.gained) {
            assert_eq!(item.confidence, Confidence::Certain, "{}: {} {}", pair.name, item.flag, item.rule);
        }
    }
}

/// A guest that was booted with parameters that clear features, beside a host that shows them.
#[test]
fn what_a_guests_kernel_cleared_is_its_own_step() {
    let host = bare(&capture("k6.12-max").parsed.snapshot);
    let mut guest = capture("k6.12-max").nested.into_iter().next().unwrap().snapshot;
    guest.linux.as_mut().unwrap().cmdline = Some("clearcpuid=xsave,smep".to_owned());
    let machine = Machine::new("guest", &guest);
    let tree = machine.trees().last().unwrap();
    let input = Input::of_snapshot("guest", Stage::Guest, &guest).unwrap();
    let printed: FlagList = boot(&input, tree).flags.into_iter().collect();
    guest.cpus.iter_mut().filter_map(|cpu| cpu.cpuinfo.as_mut()).for_each(|cpuinfo| {
        cpuinfo.flags = Some(printed.clone());
    });
    let found = compare(&host, &guest);
    let lost = |flag: &str| found.lost.iter().find(|item| item.flag == flag).unwrap();
    for (flag, rule, follows) in
        [("xsave", "LNX0005", None), ("xsaveopt", "LNX0004", Some("xsave")), ("smep", "LNX0005", None)]
    {
        let item = lost(flag);
        let answer = (item.at, item.rule.0, item.confidence, item.follows.as_deref());
        assert_eq!(answer, (Some(Stage::Guest), rule, Confidence::Certain, follows), "{flag}");
        assert!(item.steps.iter().any(|step| step.at == Stage::Qemu && step.effect == Effect::Kept), "{flag}");
    }
}

#[test]
fn two_flags_lines_suffice_for_what_cpu_host_loses() {
    let plain = ["host", "max", "host,migratable=off", "host,kvm=off", "host,+invtsc", "host,kvm-hint-dedicated=on"];
    for pair in pairs().into_iter().filter(|pair| plain.contains(&pair.cpu.as_str())) {
        let found = compare(&cpuinfo_alone(&pair.host), &cpuinfo_alone(&pair.guest));
        for item in &found.lost {
            if let Some(proved) = proved(&pair, item, true) {
                assert_eq!(item.at, Some(proved), "{}: {} {}", pair.name, item.flag, item.rule);
            }
        }
    }
}

#[test]
fn what_two_flags_lines_call_certainly_lost_is() {
    for pair in pairs() {
        let found = compare(&cpuinfo_alone(&pair.host), &cpuinfo_alone(&pair.guest));
        for item in found.lost.iter().filter(|item| item.confidence == Confidence::Certain) {
            if let Some(proved) = proved(&pair, item, true) {
                assert_eq!(item.at, Some(proved), "{}: {} {}", pair.name, item.flag, item.rule);
            }
        }
    }
}

#[test]
fn the_other_direction_gives_the_same_answers() {
    for pair in pairs() {
        let (forward, backward) = (compare(&pair.host, &pair.guest), compare(&pair.guest, &pair.host));
        assert_eq!((&forward.lost, &forward.gained), (&backward.gained, &backward.lost), "{}", pair.name);
    }
}

#[test]
fn the_true_kernel_is_among_those_that_the_flags_allow() {
    let mut seen = 0;
    for name in NESTED.iter().chain(&OUTER_ALONE) {
        let capture = capture(name);
        let guests = capture.nested.iter().map(|guest| &guest.snapshot);
        for snapshot in guests.chain([&capture.parsed.snapshot]).filter(|snapshot| snapshot.flags().is_some()) {
            let release = snapshot.linux.as_ref().unwrap().release.as_deref().unwrap();
            let flags: FlagList = snapshot.flags().unwrap().clone();
            let cpuinfo = Some(Cpuinfo { flags: Some(flags), ..Cpuinfo::default() });
            let line = Snapshot { cpus: vec![Cpu { cpuinfo, ..Cpu::default() }], ..Snapshot::default() };
            let machine = Machine::new("guest", &line);
            assert!(machine.trees().contains(linux::nearest(release).tree), "{name}: {release}: {:?}", machine.kernel);
            assert!(machine.kernel.unknown.is_empty(), "{name}: {:?}", machine.kernel.unknown);
            seen += 1;
        }
    }
    assert!(seen >= 37, "{seen} machines");
}
