//! Stacks as bcc's `stackcount` prints them: the innermost function first, one a line, and the count below.

use super::{MAX_FRAMES, MAX_LINE, Skipped, frame, of_stack};
use crate::count::Counts;
use crate::event::Event;

/// Whether a line may belong to such a text.
pub(super) fn is_stack(line: &str) -> bool {
    count_of(line).is_some()
        || line.contains(';') && line.rsplit_once(' ').is_some_and(|(_, n)| n.parse::<u64>().is_ok())
}

/// Counts the stacks of a text, folded (`-f`: outermost first, `a;b;c 58`) or not.
pub(super) fn count(text: &str, counts: &mut Counts) -> Skipped {
    let mut skipped = Skipped::default();
    let (mut stack, mut task): (Vec<String>, _) = (Vec::new(), None);
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_end();
        if line.len() > MAX_LINE {
            skipped.line(number);
        } else if let Some(count) = count_of(line).filter(|_| !stack.is_empty()) {
            add(&stack, task.take(), count, counts);
            stack.clear();
        } else if let Some((frames, count)) = folded(line) {
            add(&frames, None, count, counts);
        } else if line.trim_start() == "--" || line.is_empty() || line.trim() == "[Missed Kernel Stack]" {
            // Separators, of user and kernel stacks (-d) and of stacks.
        } else if !line.starts_with([' ', '\t']) {
            // "Tracing 1 functions for ...", "Detaching...": what it says of itself, and times (-T).
            let is_time = line.bytes().all(|byte| byte.is_ascii_digit() || byte == b':');
            if !is_time && !["Tracing ", "Detaching", "^C"].iter().any(|start| line.starts_with(start)) {
                skipped.line(number);
            }
        } else if let Some(of) = task_of(line) {
            task = Some(of);
        } else if stack.len() < MAX_FRAMES {
            stack.push(frame(line).to_owned());
        }
    }
    skipped
}

fn add(stack: &[String], task: Option<(&str, u32)>, count: u64, counts: &mut Counts) {
    let (comm, pid) = task.map_or(("", None), |(comm, pid)| (comm, Some(pid)));
    counts.add_many(&Event { comm, pid, what: of_stack(None, stack) }, count);
}

/// A count, alone on its line and indented.
fn count_of(line: &str) -> Option<u64> {
    line.starts_with([' ', '\t']).then(|| line.trim().parse().ok()).flatten()
}

/// `    qemu-system-x86 [1234]`, with `-P`.
fn task_of(line: &str) -> Option<(&str, u32)> {
    let (comm, pid) = line.strip_prefix("    ")?.strip_suffix(']')?.rsplit_once('[')?;
    Some((comm.trim(), pid.parse().ok()?))
}

fn folded(line: &str) -> Option<(Vec<String>, u64)> {
    let (frames, count) = line.rsplit_once(' ')?;
    let count = count.parse().ok().filter(|_| frames.contains(';'))?;
    let frames = frames.split(';').map(|name| frame(name).to_owned()).filter(|name| !name.is_empty());
    let mut frames: Vec<_> = frames.take(MAX_FRAMES).collect();
    frames.reverse();
    Some((frames, count))
}
