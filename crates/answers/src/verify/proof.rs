//! What came of one part of a proof, in the same form for all of them.

use cpusieve_knowledge::linux::TREES;

use super::{Difference, Verified};
use crate::predict::Assumption;

/// A part: what was asked for the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// This machine's own kernel.
    Host,
    /// `/dev/kvm`.
    Kvm,
    /// A vCPU of our own.
    Vcpu,
    /// QEMU, over QMP.
    Qemu,
    /// A guest that QEMU booted.
    Guest,
}

impl Part {
    /// All of them, in machine order.
    pub const ALL: [Self; 5] = [Self::Host, Self::Kvm, Self::Vcpu, Self::Qemu, Self::Guest];

    /// Its name: `host`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Kvm => "kvm",
            Self::Vcpu => "vcpu",
            Self::Qemu => "qemu",
            Self::Guest => "guest",
        }
    }
}

/// A prediction held against the real thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The part.
    pub part: Part,
    /// What was asked: `KVM of Linux 6.12`.
    pub of: String,
    /// What was compared, in the singular: `register`.
    pub counted: &'static str,
    /// How many were compared.
    pub compared: usize,
    /// Those that differ.
    pub mismatches: Vec<Mismatch>,
    /// What could not be compared, and why.
    pub unseen: Vec<String>,
    /// What was noticed beside.
    pub findings: Vec<String>,
    /// What the prediction rests on.
    pub assumed: Vec<Assumption>,
}

/// Something that came out otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// What.
    pub what: String,
    /// What was predicted; `None` for nothing.
    pub predicted: Option<String>,
    /// What is real; `None` for nothing.
    pub real: Option<String>,
    /// The features that hang on it.
    pub features: Vec<String>,
    /// The likely cause, in words.
    pub cause: String,
}

impl Proof {
    /// A proof in which nothing has been compared yet.
    #[must_use]
    pub const fn new(part: Part, of: String, counted: &'static str) -> Self {
        Self {
            part,
            of,
            counted,
            compared: 0,
            mismatches: Vec::new(),
            unseen: Vec::new(),
            findings: Vec::new(),
            assumed: Vec::new(),
        }
    }

    /// A part that could not be looked at, and why.
    #[must_use]
    pub fn unseen(part: Part, of: &str, why: String) -> Self {
        Self { unseen: vec![why], ..Self::new(part, of.to_owned(), "register") }
    }
}

impl From<Verified> for Proof {
    fn from(found: Verified) -> Self {
        let label = TREES.get(found.prediction.host.tree).map_or("", |tree| tree.label);
        let hex = |value: Option<u64>| value.map(|value| format!("{value:#x}"));
        let mismatch = |difference: Difference| Mismatch {
            what: difference.what.to_string(),
            predicted: hex(difference.predicted),
            real: hex(difference.real),
            features: difference.features.into_iter().map(str::to_owned).collect(),
            cause: difference.cause,
        };
        Self {
            compared: found.compared,
            mismatches: found.differences.into_iter().map(mismatch).collect(),
            unseen: found.unseen,
            findings: found.prediction.findings.iter().map(ToString::to_string).collect(),
            assumed: found.prediction.assumed,
            ..Self::new(Part::Kvm, format!("KVM of Linux {label}"), "register")
        }
    }
}
