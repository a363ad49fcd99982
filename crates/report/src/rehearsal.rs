//! From the JSON of `rehearse` to a page: what an upgrade changes for each guest, and by whom.
//!
//! A rehearsal comes as its JSON, format 1, so that one made elsewhere, or kept, can be looked at too.

use std::borrow::Cow;

use cpusieve_knowledge::{rules, x86};
use cpusieve_model::{Cite, Effect, Evidence, Grounds, RuleId, Stage, Step};
use serde_json::Value;

use crate::diff::figures;
use crate::page::{Assumed, Body, Figure, Holds, Mark, Page, Sheet, Tone};
use crate::way::{Cause, End, Fate, Way, Ways};

/// Why there is no page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotARehearsal {
    /// It is no JSON.
    #[error("it is no JSON: {0}")]
    NoJson(String),
    /// It is JSON of something else.
    #[error("it is no answer of `cpusieve rehearse --json`, format 1")]
    SomethingElse,
}

/// The page of a rehearsal, of the answer of `rehearse --json`.
///
/// # Errors
/// If the text is something else.
pub fn of_rehearsal(json: String) -> Result<Page, NotARehearsal> {
    let answer: Value = serde_json::from_str(&json).map_err(|error| NotARehearsal::NoJson(error.to_string()))?;
    let hosts = answer["hosts"].as_array().ok_or(NotARehearsal::SomethingElse)?;
    if answer["format"] != 1 || !answer["before"].is_object() || !answer["after"].is_object() {
        return Err(NotARehearsal::SomethingElse);
    }
    let guests: Vec<(&str, &Value)> =
        hosts.iter().flat_map(|host| list(&host["guests"]).map(|guest| (text(&host["host"]), guest))).collect();
    let ways = ways(&answer, &guests);
    let stays = guests.iter().filter(|(_, guest)| guest["stays"] == true).count();
    let count = |count, what: &str, tone| Figure { count, what: what.to_owned(), tone };
    let mut numbers = vec![
        count(guests.len(), if guests.len() == 1 { "guest" } else { "guests" }, Tone::Plain),
        count(stays, "unchanged", Tone::Kept),
    ];
    numbers.extend(
        figures(ways.count(Fate::Lost), ways.count(Fate::Gained), ways.count(Fate::Kept), 0)
            .into_iter()
            .filter(|figure| figure.tone != Tone::Kept),
    );
    Ok(Page {
        title: software(&answer).join(", "),
        lead: format!("{} of {} will not be as before.", guests.len() - stays, counted(guests.len())),
        figures: numbers,
        facts: Vec::new(),
        sheets: sheets(&answer, &guests),
        body: Body::Ways(ways),
        assumed: assumed(&guests),
        doubts: doubts(&answer),
        json: ("cpusieve-rehearse.json".to_owned(), json),
    })
}

/// An array's members; none of what is no array.
fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn words(value: &Value) -> String {
    list(value).map(text).collect::<Vec<_>>().join(" ")
}

fn counted(guests: usize) -> String {
    format!("{guests} guest{}", if guests == 1 { "" } else { "s" })
}

/// What a change is of: a feature, or a bit without a name.
fn name(change: &Value) -> &str {
    change["feature"].as_str().or(change["bit"].as_str()).unwrap_or_default()
}

/// `Linux 6.1 → 6.12`, as far as something is upgraded.
fn software(answer: &Value) -> Vec<String> {
    let vmm = answer["vmm"].as_str().unwrap_or("QEMU");
    let change = |name: &str, field: &str| {
        let (before, after) = (text(&answer["before"][field]), text(&answer["after"][field]));
        match (before == after, after.is_empty()) {
            (_, true) => None,
            (true, _) => Some(format!("{name} {after}")),
            (false, _) if before.is_empty() => Some(format!("{name} → {after}")),
            (false, _) => Some(format!("{name} {before} → {after}")),
        }
    };
    let all = [("Linux", "host_kernel"), (vmm, "vmm"), ("machine", "machine"), ("microcode", "microcode")];
    let parts: Vec<String> = all.into_iter().filter_map(|(name, field)| change(name, field)).collect();
    if parts.is_empty() { vec!["An upgrade, rehearsed".to_owned()] } else { parts }
}

fn stage(value: &Value) -> Option<Stage> {
    Stage::ALL.into_iter().find(|stage| stage.name() == text(value))
}

/// Every change once, however many guests it is for; and what all guests show before and after.
fn ways(answer: &Value, guests: &[(&str, &Value)]) -> Ways {
    let mut ways: Vec<(Way, usize)> = Vec::new();
    for (_, guest) in guests {
        for (side, fate) in [("lost", Fate::Lost), ("gained", Fate::Gained)] {
            for change in list(&guest[side]) {
                let (name, rule) = (name(change), text(&change["rule"]));
                let same = |way: &Way| {
                    let cause = way.enters.as_ref().or(way.leaves.as_ref());
                    way.feature == name && way.fate == fate && cause.is_some_and(|cause| cause.rule == rule)
                };
                match ways.iter_mut().find(|(way, _)| same(way)) {
                    Some((_, count)) => *count += 1,
                    None => ways.push((way(change, fate), 1)),
                }
            }
        }
    }
    let mut ways: Vec<Way> = ways.into_iter().map(|(way, count)| with_count(way, count, guests.len())).collect();
    ways.extend(kept(guests, &ways));
    let parts = software(answer);
    let of =
        |name: &str| parts.iter().find_map(|part| Some(part.strip_prefix(name)?.trim().to_owned())).unwrap_or_default();
    let kernel = of("Linux");
    let sieves = [
        String::new(),
        if kernel.is_empty() { kernel.clone() } else { format!("Linux {kernel}") },
        String::new(),
        of(answer["vmm"].as_str().unwrap_or("QEMU")),
        String::new(),
        String::new(),
    ];
    let ends = match guests {
        [(_, guest)] => vec![end("before", &guest["before"]), end("after", &guest["after"])],
        _ => Vec::new(),
    };
    Ways { ways, sieves, until: Stage::Guest, from_to: ("before".to_owned(), "after".to_owned()), ends }
}

fn with_count(mut way: Way, count: usize, of: usize) -> Way {
    if of > 1 {
        for cause in way.enters.iter_mut().chain(&mut way.leaves) {
            cause.text = format!("For {count} of {of} guests. {}", cause.text);
        }
    }
    way
}

fn end(name: &str, side: &Value) -> End {
    let fact = |what: &str| Some((what.to_owned(), side[what].as_str()?.to_owned()));
    let facts = ["vmm", "machine", "error"].into_iter().filter_map(fact).collect();
    End { name: name.to_owned(), facts, flags: list(&side["flags"]).map(|flag| text(flag).to_owned()).collect() }
}

fn way(change: &Value, fate: Fate) -> Way {
    let feature = name(change).to_owned();
    let place = x86::feature(&feature).and_then(x86::Feature::place);
    let steps: Vec<Step> =
        ["before", "after"].into_iter().filter_map(|when| step(&feature, when, &change["steps"][when])).collect();
    // What was done before alone would stand in the table as if it still were.
    let steps = if change["steps"]["after"].is_object() { steps } else { Vec::new() };
    let by = match text(&change["by"]) {
        "host" => "By the host's kernel, KVM or microcode",
        "vmm" => "By the VMM",
        "both" => "By kernel and VMM together",
        "either" => "By the kernel as by the VMM",
        "machine" => "By what the machine type means afterwards",
        _ => "By the upgrade",
    };
    let since = &change["since"];
    let since = match (since["without"].as_str(), since["with"].as_str()) {
        (Some(without), Some(with)) => format!(", since {with} ({without} is as before)"),
        _ => String::new(),
    };
    let until = if change["until_then"] == true { " Until then: " } else { " " };
    let cause = Cause {
        at: stage(&change["at"]),
        rule: text(&change["rule"]).to_owned(),
        title: match (change["until_then"] == true, text(&change["title"])) {
            (_, "") => "no rule is known".to_owned(),
            (true, title) => format!("until then: {title}"),
            (false, title) => title.to_owned(),
        },
        text: format!("{by}{since}.{until}{}", text(&change["cause"])),
        cite: text(&change["cite"]).to_owned(),
        confidence: None,
        remedy: None,
        follows: None,
        others: Vec::new(),
    };
    let (enters, leaves) = if fate == Fate::Gained { (Some(cause), None) } else { (None, Some(cause)) };
    Way { feature, place, fate, steps, enters, leaves, price: None }
}

/// A step of the answer; what it rests on says whether it is that of before or of after.
fn step(feature: &str, when: &'static str, value: &Value) -> Option<Step> {
    let effects = [Effect::Kept, Effect::Dropped, Effect::Added, Effect::Forced, Effect::Unknown];
    let effect = effects.into_iter().find(|effect| effect.name() == text(&value["effect"]))?;
    let rule = text(&value["rule"]);
    let known = rules::rule(rule);
    let condition = rules::condition(rule);
    let id = known.map(|rule| rule.id).or_else(|| condition.map(|condition| condition.id)).unwrap_or(RuleId(""));
    let seen = list(&value["because"]).map(|each| format!("{}: {}", text(&each["source"]), text(&each["value"])));
    let seen = seen.chain(list(&value["because"]).next().is_none().then(|| "by the rule alone".to_owned()));
    let because: Grounds = seen.map(|text| Evidence::Setting { source: when, text }).collect();
    Some(Step {
        feature: Cow::Owned(feature.to_owned()),
        place: None,
        at: stage(&value["at"])?,
        effect,
        rule: id,
        cite: known.map_or(Cite(""), |rule| rule.cite),
        because,
    })
}

/// What the kernels of all guests print before and after.
fn kept(guests: &[(&str, &Value)], changed: &[Way]) -> Vec<Way> {
    let Some((_, first)) = guests.first() else { return Vec::new() };
    let prints = |side: &Value, name: &str| list(&side["flags"]).any(|flag| flag == name);
    let everywhere =
        |name: &&str| guests.iter().all(|(_, guest)| prints(&guest["before"], name) && prints(&guest["after"], name));
    let mut names: Vec<&str> = list(&first["before"]["flags"]).map(text).filter(everywhere).collect();
    names.retain(|name| !changed.iter().any(|way| way.feature == *name));
    let way = |name: &str| Way {
        feature: name.to_owned(),
        place: x86::feature(name).and_then(x86::Feature::place),
        fate: Fate::Kept,
        steps: Vec::new(),
        enters: None,
        leaves: None,
        price: None,
    };
    names.into_iter().map(way).collect()
}

fn sheets(answer: &Value, guests: &[(&str, &Value)]) -> Vec<Sheet> {
    let columns = ["Guest", "Host", "Stays", "Starts again", "Moves over", "Comes back", "Changes", "Kept by"];
    let mut sheets = vec![Sheet {
        title: "Guests".to_owned(),
        hint: "Whether each starts after the upgrade, moves over while it runs, and comes back; and what pins its CPU."
            .to_owned(),
        holds: Holds::Table(
            columns.into_iter().map(str::to_owned).collect(),
            guests.iter().map(|(host, guest)| row(host, guest)).collect(),
        ),
    }];
    let order: Vec<Vec<Mark>> = list(&answer["order"]).enumerate().map(|(at, host)| in_order(at, host)).collect();
    if !order.is_empty() {
        let columns = ["Host", "Turn", "Stuck on it", "Takes of others"].into_iter().map(str::to_owned).collect();
        let hint = "The host to be upgraded first comes first.".to_owned();
        sheets.push(Sheet { title: "Order".to_owned(), hint, holds: Holds::Table(columns, order) });
    }
    let commands: Vec<(String, String)> = list(&answer["commands"])
        .map(|command| {
            let lines: Vec<&str> = list(&command["lines"]).map(text).collect();
            (format!("{}: {}", text(&command["when"]), text(&command["what"])), lines.join("\n"))
        })
        .collect();
    if !commands.is_empty() {
        sheets.push(Sheet { title: "Commands".to_owned(), hint: String::new(), holds: Holds::Pastes(commands) });
    }
    sheets
}

fn mark(text: impl Into<String>, tone: Tone) -> Mark {
    Mark { text: text.into(), tone }
}

/// Whether something is possible, and why not.
fn verdict(value: &Value) -> Mark {
    match value["possible"].as_bool() {
        Some(true) => mark("yes", Tone::Gained),
        Some(false) => {
            let why: Vec<&str> = list(&value["why"]).map(text).collect();
            let missing = words(&value["missing"]);
            let why = if why.is_empty() { missing } else { why.join("; ") };
            mark(if why.is_empty() { "no".to_owned() } else { format!("no: {why}") }, Tone::Lost)
        }
        None => mark("–", Tone::Plain),
    }
}

fn row(host: &str, guest: &Value) -> Vec<Mark> {
    let names = |side: &str| list(&guest[side]).map(name).collect::<Vec<_>>();
    let (gained, lost) = (names("gained"), names("lost"));
    let registers = list(&guest["changed"]).map(|change| text(&change["register"]));
    let changes: Vec<String> = lost
        .iter()
        .map(|name| format!("−{name}"))
        .chain(gained.iter().map(|name| format!("+{name}")))
        .chain(registers.map(|register| format!("~{register}")))
        .collect();
    let pinned = &guest["pinned"];
    let pins = list(&pinned["pins"]).map(|pin| format!("{}={}", text(&pin["name"]), text(&pin["value"])));
    let stays = guest["stays"] == true;
    vec![
        mark(text(&guest["guest"]), Tone::Plain),
        mark(crate::hosts::last_part(host), Tone::Plain),
        if stays { mark("yes", Tone::Gained) } else { mark("no", Tone::Lost) },
        verdict(&guest["start"]),
        verdict(&guest["migrate"]["forth"]),
        verdict(&guest["migrate"]["back"]),
        mark(changes.join(" "), Tone::Kept),
        mark(pins.collect::<Vec<_>>().join(" "), Tone::Kept),
    ]
}

fn in_order(at: usize, host: &Value) -> Vec<Mark> {
    let stuck = words(&host["stuck"]);
    let tone = if stuck.is_empty() { Tone::Plain } else { Tone::Lost };
    vec![
        mark(crate::hosts::last_part(text(&host["host"])), Tone::Plain),
        mark((at + 1).to_string(), Tone::Plain),
        mark(if stuck.is_empty() { "none".to_owned() } else { stuck }, tone),
        mark(format!("{} of {}", host["takes"], host["of"]), Tone::Plain),
    ]
}

/// What was assumed of guests, each thing once.
fn assumed(guests: &[(&str, &Value)]) -> Vec<Assumed> {
    let mut all: Vec<Assumed> = Vec::new();
    for each in guests.iter().flat_map(|(_, guest)| list(&guest["assumed"])) {
        let own = |field: &str| text(&each[field]).to_owned();
        let hangs = list(&each["hangs"]).map(|name| text(name).to_owned()).collect();
        let one = Assumed { what: own("what"), value: own("value"), because: own("because"), hangs, hosts: None };
        if !all.contains(&one) {
            all.push(one);
        }
    }
    all
}

fn doubts(answer: &Value) -> Vec<String> {
    let mut doubts = Vec::new();
    for host in list(&answer["hosts"]) {
        let name = crate::hosts::last_part(text(&host["host"]));
        doubts.extend(list(&host["doubts"]).map(|doubt| format!("{name}: {}", text(doubt))));
        for (side, sign) in [("gained", "gains"), ("lost", "loses")] {
            let flags = words(&host["flags"][side]);
            if !flags.is_empty() {
                doubts.push(format!("{name}: its own /proc/cpuinfo {sign} {flags}"));
            }
        }
        for guest in list(&host["guests"]) {
            doubts.extend(list(&guest["notes"]).map(|note| format!("{}: {}", text(&guest["guest"]), text(note))));
        }
    }
    doubts.extend(list(&answer["skipped"]).map(|skipped| format!("left out: {}", text(&skipped["why"]))));
    doubts
}
