//! What changed on one host between two looks at it.

use std::sync::Arc;

use cpusieve_model::Vendor;

use crate::baseline::features;
use crate::catalogue::Catalogue;
use crate::fleet::{Kind, Member};
use crate::host::{Host, Software};
use crate::offer::Offer;

/// What is kept of a host to compare it with itself later.
#[derive(Clone, Debug)]
pub struct Kept {
    software: Arc<Software>,
    vendor: Vendor,
    signature: u32,
    phys_bits: u8,
    ids: Vec<&'static str>,
}

impl Kept {
    /// What a host offers and runs.
    #[must_use]
    pub fn of(host: &Host, catalogue: &Catalogue, migratable: bool) -> Self {
        let signature = host.ground.cpuid.get(1, 0).map_or(0, |leaf| leaf.eax);
        Self {
            software: Arc::new(host.software.clone()),
            ..Self::of_offer(&host.offer, host.ground.vendor, signature, catalogue, migratable)
        }
    }

    /// What a member of a kind offers and runs.
    #[must_use]
    pub fn of_member(member: &Member, kind: &Kind, catalogue: &Catalogue, migratable: bool) -> Self {
        let software = Arc::clone(&member.software);
        Self { software, ..Self::of_offer(&kind.offer, kind.vendor, kind.signature, catalogue, migratable) }
    }

    fn of_offer(offer: &Offer, vendor: Vendor, signature: u32, catalogue: &Catalogue, migratable: bool) -> Self {
        let words = features(offer, catalogue, migratable);
        let ids = catalogue.in_words(&words).map(|property| property.id).collect();
        Self { software: Arc::default(), vendor, signature, phys_bits: offer.phys_bits, ids }
    }
}

/// One thing that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// What: `kernel`, `microcode`, a module's parameter.
    pub what: String,
    /// What it was; `None` if the earlier look did not show it.
    pub old: Option<String>,
    /// What it is.
    pub new: Option<String>,
}

/// What changed on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// Software and CPU.
    pub changed: Vec<Side>,
    /// The ids of the features that guests may have now and could not before.
    pub gained: Vec<&'static str>,
    /// Those that they could have and no longer can.
    pub lost: Vec<&'static str>,
    /// Whether guests with all that the host had still run there, or move there from hosts that are as it was.
    pub forth: bool,
    /// Whether guests with all that the host has now can move to hosts that are as it was.
    pub back: bool,
}

impl Drift {
    /// Whether guests are offered the same.
    #[must_use]
    pub fn offers_the_same(&self) -> bool {
        self.gained.is_empty() && self.lost.is_empty() && self.forth && self.back
    }
}

/// What changed between two looks. What only one of them shows is no change of features, but is listed.
#[must_use]
pub fn drift(old: &Kept, new: &Kept) -> Drift {
    let mut changed = Vec::new();
    let mut side = |what: &str, old: Option<String>, new: Option<String>| {
        if old != new {
            changed.push(Side { what: what.to_owned(), old, new });
        }
    };
    let text = |vendor: Vendor| Some(vendor.name().to_owned());
    let hex = |value: u64| format!("{value:#x}");
    side("vendor", text(old.vendor), text(new.vendor));
    side("CPU signature", Some(hex(old.signature.into())), Some(hex(new.signature.into())));
    side("bits of a physical address", Some(old.phys_bits.to_string()), Some(new.phys_bits.to_string()));
    let (was, is) = (&old.software, &new.software);
    side("microcode", was.microcode.map(hex), is.microcode.map(hex));
    side("kernel", was.kernel.clone(), is.kernel.clone());
    side("kernel command line", was.cmdline.clone(), is.cmdline.clone());
    let mut names: Vec<&String> = was.params.keys().chain(is.params.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        side(name, was.params.get(name).cloned(), is.params.get(name).cloned());
    }
    let without = |all: &[&'static str], those: &[&'static str]| -> Vec<&'static str> {
        all.iter().filter(|id| !those.contains(id)).copied().collect()
    };
    let (gained, lost) = (without(&new.ids, &old.ids), without(&old.ids, &new.ids));
    let same_vendor = old.vendor == new.vendor;
    Drift { forth: lost.is_empty() && same_vendor, back: gained.is_empty() && same_vendor, changed, gained, lost }
}
