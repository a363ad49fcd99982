//! Questions to a live QEMU, over QMP on its standard input and output.
//!
//! A [`Start`] says which binary, accelerator, machine and CPU; [`Start::open`] runs it, with a guest that is paused
//! before its first instruction, and returns a [`Session`] that asks. [`survey()`] asks a binary everything that it knows
//! of CPU models, [`vcpu()`] everything about one paused vCPU. Each answer has a time limit and a bound; QEMU is killed
//! and reaped when the session ends, however it ends.
//!
//! ```no_run
//! use cpusieve_probe::qmp::Start;
//!
//! let mut session = Start::new("/usr/bin/qemu-system-x86_64", "tcg").open()?;
//! for model in session.cpu_definitions()? {
//!     println!("{} {:?}", model.name, model.unavailable_features);
//! }
//! # Ok::<(), cpusieve_probe::qmp::QmpError>(())
//! ```

mod error;
mod survey;
mod vcpu;

use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::process::{Command as Program, ExitStatus};
use std::time::{Duration, Instant};

use cpusieve_formats::qmp::{
    Command, CpuDefinition, Expansion, FeatureWord, MachineType, Message, Notice, ObjectProperty, PropertyValue, Reply,
    Unexpected, VcpuPath, Version, notices,
};
use cpusieve_model::ModelExpansion;

pub use error::QmpError;
pub use survey::{Survey, survey};
pub use vcpu::{VcpuView, vcpu};

use crate::process::{Fault, Process};
use error::out_of_turn;

/// How long an answer may take unless the caller says otherwise. On two busy cores a start took 2.5 s.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How long a QEMU that has closed its output, or was asked to quit, may take to end.
const FAREWELL: Duration = Duration::from_secs(2);

/// Bytes of a transcript that are kept. All models of QEMU 11.1 need 10 million.
const MAX_TRANSCRIPT: usize = 64 << 20;

/// How a QEMU is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    binary: PathBuf,
    accelerator: String,
    machine: String,
    cpu: Option<String>,
    smp: Option<String>,
    limit: Duration,
    transcript: bool,
}

impl Start {
    /// A binary with an accelerator as `-accel` takes it (`kvm`, `tcg`), without a machine.
    pub fn new(binary: impl Into<PathBuf>, accelerator: impl Into<String>) -> Self {
        let (binary, accelerator) = (binary.into(), accelerator.into());
        Self {
            binary,
            accelerator,
            machine: "none".to_owned(),
            cpu: None,
            smp: None,
            limit: PATIENCE,
            transcript: false,
        }
    }

    /// With a machine as `-machine` takes it: `pc-q35-7.2`, `q35,kernel-irqchip=split`.
    #[must_use]
    pub fn machine(self, machine: impl Into<String>) -> Self {
        Self { machine: machine.into(), ..self }
    }

    /// With a CPU as `-cpu` takes it: `host,migratable=off`. A start without a machine has no CPU.
    #[must_use]
    pub fn cpu(self, cpu: impl Into<String>) -> Self {
        Self { cpu: Some(cpu.into()), ..self }
    }

    /// With a topology as `-smp` takes it: `4,sockets=2`.
    #[must_use]
    pub fn smp(self, smp: impl Into<String>) -> Self {
        Self { smp: Some(smp.into()), ..self }
    }

    /// With another time limit than [`PATIENCE`] for each answer, the first included.
    #[must_use]
    pub fn limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// With [`Session::transcript`] kept.
    #[must_use]
    pub fn transcript(self) -> Self {
        Self { transcript: true, ..self }
    }

    /// What is written on QEMU's command line after the program.
    #[must_use]
    pub fn arguments(&self) -> Vec<&str> {
        let mut arguments = vec!["-accel", &self.accelerator, "-machine", &self.machine];
        arguments.extend(self.cpu.iter().flat_map(|cpu| ["-cpu", cpu]));
        arguments.extend(self.smp.iter().flat_map(|smp| ["-smp", smp]));
        arguments.extend(["-S", "-nodefaults", "-no-user-config", "-display", "none", "-qmp", "stdio"]);
        arguments
    }

    /// Runs QEMU and waits until it takes commands: its machine, if it has one, is then complete and paused.
    ///
    /// # Errors
    ///
    /// If it cannot be run, ends by itself (a model that it does not know, an accelerator that does not work here), is
    /// not ready within the limit, or is no QEMU.
    pub fn open(&self) -> Result<Session, QmpError> {
        let mut program = Program::new(&self.binary);
        // Words that the system's library adds to a message stay English, so that they can be compared.
        program.args(self.arguments()).env("LC_ALL", "C");
        let fail = |source| QmpError::NotRun { binary: self.binary.clone(), source };
        let mut session = Session {
            binary: self.binary.clone(),
            limit: self.limit,
            version: Version::default(),
            last_id: 0,
            transcript: self.transcript.then(Vec::new),
            transcript_bytes: 0,
            process: Process::spawn(&mut program).map_err(fail)?,
            own_thread: PhantomData,
        };
        match session.message("its greeting", Instant::now() + self.limit)? {
            Message::Greeting(version) => session.version = version,
            other => return Err(session.unexpected("its greeting", &out_of_turn("a greeting", &other))),
        }
        session.ask(&Command::Capabilities)?;
        Ok(session)
    }
}

/// A QEMU that runs and answers. It is killed when this is dropped, and when the thread or process that started it ends;
/// therefore a session stays on its thread.
#[derive(Debug)]
pub struct Session {
    binary: PathBuf,
    limit: Duration,
    version: Version,
    last_id: u64,
    transcript: Option<Vec<String>>,
    transcript_bytes: usize,
    process: Process,
    own_thread: PhantomData<*const ()>,
}

impl Session {
    /// The version in QEMU's greeting.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// The binary as it was named.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// What QEMU has said on stderr so far. After [`Start::open`] that is all that its start had to say.
    pub fn notices(&mut self) -> Vec<Notice> {
        self.process.drain();
        notices(&self.process.stderr())
    }

    /// All that was said so far, line by line: `! ` QEMU's stderr, then `> ` each command and `< ` what QEMU wrote. Empty
    /// unless [`Start::transcript`] was called; what is said after 64 MiB is not kept.
    pub fn transcript(&mut self) -> Vec<String> {
        let Some(said) = &self.transcript else { return Vec::new() };
        self.process.drain();
        let stderr = self.process.stderr();
        let lines = stderr.lines().map(|line| format!("! {line}"));
        lines.chain(said.iter().cloned()).collect()
    }

    /// `query-version`.
    ///
    /// # Errors
    ///
    /// As [`Session::ask`], and if the reply is no answer to the question; the same for all questions below.
    pub fn query_version(&mut self) -> Result<Version, QmpError> {
        self.read(&Command::Version, Reply::version)
    }

    /// The machine types, in QEMU's order.
    ///
    /// # Errors
    ///
    /// As [`Session::query_version`].
    pub fn machines(&mut self) -> Result<Vec<MachineType>, QmpError> {
        self.read(&Command::Machines, Reply::machines)
    }

    /// The CPU models, in QEMU's order, and which features of each are not to be had with this accelerator.
    ///
    /// # Errors
    ///
    /// As [`Session::query_version`].
    pub fn cpu_definitions(&mut self) -> Result<Vec<CpuDefinition>, QmpError> {
        self.read(&Command::CpuDefinitions, Reply::cpu_definitions)
    }

    /// What a model with properties is with this accelerator. Without a machine no compatibility properties apply and
    /// nothing is filtered.
    ///
    /// # Errors
    ///
    /// As [`Session::query_version`]; [`QmpError::Refused`] for a model or property that QEMU does not have.
    pub fn expand(
        &mut self,
        expansion: Expansion,
        model: &str,
        props: &[(&str, PropertyValue<'_>)],
    ) -> Result<ModelExpansion, QmpError> {
        self.read(&Command::Expand { expansion, model, props }, Reply::expansion)
    }

    /// The properties that `-cpu` and `-device` take of a type.
    ///
    /// # Errors
    ///
    /// As [`Session::query_version`]; [`QmpError::Refused`] for an abstract type.
    pub fn device_properties(&mut self, typename: &str) -> Result<Vec<ObjectProperty>, QmpError> {
        self.read(&Command::DeviceProperties { typename }, Reply::properties)
    }

    /// The properties of a type, abstract types included.
    ///
    /// # Errors
    ///
    /// As [`Session::query_version`]; [`QmpError::Refused`] for a type that QEMU does not have.
    pub fn type_properties(&mut self, typename: &str) -> Result<Vec<ObjectProperty>, QmpError> {
        self.read(&Command::TypeProperties { typename }, Reply::properties)
    }

    /// The vCPUs of the machine.
    ///
    /// # Errors
    ///
    /// As [`Session::query_version`].
    pub fn vcpus(&mut self) -> Result<Vec<VcpuPath>, QmpError> {
        self.read(&Command::Vcpus, Reply::vcpus)
    }

    /// The properties of an object.
    ///
    /// # Errors
    ///
    /// As [`Session::query_version`]; [`QmpError::Refused`] for an object that is not there.
    pub fn list(&mut self, path: &str) -> Result<Vec<ObjectProperty>, QmpError> {
        self.read(&Command::List { path }, Reply::properties)
    }

    /// The value of an object's property, as JSON text.
    ///
    /// # Errors
    ///
    /// As [`Session::ask`]; [`QmpError::Refused`] for a property that is not there or cannot be read.
    pub fn get(&mut self, path: &str, property: &str) -> Result<String, QmpError> {
        self.ask(&Command::Get { path, property }).map(|reply| reply.text())
    }

    /// The feature words that a vCPU has (`feature-words`) or that were taken from it (`filtered-features`), in QEMU's
    /// order. QEMU shows those of CPUID alone, not those of MSRs.
    ///
    /// # Errors
    ///
    /// As [`Session::query_version`]; [`QmpError::Refused`] if `path` is no vCPU.
    pub fn feature_words(&mut self, path: &str, property: &str) -> Result<Vec<FeatureWord>, QmpError> {
        self.read(&Command::Get { path, property }, Reply::feature_words)
    }

    /// Asks QEMU to end, and says how it ended.
    ///
    /// # Errors
    ///
    /// If it does not let itself be asked, or not in time; it is killed even then.
    pub fn close(mut self) -> Result<ExitStatus, QmpError> {
        match self.ask(&Command::Quit) {
            Ok(_) => self.process.finish(FAREWELL).map_err(|source| self.lost(Fault::Io(source), Command::Quit.name())),
            // It did not stay for the reply.
            Err(QmpError::Ended { status, .. }) => Ok(status),
            Err(error) => Err(error),
        }
    }

    /// Asks, and waits for the reply. Events in between are passed over.
    ///
    /// # Errors
    ///
    /// [`QmpError::Refused`] if QEMU refuses; the session goes on. With any other error QEMU is gone: it has ended or
    /// was too slow, and was killed.
    pub fn ask(&mut self, command: &Command<'_>) -> Result<Reply, QmpError> {
        let deadline = Instant::now() + self.limit;
        self.last_id += 1;
        let line = command.line(self.last_id);
        self.keep("> ", line.as_bytes());
        let sent = self.process.send(&[line.as_bytes(), b"\n"].concat(), deadline);
        // Whoever has ended has not read; why it ended is in what it wrote before.
        sent.or_else(|fault| if matches!(fault, Fault::Closed) { Ok(()) } else { Err(fault) })
            .map_err(|fault| self.lost(fault, command.name()))?;
        loop {
            match self.message(command.name(), deadline)? {
                Message::Event(_) => {}
                Message::Return { id, reply } if id == Some(self.last_id) => return Ok(reply),
                Message::Error { id, class, description } if id.is_none_or(|id| id == self.last_id) => {
                    return Err(self.refused(command, class, description));
                }
                other => return Err(self.unexpected(command.name(), &out_of_turn("the reply to this command", &other))),
            }
        }
    }

    fn read<T>(
        &mut self,
        command: &Command<'_>,
        read: impl FnOnce(&Reply) -> Result<T, Unexpected>,
    ) -> Result<T, QmpError> {
        let reply = self.ask(command)?;
        read(&reply).map_err(|unexpected| self.unexpected(command.name(), &unexpected))
    }

    /// The next message. `during` names what is waited for.
    fn message(&mut self, during: &'static str, deadline: Instant) -> Result<Message, QmpError> {
        let line = self.process.line(deadline).map_err(|fault| self.lost(fault, during))?;
        self.keep("< ", line.trim_ascii());
        Message::read(&line).map_err(|problem| self.wrong(during, problem.to_string()))
    }

    fn keep(&mut self, sign: &str, line: &[u8]) {
        if let Some(transcript) = &mut self.transcript
            && self.transcript_bytes < MAX_TRANSCRIPT
        {
            self.transcript_bytes += line.len();
            transcript.push(format!("{sign}{}", String::from_utf8_lossy(line)));
        }
    }
}
