//! Whose a leftover is, and its removal.
//!
//! Everything that a session makes carries the number of its process, the moment at which that process was started, and
//! the namespace in which the number holds. What belongs to a process that is gone is removed; what belongs to one that
//! runs, or to another namespace, where nobody here can tell, stays.

use super::{Files, session};

/// The process that made something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its number.
    pub pid: u32,
    /// When it was started, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub started: u64,
    /// The inode of its namespace of process numbers.
    pub namespace: u64,
}

/// What all our names begin with.
const PREFIX: &str = "cpusieve";

impl Owner {
    /// This process.
    #[must_use]
    pub fn this() -> Self {
        let pid = std::process::id();
        Self { pid, started: started(pid).unwrap_or(0), namespace: namespace() }
    }

    /// The name of an instance.
    #[must_use]
    pub fn instance(&self) -> String {
        format!("{PREFIX}-{}-{}-{}", self.pid, self.started, self.namespace)
    }

    /// The group of probes.
    #[must_use]
    pub fn group(&self) -> String {
        self.instance().replace('-', "_")
    }

    /// The owner that a name tells: an instance's (which may have a word behind), or a group's (with or without an event).
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let name = name.split('/').next()?;
        let separator = name.strip_prefix(PREFIX)?.chars().next().filter(|c| matches!(c, '-' | '_'))?;
        let mut parts = name.split(separator).skip(1);
        let (pid, started, namespace) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { pid: pid.parse().ok()?, started: started.parse().ok()?, namespace: namespace.parse().ok()? })
    }

    /// Whether the process is known to be gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.namespace == namespace() && started(self.pid) != Some(self.started)
    }
}

/// When a process was started; `None` if it is not there any more. One that has ended and waits for its parent to notice
/// does nothing any more.
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

fn namespace() -> u64 {
    let link = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let text = link.to_string_lossy();
    text.trim_start_matches("pid:[").trim_end_matches(']').parse().unwrap_or(0)
}

/// What was found of earlier sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Instances and probes that were removed.
    pub removed: Vec<String>,
    /// Those that could not be removed, with the kernel's answer.
    pub failed: Vec<String>,
}

/// Removes what sessions left behind whose processes are gone.
pub fn sweep(files: &dyn Files) -> Swept {
    let mut swept = Swept::default();
    let is_stale = |name: &str| Owner::of(name).is_some_and(|owner| owner.is_gone());
    let mut note = |name: String, result: Result<(), String>| match result {
        Ok(()) => swept.removed.push(name),
        Err(problem) => swept.failed.push(format!("{name}: {problem}")),
    };
    let names = files.names("instances").unwrap_or_default();
    let stale: Vec<_> = names.into_iter().filter(|name| is_stale(name)).collect();
    // Probes are in use as long as an instance has them enabled, so every instance is quiet before the first is removed.
    for name in &stale {
        quiet(files, name);
    }
    for probe in probes(files).into_iter().filter(|probe| is_stale(probe)) {
        let result = session::remove_probe(files, &probe);
        note(format!("probe {probe}"), result);
    }
    for name in stale {
        let result = session::remove_instance(files, &name);
        note(format!("instance {name}"), result);
    }
    swept
}

/// Switches everything off in an instance. What fails here shows when the instance is removed.
fn quiet(files: &dyn Files, name: &str) {
    let file = |file: &str| format!("instances/{name}/{file}");
    let _ = files.write(&file("tracing_on"), "0");
    for event in session::TRIGGERED {
        let path = file(&format!("events/{event}/trigger"));
        for trigger in files.read(&path).unwrap_or_default().lines().filter(|line| !line.starts_with('#')) {
            let text = trigger.rsplit_once(" [").map_or(trigger, |(text, _)| text);
            let _ = files.write(&path, &format!("!{text}"));
        }
    }
    let _ = files.write(&file("events/enable"), "0");
    let _ = files.write(&file("current_tracer"), "nop");
}

/// The probes of kprobe_events: `p:group/event place arguments`, as `group/event`.
fn probes(files: &dyn Files) -> Vec<String> {
    let listed = files.read("kprobe_events").unwrap_or_default();
    let name = |line: &str| Some(line.split_whitespace().next()?.split_once(':')?.1.to_owned());
    listed.lines().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_owner() {
        let this = Owner::this();
        assert_eq!(Owner::of(&this.instance()), Some(this));
        assert_eq!(Owner::of(&format!("{}-all", this.instance())), Some(this));
        assert_eq!(Owner::of(&format!("{}/do_host_cpuid", this.group())), Some(this));
        assert!(!this.is_gone());
        assert!(Owner { started: this.started + 1, ..this }.is_gone(), "the number was used again");
        assert!(!Owner { namespace: 1, pid: u32::MAX, ..this }.is_gone(), "nobody here can tell");
        for other in ["cpusieve", "cpusieve-1", "cpusieve-a-b-c", "mine-1-2-3", "cpusieves-1-2-3"] {
            assert_eq!(Owner::of(other), None, "{other}");
        }
    }
}
