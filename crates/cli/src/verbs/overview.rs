//! Without a verb: what this machine is, which stages can be seen from here, and what a guest started here would get.

use std::fmt::Write as _;

use cpusieve_answers::diff::Item;
use cpusieve_answers::guest::{self, Expected};
use cpusieve_model::{CpuidTable, Snapshot, Stage};
use cpusieve_probe::machine::{self, Kind, Machine as Seen};
use cpusieve_stages::Machine;
use serde_json::{Value, json};

use super::{Done, Failure, flags, record};
use crate::json;
use crate::page::{self, HEAD, QUIET, styled};

pub(crate) fn run(as_json: bool) -> Result<Done, Failure> {
    let snapshot = record::this_machine();
    let cpuid = snapshot.first_cpuid().map(|cpu| cpu.cpuid.clone()).unwrap_or_default();
    let seen = machine::look(&cpuid);
    let host = Machine::new("host", &snapshot);
    let expected = guest::expected(&host);
    if as_json {
        page::print(&json::pretty(&as_value(&snapshot, &seen, &expected)))?;
    } else {
        page::print(&text(&snapshot, &seen, &expected, page::width()))?;
    }
    Ok(if snapshot.missing.is_empty() { Done::Same } else { Done::InPart })
}

fn text(snapshot: &Snapshot, seen: &Seen, expected: &Expected, width: usize) -> String {
    let mut page = String::new();
    page.push_str(&page::wrap(&page::tame(&describe(snapshot, seen)), &styled(HEAD, "This machine: "), "  ", width));
    let _ = writeln!(page, "\n{}", styled(HEAD, "What can be seen from here"));
    for (stage, what) in stages(snapshot, seen) {
        page.push_str(&page::wrap(&what, &format!("  {:<9}", stage.name()), &" ".repeat(11), width));
    }
    for part in &snapshot.missing {
        page.push_str(&styled(QUIET, page::wrap(&record::missing(part), "  ! ", "    ", width).trim_end()));
        page.push('\n');
    }
    guest_text(&mut page, snapshot, expected, width);
    page
}

fn describe(snapshot: &Snapshot, seen: &Seen) -> String {
    let kind = match seen.kind {
        Kind::BareMetal => "bare metal".to_owned(),
        Kind::Guest | Kind::HiddenGuest => {
            let hypervisor = seen.hypervisors.first();
            let name = hypervisor.map_or_else(
                || "an unknown hypervisor".to_owned(),
                |seen| seen.name.unwrap_or(&seen.signature).to_owned(),
            );
            let vmm = seen.vmm.map_or_else(String::new, |vmm| format!(", VMM {vmm}"));
            format!("a guest of {name}{vmm}")
        }
        Kind::Unknown => "of unknown kind (CPUID was not seen)".to_owned(),
    };
    let cpu = snapshot.title.as_deref().unwrap_or("a CPU without a brand string");
    let signature = snapshot.first_cpuid().and_then(|cpu| cpu.cpuid.signature());
    let signature = signature.map_or_else(String::new, |(family, model, stepping)| {
        format!(" (family {family} model {model} stepping {stepping})")
    });
    format!("{kind}; {cpu}{signature}, {}.", page::counted(snapshot.cpus.len(), "CPU"))
}

/// What each stage shows.
fn stages(snapshot: &Snapshot, seen: &Seen) -> Vec<(Stage, String)> {
    let leaves = snapshot.first_cpuid().map_or(0, |cpu| cpu.cpuid.len());
    let silicon = match seen.kind {
        Kind::BareMetal => format!("CPUID of the CPU itself: {leaves} leaves and subleaves"),
        _ => format!(
            "no: a hypervisor answers CPUID ({leaves} leaves and subleaves); what it hides cannot be told from what the CPU lacks"
        ),
    };
    let release = snapshot.linux.as_ref().and_then(|linux| linux.release.as_deref()).unwrap_or("of unknown release");
    let flags = snapshot.flags().map_or(0, cpusieve_model::FlagList::len);
    let host = format!("Linux {release} shows {flags} flags");
    let backends: Vec<&str> = seen.kvm.backends.iter().map(|backend| backend.module.as_str()).collect();
    let served =
        if backends.is_empty() { "a backend that does not show itself".to_owned() } else { backends.join(" or ") };
    let supported = snapshot.kvm.as_ref().and_then(|kvm| kvm.supported.as_ref());
    let kvm = match (supported, &seen.kvm.refusal) {
        (Some(entries), _) => {
            let odd = backends.iter().any(|backend| !matches!(*backend, "kvm_intel" | "kvm_amd"));
            let odd =
                if odd { "; neither VMX nor SVM: its own answers are used, its reasons are not known" } else { "" };
            format!("{} CPUID entries offered by {served}{odd}", entries.len())
        }
        (None, Some(refusal)) => format!("no: {refusal}"),
        (None, None) => "no answer".to_owned(),
    };
    let qemu: Vec<String> =
        snapshot.qemu.iter().map(|binary| format!("{} ({})", binary.version, binary.path)).collect();
    let qemu = if qemu.is_empty() { "none found".to_owned() } else { qemu.join(", ") };
    vec![(Stage::Silicon, silicon), (Stage::Host, host), (Stage::Kvm, kvm), (Stage::Qemu, qemu)]
}

fn guest_text(page: &mut String, snapshot: &Snapshot, expected: &Expected, width: usize) {
    let counts = format!("{} lost, {} gained, {} kept", expected.lost.len(), expected.gained.len(), expected.kept);
    let open = if expected.open.is_empty() { String::new() } else { format!(", {} open", expected.open.len()) };
    let answered = snapshot.kvm.as_ref().is_some_and(|kvm| kvm.supported.is_some());
    let without = if !answered { " (KVM's answer predicted, not seen)" } else { "" };
    let heading = format!("A guest started here with -cpu host: {counts}{open}");
    let _ = write!(page, "\n{}", page::wrap(&styled(HEAD, heading), "", "  ", width));
    let with = page::wrap(&format!("With {}{without}.", flags::assumed(&expected.assumed)), "", "", width);
    let _ = writeln!(page, "{}", styled(QUIET, with.trim_end()));
    flags::side(page, &expected.lost, flags::Side::Lost, false, width);
    flags::side(page, &expected.gained, flags::Side::Gained, false, width);
    if !expected.open.is_empty() {
        let names: Vec<&str> = expected.open.iter().map(|item| item.flag.as_str()).collect();
        let _ = writeln!(page, "\n{}", styled(HEAD, "Depends on what cannot be seen from here"));
        page.push_str(&page::wrap(&names.join(" "), "  ", "  ", width));
        let hint = "cpusieve why FLAG says on what.";
        page.push_str(&page::wrap(hint, "    > ", "      ", width));
    }
}

fn as_value(snapshot: &Snapshot, seen: &Seen, expected: &Expected) -> Value {
    let items = |items: &[Item]| items.iter().map(json::item).collect::<Vec<_>>();
    let missing =
        snapshot.missing.iter().map(|part| json!({"what": part.what, "why": part.why, "remedy": part.remedy}));
    let stages = stages(snapshot, seen).into_iter().map(|(stage, what)| json!({"stage": stage.name(), "seen": what}));
    let vendor = snapshot.first_cpuid().map(|cpu| &cpu.cpuid).and_then(CpuidTable::vendor_string);
    json!({
        "format": 1,
        "machine": {
            "kind": kind(seen.kind),
            "hypervisors": seen.hypervisors.iter().map(|seen| json!({"signature": seen.signature, "name": seen.name})).collect::<Vec<_>>(),
            "vmm": seen.vmm,
            "kvm_backends": seen.kvm.backends.iter().map(|backend| &backend.module).collect::<Vec<_>>(),
            "cpu": snapshot.title,
            "vendor": vendor,
        },
        "stages": stages.collect::<Vec<_>>(),
        "missing": missing.collect::<Vec<_>>(),
        "assumed": expected.assumed.iter().map(json::assumption).collect::<Vec<_>>(),
        "guest": {
            "lost": items(&expected.lost),
            "gained": items(&expected.gained),
            "open": items(&expected.open),
            "kept": expected.kept,
        },
    })
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::BareMetal => "bare metal",
        Kind::Guest => "guest",
        Kind::HiddenGuest => "guest that hides its hypervisor",
        Kind::Unknown => "unknown",
    }
}
