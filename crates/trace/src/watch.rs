//! The two watches: guests' CPUIDs and exits, and KVM's own CPUIDs.

mod functions;

use std::fs::File;
use std::io::{self, Read};
use std::rc::Rc;
use std::time::Duration;

use rustix::event::{Timespec, poll};

use crate::count::Counts;
use crate::event::HOST_CPUID;
use crate::read::{Histogram, NOT_FOUND, Reader, histograms};
use crate::tracefs::stale::Swept;
use crate::tracefs::{Files, Refusal, Session};

/// Exits for CPUID of Intel's module (isa 1) and AMD's (isa 2), as a filter on `kvm:kvm_exit`.
const CPUID_EXITS: &str = "(isa == 1 && exit_reason == 10) || (isa == 2 && exit_reason == 114)";

/// Rows of each histogram in the kernel.
const SIZE: &str = "size=16384";

/// The buffer of a CPU for events that are read, in KiB, and for events that are only counted.
const BUFFER_KB: &str = "2048";
const COUNTED_KB: &str = "8";

/// Bytes that are read at once, and how many such pieces between two looks at the clock.
const CHUNK: usize = 64 << 10;
const CHUNKS: usize = 256;

/// The longest pause between two reads: a buffer must not fill meanwhile.
const PAUSE: Duration = Duration::from_millis(20);

/// Where the counts come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The kernel counts (`hist` triggers).
    Histograms,
    /// Every event is read; of exits only those for CPUID are, and the others are counted by the ring buffer.
    Events,
    /// Every event is read, with arguments, from a kprobe.
    Probe,
    /// Every event is read, from the function tracer, which knows arguments (from 6.15 on) or stacks.
    Functions,
}

impl Source {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Histograms => "hist triggers",
            Self::Events => "events",
            Self::Probe => "kprobe",
            Self::Functions => "function tracer",
        }
    }
}

/// A running watch.
#[derive(Debug)]
pub struct Watch {
    // Dropped in this order: an instance whose pipe is open cannot be removed.
    pipe: Option<File>,
    session: Session,
    reader: Reader,
    counts: Counts,
    source: Source,
}

impl Watch {
    /// Watches the guests of this host: in the kernel where it has `hist` triggers, unless `by_events`, else event by event.
    ///
    /// # Errors
    ///
    /// If tracing is not permitted, or KVM is not there.
    pub fn guests(files: Rc<dyn Files>, by_events: bool) -> Result<Self, Refusal> {
        let event = "events/kvm/kvm_cpuid";
        if !files.exists(event) {
            let needed = "KVM's module, loaded, in a kernel built with tracepoints";
            return Err(Refusal::Missing { path: files.shown(event), needed });
        }
        let mut session = Session::begin(files)?;
        if session.files().exists("events/kvm/kvm_cpuid/hist") && !by_events {
            let triggers = [
                ("kvm/kvm_cpuid", format!("hist:keys=common_pid.execname,function.hex,index.hex:{SIZE}")),
                ("kvm/kvm_cpuid", format!("hist:keys=function.hex,index.hex:{SIZE} if {NOT_FOUND}")),
                ("kvm/kvm_exit", format!("hist:keys=common_pid.execname,isa,exit_reason:{SIZE}")),
                ("kvm/kvm_exit", format!("hist:keys=guest_rip.hex:{SIZE} if {CPUID_EXITS}")),
            ];
            for (event, trigger) in &triggers {
                session.trigger(event, trigger)?;
            }
            return Ok(Self::over(session, Source::Histograms, None));
        }
        session.set(&session.path("", "buffer_size_kb"), BUFFER_KB)?;
        session.instance(ALL)?;
        session.set(&session.path(ALL, "buffer_size_kb"), COUNTED_KB)?;
        session.set(&session.path("", "events/kvm/kvm_exit/filter"), CPUID_EXITS)?;
        let pipe = session.pipe()?;
        for (word, event) in [(ALL, "kvm_exit"), ("", "kvm_exit"), ("", "kvm_cpuid")] {
            session.switch(&session.path(word, &format!("events/kvm/{event}/enable")), "1", "0")?;
        }
        Ok(Self::over(session, Source::Events, Some(pipe)))
    }

    /// Watches KVM's own CPUIDs: by a kprobe, which knows arguments and stacks, unless `by_functions`; by the function
    /// tracer where the kernel has no kprobes.
    ///
    /// # Errors
    ///
    /// If tracing is not permitted, KVM is not there, or the kernel has neither kprobes nor a function tracer.
    pub fn host(files: Rc<dyn Files>, by_functions: bool) -> Result<Self, Refusal> {
        let mut session = Session::begin(files)?;
        session.set(&session.path("", "buffer_size_kb"), BUFFER_KB)?;
        if by_functions || !session.files().exists("kprobe_events") {
            return functions::functions(session);
        }
        // The second and third argument of the function are in these registers (System V ABI); `$arg2` came with 4.20.
        let arguments = "leaf=%si:x32 subleaf=%dx:x32";
        let mut refusal = None;
        for function in HOST_CPUID {
            match session.probe(function, arguments) {
                Ok(event) => {
                    session.set(&session.path("", "options/stacktrace"), "1")?;
                    let pipe = session.pipe()?;
                    session.switch(&session.path("", &format!("events/{event}/enable")), "1", "0")?;
                    return Ok(Self::over(session, Source::Probe, Some(pipe)));
                }
                Err(found) => drop(refusal.get_or_insert(found)),
            }
        }
        Err(match refusal {
            Some(Refusal::NotPermitted { path, source, needed }) => Refusal::NotPermitted { path, source, needed },
            refused => Refusal::HostCalls {
                found: vec![match refused {
                    Some(Refusal::File { source, .. }) => {
                        format!("the kernel sets no kprobe at do_host_cpuid ({source})")
                    }
                    // It answers "not found" for a function that it does not know.
                    _ => "the kernel knows no function do_host_cpuid at which a kprobe could be set".to_owned(),
                }],
                needed: "KVM's module, loaded, with do_host_cpuid as a function of its own",
            },
        })
    }

    fn over(session: Session, source: Source, pipe: Option<File>) -> Self {
        Self { pipe, session, reader: Reader::default(), counts: Counts::default(), source }
    }

    /// Where the counts come from.
    #[must_use]
    pub const fn source(&self) -> Source {
        self.source
    }

    /// What earlier sessions had left behind.
    #[must_use]
    pub const fn swept(&self) -> &Swept {
        self.session.swept()
    }

    /// What was counted up to the last [`turn`](Self::turn).
    #[must_use]
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Waits for at most `wait`, or until a signal comes, and takes what has happened meanwhile.
    ///
    /// # Errors
    ///
    /// If tracefs does not answer any more.
    pub fn turn(&mut self, wait: Duration) -> Result<(), Refusal> {
        // Not a poll of the pipe: newer kernels wake a reader when a buffer is half full.
        let pause = if self.pipe.is_some() { wait.min(PAUSE) } else { wait };
        let pause = Timespec { tv_sec: pause.as_secs().cast_signed(), tv_nsec: pause.subsec_nanos().into() };
        // An interruption is what the caller looks for himself.
        let _ = poll(&mut [], Some(&pause));
        self.take().map(drop)
    }

    /// Stops the watch, takes what is left, undoes everything, and returns the counts.
    ///
    /// The second part of the answer says what could not be read at the end, or not undone.
    pub fn end(mut self) -> (Counts, Result<(), Refusal>) {
        let instances: &[&str] = if self.source == Source::Events { &["", ALL] } else { &[""] };
        let mut ended = Ok(());
        for word in instances {
            let path = self.session.path(word, "tracing_on");
            let stopped = self.session.files().write(&path, "0");
            ended = ended.and(stopped.map_err(|source| self.session.later(&path, source)));
        }
        // Nothing is added any more, so that this ends.
        while ended.is_ok()
            && self.take().unwrap_or_else(|refusal| {
                ended = Err(refusal);
                false
            })
        {}
        self.reader.finish(&mut |event| self.counts.add(event));
        self.pipe = None;
        let undone = self.session.end();
        (self.counts, ended.and(undone))
    }

    /// Takes what is there; whether there is more.
    fn take(&mut self) -> Result<bool, Refusal> {
        if self.source == Source::Histograms {
            return self.take_histograms().map(|()| false);
        }
        let more = self.take_events()?;
        if self.source == Source::Events {
            self.counts.guests.all_exits = Some(self.written(ALL)?);
        }
        Ok(more)
    }

    fn take_histograms(&mut self) -> Result<(), Refusal> {
        let mut counts = Counts::default();
        for event in ["kvm_exit", "kvm_cpuid"] {
            let path = self.session.path("", &format!("events/kvm/{event}/hist"));
            let text = self.session.files().read(&path).map_err(|source| self.session.later(&path, source))?;
            histograms(&text).0.iter().for_each(|histogram: &Histogram| histogram.count(&mut counts));
        }
        self.counts = counts;
        Ok(())
    }

    fn take_events(&mut self) -> Result<bool, Refusal> {
        let Some(pipe) = &mut self.pipe else { return Ok(false) };
        let mut chunk = vec![0; CHUNK];
        for _ in 0..CHUNKS {
            match pipe.read(&mut chunk) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    let bytes = chunk.get(..count).unwrap_or_default();
                    self.reader.push(bytes, &mut |event| self.counts.add(event));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.session.later(&self.session.path("", "trace_pipe"), source)),
            }
        }
        Ok(true)
    }

    /// The events that were written to an instance's buffers, whether they are still there or not.
    fn written(&self, word: &str) -> Result<u64, Refusal> {
        let folder = self.session.path(word, "per_cpu");
        let files = self.session.files();
        let names = files.names(&folder).map_err(|source| self.session.later(&folder, source))?;
        let mut sum: u64 = 0;
        for name in names {
            // A CPU may go offline meanwhile.
            let stats = files.read(&format!("{folder}/{name}/stats")).unwrap_or_default();
            let fields = stats.lines().filter_map(|line| line.split_once(": "));
            let counted = fields.filter(|(field, _)| matches!(*field, "entries" | "overrun" | "dropped events"));
            sum = counted.filter_map(|(_, value)| value.parse::<u64>().ok()).fold(sum, u64::saturating_add);
        }
        Ok(sum)
    }
}

/// The word behind the name of the instance that counts all exits.
const ALL: &str = "-all";
