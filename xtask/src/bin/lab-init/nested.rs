//! A host of guests: loads KVM, asks it everything, and starts guests under it, as the plan in its file system says.

use std::error::Error;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cpusieve_formats::qmp::{Expansion, PropertyValue};
use cpusieve_formats::record;
use cpusieve_model::Snapshot;
use cpusieve_probe::guest::load;
use cpusieve_probe::kvm;
use cpusieve_probe::qmp::{QmpError, Start};
use rustix::process::Signal;
use serde_json::Value;

use crate::program::{Ended, Means, Running};
use crate::raw::{Raw, What};
use crate::{kills, raw};

/// What there is to do: `{"modules":[{"file":..,"options":..}],"qemu":..,"program":..,"kernel":..,"parts":..,"kills":..,
/// "guests":[{"arguments":[..],"console":..,"report":..,"seconds":..,"watched":..}]}`. A guest that has this file is a host;
/// one with a program proves it.
pub(crate) const PLAN: &str = "/plan.json";

/// How long QEMU may think about a question; an emulated processor is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long QEMU may think about a question of `verify`, and its guest may take; and all of `verify`.
const VERIFY_PATIENCE: (Duration, Duration) = (Duration::from_secs(180), Duration::from_secs(600));

/// How far which model is expanded, with which properties.
type Question = (Expansion, &'static str, &'static [(&'static str, PropertyValue<'static>)]);

/// The models whose expansions are asked for, in the order of `corpus/guests-kvm`.
const EXPANSIONS: [Question; 9] = [
    (Expansion::Full, "host", &[]),
    (Expansion::Static, "host", &[]),
    (Expansion::Full, "host", &[("migratable", PropertyValue::Bool(false))]),
    (Expansion::Full, "max", &[]),
    (Expansion::Full, "EPYC", &[]),
    (Expansion::Full, "EPYC-Rome", &[]),
    (Expansion::Full, "Opteron_G5", &[]),
    (Expansion::Full, "kvm64", &[]),
    (Expansion::Full, "Skylake-Server", &[]),
];

/// Does what the plan says; each section is written as soon as it is known, so that a host that hangs has told the rest.
pub(crate) fn run(plan: &str, port: &mut File) -> Result<(), Box<dyn Error>> {
    let plan: Value = serde_json::from_str(plan)?;
    let problems = modules(&plan);
    section(port, "problems", &problems)?;
    fs::create_dir_all("/run")?;
    // What goes wrong in one step is missing in the report, and no reason to leave out the others.
    let done = |what: &str, done: Result<(), Box<dyn Error>>| {
        if let Err(error) = done {
            eprintln!("lab-init: {what}: {error}");
        }
    };
    done("tracefs", raw::mount().map_err(Into::into));
    let host = Host { plan: &plan, qemu: text(&plan, "qemu"), program: plan.get("program").and_then(Value::as_str) };
    done("KVM", host.ask_kvm(port));
    done("QEMU", host.ask_qemu(port));
    done("verify", host.verify(port));
    for (number, guest) in list(&plan, "guests").iter().enumerate() {
        eprintln!("lab-init: guest {number}");
        let watched = guest.get("watched").and_then(Value::as_bool) == Some(true);
        let program = host.program.filter(|_| watched);
        let watches = program.map_or_else(|| Ok(Vec::new()), |program| host.watch(program));
        let raw = program.map(|_| Raw::start(What::Guests));
        start(host.qemu, guest, number, port)?;
        if let Some(raw) = raw {
            done("guests watched", watches.map_err(Into::into).and_then(|watches| host.watched(raw?, watches, port)));
        }
    }
    done("tracefs", host.tracefs(port));
    Ok(())
}

/// A watch of the program, by the name of its sections.
type Watch = (&'static str, Running);

/// What this host has.
struct Host<'a> {
    plan: &'a Value,
    qemu: &'a str,
    /// The program that is to be proved, if it is.
    program: Option<&'a str>,
}

impl Host<'_> {
    /// KVM's answers, and what it asks the CPU for them: counted by the laboratory, and by the program by both its means.
    fn ask_kvm(&self, port: &mut File) -> Result<(), Box<dyn Error>> {
        let mut watches = Vec::new();
        if let Some(program) = self.program {
            // What the program predicts with; asking KVM itself would be counted by the other watch.
            const RECORD: &str = "/run/host.json";
            let told = Running::start(program, "record", &["record", "-o", RECORD])?.wait(PATIENCE)?;
            section(port, "own.record", &format!("{}\n{}", told.status, told.stderr))?;
            for means in [Means::Probe, Means::Functions] {
                let name = if means == Means::Probe { "watch.probe" } else { "watch.functions" };
                let mut watch = Running::start(program, name, &[means.arguments(), &["--host", RECORD]].concat())?;
                match watch.on(means) {
                    Ok(_) => watches.push((name, watch)),
                    Err(error) => eprintln!("lab-init: {error}"),
                }
            }
        }
        let raw = Raw::start(What::HostCalls);
        let mut missing = Vec::new();
        let kvm = kvm::view(&mut missing);
        match raw.and_then(Raw::finish) {
            Ok(text) => {
                section(port, "calls", &raw::calls(&text))?;
                section(port, "stacks", &raw::stacks(&text))?;
            }
            Err(error) => eprintln!("lab-init: do_host_cpuid is not counted: {error}"),
        }
        for (name, watch) in watches {
            told(port, name, &watch.interrupt()?)?;
        }
        Ok(section(port, "record", &record::print(&Snapshot { kvm, missing, ..Snapshot::default() }))?)
    }

    /// What QEMU says of models, and what KVM asks the CPU meanwhile: QEMU tries with growing room.
    fn ask_qemu(&self, port: &mut File) -> Result<(), Box<dyn Error>> {
        let Some(program) = self.program else {
            match models(self.qemu) {
                Ok(replies) => section(port, "qmp", &replies)?,
                Err(error) => eprintln!("lab-init: {error}"),
            }
            return Ok(());
        };
        let mut watch = Running::start(program, "watch.qemu", Means::Probe.arguments())?;
        watch.on(Means::Probe)?;
        let raw = Raw::start(What::HostCalls)?;
        let replies = models(self.qemu);
        section(port, "calls.qemu", &raw::calls(&raw.finish()?))?;
        told(port, "watch.qemu", &watch.interrupt()?)?;
        Ok(section(port, "qmp", &replies?)?)
    }

    /// The parts of `verify` that the plan names.
    fn verify(&self, port: &mut File) -> Result<(), Box<dyn Error>> {
        let Some(program) = self.program else { return Ok(()) };
        let (kernel, seconds) = (text(self.plan, "kernel"), VERIFY_PATIENCE.0.as_secs().to_string());
        eprintln!("lab-init: verify");
        let parts = list(self.plan, "parts").iter().filter_map(Value::as_str).map(|part| format!("--{part}"));
        let parts: Vec<String> = parts.collect();
        let mut arguments = vec!["verify", "--json", "--limit", &seconds, "--kernel", kernel];
        arguments.extend(parts.iter().map(String::as_str));
        let ended = Running::start(program, "verify", &arguments)?.wait(VERIFY_PATIENCE.1)?;
        Ok(told(port, "verify", &ended)?)
    }

    /// Watches of a guest's whole boot: by histograms, event by event, and event by event without time to read them, so that
    /// some are lost.
    fn watch(&self, program: &str) -> io::Result<Vec<Watch>> {
        let all =
            [("watch.hist", Means::Histograms), ("watch.events", Means::Events), ("watch.starved", Means::Events)];
        let start = |(name, means)| {
            let mut watch = Running::start(program, name, Means::arguments(means))?;
            let instance = watch.on(means)?;
            if name == "watch.starved" {
                fs::write(instance.join("buffer_size_kb"), "8")?;
                watch.signal(Signal::STOP)?;
            }
            Ok((name, watch))
        };
        all.into_iter().map(start).collect()
    }

    /// What the laboratory counted of a guest's boot, and what the watches did.
    fn watched(&self, raw: Raw, watches: Vec<Watch>, port: &mut File) -> Result<(), Box<dyn Error>> {
        section(port, "raw", &raw::guests(&raw.finish()?))?;
        for (name, watch) in watches {
            watch.signal(Signal::CONT)?;
            told(port, name, &watch.interrupt()?)?;
        }
        Ok(())
    }

    /// Whether tracefs is as it was, however a watch ends.
    fn tracefs(&self, port: &mut File) -> Result<(), Box<dyn Error>> {
        let rounds = self.plan.get("kills").and_then(Value::as_u64).and_then(|rounds| u32::try_from(rounds).ok());
        let (Some(program), Some(rounds)) = (self.program, rounds) else { return Ok(()) };
        eprintln!("lab-init: {rounds} kills");
        section(port, "kills", &kills::kills(program, rounds)?)?;
        Ok(section(port, "vanishes", &kills::vanishes(program)?)?)
    }
}

/// What a run of the program told: its status and its messages, and its JSON.
fn told(port: &mut File, name: &str, ended: &Ended) -> io::Result<()> {
    section(port, &format!("{name}.ended"), &format!("{}\n{}", ended.status, ended.stderr))?;
    section(port, name, &ended.stdout)
}

/// Loads the modules in their order; what went wrong, a line each.
fn modules(plan: &Value) -> String {
    let mut problems = String::new();
    for module in list(plan, "modules") {
        let (file, options) = (text(module, "file"), text(module, "options"));
        if let Err(error) = load(Path::new(file), options) {
            let _infallible = writeln!(problems, "{file} {options}: {error}");
        }
    }
    problems
}

/// What QEMU says of CPU models under this KVM: its messages, one a line. A model that it refuses is a message too.
fn models(program: &str) -> Result<String, QmpError> {
    let mut session = Start::new(program, "kvm").limit(PATIENCE).transcript().open()?;
    for (expansion, model, props) in EXPANSIONS {
        match session.expand(expansion, model, props) {
            Ok(_) | Err(QmpError::Refused { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    session.cpu_definitions()?;
    let said = session.transcript();
    session.close()?;
    let messages = said.iter().filter_map(|line| line.strip_prefix("< "));
    Ok(messages.flat_map(|message| [message, "\n"]).collect())
}

/// Starts one guest, waits for it, and passes on what it told.
fn start(program: &str, guest: &Value, number: usize, port: &mut File) -> Result<(), Box<dyn Error>> {
    let arguments = list(guest, "arguments").iter().filter_map(Value::as_str);
    let limit = Duration::from_secs(guest.get("seconds").and_then(Value::as_u64).unwrap_or(0));
    let warnings = Path::new("/run/warnings");
    let clock = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(warnings)?)
        .spawn()?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status.code().map_or("-1".to_owned(), |code| code.to_string());
        }
        if clock.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            break "timeout".to_owned();
        }
        thread::sleep(Duration::from_millis(100));
    };
    let prefix = format!("guest{number}.");
    section(port, &format!("{prefix}status"), &status)?;
    section(port, &format!("{prefix}seconds"), &format!("{:.1}", clock.elapsed().as_secs_f64()))?;
    section(port, &format!("{prefix}warnings"), &lossy(warnings))?;
    section(port, &format!("{prefix}console"), &lossy(Path::new(text(guest, "console"))))?;
    // The guest's own sections, each under its number; its `@end` becomes one of them.
    let report = lossy(Path::new(text(guest, "report"))).replace('\r', "");
    for line in report.lines() {
        match line.strip_prefix('@') {
            Some(name) => writeln!(port, "@{prefix}{name}")?,
            None => writeln!(port, "{line}")?,
        }
    }
    Ok(())
}

/// Writes a section. No line of its text begins one.
fn section(port: &mut File, name: &str, text: &str) -> io::Result<()> {
    let mut out = format!("@{name}\n");
    for line in text.lines() {
        out.extend([if line.starts_with('@') { " " } else { "" }, line, "\n"]);
    }
    port.write_all(out.as_bytes())
}

/// A file's text; nothing if it is not there.
fn lossy(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn list<'v>(object: &'v Value, name: &str) -> &'v [Value] {
    object.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn text<'v>(object: &'v Value, name: &str) -> &'v str {
    object.get(name).and_then(Value::as_str).unwrap_or_default()
}
