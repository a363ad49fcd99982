//! `why` on what people paste: the causes, the worst first, and the remedy.

use cpusieve_answers::message::{Answer, Cause, Subject, explain};
use cpusieve_formats::message;
use cpusieve_knowledge::messages::{At, Severity, Spot};
use cpusieve_model::{Snapshot, Stage};
use cpusieve_stages::Machine;
use serde_json::{Value, json};

use super::{Done, Failure};
use crate::json;
use crate::page::{self, DOUBT, GAINED, HEAD, LOST, QUIET, columns, styled};

/// Line numbers that are told of one cause.
const MAX_LINES_TOLD: usize = 12;

pub(super) fn run(name: &str, bytes: &[u8], host: Option<&Snapshot>, as_json: bool) -> Result<Done, Failure> {
    let paste = message::parse(bytes);
    if paste.cut {
        page::warn(&format!("{name}: longer than what is read; the end was not looked at"));
    }
    let machine = host.map(|host| Machine::new("host", host));
    let answer = explain(&paste, machine.as_ref());
    if answer.causes.is_empty() {
        let count = page::counted(answer.lines, "line");
        return Err(page::tame(&format!(
            "{name}: nothing in it is known to be about CPU features ({count} read); a flag, a message of QEMU, libvirt, a kernel or a program, or an instruction's bytes was expected"
        ))
        .into());
    }
    if as_json {
        page::print(&json::pretty(&as_value(&answer)))?;
    } else {
        page::print(&text(&answer, page::width()))?;
    }
    Ok(Done::Same)
}

/// Whether a single word says something by itself.
pub(super) fn is_known(word: &str) -> bool {
    !explain(&message::parse(word.as_bytes()), None).causes.is_empty()
}

/// The stage, for people.
const fn stage(at: At) -> &'static str {
    match at {
        At::Silicon => "the silicon",
        At::Firmware => "the firmware",
        At::HostKernel => "the host's kernel",
        At::Kvm => "KVM",
        At::Qemu => "QEMU or its accelerator",
        At::Vmm => "the VMM or emulator",
        At::Libvirt => "libvirt",
        At::Management => "whoever chose the guest's CPU (management)",
        At::GuestKernel => "the guest's kernel",
        At::Userspace => "the program itself",
        At::ByFeature => "not known",
    }
}

fn style(severity: Severity) -> anstyle::Style {
    match severity {
        Severity::Fatal | Severity::Security => LOST,
        Severity::Migration | Severity::Performance => DOUBT,
        Severity::Harmless | Severity::ByFeature => GAINED,
    }
}

/// What a severity means.
const fn meaning(severity: Severity) -> &'static str {
    match severity {
        Severity::Fatal => "something does not start, or dies",
        Severity::Security => "a protection is missing",
        Severity::Migration => "a guest cannot be migrated or restored",
        Severity::Performance => "it costs speed",
        Severity::Harmless => "nothing that anybody would miss",
        Severity::ByFeature => "not known",
    }
}

fn text(answer: &Answer, width: usize) -> String {
    let severity = styled(style(answer.severity), answer.severity.name());
    let lines = page::counted(answer.lines, "line");
    let head = format!(
        "{severity} {}; likeliest stage: {}; {}",
        styled(QUIET, format!("({})", meaning(answer.severity))),
        styled(HEAD, stage(answer.stage)),
        styled(QUIET, format!("{lines} read, {} ignored", answer.ignored))
    );
    let mut out = page::wrap(&head, "", "  ", width);
    for cause in &answer.causes {
        out.push('\n');
        of_cause(&mut out, cause, width);
    }
    if let Some(xml) = &answer.libvirt {
        out.push('\n');
        out.push_str(&format!("{}\n", styled(QUIET, "  in libvirt's XML:")));
        xml.lines().for_each(|line| out.push_str(&format!("    {line}\n")));
    }
    if !answer.hints.is_empty() {
        out.push('\n');
        for hint in &answer.hints {
            out.push_str(&page::wrap(&page::tame(hint), "also: ", "  ", width));
        }
    }
    out
}

fn of_cause(out: &mut String, cause: &Cause, width: usize) {
    let names: Vec<&str> =
        cause.subjects.iter().map(|subject| subject.name.as_str()).filter(|name| !name.is_empty()).collect();
    let who =
        if names.is_empty() { String::new() } else { format!("{}: ", styled(HEAD, page::tame(&names.join(", ")))) };
    let head = format!("{} ", styled(style(cause.severity), cause.severity.name()));
    let title = format!(
        "{who}{} {}",
        page::tame(&cause.title),
        styled(QUIET, format!("[{}; {}]", stage(cause.stage), numbers(&cause.lines)))
    );
    out.push_str(&page::wrap(&title, &head, "  ", width));
    let longest = cause.subjects.iter().map(|subject| subject.name.len()).max().unwrap_or(0).min(24);
    for subject in &cause.subjects {
        of_subject(out, subject, longest, width);
    }
    let told = |spot: &&Spot| cause.subjects.iter().any(|subject| subject.spot == Some(**spot));
    let spots: Vec<String> = cause.spots.iter().filter(|spot| !told(spot)).map(ToString::to_string).collect();
    if !spots.is_empty() {
        out.push_str(&page::wrap(&styled(QUIET, spots.join("  ")), "  ", "  ", width));
    }
    out.push_str(&page::wrap(&page::tame(&cause.why.join(" ")), "  ", "  ", width));
    if let Some(cite) = cause.cite {
        out.push_str(&page::wrap(&styled(QUIET, format!("{cite} {}", cause.id)), "  ", "    ", width));
    }
    if !cause.remedy.is_empty() {
        out.push_str(&page::wrap(&page::tame(&cause.remedy), "  > ", "    ", width));
    }
    if let Some(cpu) = &cause.cpu {
        out.push_str(&page::wrap(&styled(HEAD, format!("-cpu {}", page::tame(cpu))), "  ", "    ", width));
    }
}

fn of_subject(out: &mut String, subject: &Subject, longest: usize, width: usize) {
    let place = subject.feature.and_then(|feature| feature.place()).filter(|_| subject.spot.is_some());
    let place =
        place.map(|place| place.to_string()).or_else(|| subject.spot.map(|spot| spot.to_string())).unwrap_or_default();
    let name = page::tame(&subject.name);
    let gap = " ".repeat(longest.saturating_sub(columns(&name)));
    let title = if place.is_empty() { subject.title.clone() } else { format!("{place}  {}", subject.title) };
    out.push_str(&page::wrap(&title, &format!("  {name}{gap}  "), "      ", width));
    let leaf = match subject.spot {
        Some(Spot::Cpuid { leaf, .. }) => format!("leaf {leaf:#x}"),
        Some(Spot::Msr { index, .. }) => format!("MSR {index:#x}"),
        _ => String::new(),
    };
    let more = [&leaf, &subject.since, &subject.names];
    let more: Vec<&str> = more.into_iter().filter(|text| !text.is_empty()).map(String::as_str).collect();
    if !more.is_empty() {
        out.push_str(&page::wrap(&styled(QUIET, more.join("; ")), "      ", "      ", width));
    }
    if let Some((at, why)) = &subject.on_host {
        out.push_str(&page::wrap(&page::tame(&format!("on this host, {at}: {why}")), "      ", "      ", width));
    }
}

/// `line 3`, `lines 1-5, 9`
fn numbers(lines: &[u32]) -> String {
    let mut sorted = lines.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for line in sorted {
        match parts.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(line) => *last = line,
            _ => parts.push((line, line)),
        }
    }
    let more = parts.len() > MAX_LINES_TOLD;
    let part = |&(first, last): &(u32, u32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    let told: Vec<String> = parts.iter().take(MAX_LINES_TOLD).map(part).collect();
    let word = if lines.len() == 1 { "line" } else { "lines" };
    format!("{word} {}{}", told.join(", "), if more { " ..." } else { "" })
}

fn as_value(answer: &Answer) -> Value {
    let cause = |cause: &Cause| {
        json!({
            "id": cause.id,
            "title": cause.title,
            "stage": cause.stage.name(),
            "severity": cause.severity.name(),
            "lines": cause.lines,
            "features": cause.subjects.iter().map(subject).collect::<Vec<_>>(),
            "bits": cause.spots.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "why": cause.why.join(" "),
            "remedy": cause.remedy,
            "cpu": cause.cpu,
            "cite": cause.cite,
        })
    };
    json!({
        "format": 1,
        "features": answer.features(),
        "bits": answer.bits(),
        "stage": answer.stage.name(),
        "severity": answer.severity.name(),
        "remedy": answer.remedy,
        "cpu": answer.cpu,
        "libvirt": answer.libvirt,
        "lines": answer.lines,
        "ignored": answer.ignored,
        "causes": answer.causes.iter().map(cause).collect::<Vec<_>>(),
        "hints": answer.hints,
    })
}

fn subject(subject: &Subject) -> Value {
    let on_host = subject.on_host.as_ref().map(|(at, why)| {
        // The words of the stages, where one of them took it.
        let at = Stage::ALL.iter().find(|stage| stage.name() == at).map_or(at.as_str(), |stage| stage.name());
        json!({"at": at, "why": why})
    });
    json!({
        "feature": subject.feature.map(|feature| feature.id),
        "name": subject.name,
        "bit": subject.spot.map(|spot| spot.to_string()),
        "title": subject.title,
        "since": subject.since,
        "names": subject.names,
        "on_host": on_host,
    })
}
