//! What other programs printed about the same events: `trace_pipe` and `trace` of tracefs, `perf script`, `trace-cmd report`,
//! histograms of tracefs, bcc's `stackcount`, `bpftrace` maps.
//!
//! The text is untrusted: lines and tables are bounded, what is not understood is counted, nothing panics.

mod hist;
mod line;
mod maps;
mod stacks;
mod stream;

use std::fmt;

use crate::count::Counts;
use crate::event::{HOST_CPUID, What};

pub(crate) use hist::NOT_FOUND;
pub use hist::{Histogram, histograms};
pub use stream::Reader;

/// The most bytes of one line; longer lines are skipped.
pub const MAX_LINE: usize = 16 << 10;

/// The most frames of one stack that are kept: the kernel's own bound is 127 (`kernel.perf_event_max_stack`).
pub const MAX_FRAMES: usize = 128;

/// The form of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One event a line: `trace_pipe`, `trace`, `perf script`, `trace-cmd report`.
    Events,
    /// A `hist` file of tracefs.
    Histogram,
    /// Maps as `bpftrace` prints them.
    Maps,
    /// Stacks with a count below each, as `stackcount` prints them.
    Stacks,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Events => "trace events",
            Self::Histogram => "tracefs histogram",
            Self::Maps => "bpftrace maps",
            Self::Stacks => "stackcount",
        })
    }
}

/// What a text holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// Its form.
    pub form: Form,
    /// What was counted.
    pub counts: Counts,
    /// Lines that were not understood.
    pub ignored: u64,
    /// The first of them, counted from 1.
    pub first_ignored: Option<u64>,
}

/// Reads a text of any of these forms; `None` if it looks like none of them.
///
/// ```
/// use cpusieve_trace::read::{Form, read};
///
/// let line = b"       CPU 0/KVM-208     [000] .....    67.845586: kvm_cpuid: func 40000000 idx 6 rax 40000001 rbx \
///     4b4d564b rcx 564b4d56 rdx 4d, cpuid entry found\n";
/// let text = read(line).unwrap();
/// assert_eq!(text.form, Form::Events);
/// assert_eq!(text.counts.guests.cpuid.total(), 1);
/// assert_eq!(text.counts.tasks[&208].comm, "CPU 0/KVM");
/// ```
#[must_use]
pub fn read(bytes: &[u8]) -> Option<Text> {
    let text = String::from_utf8_lossy(bytes);
    let form = recognise(&text)?;
    let mut counts = Counts::default();
    let skipped = match form {
        Form::Events => {
            let mut reader = Reader::default();
            reader.push(bytes, &mut |event| counts.add(event));
            reader.finish(&mut |event| counts.add(event));
            reader.skipped()
        }
        Form::Histogram => hist::count(&text, &mut counts),
        Form::Maps => maps::count(&text, &mut counts),
        Form::Stacks => stacks::count(&text, &mut counts),
    };
    Some(Text { form, counts, ignored: skipped.lines, first_ignored: skipped.first })
}

/// Lines that were not understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// How many.
    pub lines: u64,
    /// The first, counted from 1.
    pub first: Option<u64>,
}

impl Skipped {
    fn line(&mut self, number: u64) {
        self.lines += 1;
        self.first.get_or_insert(number);
    }
}

fn recognise(text: &str) -> Option<Form> {
    let mut stack = false;
    for line in text.lines().filter(|line| line.len() <= MAX_LINE) {
        if line.starts_with("# event histogram") || (line.starts_with('{') && line.contains("} hitcount:")) {
            return Some(Form::Histogram);
        }
        if line.starts_with("# tracer:") || line::header(line).is_some() || line::lost(line).is_some() {
            return Some(Form::Events);
        }
        if line.starts_with('@') && (line.contains("]: ") || line.ends_with('[') || line.contains(": ")) {
            return Some(Form::Maps);
        }
        stack |= stacks::is_stack(line);
    }
    stack.then_some(Form::Stacks)
}

/// A frame without its address, offset and module: `ffffffffc0a1 do_host_cpuid+0x5/0x140 [kvm]` is `do_host_cpuid`. An
/// address without a name stays.
fn frame(text: &str) -> &str {
    let text = text.trim().trim_start_matches("=>").trim_start();
    let text = text.strip_prefix("b'").map_or(text, |text| text.trim_end_matches('\''));
    let mut words = text.split_whitespace();
    let (first, second) = (words.next().unwrap_or(""), words.next());
    let is_address = first.len() >= 8 && first.bytes().all(|byte| byte.is_ascii_hexdigit());
    let name = second.filter(|_| is_address).unwrap_or(first);
    name.split('+').next().unwrap_or(name)
}

/// What a stack counts: a call of KVM's if it ends in one.
fn of_stack(asked: Option<(u32, Option<u32>)>, stack: &[String]) -> What<'_> {
    let is_host = stack.iter().take(2).any(|name| HOST_CPUID.contains(&name.as_str()));
    if is_host { What::HostCpuid { asked, stack } } else { What::Other }
}
