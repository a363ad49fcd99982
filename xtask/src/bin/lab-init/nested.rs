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
use cpusieve_probe::kvm;
use cpusieve_probe::qmp::{QmpError, Start};
use serde_json::Value;

use crate::{calls, load};

/// What there is to do: `{"modules":[{"file":..,"options":..}],"qemu":..,"guests":[{"arguments":[..],"console":..,
/// "report":..,"seconds":..}]}`. A guest that has this file is a host.
pub(crate) const PLAN: &str = "/plan.json";

/// How long QEMU may think about a question; an emulated processor is slow.
const PATIENCE: Duration = Duration::from_secs(60);

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
    let trace = calls::start();
    let mut missing = Vec::new();
    let kvm = kvm::view(&mut missing);
    match trace.and_then(|trace| trace.finish()) {
        Ok(calls) => section(port, "calls", &calls)?,
        Err(error) => eprintln!("lab-init: do_host_cpuid is not counted: {error}"),
    }
    section(port, "record", &record::print(&Snapshot { kvm, missing, ..Snapshot::default() }))?;
    let program = text(&plan, "qemu");
    match models(program) {
        Ok(replies) => section(port, "qmp", &replies)?,
        Err(error) => eprintln!("lab-init: {error}"),
    }
    fs::create_dir_all("/run")?;
    for (number, guest) in list(&plan, "guests").iter().enumerate() {
        eprintln!("lab-init: guest {number}");
        start(program, guest, number, port)?;
    }
    Ok(())
}

/// Loads the modules in their order; what went wrong, a line each.
fn modules(plan: &Value) -> String {
    let mut problems = String::new();
    for module in list(plan, "modules") {
        let (file, options) = (text(module, "file"), text(module, "options"));
        if let Err(error) = load(file, options) {
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
