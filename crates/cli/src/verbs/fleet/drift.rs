//! `fleet drift`: what changed on each host between two collections.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use cpusieve_fleet::{Catalogue, Drift, Kept, Side, drift};
use serde_json::{Value, json};

use super::load::{Detail, Loaded, Seen, load_with};
use super::{Asked, Done, Failure, assumptions, label, setting};
use crate::args::{DriftOptions, Switch};
use crate::json;
use crate::page::{self, GAINED, HEAD, LOST, counted, styled};

/// What came of two collections.
struct Found {
    /// Hosts that both show.
    hosts: Vec<(String, Drift)>,
    only_old: Vec<String>,
    only_new: Vec<String>,
}

pub(super) fn run(options: &DriftOptions, as_json: bool) -> Result<Done, Failure> {
    let asked = Asked::of(&options.setting, [&options.old, &options.new]);
    let (setting, assumed) = setting(&asked)?;
    let catalogue = Catalogue::of(setting.release);
    let migratable = options.setting.migratable == Switch::On;
    let read = |path: &PathBuf| -> Result<(BTreeMap<String, Kept>, Loaded), Failure> {
        let mut all = Vec::new();
        let inputs = std::slice::from_ref(path);
        let loaded = load_with(inputs, &setting, options.setting.strict, Detail::Whole, |seen| match seen {
            Seen::Host(host) => all.push((host.name.clone(), false, Kept::of(host, &catalogue, migratable))),
            Seen::Member(member, kind) => {
                all.push((member.name.clone(), true, Kept::of_member(member, kind, &catalogue, migratable)));
            }
        })?;
        Ok((keyed(path, all)?, loaded))
    };
    let ((old, before), (new, after)) = (read(&options.old)?, read(&options.new)?);
    let found = compare(&old, &new);
    let skipped: Vec<_> = before.skipped.iter().chain(&after.skipped).collect();
    let text = if as_json {
        json::pretty(&json!({
            "format": 1,
            "qemu": label(setting.release),
            "hosts": found.hosts.iter().map(|(host, drift)| as_value(host, drift)).collect::<Vec<_>>(),
            "only_old": found.only_old,
            "only_new": found.only_new,
            "assumed": assumptions(&assumed, &after.fleet),
            "skipped": skipped.iter().map(|(input, why)| json!({"input": input, "why": why})).collect::<Vec<_>>(),
        }))
    } else {
        text(&found, page::width())
    };
    page::print(&text)?;
    let same = found.hosts.iter().all(|(_, drift)| drift.offers_the_same());
    Ok(match (skipped.is_empty(), same) {
        (false, _) => Done::InPart,
        (true, true) => Done::Same,
        (true, false) => Done::Different,
    })
}

/// The hosts of a collection by what they are called in both.
fn keyed(path: &Path, all: Vec<(String, bool, Kept)>) -> Result<BTreeMap<String, Kept>, Failure> {
    // A packed file keeps names as they were; below the folder that they share, they are what they would be there.
    let packed: Vec<&str> = all.iter().filter(|(_, packed, _)| *packed).map(|(name, ..)| name.as_str()).collect();
    let shared = shared_folder(&packed);
    let mut kept = BTreeMap::new();
    for (name, packed, host) in all {
        let name = key(if packed { &shared } else { path }, &name);
        if kept.insert(name.clone(), host).is_some() {
            return Err(format!("{}: two hosts are called {name}", path.display()).into());
        }
    }
    Ok(kept)
}

/// The folder that all of some files are below; of one, the file itself.
fn shared_folder(names: &[&str]) -> PathBuf {
    let mut names = names.iter().map(Path::new);
    let mut shared = names.next().map(Path::to_path_buf).unwrap_or_default();
    for name in names {
        while !name.starts_with(&shared) || name == shared {
            if !shared.pop() {
                break;
            }
        }
    }
    shared
}

/// What a host is called in both collections: its file below the folder, without the ending. Two files that were named
/// themselves are one host.
fn key(collection: &Path, name: &str) -> String {
    match Path::new(name).strip_prefix(collection) {
        Ok(below) if below != Path::new("") => below.with_extension("").display().to_string(),
        _ => match name.rsplit_once(':') {
            Some((_, line)) if line.bytes().all(|byte| byte.is_ascii_digit()) => format!("line {line}"),
            _ => "the host".to_owned(),
        },
    }
}

fn compare(old: &BTreeMap<String, Kept>, new: &BTreeMap<String, Kept>) -> Found {
    let lacking = |one: &BTreeMap<String, Kept>, other: &BTreeMap<String, Kept>| {
        one.keys().filter(|name| !other.contains_key(*name)).cloned().collect()
    };
    let both = old.iter().filter_map(|(name, before)| Some((name.clone(), drift(before, new.get(name)?))));
    Found { hosts: both.collect(), only_old: lacking(old, new), only_new: lacking(new, old) }
}

fn as_value(host: &str, drift: &Drift) -> Value {
    let changed = drift.changed.iter().map(|side| json!({"what": side.what, "old": side.old, "new": side.new}));
    json!({
        "host": host, "changed": changed.collect::<Vec<_>>(), "gained": drift.gained, "lost": drift.lost,
        "forth": drift.forth, "back": drift.back,
    })
}

fn text(found: &Found, width: usize) -> String {
    let mut page = String::new();
    let moved = found.hosts.iter().filter(|(_, drift)| !drift.offers_the_same()).count();
    let head = format!("{} of {} changed what guests may have.", moved, counted(found.hosts.len(), "host"));
    let _ = writeln!(page, "{}", styled(HEAD, head));
    for (host, drift) in found.hosts.iter().filter(|(_, drift)| !drift.changed.is_empty() || !drift.offers_the_same()) {
        let _ = writeln!(page, "\n{}", styled(HEAD, page::tame(host)));
        for Side { what, old, new } in &drift.changed {
            let shown = |text: &Option<String>| text.as_deref().map_or_else(|| "not seen".to_owned(), page::tame);
            page.push_str(&page::wrap(&format!("{what}: {} -> {}", shown(old), shown(new)), "  ", "    ", width));
        }
        for (sign, style, ids, what) in [
            ("+", GAINED, &drift.gained, "guests started with these cannot move back"),
            ("-", LOST, &drift.lost, "guests that have these cannot start or move here"),
        ] {
            if !ids.is_empty() {
                let first = format!("  {} ", styled(style, sign));
                page.push_str(&page::wrap(&format!("{} ({what})", ids.join(" ")), &first, "    ", width));
            }
        }
    }
    for (names, what) in [(&found.only_old, "in the old collection"), (&found.only_new, "in the new collection")] {
        if !names.is_empty() {
            let line = format!("{} {what} alone: {}", counted(names.len(), "host"), page::tame(&names.join(", ")));
            let _ = write!(page, "\n{}", page::wrap(&line, "", "  ", width));
        }
    }
    page
}
