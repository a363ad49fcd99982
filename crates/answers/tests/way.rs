//! The whole way against captured truth: silicon of the outer machine in, the inner guest's flags line out.
#![allow(clippy::unwrap_used, reason = "a test that cannot read its corpus has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use cpusieve_answers::predict::Kernel;
use cpusieve_answers::predict::kvm;
use cpusieve_answers::predict::way::{Accel, Route, Vm, until_guest, until_vcpu};
use cpusieve_formats::lab::{self, Guest};
use cpusieve_knowledge::linux;
use cpusieve_model::{CpuidTable, Registers, Stage};
use cpusieve_stages::Machine;
use cpusieve_stages::linux::boot::Unlisted;

/// The captures of hosts with guests of their own, packed or not.
#[allow(clippy::disallowed_methods, reason = "a test reads the corpus")]
fn captures() -> Vec<(String, lab::Capture)> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus");
    let folders = ["guests-kvm", "guests-lab-nested"].map(|folder| fs::read_dir(corpus.join(folder)).unwrap());
    let mut files: Vec<PathBuf> = folders.into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "json" || end == "gz"));
    files.sort();
    let read = files.iter().map(|file| {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let mut bytes = fs::read(file).unwrap();
        if file.extension().is_some_and(|end| end == "gz") {
            let packed = std::mem::take(&mut bytes);
            flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
        }
        let capture = lab::capture(&name, &bytes);
        (name, capture)
    });
    read.collect()
}

/// What an inner guest was started with, as a route from its host's silicon.
fn route<'a>(guest: &'a Guest, version: &'a str, smp: Option<&'a str>, predicted: bool) -> Route<'a> {
    let host = Kernel { unlisted: Unlisted::Zero, ..Kernel::new(Stage::Host) };
    let linux = guest.snapshot.linux.as_ref().unwrap();
    Route {
        kvm: kvm::Question { predicted, ..kvm::Question::new(host) },
        vm: Vm {
            accel: Accel::Kvm,
            qemu: Some(version),
            machine: Some(if guest.setup.machine.is_empty() { "pc" } else { &guest.setup.machine }),
            cpu: Some(&guest.setup.cpu),
            smp,
            cpu_pm: false,
        },
        guest: Kernel {
            release: linux.release.as_deref(),
            cmdline: linux.cmdline.as_deref(),
            ..Kernel::new(Stage::Guest)
        },
    }
}

/// The registers in which two tables differ. The program that read them in the guest asks only for the state components
/// that 0DH announces.
fn differences(predicted: &CpuidTable, seen: &CpuidTable) -> Vec<String> {
    let keys = predicted.entries().iter().chain(seen.entries()).map(|entry| (entry.leaf, entry.subleaf));
    let mut keys: Vec<_> = keys.collect();
    keys.sort_unstable();
    keys.dedup();
    let of = |table: &CpuidTable, (leaf, subleaf)| table.get(leaf, subleaf).unwrap_or_default();
    let announced = u64::from(of(seen, (0xd, 0)).eax | of(seen, (0xd, 1)).ecx);
    let asked = |&(leaf, subleaf): &(u32, u32)| match leaf {
        0xd => subleaf < 2 || announced >> subleaf & 1 == 1,
        // A range that is not there answers with another leaf's data.
        0x8086_0000 | 0xc000_0000 => of(seen, (leaf, subleaf)).eax >> 16 == leaf >> 16,
        _ => true,
    };
    let differ = keys.into_iter().filter(asked).filter(|&key| of(predicted, key) != of(seen, key));
    differ.map(|key| format!("{:x?}: predicted {:x?}, seen {:x?}", key, of(predicted, key), of(seen, key))).collect()
}

#[test]
fn inner_guests_print_what_was_predicted_from_the_silicon_of_their_host() {
    let (mut exact, mut wrong) = (0, Vec::new());
    for (name, capture) in captures() {
        for guest in capture.nested.iter().filter(|guest| guest.setup.status == "ok") {
            let version = guest.setup.emulator.split(' ').next().unwrap();
            let smp =
                guest.setup.extra.iter().position(|word| word == "-smp").and_then(|at| guest.setup.extra.get(at + 1));
            let smp = smp.map(String::as_str).or((!guest.setup.smp.is_empty()).then_some(guest.setup.smp.as_str()));
            let label = format!("{name} QEMU {version} -cpu {} {smp:?}", guest.setup.cpu);
            let found = until_guest(&capture.parsed.snapshot, &route(guest, version, smp, true));
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    wrong.push(format!("{label}: {error}"));
                    continue;
                }
            };
            // Two guests could not measure the TSC on the emulated outer machine: the prediction says what hangs on that.
            let measured =
                found.guest.assumed.iter().filter(|assumed| assumed.what == "guest: the TSC can be measured");
            let hang: Vec<_> = measured.flat_map(|assumed| &assumed.hangs).collect();
            let settled = |flag: &&str| !hang.contains(&flag);
            let predicted: Vec<&str> = found.guest.boot.flags.iter().copied().filter(settled).collect();
            let seen: Vec<&str> = guest.snapshot.flags().unwrap().iter().filter(settled).collect();
            let tables = differences(&found.cpuid, &guest.snapshot.first_cpuid().unwrap().cpuid);
            let bugs = guest.snapshot.cpus[0].cpuinfo.as_ref().unwrap().bugs.as_ref().unwrap();
            if predicted == seen && tables.is_empty() && bugs.iter().eq(found.guest.boot.bugs.iter().copied()) {
                exact += 1;
                continue;
            }
            let lacks: Vec<_> = seen.iter().filter(|flag| !predicted.contains(flag)).collect();
            let has: Vec<_> = predicted.iter().filter(|flag| !seen.contains(flag)).collect();
            let bugs = bugs.iter().collect::<Vec<_>>();
            wrong.push(format!(
                "{label}: predicted too few {lacks:?}, too many {has:?}, bugs {:?} for {bugs:?}\n  {}",
                found.guest.boot.bugs,
                tables.join("\n  ")
            ));
        }
    }
    assert!(wrong.is_empty(), "{exact} exact, {} not:\n{}", wrong.len(), wrong.join("\n"));
    assert!(exact >= 47, "{exact} guests");
}

/// What is kept of the configuration of a captured kernel.
#[allow(clippy::disallowed_methods, reason = "a test reads the corpus")]
fn config(release: &str) -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus/guests-tcg/configs");
    let text = fs::read_to_string(folder.join(format!("{release}.config"))).unwrap();
    let options = text.lines().filter_map(|line| line.split_once('='));
    options.map(|(option, value)| (option.to_owned(), value.to_owned())).collect()
}

/// The captured boots of one folder, unpacked.
#[allow(clippy::disallowed_methods, reason = "a test reads the corpus")]
fn boots(folder: &str) -> Vec<(String, lab::Capture)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus").join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "gz"));
    files.sort();
    let read = files.iter().map(|file| {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(fs::File::open(file).unwrap()).read_to_end(&mut bytes).unwrap();
        let capture = lab::capture(&name, &bytes);
        (name, capture)
    });
    read.filter(|(_, capture)| capture.parsed.snapshot.flags().is_some()).collect()
}

#[test]
fn emulated_guests_print_what_was_predicted_from_the_command_line_alone() {
    let (mut exact, mut wrong) = (0, Vec::new());
    for (name, capture) in boots("guests-tcg") {
        let (setup, mut seen) = (&capture.setup, capture.parsed.snapshot.clone());
        let view = seen.linux.as_mut().unwrap();
        view.config = view.release.as_deref().map(config);
        let view = seen.linux.as_ref().unwrap();
        let version = setup.emulator.split(' ').next().unwrap();
        // A stable release may have what the tree of its number lacks.
        let stands = Machine::new("guest", &seen).kernel.standing_for(view.release.as_deref().unwrap());
        let same = linux::nearest(view.release.as_deref().unwrap()).tree == stands;
        let release = if same { view.release.as_deref() } else { Some(linux::TREES[stands].label) };
        let route = Route {
            vm: Vm {
                accel: Accel::Tcg,
                qemu: Some(version),
                machine: Some(if setup.machine.is_empty() { "pc" } else { &setup.machine }),
                cpu: Some(&setup.cpu),
                smp: (!setup.smp.is_empty()).then_some(setup.smp.as_str()),
                cpu_pm: false,
            },
            guest: Kernel { release, cmdline: view.cmdline.as_deref(), ..Kernel::new(Stage::Guest) },
            ..Route::default()
        };
        let found = match until_guest(&seen, &route) {
            Ok(found) => found,
            Err(error) => {
                wrong.push(format!("{name}: {error}"));
                continue;
            }
        };
        let flags: Vec<&str> = seen.flags().unwrap().iter().collect();
        let mut tables = differences(&found.cpuid, &seen.first_cpuid().unwrap().cpuid);
        // QEMU 7.2 fills no register of this leaf under TCG: the guest reads what lay on QEMU's stack.
        tables.retain(|line| !(version.starts_with("7.2") && line.starts_with("(1c, 0)")));
        if flags == found.guest.boot.flags && tables.is_empty() {
            exact += 1;
            continue;
        }
        let lacks: Vec<_> = flags.iter().filter(|flag| !found.guest.boot.flags.contains(flag)).collect();
        let has: Vec<_> = found.guest.boot.flags.iter().filter(|flag| !flags.contains(flag)).collect();
        wrong.push(format!("{name}: too few {lacks:?}, too many {has:?}\n  {}", tables.join("\n  ")));
    }
    assert!(wrong.is_empty(), "{exact} exact, {} not:\n{}", wrong.len(), wrong.join("\n"));
    assert!(exact >= 300, "{exact} guests");
}

#[test]
fn where_the_interrupt_controllers_are_decides_what_kvm_can_emulate() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus");
    let mut bytes = Vec::new();
    #[allow(clippy::disallowed_methods, reason = "a test reads the corpus")]
    let packed = fs::read(corpus.join("qemu-oracle/hosts/spr-6.18.json.gz")).unwrap();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
    let host = cpusieve_formats::read("spr-6.18.json", &bytes).snapshot;
    let told = |machine: &str| {
        let vm = Vm { qemu: Some("7.2"), machine: Some(machine), ..Vm::default() };
        until_vcpu(&host, &Route { vm, ..Route::default() }).map(|vcpu| {
            let bit = |leaf: u32, value: fn(Registers) -> u32, bit: u32| {
                let entry = vcpu.qemu.cpuid.iter().find(|entry| entry.leaf == leaf).unwrap();
                value(entry.registers) >> bit & 1 == 1
            };
            // x2APIC, TSC deadline, KVM's PV unhalt and extended destination ids.
            let (basic, kvm) = (|registers: Registers| registers.ecx, |registers: Registers| registers.eax);
            [bit(1, basic, 21), bit(1, basic, 24), bit(0x4000_0001, kvm, 7), bit(0x4000_0001, kvm, 15)]
        })
    };
    // `target/i386/kvm/kvm.c:kvm_arch_get_supported_cpuid` of 7.2.
    assert_eq!(told("q35,kernel-irqchip=on").unwrap(), [true, true, true, false]);
    assert_eq!(told("q35,kernel-irqchip=split").unwrap(), [true, true, true, true]);
    // This KVM offers the TSC deadline by itself, and QEMU takes only the others away.
    assert_eq!(told("q35,kernel-irqchip=off").unwrap(), [false, true, false, false]);
    assert_eq!(told("q35").unwrap(), told("q35,kernel-irqchip=on").unwrap());
    let refused = told("q35,accel=kvm").unwrap_err().to_string();
    assert!(refused.contains("`accel=kvm` is none of these"), "{refused}");
}
