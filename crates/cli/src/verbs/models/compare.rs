//! What differs between two names of `-cpu`, of one release or of two.

use cpusieve_answers::models::{self, Changed, Comparison, Feature, NoModel, Setting, compare};
use cpusieve_knowledge::qemu;
use serde_json::{Value, json};

use super::{caches, installed, label, split};
use crate::args::{Accel, ModelsOptions};
use crate::json;
use crate::page::{self, GAINED, HEAD, LOST, styled};
use crate::verbs::{Done, Failure};

/// Columns of the labels at the left, at least.
const LABELS: usize = 14;

pub(super) fn run(options: &ModelsOptions, names: [&str; 2], as_json: bool) -> Result<Done, Failure> {
    let mut assumed = Vec::new();
    let mut side = |text| -> Result<_, Failure> {
        let (name, own) = split(text)?;
        let asked = own.or(options.qemu.as_deref());
        let installed = if asked.is_none() { Some(installed(options)) } else { None };
        let (release, why) = models::release(asked, installed.as_ref())?;
        assumed = why;
        let machine = qemu::machine(release, &options.machine).map_err(NoModel::from)?;
        let tcg = cpusieve_stages::qemu::Accelerator::Tcg;
        let accelerator = if options.accel == Accel::Tcg { Some(tcg) } else { None };
        Ok((name, Setting { release, machine, accelerator }))
    };
    let [(left, here), (right, there)] = [side(names[0])?, side(names[1])?];
    let found = compare(&here, left, &there, right)?;
    let sides = [(left, &here), (right, &there)];
    page::print(&if as_json {
        json::pretty(&as_value(sides, &found))
    } else {
        let mut page = text(sides, &found, page::width());
        for assumed in &assumed {
            let line = format!("{} {} is assumed: {}", assumed.what, assumed.value, assumed.because);
            page.push_str(&page::wrap(&line, "  ! ", "    ", page::width()));
        }
        page
    })?;
    Ok(if found.is_same() { Done::Same } else { Done::Different })
}

type Sides<'a> = [(&'a str, &'a Setting<'a>); 2];

fn text(sides: Sides<'_>, found: &Comparison, width: usize) -> String {
    let [(left, here), (right, there)] = sides;
    let two = here.release != there.release;
    let of = |name: &str, setting: &Setting<'_>| {
        if two { format!("{name} of QEMU {}", label(setting.release)) } else { name.to_owned() }
    };
    let end = if two {
        format!(" (on {} and {})", here.machine.name, there.machine.name)
    } else {
        format!(" (QEMU {} on {})", label(here.release), here.machine.name)
    };
    let [left, right] = [of(&page::tame(left), here), of(&page::tame(right), there)];
    let mut page = page::wrap(&styled(HEAD, format!("{left} and {right}{end}")), "", "  ", width);
    if found.is_same() {
        page.push_str(&page::wrap(&format!("are the same, {} features", found.both), "  ", "  ", width));
        return page;
    }
    differences(&mut page, found, width);
    page
}

/// What the right side has and lacks, property by property, and what both have.
pub(super) fn differences(page: &mut String, found: &Comparison, width: usize) {
    let longest = found.properties.iter().map(|changed| changed.property.len() + 2).max().unwrap_or(0);
    let labels = longest.max(LABELS);
    let mut row = |what: &str, text: &str| {
        let first = format!("  {what:<labels$}");
        page.push_str(&page::wrap(text, &first, &" ".repeat(if width < 60 { 4 } else { labels + 2 }), width));
    };
    let names = |features: &[Feature], sign: char| {
        let names = features.iter().map(|feature| format!("{sign}{}", feature.name)).collect::<Vec<_>>();
        names.join(" ")
    };
    if !found.left.is_empty() {
        row(&format!("without {}", found.left.len()), &styled(LOST, names(&found.left, '-')));
    }
    if !found.right.is_empty() {
        row(&format!("with {}", found.right.len()), &styled(GAINED, names(&found.right, '+')));
    }
    for Changed { property, values: [left, right] } in &found.properties {
        let value = |value: &Option<String>| match value {
            Some(text) if text.contains(' ') || text.is_empty() => format!("\"{text}\""),
            Some(text) => text.clone(),
            None => "not known there".to_owned(),
        };
        row(property, &format!("{} → {}", value(left), value(right)));
    }
    if let Some([left, right]) = found.caches {
        row("caches", &format!("{} → {}", caches(left), caches(right)));
    }
    let [left, right] = found.levels.map(|level| level.map_or("32-bit", |level| level.name()));
    if left != right {
        row("level", &format!("{left} → {right}"));
    }
    row("both", &page::counted(found.both, "feature"));
}

fn as_value(sides: Sides<'_>, found: &Comparison) -> Value {
    let side = |(name, setting): (&str, &Setting<'_>)| json!({"cpu": name, "qemu": label(setting.release), "machine": setting.machine.name});
    let mut value = json!({"format": 1, "left": side(sides[0]), "right": side(sides[1]), "same": found.is_same()});
    if let (Some(fields), Value::Object(more)) = (value.as_object_mut(), comparison(found)) {
        fields.extend(more);
    }
    value
}

/// The fields of a comparison.
pub(super) fn comparison(found: &Comparison) -> Value {
    let features = |features: &[Feature]| features.iter().map(feature).collect::<Vec<_>>();
    let properties = found
        .properties
        .iter()
        .map(|Changed { property, values: [left, right] }| json!({"property": property, "left": left, "right": right}));
    json!({
        "only_left": features(&found.left),
        "only_right": features(&found.right),
        "both": found.both,
        "properties": properties.collect::<Vec<_>>(),
        "caches": found.caches.map(|sides| sides.map(caches)),
        "levels": found.levels.map(|level| level.map(|level| level.name())),
    })
}

pub(super) fn feature(feature: &Feature) -> Value {
    json!({"feature": feature.name, "bit": feature.place.to_string()})
}
