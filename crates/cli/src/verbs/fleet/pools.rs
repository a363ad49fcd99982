//! `fleet pools`: the best split into pools, and what each further pool gains.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use cpusieve_fleet::{Fleet, Pool, Split, Weights, newest, pools};
use serde_json::{Value, json};

use super::load::{Loaded, load};
use super::{Asked, Done, Failure, assumptions, label, setting};
use crate::args::{PoolsOptions, Switch};
use crate::json;
use crate::page::{self, GAINED, HEAD, QUIET, counted, styled};
use crate::worth::Worths;

/// Hosts of a pool that are named in text.
const NAMED: usize = 8;

pub(super) fn run(options: &PoolsOptions, as_json: bool) -> Result<Done, Failure> {
    let asked = Asked::of(&options.setting, &options.inputs);
    let (setting, assumed) = setting(&asked)?;
    let worths = Worths::known(options.setting.price.file.as_deref())?;
    let given = weights(&options.weights)?;
    let mut weights: Weights =
        worths.weights().into_iter().map(|(feature, weight)| (feature.to_owned(), weight)).collect();
    weights.extend(given.clone());
    let loaded = load(&options.inputs, &setting, options.setting.strict)?;
    let migratable = options.setting.migratable == Switch::On;
    let splits = pools(&loaded.fleet, &setting, migratable, &weights, usize::from(options.most))?;
    let text = if as_json {
        let (skipped, duplicates) = loaded.lists();
        json::pretty(&json!({
            "format": 1,
            "hosts": loaded.fleet.hosts(),
            "qemu": label(setting.release),
            "frontier": splits.iter().map(|split| as_value(split, &loaded.fleet)).collect::<Vec<_>>(),
            "weights": weights,
            "price": worths.value(splits.iter().flat_map(|split| &split.gained).map(|(id, _)| *id)),
            "assumed": assumptions(&assumed, &loaded.fleet),
            "skipped": skipped,
            "duplicates": duplicates,
        }))
    } else {
        let scale = scale(&splits, &weights, &given, &worths);
        text(&splits, &loaded, &worths, &scale, page::width())
    };
    page::print(&text)?;
    Ok(if loaded.skipped.is_empty() { Done::Same } else { Done::InPart })
}

/// Weights by id, whatever spelling they were given under.
fn weights(given: &[(String, String)]) -> Result<Weights, Failure> {
    let catalogue = newest();
    let mut weights = Weights::new();
    for (name, number) in given {
        let id = cpusieve_fleet::feature(name, &catalogue).ok_or_else(|| format!("nobody knows a feature `{name}`"))?;
        let number =
            number.parse().map_err(|_| format!("`{number}` is no weight of {name}; expected a number from 0"))?;
        weights.insert(id.to_owned(), number);
    }
    Ok(weights)
}

fn names<'f>(pool: &Pool, fleet: &'f Fleet) -> Vec<&'f str> {
    pool.hosts.iter().filter_map(|&at| fleet.members().get(at)).map(|member| member.name.as_str()).collect()
}

fn as_value(split: &Split, fleet: &Fleet) -> Value {
    let pools = split.pools.iter().map(|pool| {
        let model = pool.model.as_ref().map(|model| json!({"name": model.name, "cpu": model.cpu}));
        json!({"hosts": names(pool, fleet), "count": pool.count, "features": pool.features, "model": model})
    });
    let gained = split.gained.iter().map(|(id, hosts)| json!({"feature": id, "hosts": hosts}));
    json!({
        "pools": pools.collect::<Vec<_>>(), "value": split.value, "best": split.best,
        "gained": gained.collect::<Vec<_>>(),
    })
}

/// By what features were weighed, as far as it decides: those that some pool has beyond all hosts.
fn scale(splits: &[Split], weights: &Weights, given: &Weights, worths: &Worths) -> String {
    let gained: BTreeSet<&str> = splits.iter().flat_map(|split| &split.gained).map(|(id, _)| *id).collect();
    let words = |is_given: bool| {
        let of = weights.iter().filter(|(id, _)| gained.contains(id.as_str()) && given.contains_key(*id) == is_given);
        of.map(|(id, weight)| format!("{id} {weight}")).collect::<Vec<_>>().join(", ")
    };
    let mut parts = Vec::new();
    for (words, how) in [(words(true), "given".to_owned()), (words(false), format!("by price; {}", worths.origin()))] {
        if !words.is_empty() {
            parts.push(format!("{words} ({how})"));
        }
    }
    match parts.is_empty() {
        true => "weighed: every feature 1".to_owned(),
        false => format!("weighed: {}; every other feature gained 1", parts.join("; ")),
    }
}

fn text(splits: &[Split], loaded: &Loaded, worths: &Worths, scale: &str, width: usize) -> String {
    let mut page = String::new();
    let all = loaded.fleet.hosts();
    for split in splits {
        let how = if split.best { "" } else { ", found by merging the most alike" };
        let head =
            format!("{} for {}{how}: value {}", counted(split.pools.len(), "pool"), counted(all, "host"), split.value);
        let _ = writeln!(page, "{}", styled(HEAD, head));
        let mut rows: Vec<(usize, Vec<&str>)> = Vec::new();
        for &(id, hosts) in &split.gained {
            match rows.last_mut() {
                Some((count, ids)) if *count == hosts => ids.push(id),
                _ => rows.push((hosts, vec![id])),
            }
        }
        for (hosts, ids) in rows {
            let first = format!("  {} ", styled(GAINED, format!("+ {hosts} of {all}:")));
            page.push_str(&page::wrap(&ids.join(" "), &first, "      ", width));
        }
        if let Some(line) = worths.line(split.gained.iter().map(|(id, _)| *id)) {
            page.push_str(&page::wrap(&line, "  worth: ", "      ", width));
        }
        for (number, pool) in split.pools.iter().enumerate() {
            let names = names(pool, &loaded.fleet);
            let mut list = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
            let more = pool.count.saturating_sub(names.len().min(NAMED));
            if more > 0 {
                let _ = write!(list, " and {more} more");
            }
            let model = pool.model.as_ref().map_or("no model", |model| &model.name);
            let first = format!(
                "  {}. {}, {}, {model}: ",
                number + 1,
                counted(pool.count, "host"),
                counted(pool.features.len(), "feature")
            );
            page.push_str(&page::wrap(&page::tame(&list), &first, "      ", width));
        }
        page.push('\n');
    }
    page.push_str(&styled(QUIET, page::wrap(scale, "", "  ", width).trim_end()).to_string());
    page.push('\n');
    page
}
