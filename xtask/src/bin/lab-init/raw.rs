//! Counts made independently: the kernel's own text of every event, from an instance of the laboratory's own, counted line
//! by line. Nothing here is shared with what `cpusieve trace` reads and counts with.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount as attach, unmount as detach};

pub(crate) const TRACEFS: &str = "/sys/kernel/tracing";

/// `arch/x86/kvm/cpuid.c:do_host_cpuid`, whose second and third argument are leaf and subleaf.
const PROBE: &str = "p:lab/host_cpuid do_host_cpuid leaf=%si:x32 subleaf=%dx:x32";

/// What is watched.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// Calls of `do_host_cpuid`, with their stacks.
    HostCalls,
    /// CPUIDs and exits of guests.
    Guests,
}

pub(crate) fn mount() -> io::Result<()> {
    Ok(attach("tracefs", TRACEFS, "tracefs", MountFlags::empty(), None)?)
}

/// Takes the mount away, whoever has it open.
pub(crate) fn unmount() -> io::Result<()> {
    Ok(detach(TRACEFS, UnmountFlags::DETACH)?)
}

/// A file of tracefs.
pub(crate) fn path(file: &str) -> PathBuf {
    Path::new(TRACEFS).join(file)
}

/// Every event of one kind, kept by the kernel.
pub(crate) struct Raw(What);

const INSTANCE: &str = "instances/lab";

impl Raw {
    /// Begins. KVM has to be loaded.
    pub(crate) fn start(what: What) -> io::Result<Self> {
        fs::create_dir_all(path(INSTANCE))?;
        let raw = Self(what);
        // Room for all events of a boot.
        raw.set("buffer_size_kb", if what == What::Guests { "98304" } else { "4096" })?;
        if what == What::HostCalls {
            append("kprobe_events", PROBE)?;
            raw.set("options/stacktrace", "1")?;
        }
        raw.switch("1")?;
        Ok(raw)
    }

    /// Ends it: the text of all events.
    pub(crate) fn finish(self) -> io::Result<String> {
        self.switch("0")?;
        let text = fs::read_to_string(path(INSTANCE).join("trace"))?;
        fs::remove_dir(path(INSTANCE))?;
        if self.0 == What::HostCalls {
            append("kprobe_events", "-:lab/host_cpuid")?;
        }
        Ok(text)
    }

    fn set(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(path(INSTANCE).join(file), text)
    }

    fn switch(&self, to: &str) -> io::Result<()> {
        let events: &[&str] = match self.0 {
            What::HostCalls => &["lab/host_cpuid"],
            What::Guests => &["kvm/kvm_exit", "kvm/kvm_cpuid"],
        };
        events.iter().try_for_each(|event| self.set(&format!("events/{event}/enable"), to))
    }
}

fn append(file: &str, text: &str) -> io::Result<()> {
    OpenOptions::new().append(true).open(path(file))?.write_all(text.as_bytes())
}

/// The calls of `do_host_cpuid`, a line `0x7/1` for each in their order.
pub(crate) fn calls(text: &str) -> String {
    let mut calls = String::new();
    for line in text.lines().filter(|line| line.contains(" host_cpuid: ")) {
        let value = |name: &str| line.split_ascii_whitespace().find_map(|word| word.strip_prefix(name));
        let subleaf = value("subleaf=0x").and_then(|text| u32::from_str_radix(text, 16).ok());
        if let (Some(leaf), Some(subleaf)) = (value("leaf="), subleaf) {
            calls += &format!("{leaf}/{subleaf}\n");
        }
    }
    calls
}

/// How often each stack called: `12 do_host_cpuid;__do_cpuid_func;...`, innermost function first.
pub(crate) fn stacks(text: &str) -> String {
    let mut counts = BTreeMap::new();
    for stack in text.split("<stack trace>").skip(1) {
        let frames = stack.lines().skip(1).map_while(|line| line.strip_prefix(" => "));
        *counts.entry(frames.map(str::trim).collect::<Vec<_>>().join(";")).or_insert(0) += 1;
    }
    table(&counts)
}

/// CPUIDs and exits of guests, a line each: `12 cpuid THREAD LEAF SUBLEAF`, `12 missing LEAF SUBLEAF`, `12 exit THREAD
/// VCPU`, `12 rip RIP` (of exits for CPUID), all numbers as the kernel writes them; and `12 lost`.
pub(crate) fn guests(text: &str) -> String {
    let mut counts = BTreeMap::new();
    let mut add = |key: String, count: u64| *counts.entry(key).or_insert(0) += count;
    for line in text.lines() {
        if let Some((_, numbers)) = line.split_once("entries-in-buffer/entries-written: ") {
            let mut numbers = numbers.split([' ', '/']).map_while(|number| number.parse::<u64>().ok());
            let (kept, written) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
            add("lost".to_owned(), written.saturating_sub(kept));
        }
        let thread = line.split(" [").next().and_then(|head| head.trim_end().rsplit('-').next()).unwrap_or_default();
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let after = |word: &str| words.iter().position(|found| *found == word).and_then(|at| words.get(at + 1));
        if let (true, Some(leaf), Some(subleaf)) = (line.contains(": kvm_cpuid: "), after("func"), after("idx")) {
            add(format!("cpuid {thread} {leaf} {subleaf}"), 1);
            if line.contains("not found") {
                add(format!("missing {leaf} {subleaf}"), 1);
            }
        } else if let (true, Some(vcpu), Some(rip)) = (line.contains(": kvm_exit: "), after("vcpu"), after("rip")) {
            add(format!("exit {thread} {vcpu}"), 1);
            if after("reason") == Some(&"cpuid") {
                add(format!("rip {rip}"), 1);
            }
        }
    }
    table(&counts)
}

fn table(counts: &BTreeMap<String, u64>) -> String {
    counts.iter().map(|(key, count)| format!("{count} {key}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_by_their_words() {
        let text = "# entries-in-buffer/entries-written: 3/5   #P:1\n\
             \x20 CPU 0/KVM-208  [000] .....  67.8: kvm_exit: vcpu 0 reason cpuid rip 0x10 info1 0x0\n\
             \x20 CPU 0/KVM-208  [000] .....  67.9: kvm_cpuid: func 7 idx 1 rax 0 rbx 0 rcx 0 rdx 0, cpuid entry not found\n\
             \x20 CPU 1/KVM-209  [000] .....  68.0: kvm_exit: vcpu 1 reason msr rip 0x20 info1 0x0\n";
        let expected = "1 cpuid 208 7 1\n1 exit 208 0\n1 exit 209 1\n2 lost\n1 missing 7 1\n1 rip 0x10\n";
        assert_eq!(guests(text), expected);
        let host = "  init-1 [000] ..... 7.1: host_cpuid: (do_host_cpuid+0x0/0x140 [kvm]) leaf=0x7 subleaf=0x1\n\
             \x20 init-1 [000] ..... 7.1: <stack trace>\n => do_host_cpuid\n => __do_cpuid_func\n";
        assert_eq!((calls(host).as_str(), stacks(host).as_str()), ("0x7/1\n", "1 do_host_cpuid;__do_cpuid_func\n"));
    }
}
