//! From inputs to a fleet: read, understood and predicted on all CPUs, taken in in the order of the inputs.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use cpusieve_fleet::libvirt::Cpu;
use cpusieve_fleet::{Fleet, Host, Kind, Member, Memory, Setting};
use cpusieve_formats::Diagnostic;
use serde_json::{Value, json};

use super::packed::{self, Packed};
use super::sources::{Content, Source, Sources};
use crate::input;
use crate::page;
use crate::verbs::Failure;

/// A fleet, and what did not become part of it.
#[derive(Default)]
pub(super) struct Loaded {
    /// The hosts.
    pub(super) fleet: Fleet,
    /// Inputs that could not be used, and why.
    pub(super) skipped: Vec<(String, String)>,
    /// Inputs of the same bytes as an earlier one, with that one's name. They are hosts all the same.
    pub(super) duplicates: Vec<(String, String)>,
}

impl Loaded {
    /// Both lists, as JSON.
    pub(super) fn lists(&self) -> (Value, Value) {
        let skipped = self.skipped.iter().map(|(input, why)| json!({"input": input, "why": why}));
        let duplicates = self.duplicates.iter().map(|(input, of)| json!({"input": input, "of": of}));
        (skipped.collect(), duplicates.collect())
    }
}

/// What an input holds.
enum Found {
    Host(Box<Host>),
    Packed(Packed),
}

/// A host on its way into the fleet.
pub(super) enum Seen<'s> {
    /// An input of its own.
    Host(&'s Host),
    /// One of a packed file.
    #[cfg_attr(not(feature = "store"), expect(dead_code, reason = "there are no packed files in such a build"))]
    Member(&'s Member, &'s Kind),
}

/// How much is kept of packed files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// Every kind and every host.
    Whole,
    /// Of very many kinds their sum, and of very many hosts the first of each kind.
    Bounded,
}

/// What became of one input.
struct Outcome {
    name: String,
    found: Result<Found, String>,
    diagnostics: Vec<Diagnostic>,
    /// Hash and length of its bytes.
    print: Option<(u64, usize)>,
}

/// Reads all inputs. With `strict`, one that cannot be used is an error; and a fleet has at least one host.
pub(super) fn load(inputs: &[PathBuf], setting: &Setting<'_>, strict: bool) -> Result<Loaded, Failure> {
    load_with(inputs, setting, strict, Detail::Bounded, |_| {})
}

/// The same of inputs some of which were looked at.
pub(super) fn load_from(sources: Sources, setting: &Setting<'_>, strict: bool) -> Result<Loaded, Failure> {
    load_sources(sources, setting, strict, Detail::Bounded, |_| {})
}

/// The same, and shows each host to `see` before it is taken in.
pub(super) fn load_with(
    inputs: &[PathBuf],
    setting: &Setting<'_>,
    strict: bool,
    detail: Detail,
    see: impl FnMut(Seen<'_>),
) -> Result<Loaded, Failure> {
    load_sources(Sources::of(inputs)?, setting, strict, detail, see)
}

fn load_sources(
    sources: Sources,
    setting: &Setting<'_>,
    strict: bool,
    detail: Detail,
    mut see: impl FnMut(Seen<'_>),
) -> Result<Loaded, Failure> {
    let mut progress = Progress::new(sources.len());
    let sources = Mutex::new(sources.enumerate());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = Memory::default();
    let mut loaded = Loaded::default();
    let mut prints = HashMap::new();
    let mut failure = None;
    std::thread::scope(|scope| {
        let (sender, outcomes) = mpsc::sync_channel(4 * workers);
        for _ in 0..workers {
            let (sender, sources, memory) = (sender.clone(), &sources, &memory);
            scope.spawn(move || {
                loop {
                    let next = sources.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((number, source)) = next else { return };
                    if sender.send((number, outcome(source, setting, memory))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut early = BTreeMap::new();
        let mut next = 0;
        for (number, found) in outcomes {
            early.insert(number, found);
            while let Some(found) = early.remove(&next) {
                next += 1;
                progress.show(next);
                if let Err(why) = take(found, &mut loaded, &mut prints, (strict, detail), &mut see) {
                    failure = Some(why);
                    return;
                }
            }
        }
    });
    progress.clear();
    match failure {
        Some(why) => Err(why.into()),
        None if loaded.fleet.hosts() == 0 => Err(nothing(&loaded).into()),
        None => Ok(loaded),
    }
}

fn nothing(loaded: &Loaded) -> String {
    match loaded.skipped.len() {
        0 => "there is no input, so there are no hosts".to_owned(),
        1 => "the input is no host".to_owned(),
        all => format!("none of {all} inputs is a host"),
    }
}

fn outcome(source: Source, setting: &Setting<'_>, memory: &Memory) -> Outcome {
    let Source { name, content } = source;
    let failed = |why: String| Outcome { name: name.clone(), found: Err(why), diagnostics: Vec::new(), print: None };
    let whole = |packed: Result<Packed, String>| match packed {
        Ok(packed) => {
            Outcome { name: name.clone(), found: Ok(Found::Packed(packed)), diagnostics: Vec::new(), print: None }
        }
        Err(why) => failed(format!("{name}: {why}")),
    };
    let bytes = match content {
        Content::File(path) if packed::is_named(&path) => return whole(packed::open(&path, setting)),
        Content::File(path) => input::bytes(&path, &name),
        Content::Bytes(bytes) => Ok(bytes),
        Content::Broken(error) => Err(error),
    };
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(error) => return failed(error.to_string()),
    };
    if packed::is_packed(&bytes) {
        return whole(packed::of_bytes(bytes, setting));
    }
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    let print = Some((hasher.finish(), bytes.len()));
    let (read, diagnostics) = input::understand(&name, &bytes);
    let found = read.map_err(|error| error.to_string()).and_then(|(seen, unlisted)| {
        if seen.cpus.is_empty() && seen.expansions.iter().any(|seen| Cpu::of_expansion(seen).is_some()) {
            return Err(format!(
                "{name}: libvirt's <cpu> names a model and shows no CPUID; it is no host among others"
            ));
        }
        let host = memory.host(&name, &seen, unlisted, setting);
        host.map(|host| Found::Host(Box::new(host))).map_err(|why| format!("{name}: {why}"))
    });
    Outcome { name, found, diagnostics, print }
}

type Prints = HashMap<(u64, usize), String>;

fn take(
    found: Outcome,
    loaded: &mut Loaded,
    prints: &mut Prints,
    (strict, detail): (bool, Detail),
    see: &mut impl FnMut(Seen<'_>),
) -> Result<(), String> {
    let Outcome { name, found, diagnostics, print } = found;
    input::show(&diagnostics);
    // A packed file that is damaged behind its footer is found out here, with nothing of it taken in.
    let found = match found {
        Ok(Found::Packed(packed)) => match packed::take(&packed, &mut loaded.fleet, detail, see) {
            Ok(()) => return Ok(()),
            Err(why) => Err(format!("{name}: {why}")),
        },
        Ok(Found::Host(host)) => Ok(host),
        Err(why) => Err(why),
    };
    match found {
        Ok(host) => {
            if let Some(print) = print {
                match prints.get(&print) {
                    Some(first) => loaded.duplicates.push((name, first.clone())),
                    None => _ = prints.insert(print, name),
                }
            }
            see(Seen::Host(&host));
            loaded.fleet.push(*host);
        }
        Err(why) if strict => return Err(why),
        Err(why) => {
            page::warn(&format!("{why}; it is left out"));
            loaded.skipped.push((name, why));
        }
    }
    Ok(())
}

/// How far it is, on a terminal, once it takes long enough to wonder.
struct Progress {
    all: usize,
    since: Instant,
    shown: bool,
    on: bool,
}

/// Between two signs of life.
const PERIOD: Duration = Duration::from_millis(500);

impl Progress {
    fn new(all: usize) -> Self {
        Self { all, since: Instant::now(), shown: false, on: io::stderr().is_terminal() }
    }

    fn show(&mut self, done: usize) {
        if self.on && self.since.elapsed() >= PERIOD {
            let all = if done > self.all { String::new() } else { format!(" of {}", self.all) };
            let _ = write!(io::stderr(), "\r{done}{all} inputs");
            (self.since, self.shown) = (Instant::now(), true);
        }
    }

    fn clear(&self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
