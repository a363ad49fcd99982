//! From a prediction of any length to a page.

use std::collections::{HashMap, HashSet};

use cpusieve_answers::diff::Diff;
use cpusieve_answers::predict::{Assumption, Prediction};
use cpusieve_knowledge::linux::TREES;
use cpusieve_model::{Effect, Place, Snapshot, Stage, Step};

use crate::diff::{figures, of_item, proper};
use crate::hosts::last_part;
use crate::page::{Assumed, Body, Figure, Page, Tone};
use crate::way::{Cause, End, Fate, Way, Ways};

/// What `predict` found, as far as it was asked.
#[derive(Clone, Debug)]
pub struct Predicted<'a> {
    /// What the user calls the input, and the input.
    pub input: (&'a str, &'a Snapshot),
    /// The last stage that was asked for.
    pub until: Stage,
    /// Every step of every stage, in machine order.
    pub steps: Vec<Step>,
    /// The host's kernel.
    pub host: Option<&'a Prediction>,
    /// The guest's kernel.
    pub guest: Option<&'a Prediction>,
    /// What the guest's flags are against its host's.
    pub diff: Option<&'a Diff>,
    /// What makes the virtual machine: `QEMU 10.0`; empty if nobody was asked.
    pub vmm: String,
    /// What it was asked for: `-machine` and `-cpu`, where it has them.
    pub asked: Option<(&'a str, &'a str)>,
    /// What was assumed.
    pub assumed: &'a [Assumption],
    /// What is odd, what QEMU warns of, why the guest does not start.
    pub doubts: Vec<String>,
}

/// The page of a prediction; `json` is the answer of `predict --json`.
#[must_use]
pub fn of_prediction(found: &Predicted<'_>, json: String) -> Page {
    let (ways, of_msrs) = ways(found);
    let mut doubts = found.doubts.clone();
    if of_msrs > 0 {
        doubts.push(format!("{of_msrs} bits of MSRs, most of them controls of nested VMX, are in the JSON alone"));
    }
    let count = |fate| ways.count(fate);
    let figures = match (found.diff, found.guest.or(found.host)) {
        (Some(diff), _) => {
            let mut figures = figures(diff.lost.len(), diff.gained.len(), diff.kept, count(Fate::Open));
            figures.extend(unprinted(&ways));
            figures
        }
        (None, _) => {
            let mut figures = figures(count(Fate::Lost), count(Fate::Gained), count(Fate::Kept), count(Fate::Open));
            figures.retain(|figure| figure.count > 0);
            figures.extend(unprinted(&ways));
            figures
        }
    };
    Page {
        title: format!("{}: predicted until the {}", last_part(found.input.0), found.until),
        lead: lead(found),
        figures,
        facts: facts(found),
        body: Body::Ways(ways),
        assumed: found.assumed.iter().map(assumed).collect(),
        doubts,
        sheets: Vec::new(),
        json: ("cpusieve-predict.json".to_owned(), json),
    }
}

fn unprinted(ways: &Ways) -> Option<Figure> {
    let count = ways.count(Fate::Unprinted);
    (count > 0).then(|| Figure { count, what: "on no flags line".to_owned(), tone: Tone::Plain })
}

fn kernel(prediction: &Prediction) -> String {
    format!("Linux {}", TREES.get(prediction.tree).map_or("", |tree| tree.label))
}

/// `QEMU 10.0 -machine pc-q35-10.0 -cpu host`
fn virtual_machine(found: &Predicted<'_>) -> String {
    let asked = found.asked.map(|(machine, cpu)| format!(" -machine {machine} -cpu {cpu}"));
    format!("{}{}", found.vmm, asked.unwrap_or_default())
}

fn lead(found: &Predicted<'_>) -> String {
    let vmm = virtual_machine(found);
    let under = match (found.host, vmm.is_empty()) {
        (Some(host), false) => format!("{vmm}, on KVM of {}", kernel(host)),
        (Some(host), true) => kernel(host),
        (None, _) => vmm,
    };
    match (found.until, found.guest) {
        (Stage::Guest, Some(guest)) if under.is_empty() => format!("What {} prints on this vCPU.", kernel(guest)),
        (Stage::Guest, Some(guest)) => format!("What {} prints in a guest of {under}.", kernel(guest)),
        (Stage::Guest | Stage::Vcpu | Stage::Qemu, _) => format!("What {under} gives to a vCPU."),
        (Stage::Kvm, _) => format!("What KVM of {under} offers on this CPU."),
        (Stage::Host | Stage::Silicon, _) => format!("What {under} prints on this CPU."),
    }
}

fn facts(found: &Predicted<'_>) -> Vec<(String, String)> {
    let mut facts = Vec::new();
    let mut fact = |what: &str, value: String| facts.push((what.to_owned(), value));
    if let Some(host) = found.host {
        fact("host kernel", kernel(host));
    }
    if !found.vmm.is_empty() {
        fact("virtual machine", virtual_machine(found));
    }
    if let Some(guest) = found.guest {
        fact("guest kernel", kernel(guest));
    }
    if let Some(brand) = brand(found.input.1) {
        fact("CPU", brand);
    }
    facts
}

fn brand(snapshot: &Snapshot) -> Option<String> {
    snapshot.cpus.iter().find_map(|cpu| cpu.cpuinfo.as_ref()?.identity.brand.clone())
}

fn assumed(assumed: &Assumption) -> Assumed {
    Assumed {
        what: assumed.what.clone(),
        value: assumed.value.clone(),
        because: assumed.because.clone(),
        hangs: assumed.hangs.iter().map(|&name| name.to_owned()).collect(),
        hosts: None,
    }
}

/// One end, as an input shows it. Its flags are filled in by what was found of them.
pub(crate) fn end_of(name: &str, role: &str, snapshot: &Snapshot) -> End {
    let mut facts = vec![("input".to_owned(), name.to_owned())];
    let mut fact = |what: &str, value: Option<String>| facts.extend(value.map(|value| (what.to_owned(), value)));
    fact("CPU", brand(snapshot));
    fact("vendor", snapshot.vendor().map(|vendor| vendor.name().to_owned()));
    let linux = snapshot.linux.as_ref();
    fact("kernel", linux.and_then(|linux| linux.release.clone()));
    fact("command line", linux.and_then(|linux| linux.cmdline.clone()));
    fact("QEMU", snapshot.qemu.first().map(|qemu| qemu.version.clone()));
    let flags = snapshot.flags().map(|flags| flags.iter().map(str::to_owned).collect()).unwrap_or_default();
    End { name: role.to_owned(), facts, flags }
}

fn of_kernel(role: &str, prediction: &Prediction) -> End {
    let list = |names: &[&str]| names.join(" ");
    let boot = &prediction.boot;
    let mut facts = vec![("kernel".to_owned(), kernel(prediction))];
    for (what, names) in [("hidden", &boot.hidden), ("bugs", &boot.bugs), ("vmx flags", &boot.vmx_flags)] {
        if !names.is_empty() {
            facts.push((what.to_owned(), list(names)));
        }
    }
    End { name: role.to_owned(), facts, flags: boot.flags.iter().map(|&flag| flag.to_owned()).collect() }
}

/// Every feature with a step, those of MSRs excepted, which are counted.
fn ways(found: &Predicted<'_>) -> (Ways, usize) {
    let mut order: Vec<&str> = Vec::new();
    let mut steps: HashMap<&str, Vec<Step>> = HashMap::new();
    let mut msrs: HashSet<&str> = HashSet::new();
    for step in &found.steps {
        let name = &*step.feature;
        let of_msr = matches!(step.place, Some(Place::Msr(_)));
        if of_msr {
            msrs.insert(name);
        }
        let known = steps.entry(name).or_default();
        if known.is_empty() {
            order.push(name);
        }
        known.push(step.clone());
    }
    let mut items: HashMap<&str, (Fate, &cpusieve_answers::diff::Item)> = HashMap::new();
    if let Some(diff) = found.diff {
        items.extend(diff.lost.iter().map(|item| (item.flag.as_str(), (Fate::Lost, item))));
        items.extend(diff.gained.iter().map(|item| (item.flag.as_str(), (Fate::Gained, item))));
    }
    let printed = Printed::of(found);
    let mut ways = Vec::new();
    let mut left_out = 0;
    let missing: Vec<&str> = items.keys().copied().filter(|flag| !steps.contains_key(flag)).collect();
    for name in order.into_iter().chain(missing) {
        let own = steps.remove(name).unwrap_or_default();
        match items.get(name) {
            Some(&(fate, item)) => ways.push(of_item(item, fate, fate == Fate::Gained)),
            None if msrs.contains(name) => left_out += 1,
            None => ways.push(of_steps(name, own, &printed, found)),
        }
    }
    let host = found.host.map(|host| of_kernel("host", host));
    let guest = found.guest.map(|guest| of_kernel("guest", guest));
    let from_to = match found.host {
        Some(_) => ("the CPU".to_owned(), if found.until == Stage::Guest { "guest" } else { found.until.name() }),
        None => ("the vCPU".to_owned(), "guest"),
    };
    let from_to =
        (from_to.0, proper(from_to.1).replace("the guest's kernel", "guest").replace("the host's kernel", "host"));
    let kernel_of = |prediction: Option<&Prediction>| prediction.map_or_else(String::new, kernel);
    let of_vmm = match found.asked {
        Some((_, cpu)) => format!("{} -cpu {cpu}", found.vmm.trim_start_matches("QEMU ")),
        None => found.vmm.clone(),
    };
    let sieves = [String::new(), kernel_of(found.host), String::new(), of_vmm, String::new(), kernel_of(found.guest)];
    let ends = host.into_iter().chain(guest).collect();
    (Ways { ways, sieves, until: found.until, from_to, ends }, left_out)
}

/// The words of the flags lines.
struct Printed<'a> {
    host: Option<HashSet<&'a str>>,
    guest: Option<HashSet<&'a str>>,
}

impl<'a> Printed<'a> {
    fn of(found: &Predicted<'a>) -> Self {
        let words = |prediction: &Prediction| prediction.boot.flags.iter().copied().collect();
        Self { host: found.host.map(words), guest: found.guest.map(words) }
    }

    /// On the line where the way begins, and on the one where it ends.
    fn shown(&self, name: &str) -> (bool, bool) {
        let on = |line: &Option<HashSet<&str>>| line.as_ref().map(|line| line.contains(name));
        let (host, guest) = (on(&self.host), on(&self.guest));
        (host.or(guest).unwrap_or(false), guest.or(host).unwrap_or(false))
    }
}

fn of_steps(name: &str, steps: Vec<Step>, printed: &Printed<'_>, found: &Predicted<'_>) -> Way {
    let tree = found.host.or(found.guest).map_or(TREES.len() - 1, |kernel| kernel.tree);
    let ended = Way::ended_by(&steps);
    let (first, last) = printed.shown(name);
    let fate = match ended.map(|step| step.effect) {
        Some(Effect::Unknown) => Fate::Open,
        Some(_) if first && (!last || found.until < Stage::Guest) => Fate::Lost,
        Some(_) => Fate::Unprinted,
        None if first && last => Fate::Kept,
        None => Fate::Unprinted,
    };
    let leaves = ended.map(|step| Cause::of_step(step, tree));
    let enters = Way::first_added(&steps).map(|step| Cause::of_step(step, tree));
    let enters = enters.filter(|enters| leaves.as_ref().is_none_or(|leaves| enters.at < leaves.at));
    let place = steps.iter().find_map(|step| step.place);
    let leaves = if fate == Fate::Kept { None } else { leaves };
    Way { feature: name.to_owned(), place, fate, steps, enters, leaves, price: None }
}
