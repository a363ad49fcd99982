//! One line of a trace: who, where, when, and the rest.

/// What stands before an event's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header<'a> {
    pub(super) comm: &'a str,
    pub(super) pid: u32,
    /// The event's name and its text, or the function tracer's text.
    pub(super) rest: &'a str,
}

/// Reads `   CPU 0/KVM-208     [000] .....    67.845586: kvm_cpuid: ...` (tracefs and trace-cmd; `perf script` has a space
/// in place of the dash, tracefs may have `(tgid)` before the CPU, trace-cmd has no flags).
///
/// A name may hold anything, brackets too: the first place where a CPU in brackets stands between a number and a time is
/// taken.
pub(super) fn header(line: &str) -> Option<Header<'_>> {
    let mut from = 0;
    loop {
        let open = from + line.get(from..)?.find('[')?;
        if let Some(header) = header_at(line, open) {
            return Some(header);
        }
        from = open + 1;
    }
}

/// The header whose CPU's bracket opens at `open`.
fn header_at(line: &str, open: usize) -> Option<Header<'_>> {
    let (cpu, after) = line.get(open + 1..)?.split_once(']')?;
    if cpu.is_empty() || !cpu.trim_start().bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut before = line.get(..open)?.trim_end();
    if let Some(inner) = before.strip_suffix(')') {
        let (rest, tgid) = inner.rsplit_once('(')?;
        if !tgid.trim().bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
            return None;
        }
        before = rest.trim_end();
    }
    let digits = before.len() - before.bytes().rev().take_while(u8::is_ascii_digit).count();
    let pid = before.get(digits..)?.parse().ok()?;
    let comm = before.get(..digits)?;
    // perf may print the process and the thread: `123/124`.
    let comm = comm.strip_suffix('/').map_or(comm, |comm| comm.trim_end_matches(|c: char| c.is_ascii_digit()));
    let comm = comm.strip_suffix('-').or_else(|| comm.strip_suffix(' '))?.trim();
    let mut rest = after.trim_start();
    let (mut word, mut left) = first_word(rest);
    if !is_time(word) {
        rest = left;
        (word, left) = first_word(rest);
        if !is_time(word) {
            return None;
        }
    }
    Some(Header { comm, pid, rest: left.trim() })
}

fn first_word(text: &str) -> (&str, &str) {
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (word, rest) = text.split_at_checked(end).unwrap_or((text, ""));
    (word, rest.trim_start())
}

/// `67.845586:`, or with a clock that counts, `1234567:`.
fn is_time(word: &str) -> bool {
    word.strip_suffix(':')
        .is_some_and(|time| !time.is_empty() && time.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
}

/// An event's name and its text: `kvm_cpuid: func ...`, `kvm:kvm_cpuid: func ...`.
pub(super) fn event(rest: &str) -> Option<(&str, &str)> {
    let end = rest.find(": ").or_else(|| rest.strip_suffix(':').map(str::len))?;
    let (name, text) = rest.split_at_checked(end)?;
    let named = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:-.".contains(&byte));
    named.then(|| (name, text.trim_start_matches(':').trim()))
}

/// A line that says that events are missing: `CPU:0 [LOST 12 EVENTS]` (tracefs), `CPU:0 [12 EVENTS DROPPED]` (trace-cmd),
/// `PERF_RECORD_LOST lost 12` (perf). The inner `None`: nobody knows how many.
pub(super) fn lost(line: &str) -> Option<Option<u64>> {
    let ours = line.starts_with("CPU:") && line.contains("EVENTS");
    let number = |text: &str| text.split([' ', '[', ']']).find_map(|word| word.parse().ok());
    if ours && (line.contains("[LOST") || line.contains("DROPPED]")) {
        return Some(line.split_once('[').and_then(|(_, inside)| number(inside)));
    }
    let (_, perf) = line.split_once("PERF_RECORD_LOST")?;
    Some(perf.split_once("lost").and_then(|(_, count)| number(count)))
}

/// `# entries-in-buffer/entries-written: 15909/20000` of a `trace` file: what was written over.
pub(super) fn overwritten(line: &str) -> Option<u64> {
    let (_, numbers) = line.split_once("entries-in-buffer/entries-written:")?;
    let (kept, written) = numbers.split_whitespace().next()?.split_once('/')?;
    let (kept, written): (u64, u64) = (kept.parse().ok()?, written.parse().ok()?);
    written.checked_sub(kept).filter(|&lost| lost > 0)
}
