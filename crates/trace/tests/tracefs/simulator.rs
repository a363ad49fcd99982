//! A folder that behaves as tracefs does in what a session uses: instances come with their files and go with them, events
//! of probes appear everywhere, a probe that is enabled cannot be removed, triggers are a list.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use cpusieve_trace::tracefs::Files;

/// What `trace_pipe` of every instance holds.
pub(crate) const STREAM: &str = "\
       CPU 0/KVM-208     [000] .....    67.845586: kvm_exit: vcpu 0 reason cpuid rip 0xffffffff81001234 info1 0x0 info2 0x0
       CPU 0/KVM-208     [000] .....    67.845587: kvm_cpuid: func 1 idx 87 rax 1 rbx 0 rcx 0 rdx 0, cpuid entry found
CPU:0 [LOST 12 EVENTS]
       CPU 1/KVM-209     [001] .....    67.845588: kvm_cpuid: func 4 idx 2 rax 0 rbx 0 rcx 0 rdx 0, cpuid entry not found
         kvmdump-180     [000] .N.1.    44.051964: do_host_cpuid: (do_host_cpuid+0x0/0x140 [kvm]) leaf=0x0 subleaf=0x0
         kvmdump-180     [000] .N.1.    44.051965: <stack trace>
 => do_host_cpuid
 => __do_cpuid_func
 => kvm_dev_ioctl_get_cpuid
";

/// What `hist` of the events holds.
const CPUID_HISTOGRAM: &str = "\
# event histogram
#
# trigger info: hist:keys=common_pid.execname,function.hex,index.hex:vals=hitcount:sort=hitcount:size=16384 [active]
#

{ common_pid: CPU 0/KVM       [       208], function:         1a, index:          3 } hitcount:          5
{ common_pid: CPU 1/KVM       [       209], function:          4, index:          2 } hitcount:         70

Totals:
    Hits: 76
    Entries: 2
    Dropped: 1

# event histogram
#
# trigger info: hist:keys=function.hex,index.hex:vals=hitcount:sort=hitcount:size=16384 if found == 0 [active]
#

{ function: 1a, index: 3 } hitcount:          2

Totals:
    Hits: 2
    Entries: 1
    Dropped: 0
";
const EXIT_HISTOGRAMS: &str = "\
# event histogram
#
# trigger info: hist:keys=common_pid.execname,isa,exit_reason:vals=hitcount:sort=hitcount:size=16384 [active]
#

{ common_pid: CPU 0/KVM       [       208], isa:          2, exit_reason:        114 } hitcount:          5
{ common_pid: CPU 0/KVM       [       208], isa:          2, exit_reason:       1024 } hitcount:        225
{ common_pid: CPU 1/KVM       [       209], isa:          2, exit_reason:        114 } hitcount:         70

Totals:
    Hits: 300
    Entries: 3
    Dropped: 0

# event histogram
#
# trigger info: hist:keys=guest_rip.hex:vals=hitcount:sort=hitcount:size=16384 if (isa == 1) [active]
#

{ guest_rip: ffffffff81001234 } hitcount:         75

Totals:
    Hits: 75
    Entries: 1
    Dropped: 0
";

/// The one function that may be traced.
const FUNCTION: &str = "do_host_cpuid";

#[derive(Debug)]
pub(crate) struct Simulated {
    root: PathBuf,
    /// Operations until one is refused.
    left: Cell<Option<u32>>,
    /// The folder is removed when this is dropped.
    owned: bool,
}

impl Simulated {
    /// A new tracefs with an instance of somebody else's, and a probe; `hist`: the kernel has histograms.
    pub(crate) fn new(hist: bool) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("cpusieve-tracefs-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let root = std::env::temp_dir().join(name);
        let new = Self { root, left: Cell::new(None), owned: true };
        new.lay(Path::new(""), hist);
        fs::create_dir_all(new.root.join("instances")).unwrap();
        new.put(Path::new("available_tracers"), "blk function nop\n");
        new.put(Path::new("kprobe_events"), "p:mine/do_host_cpuid do_host_cpuid\n");
        new.put(Path::new("events/mine/do_host_cpuid/enable"), "1");
        new.make("instances/mine").unwrap();
        new.put(Path::new("instances/mine/tracing_on"), "1");
        new.put(Path::new("instances/mine/events/kvm/kvm_cpuid/enable"), "1");
        new
    }

    /// One that another process has made.
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.to_owned(), left: Cell::new(None), owned: false }
    }

    /// Lets `count` operations pass and refuses the next one.
    pub(crate) fn refuse_after(&self, count: u32) {
        self.left.set(Some(count));
    }

    /// Lets everything pass.
    pub(crate) fn refuse_nothing(&self) {
        self.left.set(None);
    }

    /// Every file with its text.
    pub(crate) fn tree(&self) -> BTreeMap<PathBuf, String> {
        let (mut files, mut folders) = (BTreeMap::new(), vec![self.root.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap().flatten() {
                let path = entry.path();
                let name = path.strip_prefix(&self.root).unwrap().to_owned();
                if path.is_dir() {
                    files.insert(name, "folder".to_owned());
                    folders.push(path);
                } else {
                    files.insert(name, fs::read_to_string(&path).unwrap());
                }
            }
        }
        // What a killed process was just making or removing: the kernel does both at once.
        files.retain(|path, _| !path.to_string_lossy().contains(".tmp"));
        files
    }

    fn allow(&self) -> io::Result<()> {
        match self.left.get() {
            Some(0) => {
                self.left.set(None);
                Err(io::Error::from(io::ErrorKind::PermissionDenied))
            }
            Some(left) => {
                self.left.set(Some(left - 1));
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn put(&self, path: &Path, text: &str) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // In one step, as the kernel does it.
        let new = path.with_extension("tmp");
        fs::write(&new, text).unwrap();
        fs::rename(new, path).unwrap();
    }

    fn lay(&self, at: &Path, hist: bool) {
        for (event, histogram) in [("kvm_cpuid", CPUID_HISTOGRAM), ("kvm_exit", EXIT_HISTOGRAMS)] {
            let folder = at.join("events/kvm").join(event);
            self.put(&folder.join("enable"), "0");
            self.put(&folder.join("filter"), "none");
            self.put(&folder.join("trigger"), "# Available triggers:\n");
            if hist {
                self.put(&folder.join("hist"), histogram);
            }
        }
        let files = [
            ("events/enable", "0"),
            ("tracing_on", "1"),
            ("buffer_size_kb", "1408"),
            ("current_tracer", "nop"),
            ("set_ftrace_filter", "#### all functions enabled ####"),
            ("trace_options", "nofunc_stack_trace"),
        ];
        files.iter().for_each(|(file, text)| self.put(&at.join(file), text));
        self.put(&at.join("options/stacktrace"), "0");
        self.put(
            &at.join("per_cpu/cpu0/stats"),
            "entries: 7\noverrun: 300\ncommit overrun: 0\nbytes: 1\ndropped events: 1\n",
        );
        self.put(&at.join("trace_pipe"), STREAM);
    }

    fn probes(&self) -> Vec<(String, String)> {
        let text = fs::read_to_string(self.root.join("kprobe_events")).unwrap_or_default();
        text.lines().map(|line| (line.split([':', ' ']).nth(1).unwrap().to_owned(), line.to_owned())).collect()
    }

    fn list(&self, probes: &[(String, String)]) {
        let lines: String = probes.iter().map(|(_, line)| format!("{line}\n")).collect();
        self.put(Path::new("kprobe_events"), &lines);
    }

    fn places(&self) -> Vec<PathBuf> {
        let instances = fs::read_dir(self.root.join("instances")).unwrap().flatten().map(|entry| entry.path());
        instances.filter(|path| path.extension().is_none()).chain([self.root.clone()]).collect()
    }

    fn write_probe(&self, text: &str) -> io::Result<()> {
        let mut probes = self.probes();
        if let Some(event) = text.strip_prefix("-:") {
            let at = probes.iter().position(|(name, _)| name == event).ok_or(io::ErrorKind::NotFound)?;
            let enabled = |place: &PathBuf| fs::read_to_string(place.join("events").join(event).join("enable"));
            if self.places().iter().any(|place| enabled(place).is_ok_and(|text| text == "1")) {
                return Err(io::Error::from(io::ErrorKind::ResourceBusy));
            }
            probes.remove(at);
            for place in self.places() {
                let _ = fs::remove_dir_all(place.join("events").join(event.split('/').next().unwrap()));
            }
        } else {
            let event = text.split([':', ' ']).nth(1).unwrap().to_owned();
            if !text.contains(" do_host_cpuid ") || probes.iter().any(|(name, _)| *name == event) {
                return Err(io::Error::from(io::ErrorKind::InvalidInput));
            }
            probes.push((event.clone(), text.to_owned()));
            // First the list: a kill between the two must leave what can be found.
            self.list(&probes);
            for place in self.places() {
                let path = place.strip_prefix(&self.root).unwrap().join("events").join(&event).join("enable");
                self.put(&path, "0");
            }
        }
        self.list(&probes);
        Ok(())
    }

    fn write_trigger(&self, path: &str, text: &str) -> io::Result<()> {
        let mut lines: Vec<_> = self.read(path)?.lines().map(str::to_owned).collect();
        match text.strip_prefix('!') {
            Some(text) => {
                let at = lines.iter().position(|line| line == &format!("{text} [active]"));
                lines.remove(at.ok_or(io::ErrorKind::NotFound)?);
            }
            None => lines.push(format!("{text} [active]")),
        }
        self.put(Path::new(path), &(lines.join("\n") + "\n"));
        Ok(())
    }
}

impl Files for Simulated {
    fn root(&self) -> &Path {
        &self.root
    }

    fn write(&self, path: &str, text: &str) -> io::Result<()> {
        self.allow()?;
        let ours = path == "kprobe_events" || path.starts_with("instances/cpusieve-");
        assert!(ours, "{path} is not ours to write");
        if path == "kprobe_events" {
            return self.write_probe(text);
        }
        if !self.root.join(path).exists() {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        if path.ends_with("/trigger") {
            return self.write_trigger(path, text);
        }
        if let Some(instance) = path.strip_suffix("/events/enable") {
            for (event, _) in self.probes() {
                let enable = format!("{instance}/events/{event}/enable");
                if self.root.join(&enable).exists() {
                    self.put(Path::new(&enable), text);
                }
            }
        }
        if path.ends_with("/set_ftrace_filter") && text != FUNCTION {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        // Arguments came with 6.15.
        if path.ends_with("/trace_options") && text == "func-args" {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        self.put(Path::new(path), text);
        Ok(())
    }

    fn make(&self, path: &str) -> io::Result<()> {
        self.allow()?;
        if self.root.join(path).exists() {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        let new = format!("new-{}.tmp", std::process::id());
        let hist = self.root.join("events/kvm/kvm_cpuid/hist").exists();
        let _ = fs::remove_dir_all(self.root.join(&new));
        self.lay(Path::new(&new), hist);
        for (event, _) in self.probes() {
            self.put(&Path::new(&new).join("events").join(event).join("enable"), "0");
        }
        fs::rename(self.root.join(new), self.root.join(path))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let old = self.root.join(format!("old-{}.tmp", std::process::id()));
        let _ = fs::remove_dir_all(&old);
        fs::rename(self.root.join(path), &old)?;
        fs::remove_dir_all(old)
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        if self.owned {
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}
