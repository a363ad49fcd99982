//! Text to a record.

use std::collections::{BTreeMap, BTreeSet};

use cpusieve_model::{Cpu, Cpuinfo, FlagList, KvmCpuidEntry, KvmView, LinuxView, MissingPart, ModelExpansion};
use cpusieve_model::{MsrReading, MsrTable, QemuBinary, Snapshot};

use super::{FORMAT, KIND, blocks};
use crate::diagnostic::Log;
use crate::json::{Document, Fields, Kind, Value};
use crate::limits::{MAX_CPUS, MAX_ENTRIES, MAX_FIELDS, MAX_MSRS};
use crate::{Format, Parsed};

/// What an input says of a CPU's block of `/proc/cpuinfo`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    /// Nothing: it follows from the text.
    Follows,
    /// The block itself, or that there is none.
    Told,
}

/// Reads a record. Fields that are missing were not seen; fields that are not known are counted.
#[must_use]
pub fn parse(name: &str, bytes: &[u8]) -> Parsed {
    let mut log = Log::new(name);
    let bytes = crate::text::prepare(&mut log, bytes);
    let document = Document::read(&bytes, &mut log);
    let mut roots = document.roots();
    let mut snapshot = Snapshot::default();
    if let Some(root) = roots.next() {
        let mut fields = Fields::new(&mut log);
        if is_readable(&mut fields, root) {
            snapshot = record(&mut fields, root);
        }
        fields.finish();
    }
    if let Some(second) = roots.next() {
        log.warning_expected(second.line(), "more JSON after the record is not read", "one record in one file");
    }
    log.finish(Format::Record, snapshot)
}

/// Whether this is a record of a format that can be read; says why not.
fn is_readable(fields: &mut Fields<'_>, root: Value<'_>) -> bool {
    if root.kind() != Kind::Object {
        fields.log.error_expected(root.line(), "not a record", "one JSON object");
        return false;
    }
    match root.get("kind") {
        Some(kind) if kind.text().as_deref() == Some(KIND) => {}
        Some(kind) => {
            let found = kind.shown();
            fields.log.error_expected(kind.line(), format!("kind is {found}"), format!("\"{KIND}\""));
            return false;
        }
        None => fields.log.warning_expected(root.line(), "no field kind", format!("\"kind\":\"{KIND}\"")),
    }
    match root.get("format") {
        Some(format) if format.u64() == Some(FORMAT) => true,
        Some(format) => {
            let found = format.shown();
            let what = format!("a record of format {found}, which this program does not read");
            fields.log.error_expected(format.line(), what, format!("format {FORMAT}"));
            false
        }
        None => {
            fields.log.warning_expected(root.line(), "no field format; taken for 1", format!("\"format\":{FORMAT}"));
            true
        }
    }
}

pub(super) fn record(fields: &mut Fields<'_>, root: Value<'_>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let mut told = Vec::new();
    let mut text_at = None;
    fields.each(root, "", |fields, key, value| {
        match key {
            // What a proof asked is read by `super::captures`.
            "format" | "kind" | "proof" => {}
            "title" => snapshot.title = fields.text(value),
            "cpus" => (snapshot.cpus, told) = cpus(fields, value),
            "linux" => {
                snapshot.linux = linux(fields, value);
                text_at = value.get("cpuinfo");
            }
            "kvm" => snapshot.kvm = kvm(fields, value),
            "qemu" => snapshot.qemu = list(fields, value, MAX_FIELDS, qemu),
            "expansions" => snapshot.expansions = list(fields, value, MAX_FIELDS, expansion),
            "missing" => snapshot.missing = list(fields, value, MAX_FIELDS, missing),
            _ => return false,
        }
        true
    });
    let text = snapshot.linux.as_ref().and_then(|linux| linux.cpuinfo.as_deref());
    if let (Some(text), Some(at)) = (text, text_at) {
        let cpus = cpuinfo_text(fields, text, at);
        if snapshot.cpus.is_empty() {
            snapshot.cpus = cpus;
        } else {
            let mut blocks = blocks(cpus);
            for (cpu, block) in snapshot.cpus.iter_mut().zip(told) {
                if block == Block::Follows {
                    cpu.cpuinfo = blocks.remove(&cpu.id);
                }
            }
        }
    }
    snapshot.cpus.sort_by_key(|cpu| cpu.id);
    snapshot
}

/// The CPUs of a `/proc/cpuinfo` text in a string; what is wrong with it is told with the line inside the text.
pub(crate) fn cpuinfo_text(fields: &mut Fields<'_>, text: &str, at: Value<'_>) -> Vec<Cpu> {
    let parsed = crate::cpuinfo::parse("", text.as_bytes());
    for diagnostic in &parsed.diagnostics {
        let inner = diagnostic.line;
        let what = |path: &str| format!("{path}: line {inner} of the text: {}", diagnostic.what);
        fields.warn(at, what, diagnostic.expected.as_deref());
    }
    fields.log.ignored.lines += parsed.ignored.lines;
    fields.log.ignored.values += parsed.ignored.values;
    parsed.snapshot.cpus
}

/// The items of an array that `read` takes, at most `limit`.
pub(super) fn list<'d, T>(
    fields: &mut Fields<'_>,
    array: Value<'d>,
    limit: usize,
    mut read: impl FnMut(&mut Fields<'_>, Value<'d>) -> Option<T>,
) -> Vec<T> {
    if !fields.is_array(array) {
        return Vec::new();
    }
    if let Some(first) = array.items().nth(limit) {
        let left_out = array.items().count() - limit;
        fields.log.ignored.values += left_out as u64;
        fields.warn(first, |path| format!("{path} and what follows it is left out"), Some(&format!("at most {limit}")));
    }
    array.items().take(limit).filter_map(|item| read(fields, item)).collect()
}

fn cpus(fields: &mut Fields<'_>, array: Value<'_>) -> (Vec<Cpu>, Vec<Block>) {
    let mut numbers = BTreeSet::new();
    let cpus = list(fields, array, MAX_CPUS, |fields, value| {
        let free = numbers.last().map_or(0, |&last: &u32| last.saturating_add(1));
        let (cpu, block) = cpu(fields, value, free)?;
        if !numbers.insert(cpu.id) {
            fields.log.ignored.values += 1;
            fields.warn(value, |path| format!("{path}: CPU {} for the second time; it is left out", cpu.id), None);
            return None;
        }
        Some((cpu, block))
    });
    cpus.into_iter().unzip()
}

fn cpu(fields: &mut Fields<'_>, object: Value<'_>, free: u32) -> Option<(Cpu, Block)> {
    let mut cpu = Cpu { id: free, ..Cpu::default() };
    let mut block = Block::Follows;
    let is_object = fields.each(object, "cpus[]", |fields, key, value| {
        match key {
            "cpu" => cpu.id = fields.u32(value).unwrap_or(free),
            "cpuid" if fields.is_array(value) => {
                for item in value.items() {
                    if let Some(entry) = fields.entry(item, "cpus[].cpuid[]") {
                        fields.insert(&mut cpu.cpuid, entry, item);
                    }
                }
            }
            "cpuid" => {}
            "msrs" => cpu.msrs = msrs(fields, value),
            "cpuinfo" => {
                block = Block::Told;
                cpu.cpuinfo = if value.bool() == Some(false) { None } else { cpuinfo(fields, value) };
            }
            _ => return false,
        }
        true
    });
    is_object.then_some((cpu, block))
}

/// `{"0x0000010a":"0x0000000000000069"}`; `null` is a refused read.
pub(crate) fn msrs(fields: &mut Fields<'_>, object: Value<'_>) -> MsrTable {
    let mut table = MsrTable::default();
    if object.kind() != Kind::Object {
        fields.wrong(object, "an object");
    }
    for (key, value) in object.members() {
        if table.len() >= MAX_MSRS {
            fields.log.ignored.values += 1;
            fields.warn(value, |path| format!("{path} is left out"), Some(&format!("at most {MAX_MSRS} MSRs")));
            continue;
        }
        let Some(index) = fields.hex_key(&key, value) else { continue };
        if value.kind() == Kind::Null {
            table.insert(index, MsrReading::Unreadable);
        } else if let Some(number) = fields.hex64(value) {
            table.insert(index, MsrReading::Value(number));
        }
    }
    table
}

fn cpuinfo(fields: &mut Fields<'_>, object: Value<'_>) -> Option<Cpuinfo> {
    let mut block = Cpuinfo::default();
    let is_object = fields.each(object, "cpus[].cpuinfo", |fields, key, value| {
        let identity = &mut block.identity;
        match key {
            "vendor" => identity.vendor = fields.text(value),
            "family" => identity.family = fields.u32(value),
            "model" => identity.model = fields.u32(value),
            "stepping" => identity.stepping = fields.u32(value),
            "brand" => identity.brand = fields.text(value),
            "microcode" => identity.microcode = fields.hex64(value),
            "flags" => block.flags = flags(fields, value),
            "vmx_flags" => block.vmx_flags = flags(fields, value),
            "bugs" => block.bugs = flags(fields, value),
            "other" => block.other = list(fields, value, MAX_FIELDS, pair),
            _ => return false,
        }
        true
    });
    is_object.then_some(block)
}

fn flags(fields: &mut Fields<'_>, array: Value<'_>) -> Option<FlagList> {
    if !fields.is_array(array) {
        return None;
    }
    let names = list(fields, array, MAX_ENTRIES, |fields, name| fields.text(name));
    Some(names.iter().map(String::as_str).collect())
}

fn pair(fields: &mut Fields<'_>, array: Value<'_>) -> Option<(Box<str>, Box<str>)> {
    let mut texts = array.items().map(Value::text);
    if let (Some(Some(name)), Some(Some(value)), None) = (texts.next(), texts.next(), texts.next()) {
        return Some((name.into(), value.into()));
    }
    fields.wrong(array, "a name and a value, both strings");
    None
}

fn linux(fields: &mut Fields<'_>, object: Value<'_>) -> Option<LinuxView> {
    let mut linux = LinuxView::default();
    let is_object = fields.each(object, "linux", |fields, key, value| {
        match key {
            "release" => linux.release = fields.text(value),
            "cmdline" => linux.cmdline = fields.text(value),
            "cpuinfo" => linux.cpuinfo = fields.text(value),
            "config" => linux.config = texts(fields, value),
            _ => return false,
        }
        true
    });
    is_object.then_some(linux)
}

/// An object whose values are strings.
fn texts(fields: &mut Fields<'_>, object: Value<'_>) -> Option<BTreeMap<String, String>> {
    fields.map(object, |fields, key, value| Some((key.to_owned(), fields.text(value)?)))
}

fn kvm(fields: &mut Fields<'_>, object: Value<'_>) -> Option<KvmView> {
    let mut kvm = KvmView::default();
    let is_object = fields.each(object, "kvm", |fields, key, value| {
        match key {
            "supported" => kvm.supported = kvm_entries(fields, value, "kvm.supported[]"),
            "emulated" => kvm.emulated = kvm_entries(fields, value, "kvm.emulated[]"),
            "hyperv" => kvm.hyperv = kvm_entries(fields, value, "kvm.hyperv[]"),
            "msr_features" => kvm.msr_features = features(fields, value),
            "msr_index" if fields.is_array(value) => {
                kvm.msr_index = Some(list(fields, value, MAX_MSRS, |fields, index| fields.hex32(index)));
            }
            "msr_index" => {}
            "caps" => kvm.caps = caps(fields, value),
            "xcomp_guest_supp" => kvm.xcomp_guest_supp = fields.hex64(value),
            "tsc_khz" => kvm.tsc_khz = fields.u64(value),
            "params" => kvm.params = texts(fields, value).unwrap_or_default(),
            _ => return false,
        }
        true
    });
    is_object.then_some(kvm)
}

pub(super) fn kvm_entries(fields: &mut Fields<'_>, array: Value<'_>, place: &str) -> Option<Vec<KvmCpuidEntry>> {
    if !fields.is_array(array) {
        return None;
    }
    Some(list(fields, array, MAX_ENTRIES, |fields, value| fields.entry(value, place)))
}

/// Feature MSRs by index.
pub(crate) fn features(fields: &mut Fields<'_>, object: Value<'_>) -> Option<BTreeMap<u32, u64>> {
    fields.map(object, |fields, key, value| Some((fields.hex_key(key, value)?, fields.hex64(value)?)))
}

/// Capabilities of KVM by number.
pub(crate) fn caps(fields: &mut Fields<'_>, object: Value<'_>) -> BTreeMap<u32, i64> {
    let caps = fields.map(object, |fields, key, value| {
        let Ok(number) = key.parse() else {
            let what = |path: &str| format!("{path}: the key is not the number of a KVM capability");
            fields.warn(value, what, Some("a decimal number"));
            return None;
        };
        Some((number, fields.i64(value)?))
    });
    caps.unwrap_or_default()
}

fn qemu(fields: &mut Fields<'_>, object: Value<'_>) -> Option<QemuBinary> {
    let mut qemu = QemuBinary::default();
    let is_object = fields.each(object, "qemu[]", |fields, key, value| {
        match key {
            "version" => qemu.version = fields.text(value).unwrap_or_default(),
            "path" => qemu.path = fields.text(value).unwrap_or_default(),
            _ => return false,
        }
        true
    });
    is_object.then_some(qemu)
}

pub(super) fn expansion(fields: &mut Fields<'_>, object: Value<'_>) -> Option<ModelExpansion> {
    let mut expansion = ModelExpansion::default();
    let is_object = fields.each(object, "expansions[]", |fields, key, value| {
        match key {
            "name" => expansion.name = fields.text(value).unwrap_or_default(),
            "flags" => {
                let flags = fields.map(value, |fields, key, value| Some((key.to_owned(), fields.bool(value)?)));
                expansion.flags = flags.unwrap_or_default();
            }
            "other" => expansion.other = texts(fields, value).unwrap_or_default(),
            _ => return false,
        }
        true
    });
    is_object.then_some(expansion)
}

fn missing(fields: &mut Fields<'_>, object: Value<'_>) -> Option<MissingPart> {
    let mut part = MissingPart { what: String::new(), why: String::new(), remedy: None };
    let is_object = fields.each(object, "missing[]", |fields, key, value| {
        match key {
            "what" => part.what = fields.text(value).unwrap_or_default(),
            "why" => part.why = fields.text(value).unwrap_or_default(),
            "remedy" => part.remedy = fields.text(value),
            _ => return false,
        }
        true
    });
    is_object.then_some(part)
}
