//! The best CPU that a guest may have on every host, and which hosts take what from everybody.

use std::collections::BTreeSet;

use cpusieve_model::Vendor;

use crate::catalogue::Catalogue;
use crate::fleet::Fleet;
use crate::host::Setting;
use crate::naming::{self, Hosts, Named};
use crate::offer::{Offer, Words, closed};
use crate::rest::Lacking;

/// What runs on every host.
#[derive(Clone, Debug)]
pub struct Baseline {
    /// The number of hosts.
    pub hosts: usize,
    /// The vendors, and how many hosts each made.
    pub vendors: Vec<(Vendor, usize)>,
    /// The ids of the features that run on every host, in the order of QEMU's words.
    pub features: Vec<&'static str>,
    /// What all hosts offer, also what QEMU has no name for or does not migrate.
    pub common: Offer,
    /// The model and its differences; `None` if no model runs unfiltered on all hosts.
    pub model: Option<Named>,
    /// Whether a guest with these features can be migrated: QEMU migrates each of them.
    pub migratable: bool,
    /// The lowest and the highest frequency of a TSC, in kHz; `None` unless all hosts tell theirs.
    pub tsc_khz: Option<(u64, u64)>,
    /// Which hosts take features from everybody; a host that takes none is not in it.
    pub costs: Vec<Cost>,
    /// Of a fleet of which only a sum is kept: the features that not every host of that sum offers.
    pub lacking: Vec<Lacking>,
    /// What the user should know before the answer is believed.
    pub findings: Vec<String>,
}

/// What one host takes from everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The host.
    pub host: String,
    /// The ids of the features that it lacks and another host has.
    pub features: Vec<&'static str>,
    /// Those of them that all hosts of other kinds have: without hosts of this kind, everybody has them.
    pub alone: Vec<&'static str>,
    /// How many hosts are of its kind.
    pub alike: usize,
    /// How many hosts of its kind have no member to stand for them; said with the first of the kind.
    pub unnamed: usize,
}

/// The features of some kinds together: what QEMU can be asked for on all of them.
#[must_use]
pub fn features(offer: &Offer, catalogue: &Catalogue, migratable: bool) -> Words {
    closed(catalogue.wanted(&closed(offer.own, catalogue.release), migratable), catalogue.release)
}

/// The baseline of a fleet; `None` if it has no hosts. With `migratable`, only features that QEMU migrates.
#[must_use]
pub fn baseline(fleet: &Fleet, setting: &Setting<'_>, migratable: bool) -> Option<Baseline> {
    let catalogue = Catalogue::of(setting.release);
    let common = fleet.offer()?;
    let wanted = features(&common, &catalogue, migratable);
    let offered = closed(common.words, setting.release);
    let model = naming::name(&Hosts::of_fleet(fleet), &catalogue, setting, &wanted, &offered);
    let given_up: Vec<&str> = model.iter().flat_map(|model| &model.given_up).copied().collect();
    let features: Vec<_> =
        catalogue.in_words(&wanted).map(|property| property.id).filter(|id| !given_up.contains(id)).collect();
    let words = model.as_ref().map_or(&wanted, |model| &model.words);
    Some(Baseline {
        hosts: fleet.hosts(),
        vendors: fleet.vendors().into_iter().collect(),
        features: once(features),
        migratable: catalogue.is_migratable(words),
        tsc_khz: tsc(fleet),
        costs: costs(fleet, &catalogue, migratable),
        lacking: fleet.rest().map_or_else(Vec::new, |rest| rest.lacking(&catalogue, migratable)),
        findings: findings(fleet, model.as_ref()),
        common,
        model,
    })
}

/// Two properties of one feature (the bits of two vendors) have one id.
pub(crate) fn once(ids: Vec<&'static str>) -> Vec<&'static str> {
    let mut seen = BTreeSet::new();
    ids.into_iter().filter(|id| seen.insert(*id)).collect()
}

fn tsc(fleet: &Fleet) -> Option<(u64, u64)> {
    let all: Option<Vec<u64>> = fleet.members().iter().map(|member| member.tsc_khz.filter(|&khz| khz > 0)).collect();
    let mut all = all?;
    if let Some(unnamed) = fleet.unnamed() {
        let (lowest, highest) = unnamed.tsc_khz?;
        all.extend([lowest, highest]);
    }
    Some((*all.iter().min()?, *all.iter().max()?))
}

fn costs(fleet: &Fleet, catalogue: &Catalogue, migratable: bool) -> Vec<Cost> {
    let own: Vec<Words> = fleet.kinds().iter().map(|kind| features(&kind.offer, catalogue, migratable)).collect();
    let having = |property: &crate::Property| own.iter().filter(|words| property.is_in(words)).count();
    // For each kind: the features that it lacks, and whether it is the only kind that lacks them.
    let mut of_kind: Vec<(Vec<&'static str>, Vec<&'static str>)> = vec![Default::default(); own.len()];
    for property in catalogue.properties() {
        let count = having(property);
        if count == 0 || count == own.len() {
            continue;
        }
        for (words, (lacking, alone)) in own.iter().zip(&mut of_kind) {
            if !property.is_in(words) {
                lacking.push(property.id);
                if count + 1 == own.len() {
                    alone.push(property.id);
                }
            }
        }
    }
    // Hosts of each kind for which no member stands.
    let mut unnamed: Vec<usize> = fleet.kinds().iter().map(|kind| kind.hosts).collect();
    for member in fleet.members() {
        if let Some(hosts) = unnamed.get_mut(member.kind) {
            *hosts = hosts.saturating_sub(1);
        }
    }
    let cost = |member: &crate::Member| {
        let unnamed = unnamed.get_mut(member.kind).map_or(0, std::mem::take);
        let (features, alone) = of_kind.get(member.kind).filter(|(features, _)| !features.is_empty())?;
        let alike = fleet.kind_of(member).map_or(1, |kind| kind.hosts);
        let (features, alone) = (once(features.clone()), once(alone.clone()));
        Some(Cost { host: member.name.clone(), features, alone, alike, unnamed })
    };
    fleet.members().iter().filter_map(cost).collect()
}

fn findings(fleet: &Fleet, model: Option<&Named>) -> Vec<String> {
    let mut findings = Vec::new();
    let vendors = fleet.vendors();
    if vendors.len() > 1 {
        let counts: Vec<String> = vendors.iter().map(|(vendor, count)| format!("{count} {}", vendor.name())).collect();
        findings.push(format!(
            "mixed vendors ({}): KVM shows each host's own vendor to its guests, so a running guest cannot move \
             between them; what is common is a baseline for starting guests only",
            counts.join(", ")
        ));
    }
    let nested: Vec<&str> = fleet.members().iter().filter(|member| member.nested).map(|member| &*member.name).collect();
    if !nested.is_empty() {
        findings.push(format!("hosts that are guests themselves (hypervisor bit): {}", few(&nested)));
    }
    let nested = fleet.unnamed().map_or(0, |unnamed| unnamed.nested);
    if nested > 0 {
        findings.push(format!("hosts without a name here that are guests themselves: {nested}"));
    }
    match model {
        None if Hosts::of_fleet(fleet).is_empty() => {
            findings.push(
                "no model is named: QEMU can be asked on none of the hosts, of which only words were kept".to_owned(),
            );
        }
        None => findings.push("no CPU model of this QEMU runs unfiltered on all hosts".to_owned()),
        Some(model) if !model.given_up.is_empty() => findings.push(format!(
            "offered by all hosts, but QEMU takes it out of a guest with a named model: {}",
            model.given_up.join(" ")
        )),
        Some(_) => {}
    }
    findings
}

/// The first few of some names.
pub(crate) fn few(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let shown = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
