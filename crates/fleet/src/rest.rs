//! Hosts beyond the kinds that are kept one by one: their sum, however many they are.

use std::collections::BTreeMap;

use cpusieve_knowledge::qemu::WORD_COUNT;
use cpusieve_model::Vendor;

use crate::catalogue::{Catalogue, Property};
use crate::host::Ground;
use crate::offer::{Offer, Words};

/// The sum of many hosts.
#[derive(Clone, Debug)]
pub struct Rest {
    /// The number of hosts.
    pub hosts: u64,
    /// The number of kinds that they may be of: rows of packed files.
    pub rows: usize,
    /// How many hosts each vendor made.
    pub vendors: BTreeMap<Vendor, u64>,
    /// What all of them offer.
    pub all: Offer,
    /// What QEMU gives with `-cpu host,migratable=off` on any of them: the union of [`Offer::own`].
    pub any: Words,
    /// What KVM offers on any of them: the union of [`Offer::kvm`].
    pub any_kvm: Words,
    /// For each bit that some of them have and others lack ([`Offer::own`]): how many lack it.
    pub without: BTreeMap<(usize, u32), u64>,
    /// The hosts among them that QEMU can be asked on.
    pub grounds: Vec<Ground>,
}

/// What is kept of hosts that are no [`crate::Member`] each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unnamed {
    /// The lowest and the highest frequency of a TSC, in kHz; `None` unless all these hosts tell theirs.
    pub tsc_khz: Option<(u64, u64)>,
    /// How many of them are guests themselves.
    pub nested: u64,
}

impl Unnamed {
    /// What is kept of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let span = |((low, high), (lowest, highest)): ((u64, u64), (u64, u64))| (low.min(lowest), high.max(highest));
        Self { tsc_khz: self.tsc_khz.zip(other.tsc_khz).map(span), nested: self.nested.saturating_add(other.nested) }
    }
}

/// A feature that some hosts of a [`Rest`] lack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    /// The feature's id.
    pub id: &'static str,
    /// How many hosts lack it themselves, whatever else takes it from them. Of a feature of two bits, the more frequent
    /// lack.
    pub hosts: u64,
}

impl Rest {
    /// Takes in another sum.
    pub fn join(&mut self, other: Self) {
        // A bit that one side has everywhere, or nowhere, is in neither map of that side.
        let (ours, theirs) = (self.bits(), other.bits());
        let mut without = BTreeMap::new();
        for at in 0..WORD_COUNT {
            let (any, all) = (self.any[at] | other.any[at], self.all.own[at] & other.all.own[at]);
            for bit in (0..u64::BITS).filter(|bit| (any & !all) >> bit & 1 == 1) {
                let sum = ours(at, bit).saturating_add(theirs(at, bit));
                without.insert((at, bit), sum);
            }
        }
        self.without = without;
        self.hosts = self.hosts.saturating_add(other.hosts);
        self.rows = self.rows.saturating_add(other.rows);
        for (vendor, hosts) in other.vendors {
            *self.vendors.entry(vendor).or_default() += hosts;
        }
        self.all = self.all.and(&other.all);
        self.any = std::array::from_fn(|at| self.any[at] | other.any[at]);
        self.any_kvm = std::array::from_fn(|at| self.any_kvm[at] | other.any_kvm[at]);
        self.grounds.extend(other.grounds);
    }

    /// How many hosts lack a bit.
    fn bits(&self) -> impl Fn(usize, u32) -> u64 + use<> {
        let (without, hosts, any) = (self.without.clone(), self.hosts, self.any);
        move |at, bit| match without.get(&(at, bit)) {
            Some(&hosts) => hosts,
            None if any[at] >> bit & 1 == 0 => hosts,
            None => 0,
        }
    }

    /// How many hosts offer a feature themselves. Of one of two bits, no more than that: each bit is counted alone.
    #[must_use]
    pub fn having(&self, property: &Property) -> u64 {
        let lacks = self.bits();
        let bits = property
            .bits()
            .iter()
            .flat_map(|&(at, mask)| (0..u64::BITS).filter(move |bit| mask >> bit & 1 == 1).map(move |bit| (at, bit)));
        self.hosts.saturating_sub(bits.map(|(at, bit)| lacks(at, bit)).max().unwrap_or(0))
    }

    /// The features that some of the hosts have and others lack, the most frequent lack first.
    pub(crate) fn lacking(&self, catalogue: &Catalogue, migratable: bool) -> Vec<Lacking> {
        let any = catalogue.wanted(&self.any, migratable);
        let mut lacking: BTreeMap<&'static str, u64> = BTreeMap::new();
        for property in catalogue.in_words(&any) {
            let hosts = property.bits().iter().flat_map(|&(at, mask)| {
                let bits = (0..u64::BITS).filter(move |bit| mask >> bit & 1 == 1);
                bits.filter_map(move |bit| self.without.get(&(at, bit)).copied())
            });
            if let Some(hosts) = hosts.max() {
                let known = lacking.entry(property.id).or_default();
                *known = hosts.max(*known);
            }
        }
        let mut lacking: Vec<Lacking> = lacking.into_iter().map(|(id, hosts)| Lacking { id, hosts }).collect();
        lacking.sort_by_key(|lacking| (std::cmp::Reverse(lacking.hosts), lacking.id));
        lacking
    }
}
