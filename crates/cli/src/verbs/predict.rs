//! `predict`: what a kernel will print, from the CPUID that it will see; what KVM will offer.

pub(super) mod kvm;

use std::fmt::Write as _;

use cpusieve_answers::predict::{Assumption, Kernel, Prediction, predict};
use cpusieve_knowledge::linux;
use cpusieve_model::{Stage, Step};
use serde_json::{Value, json};

use super::{Done, Failure};
use crate::args::{From, PredictOptions, Until};
use crate::page::{self, HEAD, QUIET, styled};
use crate::{input, json};

/// Why a question is not answered.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// QEMU would have to be predicted register by register.
    #[error(
        "--until {until} --from {from} would have to predict what QEMU makes of each CPUID register, which this version \
         does not do; it predicts `--until host` and `--until kvm`, and `--from vcpu --until guest` from the guest's own \
         CPUID"
    )]
    NotExact {
        /// The wanted stage.
        until: &'static str,
        /// The given stage.
        from: &'static str,
    },
    /// The wanted stage lies before the one that the input shows.
    #[error("--from vcpu --until {0}: the {0} stage does not come after the vCPU; what comes after it is the guest")]
    Backwards(&'static str),
}

pub(crate) fn run(options: &PredictOptions, as_json: bool) -> Result<Done, Failure> {
    let stage = stage(options.from, options.until)?;
    let (release, cmdline, useless) = match stage {
        Stage::Guest => (
            &options.guest_kernel,
            &options.guest_cmdline,
            [("host-kernel", &options.host_kernel), ("host-cmdline", &options.host_cmdline)],
        ),
        _ => (
            &options.host_kernel,
            &options.host_cmdline,
            [("guest-kernel", &options.guest_kernel), ("guest-cmdline", &options.guest_cmdline)],
        ),
    };
    for (name, _) in useless.iter().filter(|(_, given)| given.is_some()) {
        page::warn(&format!("--{name} changes nothing here: only the {stage}'s kernel is predicted"));
    }
    if stage != Stage::Kvm && !options.kvm_params.is_empty() {
        page::warn(&"--kvm-param changes nothing here: KVM is not predicted");
    }
    let (snapshot, unlisted) = input::read_for_boot(&options.input)?;
    if stage == Stage::Kvm {
        let kernel = Kernel { at: Stage::Host, release: release.as_deref(), cmdline: cmdline.as_deref(), unlisted };
        return kvm::run(options, &snapshot, kernel, as_json);
    }
    let kernel = Kernel { at: stage, release: release.as_deref(), cmdline: cmdline.as_deref(), unlisted };
    let found = predict(&snapshot, &kernel).map_err(|refusal| format!("{}: {refusal}", input::name(&options.input)))?;
    page::print(&if as_json { as_text(&found, stage) } else { text(&found, stage, page::width()) })?;
    Ok(Done::Same)
}

/// The kernel that is to be predicted.
fn stage(from: From, until: Until) -> Result<Stage, Refusal> {
    match (from, until) {
        (From::Silicon, Until::Host) => Ok(Stage::Host),
        (From::Silicon, Until::Kvm) => Ok(Stage::Kvm),
        (From::Vcpu, Until::Guest) => Ok(Stage::Guest),
        (From::Vcpu, Until::Host) => Err(Refusal::Backwards("host")),
        (From::Vcpu, Until::Kvm) => Err(Refusal::Backwards("kvm")),
        (From::Vcpu, Until::Vcpu) => Err(Refusal::Backwards("vcpu")),
        (From::Silicon, Until::Vcpu) => Err(Refusal::NotExact { until: "vcpu", from: "silicon" }),
        (From::Silicon, Until::Guest) => Err(Refusal::NotExact { until: "guest", from: "silicon" }),
    }
}

fn label(found: &Prediction) -> &'static str {
    linux::TREES.get(found.tree).map_or("", |tree| tree.label)
}

fn as_text(found: &Prediction, stage: Stage) -> String {
    let assumed = assumptions(&found.assumed);
    let head = json!({"format": 1, "assumed": assumed, "odd": found.odd, stage.name(): lines(found)});
    with_steps(&head, found.boot.steps.iter())
}

/// The lines of `/proc/cpuinfo`, as JSON.
fn lines(found: &Prediction) -> Value {
    json!({
        "kernel": label(found),
        "flags": found.boot.flags,
        "hidden": found.boot.hidden,
        "bugs": found.boot.bugs,
        "vmx_flags": found.boot.vmx_flags,
    })
}

pub(super) fn assumptions(assumed: &[Assumption]) -> Value {
    let assumed = assumed.iter().map(|assumed| {
        let Assumption { what, value, because, hangs } = assumed;
        json!({"what": what, "value": value, "because": because, "hangs": hangs})
    });
    Value::Array(assumed.collect())
}

/// The JSON of a head and the steps behind it.
fn with_steps<'a>(head: &Value, steps: impl Iterator<Item = &'a Step>) -> String {
    let head = json::pretty(head);
    // A step a line, made and dropped one by one: hundreds of them at once would take as long as all the rest.
    let mut text = head.strip_suffix("\n}\n").unwrap_or(&head).to_owned();
    text.push_str(",\n  \"steps\": [");
    for (index, step) in steps.enumerate() {
        text.push_str(if index == 0 { "\n    " } else { ",\n    " });
        text.push_str(&serde_json::to_string(&json::step(step)).unwrap_or_default());
    }
    text.push_str("\n  ]\n}\n");
    text
}

/// The lines of `/proc/cpuinfo`, what they do not show, and what was assumed.
fn text(found: &Prediction, stage: Stage, width: usize) -> String {
    let mut page = String::new();
    let _ = writeln!(page, "{}", styled(HEAD, format!("What Linux {} of the {stage} prints", label(found))));
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
    assumed_text(&mut page, &found.assumed, width);
    page
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
