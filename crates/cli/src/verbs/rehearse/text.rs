//! The answer for people: what changes, what breaks, what keeps it as it is, and the commands at the end.

use std::fmt::Write as _;

use cpusieve_answers::predict::Assumption;
use cpusieve_answers::predict::way::NoWay;
use cpusieve_answers::reason::{self, Reason};
use cpusieve_answers::rehearse::{
    Cause, Change, Flags, OnGuest, OnHost, Order, Pinned, Rehearsal, Stack, Verdict, View, commands,
};
use cpusieve_knowledge::linux;
use cpusieve_model::Stage;

use crate::page::{self, DOUBT, GAINED, HEAD, LOST, QUIET, counted, styled};

/// How many names of a list are told; the JSON has them all.
const MOST_NAMES: usize = 24;
/// How many other registers are told.
const MOST_VALUES: usize = 8;
/// How many assumptions are told.
const MOST_ASSUMED: usize = 8;
/// Columns of the labels at the left.
const LABELS: usize = 14;

/// The answer.
pub(super) fn answer(found: &Rehearsal, long: bool, width: usize) -> String {
    let mut page = String::new();
    let guests: Vec<&OnGuest> = found.hosts.iter().flatten().flat_map(|host| &host.guests).collect();
    let moved = guests.iter().filter(|guest| !guest.stays()).count();
    let verdict = match moved {
        0 => styled(GAINED, "nothing changes for any guest"),
        moved => styled(LOST, format!("{moved} of {} will not be as before", counted(guests.len(), "guest"))),
    };
    let head = format!("{}: {verdict}", styled(HEAD, upgrade(found)));
    page.push_str(&page::wrap(&head, "", "  ", width));
    for host in found.hosts.iter().flatten() {
        on_host(&mut page, host, long, width);
    }
    assumed(&mut page, &guests, width);
    if let Some(order) = &found.order {
        in_order(&mut page, order, width);
    }
    typed(&mut page, found, width);
    page
}

/// `Linux 6.1 -> 6.18, QEMU 7.2 -> 10.0`
fn upgrade(found: &Rehearsal) -> String {
    let Rehearsal { before, after, .. } = found;
    let own = "the record's";
    let step = |what: &str, one: Option<&str>, other: Option<&str>| {
        (one != other).then(|| format!("{what} {} -> {}", one.unwrap_or(own), other.unwrap_or(own)))
    };
    let text = |side: fn(&Stack) -> &Option<String>| (side(before).as_deref(), side(after).as_deref());
    let (kernel, version, machine) =
        (text(|stack| &stack.kernel), text(|stack| &stack.vmm), text(|stack| &stack.machine));
    let hex = |revision: Option<u64>| revision.map(|revision| format!("{revision:#x}"));
    let (one, other) = (hex(before.microcode), hex(after.microcode));
    let mut parts: Vec<String> = [
        step("Linux", kernel.0, kernel.1),
        step(found.vmm, version.0, version.1),
        step("machine", machine.0, machine.1),
        step("microcode", one.as_deref(), other.as_deref()),
    ]
    .into_iter()
    .flatten()
    .collect();
    for (name, value) in &after.params {
        let was = before.params.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        parts.extend(step(name, was, Some(value)));
    }
    page::tame(&parts.join(", "))
}

fn on_host(page: &mut String, host: &OnHost, long: bool, width: usize) {
    let _ = writeln!(page, "\n{}", styled(HEAD, page::tame(&host.name)));
    let Flags { gained, lost, renamed } = &host.flags;
    let renamed: Vec<String> = renamed.iter().map(|(before, after)| format!("{before} is now {after}")).collect();
    let own = [(GAINED, "+", names(gained)), (LOST, "-", names(lost)), (QUIET, "=", renamed.join(", "))];
    for (style, sign, text) in own.into_iter().filter(|(_, _, text)| !text.is_empty()) {
        let first = format!("  {} its own /proc/cpuinfo: ", styled(style, sign));
        page.push_str(&page::wrap(&text, &first, "      ", width));
    }
    for doubt in &host.doubts {
        page.push_str(&page::wrap(&styled(DOUBT, doubt), "  ! ", "    ", width));
    }
    for guest in &host.guests {
        on_guest(page, guest, long, width);
    }
}

fn names<T: AsRef<str>>(all: &[T]) -> String {
    let told: Vec<&str> = all.iter().take(MOST_NAMES).map(AsRef::as_ref).collect();
    match all.len().saturating_sub(MOST_NAMES) {
        0 => told.join(" "),
        more => format!("{} and {more} more", told.join(" ")),
    }
}

fn on_guest(page: &mut String, guest: &OnGuest, long: bool, width: usize) {
    let of = &guest.guest;
    let machine =
        |view: &Result<View, NoWay>| view.as_ref().ok().and_then(|view| view.machine).map(|machine| machine.name);
    let machines = match (machine(&guest.before), machine(&guest.after)) {
        (Some(one), Some(other)) if one == other => format!(" on {one}"),
        (Some(one), Some(other)) => format!(" on {one}, after on {other}"),
        (Some(one), None) => format!(" on {one}"),
        _ => String::new(),
    };
    let cpu = if of.libvirt { format!("  -cpu {}", of.cpu()) } else { String::new() };
    let verdict = if guest.stays() { styled(GAINED, "stays as it is") } else { String::new() };
    let line =
        format!("{}{}{machines}  {verdict}", styled(HEAD, page::tame(&of.name)), styled(QUIET, page::tame(&cpu)));
    page.push_str(&page::wrap(&line, "\n  ", "    ", width));
    for note in &of.notes {
        page.push_str(&page::wrap(&styled(DOUBT, page::tame(note)), "    ! ", "      ", width));
    }
    changes(page, guest, long, width);
    let mut row = |label: &str, text: &str| {
        let first = format!("    {label:<LABELS$}");
        page.push_str(&page::wrap(text, &first, &" ".repeat(4 + LABELS), width));
    };
    if !guest.start_before.possible {
        row("starts now", &said(&guest.start_before));
    }
    if !guest.stays() || !guest.start.missing.is_empty() {
        row("starts again", &said(&guest.start));
    }
    if let Some(forth) = guest.forth.as_ref().filter(|_| !guest.stays()) {
        row("moves over", &said(forth));
    }
    if let Some(back) = guest.back.as_ref().filter(|_| !guest.stays()) {
        row("comes back", &said(back));
    }
    keeps(&mut row, guest);
}

/// Yes, or why not.
fn said(verdict: &Verdict) -> String {
    if !verdict.possible {
        return format!("{}: {}", styled(LOST, "no"), verdict.why.join("; "));
    }
    let mut more = Vec::new();
    if !verdict.extra.is_empty() {
        more.push(format!("its CPU gains {} while it runs", names(&verdict.extra)));
    }
    if !verdict.missing.is_empty() {
        more.push(format!("without {}, which it asks for", names(&verdict.missing)));
    }
    let more = if more.is_empty() { String::new() } else { format!("; {}", more.join("; ")) };
    format!("{}{more}", styled(GAINED, "yes"))
}

/// What keeps the CPU as it is.
fn keeps(row: &mut impl FnMut(&str, &str), guest: &OnGuest) {
    let Pinned { pins, template, same, before, left, forth, back, .. } = &guest.pinned;
    if guest.changes.is_empty() && guest.values.is_empty() && pins.is_empty() {
        return;
    }
    let all: Vec<String> = match template {
        Some(_) => vec![format!("a CPU template for {}", counted(pins.len(), "entry").replace("entrys", "entries"))],
        None => pins.iter().map(|pin| format!("{}={}", pin.name, pin.value)).collect(),
    };
    let old = if *before { "on the old software too" } else { "which the old software does not take" };
    let proven = match same {
        true => format!("proven: every register is as before, {old}"),
        false => {
            format!("proven: {} as before but the following, {old}", if *before { "all is" } else { "all else is" })
        }
    };
    if !all.is_empty() {
        row("kept by", &format!("{}  {}", styled(HEAD, all.join(" ")), styled(QUIET, proven)));
    }
    if !left.is_empty() {
        let lost: Vec<String> = left.iter().map(|place| format!("{place:#}")).collect();
        row("not kept", &styled(LOST, names(&lost)));
    }
    let Some(forth) = forth.as_ref().filter(|_| !all.is_empty()) else { return };
    let returns = back.as_ref().is_some_and(|back| back.possible);
    row(
        "started so",
        &match (forth.possible, returns) {
            (true, true) => format!("{} moves over and comes back", styled(GAINED, "it")),
            (true, false) => "it moves over, and does not come back".to_owned(),
            (false, _) => format!("it {} move over: {}", styled(LOST, "does not"), forth.why.join("; ")),
        },
    );
}

/// The changes, those of one reason together.
fn changes(page: &mut String, guest: &OnGuest, long: bool, width: usize) {
    let mut rest: Vec<&Change> = guest.changes.iter().collect();
    while let Some(&first) = rest.first() {
        let alike = |other: &&Change| {
            let rule = |change: &Change| change.telling().map(|(step, before)| (step.rule, before));
            (other.gained, other.at, other.cause, &other.since) == (first.gained, first.at, first.cause, &first.since)
                && rule(other) == rule(first)
        };
        let (group, others): (Vec<&Change>, Vec<&Change>) = rest.into_iter().partition(alike);
        rest = others;
        one_reason(page, guest, &group, long, width);
    }
    if !guest.values.is_empty() {
        let told = guest.values.iter().take(MOST_VALUES);
        let told: Vec<String> =
            told.map(|value| format!("{} {:#x} -> {:#x}", value.name(), value.before, value.after)).collect();
        let more = guest.values.len().saturating_sub(MOST_VALUES);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        page.push_str(&page::wrap(&format!("{}{more}", told.join(", ")), "    ~ ", "        ", width));
        let mut cites: Vec<&str> = guest.values.iter().filter_map(|value| Some(value.cite?.0)).collect();
        cites.sort_unstable();
        cites.dedup();
        if !cites.is_empty() {
            page.push_str(&page::wrap(&styled(QUIET, cites.join(", ")), "        ", "        ", width));
        }
    }
    let flags = [(GAINED, "+", names(&guest.flags.gained)), (LOST, "-", names(&guest.flags.lost))];
    for (style, sign, text) in flags.into_iter().filter(|(_, _, text)| !text.is_empty()) {
        let first = format!("    {} the guest's /proc/cpuinfo: ", styled(style, sign));
        page.push_str(&page::wrap(&text, &first, "        ", width));
    }
}

fn one_reason(page: &mut String, guest: &OnGuest, group: &[&Change], long: bool, width: usize) {
    let Some(first) = group.first() else { return };
    let (style, sign) = if first.gained { (GAINED, "+") } else { (LOST, "-") };
    let ids: Vec<String> = group.iter().map(|change| change.name()).collect();
    page.push_str(&page::wrap(&styled(HEAD, names(&ids)), &format!("    {} ", styled(style, sign)), "        ", width));
    let tree = guest.after.as_ref().ok().and_then(|view| view.tree).unwrap_or(linux::TREES.len() - 1);
    let mut why = vec![by(first)];
    let told = first.telling();
    let reason = told.map(|(step, _)| reason::of_step(step, tree));
    // What took a bit that is there now is a matter of the past.
    let until = told.filter(|(_, before)| *before);
    let until = until.map(|(step, _)| format!("until then {}: ", step.effect)).unwrap_or_default();
    let words = |reason: &Reason| format!("{until}{}", if long { &reason.cause } else { &reason.title });
    why.extend(reason.as_ref().map(words));
    let mut text = why.join("; ");
    if let Some(cite) = first.cite() {
        let rule = reason.map(|reason| reason.rule.0).unwrap_or_default();
        let _ = write!(text, "  {}", styled(QUIET, format!("{cite} {rule}").trim_end()));
    }
    page.push_str(&page::wrap(&text, "        ", "        ", width));
    if long {
        for (when, step) in [("before", &first.before), ("after", &first.after)] {
            if let Some(step) = step {
                let line = format!("{when}: {} at {} by {} {}", step.effect, step.at, step.rule, step.cite);
                page.push_str(&page::wrap(&styled(QUIET, line), "          ", "            ", width));
            }
        }
    }
}

/// Which part of the upgrade does it, at which sieve, since when.
fn by(change: &Change) -> String {
    let part = match (change.cause, change.at) {
        (Cause::Host, Stage::Kvm) => "by the host's KVM".to_owned(),
        (Cause::Host, _) => "by the host's side, through the VMM".to_owned(),
        (Cause::Vmm, _) => "by the VMM".to_owned(),
        (Cause::Both, _) => "by kernel and VMM together".to_owned(),
        (Cause::Either, _) => "by kernel or VMM, each alone".to_owned(),
        (Cause::Machine, _) => "by the newer machine type".to_owned(),
    };
    match &change.since {
        Some(since) => format!("{part}, since {} ({} is as before)", since.with, since.without),
        None => part,
    }
}

/// What was assumed of any guest, each once.
fn assumed(page: &mut String, guests: &[&OnGuest], width: usize) {
    let mut all: Vec<String> = Vec::new();
    let software = ["host kernel", "QEMU", "Firecracker", "Cloud Hypervisor", "-machine", "guest kernel"];
    let mut each: Vec<&Assumption> = guests.iter().flat_map(|guest| &guest.assumed).collect();
    // Stable: the software first, for all else hangs on it.
    each.sort_by_key(|assumed| !software.contains(&assumed.what.as_str()));
    for assumed in each {
        let text = format!("{} = {}", assumed.what, assumed.value);
        if !all.contains(&text) {
            all.push(text);
        }
    }
    if all.is_empty() {
        return;
    }
    let _ = writeln!(page, "\n{}", styled(HEAD, format!("assumed ({})", all.len())));
    let told = all.iter().take(MOST_ASSUMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = all.len().saturating_sub(MOST_ASSUMED);
    let told = if more > 0 { format!("{told} and {more} more") } else { told };
    page.push_str(&page::wrap(&page::tame(&told), "  ", "  ", width));
    page.push_str(&page::wrap(&styled(QUIET, "--json says why, and what hangs on each"), "  ", "  ", width));
}

fn in_order(page: &mut String, order: &Order, width: usize) {
    let _ = writeln!(page, "\n{}", styled(HEAD, "Order"));
    for (number, place) in order.hosts.iter().enumerate() {
        let takes = format!("once upgraded it takes {} of {} of other hosts", place.takes, counted(place.of, "guest"));
        let stuck = match place.stuck.as_slice() {
            [] => String::new(),
            stuck => format!("; as the first, nowhere to go for {}", names(stuck)),
        };
        let text = format!("{}  {}{}", styled(HEAD, page::tame(&place.host)), takes, page::tame(&stuck));
        page.push_str(&page::wrap(&text, &format!("  {:<3}", number + 1), "     ", width));
    }
}

fn typed(page: &mut String, found: &Rehearsal, width: usize) {
    let all = commands(found);
    if !all.is_empty() {
        let _ = writeln!(page, "\n{}", styled(HEAD, "Commands"));
    }
    let mut phase = None;
    for command in &all {
        if phase != Some(command.phase) {
            phase = Some(command.phase);
            let _ = writeln!(page, "  {}", styled(QUIET, format!("# {}", command.phase.name())));
        }
        page.push_str(&page::wrap(&styled(QUIET, page::tame(&command.what)), "  # ", "  #   ", width));
        for line in &command.lines {
            // Never broken: it is there to be copied.
            let _ = writeln!(page, "  {}", page::tame(line));
        }
    }
}
