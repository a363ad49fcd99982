//! One model: what its name means, what is in it, what is taken from it here.

use std::fmt::Write as _;

use cpusieve_answers::models::{Card, Feature, Lack, Meaning, Naming, card, shown};
use cpusieve_knowledge::qemu::{CompatProperty, Model, Version};
use serde_json::{Value, json};

use super::compare::{comparison, differences, feature};
use super::{Scene, caches, label};
use crate::json;
use crate::page::{self, GAINED, HEAD, LOST, QUIET, styled};
use crate::verbs::{Done, Failure};

/// Columns of the labels at the left.
const LABELS: usize = 14;

pub(super) fn run(scene: &Scene<'_>, name: &str, as_json: bool) -> Result<Done, Failure> {
    let found = card(&scene.setting, name, scene.host.kvm.as_ref())?;
    page::print(&if as_json { json::pretty(&as_value(scene, &found)) } else { text(scene, &found, page::width()) })?;
    let lacks = found.lacks.as_ref().is_some_and(|lacks| !lacks.is_empty());
    Ok(scene.done(lacks || found.refused.is_some()))
}

fn text(scene: &Scene<'_>, card: &Card, width: usize) -> String {
    let name = styled(HEAD, page::tame(&card.cpu));
    let mut page = page::wrap(&format!("{name} in {}", scene.place()), "", "  ", width);
    let mut row = |what: &str, text: &str| {
        let first = format!("  {what:<LABELS$}");
        page.push_str(&page::wrap(text, &first, &" ".repeat(if width < 60 { 4 } else { LABELS + 2 }), width));
    };
    meaning(card, &mut row);
    if let Some(first) = card.first {
        let older = if first == 0 { " or older, of those that are known here" } else { "" };
        row("known since", &format!("QEMU {}{older}", label(first)));
    }
    if let Meaning::Model { model, .. } = card.meaning {
        for version in model.versions(scene.setting.release) {
            row(&format!("v{}", version.number), &version_text(version));
        }
        row("CPU", &identity(card, model));
        row("level", card.level.map_or("32-bit", |level| level.name()));
        row("caches", &caches(card.caches()));
        let (cpuid, msrs): (Vec<&Feature>, Vec<&Feature>) =
            card.features.iter().flatten().partition(|feature| feature.place.cpuid().is_some());
        row(&format!("features {}", cpuid.len()), &names(&cpuid));
        if !msrs.is_empty() {
            row(&format!("MSR bits {}", msrs.len()), &names(&msrs));
        }
    }
    if !card.compat.is_empty() {
        row("machine sets", &compat(&card.compat));
    }
    newest(&mut page, card, width);
    taken(&mut page, scene, card, width);
    page.push_str(&scene.doubts(width).replacen("  !", "\n  !", 1));
    page
}

fn names(features: &[&Feature]) -> String {
    let mut names: Vec<&str> = Vec::with_capacity(features.len());
    for feature in features {
        // A property of two bits.
        if !names.contains(&feature.name.as_str()) {
            names.push(&feature.name);
        }
    }
    names.join(" ")
}

/// What the name stands for, and who says so.
fn meaning(card: &Card, row: &mut impl FnMut(&str, &str)) {
    match card.meaning {
        Meaning::Model { model, version, naming } => {
            let what = match version {
                Some(version) => format!("{}-v{}", model.name, version.number),
                None => format!("the definition of {} without any version's properties", model.name),
            };
            let why = match naming {
                Naming::Version => "as it says, on every machine type",
                Naming::Alias => "on every machine type: it is that version's alias",
                Naming::Machine => "because the machine type says so",
            };
            row("means", &format!("{what}, {why}"));
            if let Some(why) = model.deprecated {
                row("deprecated", why);
            }
            for (number, machines) in &card.by_machine {
                let what = number.map_or_else(|| "no version".to_owned(), |number| format!("v{number}"));
                row("", &format!("{what} on {}", ranges(machines).join(", ")));
            }
        }
        Meaning::Host => row("means", "all that KVM offers on the host and QEMU knows, and the host's identity"),
        Meaning::Max => row("means", "all that the accelerator has: under KVM what `host` has"),
        Meaning::Base => row("means", "nothing but what is asked for by name"),
    }
    if let (Meaning::Host | Meaning::Max | Meaning::Base, Some(features)) = (card.meaning, &card.features) {
        row(&format!("features {}", features.len()), &names(&features.iter().collect::<Vec<_>>()));
    }
}

/// Machine types of one family as `pc-q35-4.1..10.0`.
fn ranges(machines: &[&str]) -> Vec<String> {
    let mut families: Vec<(&str, Vec<&str>)> = Vec::new();
    for machine in machines {
        let versioned = machine.rsplit_once('-').filter(|(_, end)| end.starts_with(|c: char| c.is_ascii_digit()));
        let (family, end) = versioned.unwrap_or((machine, ""));
        match families.iter_mut().find(|(known, _)| *known == family) {
            Some((_, ends)) => ends.push(end),
            None => families.push((family, vec![end])),
        }
    }
    let range = |(family, ends): (&str, Vec<&str>)| match (ends.last(), ends.first()) {
        (Some(oldest), Some(newest)) if oldest != newest => format!("{family}-{oldest}..{newest}"),
        (Some(one), _) if !one.is_empty() => format!("{family}-{one}"),
        _ => family.to_owned(),
    };
    families.into_iter().map(range).collect()
}

fn version_text(version: &Version) -> String {
    let alias = version.alias.map(|alias| format!("= {alias}"));
    let note = version.note.map(|note| format!("({note})"));
    let quoted = |text: &str| if text.contains(' ') { format!("\"{text}\"") } else { text.to_owned() };
    let properties: Vec<String> =
        version.properties.iter().map(|(name, value)| format!("{name}={}", quoted(value))).collect();
    let caches = version.caches.map(|table| format!("caches {}", caches(Some(table))));
    let properties = (!properties.is_empty()).then(|| properties.join(", "));
    let parts: Vec<String> = [alias, properties, caches, note].into_iter().flatten().collect();
    if parts.is_empty() { "the definition itself".to_owned() } else { parts.join("  ") }
}

fn identity(card: &Card, model: &Model) -> String {
    let value = |name: &str| card.definition.properties.get(name).map(shown).unwrap_or_default();
    let leaf = |name: &str| value(name).parse::<u32>().map_or_else(|_| String::new(), |leaf| format!("{leaf:02X}H"));
    format!(
        "{} family {} model {} stepping {}, \"{}\"; leaves to {} and {}; under KVM the vendor is the host's",
        model.vendor,
        value("family"),
        value("model"),
        value("stepping"),
        value("model-id"),
        leaf("level"),
        leaf("xlevel"),
    )
}

/// What the machine type sets, each property once: the last of one name wins.
fn compat(rows: &[&CompatProperty]) -> String {
    let last = |at: usize, row: &CompatProperty| rows.iter().skip(at + 1).all(|later| later.property != row.property);
    let rows = rows.iter().enumerate().filter(|(at, row)| last(*at, row));
    rows.map(|(_, row)| format!("{}={}", row.property, row.value)).collect::<Vec<_>>().join(" ")
}

fn newest(page: &mut String, card: &Card, width: usize) {
    let Some((machine, found)) = &card.newest else { return };
    if found.is_same() {
        page.push_str(&page::wrap(
            &format!("the same, but for its name: {}", machine.name),
            "  newest type   ",
            "    ",
            width,
        ));
        return;
    }
    let _ = writeln!(page, "\n{}", styled(HEAD, format!("On {} it is", machine.name)));
    differences(page, found, width);
}

/// What the guest does not get here, by whom and why.
fn taken(page: &mut String, scene: &Scene<'_>, card: &Card, width: usize) {
    let Some(lacks) = &card.lacks else { return };
    let host = scene.host_name().unwrap_or_else(|| "TCG".to_owned());
    if let Some(refused) = &card.refused {
        page.push_str(&page::wrap(
            &styled(LOST, format!("QEMU refuses it: {}", page::tame(refused))),
            "\n",
            "  ",
            width,
        ));
    }
    if lacks.is_empty() {
        page.push_str(&page::wrap(&styled(GAINED, format!("All of it runs on {host}.")), "\n", "  ", width));
        return;
    }
    let heading = format!("{} that the guest does not get on {host}", page::counted(lacks.len(), "bit"));
    page.push_str(&page::wrap(&styled(HEAD, heading), "\n", "  ", width));
    let mut reasons: Vec<(&Lack, Vec<String>)> = Vec::new();
    for lack in lacks {
        let name = format!("{} ({:#})", lack.feature.name, lack.feature.place);
        match reasons.iter_mut().find(|(other, _)| (other.at, &other.reason) == (lack.at, &lack.reason)) {
            Some((_, names)) => names.push(name),
            None => reasons.push((lack, vec![name])),
        }
    }
    for (lack, names) in reasons {
        page.push_str(&page::wrap(&styled(LOST, names.join(", ")), "  ", "    ", width));
        let reason = &lack.reason;
        let why =
            format!("{}: {} {}", lack.at, reason.cause, styled(QUIET, format!("[{} {}]", reason.rule, reason.cite)));
        page.push_str(&page::wrap(&why, "    ", "    ", width));
        page.push_str(&page::wrap(&reason.remedy.text, "    > ", "      ", width));
    }
    let _ = writeln!(page);
    if !card.instead.is_empty() {
        page.push_str(&page::wrap(&card.instead.join(", "), "  runs here with all its features: ", "    ", width));
    }
    if let Some(without) = &card.without {
        page.push_str(&page::wrap(&page::tame(without), "  asks for nothing of it: -cpu ", "    ", width));
    }
}

fn as_value(scene: &Scene<'_>, card: &Card) -> Value {
    let lack = |lack: &Lack| {
        let because = lack.because.iter().map(|seen| json!({"source": seen.source(), "value": seen.value()}));
        json!({
            "feature": lack.feature.name,
            "bit": lack.feature.place.to_string(),
            "at": lack.at.name(),
            "rule": lack.reason.rule.0,
            "cause": lack.reason.cause,
            "cite": lack.reason.cite.0,
            "remedy": json::remedy(&lack.reason.remedy),
            "because": because.collect::<Vec<_>>(),
        })
    };
    let compat = card.compat.iter().map(|row| {
        json!({"table": format!("{}.{}", row.table.0, row.table.1), "cpu": row.driver, "property": row.property, "value": row.value})
    });
    let newest = card.newest.as_ref().map(|(machine, found)| {
        let mut value = comparison(found);
        if let Some(fields) = value.as_object_mut() {
            fields.insert("machine".to_owned(), json!(machine.name));
        }
        value
    });
    let by_machine =
        card.by_machine.iter().map(|(version, machines)| json!({"version": version, "machines": machines}));
    let mut value = scene.as_value();
    if let Some(fields) = value.as_object_mut() {
        let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
        put("cpu", json!(card.cpu));
        put("meaning", meaning_value(scene, card));
        put("first", json!(card.first.map(label)));
        put("by_machine", Value::Array(by_machine.collect()));
        put("level", json!(card.level.map(|level| level.name())));
        put("features", json!(card.features.as_ref().map(|features| features.iter().map(feature).collect::<Vec<_>>())));
        let properties =
            card.definition.properties.iter().map(|(name, value)| ((*name).to_owned(), json!(shown(value))));
        put("properties", Value::Object(properties.collect()));
        put("caches", json!(card.caches().map(|table| json!({"table": table.name, "text": caches(Some(table))}))));
        put("compat", Value::Array(compat.collect()));
        put("newest", json!(newest));
        put("lacks", json!(card.lacks.as_ref().map(|lacks| lacks.iter().map(lack).collect::<Vec<_>>())));
        put("without", json!(card.without));
        put("instead", json!(card.instead));
        put("refused", json!(card.refused));
    }
    value
}

fn meaning_value(scene: &Scene<'_>, card: &Card) -> Value {
    let Meaning::Model { model, version, naming } = card.meaning else {
        let class = match card.meaning {
            Meaning::Host => "host",
            Meaning::Max => "max",
            _ => "base",
        };
        return json!({"class": class});
    };
    let by = match naming {
        Naming::Version => "version",
        Naming::Alias => "alias",
        Naming::Machine => "machine",
    };
    let versions = model.versions(scene.setting.release).map(|version| {
        let properties = version.properties.iter().map(|(name, value)| json!({"property": name, "value": value}));
        json!({"number": version.number, "alias": version.alias, "note": version.note,
            "properties": properties.collect::<Vec<_>>(), "caches": version.caches.map(|table| table.name)})
    });
    json!({
        "class": "model",
        "model": model.name,
        "version": version.map(|version| version.number),
        "by": by,
        "vendor": model.vendor,
        "deprecated": model.deprecated,
        "versions": versions.collect::<Vec<_>>(),
    })
}
