//! Upgrades that went wrong for others, rehearsed on hosts whose KVM is known, and the laws of every rehearsal.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests read files")]

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;

use cpusieve_answers::predict::way::{NoWay, until_guest};
use cpusieve_answers::rehearse::{
    Cause, Check, Guest, Host, Kind, OnGuest, Phase, Question, Range, Rehearsal, Upgrade, commands, rehearse,
};
use cpusieve_model::{CpuidEntry, KvmView, Place, Snapshot, Stage};
use cpusieve_stages::linux::boot::Unlisted;
use cpusieve_stages::vcpu::guest;

/// A host of the QEMU oracle, without what its KVM answers: what another kernel would do is predicted on both ends.
fn host(name: &str) -> Snapshot {
    let snapshot = whole(name);
    let params = snapshot.kvm.map(|kvm| kvm.params).unwrap_or_default();
    Snapshot { kvm: Some(KvmView { params, ..KvmView::default() }), ..snapshot }
}

/// A host of the QEMU oracle.
fn whole(name: &str) -> Snapshot {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../corpus/qemu-oracle/hosts/{name}.json.gz"));
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    cpusieve_formats::read(name, &bytes).snapshot
}

fn upgrade(kernel: &str, qemu: &str) -> Upgrade {
    Upgrade { host_kernel: Range::parse(kernel), vmm: Range::parse(qemu), ..Upgrade::default() }
}

fn on(hosts: &[(&str, &Snapshot)], upgrade: Upgrade, guests: &[Guest]) -> Rehearsal {
    let hosts: Vec<Host<'_>> =
        hosts.iter().map(|&(name, snapshot)| Host { name, snapshot, unlisted: Unlisted::NotSeen }).collect();
    rehearse(&hosts, &Question { upgrade, options: None, guests, guest_kernel: Some("6.12") })
}

fn one(snapshot: &Snapshot, upgrade: Upgrade, guest: Guest) -> OnGuest {
    let found = on(&[("host", snapshot)], upgrade, &[guest]);
    found.hosts.into_iter().next().unwrap().unwrap().guests.remove(0)
}

fn on_machine(cpu: &str, machine: &str) -> Guest {
    Guest { machine: Some(machine.to_owned()), ..Guest::of_cpu(cpu) }
}

/// A guest of libvirt's that runs: with the check that it has then.
fn libvirt(cpu: &str, machine: &str, smp: &str) -> Guest {
    let smp = Some(smp.to_owned());
    Guest { libvirt: true, check: Check::Full, check_running: Check::Full, smp, ..on_machine(cpu, machine) }
}

fn names(guest: &OnGuest, gained: bool) -> Vec<String> {
    guest.changes.iter().filter(|change| change.gained == gained).map(|change| change.name()).collect()
}

#[test]
fn ht_is_extra_for_libvirt_once_qemu_10_says_it() {
    // kubevirt/kubevirt#16386, harvester/harvester#11615
    let milan = host("milan-6.18");
    let two = libvirt("EPYC-Rome", "pc-q35-7.2", "2,sockets=1,cores=2,threads=1");
    let found = one(&milan, upgrade("6.12..6.12", "7.2..10.0"), two);
    assert_eq!((found.changes.len(), found.values.len()), (0, 0), "the guest's own CPU is the same");
    assert!(found.start.possible);
    let forth = found.forth.as_ref().unwrap();
    assert!(!forth.possible);
    assert!(forth.why[0].contains("guest CPU doesn't match specification: extra features: "), "{forth:?}");
    assert!(forth.why[0].contains("ht"), "{forth:?}");
    // QEMU 7.2 takes ht out again if it is asked for, for KVM does not offer it: no pin helps.
    assert!(found.pinned.pins.iter().all(|pin| pin.name != "ht"));
    let single = libvirt("EPYC-Rome", "pc-q35-7.2", "2,sockets=2,cores=1,threads=1");
    assert!(one(&milan, upgrade("6.12..6.12", "7.2..10.0"), single).stays());
    let plain = Guest { smp: Some("2".to_owned()), ..on_machine("EPYC-Rome", "pc-q35-7.2") };
    assert!(one(&milan, upgrade("6.12..6.12", "7.2..10.0"), plain).stays(), "without libvirt nobody minds");
}

#[test]
fn newer_kvms_make_up_no_spec_ctrl_on_amd() {
    let milan = host("milan-6.18");
    let found = one(&milan, upgrade("6.1..6.18", "10.0.."), on_machine("host", "pc-q35-7.2"));
    let change = found.changes.iter().find(|change| change.feature == Some("spec_ctrl")).unwrap();
    assert!(!change.gained);
    assert_eq!((change.at, change.cause), (Stage::Kvm, Cause::Host));
    let since = change.since.as_ref().unwrap();
    assert_eq!((since.without.as_str(), since.with.as_str()), ("6.12.117", "6.14"));
    assert!(!found.forth.as_ref().unwrap().possible);
    assert!(found.pinned.left.contains(&change.place), "nothing brings it back");
    // A guest that never had it does not mind.
    let without = one(&milan, upgrade("6.1..6.18", "10.0.."), on_machine("EPYC-Milan,-spec-ctrl", "pc-q35-7.2"));
    assert!(without.forth.unwrap().possible);
}

#[test]
fn a_machine_type_without_a_version_changes_the_cpu_and_is_pinned() {
    let milan = host("milan-6.18");
    let found = one(&milan, upgrade("6.12..6.12", "7.2..10.0"), on_machine("EPYC-Milan", "q35"));
    let machine = |view: &cpusieve_answers::rehearse::View| view.machine.unwrap().name;
    assert_eq!(machine(found.before.as_ref().unwrap()), "pc-q35-7.2");
    assert_eq!(machine(found.after.as_ref().unwrap()), "pc-q35-10.0");
    assert!(found.changes.iter().all(|change| change.cause == Cause::Machine), "{:?}", found.changes);
    assert!(found.forth.as_ref().unwrap().possible, "a running guest keeps its machine type");
    let back = found.back.as_ref().unwrap();
    assert_eq!(back.why, ["QEMU 7.2 has no machine type pc-q35-10.0"]);
    let pin = &found.pinned.pins[0];
    assert_eq!((pin.kind, pin.value.as_str()), (Kind::Machine, "pc-q35-7.2"));
    assert!(found.pinned.same && found.pinned.before);
    assert!(found.pinned.back.as_ref().unwrap().possible);
}

#[test]
fn machine_types_that_are_gone_keep_a_guest_from_starting() {
    let milan = host("milan-6.18");
    let found = one(&milan, upgrade("6.12..6.12", "7.2..10.0"), on_machine("EPYC", "pc-i440fx-1.4"));
    assert!(found.start_before.possible && !found.start.possible);
    assert_eq!(found.start.why, ["QEMU 10.0 has no machine type pc-i440fx-1.4"]);
    assert!(!found.forth.unwrap().possible);
}

#[test]
fn nested_virtualization_goes_with_a_parameter() {
    let spr = host("spr-6.18");
    let params = vec![("kvm_intel.nested".to_owned(), Range::parse("1..0"))];
    let upgrade =
        Upgrade { host_kernel: Range::parse("6.12.."), vmm: Range::parse("10.0.."), params, ..Upgrade::default() };
    let guest = Guest { check: Check::Partial, libvirt: true, ..on_machine("SapphireRapids,+vmx", "pc-q35-10.0") };
    let found = one(&spr, upgrade, guest);
    assert!(names(&found, false).contains(&"vmx".to_owned()));
    assert!(!found.start.possible && found.start.why[0].contains("vmx"), "{:?}", found.start);
}

#[test]
fn a_vmx_feature_goes_with_what_it_depends_on() {
    // libvirt 5fbfa5ab: after an upgrade of QEMU, guests with vmx-* could not be migrated.
    let mut icx = whole("icx-6.1");
    let answers = icx.kvm.iter_mut().flat_map(|kvm| kvm.supported.iter_mut().flatten());
    // The oracle's host `vmx-icx`: the same, with a KVM that nests.
    answers.filter(|entry| entry.leaf == 1).for_each(|entry| entry.registers.ecx |= 1 << 5);
    let found = one(&icx, upgrade("", "5.2..7.2"), on_machine("host", "pc-q35-5.2"));
    let change = found.changes.iter().find(|change| change.feature == Some("vmx_entry_load_bndcfgs")).unwrap();
    assert!(!change.gained && matches!(change.place, Place::Msr(_)));
    assert_eq!((change.at, change.cause), (Stage::Qemu, Cause::Vmm));
    assert_eq!(change.telling().unwrap().0.cite.function(), "x86_cpu_expand_features");
    assert!(found.forth.as_ref().unwrap().missing.contains(&"vmx-entry-load-bndcfgs".to_owned()));
    assert!(found.pinned.left.contains(&change.place), "the newer QEMU takes it out, whatever is asked for");
}

#[test]
fn what_qemu_learns_to_name_of_arch_capabilities_is_switched_off_by_name() {
    let milan = host("milan-6.18");
    let found = one(&milan, upgrade("6.12..6.12", "7.2..10.0"), on_machine("host", "pc-q35-7.2"));
    let change = found.changes.iter().find(|change| change.feature == Some("gds_no")).unwrap();
    assert!(change.gained && change.cause == Cause::Vmm, "{change:?}");
    let since = change.since.as_ref().unwrap();
    assert_eq!((since.without.as_str(), since.with.as_str()), ("7.2", "10.0"));
    let (step, before) = change.telling().unwrap();
    assert_eq!((step.at, before), (Stage::Qemu, true), "until then QEMU had no name for it");
    assert!(found.pinned.same, "{:?}", found.pinned);
    assert!(!found.pinned.before, "7.2 does not know gds-no either");
    assert!(found.pinned.guest.cpu().contains("gds-no=off"));
    let all = on(&[("host", &milan)], upgrade("6.12..6.12", "7.2..10.0"), &[on_machine("host", "pc-q35-7.2")]);
    let commands = commands(&all);
    let pins = commands.iter().find(|command| command.what.starts_with("keep the CPU")).unwrap();
    assert_eq!(pins.phase, Phase::After);
    assert_eq!(pins.lines, [format!("-machine pc-q35-7.2 -cpu {}", found.pinned.guest.cpu())]);
}

/// The definitions that the laws are tried with.
fn definitions() -> Vec<Guest> {
    let texts =
        ["host", "host,migratable=off", "max", "EPYC", "Skylake-Server", "Cascadelake-Server-v4", "qemu64,+avx2"];
    let mut guests: Vec<Guest> = texts.into_iter().map(|text| on_machine(text, "q35")).collect();
    guests.push(libvirt("Haswell-noTSX,+vmx", "pc-q35-7.2", "4,sockets=1,cores=2,threads=2"));
    guests
}

#[test]
fn laws_of_every_rehearsal() {
    let (usual, far) = (("6.1..6.12", "7.2..10.0"), ("5.10..6.18", "10.0..11.1"));
    for (name, upgrades) in
        [("clx-5.10", vec![usual]), ("icx-6.1", vec![far]), ("milan-6.18", vec![usual, far]), ("spr-6.18", vec![far])]
    {
        let snapshot = host(name);
        for (kernel, qemu) in upgrades {
            let turned = |range: &str| range.split_once("..").map(|(a, b)| format!("{b}..{a}")).unwrap();
            let stays = |range: &str| range.split_once("..").map(|(a, _)| format!("{a}..{a}")).unwrap();
            let guests = definitions();
            let found = on(&[(name, &snapshot)], upgrade(kernel, qemu), &guests);
            let back = on(&[(name, &snapshot)], upgrade(&turned(kernel), &turned(qemu)), &guests);
            let same = on(&[(name, &snapshot)], upgrade(&stays(kernel), &stays(qemu)), &guests);
            let of = |found: Rehearsal| found.hosts.into_iter().next().unwrap().unwrap().guests;
            for ((found, back), same) in of(found).into_iter().zip(of(back)).zip(of(same)) {
                let what = format!("{name}, {kernel}, {qemu}, {}", found.guest.name);
                assert!(same.stays(), "{what}: nothing is upgraded");
                let bits = |guest: &OnGuest, gained: bool| -> BTreeSet<Place> {
                    guest.changes.iter().filter(|change| change.gained == gained).map(|change| change.place).collect()
                };
                // A guest that cannot come back has no changes to tell of.
                if back.back.is_some() && found.back.is_some() {
                    assert_eq!(bits(&found, true), bits(&back, false), "{what}: the way back is the way there, turned");
                    assert_eq!(bits(&found, false), bits(&back, true), "{what}");
                }
                proven(&snapshot, &found, &what);
            }
        }
    }
}

/// What is said of pins, asked of the stages once more.
fn proven(snapshot: &Snapshot, found: &OnGuest, what: &str) {
    let (Ok(before), Ok(after)) = (&found.before, &found.after) else { return };
    for change in &found.changes {
        assert_eq!((before.has(change.place), after.has(change.place)), (!change.gained, change.gained), "{what}");
        assert!(change.feature.is_none() || change.telling().is_some(), "{what}: nobody did {}", change.name());
    }
    if found.pinned.pins.is_empty() || after.error.is_some() {
        return;
    }
    let stack = |kernel: usize, qemu: &str| cpusieve_answers::rehearse::Stack {
        kernel: Some(cpusieve_knowledge::linux::TREES[kernel].version.to_owned()),
        vmm: Some(qemu.to_owned()),
        predicted: true,
        ..Default::default()
    };
    let kernel = |view: &cpusieve_answers::rehearse::View| view.tree.unwrap();
    let table = |guest: &Guest, kernel: usize, qemu: &str| {
        let settings = guest.settings(&stack(kernel, qemu), "6.12", Unlisted::NotSeen);
        let found = until_guest(snapshot, &settings.route())?;
        let entries = guest::table(&found.vcpu.qemu.cpuid).entries().to_vec();
        // A leaf that is not there reads as zeros.
        let zeros = cpusieve_model::Registers::default();
        let told: Vec<CpuidEntry> = entries.into_iter().filter(|entry| entry.registers != zeros).collect();
        Ok::<_, NoWay>(told)
    };
    let was = table(&found.guest, kernel(before), &before.vmm).unwrap();
    let pinned = table(&found.pinned.guest, kernel(after), &after.vmm);
    if found.pinned.same {
        assert_eq!(was, pinned.unwrap(), "{what}: pinned with {:?}", found.pinned.pins);
    } else if let Ok(pinned) = pinned {
        assert!(was != pinned || !found.pinned.left.is_empty(), "{what}");
    }
    if found.pinned.before {
        assert_eq!(was, table(&found.pinned.guest, kernel(before), &before.vmm).unwrap(), "{what}: pinned before");
    }
}

#[test]
fn hosts_are_ordered_so_that_guests_have_somewhere_to_go() {
    let (milan, spr) = (host("milan-6.18"), host("spr-6.18"));
    let guests = [on_machine("EPYC-Milan,-spec-ctrl", "pc-q35-7.2")];
    let found = on(&[("a", &milan), ("intel", &spr), ("b", &milan)], upgrade("6.1..6.18", "7.2..10.0"), &guests);
    let order = found.order.unwrap();
    let names: Vec<&str> = order.hosts.iter().map(|place| place.host.as_str()).collect();
    assert_eq!(names, ["a", "b", "intel"], "what runs on one Milan goes to the other, and nothing of Intel's does");
    assert_eq!((order.hosts[0].stuck.len(), order.hosts[0].takes), (0, 1));
}
