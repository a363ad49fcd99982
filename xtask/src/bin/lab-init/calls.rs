//! Which leaves KVM asks the CPU for: a probe on `arch/x86/kvm/cpuid.c:do_host_cpuid`, whose second and third argument
//! are leaf and subleaf.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};

use rustix::mount::{MountFlags, mount};

const TRACEFS: &str = "/sys/kernel/tracing";
const PROBE: &str = "p:lab/host_cpuid do_host_cpuid leaf=%si:x32 subleaf=%dx:x32";

/// A probe that is counting.
pub(crate) struct Trace(());

/// Sets the probe. KVM has to be loaded.
pub(crate) fn start() -> io::Result<Trace> {
    mount("tracefs", TRACEFS, "tracefs", MountFlags::empty(), None)?;
    OpenOptions::new().append(true).open(format!("{TRACEFS}/kprobe_events"))?.write_all(PROBE.as_bytes())?;
    fs::write(format!("{TRACEFS}/events/lab/host_cpuid/enable"), "1")?;
    Ok(Trace(()))
}

impl Trace {
    /// Takes the probe away: a line `0x7/1` for each call, in their order.
    pub(crate) fn finish(self) -> io::Result<String> {
        fs::write(format!("{TRACEFS}/events/lab/host_cpuid/enable"), "0")?;
        let trace = fs::read_to_string(format!("{TRACEFS}/trace"))?;
        fs::write(format!("{TRACEFS}/kprobe_events"), "")?;
        let mut calls = String::new();
        for line in trace.lines().filter(|line| line.contains(" host_cpuid: ")) {
            let value = |name: &str| line.split_ascii_whitespace().find_map(|word| word.strip_prefix(name));
            if let (Some(leaf), Some(subleaf)) = (value("leaf="), value("subleaf=0x")) {
                let subleaf = u32::from_str_radix(subleaf, 16).map_err(io::Error::other)?;
                let _infallible = writeln!(calls, "{leaf}/{subleaf}");
            }
        }
        Ok(calls)
    }
}
