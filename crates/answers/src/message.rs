//! What a pasted message means: who lost which feature, what that matters, what to do.
//!
//! Messages are known by the rows of `knowledge/messages/`; this module gathers what they name, groups it by cause, and
//! judges stage and severity. Nothing is invented: a message that names no feature gets none, unless its row says which
//! one it always is about.
//!
//! ```
//! use cpusieve_answers::message::explain;
//! use cpusieve_knowledge::messages::{At, Severity};
//!
//! let paste = cpusieve_formats::message::parse(b"error: failed to set MSR 0x48b to 0x137bff00000000");
//! let answer = explain(&paste, None);
//! assert_eq!((answer.stage, answer.severity), (At::Kvm, Severity::Fatal));
//! assert_eq!(answer.features(), ["vmx"]);
//! assert_eq!(answer.bits(), ["CPUID.0x1.0:ECX[5]", "MSR.0x48b"]);
//! assert_eq!(answer.cpu.as_deref(), Some("host,-vmx"));
//! ```

mod fault;
mod feature;
pub mod fuzz;
mod instruction;
mod loss;
mod register;
mod scene;
mod sentence;
mod settle;

use cpusieve_formats::message::Paste;
use cpusieve_knowledge::messages::{self, At, Severity, Spot};
use cpusieve_stages::Machine;

pub use feature::Subject;
pub use instruction::{Instruction, Special};

use loss::Loss;
use scene::Scene;

/// The answer to a paste.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What happened, the worst first.
    pub causes: Vec<Cause>,
    /// What else the paste tells about itself, as sentences.
    pub hints: Vec<String>,
    /// The likeliest stage of the worst cause.
    pub stage: At,
    /// What the worst cause matters.
    pub severity: Severity,
    /// What to do, the worst cause first.
    pub remedy: String,
    /// The argument of QEMU's `-cpu` that mends or avoids the worst cause.
    pub cpu: Option<String>,
    /// libvirt's `<cpu>` that does the same.
    pub libvirt: Option<String>,
    /// Lines that are not blank.
    pub lines: usize,
    /// Lines that were not understood, or say nothing of CPUs.
    pub ignored: usize,
}

/// Messages with one cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The row of the knowledge.
    pub id: &'static str,
    /// A few words.
    pub title: String,
    /// The likeliest stage.
    pub stage: At,
    /// What it matters.
    pub severity: Severity,
    /// The numbers of the lines.
    pub lines: Vec<u32>,
    /// The features.
    pub subjects: Vec<Subject>,
    /// Further places.
    pub spots: Vec<Spot>,
    /// Why, as sentences.
    pub why: Vec<String>,
    /// What to do.
    pub remedy: String,
    /// The argument of `-cpu`.
    pub cpu: Option<String>,
    /// The file and function that print it or decide it.
    pub cite: Option<&'static str>,
}

impl Answer {
    /// The ids of the features, those of the worst cause first; none twice. Names that nobody knows for a feature's stand
    /// with their cause alone.
    #[must_use]
    pub fn features(&self) -> Vec<&str> {
        let subjects = self.causes.iter().flat_map(|cause| &cause.subjects);
        distinct(subjects.filter_map(|subject| subject.feature).map(|feature| feature.id))
    }

    /// The places, as [`Spot`] prints them; none twice.
    #[must_use]
    pub fn bits(&self) -> Vec<String> {
        let of = |cause: &Cause| {
            let subjects = cause.subjects.iter().filter_map(|subject| subject.spot);
            subjects.chain(cause.spots.iter().copied()).map(|spot| spot.to_string()).collect::<Vec<_>>()
        };
        distinct(self.causes.iter().flat_map(of))
    }
}

fn distinct<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut kept = Vec::new();
    for one in all {
        if !kept.contains(&one) {
            kept.push(one);
        }
    }
    kept
}

/// Explains a paste. With a host, every feature's way on it is asked of the stages.
///
/// `causes` is empty if nothing in the paste is known.
#[must_use]
pub fn explain(paste: &Paste, host: Option<&Machine<'_>>) -> Answer {
    let found = messages::find(&paste.lower);
    let scene = Scene::of(paste, &found);
    let mut losses: Vec<Loss> = Vec::new();
    for one in found.iter().filter(|one| one.message.tag.is_none()) {
        losses.push(Loss::of(paste, &scene, one));
    }
    losses.extend(fault::of_instructions(paste, &scene));
    if losses.iter().all(|loss| loss.weak) {
        losses.extend(sentence::find(paste).map(|found| Loss::of(paste, &scene, &found)));
    }
    let mut answer = settle::settle(paste, &scene, losses);
    if let Some(host) = host {
        answer.causes.iter_mut().flat_map(|cause| &mut cause.subjects).for_each(|subject| subject.ask(host));
    }
    answer
}
