//! Events as they come: bytes in pieces of any size, events out, one line of memory.

use super::{MAX_FRAMES, MAX_LINE, Skipped, frame, line};
use crate::event::{self, Event, HOST_CPUID, What};

/// Reads a stream of event lines.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
    /// Whether the line is too long, and all of it is left out.
    too_long: bool,
    lines: u64,
    skipped: Skipped,
    stack: Option<Stack>,
    /// Whether the last event was a call whose stack may follow in `perf script`'s form.
    called: Option<(String, u32)>,
}

/// A stack of which frames are still coming.
#[derive(Clone, Debug)]
struct Stack {
    comm: String,
    pid: u32,
    frames: Vec<String>,
}

impl Reader {
    /// Takes the next bytes and hands over the events that they complete.
    pub fn push(&mut self, bytes: &[u8], sink: &mut impl FnMut(&Event<'_>)) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let whole = piece.last() == Some(&b'\n');
            if self.partial.len() + piece.len() > MAX_LINE {
                self.too_long = true;
                self.partial.clear();
            } else if self.partial.is_empty() && whole && !self.too_long {
                // The usual case, without a copy.
                self.line(&String::from_utf8_lossy(piece), sink);
                continue;
            } else if !self.too_long {
                self.partial.extend_from_slice(piece);
            }
            if whole {
                self.end_line(sink);
            }
        }
    }

    /// Says that nothing more comes.
    pub fn finish(&mut self, sink: &mut impl FnMut(&Event<'_>)) {
        if !self.partial.is_empty() || self.too_long {
            self.end_line(sink);
        }
        self.end_stack(sink);
    }

    /// The lines that were not understood.
    #[must_use]
    pub const fn skipped(&self) -> Skipped {
        self.skipped
    }

    fn end_line(&mut self, sink: &mut impl FnMut(&Event<'_>)) {
        let line = std::mem::take(&mut self.partial);
        if std::mem::take(&mut self.too_long) {
            self.lines += 1;
            self.skipped.line(self.lines);
        } else {
            self.line(&String::from_utf8_lossy(&line), sink);
        }
    }

    fn line(&mut self, line: &str, sink: &mut impl FnMut(&Event<'_>)) {
        self.lines += 1;
        let line = line.trim_end();
        let nobody = |what| Event { comm: "", pid: None, what };
        if let Some(header) = line::header(line) {
            self.end_stack(sink);
            self.called = None;
            self.event(header, sink);
        } else if let Some(lost) = line::lost(line) {
            self.end_stack(sink);
            sink(&nobody(What::Lost(lost)));
        } else if line.is_empty() {
            self.end_stack(sink);
            self.called = None;
        } else if line.starts_with('#') {
            if let Some(lost) = line::overwritten(line) {
                sink(&nobody(What::Lost(Some(lost))));
            }
        } else if !self.frame(line) && !is_preamble(line) {
            self.skipped.line(self.lines);
        }
    }

    fn event(&mut self, header: line::Header<'_>, sink: &mut impl FnMut(&Event<'_>)) {
        let line::Header { comm, pid, rest } = header;
        let what = match line::event(rest) {
            // tracefs prints it as a name of its own, trace-cmd with a space and as the kernel's internal event.
            _ if rest.contains("<stack trace") => {
                self.stack = Some(Stack { comm: comm.to_owned(), pid, frames: Vec::new() });
                return;
            }
            Some((name, text)) if !rest.contains(" <-") => event::what(name.trim_start_matches("probe:"), text),
            named => event::function(named.map_or(rest, |(_, text)| text)).unwrap_or(What::Other),
        };
        if matches!(what, What::HostCpuid { .. }) {
            self.called = Some((comm.to_owned(), pid));
        }
        sink(&Event { comm, pid: Some(pid), what });
    }

    /// A line of a stack: ` => do_host_cpuid` (tracefs), `=> do_host_cpuid (ffffffffc0a1)` (trace-cmd), or
    /// `ffffffffc0a1 do_host_cpuid+0x1 ([kvm])`, indented (perf, right below the event).
    fn frame(&mut self, line: &str) -> bool {
        let text = line.trim_start();
        if let (Some(stack), Some(text)) = (&mut self.stack, text.strip_prefix("=>")) {
            push_frame(&mut stack.frames, frame(text));
            return true;
        }
        let Some((address, name)) = text.split_once(' ') else { return false };
        let is_perf = line.starts_with([' ', '\t']) && address.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_perf || (self.stack.is_none() && self.called.is_none()) {
            return false;
        }
        if let Some((comm, pid)) = self.called.take() {
            self.stack = Some(Stack { comm, pid, frames: Vec::new() });
        }
        if let Some(stack) = &mut self.stack {
            push_frame(&mut stack.frames, frame(name));
        }
        true
    }

    fn end_stack(&mut self, sink: &mut impl FnMut(&Event<'_>)) {
        let Some(Stack { comm, pid, mut frames }) = self.stack.take().filter(|stack| !stack.frames.is_empty()) else {
            return;
        };
        // The function tracer's own code comes first: without a name, or, where several look at one function, with several
        // (`arch_ftrace_ops_list_func`, `ftrace_regs_call`).
        let own = frames.iter().take_while(|name| name.starts_with("0x") || name.contains("ftrace")).count();
        frames.drain(..own);
        let is_host = frames.first().is_some_and(|name| HOST_CPUID.contains(&name.as_str()));
        let what = if is_host { What::Stack(&frames) } else { What::Other };
        sink(&Event { comm: &comm, pid: Some(pid), what });
    }
}

fn push_frame(frames: &mut Vec<String>, name: &str) {
    if frames.len() < MAX_FRAMES && !name.is_empty() {
        frames.push(name.to_owned());
    }
}

/// What `trace-cmd report` says first.
fn is_preamble(line: &str) -> bool {
    ["version = ", "cpus=", "CPU ", "trace.dat", "Time:"].iter().any(|start| line.trim_start().starts_with(start))
}
