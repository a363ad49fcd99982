//! Flags lost and gained, under the headings of their causes.

use std::fmt::Write as _;

use anstyle::Style;
use cpusieve_answers::diff::{Group, Item};
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
        let count = format!("{} {what}", members.len());
        let _ = writeln!(page, "\n{}  {}", styled(style.bold(), count), styled(HEAD, heading));
        if long { each(page, &members, style, width) } else { by_rule(page, &members, style, width) }
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

/// Flags of one rule and one remedy stand together, what is said of them beside them.
fn by_rule(page: &mut String, members: &[&Item], style: Style, width: usize) {
    let mut rest: Vec<&Item> = members.to_vec();
    while let Some(&first) = rest.first() {
        let (same, others): (Vec<&Item>, Vec<&Item>) = rest.iter().partition(|item| told_as_one(first, item));
        let flags: Vec<&str> = same.iter().map(|item| item.flag.as_str()).collect();
        let left = match width / 3 {
            ..20 => width - INDENT,
            third => third.min(WIDEST),
        };
        let flags = page::lines(&flags.join(" "), left);
        beside(page, &flags, &said(first, &remedy(&same), width, left), style, left, width);
        rest = others;
    }
}

/// Whether two flags share a paragraph: the same rule at the same sieve, and a remedy that is the same or can be joined.
fn told_as_one(first: &Item, item: &Item) -> bool {
    let joined = |item: &Item| added_to_model(item).is_some();
    (item.rule, item.at, &item.follows, item.confidence) == (first.rule, first.at, &first.follows, first.confidence)
        && (item.remedy == first.remedy || joined(item) && joined(first))
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

/// Columns before a flag.
const INDENT: usize = 2;
/// The widest column of flags.
const WIDEST: usize = 32;

/// What is said of one rule: its title, where it stands, how sure it is, and what brings the flag back.
fn said(item: &Item, remedy: &str, width: usize, left: usize) -> Vec<String> {
    let room = if left + INDENT >= width { width - 2 * INDENT } else { width - left - 2 * INDENT };
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

/// Two columns, or one below the other where the page is too narrow.
fn beside(page: &mut String, flags: &[String], said: &[String], style: Style, left: usize, width: usize) {
    let narrow = said.iter().any(|line| left + 2 * INDENT + page::columns(line) > width);
    if narrow {
        flags.iter().for_each(|line| {
            let _ = writeln!(page, "  {}", styled(style, line));
        });
        said.iter().for_each(|line| {
            let _ = writeln!(page, "    {line}");
        });
        return;
    }
    for row in 0..flags.len().max(said.len()) {
        let flag = flags.get(row).map_or("", String::as_str);
        let gap = " ".repeat(left.saturating_sub(page::columns(flag)) + INDENT);
        let line = format!("  {}{gap}{}", styled(style, flag), said.get(row).map_or("", String::as_str));
        let _ = writeln!(page, "{}", line.trim_end());
    }
}

fn explain(page: &mut String, item: &Item, width: usize) {
    page.push_str(&page::wrap(&item.cause, "    ", "    ", width));
    if !item.cite.0.is_empty() {
        let doubt = if item.confidence == Confidence::Certain { "" } else { item.confidence.name() };
        let at = format!("{}  {}  {doubt}", item.cite, item.rule);
        let _ = writeln!(page, "    {}", styled(QUIET, at.trim_end()));
    }
    page.push_str(&page::wrap(&item.remedy.text, "    > ", "      ", width));
}

/// Every flag by itself.
fn each(page: &mut String, members: &[&Item], style: Style, width: usize) {
    for item in members {
        let place = item.place.map_or_else(String::new, |place| format!("  {place}"));
        let _ = writeln!(page, "  {}{}", styled(style, &item.flag), styled(QUIET, place));
        explain(page, item, width);
        for evidence in item.steps.iter().flat_map(|step| &step.because) {
            let seen = format!("seen: {}: {}", evidence.source(), evidence.value());
            page.push_str(&styled(QUIET, page::wrap(&seen, "    ", "      ", width).trim_end()));
            page.push('\n');
        }
        for other in &item.others {
            let text = format!("or, at {}: {} ({}, {})", other.at, other.cause, other.cite, other.rule);
            page.push_str(&page::wrap(&text, "    ", "      ", width));
        }
    }
}
