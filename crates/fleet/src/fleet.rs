//! Many hosts, each kind of them kept once.

use std::collections::BTreeMap;

use cpusieve_model::Vendor;

use crate::host::{Ground, Host};
use crate::offer::Offer;

/// Hosts that offer the same on CPUs of the same signature.
#[derive(Clone, Debug)]
pub struct Kind {
    /// What they offer.
    pub offer: Offer,
    /// One of them.
    pub ground: Ground,
    /// How many there are.
    pub hosts: usize,
}

/// One host of a fleet.
#[derive(Clone, Debug)]
pub struct Member {
    /// What the user calls it.
    pub name: String,
    /// Its kind, a position in [`Fleet::kinds`].
    pub kind: usize,
    /// `KVM_GET_TSC_KHZ`, in kHz, if it was seen.
    pub tsc_khz: Option<u64>,
    /// Whether it is itself a guest.
    pub nested: bool,
}

/// Something that was assumed of hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assumed {
    /// What.
    pub what: String,
    /// What was assumed.
    pub value: String,
    /// Why.
    pub because: String,
    /// Of how many hosts.
    pub hosts: usize,
}

/// What makes two hosts one kind.
type Key = (Offer, Vendor, u32);

/// Hosts, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    kinds: Vec<Kind>,
    members: Vec<Member>,
    known: std::collections::HashMap<Key, usize>,
    assumed: BTreeMap<(String, String, String), usize>,
}

impl Fleet {
    /// Takes a host in.
    pub fn push(&mut self, host: Host) {
        let Host { name, offer, ground, tsc_khz, nested, assumed, software: _ } = host;
        let signature = ground.cpuid.get(1, 0).map_or(0, |leaf| leaf.eax);
        let next = self.kinds.len();
        let kind = *self.known.entry((offer.clone(), ground.vendor, signature)).or_insert(next);
        match self.kinds.get_mut(kind) {
            Some(known) => known.hosts += 1,
            None => self.kinds.push(Kind { offer, ground, hosts: 1 }),
        }
        for assumption in assumed {
            *self.assumed.entry((assumption.what, assumption.value, assumption.because)).or_default() += 1;
        }
        self.members.push(Member { name, kind, tsc_khz, nested });
    }

    /// The kinds, in the order in which their first hosts came.
    #[must_use]
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// The hosts.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The kind of a member.
    #[must_use]
    pub fn kind_of(&self, member: &Member) -> Option<&Kind> {
        self.kinds.get(member.kind)
    }

    /// What was assumed of hosts, and of how many.
    #[must_use]
    pub fn assumed(&self) -> Vec<Assumed> {
        let one = |((what, value, because), &hosts): (&(String, String, String), &usize)| Assumed {
            what: what.clone(),
            value: value.clone(),
            because: because.clone(),
            hosts,
        };
        self.assumed.iter().map(one).collect()
    }

    /// How many hosts each vendor made.
    #[must_use]
    pub fn vendors(&self) -> BTreeMap<Vendor, usize> {
        let mut vendors = BTreeMap::new();
        for kind in &self.kinds {
            *vendors.entry(kind.ground.vendor).or_default() += kind.hosts;
        }
        vendors
    }

    /// What all of these kinds offer together; `None` for no kinds.
    pub fn common<'k>(kinds: impl IntoIterator<Item = &'k Kind>) -> Option<Offer> {
        let mut kinds = kinds.into_iter().map(|kind| &kind.offer);
        let first = kinds.next()?.clone();
        Some(kinds.fold(first, |all, offer| all.and(offer)))
    }
}
