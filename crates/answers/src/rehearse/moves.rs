//! Whether a guest can be started after the upgrade, and whether it can be migrated, there and back.

use cpusieve_knowledge::qemu::{self, RELEASES};
use cpusieve_knowledge::x86;
use cpusieve_model::{CpuidBit, Place, Register};

use super::domain::in_libvirt;
use super::guest::{Check, Guest};
use super::view::View;
use crate::predict::way::NoWay;

/// Bits 0 to 7 of EAX: bits of a physical address.
const ADDRESS_BITS: u32 = 0x8000_0008;

/// Whether something can be done, and what is to be said of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it can.
    pub possible: bool,
    /// Why not, as sentences.
    pub why: Vec<String>,
    /// What the guest would lose while it runs, or lacks at the start.
    pub missing: Vec<String>,
    /// What it would gain while it runs.
    pub extra: Vec<String>,
}

/// Whether a guest starts, and whether libvirt is content with it.
#[must_use]
pub(super) fn start(guest: &Guest, view: &Result<View, NoWay>) -> Verdict {
    let view = match view {
        Ok(view) => view,
        Err(error) => return Verdict { why: vec![brief(error)], ..Verdict::default() },
    };
    let mut verdict = Verdict { possible: view.error.is_none(), ..Verdict::default() };
    verdict.why.extend(view.error.iter().map(|error| format!("the VMM ends with: {error}")));
    verdict.missing = view.filtered.iter().map(|&place| name(view.release, place)).collect();
    if guest.check != Check::Nothing && !verdict.missing.is_empty() {
        let named = view.filtered.iter().filter_map(|&place| qemu::name(view.release?, place)).map(in_libvirt);
        let named: Vec<_> = named.collect();
        verdict.possible &= named.is_empty();
        if !named.is_empty() {
            verdict
                .why
                .push(format!("libvirt refuses: the host does not provide required features: {}", named.join(", ")));
        }
    }
    verdict
}

/// Whether a guest that runs as `source` can go on as `target`, which is what the other side makes of the same command
/// line.
#[must_use]
pub(super) fn migrate(guest: &Guest, source: &View, target: &Result<View, NoWay>) -> Verdict {
    let target = match target {
        Ok(target) => target,
        Err(error) => return Verdict { why: vec![brief(error)], ..Verdict::default() },
    };
    if let Some(error) = &target.error {
        return Verdict { why: vec![format!("the VMM on the other side ends with: {error}")], ..Verdict::default() };
    }
    let mut verdict = Verdict { possible: true, ..Verdict::default() };
    for place in source.differing(target).into_iter().filter(|&place| counts(place)) {
        let names = if target.has(place) { &mut verdict.extra } else { &mut verdict.missing };
        names.push(name(target.release.or(source.release), place));
    }
    if !verdict.missing.is_empty() {
        verdict.why.push(format!("the guest would lose under its feet: {}", verdict.missing.join(", ")));
    }
    let vendors = [source, target].map(|view| view.table.vendor_string().unwrap_or_default());
    if vendors[0] != vendors[1] {
        verdict.why.push(format!("the vendor would change from {} to {}", vendors[0], vendors[1]));
    }
    let bits = |view: &View| view.table.get(ADDRESS_BITS, 0).map_or(0, |leaf| leaf.eax & 0xff);
    if bits(source) > bits(target) {
        verdict.why.push(format!("{} bits of a physical address become {}", bits(source), bits(target)));
    }
    if guest.check_running == Check::Full {
        libvirt_check(source, target, &mut verdict.why);
    }
    verdict.possible = verdict.why.is_empty();
    verdict
}

/// libvirt compares what QEMU says of its properties with what the running guest was defined to have
/// (`src/cpu/cpu_x86.c:virCPUx86UpdateLive`).
fn libvirt_check(source: &View, target: &View, why: &mut Vec<String>) {
    let ht = source.properties.get("ht") != target.properties.get("ht");
    let kinds = [("extra", properties_only_in(target, source)), ("missing", properties_only_in(source, target))];
    let named = kinds.into_iter().filter(|(_, names)| !names.is_empty()).map(|(kind, names)| {
        let names: Vec<_> = names.into_iter().map(in_libvirt).collect();
        format!("{kind} features: {}", names.join(","))
    });
    let named: Vec<String> = named.collect();
    if !named.is_empty() {
        let fixed = if ht && source.has(HT) == target.has(HT) { FIXED } else { "" };
        why.push(format!("libvirt refuses: guest CPU doesn't match specification: {}{fixed}", named.join(", ")));
    }
}

/// 1.EDX\[28\]
const HT: Place = Place::Cpuid(CpuidBit::new(1, 0, Register::Edx, 28));

/// Since 10.0 QEMU says in the property what was in the table all along (`target/i386/cpu.c:x86_cpu_expand_features`); a
/// later libvirt knows of it (its release notes: incoming migration to QEMU 10.0.0 and newer), 11.6 does not.
const FIXED: &str = " (the guest's CPUID has the bit on both; a libvirt that knows QEMU 10.0 leaves ht out)";

/// The feature properties of QEMU that are on in one view and not in the other; those of KVM's and Hyper-V's leaves are no
/// features to libvirt.
pub(super) fn properties_only_in(one: &View, other: &View) -> Vec<&'static str> {
    let outside = |bit: &qemu::Bit| bit.place.cpuid().is_none_or(|bit| bit.leaf >> 16 != 0x4000);
    let on = one.properties.iter().filter(|(_, on)| **on).map(|(name, _)| *name);
    on.filter(|name| other.properties.get(name) != Some(&true) && qemu::by_name(name).any(outside)).collect()
}

/// Why there is no view, without all machine types that there are.
fn brief(error: &NoWay) -> String {
    match error {
        NoWay::NoMachine(unknown) => {
            let label = RELEASES.get(unknown.release).map_or("", |release| release.label);
            format!("QEMU {label} has no machine type {}", unknown.name)
        }
        other => other.to_string(),
    }
}

/// Whether a bit is one that a guest can use: it has a name, or QEMU keeps it as a feature.
fn counts(place: Place) -> bool {
    let counter = |bit: CpuidBit| {
        matches!((bit.leaf, bit.register), (0x4000_0000, _) | (_, Register::Eax)) && bit.leaf & 0xff == 0
    };
    let known = x86::by_place(place).is_some() || qemu::Word::of(place).and_then(qemu::word_position).is_some();
    known && !place.cpuid().is_some_and(counter)
}

/// QEMU's name of a bit, else its id, else its place.
fn name(release: Option<usize>, place: Place) -> String {
    let newest = RELEASES.len().checked_sub(1);
    let qemu = release.or(newest).and_then(|release| qemu::name(release, place));
    qemu.or_else(|| x86::by_place(place).map(|feature| feature.id)).map_or_else(|| format!("{place:#}"), str::to_owned)
}
