//! The whole way against captured truth: silicon of the outer machine in, the inner guest's flags line out.
#![allow(clippy::unwrap_used, reason = "a test that cannot read its corpus has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use cpusieve_answers::predict::Kernel;
use cpusieve_answers::predict::kvm;
use cpusieve_answers::predict::way::{Accel, Route, Vm, until_guest};
use cpusieve_formats::lab::{self, Guest};
use cpusieve_model::{CpuidTable, Stage};
use cpusieve_stages::linux::boot::Unlisted;

#[allow(clippy::disallowed_methods, reason = "a test reads the corpus")]
fn captures() -> Vec<(String, lab::Capture)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus/guests-kvm");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "json"));
    files.sort();
    let name = |file: &PathBuf| file.file_stem().unwrap().to_string_lossy().into_owned();
    files.iter().map(|file| (name(file), lab::capture(&name(file), &fs::read(file).unwrap()))).collect()
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
    let asked = |&(leaf, subleaf): &(u32, u32)| leaf != 0xd || subleaf < 2 || announced >> subleaf & 1 == 1;
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
                found.guest.assumed.iter().filter(|assumed| assumed.what == "guest's the TSC can be measured");
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
    assert!(exact >= 30, "{exact} guests");
}
