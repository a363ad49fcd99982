//! `predict --until kvm`: what KVM offers, register by register.

use std::fmt::Write as _;

use cpusieve_answers::predict::kvm::{KvmPrediction, Question, predict};
use cpusieve_answers::reason;
use cpusieve_model::{Effect, KvmCpuidEntry, Snapshot, Stage, has_subleaves};
use serde_json::{Value, json};

use super::{assumed_text, assumptions, label, lines, with_steps, words};
use crate::args::PredictOptions;
use crate::input;
use crate::json::layout::Layout;
use crate::page::{self, HEAD, QUIET, styled};
use crate::verbs::{Done, Failure};

pub(super) fn run(
    options: &PredictOptions,
    snapshot: &Snapshot,
    question: &Question<'_>,
    as_json: bool,
) -> Result<Done, Failure> {
    let found = predict(snapshot, question).map_err(|refusal| format!("{}: {refusal}", input::name(&options.input)))?;
    page::print(&if as_json { as_text(&found) } else { text(&found, page::width()) })?;
    Ok(if found.view.supported.is_some() { Done::Same } else { Done::InPart })
}

pub(super) fn as_text(found: &KvmPrediction) -> String {
    let head = |json: &mut Layout<'_>| {
        json.key("format").value(&json!(1));
        json.key("assumed").value(&assumptions(&found.assumed));
        json.key("odd").list(|json| words(json, &found.host.odd));
        offer(json, found);
    };
    with_steps(head, found.host.boot.steps.iter().chain(&found.steps))
}

/// What is odd about a host, what its kernel prints, and what its KVM offers, as JSON.
pub(super) fn offer(json: &mut Layout<'_>, found: &KvmPrediction) {
    json.key("findings")
        .list(|json| found.findings.iter().for_each(|finding| json.item().string(&finding.to_string())));
    json.key("host").object(|json| lines(json, &found.host));
    json.key("kvm").object(|json| view(json, found));
}

/// KVM's answers as JSON; one that is not known is absent, a feature MSR whose value is not known is null.
fn view(json: &mut Layout<'_>, found: &KvmPrediction) {
    let origin = |seen: bool| if seen { "seen" } else { "predicted" };
    if let Some(supported) = &found.view.supported {
        json.key("supported").list(|json| entries(json, supported));
    }
    if let Some(emulated) = &found.view.emulated {
        json.key("emulated").list(|json| entries(json, emulated));
    }
    if !found.msr_features.is_empty() {
        json.key("msr_features").object(|json| msrs(json, found.msr_features.iter().copied()));
    }
    json.key("origin").object(|json| {
        json.key("supported").string(origin(found.seen.supported));
        json.key("emulated").string(origin(found.seen.emulated));
        json.key("msr_features").string(origin(found.seen.msr_features));
    });
}

/// MSRs as the members of an object.
pub(super) fn msrs(json: &mut Layout<'_>, msrs: impl Iterator<Item = (u32, Option<u64>)>) {
    for (index, value) in msrs {
        let json = json.key(&format!("{index:#010x}"));
        match value {
            Some(value) => json.hex(value, 16),
            None => json.value(&Value::Null),
        }
    }
}

/// Entries of a table as the items of a list.
pub(super) fn entries(json: &mut Layout<'_>, entries: &[KvmCpuidEntry]) {
    for entry in entries {
        let registers = entry.registers;
        json.item().object(|json| {
            json.key("leaf").hex(entry.leaf.into(), 8);
            json.key("subleaf").value(&entry.subleaf.into());
            json.key("flags").value(&entry.flags.into());
            json.key("eax").hex(registers.eax.into(), 8);
            json.key("ebx").hex(registers.ebx.into(), 8);
            json.key("ecx").hex(registers.ecx.into(), 8);
            json.key("edx").hex(registers.edx.into(), 8);
        });
    }
}

/// KVM's answers as a table, what it took and why, and what was assumed.
fn text(found: &KvmPrediction, width: usize) -> String {
    let mut page = String::new();
    let seen = found.seen;
    let how = if seen.supported { "as its own answer says" } else { "as predicted" };
    let heading = format!("What KVM of Linux {} offers, {how}", label(&found.host));
    let _ = writeln!(page, "{}", styled(HEAD, heading));
    for finding in &found.findings {
        page.push_str(&page::wrap(&page::tame(&finding.to_string()), "  ! ", "    ", width));
    }
    for (name, entries) in [("supported", &found.view.supported), ("emulated", &found.view.emulated)] {
        table(&mut page, name, entries.as_deref().unwrap_or_default(), width);
    }
    msr_table(&mut page, found);
    taken(&mut page, found, width);
    assumed_text(&mut page, &found.assumed, width);
    page
}

pub(super) fn table(page: &mut String, name: &str, entries: &[KvmCpuidEntry], width: usize) {
    if entries.is_empty() {
        return;
    }
    let _ = writeln!(page, "\n{}", styled(HEAD, format!("{name} ({} entries)", entries.len())));
    let _ = writeln!(page, "  {}", styled(QUIET, "leaf     sub  EAX      EBX      ECX      EDX"));
    for KvmCpuidEntry { leaf, subleaf, registers, .. } in entries.iter().filter(|entry| !entry.registers.is_zero()) {
        let (eax, ebx, ecx, edx) = (registers.eax, registers.ebx, registers.ecx, registers.edx);
        let _ = writeln!(page, "  {leaf:08x} {subleaf:>3x}  {eax:08x} {ebx:08x} {ecx:08x} {edx:08x}");
    }
    let zeros: Vec<String> = entries.iter().filter(|entry| entry.registers.is_zero()).map(name_of).collect();
    if !zeros.is_empty() {
        page.push_str(&page::wrap(&styled(QUIET, zeros.join(" ")), "  all zero: ", "    ", width));
    }
}

/// `d.2`
fn name_of(entry: &KvmCpuidEntry) -> String {
    if has_subleaves(entry.leaf) {
        format!("{:x}.{:x}", entry.leaf, entry.subleaf)
    } else {
        format!("{:x}", entry.leaf)
    }
}

fn msr_table(page: &mut String, found: &KvmPrediction) {
    if found.msr_features.is_empty() {
        return;
    }
    let _ = writeln!(page, "\n{}", styled(HEAD, format!("feature MSRs ({})", found.msr_features.len())));
    for (index, value) in &found.msr_features {
        let value = value.map_or_else(|| "not known".to_owned(), |value| format!("{value:016x}"));
        let _ = writeln!(page, "  {index:08x}      {value}");
    }
}

/// The CPU's features that KVM does not offer, by reason, and those that it adds.
fn taken(page: &mut String, found: &KvmPrediction, width: usize) {
    let of = |effects: [Effect; 2]| {
        found.steps.iter().filter(move |step| step.at == Stage::Kvm && effects.contains(&step.effect))
    };
    let mut reasons: Vec<(String, Vec<&str>)> = Vec::new();
    for step in of([Effect::Dropped, Effect::Unknown]) {
        let reason = reason::of_step(step, found.host.tree).title;
        match reasons.iter_mut().find(|(other, _)| *other == reason) {
            Some((_, names)) => names.push(&step.feature),
            None => reasons.push((reason, vec![&step.feature])),
        }
    }
    let count: usize = reasons.iter().map(|(_, names)| names.len()).sum();
    if count > 0 {
        let _ = writeln!(page, "\n{}", styled(HEAD, format!("not offered ({count})")));
    }
    for (reason, names) in reasons {
        page.push_str(&page::wrap(&styled(QUIET, reason), "  ", "  ", width));
        page.push_str(&page::wrap(&names.join(" "), "    ", "    ", width));
    }
    let added: Vec<&str> = of([Effect::Added, Effect::Forced]).map(|step| step.feature.as_ref()).collect();
    if !added.is_empty() {
        let _ = writeln!(page, "\n{}", styled(HEAD, format!("added ({})", added.len())));
        page.push_str(&page::wrap(&added.join(" "), "  ", "  ", width));
    }
}
