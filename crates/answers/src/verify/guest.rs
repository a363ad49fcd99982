//! A guest that QEMU booted: its CPUID, its MSRs, its lines.

use std::collections::{BTreeMap, BTreeSet};

use cpusieve_knowledge::linux::TREES;
use cpusieve_knowledge::qemu::RELEASES;
use cpusieve_knowledge::x86;
use cpusieve_model::{CpuidBit, CpuidTable, GuestCapture, MsrReading, Place, Register, Registers, Snapshot, Stage};
use cpusieve_stages::linux::boot::Unlisted;

use super::words::{self, Odd, Others};
use super::{Mismatch, Part, Proof};
use crate::predict::way::{Accel, GuestPrediction, NoWay, Route, Vm, guest_with, until_vcpu};
use crate::predict::{Kernel, Prediction, predict};

/// Sends the host of a snapshot through QEMU and the guest's kernel as the capture was started, and compares with what
/// the guest saw.
///
/// # Errors
/// If the way ends before the guest.
pub fn guest(snapshot: &Snapshot, capture: &GuestCapture) -> Result<Proof, NoWay> {
    let linux = capture.snapshot.linux.as_ref();
    let accel = if capture.kvm { Accel::Kvm } else { Accel::Tcg };
    let (machine, cpu) = (Some(capture.machine.as_str()), Some(capture.cpu.as_str()));
    let vm = Vm { accel, qemu: Some(&capture.version), machine, cpu, smp: None, cpu_pm: false };
    let kernel = Kernel {
        release: linux.and_then(|linux| linux.release.as_deref()),
        cmdline: linux.and_then(|linux| linux.cmdline.as_deref()),
        ..Kernel::new(Stage::Guest)
    };
    let route = Route { vm, guest: kernel, ..Route::default() };
    let config = linux.and_then(|linux| linux.config.as_ref());
    let found = guest_with(snapshot, &route, until_vcpu(snapshot, &route)?, config)?;
    Ok(compare(&found, capture))
}

fn compare(found: &GuestPrediction, capture: &GuestCapture) -> Proof {
    let label = TREES.get(found.guest.tree).map_or("", |tree| tree.label);
    let qemu = RELEASES.get(found.vcpu.release).map_or("", |release| release.label);
    let accel = if capture.kvm { "KVM" } else { "TCG" };
    let of = format!("Linux {label} in a guest of QEMU {qemu} ({accel}), -cpu {}", capture.cpu);
    let mut proof = Proof { assumed: found.guest.assumed.clone(), ..Proof::new(Part::Guest, of, "item") };
    let Some(cpu) = capture.snapshot.first_cpuid() else {
        proof.unseen.push("the guest reported no CPUID".to_owned());
        return proof;
    };
    registers(&mut proof, &found.cpuid, &cpu.cpuid, capture.kvm);
    if cpu.msrs.is_empty() {
        let why = "the guest's MSRs: its kernel has no msr driver built in, and no msr.ko lay beside the image";
        proof.unseen.push(why.to_owned());
    }
    for (index, predicted) in found.msrs.iter() {
        let Some((_, seen)) = cpu.msrs.iter().find(|(other, _)| *other == index) else { continue };
        proof.compared += 1;
        if seen != predicted {
            proof.mismatches.push(Mismatch {
                what: format!("MSR {index:X}H"),
                predicted: Some(shown(predicted)),
                real: Some(shown(seen)),
                features: Vec::new(),
                cause: "QEMU or the accelerator answers otherwise than known".to_owned(),
            });
        }
    }
    match &cpu.cpuinfo {
        Some(cpuinfo) => {
            proof.compared += words::count(cpuinfo);
            let odd: BTreeMap<Odd, Vec<u32>> =
                words::odd(&found.guest.boot, cpuinfo).into_iter().map(|odd| (odd, vec![cpu.id])).collect();
            if !odd.is_empty() {
                let lines = explained(found, capture, &odd);
                proof.mismatches.extend(lines);
            }
        }
        None => proof.unseen.push("the guest reported no /proc/cpuinfo".to_owned()),
    }
    proof
}

fn shown(reading: MsrReading) -> String {
    match reading {
        MsrReading::Value(value) => format!("{value:#x}"),
        MsrReading::Unreadable => "a fault".to_owned(),
    }
}

/// Compares every register that the guest read.
fn registers(proof: &mut Proof, predicted: &CpuidTable, seen: &CpuidTable, kvm: bool) {
    let keys: BTreeSet<_> =
        predicted.entries().iter().chain(seen.entries()).map(|entry| (entry.leaf, entry.subleaf)).collect();
    let announced = [(0, false), (1, true)].map(|(subleaf, ecx)| {
        let registers = seen.get(0xd, subleaf).unwrap_or_default();
        if ecx { registers.ecx } else { registers.eax }
    });
    // Nobody asks for state components that 0DH does not announce.
    let asked = |&(leaf, subleaf): &(u32, u32)| {
        leaf != 0xd || !(2..32).contains(&subleaf) || (announced[0] | announced[1]) >> subleaf & 1 == 1
    };
    for (leaf, subleaf) in keys.into_iter().filter(asked) {
        let made = if kvm { predicted.get(leaf, subleaf) } else { emulated(predicted, leaf, subleaf) };
        let (made, real) = (made.unwrap_or_default(), seen.get(leaf, subleaf).unwrap_or_default());
        for register in Register::ALL {
            proof.compared += 1;
            let (predicted, real) = (made.get(register), real.get(register));
            if predicted != real {
                proof.mismatches.push(register_mismatch((leaf, subleaf, register), predicted, real));
            }
        }
    }
}

/// What TCG answers (`target/i386/cpu.c:cpu_x86_cpuid`): a leaf out of range as the highest basic leaf.
fn emulated(table: &CpuidTable, leaf: u32, subleaf: u32) -> Option<Registers> {
    let head = if leaf >> 30 == 0b01 { 0x4000_0000 } else { leaf & 0xc000_0000 };
    let highest = table.get(head, 0).map_or(0, |head| head.eax);
    let level = table.get(0, 0).unwrap_or_default().eax;
    if leaf > highest.max(head) || (leaf == head && table.get(leaf, 0).is_none()) {
        return table.get(level, subleaf);
    }
    table.get(leaf, subleaf)
}

/// A register that differs, with the features whose bits do.
pub(super) fn register_mismatch((leaf, subleaf, register): (u32, u32, Register), made: u32, real: u32) -> Mismatch {
    let bit = |bit| CpuidBit::new(leaf, subleaf, register, bit);
    let differ = (0..32).filter(|place| (made ^ real) >> place & 1 == 1);
    let features =
        differ.filter_map(|place| x86::by_place(Place::Cpuid(bit(place)))).map(|feature| feature.id.to_owned());
    let short = format!("{:#}", bit(0));
    Mismatch {
        what: short.trim_end_matches("[0]").to_owned(),
        predicted: Some(format!("{made:#x}")),
        real: Some(format!("{real:#x}")),
        features: features.collect(),
        cause: "QEMU or the accelerator gives another value than known".to_owned(),
    }
}

/// The odd words of the guest's lines. Where the kernel prints what its own CPUID and MSRs make it print, an earlier
/// sieve is to blame.
fn explained(found: &GuestPrediction, capture: &GuestCapture, odd: &BTreeMap<Odd, Vec<u32>>) -> Vec<Mismatch> {
    let unlisted = if capture.kvm { Unlisted::NotSeen } else { Unlisted::Zero };
    let kernel = Kernel { unlisted, ..Kernel::new(Stage::Guest) };
    let own: Option<Prediction> = predict(&capture.snapshot, &kernel).ok();
    let cpuinfo = capture.snapshot.first_cpuid().and_then(|cpu| cpu.cpuinfo.as_ref());
    let by_itself = own.as_ref().zip(cpuinfo).map(|(own, cpuinfo)| words::odd(&own.boot, cpuinfo)).unwrap_or_default();
    let others = Others::of(&capture.snapshot, &kernel, found.guest.tree);
    words::mismatches(odd, 1, |odd| {
        if own.is_some() && !by_itself.contains(odd) {
            return "the kernel prints what the vCPU's own CPUID and MSRs make it print: see what differs of those, or \
                    what was assumed"
                .to_owned();
        }
        others.cause(odd, &found.guest.assumed)
    })
}
