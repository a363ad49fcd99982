//! From a fleet and its baseline to a page.

use std::collections::BTreeSet;

use cpusieve_fleet::{Baseline, Catalogue, Fleet, Setting, Split, Words, features};
use cpusieve_knowledge::qemu::RELEASES;

use crate::hosts::{Hosts, Kind, Pools};
use crate::page::{Assumed, Body, Figure, Page, Tone};

/// The page of a fleet; `splits` are those of `fleet pools`, `json` is the answer of `fleet baseline --json`, and `skipped`
/// are inputs that could not be used, each with the reason.
#[must_use]
pub fn of_fleet(
    fleet: &Fleet,
    found: &Baseline,
    setting: &Setting<'_>,
    (splits, migratable): (&[Split], bool),
    skipped: &[(String, String)],
    json: String,
) -> Page {
    let catalogue = Catalogue::of(setting.release);
    let own: Vec<Words> = fleet.kinds().iter().map(|kind| features(&kind.offer, &catalogue, migratable)).collect();
    let (differing, has) = differing(&own, &catalogue, fleet);
    let hosts = Hosts {
        kinds: kinds(fleet, found, has),
        features: differing,
        baseline: found.features.iter().map(|&id| id.to_owned()).collect(),
        cpu: found.model.as_ref().map(|model| model.cpu.clone()),
        pools: splits.iter().map(|split| pools(split, fleet)).collect(),
        skipped: skipped.to_vec(),
    };
    let release = RELEASES.get(setting.release).map_or("", |release| release.label);
    let figure = |count, what: &str, tone| Figure { count, what: what.to_owned(), tone };
    let mut facts = vec![
        ("QEMU".to_owned(), format!("{release}, {}", setting.machine.name)),
        ("migratable".to_owned(), if found.migratable { "yes" } else { "no" }.to_owned()),
        ("physical address".to_owned(), format!("{} bits", found.common.phys_bits)),
        ("XCR0".to_owned(), format!("{:#x}", found.common.xcr0())),
    ];
    if let Some((lowest, highest)) = found.tsc_khz {
        let khz = if lowest == highest { format!("{lowest} kHz") } else { format!("{lowest} to {highest} kHz") };
        facts.push(("TSC".to_owned(), khz));
    }
    let vendors: Vec<String> =
        found.vendors.iter().map(|(vendor, hosts)| format!("{hosts} {}", vendor.name())).collect();
    facts.push(("vendors".to_owned(), vendors.join(", ")));
    Page {
        title: format!("A fleet of {} hosts", found.hosts),
        lead: lead(found),
        figures: vec![
            figure(found.hosts, "hosts", Tone::Plain),
            figure(hosts.kinds.len(), "kinds", Tone::Plain),
            figure(found.features.len(), "features everywhere", Tone::Kept),
            figure(hosts.features.len(), "on some hosts only", Tone::Lost),
        ],
        facts,
        body: Body::Hosts(hosts),
        assumed: assumed(fleet),
        doubts: found.findings.clone(),
        sheets: Vec::new(),
        json: ("cpusieve-fleet.json".to_owned(), json),
    }
}

fn lead(found: &Baseline) -> String {
    match &found.model {
        Some(model) => {
            let base = model.cpu.split(',').next().unwrap_or_default();
            format!(
                "{base} with {} features added and {} taken away runs on every host.",
                model.plus.len(),
                model.minus.len()
            )
        }
        None => "No CPU model of this QEMU runs unfiltered on every host.".to_owned(),
    }
}

/// The ids that some kinds have and others lack, the most widespread first, and which kind has which.
fn differing(own: &[Words], catalogue: &Catalogue, fleet: &Fleet) -> (Vec<String>, Vec<Vec<bool>>) {
    let mut columns: Vec<(&'static str, Vec<bool>)> = Vec::new();
    for property in catalogue.properties() {
        let has: Vec<bool> = own.iter().map(|words| property.is_in(words)).collect();
        if has.iter().all(|&one| one) || !has.contains(&true) {
            continue;
        }
        // Two properties of one feature, the bits of two vendors, have one id: one of them is enough.
        match columns.iter_mut().find(|(id, _)| *id == property.id) {
            Some((_, known)) => known.iter_mut().zip(has).for_each(|(known, has)| *known |= has),
            None => columns.push((property.id, has)),
        }
    }
    columns.retain(|(_, has)| !has.iter().all(|&one| one));
    let spread = |has: &[bool]| -> usize {
        has.iter().zip(fleet.kinds()).filter(|(has, _)| **has).map(|(_, kind)| kind.hosts).sum()
    };
    columns.sort_by_key(|(_, has)| std::cmp::Reverse(spread(has)));
    let ids = columns.iter().map(|(id, _)| (*id).to_owned()).collect();
    let kinds = (0..own.len()).map(|kind| columns.iter().filter_map(|(_, has)| has.get(kind).copied()).collect());
    (ids, kinds.collect())
}

fn kinds(fleet: &Fleet, found: &Baseline, has: Vec<Vec<bool>>) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = fleet
        .kinds()
        .iter()
        .zip(has)
        .map(|(kind, has)| Kind { hosts: Vec::new(), vendor: kind.vendor.name().to_owned(), has, alone: Vec::new() })
        .collect();
    let costs: std::collections::HashMap<&str, &cpusieve_fleet::Cost> =
        found.costs.iter().map(|cost| (cost.host.as_str(), cost)).collect();
    for member in fleet.members() {
        let Some(kind) = kinds.get_mut(member.kind) else { continue };
        if kind.hosts.is_empty() {
            kind.alone = costs
                .get(member.name.as_str())
                .map_or_else(Vec::new, |cost| cost.alone.iter().map(|&id| id.to_owned()).collect());
        }
        kind.hosts.push(member.name.clone());
    }
    kinds
}

fn pools(split: &Split, fleet: &Fleet) -> Pools {
    let of_hosts = |hosts: &[usize]| {
        let kinds: BTreeSet<usize> =
            hosts.iter().filter_map(|&at| fleet.members().get(at)).map(|member| member.kind).collect();
        kinds.into_iter().collect()
    };
    Pools {
        value: split.value,
        best: split.best,
        pools: split
            .pools
            .iter()
            .map(|pool| {
                (of_hosts(&pool.hosts), pool.features.len(), pool.model.as_ref().map(|model| model.cpu.clone()))
            })
            .collect(),
    }
}

fn assumed(fleet: &Fleet) -> Vec<Assumed> {
    let each = fleet.assumed().into_iter().map(|assumed| Assumed {
        what: assumed.what,
        value: assumed.value,
        because: assumed.because,
        hangs: Vec::new(),
        hosts: Some(assumed.hosts),
    });
    each.collect()
}
