//! The answer for people: first what is to be pasted, then what it gives up.

use std::fmt::Write as _;

use cpusieve_answers::want::change::{Change, Disturbance};
use cpusieve_answers::want::{Answer, Hindrance, Price, Solution, Wish};
use cpusieve_knowledge::{linux, qemu::RELEASES};

use super::paste::is_elsewhere;
use super::qemu::changed;
use crate::page::{self, GAINED, HEAD, LOST, QUIET, styled};
use crate::worth::Worths;

/// How many flags of a list are told; the JSON has them all.
const MOST_FLAGS: usize = 16;
/// Columns of the labels at the left.
const LABELS: usize = 13;

/// The answer.
pub(super) fn answer(answer: &Answer, wishes: &[Wish], worths: &Worths, width: usize) -> String {
    let mut page = String::new();
    let names: Vec<String> = wishes.iter().map(|wish| styled(HEAD, signed(wish))).collect();
    let verdict = match (answer.nothing_to_do(), answer.solutions.len()) {
        (true, _) => styled(GAINED, "nothing to do: the guest is so"),
        (false, 0) => styled(LOST, "it cannot be had"),
        (false, 1) => styled(GAINED, "there is one way"),
        (false, ways) => styled(GAINED, format!("{ways} ways, the smallest change first")),
    };
    page.push_str(&page::wrap(&format!("{}: {verdict}", names.join(" ")), "", "  ", width));
    page.push_str(&page::wrap(&styled(QUIET, start(answer)), "  ", "  ", width));
    if let Some(line) = worths.line(wishes.iter().map(|wish| wish.feature.id)) {
        page.push_str(&page::wrap(&line, "  worth: ", "         ", width));
    }
    for (number, solution) in answer.solutions.iter().enumerate() {
        page.push('\n');
        one(&mut page, number + 1, solution, wishes, width);
    }
    for hindrance in &answer.hindrances {
        page.push('\n');
        why_not(&mut page, hindrance, width);
    }
    let doubts = [
        (
            answer.doubted,
            "This host's own KVM answers otherwise than its release would: what changes below QEMU would do, nobody can say.",
        ),
        (answer.ended_early, "The search was ended before all was tried: there may be another way."),
    ];
    for (_, doubt) in doubts.iter().filter(|(holds, _)| *holds) {
        page.push_str(&page::wrap(&styled(QUIET, doubt), "\n", "  ", width));
    }
    page
}

/// `avx2`, or `no avx2`.
fn signed(wish: &Wish) -> String {
    format!("{}{}", if wish.present { "" } else { "no " }, wish.feature.id)
}

/// How the guest is started now.
fn start(answer: &Answer) -> String {
    let vcpu = &answer.start.vcpu;
    let release = RELEASES.get(vcpu.release).map_or("", |release| release.label);
    let label = |tree: usize| linux::TREES.get(tree).map_or("", |tree| tree.label);
    let host = vcpu.kvm.as_ref().map(|kvm| format!(" on Linux {}", label(kvm.host.tree))).unwrap_or_default();
    let guest = label(answer.start.guest.tree);
    format!(
        "now: QEMU {release}{host}, -machine {}, -cpu {}, Linux {guest} in the guest",
        vcpu.machine.name,
        page::tame(&vcpu.cpu)
    )
}

fn one(page: &mut String, number: usize, solution: &Solution, wishes: &[Wish], width: usize) {
    let command = changed(&solution.settings, &solution.changes);
    let elsewhere = solution.changes.iter().filter(|change| is_elsewhere(change));
    let mut lines: Vec<String> = elsewhere.map(ToString::to_string).collect();
    if !command.is_empty() {
        lines.insert(0, page::tame(&command));
    }
    for (index, line) in lines.iter().enumerate() {
        let first = if index == 0 { format!("{:<3}", number) } else { "   ".to_owned() };
        // Never broken: it is there to be copied.
        let _ = writeln!(page, "{first}{}", styled(HEAD, line));
    }
    let mut row = |label: &str, text: &str| {
        let first = format!("   {label:<LABELS$}");
        page.push_str(&page::wrap(text, &first, &" ".repeat(3 + LABELS), width));
    };
    if solution.disturbance != Disturbance::Upgrade {
        row("then", solution.disturbance.title());
    }
    for change in &solution.supposed {
        if let Change::Param { name, value } = change {
            row("supposed", &format!("{name} is not {value} now: nobody saw it, but KVM's own answer looks so"));
        }
    }
    for (label, text) in sacrifices(&solution.price) {
        row(label, &text);
    }
    let wanted = |flag: &&&str| !wishes.iter().any(|wish| wish.present && wish.feature.id == **flag);
    let more: Vec<&str> = solution.price.gained.iter().filter(wanted).copied().collect();
    if !more.is_empty() {
        row("also gains", &some(&more));
    }
}

/// What a solution gives up, under labels.
pub(super) fn sacrifices(price: &Price) -> Vec<(&'static str, String)> {
    let mut rows: Vec<(&'static str, String)> = Vec::new();
    rows.extend(price.migration.iter().map(|text| ("migration", text.clone())));
    rows.extend(price.safety.iter().map(|text| ("safety", text.clone())));
    if !price.lost.is_empty() {
        rows.push(("loses", some(&price.lost)));
    }
    rows.extend(price.notes.iter().map(|text| ("note", text.clone())));
    if let Some(first) = price.warnings.first() {
        let more = price.warnings.len() - 1;
        let more = if more > 0 { format!(" (and {} more)", page::counted(more, "line")) } else { String::new() };
        rows.push(("QEMU warns", format!("{}{more}", page::tame(first.strip_prefix("warning: ").unwrap_or(first)))));
    }
    rows
}

/// The first flags of a list, and how many more there are.
fn some(flags: &[&str]) -> String {
    let told = flags.iter().take(MOST_FLAGS).copied().collect::<Vec<_>>().join(" ");
    match flags.len().saturating_sub(MOST_FLAGS) {
        0 => told,
        more => format!("{told} and {more} more"),
    }
}

fn why_not(page: &mut String, hindrance: &Hindrance, width: usize) {
    let at = hindrance.at.map(|stage| format!("  {}", stage.name())).unwrap_or_default();
    let needs = hindrance.needs.as_ref().map(|needs| format!(" needs {needs}")).unwrap_or_default();
    let _ = writeln!(page, "{}{needs}{}", styled(LOST, signed(&hindrance.wish)), styled(QUIET, at));
    page.push_str(&page::wrap(&hindrance.reason.cause, "  ", "  ", width));
    if !hindrance.reason.cite.0.is_empty() {
        let source = format!("{} {}", hindrance.reason.cite, hindrance.reason.rule);
        page.push_str(&page::wrap(&styled(QUIET, source), "  ", "    ", width));
    }
    if !hindrance.generations.is_empty() {
        page.push_str(&page::wrap(&hindrance.generations.join(", "), "  CPUs that all have it: ", "    ", width));
    }
    page.push_str(&page::wrap(&hindrance.reason.remedy.text, "  > ", "    ", width));
}
