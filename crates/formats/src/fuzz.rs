//! What must hold for every input, however hostile: one function for the fuzz targets and for the ordinary tests.

use cpusieve_model::{Cpu, Snapshot};

use crate::limits::{MAX_CPUS, MAX_DIAGNOSTICS, MAX_DOMAIN_ARGUMENTS, MAX_ENTRIES, MAX_MSRS};
use crate::qmp::Message;
use crate::{Diagnostic, Format, Parsed, cpuid_r, libvirt_xml, print_cpuid_r, read, read_as, record};

/// Reads `bytes` as `format`, or as what they look like, and says which invariant is broken, if one is: diagnostics and
/// tables are bounded, lines exist, a second reading gives the same, and what is printed is read back.
///
/// # Errors
///
/// The invariant that does not hold, in words.
pub fn check(format: Option<Format>, bytes: &[u8]) -> Result<(), String> {
    let parse = || match format {
        Some(format) => read_as(format, "fuzz", bytes),
        None => read("fuzz", bytes),
    };
    let parsed = parse();
    bounded(&parsed, bytes)?;
    if parse() != parsed {
        return Err("two readings differ".to_owned());
    }
    if format == Some(Format::Qmp) {
        bytes.split(|&byte| byte == b'\n').try_for_each(check_message)?;
    }
    let printed = print_cpuid_r(&parsed.snapshot);
    let back = cpuid_r::parse("printed", printed.as_bytes());
    if tables(&back.snapshot) != tables(&parsed.snapshot) {
        return Err(format!("what is printed as {} is not read back", Format::CpuidR));
    }
    let printed = record::print(&parsed.snapshot);
    let back = record::parse("printed", printed.as_bytes());
    if back.has_errors() || back.snapshot != parsed.snapshot {
        return Err(format!("what is printed as a {} is not read back: {:?}", Format::Record, back.diagnostics));
    }
    if format == Some(Format::Record) { check_proof(&parsed.snapshot, bytes) } else { Ok(()) }
}

/// What a proof asked, beside a record.
fn check_proof(snapshot: &Snapshot, bytes: &[u8]) -> Result<(), String> {
    let captures = record::captures("fuzz", bytes);
    let printed = record::print_with(snapshot, &captures);
    if record::captures("printed", printed.as_bytes()) != captures {
        return Err("what a proof asked is not read back as it was printed".to_owned());
    }
    let back = record::parse("printed", printed.as_bytes());
    if back.has_errors() || &back.snapshot != snapshot {
        return Err(format!("a record with a proof is not read back: {:?}", back.diagnostics));
    }
    Ok(())
}

/// One line of QMP, and its reply as the answer to every question: what is refused can be shown.
fn check_message(line: &[u8]) -> Result<(), String> {
    let mut said = Vec::new();
    match Message::read(line) {
        Ok(Message::Return { reply, .. }) => {
            said.extend(reply.version().err());
            said.extend(reply.machines().err());
            said.extend(reply.cpu_definitions().err());
            said.extend(reply.expansion().err());
            said.extend(reply.properties().err());
            said.extend(reply.feature_words().err());
            said.extend(reply.vcpus().err());
        }
        Ok(Message::Error { description, .. }) => return printable(&description),
        Ok(Message::Greeting(_) | Message::Event(_)) => {}
        Err(problem) => return printable(&problem.to_string()),
    }
    said.iter().try_for_each(|problem| printable(&problem.to_string()))
}

fn printable(text: &str) -> Result<(), String> {
    if text.chars().any(char::is_control) { Err(format!("words that cannot be printed: {text:?}")) } else { Ok(()) }
}

/// Reads `bytes` as a domain of libvirt's, and says which invariant is broken, if one is: two readings are the same, it is
/// bounded, and all of it can be printed.
///
/// # Errors
///
/// The invariant that does not hold, in words.
pub fn check_domain(bytes: &[u8]) -> Result<(), String> {
    let (domain, diagnostics) = libvirt_xml::domain("fuzz", bytes);
    if libvirt_xml::domain("fuzz", bytes) != (domain.clone(), diagnostics.clone()) {
        return Err("two readings differ".to_owned());
    }
    told(&diagnostics, bytes)?;
    let Some(domain) = domain else {
        return if diagnostics.is_empty() { Err("no domain, and nobody says why".to_owned()) } else { Ok(()) };
    };
    let features = domain.cpu.as_ref().map_or(0, |cpu| cpu.features.len());
    let counts = [features, domain.features.len(), domain.timers.len()];
    if counts.iter().any(|&count| count > MAX_ENTRIES) || domain.arguments.len() > MAX_DOMAIN_ARGUMENTS {
        return Err(format!("{counts:?} entries and {} arguments", domain.arguments.len()));
    }
    let names = domain.cpu.iter().flat_map(|cpu| cpu.features.iter().map(|(name, _)| name));
    let words = names.chain(domain.features.keys()).chain(domain.timers.keys()).chain(&domain.arguments);
    words.chain(&domain.name).chain(&domain.machine).try_for_each(|word| printable(word))
}

/// Diagnostics are bounded, printable, and of lines that exist.
fn told(diagnostics: &[Diagnostic], bytes: &[u8]) -> Result<(), String> {
    if diagnostics.len() > MAX_DIAGNOSTICS {
        return Err(format!("{} diagnostics", diagnostics.len()));
    }
    // A line ends with LF, or with CR in files that have no LF, or (UTF-16) with two bytes.
    let lines = 1 + bytes.iter().filter(|&&byte| byte == b'\n' || byte == b'\r').count();
    if let Some(wrong) = diagnostics.iter().find(|diagnostic| diagnostic.line as usize > lines) {
        return Err(format!("there are {lines} lines: {wrong}"));
    }
    match diagnostics.iter().find(|diagnostic| diagnostic.to_string().chars().any(char::is_control)) {
        Some(wrong) => Err(format!("a diagnostic that cannot be printed: {:?}", wrong.what)),
        None => Ok(()),
    }
}

fn bounded(parsed: &Parsed, bytes: &[u8]) -> Result<(), String> {
    let Parsed { diagnostics, snapshot, .. } = parsed;
    told(diagnostics, bytes)?;
    if snapshot.cpus.len() > MAX_CPUS {
        return Err(format!("{} CPUs", snapshot.cpus.len()));
    }
    let full = |cpu: &&Cpu| cpu.cpuid.len() > MAX_ENTRIES || cpu.msrs.len() > MAX_MSRS;
    if let Some(cpu) = snapshot.cpus.iter().find(full) {
        return Err(format!("CPU {} has {} entries and {} MSRs", cpu.id, cpu.cpuid.len(), cpu.msrs.len()));
    }
    if snapshot.cpus.windows(2).any(|pair| matches!(pair, [a, b] if a.id >= b.id)) {
        return Err("the CPUs are not sorted by number, or one stands twice".to_owned());
    }
    Ok(())
}

/// What `cpuid -r` can say of a snapshot.
fn tables(snapshot: &Snapshot) -> Vec<(u32, &cpusieve_model::CpuidTable)> {
    snapshot.cpus.iter().filter(|cpu| !cpu.cpuid.is_empty()).map(|cpu| (cpu.id, &cpu.cpuid)).collect()
}
