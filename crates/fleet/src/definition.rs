//! libvirt's definitions of CPUs: a model by name, and features with policies.
//!
//! Expanding follows libvirt's `src/cpu/cpu_x86.c:x86ModelFromCPU`; what a model has is taken from QEMU's newest known
//! table. libvirt's own map differs from that in features marked `added` (in QEMU's model, put into the map later, mostly
//! `vmx-*`) and `removed` (once in the model), which do not count in its arithmetic: those of VMX are left out here too.

use std::collections::BTreeSet;

use cpusieve_answers::rehearse::domain::in_libvirt;
use cpusieve_knowledge::qemu::{self, Model, RELEASES, WORD_COUNT};
use cpusieve_knowledge::x86;
use cpusieve_model::{ModelExpansion, Vendor};

use crate::catalogue::{Catalogue, Property};
use crate::offer::{Words, bit};

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

/// A name in a definition that nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownName {
    /// A model.
    #[error("no QEMU known has a CPU model `{0}`")]
    Model(String),
    /// A feature.
    #[error("nobody knows a feature `{0}`")]
    Feature(String),
}

impl Definition {
    /// The definition of a machine that has exactly these features.
    #[must_use]
    pub fn of_features(vendor: Vendor, require: Ids) -> Self {
        Self { vendor: Some(vendor.name().to_owned()), require, ..Self::default() }
    }

    /// What a `<cpu>` says, as `cpusieve_formats` keeps it.
    ///
    /// # Errors
    /// A model or a feature has a name that nobody knows.
    pub fn of_expansion(seen: &ModelExpansion) -> Result<Self, UnknownName> {
        let catalogue = newest();
        let text = |key: &str| seen.other.get(key).map(|text| text.trim_matches('"').to_owned());
        let mut definition = Self {
            arch: text("libvirt-arch"),
            vendor: text("libvirt-vendor"),
            strict: text("libvirt-match").as_deref() == Some("strict"),
            guest: text("libvirt-cpu").as_deref() == Some("guest"),
            ..Self::default()
        };
        if !seen.name.is_empty() {
            definition.require = model(&seen.name, &catalogue).ok_or_else(|| UnknownName::Model(seen.name.clone()))?;
        }
        let id = |name: &str| feature(name, &catalogue).ok_or_else(|| UnknownName::Feature(name.to_owned()));
        for (name, &is_on) in &seen.flags {
            let id = id(name)?;
            match (is_on, text(name).as_deref()) {
                (true, Some("force")) => _ = definition.force.insert(id),
                (true, _) => _ = definition.require.insert(id),
                (false, Some("forbid")) => _ = definition.forbid.insert(id),
                (false, _) => _ = definition.disable.insert(id),
            }
        }
        let optional = |(name, text): &(&String, &String)| !seen.flags.contains_key(*name) && *text == "\"optional\"";
        for (name, _) in seen.other.iter().filter(optional) {
            definition.optional.insert(id(name)?);
        }
        Ok(definition)
    }

    /// What a guest with this definition has: required and forced features, without those that are taken away.
    #[must_use]
    pub fn expanded(&self) -> Ids {
        let has = self.require.union(&self.force);
        has.filter(|id| !self.disable.contains(*id) && !self.forbid.contains(*id)).copied().collect()
    }
}

/// The catalogue whose names and models definitions are read with.
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

/// The ids of the features of a model as QEMU defines it: of a name without a version, the first version.
fn model(name: &str, catalogue: &Catalogue) -> Option<Ids> {
    let found = qemu::resolve(catalogue.release, name)?;
    let words = words(found.model, found.version.unwrap_or(1), catalogue);
    let counts = |property: &&Property| !property.name.starts_with("vmx-");
    Some(catalogue.in_words(&words).filter(counts).map(|property| property.id).collect())
}

/// The words of a version: the model's, changed by each version up to it.
fn words(model: &Model, version: u8, catalogue: &Catalogue) -> Words {
    let mut words = [0; WORD_COUNT];
    for &(word, value) in model.words {
        if let Some(slot) = qemu::word_position(word).and_then(|at| words.get_mut(at)) {
            *slot = value;
        }
    }
    let versions = model.versions(catalogue.release).filter(|known| known.number <= version);
    for &(name, value) in versions.flat_map(|version| version.properties) {
        for (at, mask) in qemu::places(catalogue.release, name).filter_map(bit) {
            words[at] = if value == "on" { words[at] | mask } else { words[at] & !mask };
        }
    }
    words
}
