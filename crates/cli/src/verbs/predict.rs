//! `predict`: what a kernel will print, from the CPUID that it will see; what KVM will offer, and what QEMU makes of it.

pub(super) mod kvm;
mod pass_through;
pub(super) mod report;
mod way;

use std::fmt::Write as _;

use cpusieve_answers::predict::{Assumption, Kernel, Prediction, predict};
use cpusieve_knowledge::linux;
use cpusieve_model::{Stage, Step};
use serde_json::{Value, json};

use super::{Done, Failure};
use crate::args::{Accel, From, PredictOptions, Until, VmmName};
use crate::json::layout::{self, Layout};
use crate::page::{self, HEAD, QUIET, styled};
use crate::worth::Worths;
use crate::{input, json};

/// Why a question is not answered.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// The wanted stage lies before the one that the input shows.
    #[error("--from vcpu --until {0}: the {0} stage does not come after the vCPU; what comes after it is the guest")]
    Backwards(&'static str),
}

pub(crate) fn run(options: &PredictOptions, as_json: bool) -> Result<Done, Failure> {
    let (first, last) = stages(options.from, options.until)?;
    for (stage, name) in options.route.given().filter(|(stage, _)| !(first..=last).contains(stage)) {
        page::warn(&format!("--{name} changes nothing here: the {stage} stage is not predicted"));
    }
    if options.route.accel == Accel::Tcg {
        for (_, name) in options.route.given().filter(|(stage, _)| *stage < Stage::Qemu) {
            page::warn(&format!("--{name} changes nothing here: TCG asks neither host nor KVM"));
        }
    }
    let worths = Worths::known(options.price.file.as_deref())?;
    let (snapshot, unlisted) = input::read_for_boot(&options.input)?;
    let route = options.route.route(unlisted);
    let kernel = match (first, last) {
        (_, Stage::Host) => route.kvm.kernel,
        (Stage::Guest, _) => Kernel { unlisted, ..route.guest },
        (_, Stage::Kvm) => return kvm::run(options, &snapshot, &route.kvm, as_json),
        _ if options.route.vmm != VmmName::Qemu => {
            return pass_through::run(options, &snapshot, &route, &worths, as_json);
        }
        _ => return way::run(options, &snapshot, &route, &worths, as_json),
    };
    let found = predict(&snapshot, &kernel).map_err(|refusal| format!("{}: {refusal}", input::name(&options.input)))?;
    let text = if as_json { as_text(&found, last, &worths) } else { text(&found, last, &worths, page::width()) };
    page::print(&text)?;
    Ok(Done::Same)
}

/// The first and the last stage that are to be predicted.
fn stages(from: From, until: Until) -> Result<(Stage, Stage), Refusal> {
    match (from, until) {
        (From::Silicon, Until::Host) => Ok((Stage::Host, Stage::Host)),
        (From::Silicon, Until::Kvm) => Ok((Stage::Host, Stage::Kvm)),
        (From::Silicon, Until::Vcpu) => Ok((Stage::Host, Stage::Vcpu)),
        (From::Silicon, Until::Guest) => Ok((Stage::Host, Stage::Guest)),
        (From::Vcpu, Until::Guest) => Ok((Stage::Guest, Stage::Guest)),
        (From::Vcpu, Until::Host) => Err(Refusal::Backwards("host")),
        (From::Vcpu, Until::Kvm) => Err(Refusal::Backwards("kvm")),
        (From::Vcpu, Until::Vcpu) => Err(Refusal::Backwards("vcpu")),
    }
}

fn label(found: &Prediction) -> &'static str {
    linux::TREES.get(found.tree).map_or("", |tree| tree.label)
}

fn as_text(found: &Prediction, stage: Stage, worths: &Worths) -> String {
    let head = |json: &mut Layout<'_>| {
        json.key("format").value(&json!(1));
        json.key("assumed").value(&assumptions(&found.assumed));
        json.key("odd").list(|json| words(json, &found.odd));
        json.key(stage.name()).object(|json| lines(json, found));
        json.key("price").value(&price(found, worths));
    };
    with_steps(head, found.boot.steps.iter())
}

/// The lines of `/proc/cpuinfo`, as JSON.
fn lines(json: &mut Layout<'_>, found: &Prediction) {
    json.key("kernel").string(label(found));
    json.key("flags").list(|json| words(json, &found.boot.flags));
    json.key("hidden").list(|json| words(json, &found.boot.hidden));
    json.key("bugs").list(|json| words(json, &found.boot.bugs));
    json.key("vmx_flags").list(|json| words(json, &found.boot.vmx_flags));
}

/// Texts as the items of a list.
fn words(json: &mut Layout<'_>, words: &[impl AsRef<str>]) {
    words.iter().for_each(|word| json.item().string(word.as_ref()));
}

/// What the flags are worth, as JSON.
fn price(found: &Prediction, worths: &Worths) -> Value {
    worths.value(found.boot.flags.iter().map(AsRef::as_ref))
}

pub(super) fn assumptions(assumed: &[Assumption]) -> Value {
    let assumed = assumed.iter().map(|assumed| {
        let Assumption { what, value, because, hangs } = assumed;
        json!({"what": what, "value": value, "because": because, "hangs": hangs})
    });
    Value::Array(assumed.collect())
}

/// The JSON of a head and the steps behind it, a step a line.
fn with_steps<'a>(head: impl FnOnce(&mut Layout<'_>), steps: impl Iterator<Item = &'a Step> + Clone) -> String {
    /// More than most steps take.
    const LINE: usize = 256;
    let mut text = layout::object(head);
    text.truncate(text.strip_suffix("\n}").map_or(text.len(), str::len));
    text.reserve(steps.clone().count() * LINE);
    text.push_str(",\n  \"steps\": [");
    for (index, step) in steps.enumerate() {
        text.push_str(if index == 0 { "\n    " } else { ",\n    " });
        json::append_step(&mut text, step);
    }
    text.push_str("\n  ]\n}\n");
    text
}

/// The lines of `/proc/cpuinfo`, what they do not show, and what was assumed.
fn text(found: &Prediction, stage: Stage, worths: &Worths, width: usize) -> String {
    let mut page = String::new();
    let _ = writeln!(page, "{}", styled(HEAD, format!("What Linux {} of the {stage} prints", label(found))));
    words_text(&mut page, found, width);
    worth_text(&mut page, found, worths, width);
    assumed_text(&mut page, &found.assumed, width);
    page
}

/// The lines of `/proc/cpuinfo`, and what is odd about them.
fn words_text(page: &mut String, found: &Prediction, width: usize) {
    let lines = [
        ("flags", &found.boot.flags),
        ("hidden", &found.boot.hidden),
        ("bugs", &found.boot.bugs),
        ("vmx flags", &found.boot.vmx_flags),
    ];
    for (name, words) in lines.into_iter().filter(|(_, words)| !words.is_empty()) {
        let heading = format!("{name} ({})", words.len());
        let _ = writeln!(page, "\n{}", styled(HEAD, heading));
        page.push_str(&page::wrap(&words.join(" "), "  ", "  ", width));
    }
    if !found.odd.is_empty() {
        let _ = writeln!(page, "\n{}", styled(HEAD, format!("odd ({})", found.odd.len())));
        found.odd.iter().for_each(|odd| page.push_str(&page::wrap(odd, "  ", "    ", width)));
    }
}

/// What the flags that make a difference are worth.
fn worth_text(page: &mut String, found: &Prediction, worths: &Worths, width: usize) {
    worth_of(page, "worth", worths.line(found.boot.flags.iter().map(AsRef::as_ref)), width);
}

/// What some flags are worth, if anything.
fn worth_of(page: &mut String, heading: &str, line: Option<String>, width: usize) {
    if let Some(line) = line {
        let how = styled(QUIET, "(each in the work that gains most)");
        let _ = writeln!(page, "\n{} {how}", styled(HEAD, heading));
        page.push_str(&page::wrap(&line, "  ", "  ", width));
    }
}

/// What was assumed on a way of many stages, in few words.
fn assumed_briefly(page: &mut String, assumed: &[Assumption], width: usize) {
    if assumed.is_empty() {
        return;
    }
    let _ = writeln!(page, "\n{}", styled(HEAD, format!("assumed ({})", assumed.len())));
    let all: Vec<String> = assumed.iter().map(|assumed| format!("{} = {}", assumed.what, assumed.value)).collect();
    page.push_str(&page::wrap(&page::tame(&all.join(", ")), "  ", "  ", width));
    page.push_str(&page::wrap(&styled(QUIET, "--json says why, and what hangs on each"), "  ", "  ", width));
}

/// What was assumed, with what hangs on it.
fn assumed_text(page: &mut String, assumed: &[Assumption], width: usize) {
    if !assumed.is_empty() {
        let _ = writeln!(page, "\n{}", styled(HEAD, format!("assumed ({})", assumed.len())));
    }
    for assumed in assumed {
        let Assumption { what, value, because, hangs } = assumed;
        page.push_str(&page::wrap(&format!("{what}: {value}"), "  ", "    ", width));
        page.push_str(&page::wrap(&styled(QUIET, because), "    ", "    ", width));
        if !hangs.is_empty() {
            page.push_str(&page::wrap(&hangs.join(" "), "    hanging on it: ", "      ", width));
        }
    }
}
