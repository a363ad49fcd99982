//! Flags lost and gained, under the headings of their causes.

use std::fmt::Write as _;

use anstyle::Style;
use cpusieve_answers::diff::{Group, Item};
use cpusieve_answers::reason::Confidence;

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
        let _ = writeln!(page, "\n{}  {}", styled(HEAD, heading), styled(style, count));
        if long { each(page, &members, style, width) } else { by_rule(page, &members, style, width) }
    }
}

fn heading(group: Group, members: &[&Item]) -> String {
    match group {
        Group::ConstantLeaf => {
            let leaf = members.first().and_then(|item| item.place?.cpuid()).map_or(0, |bit| bit.leaf);
            format!("KVM answers leaf {leaf:X}H with a constant")
        }
        Group::MaskedAlways => "KVM masks it in every release".to_owned(),
        Group::Conditional => "KVM offers it in a later release, or under a condition".to_owned(),
        Group::QemuPolicy => "QEMU leaves it out".to_owned(),
        Group::GuestKernel => "The kernel that does not show it declines".to_owned(),
        Group::Follows => "It follows from another flag".to_owned(),
        Group::Naming => "The kernel that does not show it has no name for it".to_owned(),
        Group::Silicon => "The CPU does not have it".to_owned(),
        Group::Added => "Added on the way".to_owned(),
        Group::Unexplained => "Not explained".to_owned(),
    }
}

/// Flags of one rule and one remedy stand together.
fn by_rule(page: &mut String, members: &[&Item], style: Style, width: usize) {
    let mut rest: Vec<&Item> = members.to_vec();
    while let Some(&first) = rest.first() {
        let (same, others): (Vec<&Item>, Vec<&Item>) = rest.iter().partition(|item| {
            item.rule == first.rule && item.remedy == first.remedy && item.cause == first.cause && item.at == first.at
        });
        let flags: Vec<&str> = same.iter().map(|item| item.flag.as_str()).collect();
        page.push_str(&styled(style, page::wrap(&flags.join(" "), "  ", "  ", width).trim_end()));
        page.push('\n');
        explain(page, first, width);
        rest = others;
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
