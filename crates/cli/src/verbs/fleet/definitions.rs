//! `fleet baseline` of libvirt's `<cpu>` elements, as `virsh cpu-baseline` makes it.

use std::fmt::Write as _;
use std::path::Path;

use cpusieve_answers::predict::Assumption;
use cpusieve_fleet::libvirt::{BaselineError, Cpu, Policy, Unknown, baseline, costs, expand_features, id, named};
use cpusieve_fleet::{Catalogue, Cost, Fleet, Setting, Target};
use cpusieve_formats::Format;
use cpusieve_knowledge::libvirt::{RELEASES, Set};
use serde_json::json;

use super::sources::{Content, Source, Sources};
use super::{Done, Failure, assumptions, label, packed};
use crate::args::{BaselineOptions, Switch};
use crate::input;
use crate::json;
use crate::page::{self, HEAD, LOST, counted, styled};

/// Definitions, and what could not be used.
#[derive(Default)]
pub(super) struct Definitions {
    named: Vec<(String, Cpu)>,
    skipped: Vec<(String, String)>,
}

/// The definitions of all inputs, if the first is one; else none, and all inputs are still to come.
pub(super) fn of(sources: &mut Sources, strict: bool) -> Result<Option<Definitions>, Failure> {
    let Some(Source { name, content }) = sources.next() else { return Ok(None) };
    let bytes = match &content {
        Content::File(path) if !packed::is_named(path) => input::bytes(path, &name).ok(),
        Content::Bytes(bytes) => Some(bytes.clone()),
        Content::File(_) | Content::Broken(_) => None,
    };
    let is_one = |bytes: &Vec<u8>| {
        bytes.trim_ascii_start().starts_with(b"<") && cpusieve_formats::recognise(bytes) == Format::LibvirtCpu
    };
    sources.put_back(Source { name, content });
    if !bytes.as_ref().is_some_and(is_one) {
        return Ok(None);
    }
    let mut found = Definitions::default();
    for source in sources {
        let name = source.name.clone();
        match cpus(source) {
            Ok(cpus) if cpus.len() == 1 => found.named.extend(cpus.into_iter().map(|cpu| (name.clone(), cpu))),
            Ok(cpus) => {
                let numbered = cpus.into_iter().zip(1..).map(|(cpu, number)| (format!("{name}#{number}"), cpu));
                found.named.extend(numbered);
            }
            Err(why) if strict => return Err(why.into()),
            Err(why) => {
                page::warn(&format!("{why}; it is left out"));
                found.skipped.push((name, why));
            }
        }
    }
    Ok(Some(found))
}

/// The definitions in one input; an error if it holds something else.
fn cpus(source: Source) -> Result<Vec<Cpu>, String> {
    let name = source.name;
    let bytes = match source.content {
        Content::File(path) => input::bytes(&path, &name),
        Content::Bytes(bytes) => Ok(bytes),
        Content::Broken(error) => Err(error),
    };
    let bytes = bytes.map_err(|error| error.to_string())?;
    let (read, diagnostics) = input::understand(&name, &bytes);
    input::show(&diagnostics);
    let (seen, _) = read.map_err(|error| error.to_string())?;
    let cpus: Vec<Cpu> = seen.expansions.iter().filter_map(Cpu::of_expansion).collect();
    if cpus.is_empty() {
        return Err(format!("{name}: no <cpu> of libvirt as the first input is; hosts have a baseline of their own"));
    }
    Ok(cpus)
}

/// A name that libvirt does not know, with the file and the line where it stands.
pub(super) fn placed(path: &Path, unknown: &Unknown) -> String {
    let name = input::name(path);
    let text = if path == Path::new("-") { None } else { input::bytes(path, &name).ok() };
    let text = text.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let (inner, quoted) =
        (format!(">{}<", unknown.name), [format!("'{}'", unknown.name), format!("\"{}\"", unknown.name)]);
    let says = |line: &str| line.contains(&inner) || quoted.iter().any(|quoted| line.contains(quoted));
    match text.lines().position(says) {
        Some(line) => format!("{name}:{}: {unknown}", line + 1),
        None => format!("{name}: {unknown}"),
    }
}

/// A baseline of definitions.
struct Found<'a> {
    cpu: Cpu,
    features: Set,
    costs: Vec<Cost>,
    findings: Vec<String>,
    definitions: &'a Definitions,
}

pub(super) fn run(
    definitions: &Definitions,
    options: &BaselineOptions,
    (setting, assumed): (&Setting<'_>, &[Assumption]),
    release: usize,
    as_json: bool,
) -> Result<Done, Failure> {
    let cpus: Vec<Cpu> = definitions.named.iter().map(|(_, cpu)| cpu.clone()).collect();
    let migratable = options.setting.migratable == Switch::On;
    let cpu = baseline(&cpus, release, migratable).map_err(|error| {
        let input = error.input().and_then(|input| definitions.named.get(input));
        match (&error, input) {
            (BaselineError::Unknown { unknown, .. }, Some((name, _))) => {
                placed(Path::new(name.rsplit_once('#').map_or(name.as_str(), |(file, _)| file)), unknown)
            }
            (_, Some((name, _))) => format!("{name}: {error}"),
            (_, None) => error.to_string(),
        }
    })?;
    let features = cpu.expanded(release).map_err(|error| error.to_string())?;
    let sets: Result<Vec<(&str, Set)>, Unknown> =
        definitions.named.iter().map(|(name, cpu)| Ok((name.as_str(), cpu.expanded(release)?))).collect();
    let costs = costs(&sets.map_err(|error| error.to_string())?);
    let found = Found { findings: findings(&cpus, &cpu), cpu, features, costs, definitions };
    let catalogue = Catalogue::of(setting.release);
    let text = match options.to.map(super::baseline::target) {
        Some(Target::Libvirt) => found.cpu.to_xml(),
        Some(to) => named(&found.cpu, &catalogue)
            .and_then(|model| to.print_model(&model))
            .ok_or("a <cpu> says nothing of registers and addresses, which that needs: give records of the hosts")?,
        None if as_json => found.value(&catalogue, assumed, release),
        None => found.text(assumed, release, page::width()),
    };
    page::print(&text)?;
    Ok(if definitions.skipped.is_empty() { Done::Same } else { Done::InPart })
}

fn findings(cpus: &[Cpu], result: &Cpu) -> Vec<String> {
    let mut findings = Vec::new();
    let guests = cpus.iter().filter(|cpu| cpu.guest).count();
    if guests > 0 {
        let whose = if guests == 1 { "one of them is a guest's".to_owned() } else { format!("{guests} are guests'") };
        findings.push(format!(
            "{whose}: virsh cpu-baseline takes definitions of hosts alone, virsh hypervisor-cpu-baseline both"
        ));
    }
    let bare = cpus.iter().filter(|cpu| cpu.vendor.is_none()).count();
    if bare > 0 && cpus.iter().any(|cpu| cpu.vendor.is_some()) {
        findings
            .push(format!("{bare} without a <vendor>, so the result has none: it runs on other vendors' hosts too"));
    }
    let off = result.features.values().filter(|policy| **policy == Policy::Disable).count();
    if off > 0 && result.no_fallback {
        findings.push("all name one model, so libvirt takes it, whatever is to be turned off".to_owned());
    }
    findings
}

impl Found<'_> {
    fn value(&self, catalogue: &Catalogue, assumed: &[Assumption], release: usize) -> String {
        let model = named(&self.cpu, catalogue);
        let of = |wanted: Policy| {
            let all = self.cpu.features.iter().filter(move |(_, policy)| **policy == wanted);
            all.map(|(name, _)| name.as_str()).collect::<Vec<_>>()
        };
        let costs = self.costs.iter().map(|cost| {
            let Cost { host, features, alone, alike, .. } = cost;
            json!({"host": host, "features": features, "alone": alone, "alike": alike})
        });
        let skipped = self.definitions.skipped.iter().map(|(input, why)| json!({"input": input, "why": why}));
        json::pretty(&json!({
            "format": 1,
            "hosts": self.definitions.named.len(),
            "libvirt": RELEASES.get(release).map(|known| known.label),
            "qemu": label(catalogue.release),
            "features": self.features.iter().map(id).collect::<Vec<_>>(),
            "model": model.map(|model| json!({
                "name": model.name, "cpu": model.cpu, "plus": model.plus, "minus": model.minus,
            })),
            "definition": {
                "model": self.cpu.model, "vendor": self.cpu.vendor,
                "fallback": if self.cpu.no_fallback { "forbid" } else { "allow" },
                "require": of(Policy::Require), "disable": of(Policy::Disable),
                "expanded": self.features.names().collect::<Vec<_>>(),
                "xml": self.cpu.to_xml(),
                "xml_expanded": expand_features(&self.cpu, release).map(|cpu| cpu.to_xml()).ok(),
            },
            "costs": costs.collect::<Vec<_>>(),
            "findings": self.findings,
            "assumed": assumptions(assumed, &Fleet::default()),
            "skipped": skipped.collect::<Vec<_>>(),
        }))
    }

    fn text(&self, assumed: &[Assumption], release: usize, width: usize) -> String {
        let mut page = String::new();
        let head = format!(
            "{}: {} on all of them, by the CPU map of libvirt {}.",
            counted(self.definitions.named.len(), "definition"),
            counted(self.features.len(), "feature"),
            RELEASES.get(release).map_or("", |known| known.label)
        );
        page.push_str(&page::wrap(&styled(HEAD, head), "", "  ", width));
        for finding in &self.findings {
            page.push_str(&page::wrap(finding, "  ! ", "    ", width));
        }
        let _ = write!(page, "\n{}", self.cpu.to_xml());
        page.push('\n');
        page.push_str(&page::wrap(&self.features.iter().map(id).collect::<Vec<_>>().join(" "), "", "  ", width));
        if !self.costs.is_empty() {
            let _ = write!(page, "\n{}\n", styled(HEAD, "What they take from each other:"));
        }
        for Cost { host, features, .. } in &self.costs {
            page.push_str(&page::wrap(&styled(LOST, page::tame(host)), "  ", "  ", width));
            page.push_str(&page::wrap(&features.join(" "), "    ", "      ", width));
        }
        if !self.definitions.skipped.is_empty() {
            let _ = writeln!(page, "\n{} left out:", counted(self.definitions.skipped.len(), "input"));
            for (_, why) in &self.definitions.skipped {
                page.push_str(&page::wrap(&page::tame(why), "  ", "    ", width));
            }
        }
        super::baseline::quiet_assumptions(&mut page, assumed, &Fleet::default(), width);
        page
    }
}
