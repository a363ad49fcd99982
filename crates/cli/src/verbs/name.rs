//! `name FLAG`: what every system calls a feature, and where it lives.

use std::fmt::Write as _;

use cpusieve_answers::name::{self, Card};
use cpusieve_knowledge::x86::Feature;
use cpusieve_knowledge::{TreeSet, linux, qemu, x86};
use serde_json::{Value, json};

use super::why::span;
use super::{Done, Failure};
use crate::args::NameOptions;
use crate::json;
use crate::page::{self, HEAD, QUIET, styled};

pub(crate) fn run(options: &NameOptions, as_json: bool) -> Result<Done, Failure> {
    let (features, namesakes) = called(&options.flag)?;
    let cards: Vec<Card> = features.into_iter().map(name::card).collect();
    if as_json {
        let cards: Vec<Value> = cards.iter().map(as_value).collect();
        page::print(&json::pretty(&json!({"format": 1, "features": cards})))?;
    } else {
        let width = page::width();
        let pages: Vec<String> = cards.iter().map(|card| text(card, width)).collect();
        page::print(&pages.join("\n"))?;
        page::print(&also_called(&options.flag, &namesakes, width))?;
    }
    Ok(Done::Same)
}

/// Features of one name: those to answer for, and the others.
pub(super) type Called = (Vec<&'static Feature>, Vec<&'static Feature>);

/// The features that some system calls so. The one that has the name as its id is meant before all others.
pub(super) fn called(flag: &str) -> Result<Called, Failure> {
    let mut all = x86::resolve(flag);
    if all.is_empty() {
        return Err(unheard_of(flag).into());
    }
    let meant = all.iter().position(|feature| x86::fold(feature.id) == x86::fold(flag));
    Ok(match meant {
        Some(index) => (vec![all.remove(index)], all),
        None => (all, Vec::new()),
    })
}

/// Features that share the name, in a line.
pub(super) fn also_called(flag: &str, others: &[&'static Feature], width: usize) -> String {
    if others.is_empty() {
        return String::new();
    }
    let names: Vec<String> = others.iter().map(|feature| format!("{} ({})", feature.id, feature.title)).collect();
    page::wrap(&format!("Other systems also call this {flag}: {}.", names.join(", ")), "\n", "  ", width)
}

/// Nobody uses this name; perhaps one that is near.
fn unheard_of(flag: &str) -> String {
    let near = x86::suggest(flag);
    let shown: String = flag.chars().take(60).collect();
    let none = format!("no system that cpusieve knows has a feature called `{shown}`");
    if near.is_empty() { none } else { format!("{none}; perhaps {}", near.join(", ")) }
}

fn text(card: &Card, width: usize) -> String {
    let mut page = String::new();
    let scope = match card.feature.vendor {
        x86::Scope::Any => "",
        x86::Scope::Intel => ", Intel",
        x86::Scope::Amd => ", AMD",
        x86::Scope::Via => ", Centaur and Zhaoxin",
        x86::Scope::Transmeta => ", Transmeta",
    };
    let group = format!("({}{scope})", card.feature.group);
    let _ = writeln!(page, "{}  {} {}", styled(HEAD, card.feature.id), card.feature.title, styled(QUIET, group));
    let mut row = |what: &str, value: String| {
        page.push_str(&page::wrap(&value, &format!("  {what:<16} "), &" ".repeat(19), width))
    };
    for place in card.feature.places {
        let (long, short) = (place.to_string(), format!("{place:#}"));
        row("bit", if long == short { long } else { format!("{long}, in short {short}") });
    }
    for linux in &card.linux {
        let (word, bit) = linux.position;
        let shown = linux.shown.map_or_else(|| "hidden".to_owned(), |shown| format!("printed as {shown}"));
        row("Linux", format!("{shown} in {}; X86_FEATURE_{}, {word}*32+{bit}", span(linux.trees), linux.macro_name));
    }
    for kvm in &card.kvm {
        let condition = if kvm.conditional { ", under a condition" } else { "" };
        row("KVM", format!("can report {:#} in {} ({}{condition})", kvm.place, span(kvm.trees), name::kind(kvm.kind)));
    }
    if card.kvm.is_empty() && !card.feature.places.is_empty() {
        row("KVM", "reports it in no release".to_owned());
    }
    for qemu in &card.qemu {
        let value = match qemu.name {
            Some(name) => {
                let policy = if qemu.unmigratable.is_empty() {
                    ""
                } else {
                    "; left out by migratable=on, the default of -cpu host"
                };
                format!("{name} ({:#}) in {}{policy}", qemu.place, releases(qemu.named))
            }
            None => format!("no name for {:#}", qemu.place),
        };
        row("QEMU", value);
    }
    if card.qemu.is_empty() && !card.feature.places.is_empty() {
        row("QEMU", "names it in no release that is known".to_owned());
    }
    for (system, name) in &card.elsewhere {
        row(system, (*name).to_owned());
    }
    if !card.causes.is_empty() {
        row("makes Linux set", card.causes.join(" "));
    }
    if !card.dependents.is_empty() {
        row("cleared with it", card.dependents.join(" "));
    }
    page
}

/// QEMU releases, as a list.
fn releases(set: TreeSet) -> String {
    let labels: Vec<&str> =
        set.iter().filter_map(|release| qemu::RELEASES.get(release)).map(|release| release.label).collect();
    labels.join(", ")
}

fn labels(set: TreeSet) -> Vec<&'static str> {
    set.iter().filter_map(|tree| linux::TREES.get(tree)).map(|tree| tree.label).collect()
}

fn as_value(card: &Card) -> Value {
    let linux = card.linux.iter().map(|linux| {
        json!({"macro": format!("X86_FEATURE_{}", linux.macro_name), "printed": linux.shown,
            "word": linux.position.0, "bit": linux.position.1, "kernels": labels(linux.trees)})
    });
    let kvm = card.kvm.iter().map(|kvm| {
        json!({"bit": kvm.place.to_string(), "kind": name::kind(kvm.kind), "conditional": kvm.conditional, "kernels": labels(kvm.trees)})
    });
    let of_qemu = |set: TreeSet| -> Vec<&str> {
        set.iter().filter_map(|release| qemu::RELEASES.get(release)).map(|release| release.label).collect()
    };
    let qemu = card.qemu.iter().map(|qemu| {
        json!({"bit": qemu.place.to_string(), "name": qemu.name, "releases": of_qemu(qemu.named),
            "unmigratable": of_qemu(qemu.unmigratable)})
    });
    json!({
        "feature": card.feature.id,
        "title": card.feature.title,
        "group": card.feature.group.to_string(),
        "bits": card.feature.places.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "linux": linux.collect::<Vec<_>>(),
        "kvm": kvm.collect::<Vec<_>>(),
        "qemu": qemu.collect::<Vec<_>>(),
        "elsewhere": card.elsewhere.iter().map(|(system, name)| json!({"system": system, "name": name})).collect::<Vec<_>>(),
        "causes": card.causes,
        "cleared_with_it": card.dependents,
    })
}
