//! Histograms of tracefs (`events/*/*/hist`, `kernel/trace/trace_events_hist.c`).

use super::{MAX_FRAMES, MAX_LINE, Skipped, frame, of_stack};
use crate::count::Counts;
use crate::event::{Event, What, hexadecimal};

/// The filter on `kvm:kvm_cpuid` for questions to which the vCPU's table has no entry.
pub(crate) const NOT_FOUND: &str = "found == 0";

/// One histogram: a trigger's counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// The trigger, as the kernel prints it: `hist:keys=function.hex,...`. Empty if the text does not show it.
    pub trigger: String,
    /// The rows.
    pub rows: Vec<Row>,
    /// Hits in all, those without a row included.
    pub hits: Option<u64>,
    /// Hits for which there was no row left.
    pub dropped: u64,
}

/// One row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// The keys' names and values, as printed.
    pub keys: Vec<(String, String)>,
    /// A stack that is a key, innermost function first.
    pub stack: Vec<String>,
    /// How many.
    pub count: u64,
}

impl Row {
    /// The text of one key. A thread's name may look like a key; it stands before the others.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<&str> {
        self.keys.iter().rfind(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Rows in one text; a histogram has at most 131,072 (`TRACING_MAP_BITS_MAX`).
const MAX_ROWS: usize = 1 << 18;

/// Keys of one row; the kernel's own bound is 3 (`TRACING_MAP_KEYS_MAX`).
const MAX_KEYS: usize = 8;

/// Reads the histograms of one `hist` file, and the lines that were not understood.
#[must_use]
pub fn histograms(text: &str) -> (Vec<Histogram>, Skipped) {
    let (mut found, mut skipped): (Vec<Histogram>, _) = (Vec::new(), Skipped::default());
    let (mut open, mut rows): (Option<Row>, _) = (None, 0);
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_end();
        if let Some(info) = line.strip_prefix("# trigger info: ") {
            let trigger = info.rsplit_once(" [").map_or(info, |(trigger, _)| trigger).to_owned();
            found.push(Histogram { trigger, ..Histogram::default() });
            open = None;
            continue;
        }
        if line.is_empty() || line.starts_with('#') || line == "Totals:" || line.starts_with("    Entries: ") {
            continue;
        }
        if found.is_empty() {
            found.push(Histogram::default());
        }
        let Some(histogram) = found.last_mut() else { continue };
        if let Some(hits) = line.strip_prefix("    Hits: ") {
            histogram.hits = hits.parse().ok();
        } else if let Some(dropped) = line.strip_prefix("    Dropped: ") {
            histogram.dropped = dropped.parse().unwrap_or(0);
        } else if line.len() > MAX_LINE || rows >= MAX_ROWS || !take(line, &mut open, histogram) {
            skipped.line(number);
        } else {
            rows = rows.saturating_add(usize::from(open.is_none()));
        }
    }
    (found, skipped)
}

/// Takes a line of a row: `{ function: 1a, index: 0 } hitcount: 5`, or its first, its frames and its last line if it holds a
/// stack. `false` if it is none.
fn take(line: &str, open: &mut Option<Row>, histogram: &mut Histogram) -> bool {
    if let Some(inside) = line.strip_prefix("{ ") {
        let (keys, values) = inside.split_once("} ").map_or((inside, None), |(keys, values)| (keys, Some(values)));
        let mut row = Row { keys: keys_of(keys, &histogram.trigger), ..Row::default() };
        match values {
            Some(values) => {
                let Some(count) = hitcount(values) else { return false };
                row.count = count;
                histogram.rows.push(row);
            }
            None => *open = Some(row),
        }
        return true;
    }
    let Some(row) = open else { return false };
    match line.split_once("} ") {
        Some((keys, values)) => {
            row.keys.extend(keys_of(keys.trim_start_matches([',', ' ']), &histogram.trigger));
            let Some(count) = hitcount(values) else { return false };
            row.count = count;
            histogram.rows.extend(open.take());
        }
        None if row.stack.len() < MAX_FRAMES => row.stack.push(frame(line).to_owned()),
        None => {}
    }
    true
}

fn hitcount(values: &str) -> Option<u64> {
    values.split_once("hitcount:")?.1.split_whitespace().next()?.parse().ok()
}

/// `common_pid: CPU 0/KVM       [       208], function:         1a`. A name may hold commas and colons: only what the trigger
/// lists is a key, if the trigger is known.
fn keys_of(text: &str, trigger: &str) -> Vec<(String, String)> {
    let listed = trigger.split_once("keys=").map(|(_, rest)| rest.split(':').next().unwrap_or(rest));
    let is_key = |name: &str| match listed {
        Some(listed) => listed.split(',').any(|key| key.split('.').next() == Some(name)),
        None => !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
    };
    let mut keys: Vec<(String, String)> = Vec::new();
    for part in text.split(", ") {
        let named = part.split_once(':').filter(|(name, _)| is_key(name));
        match named {
            Some(_) if keys.len() >= MAX_KEYS => break,
            Some((name, value)) => keys.push((name.to_owned(), value.trim().to_owned())),
            None => {
                if let Some((_, value)) = keys.last_mut() {
                    *value = format!("{value}, {}", part.trim());
                }
            }
        }
    }
    keys
}

/// Counts all histograms of a text.
pub(super) fn count(text: &str, counts: &mut Counts) -> Skipped {
    let (histograms, skipped) = histograms(text);
    for histogram in &histograms {
        histogram.count(counts);
    }
    skipped
}

impl Histogram {
    /// Adds the rows to `counts`.
    pub fn count(&self, counts: &mut Counts) {
        for row in &self.rows {
            let (comm, pid) = row.task();
            let pid = pid.and_then(|pid| u32::try_from(pid).ok());
            let event = |what| Event { comm, pid, what };
            match self.what(row) {
                Some(what) => counts.add_many(&event(what), row.count),
                None => counts.others = counts.others.saturating_add(row.count),
            }
        }
        counts.lost.events = counts.lost.events.saturating_add(self.dropped);
    }

    /// What the rows count, by the names of their keys.
    fn what<'a>(&self, row: &'a Row) -> Option<What<'a>> {
        let number = |name: &str| self.number(row, name);
        let small = |name: &str| number(name).and_then(|value| u32::try_from(value).ok());
        if let (Some(leaf), Some(subleaf), true) = (small("function"), small("index"), self.only_not_found()) {
            return Some(What::NotFound { leaf, subleaf });
        }
        if let Some(leaf) = small("function") {
            return Some(What::Cpuid { leaf, subleaf: small("index"), found: None });
        }
        if let Some(rip) = number("guest_rip") {
            return Some(What::Rip(rip));
        }
        if let Some(reason) = number("exit_reason") {
            let intel = number("isa").unwrap_or(1) == 1;
            return Some(What::Exit { vcpu: small("vcpu_id"), reason: reason_name(intel, reason), rip: None });
        }
        let asked = small("leaf").map(|leaf| (leaf, small("subleaf")));
        if asked.is_some() {
            return Some(What::HostCpuid { asked, stack: &row.stack });
        }
        (!row.stack.is_empty()).then(|| of_stack(None, &row.stack))
    }

    /// Whether only CPUIDs without an entry in the vCPU's table are counted.
    fn only_not_found(&self) -> bool {
        self.trigger.ends_with(&format!(" if {NOT_FOUND}"))
    }

    /// A key's number: the trigger says whether it is printed as hexadecimal.
    fn number(&self, row: &Row, name: &str) -> Option<u64> {
        let text = row.key(name)?;
        let is_hex = self.trigger.split([':', ',', '=']).any(|word| word.strip_suffix(".hex") == Some(name));
        if is_hex || text.starts_with("0x") { hexadecimal(text) } else { text.parse().ok() }
    }
}

impl Row {
    /// `CPU 0/KVM       [       208]`, or the number alone.
    fn task(&self) -> (&str, Option<u64>) {
        let Some(text) = self.key("common_pid") else { return ("", None) };
        let named = text.strip_suffix(']').and_then(|text| text.rsplit_once('['));
        named.map_or(("", text.parse().ok()), |(comm, pid)| (comm.trim(), pid.trim().parse().ok()))
    }
}

/// The exits that matter here, by number: CPUID's (Intel SDM volume 3, appendix C: 10; AMD APM volume 2, appendix C: 72H).
/// The other reasons are shown as numbers.
fn reason_name(intel: bool, reason: u64) -> &'static str {
    match (intel, reason & 0xffff) {
        (true, 10) => "CPUID",
        (false, 0x72) => "cpuid",
        _ => "other",
    }
}
