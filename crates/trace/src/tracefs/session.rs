//! What is switched on, and the way back.

use std::fs::File;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::{Files, Refusal, stale};

/// The events on which triggers are set.
pub(super) const TRIGGERED: [&str; 2] = ["kvm/kvm_cpuid", "kvm/kvm_exit"];

/// How often a removal is tried while the kernel says that something is in use, and how long between two tries: the last
/// event may still be on its way.
const TRIES: usize = 50;
const PAUSE: Duration = Duration::from_millis(10);

const NEEDED: &str = "root (CAP_SYS_ADMIN), and a kernel that is not locked down (lockdown=confidentiality)";

/// Something to be undone. In the order in which it was done; undone in the opposite one.
#[derive(Clone, Debug)]
enum Undo {
    Instance(String),
    Probe(String),
    /// Write this text to this file.
    Write {
        path: String,
        text: String,
    },
}

/// Instances, probes and switches of one process, all undone when this is dropped.
#[derive(Debug)]
pub struct Session {
    files: Rc<dyn Files>,
    owner: stale::Owner,
    undo: Vec<Undo>,
    swept: stale::Swept,
}

impl Session {
    /// Removes what earlier sessions left behind, then makes an instance.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the instance.
    pub fn begin(files: Rc<dyn Files>) -> Result<Self, Refusal> {
        let swept = stale::sweep(&*files);
        let mut session = Self { files, owner: stale::Owner::this(), undo: Vec::new(), swept };
        session.instance("")?;
        Ok(session)
    }

    /// What earlier sessions had left behind.
    #[must_use]
    pub const fn swept(&self) -> &stale::Swept {
        &self.swept
    }

    /// The files below.
    #[must_use]
    pub fn files(&self) -> &dyn Files {
        &*self.files
    }

    /// The path of a file of the instance with this word behind its name.
    #[must_use]
    pub fn path(&self, word: &str, file: &str) -> String {
        format!("instances/{}{word}/{file}", self.owner.instance())
    }

    /// Makes a further instance, with a word behind its name.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub fn instance(&mut self, word: &str) -> Result<(), Refusal> {
        let name = format!("{}{word}", self.owner.instance());
        let path = format!("instances/{name}");
        // Noted first: an interruption between the two would leave it behind.
        self.undo.push(Undo::Instance(name));
        self.files.make(&path).map_err(|source| {
            self.undo.pop();
            self.refusal(&path, source)
        })
    }

    /// Writes a setting that goes away with its instance.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub fn set(&self, path: &str, text: &str) -> Result<(), Refusal> {
        self.files.write(path, text).map_err(|source| self.refusal(path, source))
    }

    /// Writes `on`, and later `off`.
    ///
    /// # Errors
    ///
    /// If the kernel refuses `on`.
    pub fn switch(&mut self, path: &str, on: &str, off: &str) -> Result<(), Refusal> {
        self.undo.push(Undo::Write { path: path.to_owned(), text: off.to_owned() });
        self.set(path, on).inspect_err(|_| {
            self.undo.pop();
        })
    }

    /// Sets a trigger on an event.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub fn trigger(&mut self, event: &str, text: &str) -> Result<(), Refusal> {
        let path = self.path("", &format!("events/{event}/trigger"));
        self.switch(&path, text, &format!("!{text}"))
    }

    /// Defines a kprobe at a function and returns its event, `group/event`.
    ///
    /// # Errors
    ///
    /// If the kernel has no kprobes, does not know the function, or refuses the probe.
    pub fn probe(&mut self, function: &str, arguments: &str) -> Result<String, Refusal> {
        let event = format!("{}/{function}", self.owner.group());
        self.undo.push(Undo::Probe(event.clone()));
        self.set("kprobe_events", &format!("p:{event} {function} {arguments}")).inspect_err(|_| {
            self.undo.pop();
        })?;
        Ok(event)
    }

    /// Opens the stream of the first instance's events.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub fn pipe(&self) -> Result<File, Refusal> {
        let path = self.path("", "trace_pipe");
        self.files.pipe(&path).map_err(|source| self.refusal(&path, source))
    }

    /// Undoes everything and says what could not be undone. Pipes must be closed before.
    ///
    /// # Errors
    ///
    /// What is left.
    pub fn end(mut self) -> Result<(), Refusal> {
        let problems = self.undo_all();
        if problems.is_empty() { Ok(()) } else { Err(Refusal::LeftBehind { problems }) }
    }

    pub(crate) fn refusal(&self, path: &str, source: io::Error) -> Refusal {
        Refusal::of(self.files.shown(path), source, NEEDED)
    }

    /// As [`refusal`](Self::refusal), once everything was there.
    pub(crate) fn later(&self, path: &str, source: io::Error) -> Refusal {
        // There is no such instance any more (`kernel/trace/trace.c:instance_rmdir`).
        let is_gone = source.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error());
        if is_gone || source.kind() == io::ErrorKind::NotFound {
            return Refusal::Gone { path: self.files.shown(path) };
        }
        self.refusal(path, source)
    }

    fn undo_all(&mut self) -> Vec<String> {
        let mut problems = Vec::new();
        while let Some(undo) = self.undo.pop() {
            let (what, result) = match undo {
                Undo::Instance(name) => (format!("instance {name}"), remove_instance(&*self.files, &name)),
                Undo::Probe(event) => (format!("probe {event}"), remove_probe(&*self.files, &event)),
                Undo::Write { path, text } => {
                    // A switch goes away with its instance in any case, so that only the instance matters.
                    let _ = self.files.write(&path, &text);
                    continue;
                }
            };
            problems.extend(result.err().map(|problem| format!("{what}: {problem}")));
        }
        problems
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Nobody is left who could be told; the next start tries again.
        let _ = self.undo_all();
    }
}

/// Removes an instance; that it is gone already is as good.
pub(super) fn remove_instance(files: &dyn Files, name: &str) -> Result<(), String> {
    patiently(|| files.remove(&format!("instances/{name}")))
}

/// Removes a probe.
pub(super) fn remove_probe(files: &dyn Files, event: &str) -> Result<(), String> {
    patiently(|| files.write("kprobe_events", &format!("-:{event}")))
}

fn patiently(mut act: impl FnMut() -> io::Result<()>) -> Result<(), String> {
    let mut last = None;
    for _ in 0..TRIES {
        match act() {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // There is no such instance any more (`kernel/trace/trace.c:instance_rmdir`).
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::ResourceBusy => return Err(error.to_string()),
            Err(error) => last = Some(error),
        }
        std::thread::sleep(PAUSE);
    }
    Err(last.map_or_else(|| "in use".to_owned(), |error| error.to_string()))
}
