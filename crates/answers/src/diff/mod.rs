//! Which flags went and came between two ends, and who took each one.

mod gained;
mod hypothesis;
pub(crate) mod item;
mod kept;
mod lost;
mod peers;
mod relation;

use cpusieve_knowledge::linux;
use cpusieve_model::{Cite, Evidence, FlagList, Place, RuleId, Snapshot, Stage, Step};
use cpusieve_stages::qemu::Command;
use cpusieve_stages::{Machine, World};

pub use item::Group;
pub use kept::{Kept, kept};
pub use relation::Relation;

use crate::reason::{Confidence, Remedy};

/// A flag that one end shows and the other does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The name that the kernel prints.
    pub flag: String,
    /// Where the feature lives.
    pub place: Option<Place>,
    /// The sieve that took or added it; `None` if nothing is known about the flag.
    pub at: Option<Stage>,
    /// The rule that decided.
    pub rule: RuleId,
    /// What the rule is about, in a few words.
    pub title: String,
    /// Why, in one or two sentences.
    pub cause: String,
    /// Where that stands in the real software.
    pub cite: Cite,
    /// How sure this is.
    pub confidence: Confidence,
    /// What brings the flag back, or takes it away.
    pub remedy: Remedy,
    /// Other ways in which it may have happened.
    pub others: Vec<Other>,
    /// The cause that this flag shares with others.
    pub group: Group,
    /// The flag from whose loss this one follows.
    pub follows: Option<String>,
    /// All steps of the way.
    pub steps: Vec<Step>,
}

/// Another way in which it may have happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// The sieve.
    pub at: Stage,
    /// The rule.
    pub rule: RuleId,
    /// Why.
    pub cause: String,
    /// Where that stands in the real software.
    pub cite: Cite,
}

/// Something that neither input says and that the answer rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assumption {
    /// What.
    pub what: String,
    /// What was assumed.
    pub value: String,
    /// Why.
    pub because: String,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff {
    /// What the two ends are to each other.
    pub relation: Relation,
    /// What was assumed.
    pub assumed: Vec<Assumption>,
    /// Flags that the first end shows and the second does not, in the first's order.
    pub lost: Vec<Item>,
    /// Flags that the second end shows and the first does not, in the second's order.
    pub gained: Vec<Item>,
    /// How many flags both show.
    pub kept: usize,
    /// Flags that no known kernel prints.
    pub unknown: Vec<String>,
    /// Flags that one end shows, and of which the other, whose flags were concluded from CPUID, cannot tell whether its
    /// kernel would.
    pub undecided: Vec<String>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoDiff {
    /// The first input holds no flags, and none can be made of what it holds.
    NothingInFirst,
    /// The second input holds no flags.
    NothingInSecond,
}

/// Compares two ends.
///
/// # Errors
/// If one of them holds neither a flags line nor CPUID.
pub fn diff(first: &Snapshot, second: &Snapshot) -> Result<Diff, NoDiff> {
    compare(first, second, None)
}

/// Compares a host and a guest whose QEMU, of a release, and its command line are known.
///
/// # Errors
/// If one of them holds neither a flags line nor CPUID.
pub fn diff_under(host: &Snapshot, guest: &Snapshot, release: usize, command: Command<'_>) -> Result<Diff, NoDiff> {
    compare(host, guest, Some((release, command)))
}

fn compare(first: &Snapshot, second: &Snapshot, started: Option<(usize, Command<'_>)>) -> Result<Diff, NoDiff> {
    let (mut first, mut second) = (Machine::new("first", first), Machine::new("second", second));
    if first.flags().is_none() {
        return Err(NoDiff::NothingInFirst);
    }
    if second.flags().is_none() {
        return Err(NoDiff::NothingInSecond);
    }
    agree_on_kernel(&mut first, &mut second);
    let relation = relation::between(&first, &second);
    Ok(match relation {
        Relation::HostAndGuest => between_host_and_guest(relation, &mut first, &mut second, started),
        Relation::GuestAndHost => reversed(between_host_and_guest(relation, &mut second, &mut first, started)),
        Relation::OuterAndInner => nested(between_host_and_guest(relation, &mut first, &mut second, started)),
        Relation::InnerAndOuter => reversed(nested(between_host_and_guest(relation, &mut second, &mut first, started))),
        Relation::Guests | Relation::Hosts | Relation::Strangers | Relation::DifferentVendors | Relation::Equal => {
            peers::diff(relation, &first, &second)
        }
    })
}

/// Flags that must be concluded are concluded for the kernel of the end that has a line, the oldest that may be: a kernel
/// of another release would differ from it by names alone.
fn agree_on_kernel(first: &mut Machine<'_>, second: &mut Machine<'_>) {
    match (first.concluded_for, second.concluded_for) {
        (Some(_), None) => second.trees().first().into_iter().for_each(|tree| first.conclude_for(tree)),
        (None, Some(_)) => first.trees().first().into_iter().for_each(|tree| second.conclude_for(tree)),
        _ => {}
    }
}

/// The same answer, the ends given the other way round.
fn reversed(diff: Diff) -> Diff {
    Diff { lost: diff.gained, gained: diff.lost, ..diff }
}

/// Two guests that may be nested: only what captured registers show is as sure as with a host and its guest.
fn nested(mut diff: Diff) -> Diff {
    let captured = |item: &Item| {
        let of_rule = item.steps.iter().filter(|step| step.rule == item.rule && Some(step.at) == item.at);
        of_rule.flat_map(|step| &step.because).any(|evidence| matches!(evidence, Evidence::Register { .. }))
    };
    let items = diff.lost.iter_mut().chain(&mut diff.gained);
    items.filter(|item| !captured(item)).for_each(item::lower_confidence);
    diff
}

fn between_host_and_guest(
    relation: Relation,
    host: &mut Machine<'_>,
    guest: &mut Machine<'_>,
    started: Option<(usize, Command<'_>)>,
) -> Diff {
    (host.role, guest.role) = ("host", "guest");
    let (host, guest) = (&*host, &*guest);
    let (lost, gained, kept) = split(host, guest);
    let chosen = hypothesis::choose(host, guest, (&lost, &gained), started);
    let lost = lost.iter().map(|flag| lost::lost(&chosen, flag)).collect();
    let gained = gained.iter().map(|flag| gained::gained(&chosen, flag)).collect();
    let mut unknown = host.kernel.unknown.clone();
    unknown.extend(guest.kernel.unknown.iter().filter(|name| !host.kernel.unknown.contains(name)).cloned());
    let assumed = with_concluded(chosen.assumptions(), host, guest);
    Diff { relation, assumed, lost, gained, kept, unknown, undecided: undecided(host, guest) }
}

/// What a machine without a flags line is taken to show.
fn concluded(machine: &Machine<'_>) -> Option<Assumption> {
    let label = linux::TREES.get(machine.concluded_for?)?.label;
    Some(Assumption {
        what: format!("{} flags", machine.role),
        value: format!("concluded from CPUID for Linux {label}"),
        because: "the input has no flags line".to_owned(),
    })
}

/// Says which flags were concluded. No kernel was seen there: what is assumed of the host's is what its KVM hangs on.
fn with_concluded(mut assumed: Vec<Assumption>, host: &Machine<'_>, guest: &Machine<'_>) -> Vec<Assumption> {
    for machine in [host, guest] {
        let Some(concluded) = concluded(machine) else { continue };
        let kernel = format!("{} kernel", machine.role);
        if machine.snapshot.linux.as_ref().is_some_and(|linux| linux.release.is_some()) {
            assumed.push(concluded);
        } else if machine.role == host.role {
            let of_kvm = assumed.iter_mut().filter(|assumption| assumption.what == kernel);
            of_kvm.for_each(|assumption| {
                "KVM".clone_into(&mut assumption.what);
                assumption.value.insert_str(0, "of Linux ");
            });
            assumed.push(concluded);
        } else {
            assumed.retain(|assumption| assumption.what != kernel);
            assumed.push(concluded);
        }
    }
    assumed
}

/// Flags that one end shows and of which the other cannot tell.
fn undecided(first: &Machine<'_>, second: &Machine<'_>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (one, other) in [(first, second), (second, first)] {
        let shown = one.flags().into_iter().flat_map(FlagList::iter);
        for name in shown.filter(|name| other.prints(name).is_none()) {
            if !names.iter().any(|seen| seen == name) {
                names.push(name.to_owned());
            }
        }
    }
    names
}

/// The world that fits a host and a guest best.
pub(crate) fn world<'a>(host: &'a Machine<'a>, guest: &'a Machine<'a>) -> World<'a> {
    let (lost, gained, _) = split(host, guest);
    hypothesis::choose(host, guest, (&lost, &gained), None).world
}

/// Flags that only one end shows, in its order, and how many both show.
fn split<'a>(first: &'a Machine<'_>, second: &'a Machine<'_>) -> (Vec<&'a str>, Vec<&'a str>, usize) {
    let of =
        |machine: &'a Machine<'_>| machine.flags().map(|flags| flags.iter().collect::<Vec<_>>()).unwrap_or_default();
    let (ours, theirs) = (of(first), of(second));
    let only = |names: &[&'a str], other: &Machine<'_>| -> Vec<&'a str> {
        let mut seen = Vec::new();
        for &name in names {
            if other.prints(name) == Some(false) && !seen.contains(&name) {
                seen.push(name);
            }
        }
        seen
    };
    let lost = only(&ours, second);
    let gained = only(&theirs, first);
    let mut both: Vec<&str> = ours.iter().copied().filter(|name| second.prints(name) == Some(true)).collect();
    both.sort_unstable();
    both.dedup();
    (lost, gained, both.len())
}
