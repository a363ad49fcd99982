//! KVM's own CPUIDs by the function tracer: where the kernel has no kprobes, or by choice.

use std::io;

use super::{Source, Watch};
use crate::event::HOST_CPUID;
use crate::tracefs::{Refusal, Session};

/// What this way needs.
const NEEDED: &str = "a kernel with kprobes (CONFIG_KPROBE_EVENTS), or one with CONFIG_FUNCTION_TRACER, KVM's module loaded, and \
                      do_host_cpuid among the functions that may be traced (available_filter_functions)";

pub(super) fn functions(mut session: Session) -> Result<Watch, Refusal> {
    let mut found = Vec::new();
    if !session.files().exists("kprobe_events") {
        found.push("the kernel has no kprobes".to_owned());
    }
    let tracers = session.files().read("available_tracers").unwrap_or_default();
    let filter = session.path("", "set_ftrace_filter");
    if !tracers.split_whitespace().any(|name| name == "function") || !session.files().exists(&filter) {
        found.push("it has no function tracer that takes a filter".to_owned());
        return Err(Refusal::HostCalls { found, needed: NEEDED });
    }
    if let Err(problem) = point(&session, &filter) {
        found.push(format!("its function tracer cannot be pointed at do_host_cpuid ({problem})"));
        return Err(Refusal::HostCalls { found, needed: NEEDED });
    }
    session.switch(&session.path("", "current_tracer"), "function", "nop")?;
    // Options of a tracer are there once it is chosen. Arguments came with 6.15, and exclude stacks.
    if session.set(&session.path("", "trace_options"), "func-args").is_err() {
        session.set(&session.path("", "trace_options"), "func_stack_trace")?;
    }
    // While somebody reads, the kernel lets nobody choose a tracer.
    let pipe = session.pipe()?;
    Ok(Watch::over(session, Source::Functions, Some(pipe)))
}

/// Lets the tracer see KVM's function alone. Without a filter every function of the kernel would be traced, so what was
/// written is read back.
fn point(session: &Session, filter: &str) -> Result<(), String> {
    let mut refused: Option<io::Error> = None;
    for function in HOST_CPUID {
        match session.files().write(filter, function) {
            Ok(()) => {
                let filtered = session.files().read(filter).map_err(|error| format!("set_ftrace_filter: {error}"))?;
                let is_set = filtered.lines().any(|line| line.split_whitespace().next() == Some(function));
                return if is_set { Ok(()) } else { Err("set_ftrace_filter does not keep it".to_owned()) };
            }
            Err(error) => drop(refused.get_or_insert(error)),
        }
    }
    Err(refused.map_or_else(String::new, |error| format!("set_ftrace_filter: {error}")))
}
