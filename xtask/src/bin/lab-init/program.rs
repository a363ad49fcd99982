//! The program itself, run inside the host: its watches, each known to be on before anything happens, and its proofs.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::raw;

/// How long a start or an end may take; an emulated processor is slow.
const PATIENCE: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(5);

/// What counts in a watch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Means {
    /// `trace guests` by histograms.
    Histograms,
    /// `trace guests --events`.
    Events,
    /// `trace host` by a kprobe.
    Probe,
    /// `trace host --functions`.
    Functions,
}

impl Means {
    pub(crate) const ALL: [Self; 4] = [Self::Histograms, Self::Events, Self::Probe, Self::Functions];

    pub(crate) const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Histograms => &["trace", "guests", "--json"],
            Self::Events => &["trace", "guests", "--events", "--json"],
            Self::Probe => &["trace", "host", "--json"],
            Self::Functions => &["trace", "host", "--functions", "--json"],
        }
    }

    /// Whether the last of its switches is on in its instance.
    fn is_on(self, instance: &Path, process: u32) -> bool {
        let text = |file: &str| fs::read_to_string(instance.join(file)).unwrap_or_default();
        match self {
            Self::Histograms => text("events/kvm/kvm_exit/trigger").contains("keys=guest_rip"),
            Self::Events => text("events/kvm/kvm_cpuid/enable").trim() == "1",
            Self::Probe => {
                let group = named(&instance.join("events"), &format!("cpusieve_{process}_"));
                group.is_some_and(|group| text(&format!("events/{group}/do_host_cpuid/enable")).trim() == "1")
            }
            Self::Functions => {
                let options = text("trace_options");
                text("current_tracer").trim() == "function"
                    && options.lines().any(|option| matches!(option.trim(), "func_stack_trace" | "func-args"))
            }
        }
    }
}

/// The first name in a folder that begins so.
fn named(folder: &Path, start: &str) -> Option<String> {
    let names = fs::read_dir(folder).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(start) && !name.ends_with("-all")).min()
}

/// How a run of the program ended.
pub(crate) struct Ended {
    /// Its exit status, or what became of it.
    pub(crate) status: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The program, running.
pub(crate) struct Running {
    child: Child,
    name: String,
}

impl Running {
    /// Starts it; `name` is that of its output.
    pub(crate) fn start(program: &str, name: &str, arguments: &[&str]) -> io::Result<Self> {
        let output = |end: &str| File::create(file(name, end));
        let mut command = Command::new(program);
        // A first process has no search path, and the program looks for QEMU there.
        command
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output("out")?)
            .stderr(output("err")?);
        Ok(Self { child: command.spawn()?, name: name.to_owned() })
    }

    /// Waits until a watch is on; its instance.
    pub(crate) fn on(&mut self, means: Means) -> io::Result<PathBuf> {
        let clock = Instant::now();
        let (process, instances) = (self.child.id(), raw::path("instances"));
        while clock.elapsed() < PATIENCE && self.child.try_wait()?.is_none() {
            let instance = named(&instances, &format!("cpusieve-{process}-")).map(|name| instances.join(name));
            if let Some(instance) = instance.filter(|instance| means.is_on(instance, process)) {
                return Ok(instance);
            }
            thread::sleep(PAUSE);
        }
        let said = fs::read_to_string(file(&self.name, "err")).unwrap_or_default();
        let said = said + &fs::read_to_string(file(&self.name, "out")).unwrap_or_default();
        Err(io::Error::other(format!("the watch {} did not begin: {}", self.name, said.trim())))
    }

    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Ends a watch as Ctrl-C does.
    pub(crate) fn interrupt(self) -> io::Result<Ended> {
        self.signal(Signal::INT)?;
        self.wait(PATIENCE)
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self, limit: Duration) -> io::Result<Ended> {
        let clock = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status.code().map_or_else(|| status.to_string(), |code| code.to_string());
            }
            if clock.elapsed() > limit {
                self.kill()?;
                break "timeout".to_owned();
            }
            thread::sleep(PAUSE);
        };
        let text = |end: &str| fs::read_to_string(file(&self.name, end)).unwrap_or_default();
        Ok(Ended { status, stdout: text("out"), stderr: text("err") })
    }

    /// Kills it, and reaps it.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

fn file(name: &str, end: &str) -> PathBuf {
    Path::new("/run").join(format!("{name}.{end}"))
}
