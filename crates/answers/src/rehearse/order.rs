//! In which order several hosts are upgraded, so that running guests always have somewhere to go.

use super::moves::migrate;
use super::{NotAHost, OnGuest, OnHost};

/// The most hosts that are ordered: each is held against every other.
const MOST: usize = 256;

/// The order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The hosts, the first to be upgraded first.
    pub hosts: Vec<Place>,
}

/// A host's place in the order, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The host.
    pub host: String,
    /// Guests of it that cannot go to any other host that is not yet upgraded: they must be stopped, if it is the first.
    pub stuck: Vec<String>,
    /// How many guests of other hosts, as they run now, it takes once it is upgraded.
    pub takes: usize,
    /// How many guests there are on other hosts.
    pub of: usize,
}

/// The order; `None` if there are not several hosts, or too many of them.
pub(super) fn order(hosts: &[Result<OnHost, (String, NotAHost)>]) -> Option<Order> {
    let hosts: Vec<&OnHost> = hosts.iter().flatten().collect();
    if hosts.len() < 2 || hosts.len() > MOST {
        return None;
    }
    let mut places: Vec<Place> = hosts.iter().enumerate().map(|(at, host)| place(&hosts, at, host)).collect();
    // Stable: hosts that are alike keep the order in which they were given.
    places.sort_by_key(|place| (place.stuck.len(), usize::MAX - place.takes));
    Some(Order { hosts: places })
}

fn place(hosts: &[&OnHost], at: usize, host: &OnHost) -> Place {
    let others = || hosts.iter().enumerate().filter(move |(other, _)| *other != at).map(|(_, other)| *other);
    let runs = |guest: &&OnGuest| guest.start_before.possible;
    let stuck = host.guests.iter().enumerate().filter(|(_, guest)| guest.start_before.possible);
    let stuck = stuck.filter(|&(number, guest)| {
        !others().any(|other| other.guests.get(number).is_some_and(|there| arrives(guest, there, false)))
    });
    let (mut takes, mut of) = (0, 0);
    for other in others() {
        for (number, guest) in other.guests.iter().enumerate().filter(|(_, guest)| runs(guest)) {
            of += 1;
            takes += usize::from(host.guests.get(number).is_some_and(|here| arrives(guest, here, true)));
        }
    }
    Place { host: host.name.clone(), stuck: stuck.map(|(_, guest)| guest.guest.name.clone()).collect(), takes, of }
}

/// Whether a guest that runs on one host can go to another, as that one is before or after.
fn arrives(from: &OnGuest, to: &OnGuest, after: bool) -> bool {
    let Ok(source) = &from.before else { return false };
    let target = if after { &to.arrives_at } else { &to.before };
    migrate(&from.guest, source, target).possible
}
