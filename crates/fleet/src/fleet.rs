//! Many hosts, each kind of them kept once.

use std::collections::BTreeMap;
use std::sync::Arc;

use cpusieve_answers::predict::Assumption;
use cpusieve_model::Vendor;

use crate::host::{Ground, Host, Software};
use crate::offer::Offer;
use crate::rest::{Rest, Unnamed};

/// Hosts that offer the same on CPUs of the same signature.
#[derive(Clone, Debug)]
pub struct Kind {
    /// What they offer.
    pub offer: Offer,
    /// Their vendor.
    pub vendor: Vendor,
    /// 1.EAX: family, model and stepping.
    pub signature: u32,
    /// One of them; `None` where a packed file kept the offer alone.
    pub ground: Option<Ground>,
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
    /// What was seen of its software.
    pub software: Arc<Software>,
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
    rest: Option<Rest>,
    unnamed: Option<Unnamed>,
}

impl Fleet {
    /// Takes a host in.
    pub fn push(&mut self, host: Host) {
        let Host { name, offer, ground, tsc_khz, nested, assumed, software } = host;
        let signature = ground.cpuid.get(1, 0).map_or(0, |leaf| leaf.eax);
        let vendor = ground.vendor;
        let kind = self.kind(Kind { offer, vendor, signature, ground: Some(ground), hosts: 1 });
        for Assumption { what, value, because, .. } in assumed {
            self.assume(Assumed { what, value, because, hosts: 1 });
        }
        self.members.push(Member { name, kind, tsc_khz, nested, software: Arc::new(software) });
    }

    /// Takes hosts of one kind in; `members` are these hosts, or some of them, whatever they say of their kind.
    pub fn push_kind(&mut self, kind: Kind, members: impl IntoIterator<Item = Member>) {
        let kind = self.kind(kind);
        self.members.extend(members.into_iter().map(|member| Member { kind, ..member }));
    }

    /// Notes what was assumed of hosts that are taken in.
    pub fn assume(&mut self, assumed: Assumed) {
        let Assumed { what, value, because, hosts } = assumed;
        *self.assumed.entry((what, value, because)).or_default() += hosts;
    }

    /// Takes in hosts of which only the sum is kept.
    pub fn push_rest(&mut self, rest: Rest) {
        match &mut self.rest {
            Some(known) => known.join(rest),
            None => self.rest = Some(rest),
        }
    }

    /// Notes what is kept of hosts that were taken in without a member for each.
    pub fn push_unnamed(&mut self, unnamed: Unnamed) {
        self.unnamed = Some(self.unnamed.map_or(unnamed, |known| known.and(unnamed)));
    }

    /// What is kept of hosts for which no member stands; `None` if each has one.
    #[must_use]
    pub fn unnamed(&self) -> Option<Unnamed> {
        self.unnamed
    }

    /// The hosts of which only the sum is kept; they are in no kind, and no member stands for them.
    #[must_use]
    pub fn rest(&self) -> Option<&Rest> {
        self.rest.as_ref()
    }

    /// The number of hosts.
    #[must_use]
    pub fn hosts(&self) -> usize {
        let rest = self.rest.as_ref().map_or(0, |rest| usize::try_from(rest.hosts).unwrap_or(usize::MAX));
        self.kinds.iter().map(|kind| kind.hosts).fold(rest, usize::saturating_add)
    }

    /// The position of a kind, taken in if it is new.
    fn kind(&mut self, kind: Kind) -> usize {
        let next = self.kinds.len();
        let at = *self.known.entry((kind.offer.clone(), kind.vendor, kind.signature)).or_insert(next);
        match self.kinds.get_mut(at) {
            Some(known) => {
                known.hosts = known.hosts.saturating_add(kind.hosts);
                known.ground = known.ground.take().or(kind.ground);
            }
            None => self.kinds.push(kind),
        }
        at
    }

    /// The kinds, in the order in which their first hosts came.
    #[must_use]
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// The hosts: each of them, unless [`Fleet::unnamed`] says otherwise.
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
            *vendors.entry(kind.vendor).or_default() += kind.hosts;
        }
        for (&vendor, &hosts) in self.rest.iter().flat_map(|rest| &rest.vendors) {
            *vendors.entry(vendor).or_default() += usize::try_from(hosts).unwrap_or(usize::MAX);
        }
        vendors
    }

    /// What all hosts offer together; `None` for no hosts.
    #[must_use]
    pub fn offer(&self) -> Option<Offer> {
        let rest = self.rest.as_ref().map(|rest| &rest.all);
        let mut offers = self.kinds.iter().map(|kind| &kind.offer).chain(rest);
        let first = offers.next()?.clone();
        Some(offers.fold(first, |all, offer| all.and(offer)))
    }

    /// What all of these kinds offer together; `None` for no kinds.
    pub fn common<'k>(kinds: impl IntoIterator<Item = &'k Kind>) -> Option<Offer> {
        let mut kinds = kinds.into_iter().map(|kind| &kind.offer);
        let first = kinds.next()?.clone();
        Some(kinds.fold(first, |all, offer| all.and(offer)))
    }
}
