//! `record`: one file with all that this machine's stages show.

use std::fs;

use cpusieve_formats::{prometheus, record};
use cpusieve_model::Snapshot;
use cpusieve_probe::{Only, Options};

use super::{Done, Failure};
use crate::args::{Part, RecordOptions};
use crate::page;

pub(crate) fn run(options: &RecordOptions) -> Result<Done, Failure> {
    let only = match options.only {
        Some(Part::Cpuid) => Only::Cpuid,
        None => Only::Everything,
    };
    let mut snapshot = cpusieve_probe::record(Options::only(only));
    if options.anonymous {
        cpusieve_probe::anonymise(&mut snapshot);
    }
    read_cpuinfo(&mut snapshot);
    let text = if options.prometheus {
        prometheus::print(&snapshot, env!("CARGO_PKG_VERSION"))
    } else {
        record::print(&snapshot)
    };
    match &options.output {
        Some(path) => fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?,
        None => page::print(&text)?,
    }
    for part in &snapshot.missing {
        page::warn(&missing(part));
    }
    Ok(if snapshot.missing.is_empty() { Done::Same } else { Done::InPart })
}

/// One part that could not be seen, and what helps.
pub(super) fn missing(part: &cpusieve_model::MissingPart) -> String {
    match &part.remedy {
        Some(remedy) => format!("{} not seen: {}; {remedy}", part.what, part.why),
        None => format!("{} not seen: {}", part.what, part.why),
    }
}

/// This machine, with its `/proc/cpuinfo` read.
pub(super) fn this_machine() -> Snapshot {
    let mut snapshot = cpusieve_probe::record(Options::default());
    read_cpuinfo(&mut snapshot);
    snapshot
}

/// Gives each CPU its block of the text of `/proc/cpuinfo`, which the probe leaves alone. A record of CPUs without their
/// blocks would say that there are none.
fn read_cpuinfo(snapshot: &mut Snapshot) {
    let text = snapshot.linux.as_ref().and_then(|linux| linux.cpuinfo.as_deref());
    let parsed = text.map(|text| cpusieve_formats::cpuinfo::parse("/proc/cpuinfo", text.as_bytes()));
    for seen in parsed.into_iter().flat_map(|parsed| parsed.snapshot.cpus) {
        match snapshot.cpus.iter_mut().find(|cpu| cpu.id == seen.id) {
            Some(cpu) => cpu.cpuinfo = seen.cpuinfo,
            None => snapshot.cpus.push(seen),
        }
    }
}
