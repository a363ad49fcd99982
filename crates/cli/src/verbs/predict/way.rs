//! `predict --until vcpu` and `--until guest`: what QEMU gives to a vCPU, and what the kernel on it prints.

use std::fmt::Write as _;

use cpusieve_answers::diff::Diff;
use cpusieve_answers::predict::way::{GuestPrediction, Route, VcpuPrediction, guest_of, until_vcpu};
use cpusieve_knowledge::qemu::RELEASES;
use cpusieve_model::{Snapshot, Stage, Step};
use serde_json::json;

use super::{
    assumed_briefly, assumptions, kvm, label, lines, price, with_steps, words, words_text, worth_of, worth_text,
};
use crate::args::{PredictOptions, Until};
use crate::input;
use crate::json::layout::Layout;
use crate::page::{self, GAINED, HEAD, LOST, QUIET, styled};
use crate::verbs::{Done, Failure};
use crate::worth::Worths;

pub(super) fn run(
    options: &PredictOptions,
    snapshot: &Snapshot,
    route: &Route<'_>,
    worths: &Worths,
    as_json: bool,
) -> Result<Done, Failure> {
    let refused = |refusal| format!("{}: {refusal}", input::name(&options.input));
    let vcpu = until_vcpu(snapshot, route).map_err(refused)?;
    if options.until == Until::Vcpu || vcpu.qemu.error.is_some() {
        page::print(&if as_json { vcpu_as_text(&vcpu) } else { vcpu_text(&vcpu, page::width()) })?;
        return Ok(if vcpu.qemu.error.is_some() { Done::Different } else { Done::Same });
    }
    let found = guest_of(snapshot, route, vcpu).map_err(refused)?;
    page::print(&if as_json {
        guest_as_text(&found, worths)
    } else {
        guest_text(&found, snapshot, worths, page::width())
    })?;
    Ok(Done::Same)
}

/// The stages until the vCPU, as JSON.
fn head(json: &mut Layout<'_>, vcpu: &VcpuPrediction) {
    json.key("format").value(&json!(1));
    if let Some(found) = &vcpu.kvm {
        kvm::offer(json, found);
    }
    let qemu = &vcpu.qemu;
    let knows = |release: &usize| qemu.error.as_ref().is_some_and(|error| error.known_in.contains(*release));
    let known_in: Vec<&str> =
        (0..RELEASES.len()).filter(knows).filter_map(|release| Some(RELEASES.get(release)?.label)).collect();
    json.key("vcpu").object(|json| {
        json.key("qemu").value(&RELEASES.get(vcpu.release).map(|release| release.label).into());
        json.key("machine").string(vcpu.machine.name);
        json.key("cpu").string(&vcpu.cpu);
        json.key("cpuid").list(|json| kvm::entries(json, &qemu.cpuid));
        let properties = qemu.properties();
        json.key("properties")
            .object(|json| properties.iter().for_each(|(name, on)| json.key(name).value(&(*on).into())));
        let msrs = qemu.msrs.iter().map(|(&index, &value)| (index, Some(value)));
        json.key("msrs").object(|json| kvm::msrs(json, msrs));
        let plain: Vec<&str> =
            qemu.warnings.iter().map(|line| line.strip_prefix("warning: ").unwrap_or(line)).collect();
        json.key("warnings").list(|json| words(json, &plain));
        json.key("error").value(&json!(qemu.error.as_ref().map(|error| &error.message)));
        json.key("error_at").value(&json!(qemu.error.as_ref().and_then(|error| error.offset)));
        json.key("error_known_in").list(|json| words(json, &known_in));
    });
}

/// The steps of the host's kernel and of KVM.
fn steps_until_kvm(vcpu: &VcpuPrediction) -> impl Iterator<Item = &Step> + Clone {
    vcpu.kvm.iter().flat_map(|found| found.host.boot.steps.iter().chain(&found.steps))
}

pub(super) fn vcpu_as_text(vcpu: &VcpuPrediction) -> String {
    let head = |json: &mut Layout<'_>| {
        head(json, vcpu);
        json.key("assumed").value(&assumptions(&vcpu.assumed));
    };
    with_steps(head, steps_until_kvm(vcpu).chain(&vcpu.qemu.steps()))
}

pub(super) fn guest_as_text(found: &GuestPrediction, worths: &Worths) -> String {
    let head = |json: &mut Layout<'_>| {
        head(json, &found.vcpu);
        json.key("assumed").value(&assumptions(&found.guest.assumed));
        json.key("odd").list(|json| words(json, &found.guest.odd));
        json.key("guest").object(|json| lines(json, &found.guest));
        json.key("price").value(&price(&found.guest, worths));
    };
    let of_qemu = found.vcpu.qemu.steps();
    let steps = steps_until_kvm(&found.vcpu).chain(&of_qemu).chain(&found.guest.boot.steps);
    with_steps(head, steps)
}

/// The steps of all stages until the vCPU.
pub(super) fn steps_until_vcpu(vcpu: &VcpuPrediction) -> Vec<Step> {
    steps_until_kvm(vcpu).cloned().chain(vcpu.qemu.steps()).collect()
}

/// `QEMU 10.0`
pub(super) fn release(vcpu: &VcpuPrediction) -> String {
    format!("QEMU {}", RELEASES.get(vcpu.release).map_or("", |release| release.label))
}

/// `QEMU 10.0 -machine pc-q35-10.0 -cpu host, KVM of Linux 6.12`
fn setup(vcpu: &VcpuPrediction) -> String {
    let under = match &vcpu.kvm {
        Some(found) => format!("KVM of Linux {}", label(&found.host)),
        None => "TCG".to_owned(),
    };
    let (machine, cpu) = (vcpu.machine.name, page::tame(&vcpu.cpu));
    format!("{} -machine {machine} -cpu {cpu}, {under}", release(vcpu))
}

/// What QEMU prints, and why it ends, with a mark below the part of `-cpu` that is to blame.
fn notices(page: &mut String, vcpu: &VcpuPrediction, width: usize) {
    let qemu = &vcpu.qemu;
    if !qemu.warnings.is_empty() {
        let heading = page::counted(qemu.warnings.len(), "line") + " on QEMU's standard error";
        let _ = writeln!(page, "\n{}", styled(HEAD, heading));
    }
    for line in &qemu.warnings {
        page.push_str(&page::wrap(&page::tame(line), "  ", "    ", width));
    }
    let Some(error) = &qemu.error else { return };
    let _ = writeln!(page, "\n{}", styled(HEAD, "QEMU ends instead of starting the guest"));
    page.push_str(&page::wrap(&styled(LOST, page::tame(&error.message)), "  ", "    ", width));
    if let Some(before) = error.offset.and_then(|offset| vcpu.cpu.get(..offset)) {
        let _ = writeln!(page, "  -cpu {}", page::tame(&vcpu.cpu));
        let _ = writeln!(page, "       {}{}", " ".repeat(before.chars().count()), styled(LOST, "^"));
    }
    let knows = |release: &usize| error.known_in.contains(*release);
    let known_in: Vec<&str> =
        (0..RELEASES.len()).filter(knows).filter_map(|release| Some(RELEASES.get(release)?.label)).collect();
    if !known_in.is_empty() {
        page.push_str(&page::wrap(&format!("QEMU {} knows it", known_in.join(", ")), "  ", "    ", width));
    }
}

fn vcpu_text(vcpu: &VcpuPrediction, width: usize) -> String {
    let mut page = String::new();
    page.push_str(&page::wrap(&styled(HEAD, format!("What {} gives to a vCPU", setup(vcpu))), "", "  ", width));
    kvm::table(&mut page, "cpuid", &vcpu.qemu.cpuid, width);
    if !vcpu.qemu.msrs.is_empty() {
        let _ = writeln!(page, "\n{}", styled(HEAD, format!("feature MSRs ({})", vcpu.qemu.msrs.len())));
    }
    for (index, value) in &vcpu.qemu.msrs {
        let _ = writeln!(page, "  {index:08x}      {value:016x}");
    }
    notices(&mut page, vcpu, width);
    assumed_briefly(&mut page, &vcpu.assumed, width);
    page
}

fn guest_text(found: &GuestPrediction, snapshot: &Snapshot, worths: &Worths, width: usize) -> String {
    let mut page = String::new();
    let heading = format!("What Linux {} prints in a guest of {}", label(&found.guest), setup(&found.vcpu));
    page.push_str(&page::wrap(&styled(HEAD, heading), "", "  ", width));
    words_text(&mut page, &found.guest, width);
    found.against_host(snapshot).iter().for_each(|diff| {
        lost_and_gained(&mut page, diff, width);
        let lost = worths.line(diff.lost.iter().map(|item| item.flag.as_str()));
        worth_of(&mut page, "worth of what was lost", lost, width);
    });
    worth_text(&mut page, &found.guest, worths, width);
    notices(&mut page, &found.vcpu, width);
    assumed_briefly(&mut page, &found.guest.assumed, width);
    page
}

/// What the guest lacks of its host's line, by the sieve that took it, and what it has beyond.
pub(super) fn lost_and_gained(page: &mut String, diff: &Diff, width: usize) {
    let lists = [("lost of the host's flags", LOST, &diff.lost), ("gained", GAINED, &diff.gained)];
    for (name, style, items) in lists.into_iter().filter(|(.., items)| !items.is_empty()) {
        let _ = writeln!(page, "\n{}", styled(HEAD, format!("{name} ({})", items.len())));
        let stages = Stage::ALL.into_iter().map(Some).chain([None]);
        for stage in stages {
            let flags: Vec<&str> =
                items.iter().filter(|item| item.at == stage).map(|item| item.flag.as_str()).collect();
            if !flags.is_empty() {
                let first = styled(QUIET, format!("{:<8}", stage.map_or("unknown", Stage::name)));
                page.push_str(&page::wrap(&styled(style, flags.join(" ")), &format!("  {first}"), "          ", width));
            }
        }
    }
}
