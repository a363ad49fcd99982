//! What a solution gives up, and what comes along with it.

use cpusieve_knowledge::{qemu, x86};
use cpusieve_model::{Effect, Place, Step};

use super::Wish;
use super::change::{Change, ModelKind, Word, weakens};
use super::settings::Settings;
use super::view::View;

/// What a solution gives up, against the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Price {
    /// Flags that the guest's kernel printed before, and does not print then.
    pub lost: Vec<&'static str>,
    /// Flags that it prints only then.
    pub gained: Vec<&'static str>,
    /// What becomes of live migration, in sentences; empty if nothing does.
    pub migration: Vec<String>,
    /// What becomes of the protection of the guest and from it, in sentences.
    pub safety: Vec<String>,
    /// What else must be known, in sentences.
    pub notes: Vec<String>,
    /// Lines that QEMU prints only then.
    pub warnings: Vec<String>,
}

impl Price {
    /// Whether the other gives up all features of the CPU that this one does and more, and spares live migration no
    /// more. Flags that Linux makes up do not count: losing `pti` is no loss.
    pub(super) fn is_better_than(&self, other: &Self) -> bool {
        let real = |price: &Self| -> Vec<&'static str> {
            let made_up = |id: &str| x86::feature(id).is_some_and(|feature| feature.linux_made);
            price.lost.iter().copied().filter(|id| !made_up(id)).collect()
        };
        let (own, others) = (real(self), real(other));
        own.len() < others.len()
            && own.iter().all(|flag| others.contains(flag))
            && self.migration.len() <= other.migration.len()
    }
}

/// Compares the guest before with the guest after.
pub(super) fn price(before: &View, after: &View, changes: &[Change], settings: &Settings, wishes: &[Wish]) -> Price {
    let (old, new) = (&before.found.guest.boot, &after.found.guest.boot);
    let warned = &before.found.vcpu.qemu.warnings;
    let mut price = Price {
        lost: missing(&old.flags, &new.flags),
        gained: missing(&new.flags, &old.flags),
        warnings: Vec::new(),
        ..Price::default()
    };
    for line in after.found.vcpu.qemu.warnings.iter().filter(|line| !warned.contains(line)) {
        if !price.warnings.contains(line) {
            price.warnings.push(line.clone());
        }
    }
    changes.iter().for_each(|change| of_change(change, &mut price));
    unmigratable(before, after, settings, &mut price);
    let (was, is) = (before.found.vcpu.machine, after.found.vcpu.machine);
    if was.name != is.name && !changes.iter().any(|change| matches!(change, Change::Machine { .. })) {
        let note =
            format!("the machine type then means {} and not {}; name the versioned type to keep it", is.name, was.name);
        price.notes.push(note);
    }
    bugs(&missing(&new.bugs, &old.bugs), "then lists", &mut price.safety);
    bugs(&missing(&old.bugs, &new.bugs), "no longer lists", &mut price.notes);
    hanging(after, wishes, &mut price.notes);
    price
}

/// What was assumed, and decides a wish.
fn hanging(after: &View, wishes: &[Wish], notes: &mut Vec<String>) {
    for assumed in &after.found.guest.assumed {
        let hang = wishes.iter().map(|wish| wish.feature.id).filter(|id| assumed.hangs.contains(id));
        let hang: Vec<&str> = hang.collect();
        if !hang.is_empty() {
            notes.push(format!("{} hangs on what is assumed: {} is {}", hang.join(", "), assumed.what, assumed.value));
        }
    }
}

/// What is in the first list and not in the second.
fn missing(one: &[&'static str], other: &[&'static str]) -> Vec<&'static str> {
    one.iter().copied().filter(|word| !other.contains(word)).collect()
}

fn bugs(names: &[&'static str], does: &str, sentences: &mut Vec<String>) {
    if !names.is_empty() {
        sentences.push(format!("the guest's line `bugs` {does} {}", names.join(", ")));
    }
}

/// What every change of its kind means, wherever it is made.
fn of_change(change: &Change, price: &mut Price) {
    match change {
        Change::Property { name, value: Some(value), .. } if name == "migratable" && value == "off" => {
            price.migration.push(
                "with migratable=off the guest gets bits that QEMU cannot vouch for: it should not be migrated live"
                    .to_owned(),
            );
        }
        Change::Property { name, .. } if name == "tsc-frequency" => {
            price.migration.push("it migrates only to hosts with this TSC frequency, or with TSC scaling".to_owned());
        }
        Change::Property { name, value: Some(value), .. } if name == "kvm" && value == "off" => {
            price.notes.push("the guest does without KVM's clock, interrupts and other help, and is slower".to_owned());
        }
        Change::Property { name, value: Some(value), .. } if name == "hypervisor" && value == "off" => {
            price.notes.push("the guest takes itself for bare metal and does without all help of KVM's".to_owned());
        }
        Change::Model { kind: ModelKind::Host, .. } => {
            price.migration.push("it migrates only to hosts that offer every feature of this one".to_owned());
        }
        Change::CpuPm => price.notes.push("the guest keeps its physical CPUs while it idles".to_owned()),
        Change::Smp(_) => price.notes.push("the guest has other CPUs, of one socket".to_owned()),
        Change::Machine { newer: true, .. } => {
            price.migration.push("no QEMU older than the machine type can take the guest over".to_owned());
            price
                .notes
                .push("the guest sees other virtual hardware; Windows may want to be activated again".to_owned());
        }
        Change::Machine { .. } => {
            price.notes.push("an older machine type lacks what came later, and is one day removed".to_owned());
        }
        Change::Param { name, value } if name.ends_with(".nested") && value != "0" => {
            price.safety.push("guests may run guests: more of KVM's code is open to them".to_owned());
        }
        Change::GuestCmdline(Word::Add(word)) | Change::HostCmdline(Word::Add(word)) if weakens(word) => {
            price.safety.push(format!("`{word}` switches a protection of that kernel off"));
        }
        Change::GuestCmdline(Word::Add(word)) if word.starts_with("clearcpuid=") => {
            price.notes.push("programs that ask CPUID themselves see the feature all the same".to_owned());
        }
        Change::GuestKernel { newer: false, .. } | Change::HostKernel { newer: false, .. } => {
            price.safety.push("an older kernel lacks the fixes that came later".to_owned());
        }
        _ => {}
    }
}

/// Bits that the guest is told only then, and that QEMU does not migrate.
fn unmigratable(before: &View, after: &View, settings: &Settings, price: &mut Price) {
    let told = |step: &&Step| matches!(step.effect, Effect::Kept | Effect::Added | Effect::Forced);
    let release = after.release();
    let fixed = settings.cpu().names("tsc-frequency");
    for place in after.qemu_steps().iter().filter(told).filter_map(|step| step.place) {
        let blocks = qemu::unmigratable(release, place) && !was_told(before, place);
        let Some(name) = qemu::name(release, place).filter(|_| blocks) else { continue };
        if name != "invtsc" {
            price.migration.push(format!("QEMU counts {name} as not migratable"));
        } else if !fixed {
            price
                .migration
                .push("QEMU refuses to migrate a guest with invtsc, unless tsc-frequency= is given".to_owned());
        }
    }
}

fn was_told(view: &View, place: Place) -> bool {
    view.qemu_step(place).is_some_and(|step| step.effect != Effect::Dropped)
}
