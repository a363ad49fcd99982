//! `why FLAG`: one feature through every sieve; `why ERROR`: what a paste means.

mod message;

use std::fmt::Write as _;
use std::path::Path;

use cpusieve_answers::why::{self, Why};
use cpusieve_answers::{name, reason::Reason};
use cpusieve_knowledge::linux::NamingRule;
use cpusieve_knowledge::x86::{self, Feature};
use cpusieve_knowledge::{TreeSet, linux, own};
use cpusieve_model::{Effect, Snapshot, State, Step};
use cpusieve_stages::Machine;
use serde_json::{Value, json};

use super::{Done, Failure};
use crate::args::WhyOptions;
use crate::page::{self, GAINED, HEAD, LOST, QUIET, columns, styled};
use crate::{input, json};

pub(crate) fn run(options: &WhyOptions, as_json: bool) -> Result<Done, Failure> {
    let host = options.host.as_deref().map(input::read).transpose()?;
    match asked(options)? {
        Asked::Flags(flags) => {
            let guest = options.guest.as_deref().map(input::read).transpose()?;
            of_flags(&flags, host.as_ref(), guest.as_ref(), as_json)
        }
        Asked::Paste(name, bytes) => message::run(&name, &bytes, host.as_ref(), as_json),
    }
}

/// What is asked about.
enum Asked {
    Flags(Vec<String>),
    /// A paste: what it is called, and its bytes.
    Paste(String, Vec<u8>),
}

fn asked(options: &WhyOptions) -> Result<Asked, Failure> {
    let file = |path: &Path| -> Result<Asked, Failure> {
        let name = input::name(path);
        Ok(Asked::Paste(name.clone(), input::bytes(path, &name)?))
    };
    if let Some(path) = &options.file {
        return file(path);
    }
    let is_flag = |thing: &String| !x86::resolve(thing).is_empty();
    if options.things.iter().all(is_flag) {
        return Ok(Asked::Flags(options.things.clone()));
    }
    if let [thing] = &options.things[..] {
        let path = Path::new(thing);
        if thing == "-" {
            return Ok(match file(path)? {
                Asked::Paste(_, bytes) if one_flag(&bytes).is_some() => {
                    Asked::Flags(one_flag(&bytes).into_iter().collect())
                }
                other => other,
            });
        }
        if path.is_file() {
            return file(path);
        }
        if !thing.contains(char::is_whitespace) && !message::is_known(thing) {
            return Ok(Asked::Flags(vec![thing.clone()]));
        }
    }
    let lines = options.things.iter().any(|thing| thing.contains(char::is_whitespace));
    Ok(Asked::Paste("the argument".to_owned(), options.things.join(if lines { "\n" } else { " " }).into_bytes()))
}

/// The flag that an input consists of.
fn one_flag(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    (text.len() <= 80 && !text.contains(char::is_whitespace) && !x86::resolve(text).is_empty()).then(|| text.to_owned())
}

fn of_flags(
    flags: &[String],
    host: Option<&Snapshot>,
    guest: Option<&Snapshot>,
    as_json: bool,
) -> Result<Done, Failure> {
    let mut answers = Vec::new();
    let mut pages = Vec::new();
    let width = page::width();
    for flag in flags {
        let (features, namesakes) = super::name::called(flag)?;
        let found: Vec<Why> = features.iter().map(|feature| answer(feature, host, guest)).collect();
        pages.extend(found.iter().map(|answer| text(answer, width)));
        answers.extend(found.iter().map(as_value));
        if let Some(last) = pages.last_mut() {
            last.push_str(&super::name::also_called(flag, &namesakes, width));
        }
    }
    if as_json {
        page::print(&json::pretty(&json!({"format": 1, "answers": answers})))?;
    } else {
        page::print(&pages.join("\n"))?;
    }
    Ok(Done::Same)
}

fn answer(feature: &'static Feature, host: Option<&Snapshot>, guest: Option<&Snapshot>) -> Why {
    let Some(host) = host else { return why::in_general(feature) };
    let host = Machine::new("host", host);
    let guest = guest.map(|guest| Machine::new("guest", guest));
    why::on(&host, guest.as_ref(), feature)
}

fn text(why: &Why, width: usize) -> String {
    let mut page = String::new();
    let place = why.passage.place.map_or_else(String::new, |place| format!("  {place}"));
    let head = format!("{}{}  ", styled(HEAD, why.feature.id), styled(QUIET, place));
    page.push_str(&page::wrap(why.feature.title, &head, "  ", width));
    visibility(&mut page, why.feature, width);
    if !why.over_time.is_empty() {
        let heading = "On a host that has it, -cpu host, newest QEMU and guest kernel; by the host's kernel:";
        page.push('\n');
        page.push_str(&page::wrap(heading, "", "", width));
        for era in &why.over_time {
            let kernels = format!("  {:<16} ", span(era.trees));
            page.push_str(&page::wrap(&outcome(era.outcome, era.reason.as_ref()), &kernels, "    ", width));
            explain(&mut page, era.reason.as_ref(), width);
        }
        return page;
    }
    page.push('\n');
    for step in &why.passage.steps {
        way(&mut page, step, width);
    }
    page.push_str(&page::wrap(&outcome(why.passage.outcome, why.reason.as_ref()), "  outcome  ", "    ", width));
    if let Some(follows) = &why.passage.follows {
        let _ = writeln!(page, "    It follows from {follows}.");
    }
    explain(&mut page, why.reason.as_ref(), width);
    page
}

/// Whether kernels print it, by release, and what they print because of it.
fn visibility(page: &mut String, feature: &'static Feature, width: usize) {
    let card = name::card(feature);
    for row in &card.linux {
        let (word, bit) = row.position;
        let mut line = |trees: TreeSet, shown: String| {
            let line = format!("X86_FEATURE_{} ({word}*32+{bit}), Linux {}: {shown}", row.macro_name, span(trees));
            page.push_str(&page::wrap(&line, "  ", "    ", width));
        };
        match row.shown {
            Some(shown) => line(row.trees, format!("printed as {shown}")),
            None => hidden(row.trees).for_each(|(trees, why)| line(trees, format!("hidden: {why}"))),
        }
    }
    if !card.causes.is_empty() {
        page.push_str(&page::wrap(&card.causes.join(" "), "  Because of it Linux sets: ", "    ", width));
    }
}

/// Why `mkcapflags.sh` gives a macro no name, by the two rules that it had.
fn hidden(trees: TreeSet) -> impl Iterator<Item = (TreeSet, &'static str)> {
    let rules = [
        (
            NamingRule::MacroUnlessQuoted,
            "its line in cpufeatures.h quotes an empty name, which mkcapflags.sh leaves out",
        ),
        (
            NamingRule::HiddenUnlessQuoted,
            "its line in cpufeatures.h quotes no name, and mkcapflags.sh prints only quoted ones",
        ),
    ];
    let of =
        move |rule| trees.iter().filter(|&tree| linux::TREES[tree].naming == rule).fold(0, |set, tree| set | 1 << tree);
    rules.into_iter().map(move |(rule, why)| (TreeSet(of(rule)), why)).filter(|(trees, _)| !trees.is_empty())
}

/// From this width on, a file and a function have room beside the stage and what it did.
const ROOMY: usize = 72;

fn way(page: &mut String, step: &Step, width: usize) {
    let style = match step.effect {
        Effect::Dropped => LOST,
        Effect::Added | Effect::Forced => GAINED,
        Effect::Kept | Effect::Unknown => anstyle::Style::new(),
    };
    let what = if step.rule.0.is_empty() { String::new() } else { format!("{} {}", step.cite, step.rule) };
    let name = step.effect.name();
    // Blanks stand outside the style, so that they can be cut off at the end of a line.
    let gap = " ".repeat(9_usize.saturating_sub(columns(name)));
    let head = format!("  {:<8} {}{gap}", step.at.name(), styled(style, name));
    let indent = if width < ROOMY { 4 } else { columns(&head) };
    page.push_str(&page::wrap(&styled(QUIET, what), &head, &" ".repeat(indent), width));
    for evidence in &step.because {
        page.push_str(&page::seen(&evidence.source(), &[evidence.value()], indent, width));
    }
}

fn outcome(outcome: State, reason: Option<&Reason>) -> String {
    match (outcome.known(), reason) {
        (Some(true), _) => styled(GAINED, "the guest shows it"),
        (Some(false), _) => styled(LOST, "the guest does not show it"),
        (None, Some(_)) => "it depends".to_owned(),
        (None, None) => "not known".to_owned(),
    }
}

fn explain(page: &mut String, reason: Option<&Reason>, width: usize) {
    let Some(reason) = reason else { return };
    page.push_str(&page::wrap(&reason.cause, "    ", "    ", width));
    if !reason.cite.0.is_empty() {
        let source = styled(QUIET, format!("{} {}", reason.cite, reason.rule));
        page.push_str(&page::wrap(&source, "    ", "      ", width));
    }
    page.push_str(&page::wrap(&reason.remedy.text, "    > ", "      ", width));
}

/// Kernel trees, by their labels.
pub(super) fn labels(trees: TreeSet) -> Vec<&'static str> {
    trees.iter().filter_map(|tree| linux::TREES.get(tree)).map(|tree| tree.label).collect()
}

/// Kernel trees, as ranges.
pub(super) fn span(trees: TreeSet) -> String {
    let label = |tree: usize| linux::TREES[tree].label;
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for tree in trees.iter().filter(|&tree| linux::TREES.get(tree).is_some()) {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == tree && !own::is_own(tree) => *last = tree,
            _ => parts.push((tree, tree)),
        }
    }
    let part = |&(first, last): &(usize, usize)| {
        if first == last { label(first).to_owned() } else { format!("{} to {}", label(first), label(last)) }
    };
    parts.iter().map(part).collect::<Vec<_>>().join(", ")
}

fn as_value(why: &Why) -> Value {
    let reason = |reason: &Option<Reason>| {
        reason.as_ref().map(|reason| {
            json!({"rule": reason.rule.0, "title": reason.title, "cause": reason.cause, "cite": reason.cite.0,
                "remedy": json::remedy(&reason.remedy)})
        })
    };
    let eras = why
        .over_time
        .iter()
        .map(|era| json!({"kernels": labels(era.trees), "outcome": era.outcome.name(), "reason": reason(&era.reason)}));
    json!({
        "feature": why.feature.id,
        "title": why.feature.title,
        "bit": why.passage.place.map(|place| place.to_string()),
        "outcome": why.passage.outcome.name(),
        "follows": why.passage.follows,
        "reason": reason(&why.reason),
        "kernels": eras.collect::<Vec<_>>(),
        "steps": why.passage.steps.iter().map(json::step).collect::<Vec<_>>(),
    })
}
