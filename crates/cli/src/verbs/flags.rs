//! Flags lost and gained, under the headings of their causes.

use std::fmt::Write as _;

use anstyle::Style;
use cpusieve_answers::diff::{Assumption, Group, Item};
use cpusieve_answers::reason::Confidence;
use cpusieve_knowledge::rules::RemedyKind;

use crate::page::{self, GAINED, HEAD, LOST, QUIET, styled};

/// Which side of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The first end shows them, the second does not.
    Lost,
    /// The second end shows them, the first does not.
    Gained,
}

/// What an answer rests on, in a line.
pub(super) fn assumed(assumed: &[Assumption]) -> String {
    let each = assumed.iter().map(|assumed| format!("{} {}", assumed.what, assumed.value));
    page::tame(&each.collect::<Vec<_>>().join(", "))
}

/// All items of one side, under the headings of their causes.
pub(super) fn side(page: &mut String, items: &[Item], side: Side, long: bool, width: usize) {
    let mut groups: Vec<Group> = items.iter().map(|item| item.group).collect();
    groups.sort_unstable();
    groups.dedup();
    for group in groups {
        let members: Vec<&Item> = items.iter().filter(|item| item.group == group).collect();
        let (what, style) = match side {
            Side::Lost => ("lost", LOST),
            Side::Gained => ("gained", GAINED),
        };
        let heading = heading(group, &members);
        let count = format!("{}  ", styled(style.bold(), format!("{} {what}", members.len())));
        page.push('\n');
        page.push_str(&page::wrap(&styled(HEAD, heading), &count, "  ", width));
        for paragraph in paragraphs(members, long) {
            if long { at_length(page, &paragraph, style, width) } else { in_short(page, &paragraph, style, width) }
        }
    }
}

fn heading(group: Group, members: &[&Item]) -> String {
    match group {
        Group::ConstantLeaf => {
            let leaf = members.first().and_then(|item| item.place?.cpuid()).map_or(0, |bit| bit.leaf);
            format!("to KVM's constant answer for leaf {leaf:X}H: nothing brings these back")
        }
        Group::MaskedAlways => "masked by KVM in every release: nothing brings these back".to_owned(),
        Group::Conditional => "that KVM offers in a later release, or under a condition".to_owned(),
        Group::OwnAnswer => "that this KVM does not offer, for reasons of its own".to_owned(),
        Group::QemuPolicy => "left out by QEMU".to_owned(),
        Group::GuestKernel => "declined by the kernel that does not show them".to_owned(),
        Group::Follows => "because another flag is".to_owned(),
        Group::Naming => "without a name in the kernel that does not show them".to_owned(),
        Group::Silicon => "that the CPU does not have".to_owned(),
        Group::Added => "added on the way".to_owned(),
        Group::Unexplained => "not explained".to_owned(),
    }
}

/// Flags of which the same is to be said stand together: what is said at length, or what is said in short.
fn paragraphs(mut rest: Vec<&Item>, long: bool) -> Vec<Vec<&Item>> {
    let mut paragraphs = Vec::new();
    while let Some(&first) = rest.first() {
        let as_long = |item: &Item| (&item.cause, &item.others) == (&first.cause, &first.others);
        let together = |item: &&Item| told_as_one(first, item) && (!long || as_long(item));
        let (same, others) = rest.into_iter().partition(together);
        paragraphs.push(same);
        rest = others;
    }
    paragraphs
}

/// Whether two flags share a paragraph: the same rule at the same sieve, and a remedy that is the same or can be joined.
fn told_as_one(first: &Item, item: &Item) -> bool {
    let (joinable, with) = (joined(item), joined(first));
    (item.rule, item.at, &item.follows, item.confidence) == (first.rule, first.at, &first.follows, first.confidence)
        && (item.remedy == first.remedy || joinable.is_some() && joinable == with)
}

/// With which remedies this one can be joined: those for the same model that add as it does, or remove.
fn joined(item: &Item) -> Option<(&str, bool)> {
    added_to_model(item).map(|(model, change)| (model, change.starts_with('+')))
}

/// The `+NAME` or `-NAME` of a remedy of the form `MODEL,+NAME` or `host,-NAME`.
fn added_to_model(item: &Item) -> Option<(&str, &str)> {
    let (model, change) = item.remedy.cpu.as_deref()?.split_once(',')?;
    (change.starts_with(['+', '-']) && !change.contains(',')).then_some((model, change))
}

/// The remedy of flags that share a paragraph.
fn remedy(items: &[&Item]) -> String {
    let Some(first) = items.first() else { return String::new() };
    let changes: Option<Vec<(&str, &str)>> = items.iter().map(|item| added_to_model(item)).collect();
    let changes = changes.filter(|changes| changes.len() > 1);
    match (changes, added_to_model(first)) {
        (Some(changes), Some((model, change))) => {
            let list: Vec<&str> = changes.iter().map(|(_, change)| *change).collect();
            let tail = if change.starts_with('+') { ", or -cpu host" } else { " removes them" };
            format!("-cpu {model},{}{tail}", list.join(","))
        }
        _ => first.remedy.text.clone(),
    }
}

/// The flags, and beside them in short what is said of them; below them if the page or the flags' column is too narrow.
fn in_short(page: &mut String, items: &[&Item], style: Style, width: usize) {
    let Some(first) = items.first() else { return };
    let flags: Vec<&str> = items.iter().map(|item| item.flag.as_str()).collect();
    let (flags, remedy) = (flags.join(" "), remedy(items));
    let left = (width / 3).min(WIDEST);
    let room = width.saturating_sub(left + 2 * INDENT);
    let (beside, column) = (said(first, &remedy, room), page::lines(&flags, left));
    let fits = |lines: &[String], room| lines.iter().all(|line| page::columns(line) <= room);
    if left >= NARROWEST && fits(&beside, room) && fits(&column, left) {
        return two_columns(page, &column, &beside, style, left);
    }
    for line in page::lines(&flags, width - INDENT) {
        let _ = writeln!(page, "  {}", styled(style, line));
    }
    for line in said(first, &remedy, width - 2 * INDENT) {
        let _ = writeln!(page, "    {line}");
    }
}

/// Columns before a flag.
const INDENT: usize = 2;
/// The narrowest and the widest column of flags.
const NARROWEST: usize = 20;
const WIDEST: usize = 32;

/// What is said of one rule, in lines of at most `room` columns: its title, where it stands, how sure it is, and what
/// brings the flag back.
fn said(item: &Item, remedy: &str, room: usize) -> Vec<String> {
    let follows = item.follows.as_ref().map_or_else(String::new, |flag| format!("follows from {flag}: "));
    let mut said = page::lines(&format!("{follows}{}", item.title), room);
    if !item.cite.0.is_empty() {
        let doubt = if item.confidence == Confidence::Certain { "" } else { item.confidence.name() };
        let line = format!("{} {} {doubt}", item.cite.function(), item.rule);
        said.extend(page::lines(&line, room).iter().map(|line| styled(QUIET, line)));
    }
    if item.remedy.kind != RemedyKind::None {
        let remedy = page::lines(remedy, room.saturating_sub(2));
        said.extend(
            remedy.iter().enumerate().map(|(index, line)| format!("{} {line}", if index == 0 { ">" } else { " " })),
        );
    }
    said
}

fn two_columns(page: &mut String, flags: &[String], said: &[String], style: Style, left: usize) {
    for row in 0..flags.len().max(said.len()) {
        let flag = flags.get(row).map_or("", String::as_str);
        let gap = " ".repeat(left.saturating_sub(page::columns(flag)) + INDENT);
        let line = format!("  {}{gap}{}", styled(style, flag), said.get(row).map_or("", String::as_str));
        let _ = writeln!(page, "{}", line.trim_end());
    }
}

/// Every flag with its bit; below them the cause, the remedy, what was seen, and what else may be the cause.
fn at_length(page: &mut String, items: &[&Item], style: Style, width: usize) {
    let Some(first) = items.first() else { return };
    let longest = items.iter().map(|item| page::columns(&item.flag)).max().unwrap_or(0);
    for item in items {
        let gap = " ".repeat(longest - page::columns(&item.flag));
        let place = item.place.map_or_else(String::new, |place| format!("{gap}  {place}"));
        let _ = writeln!(page, "  {}{}", styled(style, &item.flag), styled(QUIET, place));
    }
    page.push_str(&page::wrap(&first.cause, "    ", "    ", width));
    if !first.cite.0.is_empty() {
        page.push_str(&page::wrap(&source(first), "    ", "      ", width));
    }
    page.push_str(&page::wrap(&remedy(items), "    > ", "      ", width));
    let mut seen: Vec<(String, Vec<String>)> = Vec::new();
    for evidence in items.iter().flat_map(|item| &item.steps).flat_map(|step| &step.because) {
        let (source, value) = (evidence.source(), evidence.value());
        match seen.iter_mut().find(|(known, _)| *known == source) {
            Some((_, values)) if values.contains(&value) => {}
            Some((_, values)) => values.push(value),
            None => seen.push((source, vec![value])),
        }
    }
    for (source, values) in &seen {
        page.push_str(&page::seen(source, values, 4, width));
    }
    for other in &first.others {
        let text = format!("or, at {}: {} ({}, {})", other.at, other.cause, other.cite, other.rule);
        page.push_str(&page::wrap(&text, "    ", "      ", width));
    }
}

/// Where a rule stands, and how sure it is that it was this one.
fn source(item: &Item) -> String {
    let doubt = if item.confidence == Confidence::Certain { "" } else { item.confidence.name() };
    styled(QUIET, format!("{} {} {doubt}", item.cite, item.rule).trim_end())
}
