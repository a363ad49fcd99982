//! What QEMU does to a bit, and what of its command line or which release would do otherwise.

use cpusieve_knowledge::qemu::{self, Condition, FixupEffect, RELEASES, Word as FeatureWord};
use cpusieve_knowledge::rules::{self, Software};
use cpusieve_knowledge::x86;
use cpusieve_model::{CpuidBit, Place, Register, State};

use super::{Aim, Proposer, situation};
use crate::predict::way::Accel;
use crate::want::change::Change;

/// Leaf 0AH, which is zero without a virtual PMU.
const PMU_LEAF: u32 = 0xa;
/// XSAVE: without it there is no state beyond SSE.
const XSAVE: CpuidBit = CpuidBit::new(1, 0, Register::Ecx, 26);

impl Proposer<'_> {
    /// The vCPU lacks a bit that it should have.
    pub(super) fn bit_on(&mut self, place: Place) {
        if self.view.vcpu_has(place) {
            return;
        }
        let (release, step) = (self.view.release(), self.view.qemu_step(place));
        let name = self.view.qemu_name(place);
        let offered = place.cpuid().is_some_and(|bit| self.view.offered(bit));
        let situation = situation(step);
        match situation {
            "word-unknown" => self.releases(|other| qemu::word_exists(other, place)),
            "unnamed" | "unmigratable" => {
                self.property_value("migratable", "off", false);
                self.releases(|other| qemu::name(other, place).is_some() && !qemu::unmigratable(other, place));
            }
            "dependency" => self.parents(release, place),
            "level" => self.without_levels(),
            "machine" => self.machines(place),
            "xsave-component" => self.aim(Aim::Bit { place: Place::Cpuid(XSAVE), on: true }),
            "conflict" => self.rivals(step.map_or("", |step| step.rule.0), place),
            "paravirtual-off" => self.switch("kvm", true),
            "not-in-tcg" => self.releases(|other| qemu::tcg(other, place)),
            "constant-leaf" => return,
            _ => {}
        }
        if self.settings.accel == Accel::Tcg && matches!(situation, "not-in-tcg" | "paravirtual-off" | "") {
            self.change(Change::Kvm);
        }
        match name {
            Some(name) => self.switch(name, true),
            None => self.releases(|other| qemu::name(other, place).is_some()),
        }
        if place.cpuid().is_some_and(|bit| bit.leaf == PMU_LEAF) || matches!(situation, "model") {
            self.pmu(step.map_or("", |step| step.rule.0), place);
        }
        self.up_to_leaf(place);
        self.machine_removed(situation, place);
        self.models(place, true);
        self.fixups(release, place);
        self.topology(release, place);
        if let Some(bit) = place.cpuid().filter(|_| !offered && self.settings.accel == Accel::Kvm) {
            self.offer(bit);
        }
    }

    /// The vCPU has a bit that it should not have.
    pub(super) fn bit_off(&mut self, place: Place) {
        if !self.view.vcpu_has(place) {
            return;
        }
        match self.view.qemu_name(place) {
            Some(name) => self.switch(name, false),
            None => self.switch("migratable", true),
        }
        if place.cpuid().is_some_and(|bit| bit.leaf >> 8 == 0x0040_0000) {
            self.switch("kvm", false);
        }
        if place.cpuid().is_some_and(|bit| bit.leaf == PMU_LEAF) {
            self.switch("pmu", false);
        }
        self.models(place, false);
    }

    /// Switches a property: by leaving out what says otherwise, or by saying so.
    pub(super) fn switch(&mut self, name: &str, on: bool) {
        let said = self.cpu.switch(name);
        let unmigratable = on && self.is_unmigratable(name);
        if said == Some(!on) {
            self.change(Change::Property { name: name.to_owned(), value: None, unmigratable: false });
        }
        if said != Some(on) {
            self.property_value(name, if on { "on" } else { "off" }, unmigratable);
        }
        if unmigratable && name == "invtsc" {
            self.frequency();
        }
    }

    fn property_value(&mut self, name: &str, value: &str, unmigratable: bool) {
        let Some(known) = qemu::property(self.view.release(), name) else { return };
        let whole = matches!(self.cpu.model.as_str(), "host" | "max");
        if whole || !known.max_only {
            self.change(Change::Property { name: name.to_owned(), value: Some(value.to_owned()), unmigratable });
        }
    }

    fn is_unmigratable(&self, name: &str) -> bool {
        let release = self.view.release();
        qemu::places(release, name).any(|place| qemu::unmigratable(release, place))
    }

    /// With a fixed frequency an invariant TSC can be migrated (`target/i386/kvm/kvm.c:kvm_arch_init_vcpu`).
    fn frequency(&mut self) {
        let kilohertz = self.view.found.vcpu.kvm.as_ref().and_then(|kvm| kvm.view.tsc_khz);
        if let Some(hertz) = kilohertz.map(|kilohertz| kilohertz.saturating_mul(1000)).filter(|&hertz| hertz > 0) {
            self.property_value("tsc-frequency", &hertz.to_string(), false);
        }
    }

    /// The next QEMU that is so.
    fn releases(&mut self, is_so: impl Fn(usize) -> bool) {
        let newer = (self.view.release() + 1..RELEASES.len()).find(|&release| is_so(release));
        newer.into_iter().for_each(|release| self.change(Change::Qemu(release)));
    }

    /// Without these the guest is told as many leaves as its features need.
    pub(super) fn without_levels(&mut self) {
        for name in ["level", "xlevel", "level-func7"] {
            if self.cpu.names(name) {
                self.change(Change::Property { name: name.to_owned(), value: None, unmigratable: false });
            }
        }
    }

    /// A maximum that reaches the leaf of a bit.
    fn up_to_leaf(&mut self, place: Place) {
        let Some(bit) = place.cpuid().filter(|bit| self.view.found.cpuid.state(*bit) == State::Reserved) else {
            return;
        };
        let value = format!("{:#x}", bit.leaf);
        match bit.leaf >> 16 {
            0 => self.property_value("min-level", &value, false),
            0x8000 => self.property_value("min-xlevel", &value, false),
            _ => {}
        }
    }

    /// The features of which one must be on, so that this one may be.
    fn parents(&mut self, release: usize, place: Place) {
        let is_child = |(word, mask): (FeatureWord, u64)| bits(word, mask).any(|bit| bit == place);
        let rows: Vec<_> = qemu::dependencies(release).filter(|row| is_child(row.to)).map(|row| row.from).collect();
        for parent in rows.into_iter().flat_map(|(word, mask)| bits(word, mask)) {
            self.aim(Aim::Bit { place: parent, on: true });
        }
    }

    /// What a conflict's rule says must not be on as well.
    fn rivals(&mut self, rule: &str, place: Place) {
        let needs = rules::rule(rule).map_or(&[][..], |rule| rule.needs);
        for need in needs {
            if let rules::Condition::Cpuid(bit) = need.condition
                && Place::Cpuid(bit) != place
                && let Some(name) = self.view.qemu_name(Place::Cpuid(bit))
            {
                self.switch(name, false);
            }
        }
    }

    /// The PMU, where the rule that took the bit names it, or the bit describes it.
    fn pmu(&mut self, rule: &str, place: Place) {
        let remedy = rules::rule(rule).and_then(|rule| rule.remedy);
        let named = remedy.is_some_and(|remedy| remedy.text.contains("pmu=on"));
        if named || place.cpuid().is_some_and(|bit| bit.leaf == PMU_LEAF) {
            self.switch("pmu", true);
        }
    }

    /// Changes that QEMU would make to KVM's answer if it were started otherwise, or were newer.
    fn fixups(&mut self, release: usize, place: Place) {
        for fixup in qemu::fixups(release, place).filter(|fixup| fixup.effect == FixupEffect::Adds) {
            for condition in fixup.conditions {
                match condition {
                    Condition::CpuPm(true) if !self.settings.cpu_pm => self.change(Change::CpuPm),
                    Condition::HostModel => self.host_model(),
                    _ => {}
                }
            }
        }
        self.releases(|other| {
            qemu::fixups(other, place)
                .any(|fixup| fixup.effect == FixupEffect::Adds && !fixup.releases.contains(release))
        });
    }

    /// More threads in a package, where they make the bit.
    fn topology(&mut self, release: usize, place: Place) {
        let Some(feature) = x86::by_place(place) else { return };
        let mut rules = rules::of_feature(Software::Qemu, feature.id);
        if rules.any(|rule| rule.when == Some("topology-adds") && rule.trees.contains(release)) {
            let given = self.settings.smp.as_deref().unwrap_or("1");
            let cpus = given.split(',').find_map(|part| part.trim_start_matches("cpus=").parse().ok()).unwrap_or(1);
            self.change(Change::Smp(format!("{},sockets=1", u32::max(cpus, 2))));
        }
    }

    /// The first machine type of the same kind that has none of the properties with which the one at hand switches the
    /// bit off, and the newest.
    fn machines(&mut self, place: Place) {
        let release = self.view.release();
        let here = self.view.found.vcpu.machine;
        let Some(name) = self.view.qemu_name(place) else { return };
        let tables = qemu::compat(release, here).filter(|row| qemu::canonical(row.property) == name);
        let Some(table) = tables.map(|row| row.table).max() else { return };
        let newer = qemu::machines(release).filter(|machine| machine.kind == here.kind);
        let newer = newer.filter(|machine| machine.version.is_some_and(|version| version > table));
        if let Some(next) = newer.min_by_key(|machine| machine.version) {
            self.change(Change::Machine { to: next.name.to_owned(), newer: true });
        }
    }

    /// The newest machine type under which QEMU still leaves a bit alone that it takes from `host`.
    fn machine_removed(&mut self, situation: &str, place: Place) {
        if situation != "fixup-removes" {
            return;
        }
        let release = self.view.release();
        let here = self.view.found.vcpu.machine;
        let removed = qemu::fixups(release, place).filter(|fixup| fixup.effect == FixupEffect::Removes);
        let properties: Vec<&str> = removed
            .flat_map(|fixup| fixup.conditions)
            .filter_map(|condition| match condition {
                Condition::PropertyOff(name) => Some(*name),
                _ => None,
            })
            .collect();
        let older =
            qemu::machines(release).filter(|machine| machine.kind == here.kind && machine.version < here.version);
        let sets = |machine: &&qemu::Machine| {
            qemu::compat(release, machine).any(|row| properties.contains(&row.property) && is_on(row.value))
        };
        if let Some(older) = older.filter(sets).max_by_key(|machine| machine.version) {
            self.change(Change::Machine { to: older.name.to_owned(), newer: false });
        }
    }
}

fn is_on(value: &str) -> bool {
    matches!(value, "on" | "true" | "yes")
}

/// The bits of a mask.
fn bits(word: FeatureWord, mask: u64) -> impl Iterator<Item = Place> {
    (0..64).filter(move |bit| mask >> bit & 1 == 1).map(move |bit| word.bit(bit))
}
