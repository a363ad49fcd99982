//! `name FLAG`: what every system calls a feature, and where it lives.

use cpusieve_answers::name::{self, Card, InKvm, InQemu};
use cpusieve_knowledge::x86::Feature;
use cpusieve_knowledge::{TreeSet, qemu, x86};
use cpusieve_model::Place;
use serde_json::{Value, json};

use super::why::{labels, span};
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
    let flag = page::tame(flag);
    let line = page::wrap(&format!("Other systems also call this {flag}: {}.", names.join(", ")), "", "  ", width);
    format!("\n{line}")
}

/// Nobody uses this name; perhaps one that is near.
fn unheard_of(flag: &str) -> String {
    let near = x86::suggest(flag);
    let shown: String = page::tame(flag).chars().take(60).collect();
    let none = format!("no system that cpusieve knows has a feature called `{shown}`");
    if near.is_empty() { none } else { format!("{none}; perhaps {}", near.join(", ")) }
}

/// Columns of the labels at the left.
const LABELS: usize = 19;
/// From this width on, all that is said stands beside the labels.
const ROOMY: usize = 60;

fn text(card: &Card, width: usize) -> String {
    let scope = match card.feature.vendor {
        x86::Scope::Any => "",
        x86::Scope::Intel => ", Intel",
        x86::Scope::Amd => ", AMD",
        x86::Scope::Via => ", Centaur and Zhaoxin",
        x86::Scope::Transmeta => ", Transmeta",
    };
    let title = format!("{} {}", card.feature.title, styled(QUIET, format!("({}{scope})", card.feature.group)));
    let mut page = page::wrap(&title, &format!("{}  ", styled(HEAD, card.feature.id)), "  ", width);
    let indent = if width < ROOMY { 4 } else { LABELS };
    for (what, value) in [in_linux(card), in_kvm(card), in_qemu(card), elsewhere(card)].concat() {
        let label = format!("{:<LABELS$}", format!("  {what}"));
        page.push_str(&page::wrap(&value, &label, &" ".repeat(indent), width));
    }
    page
}

/// Rows of the page: a label, and what is said.
type Rows = Vec<(&'static str, String)>;

/// The bits, and what Linux prints for them.
fn in_linux(card: &Card) -> Rows {
    let bit = |place: &Place| match (place.to_string(), format!("{place:#}")) {
        (long, short) if long == short => long,
        (long, short) => format!("{long}, in short {short}"),
    };
    let bits = card.feature.places.iter().map(|place| ("bit", bit(place)));
    let linux = card.linux.iter().map(|linux| {
        let (word, bit) = linux.position;
        let shown = linux.shown.map_or_else(|| "hidden".to_owned(), |shown| format!("printed as {shown}"));
        let macro_name = linux.macro_name;
        ("Linux", format!("{shown} in {}; X86_FEATURE_{macro_name}, {word}*32+{bit}", span(linux.trees)))
    });
    bits.chain(linux).collect()
}

fn in_kvm(card: &Card) -> Rows {
    if card.kvm.is_empty() && !card.feature.places.is_empty() {
        return vec![("KVM", "reports it in no release".to_owned())];
    }
    let row = |kvm: &InKvm| {
        let condition = if kvm.conditional { ", under a condition" } else { "" };
        format!("can report {:#} in {} ({}{condition})", kvm.place, span(kvm.trees), name::kind(kvm.kind))
    };
    card.kvm.iter().map(|kvm| ("KVM", row(kvm))).collect()
}

fn in_qemu(card: &Card) -> Rows {
    if card.qemu.is_empty() && !card.feature.places.is_empty() {
        return vec![("QEMU", "names it in no release that is known".to_owned())];
    }
    let row = |qemu: &InQemu| {
        let Some(name) = qemu.name else { return format!("no name for {:#}", qemu.place) };
        let left_out = "; left out by migratable=on, the default of -cpu host";
        let policy = if qemu.unmigratable.is_empty() { "" } else { left_out };
        format!("{name} ({:#}) in {}{policy}", qemu.place, releases(qemu.named).join(", "))
    };
    card.qemu.iter().map(|qemu| ("QEMU", row(qemu))).collect()
}

/// Names in other systems, and the flags that Linux sets and clears with it.
fn elsewhere(card: &Card) -> Rows {
    let mut rows = Rows::new();
    for same_system in card.elsewhere.chunk_by(|(one, _), (next, _)| one == next) {
        let names: Vec<&str> = same_system.iter().map(|(_, name)| *name).collect();
        rows.push((same_system.first().map_or("", |(system, _)| system), names.join(", ")));
    }
    let flags = [("makes Linux set", &card.causes), ("cleared with it", &card.dependents)];
    rows.extend(flags.iter().filter(|(_, flags)| !flags.is_empty()).map(|(what, flags)| (*what, flags.join(" "))));
    rows
}

/// QEMU releases, by their labels.
fn releases(set: TreeSet) -> Vec<&'static str> {
    set.iter().filter_map(|release| qemu::RELEASES.get(release)).map(|release| release.label).collect()
}

fn as_value(card: &Card) -> Value {
    let linux = card.linux.iter().map(|linux| {
        json!({"macro": format!("X86_FEATURE_{}", linux.macro_name), "printed": linux.shown,
            "word": linux.position.0, "bit": linux.position.1, "kernels": labels(linux.trees)})
    });
    let kvm = card.kvm.iter().map(|kvm| {
        json!({"bit": kvm.place.to_string(), "kind": name::kind(kvm.kind), "conditional": kvm.conditional, "kernels": labels(kvm.trees)})
    });
    let qemu = card.qemu.iter().map(|qemu| {
        json!({"bit": qemu.place.to_string(), "name": qemu.name, "releases": releases(qemu.named),
            "unmigratable": releases(qemu.unmigratable)})
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
