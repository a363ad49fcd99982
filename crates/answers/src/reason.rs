//! Words for a step: its cause, how sure it is, what brings the feature back.

use cpusieve_knowledge::kvm::{self, Since};
use cpusieve_knowledge::rules::{self, RemedyKind};
use cpusieve_knowledge::{TreeSet, linux, own, qemu};
use cpusieve_model::{Cite, CpuidBit, Place, RuleId, Stage, Step};

/// How sure an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Confidence {
    /// It follows from a rule whose conditions were seen, or that has none.
    Certain,
    /// It follows from a rule that fits, with a release or a condition concluded rather than seen.
    Likely,
    /// It is one of several ways.
    Possible,
}

impl Confidence {
    /// The word of the JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Certain => "certain",
            Self::Likely => "likely",
            Self::Possible => "possible",
        }
    }
}

/// What brings a feature back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// Where.
    pub kind: RemedyKind,
    /// What to do, in words.
    pub text: String,
    /// The argument of QEMU's `-cpu`, where that is the remedy.
    pub cpu: Option<String>,
}

/// A rule, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Its identity.
    pub rule: RuleId,
    /// What it is about, in a few words.
    pub title: String,
    /// Why.
    pub cause: String,
    /// Where it stands in the real software.
    pub cite: Cite,
    /// What brings the feature back.
    pub remedy: Remedy,
}

/// Finds the words for a step taken in these releases.
#[must_use]
pub fn of_step(step: &Step, tree: usize) -> Reason {
    let bit = step.place.and_then(Place::cpuid);
    let (title, cause, remedy) = match (rules::rule(step.rule.0), rules::condition(step.rule.0)) {
        (Some(rule), _) => (rule.title, rule.cause, rule.remedy),
        (None, Some(condition)) => (condition.title, condition.cause, condition.remedy),
        (None, None) => ("no rule is known", "No rule that cpusieve knows speaks of this feature here.", None),
    };
    let when = rules::rule(step.rule.0).and_then(|rule| rule.when);
    let mut remedy = remedy.map_or_else(
        || Remedy { kind: RemedyKind::None, text: "none is known".to_owned(), cpu: None },
        |remedy| Remedy { kind: remedy.kind, text: remedy.text.to_owned(), cpu: remedy.cpu.map(str::to_owned) },
    );
    let mut cause = cause.to_owned();
    if let (Stage::Kvm, Some(bit)) = (step.at, bit) {
        match when {
            Some("masked-always") => {
                cause = format!("{cause} {}", never_offered());
                remedy.text = format!("none: every release of KVM masks it ({})", span());
            }
            Some("masked-here") => remedy = later_kernel(bit, tree),
            _ => {}
        }
    }
    if let (Stage::Qemu, Some(bit)) = (step.at, bit) {
        remedy = match when {
            Some("model") => ask_qemu(bit, remedy),
            Some("unnamed") => until_named(bit, remedy),
            Some("word-unknown") => until_known(bit, remedy),
            _ => remedy,
        };
    }
    Reason { rule: step.rule, title: title.to_owned(), cause, cite: step.cite, remedy }
}

fn span() -> String {
    let label = |tree: Option<&linux::Tree>| tree.map_or("", |tree| tree.label);
    format!("Linux {} to {}", label(linux::TREES.first()), label(linux::TREES.last()))
}

fn never_offered() -> String {
    format!("None of the {} kernel trees from {} has it in a mask.", linux::TREES.len(), span())
}

/// From which kernel on KVM offers a bit: `6.4`, or the first known tree that does.
#[must_use]
pub fn offered_since(bit: CpuidBit, tree: usize) -> Option<String> {
    match kvm::since(bit) {
        Some(Since::Release(release)) => Some(release.to_owned()),
        Some(Since::Between { present, .. }) => Some(mainline(linux::TREES[present].label).to_owned()),
        Some(Since::Always) | None => {
            let first = kvm::trees_offering(bit).iter().find(|&other| other > own::compiled(tree))?;
            Some(mainline(linux::TREES[first].label).to_owned())
        }
    }
}

/// The release of a tree that is labelled apart from a distribution's of the same number.
fn mainline(label: &str) -> &str {
    label.trim_end_matches("vanilla")
}

fn later_kernel(bit: CpuidBit, tree: usize) -> Remedy {
    let since = offered_since(bit, tree).unwrap_or_default();
    let text = format!("host kernel {since} or newer{}{}", but_not(bit), and_qemu(bit));
    Remedy { kind: RemedyKind::Kernel, text, cpu: None }
}

/// Kernels that know a bit and are built without what they would need to offer it.
fn but_not(bit: CpuidBit) -> String {
    let never = |tree: usize| {
        let cap = kvm::cap(tree, bit).map(|cap| cap.macro_name)?;
        let conditions = kvm::adjustments_of(tree, cap).flat_map(|adjust| adjust.conditions);
        let mut explained = conditions.filter_map(|c| rules::kvm_condition(c, tree));
        explained.find(|condition| condition.never && condition.trees.contains(tree))
    };
    let without: Vec<usize> = (0..linux::TREES.len()).filter(|&tree| never(tree).is_some()).collect();
    let label = |tree: &usize| linux::TREES.get(*tree).map_or("", |tree| tree.label);
    let newest = without.iter().rev().zip((0..linux::TREES.len()).rev()).take_while(|(here, tree)| *here == tree);
    let since = newest.last().map(|(first, _)| first);
    let before = without.iter().filter(|tree| Some(*tree) < since).map(label).collect::<Vec<_>>();
    match since {
        Some(first) if before.is_empty() => format!(", but older than {}", label(first)),
        Some(first) => format!(", but older than {} and not a late {}", label(first), before.join(" or ")),
        None => String::new(),
    }
}

/// What QEMU must have besides: a name for the bit, or `migratable=off`.
fn and_qemu(bit: CpuidBit) -> String {
    let known = qemu::bit(Place::Cpuid(bit));
    let naming = known.map_or(TreeSet::EMPTY, |bit| bit.named);
    match (known.and_then(|bit| bit.name), naming.first()) {
        (Some(name), Some(0)) => format!("; QEMU calls it {name}"),
        (Some(name), Some(first)) => format!(
            ", and a QEMU that names {name} ({} does, {} does not){}",
            qemu::RELEASES[first].label,
            qemu::RELEASES[first - 1].label,
            // Without a word for the register even that passes nothing.
            if qemu::word_exists(first - 1, Place::Cpuid(bit)) { " or -cpu host,migratable=off" } else { "" }
        ),
        _ if qemu::word_exists(qemu::RELEASES.len() - 1, Place::Cpuid(bit)) => {
            format!(", and -cpu host,migratable=off: QEMU up to {} has no name for the bit", newest_qemu())
        }
        _ => format!("; but QEMU up to {} passes nothing of this register", newest_qemu()),
    }
}

/// QEMU has no name for the bit: the first that has, or `migratable=off` alone.
fn until_named(bit: CpuidBit, mut remedy: Remedy) -> Remedy {
    let named = qemu::first_naming(Place::Cpuid(bit)).zip(qemu::bit(Place::Cpuid(bit)).and_then(|bit| bit.name));
    let newer = match named {
        Some((first, name)) => format!("a QEMU that names it ({} does: {name})", qemu::RELEASES[first].label),
        None => format!("a QEMU that names it, which none up to {} does", newest_qemu()),
    };
    remedy.text = remedy.text.replace("a newer QEMU that names the feature", &newer);
    remedy
}

/// QEMU does not know the register: the first that does.
fn until_known(bit: CpuidBit, mut remedy: Remedy) -> Remedy {
    let first = (0..qemu::RELEASES.len()).find(|&release| qemu::word_exists(release, Place::Cpuid(bit)));
    match first.and_then(|first| qemu::RELEASES.get(first)) {
        Some(first) => remedy.text = format!("a QEMU that knows the register ({} does)", first.label),
        None => {
            remedy.kind = RemedyKind::None;
            remedy.text = format!("none: QEMU up to {} does not know the register", newest_qemu());
        }
    }
    remedy
}

fn newest_qemu() -> &'static str {
    qemu::RELEASES.last().map_or("", |release| release.label)
}

/// A named model lacks it, or it was taken out: ask for it by QEMU's own name.
fn ask_qemu(bit: CpuidBit, fallback: Remedy) -> Remedy {
    let Some(name) = qemu::bit(Place::Cpuid(bit)).and_then(|bit| bit.name) else { return fallback };
    Remedy {
        kind: RemedyKind::Qemu,
        text: format!("-cpu MODEL,+{name}, or -cpu host"),
        cpu: Some(format!("MODEL,+{name}")),
    }
}
