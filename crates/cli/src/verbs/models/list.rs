//! All models of a release: which run here, and what the others lack.

use std::fmt::Write as _;

use cpusieve_answers::models::{Catalogue, Entry, catalogue, name_of};
use cpusieve_model::{Place, Vendor};
use serde_json::{Value, json};

use super::Scene;
use crate::json;
use crate::page::{self, GAINED, HEAD, LOST, QUIET, styled};
use crate::verbs::{Done, Failure};

/// From this width on the remarks stand beside the columns.
const ROOMY: usize = 72;
/// So many missing features are named; of more only the number is told.
const NAMED: usize = 4;

pub(super) fn run(scene: &Scene<'_>, as_json: bool) -> Result<Done, Failure> {
    let found = catalogue(&scene.setting);
    page::print(&if as_json { json::pretty(&as_value(scene, &found)) } else { text(scene, &found, page::width()) })?;
    Ok(scene.done(false))
}

fn text(scene: &Scene<'_>, found: &Catalogue, width: usize) -> String {
    let host = scene.host_name().map_or_else(String::new, |host| format!(", on {host}"));
    let mut page = page::wrap(&styled(HEAD, format!("CPU models of {}{host}", scene.place())), "", "  ", width);
    if let Some(best) = best(scene, found) {
        page.push_str(&page::wrap(&best, "", "  ", width));
    }
    let of =
        |runs: Option<bool>| found.entries.iter().rev().filter(move |entry| entry.runs() == runs).collect::<Vec<_>>();
    let sections = [
        ("run here with all their features", of(Some(true))),
        ("lack something here", of(Some(false))),
        ("what they define", of(None)),
    ];
    let longest = found.entries.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
    for (title, entries) in sections.into_iter().filter(|(_, entries)| !entries.is_empty()) {
        let _ = writeln!(page, "\n{}", styled(HEAD, format!("{title} ({})", entries.len())));
        for vendor in vendors(scene, &entries) {
            let own: Vec<&Entry> = entries.iter().copied().filter(|entry| entry.model.vendor == vendor).collect();
            let head = format!("  {:<longest$}  x86-64  features", Vendor::from_string(vendor).name());
            let _ = writeln!(page, "{}", styled(QUIET, head));
            own.iter().for_each(|entry| row(&mut page, scene, found, entry, (longest, width)));
        }
    }
    page.push_str(&scene.doubts(width).replacen("  !", "\n  !", 1));
    page
}

/// The best model for the host, and what `host` or `max` would give; `None` if nothing is known of the host.
fn best(scene: &Scene<'_>, found: &Catalogue) -> Option<String> {
    scene.setting.accelerator?;
    let Some(best) = found.best.and_then(|best| found.entries.get(best)) else {
        return Some("None of them runs here with all its features.".to_owned());
    };
    let classes = found.classes.iter().filter(|(name, _)| *name != "base");
    let classes: Vec<String> = classes.map(|(name, features)| format!("{name} has {features}")).collect();
    let name = styled(GAINED, &best.name);
    Some(format!("The most that runs here is {name}, with {} features; {}.", best.features, classes.join(", ")))
}

/// The vendors of entries: the host's first, then in the order in which they come.
fn vendors<'e>(scene: &Scene<'_>, entries: &[&'e Entry]) -> Vec<&'e str> {
    let mut vendors: Vec<&str> = Vec::new();
    for entry in entries {
        if !vendors.contains(&entry.model.vendor) {
            vendors.push(entry.model.vendor);
        }
    }
    let own = scene.host.cpuid().and_then(cpusieve_model::CpuidTable::vendor);
    // Stable: the rest keeps its order.
    vendors.sort_by_key(|vendor| Some(Vendor::from_string(vendor)) != own);
    vendors
}

fn row(page: &mut String, scene: &Scene<'_>, found: &Catalogue, entry: &Entry, (longest, width): (usize, usize)) {
    let level = entry.level.map_or("32-bit", |level| level.name().trim_start_matches("x86-64-"));
    let first = format!("  {:<longest$}  {level:<6}  {:>8}  ", entry.name, entry.features);
    let indent = if width < ROOMY { 4 } else { first.len() };
    page.push_str(&page::wrap(&remarks(scene, found, entry), &first, &" ".repeat(indent), width));
}

fn remarks(scene: &Scene<'_>, found: &Catalogue, entry: &Entry) -> String {
    let mut parts = Vec::new();
    if let Some(refused) = &entry.refused {
        parts.push(styled(LOST, format!("refused: {}", page::tame(refused))));
    }
    if !entry.also.is_empty() {
        parts.push(format!("= {}", entry.also.join(", ")));
    }
    if let Some(lacks) = entry.lacks.as_ref().filter(|lacks| !lacks.is_empty()) {
        let mut text = format!("lacks {}", lacks.len());
        if lacks.len() <= NAMED {
            let names: Vec<String> = lacks.iter().map(|place| name_of(scene.setting.release, *place)).collect();
            let _ = write!(text, ": {}", names.join(" "));
        }
        parts.push(styled(LOST, text));
    }
    let default = found.default_cpu.is_some_and(|default| is_called(entry, default));
    let default = if default { Some("the default without -cpu") } else { None };
    let note = entry.version.and_then(|version| version.note);
    let deprecated = entry.model.deprecated.map(|why| format!("deprecated: {why}"));
    let quiet: Vec<&str> = [default, note, deprecated.as_deref()].into_iter().flatten().collect();
    if !quiet.is_empty() {
        parts.push(styled(QUIET, quiet.join("; ")));
    }
    parts.join("; ")
}

fn is_called(entry: &Entry, name: &str) -> bool {
    entry.name == name || entry.also.contains(&name)
}

fn as_value(scene: &Scene<'_>, found: &Catalogue) -> Value {
    let release = scene.setting.release;
    let missing = |place: &Place| json!({"feature": name_of(release, *place), "bit": place.to_string()});
    let models = found.entries.iter().map(|entry| {
        json!({
            "name": entry.name,
            "model": entry.model.name,
            "version": entry.version.map(|version| version.number),
            "also": entry.also,
            "vendor": entry.model.vendor,
            "level": entry.level.map(|level| level.name()),
            "features": entry.features,
            "runs": entry.runs(),
            "lacks": entry.lacks.as_ref().map(|lacks| lacks.iter().map(missing).collect::<Vec<_>>()),
            "refused": entry.refused,
            "note": entry.version.and_then(|version| version.note),
            "deprecated": entry.model.deprecated,
        })
    });
    let models: Vec<Value> = models.collect();
    let classes = found.classes.iter().map(|(name, features)| ((*name).to_owned(), Value::from(*features)));
    let mut value = scene.as_value();
    if let Some(fields) = value.as_object_mut() {
        let best = found.best.and_then(|best| found.entries.get(best)).map(|entry| &entry.name);
        fields.insert("best".to_owned(), json!(best));
        fields.insert("default".to_owned(), json!(found.default_cpu));
        fields.insert("classes".to_owned(), Value::Object(classes.collect()));
        fields.insert("models".to_owned(), Value::Array(models));
    }
    value
}
