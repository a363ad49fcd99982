//! The flags that both ends show, with their ways: what a picture of all flags needs beside a diff.

use cpusieve_knowledge::x86;
use cpusieve_model::{FlagList, Place, Snapshot, State, Step};
use cpusieve_stages::{Machine, World};

use super::{NoDiff, Relation, agree_on_kernel, hypothesis, relation, split};

/// A flag that both ends show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The name that the kernels print.
    pub flag: String,
    /// Where the feature lives.
    pub place: Option<Place>,
    /// What each sieve between a host and its guest did to it; empty for other ends, and where the releases that fit the
    /// two best do not explain how it came through.
    pub steps: Vec<Step>,
}

/// The flags that both ends show, in the first's order: as many as [`Diff::kept`](super::Diff::kept) counts.
///
/// # Errors
/// If one of the ends holds neither a flags line nor CPUID.
pub fn kept(first: &Snapshot, second: &Snapshot) -> Result<Vec<Kept>, NoDiff> {
    let (mut first, mut second) = (Machine::new("first", first), Machine::new("second", second));
    let flags = first.flags().cloned().ok_or(NoDiff::NothingInFirst)?;
    second.flags().ok_or(NoDiff::NothingInSecond)?;
    agree_on_kernel(&mut first, &mut second);
    let relation = relation::between(&first, &second);
    let names = both(first.flags().unwrap_or(&flags), &second);
    Ok(match relation {
        Relation::HostAndGuest | Relation::OuterAndInner => between(&mut first, &mut second, &names),
        Relation::GuestAndHost | Relation::InnerAndOuter => between(&mut second, &mut first, &names),
        _ => names.into_iter().map(unmoved).collect(),
    })
}

fn both(flags: &FlagList, second: &Machine<'_>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in flags.iter().filter(|name| second.prints(name) == Some(true)) {
        if !names.iter().any(|seen| seen == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// The ways through the sieves that fit a host and its guest best.
fn between(host: &mut Machine<'_>, guest: &mut Machine<'_>, names: &[String]) -> Vec<Kept> {
    (host.role, guest.role) = ("host", "guest");
    let (host, guest) = (&*host, &*guest);
    let (lost, gained, _) = split(host, guest);
    let world: World<'_> = hypothesis::choose(host, guest, (&lost, &gained), None).world;
    let pass = |name: &String| {
        let passage = world.pass(name);
        // What the guest shows stands: steps that would end before it are none of this flag's.
        let steps = if passage.outcome == State::Absent { Vec::new() } else { passage.steps };
        Kept { flag: name.clone(), place: passage.place, steps }
    };
    names.iter().map(pass).collect()
}

/// Of two ends without a sieve between them.
fn unmoved(flag: String) -> Kept {
    let place = x86::feature(&flag).and_then(x86::Feature::place);
    Kept { flag, place, steps: Vec::new() }
}
