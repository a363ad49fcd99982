//! `lscpu`, as text or with `-J` as JSON: one machine's flags, as the kernel names them.
//!
//! This is the kernel's view and not CPUID. It is kept as the block of `/proc/cpuinfo` of one CPU. `Vulnerability ...`
//! lines are no flags; they and all else stand among the other fields, under the names that `lscpu` gives them. `lscpu`
//! translates its names: those of other languages are not known here.

use cpusieve_model::{Cpu, Cpuinfo, FlagList, Snapshot};

use crate::diagnostic::{Log, quote};
use crate::json::{Document, Fields, Value};
use crate::limits::MAX_FIELDS;
use crate::text::{Lines, to_text};
use crate::{Format, Parsed};

/// Reads `lscpu` text or JSON.
#[must_use]
pub fn parse(name: &str, bytes: &[u8]) -> Parsed {
    let mut log = Log::new(name);
    let bytes = crate::text::prepare(&mut log, bytes);
    let is_json = bytes.trim_ascii_start().starts_with(b"{");
    let block = if is_json { json(&bytes, &mut log) } else { text(&bytes, &mut log) };
    let title = block.identity.brand.clone();
    let cpus = vec![Cpu { cpuinfo: Some(block), ..Cpu::default() }];
    let format = if is_json { Format::LscpuJson } else { Format::LscpuText };
    log.finish(format, Snapshot { title, cpus, ..Snapshot::default() })
}

fn text(bytes: &[u8], log: &mut Log) -> Cpuinfo {
    let mut block = Block::default();
    let mut lines = Lines::new(bytes);
    while let Some((line, text)) = lines.next(log) {
        let text = to_text(text);
        match text.split_once(':') {
            Some((name, value)) => block.field(log, line, name.trim(), value.trim()),
            None if text.trim().is_empty() => {}
            None => log.ignored.lines += 1,
        }
    }
    block.finish(log)
}

fn json(bytes: &[u8], log: &mut Log) -> Cpuinfo {
    let document = Document::read(bytes, log);
    let mut block = Block::default();
    let mut fields = Fields::new(log);
    if let Some(root) = document.roots().next() {
        fields.each(root, "", |fields, key, value| {
            if key == "lscpu" {
                rows(fields, value, &mut block);
            }
            key == "lscpu"
        });
    }
    fields.finish();
    block.finish(log)
}

/// An array of `{"field":"Flags:","data":"fpu vme"}`, which newer releases nest under `children`.
///
/// The recursion is as deep as the JSON, which is bounded.
fn rows(fields: &mut Fields<'_>, array: Value<'_>, block: &mut Block) {
    if !fields.is_array(array) {
        return;
    }
    for row in array.items() {
        let (mut name, mut data, mut children) = (None, None, None);
        fields.each(row, "lscpu[]", |fields, key, value| {
            match key {
                "field" => name = fields.text(value),
                "data" => data = fields.text(value),
                "children" => children = Some(value),
                _ => return false,
            }
            true
        });
        if let (Some(name), Some(data)) = (name, data) {
            block.field(fields.log, row.line(), name.trim_end_matches(':').trim(), data.trim());
        }
        if let Some(children) = children {
            rows(fields, children, block);
        }
    }
}

/// The fields while they are read.
#[derive(Default)]
struct Block {
    cpuinfo: Cpuinfo,
    /// Whether a name was met that every `lscpu` of English has.
    is_english: bool,
}

impl Block {
    fn field(&mut self, log: &mut Log, line: u32, name: &str, value: &str) {
        self.is_english |= matches!(name, "Architecture" | "CPU(s)" | "Vendor ID" | "Flags");
        // Machines with CPUs of several types print the identity of each; the first counts, as with every other field.
        let identity = &mut self.cpuinfo.identity;
        let taken = match name {
            "Vendor ID" => set(&mut identity.vendor, || value.to_owned()),
            "Model name" => set(&mut identity.brand, || value.to_owned()),
            "CPU family" => number(log, line, name, value, &mut identity.family),
            "Model" => number(log, line, name, value, &mut identity.model),
            "Stepping" => number(log, line, name, value, &mut identity.stepping),
            "Flags" => set(&mut self.cpuinfo.flags, || FlagList::from_line(value)),
            // The names of the flags are not translated, and every CPU since the i486 has the first.
            _ if value.starts_with("fpu ") => set(&mut self.cpuinfo.flags, || FlagList::from_line(value)),
            _ => false,
        };
        if taken {
            return;
        }
        if self.cpuinfo.other.len() >= MAX_FIELDS {
            log.ignored.fields += 1;
            log.warning_expected(
                line,
                format!("{} is left out", quote(name.as_bytes())),
                format!("at most {MAX_FIELDS} fields"),
            );
            return;
        }
        self.cpuinfo.other.push((name.into(), value.into()));
    }

    fn finish(self, log: &mut Log) -> Cpuinfo {
        if !self.is_english {
            log.warning_expected(0, "names that are not English", "the output of LC_ALL=C lscpu");
        }
        if self.cpuinfo.flags.is_none() {
            log.error_expected(0, "no flags", "a line \"Flags:\" with the names of the CPU's features");
        }
        self.cpuinfo
    }
}

/// Fills a field that is empty, and says whether it was.
fn set<T>(field: &mut Option<T>, value: impl FnOnce() -> T) -> bool {
    let empty = field.is_none();
    if empty {
        *field = Some(value());
    }
    empty
}

/// Fills a field that is empty with a decimal number, and says whether it did.
fn number(log: &mut Log, line: u32, name: &str, value: &str, field: &mut Option<u32>) -> bool {
    match value.parse() {
        Ok(number) => set(field, || number),
        // lscpu prints a dash for what the kernel did not tell.
        Err(_) if value == "-" => false,
        Err(_) => {
            log.warning_expected(line, format!("{name} is {}", quote(value.as_bytes())), "a decimal number");
            false
        }
    }
}
