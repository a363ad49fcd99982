//! A fleet on a page: what every kind of host offers, what each takes from everybody, and how it splits into pools.

use cpusieve_knowledge::x86;
use maud::{Markup, html};
use serde_json::{Value, json};

use crate::html::frame;
use crate::matrix::{self, Grid};
use crate::page::Page;
use crate::panel;

/// Many hosts.
#[derive(Clone, Debug)]
pub struct Hosts {
    /// The features that some hosts offer and others do not, by id; most widespread first.
    pub features: Vec<String>,
    /// The features that every host offers.
    pub baseline: Vec<String>,
    /// Hosts that offer the same on CPUs of the same signature.
    pub kinds: Vec<Kind>,
    /// QEMU's `-cpu` that runs everywhere; `None` if there is none.
    pub cpu: Option<String>,
    /// The best splits into one pool, two, and so on; empty if nobody looked.
    pub pools: Vec<Pools>,
    /// Inputs that could not be used, and why.
    pub skipped: Vec<(String, String)>,
}

/// Hosts of one kind.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Their names.
    pub hosts: Vec<String>,
    /// Who made their CPUs.
    pub vendor: String,
    /// For each of [`Hosts::features`], whether they offer it.
    pub has: Vec<bool>,
    /// The ids of the features that this kind alone lacks.
    pub alone: Vec<String>,
}

/// A split into pools.
#[derive(Clone, Debug)]
pub struct Pools {
    /// The sum over all hosts of what their pools' features are worth.
    pub value: u64,
    /// Whether no split into as many has a higher value.
    pub best: bool,
    /// Of each pool the positions of its kinds, the number of its features, and `-cpu` for it.
    pub pools: Vec<(Vec<usize>, usize, Option<String>)>,
}

impl Kind {
    /// What they are called together.
    #[must_use]
    pub fn name(&self) -> String {
        let first = self.hosts.first().map_or("", |name| last_part(name));
        match self.hosts.len() {
            0 | 1 => first.to_owned(),
            more => format!("{first} +{}", more - 1),
        }
    }

    fn lacks(&self) -> usize {
        self.has.iter().filter(|&&has| !has).count()
    }
}

/// A file's name, without folders.
pub(crate) fn last_part(name: &str) -> &str {
    name.rsplit('/').find(|part| !part.is_empty()).unwrap_or(name)
}

impl Hosts {
    /// On how many hosts a feature is.
    #[must_use]
    pub fn spread(&self, feature: usize) -> usize {
        let with = |kind: &&Kind| kind.has.get(feature).copied().unwrap_or(false);
        self.kinds.iter().filter(with).map(|kind| kind.hosts.len()).sum()
    }

    /// How many hosts there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.kinds.iter().map(|kind| kind.hosts.len()).sum()
    }
}

/// The page's sections about a fleet.
pub(crate) fn sections(page: &Page, fleet: &Hosts) -> Markup {
    html! {
        @if let Some(cpu) = &fleet.cpu {
            section aria-labelledby="h-cpu" {
                h2 #h-cpu { "Runs on every host" }
                pre .paste { code { "-cpu " (breakable(cpu)) } }
                details {
                    summary { (fleet.baseline.len()) " features that every host offers" }
                    p .flags { @for id in &fleet.baseline { code { (id) } " " } }
                }
            }
        }
        @if !fleet.features.is_empty() {
            section aria-labelledby="h-picture" {
                h2 #h-picture { "Hosts and features" }
                p .hint {
                    "Only what differs: " (fleet.features.len()) " features, those on the same hosts in one column. A row is a kind of "
                    "host. Coloured cells are missing on that kind alone: without it, every host would have them."
                }
                (frame(matrix::picture(fleet, &page.title, false), "Hosts and features"))
            }
        }
        @if fleet.pools.len() > 1 { (pools(fleet)) }
        section aria-labelledby="h-features" {
            h2 #h-features { "Every kind of host" }
            (search(fleet))
            div .scroll { (kinds(fleet)) }
        }
        @if !fleet.features.is_empty() {
            section aria-labelledby="h-spread" {
                h2 #h-spread { "Features that not every host offers" }
                (spread(fleet))
            }
        }
        @if !fleet.skipped.is_empty() {
            section aria-labelledby="h-skipped" {
                h2 #h-skipped { "Left out" }
                details {
                    summary { (fleet.skipped.len()) " inputs" }
                    ul .doubts { @for (_, why) in &fleet.skipped { li { (why) } } }
                }
            }
        }
    }
}

/// A long argument that may break behind its commas.
fn breakable(text: &str) -> Markup {
    html! { @for part in text.split_inclusive(',') { (part) wbr; } }
}

fn search(fleet: &Hosts) -> Markup {
    html! {
        div .tools role="search" {
            label .find {
                span .hidden { "Search hosts" }
                input #find type="search" placeholder="Search: host, vendor, or a feature that is missing" autocomplete="off"
                    spellcheck="false";
                kbd { "/" }
            }
            p #shown .shown role="status" { (fleet.kinds.len()) " kinds" }
        }
    }
}

fn kinds(fleet: &Hosts) -> Markup {
    html! {
        table #features role="grid" aria-label="Kinds of hosts, and what they lack" {
            thead { tr {
                th scope="col" { "Host" } th .num scope="col" { "Alike" } th scope="col" { "Vendor" }
                th .num scope="col" { "Lacks" } th scope="col" { "Lacks alone" }
            } }
            tbody {
                @for (at, kind) in fleet.kinds.iter().enumerate() {
                    tr .way data-k=(at) tabindex="-1" {
                        th scope="row" { (kind.name()) }
                        td .num { (kind.hosts.len()) }
                        td { (kind.vendor) }
                        td .num { (kind.lacks()) }
                        td .flags { @for id in &kind.alone { code { (id) } " " } }
                    }
                }
            }
        }
    }
}

fn spread(fleet: &Hosts) -> Markup {
    let all = fleet.count().max(1);
    html! {
        ul .spread {
            @for (at, id) in fleet.features.iter().enumerate() {
                @let with = fleet.spread(at);
                li data-c=(at) {
                    code { (id) }
                    span .track { i style=(format!("width:{}%", with * 100 / all)) {} }
                    span .num { (with) }
                }
            }
        }
    }
}

fn pools(fleet: &Hosts) -> Markup {
    let most = fleet.pools.iter().map(|split| split.value).max().unwrap_or(1).max(1);
    html! {
        section aria-labelledby="h-pools" {
            h2 #h-pools { "What pools would gain" }
            p .hint { "Each host runs guests with what its whole pool has. The bars are features times hosts." }
            div .pools {
                @for split in &fleet.pools {
                    article {
                        h3 {
                            (split.pools.len()) @if split.pools.len() == 1 { " pool" } @else { " pools" }
                            @if !split.best { span .quiet { " (found by merging)" } }
                        }
                        div .track title=(format!("{}", split.value)) {
                            i style=(format!("width:{}%", split.value.saturating_mul(100) / most)) {}
                        }
                        ol { @for pool in &split.pools { (one(pool, fleet)) } }
                    }
                }
            }
        }
    }
}

fn one((kinds, features, cpu): &(Vec<usize>, usize, Option<String>), fleet: &Hosts) -> Markup {
    let members: Vec<&Kind> = kinds.iter().filter_map(|&at| fleet.kinds.get(at)).collect();
    let hosts: usize = members.iter().map(|kind| kind.hosts.len()).sum();
    html! {
        li {
            b { (hosts) @if hosts == 1 { " host" } @else { " hosts" } } ", " (features) " features"
            @if let Some(cpu) = cpu { ", " code { (cpu.split(',').next().unwrap_or_default()) } }
            details {
                summary { (members.len()) @if members.len() == 1 { " kind" } @else { " kinds" } }
                p { @for kind in &members { (kind.name()) " · " } }
                @if let Some(cpu) = cpu { pre .paste { code { "-cpu " (breakable(cpu)) } } }
            }
        }
    }
}

/// What the panel shows, and where the matrix has its cells.
pub(crate) fn data(fleet: &Hosts) -> Value {
    let position = |id: &String| fleet.features.iter().position(|known| known == id);
    let kinds: Vec<Value> = fleet
        .kinds
        .iter()
        .map(|kind| {
            let lacks: Vec<usize> =
                kind.has.iter().enumerate().filter(|(_, has)| !**has).map(|(feature, _)| feature).collect();
            let alone: Vec<usize> = kind.alone.iter().filter_map(position).collect();
            json!({"n": kind.name(), "h": kind.hosts, "v": kind.vendor, "l": lacks, "a": alone})
        })
        .collect();
    let features: Vec<Value> = fleet
        .features
        .iter()
        .map(|id| {
            let known = x86::feature(id);
            json!({
                "n": id,
                "t": known.map(|known| known.title),
                "b": known.and_then(x86::Feature::place).map(|place| place.to_string()),
                "a": known.map(panel::name_pairs),
            })
        })
        .collect();
    let grid = Grid::of(fleet);
    json!({
        "kind": "hosts", "kinds": kinds, "features": features, "hosts": fleet.count(),
        "grid": {"x": grid.edges, "y": grid.rows, "row": grid.row, "order": grid.order, "columns": grid.columns},
    })
}
