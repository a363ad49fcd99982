//! What keeps a guest's CPU as it is: a versioned machine type, a version of the model, properties of `-cpu`, a CPU
//! template. Every pin was put to the stages together with the others, and then left out alone: nothing is told that
//! does not help, and what no pin keeps is told too.

use std::collections::{BTreeMap, BTreeSet};

use cpusieve_knowledge::qemu::{self, DefaultCpuVersion};
use cpusieve_knowledge::vmm;
use cpusieve_model::{BitFilter, CpuTemplate, CpuidBit, CpuidModifier, Place, Register, has_subleaves};
use cpusieve_stages::vmm::Options;
use cpusieve_stages::vmm::firecracker::{self, Template};

use super::bench::Bench;
use super::change::is_feature;
use super::guest::{Check, Guest};
use super::moves::{Verdict, migrate, properties_only_in};
use super::stack::Stack;
use super::view::View;
use crate::predict::way::NoWay;
use crate::want::CpuText;

/// How often properties are looked for: switching one off may bring others to light.
const ROUNDS: usize = 6;

/// `KVM_CPUID_FLAG_SIGNIFCANT_INDEX`
const SUBLEAF_COUNTS: u32 = 1;

/// What a pin is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `-machine`
    Machine,
    /// The model of `-cpu`, with its version.
    Model,
    /// A property of `-cpu`.
    Property,
    /// Registers of a Firecracker CPU template.
    Template,
}

impl Kind {
    /// The word of the JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Model => "model",
            Self::Property => "cpu-property",
            Self::Template => "template",
        }
    }
}

/// One thing to write down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// What it is.
    pub kind: Kind,
    /// What it is about: `machine`, a property's name.
    pub name: String,
    /// Its value: `pc-q35-7.2`, `off`.
    pub value: String,
}

/// A guest with all that keeps its CPU as it is.
#[derive(Clone, Debug, Default)]
pub struct Pinned {
    /// The guest, with the pins.
    pub guest: Guest,
    /// The pins; none of them can be left out.
    pub pins: Vec<Pin>,
    /// The template, for Firecracker.
    pub template: Option<CpuTemplate>,
    /// Whether the guest then finds the same as before, in every register.
    pub same: bool,
    /// The bits that no pin keeps.
    pub left: Vec<Place>,
    /// Whether the guest can be started so before the upgrade too, and then finds what it finds without the pins.
    pub before: bool,
    /// Whether the guest, once it was started so before the upgrade, can be migrated there; `None` if it cannot be.
    pub forth: Option<Verdict>,
    /// Whether it can come back then.
    pub back: Option<Verdict>,
}

/// The pins of a guest that QEMU starts.
pub(super) fn pins(bench: &Bench<'_>, guest: &Guest, before: &View, ends: (&Stack, &Stack)) -> Pinned {
    let (old, new) = ends;
    let mut pinned = Pinned { guest: guest.clone(), ..Pinned::default() };
    machine(&mut pinned, before, bench.view(guest, new).ok().as_ref());
    version(&mut pinned, before);
    let mut cpu = CpuText::parse(pinned.guest.cpu());
    let mut found = bench.view(&pinned.guest, new);
    for _ in 0..ROUNDS {
        let Ok(view) = found.as_ref().map_err(|_| ()) else { break };
        let more = properties(before, view, &cpu);
        if view.error.is_some() || more.is_empty() {
            break;
        }
        for (name, value) in more {
            cpu.set(&name, &value);
            pinned.pins.retain(|pin| pin.name != name);
            pinned.pins.push(Pin { kind: Kind::Property, name, value });
        }
        pinned.guest.cpu = Some(cpu.to_string());
        found = bench.view(&pinned.guest, new);
    }
    without_the_needless(bench, guest, &mut pinned, new);
    for_libvirt(bench, &mut pinned, before, ends);
    let (on_new, on_old) = (bench.view(&pinned.guest, new), bench.view(&pinned.guest, old));
    prove(&mut pinned, before, (&on_new, &on_old));
    pinned
}

/// The machine type that the guest has before, if its definition's name stands for another one after.
fn machine(pinned: &mut Pinned, before: &View, after: Option<&View>) {
    let Some(machine) = before.machine else { return };
    let stays = after.and_then(|view| view.machine).is_some_and(|other| other.name == machine.name);
    if !stays {
        pinned.guest.machine = Some(machine.name.to_owned());
        pinned.pins.push(Pin { kind: Kind::Machine, name: "machine".to_owned(), value: machine.name.to_owned() });
    }
}

/// The version that the model has before, where the machine type takes the newest one.
fn version(pinned: &mut Pinned, before: &View) {
    let (Some(machine), Some(release)) = (before.machine, before.release) else { return };
    let mut cpu = CpuText::parse(pinned.guest.cpu());
    let Some(resolved) = qemu::resolve(release, &cpu.model).filter(|resolved| resolved.version.is_none()) else {
        return;
    };
    if machine.default_cpu_version != DefaultCpuVersion::Latest {
        return;
    }
    if let Some(version) = resolved.version_on(release, machine.default_cpu_version) {
        let value = format!("{}-v{version}", resolved.model.name);
        cpu.model.clone_from(&value);
        pinned.guest.cpu = Some(cpu.to_string());
        pinned.pins.push(Pin { kind: Kind::Model, name: "model".to_owned(), value });
    }
}

/// The properties that bring a view back to what was before, as far as one property does one thing.
fn properties(before: &View, view: &View, cpu: &CpuText) -> Vec<(String, String)> {
    let Some(release) = view.release else { return Vec::new() };
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for place in before.differing(view) {
        if let Some(name) = qemu::name(release, place) {
            // What is asked for already and not given cannot be had by asking again.
            let on = before.has(place);
            if cpu.switch(name) != Some(on) {
                found.insert(name.to_owned(), if on { "on" } else { "off" }.to_owned());
            }
        }
    }
    let highest = |table: &cpusieve_model::CpuidTable, leaf| table.get(leaf, 0).map(|registers| registers.eax);
    for (leaf, name) in [(0, "level"), (0x8000_0000, "xlevel")] {
        let (was, is) = (highest(&before.table, leaf), highest(&view.table, leaf));
        if let Some(was) = was.filter(|_| was != is && !cpu.names(name)) {
            found.insert(name.to_owned(), format!("{was:#x}"));
        }
    }
    let bits = |view: &View| highest(&view.table, 0x8000_0008).unwrap_or(0) & 0xff;
    if bits(before) != bits(view) && !cpu.names("phys-bits") {
        found.insert("phys-bits".to_owned(), bits(before).to_string());
        found.insert("host-phys-bits".to_owned(), "off".to_owned());
    }
    found.into_iter().collect()
}

/// Takes every property out that makes no difference.
fn without_the_needless(bench: &Bench<'_>, original: &Guest, pinned: &mut Pinned, new: &Stack) {
    let own = CpuText::parse(original.cpu());
    let Ok(mut with) = bench.view(&pinned.guest, new) else { return };
    let properties: Vec<Pin> = pinned.pins.iter().filter(|pin| pin.kind == Kind::Property).cloned().collect();
    for pin in properties {
        let mut cpu = CpuText::parse(pinned.guest.cpu());
        cpu.remove(&pin.name);
        // What the definition itself says of it comes back.
        if let Some(on) = own.switch(&pin.name) {
            cpu.set(&pin.name, if on { "on" } else { "off" });
        }
        let without = Guest { cpu: Some(cpu.to_string()), ..pinned.guest.clone() };
        if let Ok(view) = bench.view(&without, new)
            && view.is_same(&with)
        {
            pinned.pins.retain(|other| other != &pin);
            pinned.guest = without;
            with = view;
        }
    }
}

/// The features that one QEMU says a guest has and the other does not, although the guest finds the same: required by name,
/// both say them, and libvirt is content.
fn for_libvirt(bench: &Bench<'_>, pinned: &mut Pinned, before: &View, (old, new): (&Stack, &Stack)) {
    if pinned.guest.check_running != Check::Full {
        return;
    }
    let (Ok(one), Ok(other)) = (bench.view(&pinned.guest, old), bench.view(&pinned.guest, new)) else { return };
    let mut names = properties_only_in(&other, &one);
    names.extend(properties_only_in(&one, &other));
    if names.is_empty() || one.error.is_some() || other.error.is_some() {
        return;
    }
    for name in names {
        let mut cpu = CpuText::parse(pinned.guest.cpu());
        cpu.set(name, "on");
        let named = Guest { cpu: Some(cpu.to_string()), ..pinned.guest.clone() };
        let (Ok(here), Ok(there)) = (bench.view(&named, old), bench.view(&named, new)) else { continue };
        let agree = [&here, &there].into_iter().all(|view| view.properties.get(name) == Some(&true));
        if agree && here.is_same(before) && there.is_same(&other) {
            pinned.pins.push(Pin { kind: Kind::Property, name: name.to_owned(), value: "on".to_owned() });
            pinned.guest = named;
        }
    }
}

/// What the pins do, on both ends.
fn prove(pinned: &mut Pinned, before: &View, (after, on_old): (&Result<View, NoWay>, &Result<View, NoWay>)) {
    if let Ok(view) = after {
        pinned.same = view.is_same(before);
        pinned.left = if view.error.is_none() { before.differing(view).into_iter().collect() } else { Vec::new() };
    }
    pinned.before = on_old.as_ref().is_ok_and(|view| view.is_same(before));
    (pinned.forth, pinned.back) = (None, None);
    if let Ok(view) = on_old
        && pinned.before
    {
        pinned.forth = Some(migrate(&pinned.guest, view, after));
        let there = after.as_ref().ok().filter(|view| view.error.is_none());
        pinned.back = there.map(|there| migrate(&pinned.guest, there, on_old));
    }
}

/// The template with which Firecracker gives its guests what they have before, as far as bits can be taken away.
pub(super) fn template(bench: &Bench<'_>, guest: &Guest, before: &View, ends: (&Stack, &Stack)) -> Pinned {
    let (old, new) = ends;
    let mut pinned = Pinned { guest: guest.clone(), ..Pinned::default() };
    let as_it_is = (bench.view(guest, new), bench.view(guest, old));
    prove(&mut pinned, before, (&as_it_is.0, &as_it_is.1));
    // Other VMMs have no templates.
    let (Some(Options::Firecracker(options)), Ok(after)) = (bench.options, as_it_is.0) else { return pinned };
    // Features can be taken away; only numbers can also be written that KVM does not offer.
    let mut changes = Written::new();
    for place in before.differing(&after) {
        let there = |bit: &CpuidBit| after.table.get(bit.leaf, bit.subleaf).is_some();
        let Some(bit) = place.cpuid().filter(there) else { continue };
        if after.has(place) || !is_feature(place) {
            let (mask, value) = changes.entry((bit.leaf, bit.subleaf, bit.register)).or_default();
            *mask |= 1 << bit.bit;
            *value |= u32::from(before.has(place)) << bit.bit;
        }
    }
    for _ in 0..ROUNDS {
        changes.retain(|_, (mask, _)| *mask != 0);
        if changes.is_empty() {
            return Pinned { template: None, pins: Vec::new(), ..pinned };
        }
        let whole = with(base(&options, &after), &changes);
        let custom = Options::Firecracker(firecracker::Options { template: Template::Custom(&whole), ..options });
        let of = |stack| bench.view_with(guest, stack, Some(custom));
        prove(&mut pinned, before, (&of(new), &of(old)));
        let entries: BTreeSet<(u32, u32)> = changes.keys().map(|&(leaf, subleaf, _)| (leaf, subleaf)).collect();
        let pin = |(leaf, subleaf)| {
            let name = format!("{leaf:#x}/{subleaf:#x}");
            Pin { kind: Kind::Template, name, value: "as before".to_owned() }
        };
        pinned.pins = entries.into_iter().map(pin).collect();
        pinned.template = Some(whole);
        if without_effect(&mut changes, &pinned.left) == 0 {
            break;
        }
    }
    pinned
}

/// Bits that a template writes, and with what, by entry and register.
type Written = BTreeMap<(u32, u32, Register), (u32, u32)>;

/// A template with bits written after all that it does by itself.
fn with(mut template: CpuTemplate, changes: &Written) -> CpuTemplate {
    for (&(leaf, subleaf, register), &(mask, value)) in changes {
        let flags = if has_subleaves(leaf) { SUBLEAF_COUNTS } else { 0 };
        let bits = BitFilter { mask: u64::from(mask), value: u64::from(value) };
        template.cpuid.push(CpuidModifier { leaf, subleaf, flags, register: Some((register, bits)) });
    }
    template
}

/// Takes the bits out that Firecracker writes over after the template; how many these are.
fn without_effect(changes: &mut Written, left: &[Place]) -> usize {
    let mut count = 0;
    for bit in left.iter().filter_map(|place| place.cpuid()) {
        if let Some((mask, value)) = changes.get_mut(&(bit.leaf, bit.subleaf, bit.register)) {
            count += usize::from(*mask >> bit.bit & 1 == 1);
            *mask &= !(1 << bit.bit);
            *value &= !(1 << bit.bit);
        }
    }
    count
}

/// The template that is in use already.
fn base(options: &firecracker::Options<'_>, after: &View) -> CpuTemplate {
    match options.template {
        Template::None => CpuTemplate::default(),
        Template::Custom(template) => template.clone(),
        Template::Static(name) => {
            let release = vmm::Vmm::Firecracker.nearest(&after.vmm).release;
            vmm::template(release, name).unwrap_or_default()
        }
    }
}
