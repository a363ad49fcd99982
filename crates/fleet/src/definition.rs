//! A CPU as libvirt compares it: features by policy, under cpusieve's ids.
//!
//! It is made of a `<cpu>` ([`crate::libvirt::Cpu::definition`]), or of what a host offers.

use std::collections::BTreeSet;

use cpusieve_answers::rehearse::domain::in_libvirt;
use cpusieve_knowledge::qemu::RELEASES;
use cpusieve_knowledge::x86;
use cpusieve_model::Vendor;

use crate::catalogue::Catalogue;

/// Ids of features.
pub type Ids = BTreeSet<&'static str>;

/// A CPU as libvirt's arithmetic sees it: features by policy, those of the model among the required ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Definition {
    /// The architecture, if it is given.
    pub arch: Option<String>,
    /// The vendor as libvirt writes it (`Intel`), if it is given.
    pub vendor: Option<String>,
    /// Whether the guest must not have more (`match='strict'`).
    pub strict: bool,
    /// Whether it is a guest's definition, and not a host's.
    pub guest: bool,
    /// What the guest needs.
    pub require: Ids,
    /// What the guest is told whether the host has it or not.
    pub force: Ids,
    /// What the guest has if the host has it.
    pub optional: Ids,
    /// What the guest does not have.
    pub disable: Ids,
    /// What a host must not have.
    pub forbid: Ids,
}

impl Definition {
    /// The definition of a machine that has exactly these features.
    #[must_use]
    pub fn of_features(vendor: Vendor, require: Ids) -> Self {
        Self { vendor: Some(vendor.name().to_owned()), require, ..Self::default() }
    }

    /// What a guest with this definition has: required and forced features, without those that are taken away.
    #[must_use]
    pub fn expanded(&self) -> Ids {
        let has = self.require.union(&self.force);
        has.filter(|id| !self.disable.contains(*id) && !self.forbid.contains(*id)).copied().collect()
    }
}

/// The catalogue of the newest known QEMU.
#[must_use]
pub fn newest() -> Catalogue {
    Catalogue::of(RELEASES.len().saturating_sub(1))
}

/// The id of a feature by libvirt's name of it, or any other that is known.
#[must_use]
pub fn feature(name: &str, catalogue: &Catalogue) -> Option<&'static str> {
    let found = catalogue.properties().iter().find(|property| in_libvirt(property.name) == name);
    found.map(|property| property.id).or_else(|| x86::resolve(name).first().map(|feature| feature.id))
}
