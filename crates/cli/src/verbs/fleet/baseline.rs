//! `fleet baseline`: the best CPU on every host, and what each host costs.

use std::fmt::Write as _;

use cpusieve_answers::predict::Assumption;
use cpusieve_fleet::{Baseline, Cost, Fleet, Lacking, Offer, Setting, Target, baseline};
use cpusieve_knowledge::qemu::{WORD_ORDER, Word};
use serde_json::{Value, json};

use super::load::{Loaded, load_from};
use super::sources::Sources;
use super::{Asked, Done, Failure, assumptions, definitions, label, libvirt, setting};
use crate::args::{BaselineOptions, Switch, To};
use crate::json;
use crate::page::{self, HEAD, LOST, QUIET, counted, styled};
use crate::worth::Worths;

/// Hosts of a group that are named in text.
const NAMED: usize = 12;

pub(super) fn run(options: &BaselineOptions, as_json: bool) -> Result<Done, Failure> {
    let asked = Asked::of(&options.setting, &options.inputs);
    let (setting, assumed) = setting(&asked)?;
    let mut sources = Sources::of(&options.inputs)?;
    if let Some(found) = definitions::of(&mut sources, options.setting.strict)? {
        let (release, of_libvirt) = libvirt(options.libvirt.as_deref())?;
        let assumed: Vec<Assumption> = of_libvirt.into_iter().collect();
        return definitions::run(&found, options, (&setting, &assumed), release, as_json);
    }
    let loaded = load_from(sources, &setting, options.setting.strict)?;
    let worths = Worths::known(options.setting.price.file.as_deref())?;
    let migratable = options.setting.migratable == Switch::On;
    let found = baseline(&loaded.fleet, &setting, migratable).ok_or("there are no hosts")?;
    let text = match options.to {
        Some(to) => {
            let (libvirt, _) = libvirt(options.libvirt.as_deref())?;
            let printed = target(to).print(&found, &loaded.fleet, setting.release, libvirt);
            printed.ok_or("no CPU model runs unfiltered on all hosts")?
        }
        None if as_json => as_text(&found, &loaded, &setting, &assumed, &worths),
        None => text(&found, &loaded, (&setting, &assumed), &worths, page::width()),
    };
    page::print(&text)?;
    Ok(if loaded.skipped.is_empty() { Done::Same } else { Done::InPart })
}

pub(super) const fn target(to: To) -> Target {
    match to {
        To::Qemu => Target::Qemu,
        To::Libvirt => Target::Libvirt,
        To::Firecracker => Target::Firecracker,
        To::Proxmox => Target::Proxmox,
        To::Kubevirt => Target::Kubevirt,
        To::Openstack => Target::Openstack,
    }
}

pub(super) fn as_text(
    found: &Baseline,
    loaded: &Loaded,
    setting: &Setting<'_>,
    assumed: &[Assumption],
    worths: &Worths,
) -> String {
    let taken = found.costs.iter().flat_map(|cost| &cost.features).chain(&found.features).copied();
    let (skipped, duplicates) = loaded.lists();
    let model = found.model.as_ref().map(|model| {
        json!({
            "name": model.name, "cpu": model.cpu, "plus": model.plus, "minus": model.minus,
            "given_up": model.given_up,
        })
    });
    let msrs = found
        .common
        .msrs(setting.release)
        .map(|(index, bits)| (format!("{index:#010x}"), Value::from(format!("{bits:#018x}"))));
    let costs = found.costs.iter().map(|cost| {
        let Cost { host, features, alone, alike, .. } = cost;
        json!({"host": host, "features": features, "alone": alone, "alike": alike})
    });
    let vendors = found.vendors.iter().map(|(vendor, hosts)| json!({"vendor": vendor.name(), "hosts": hosts}));
    json::pretty(&json!({
        "format": 1,
        "hosts": found.hosts,
        "kinds": kinds(&loaded.fleet),
        "vendors": vendors.collect::<Vec<_>>(),
        "qemu": label(setting.release),
        "machine": setting.machine.name,
        "features": found.features,
        "model": model,
        "migratable": found.migratable,
        "phys_bits": found.common.phys_bits,
        "xcr0": format!("{:#x}", found.common.xcr0()),
        "msrs": msrs.collect::<serde_json::Map<_, _>>(),
        "tsc_khz": found.tsc_khz.map(|(lowest, highest)| json!({"lowest": lowest, "highest": highest})),
        "words": words(&found.common),
        "costs": costs.collect::<Vec<_>>(),
        "lacking": found.lacking.iter().map(|one| json!({"feature": one.id, "hosts": one.hosts})).collect::<Vec<_>>(),
        "price": worths.value(taken),
        "findings": found.findings,
        "assumed": assumptions(assumed, &loaded.fleet),
        "skipped": skipped,
        "duplicates": duplicates,
    }))
}

fn text(
    found: &Baseline,
    loaded: &Loaded,
    (setting, assumed): (&Setting<'_>, &[Assumption]),
    worths: &Worths,
    width: usize,
) -> String {
    let mut page = String::new();
    let kinds = kinds(&loaded.fleet);
    let head = format!(
        "{} of {}: {} on all of them, with QEMU {}.",
        counted(found.hosts, "host"),
        counted(kinds, "kind"),
        counted(found.features.len(), "feature"),
        label(setting.release)
    );
    page.push_str(&page::wrap(&styled(HEAD, head), "", "  ", width));
    for finding in &found.findings {
        page.push_str(&page::wrap(&page::tame(finding), "  ! ", "    ", width));
    }
    page.push('\n');
    if let Some(model) = &found.model {
        page.push_str(&broken_at_commas(&format!("-cpu {}", model.cpu), width));
    }
    let migratable = if found.migratable { "migratable" } else { "not migratable" };
    let mut facts = format!("{migratable}, {} bits of physical address", found.common.phys_bits);
    let _ = write!(facts, ", XCR0 {:#x} ({})", found.common.xcr0(), components(found.common.xcr0()));
    match found.tsc_khz {
        Some((lowest, highest)) if lowest == highest => _ = write!(facts, ", TSC {lowest} kHz"),
        Some((lowest, highest)) => _ = write!(facts, ", TSC from {lowest} to {highest} kHz"),
        None => {}
    }
    page.push_str(&page::wrap(&facts, "", "  ", width));
    let msrs: Vec<String> =
        found.common.msrs(setting.release).map(|(index, bits)| format!("{index:X}H={bits:#x}")).collect();
    if !msrs.is_empty() {
        page.push_str(&page::wrap(&format!("feature MSRs {}", msrs.join(" ")), "", "  ", width));
    }
    if !found.features.is_empty() {
        page.push('\n');
        page.push_str(&page::wrap(&found.features.join(" "), "", "  ", width));
    }
    if let Some(line) = worths.line(found.features.iter().copied()) {
        page.push_str(&page::wrap(&line, "worth: ", "  ", width));
    }
    costs(&mut page, &found.costs, &loaded.fleet, worths, width);
    lacking(&mut page, &found.lacking, &loaded.fleet, width);
    of_inputs(&mut page, loaded, width);
    quiet_assumptions(&mut page, assumed, &loaded.fleet, width);
    page
}

/// The state components of XCR0, by the names of the Intel SDM (volume 1, section 13.1), from bit 0.
fn components(xcr0: u64) -> String {
    const NAMES: [&str; 20] = [
        "x87",
        "SSE",
        "AVX",
        "BNDREGS",
        "BNDCSR",
        "opmask",
        "ZMM_Hi256",
        "Hi16_ZMM",
        "PT",
        "PKRU",
        "PASID",
        "CET_U",
        "CET_S",
        "HDC",
        "UINTR",
        "LBR",
        "HWP",
        "TILECFG",
        "TILEDATA",
        "APX",
    ];
    let name = |bit: u32| match NAMES.get(bit as usize) {
        Some(name) => (*name).to_owned(),
        None => format!("bit {bit}"),
    };
    (0..u64::BITS).filter(|bit| xcr0 >> bit & 1 == 1).map(name).collect::<Vec<_>>().join(" ")
}

/// One long word, broken behind commas.
fn broken_at_commas(text: &str, width: usize) -> String {
    let mut page = String::new();
    let mut used = 0;
    for part in text.split_inclusive(',') {
        if used > 0 && used + part.len() > width {
            page.push_str("\n  ");
            used = 2;
        }
        page.push_str(part);
        used += part.len();
    }
    page.push('\n');
    page
}

/// The kinds of hosts; of hosts of which only the sum is kept, the rows.
fn kinds(fleet: &Fleet) -> usize {
    fleet.kinds().len().saturating_add(fleet.rest().map_or(0, |rest| rest.rows))
}

/// What all hosts offer, word by word, as the columns of packed files are called; words of zero are left out.
fn words(common: &Offer) -> Value {
    let sets = [("host", &common.own), ("supported", &common.words), ("kvm", &common.kvm)];
    let words = sets.iter().flat_map(|(set, words)| {
        WORD_ORDER.into_iter().zip(words.iter()).filter(|(_, value)| **value != 0).map(
            move |(word, value)| match word {
                Word::Cpuid { leaf, subleaf, register } => {
                    let name = format!("{set}_{leaf:x}_{subleaf:x}_{}", register.name().to_ascii_lowercase());
                    (name, Value::from(format!("{value:#010x}")))
                }
                Word::Msr { index } => (format!("{set}_msr_{index:x}"), Value::from(format!("{value:#018x}"))),
            },
        )
    });
    words.collect::<serde_json::Map<_, _>>().into()
}

/// What some hosts lack, where there are too many kinds to say which.
fn lacking(page: &mut String, lacking: &[Lacking], fleet: &Fleet, width: usize) {
    if lacking.is_empty() {
        return;
    }
    let hosts = fleet.rest().map_or(0, |rest| rest.hosts);
    let head = format!("What some of {hosts} hosts lack, and how many of them:");
    let _ = write!(page, "\n{}\n", styled(HEAD, head));
    let all: Vec<String> = lacking.iter().map(|one| format!("{}:{}", one.id, one.hosts)).collect();
    page.push_str(&page::wrap(&all.join(" "), "  ", "  ", width));
}

/// Hosts that take the same stand together.
fn costs(page: &mut String, costs: &[Cost], fleet: &Fleet, worths: &Worths, width: usize) {
    let mut groups: Vec<(&Cost, Vec<&str>, usize)> = Vec::new();
    for cost in costs {
        match groups.iter_mut().find(|(first, ..)| first.features == cost.features && first.alone == cost.alone) {
            Some((_, hosts, unnamed)) => {
                hosts.push(&cost.host);
                *unnamed += cost.unnamed;
            }
            None => groups.push((cost, vec![&cost.host], cost.unnamed)),
        }
    }
    groups.sort_by_key(|(cost, ..)| std::cmp::Reverse((cost.alone.len(), cost.features.len())));
    if !groups.is_empty() {
        let head = format!("What hosts take from everybody, of {}:", counted(fleet.hosts(), "host"));
        let _ = write!(page, "\n{}\n", styled(HEAD, head));
    }
    for (cost, hosts, unnamed) in groups {
        let shared: Vec<&str> = cost.features.iter().filter(|id| !cost.alone.contains(id)).copied().collect();
        let mut names = page::tame(&hosts.iter().take(NAMED).copied().collect::<Vec<_>>().join(", "));
        let more = hosts.len().saturating_sub(NAMED) + unnamed;
        if more > 0 {
            let _ = write!(names, " and {more} more");
        }
        page.push_str(&page::wrap(&styled(LOST, names), "  ", "  ", width));
        if !cost.alone.is_empty() {
            page.push_str(&page::wrap(&cost.alone.join(" "), "    alone: ", "      ", width));
        }
        if !shared.is_empty() {
            page.push_str(&page::wrap(&shared.join(" "), "    with others: ", "      ", width));
        }
        if let Some(line) = worths.line(cost.features.iter().copied()) {
            page.push_str(&page::wrap(&line, "    worth: ", "      ", width));
        }
    }
}

fn of_inputs(page: &mut String, loaded: &Loaded, width: usize) {
    if !loaded.duplicates.is_empty() {
        let all: Vec<String> = loaded.duplicates.iter().map(|(input, of)| format!("{input} = {of}")).collect();
        let line = format!("{} of the same bytes: {}", counted(all.len(), "input"), page::tame(&all.join(", ")));
        let _ = write!(page, "\n{}", page::wrap(&line, "", "  ", width));
    }
    if !loaded.skipped.is_empty() {
        let _ = writeln!(page, "\n{} left out:", counted(loaded.skipped.len(), "input"));
        for (_, why) in &loaded.skipped {
            page.push_str(&page::wrap(&page::tame(why), "  ", "    ", width));
        }
    }
}

pub(super) fn quiet_assumptions(page: &mut String, assumed: &[Assumption], fleet: &Fleet, width: usize) {
    let mut parts: Vec<String> = assumed.iter().map(|assumed| format!("{} {}", assumed.what, assumed.value)).collect();
    let of_hosts = fleet.assumed();
    parts.extend(
        of_hosts
            .iter()
            .map(|assumed| format!("{} {} ({})", assumed.what, assumed.value, counted(assumed.hosts, "host"))),
    );
    if !parts.is_empty() {
        let line = format!("assumed: {}", page::tame(&parts.join("; ")));
        let _ = write!(page, "\n{}", styled(QUIET, page::wrap(&line, "", "  ", width).trim_end()));
        page.push('\n');
    }
}
