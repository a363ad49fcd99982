//! A `<cpu>` element: a model by name, and features with policies.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cpusieve_knowledge::libvirt::{self, FEATURES, Model, RELEASES, Set};
use cpusieve_knowledge::x86;
use cpusieve_model::{ModelExpansion, Place};

use crate::definition::{Definition, Ids};

/// What is to be done with a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Policy {
    /// The guest has it, and a host must.
    Require,
    /// The guest is told so, whether the host has it or not.
    Force,
    /// The guest has it if the host has.
    Optional,
    /// The guest does not have it.
    Disable,
    /// A host must not have it.
    Forbid,
}

impl Policy {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Require, Self::Force, Self::Optional, Self::Disable, Self::Forbid];

    /// libvirt's word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Require => "require",
            Self::Force => "force",
            Self::Optional => "optional",
            Self::Disable => "disable",
            Self::Forbid => "forbid",
        }
    }
}

/// How a guest's CPU hangs on the host's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It is what the definition says.
    #[default]
    Custom,
    /// The host's definition.
    HostModel,
    /// The host's CPU itself.
    HostPassthrough,
    /// All that the hypervisor can do.
    Maximum,
}

/// How a guest's definition is matched with a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Match {
    /// The guest has what the definition says.
    #[default]
    Exact,
    /// It has what the host has, and that is at least this.
    Minimum,
    /// It has this, and the host must not have more.
    Strict,
}

/// A `<cpu>` element as far as it is about features.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// Whether it is a guest's definition, and not a host's, whose features have no policy.
    pub guest: bool,
    /// The mode of a guest's.
    pub mode: Mode,
    /// How a guest's is matched.
    pub matching: Match,
    /// Whether a hypervisor without the model must refuse it (`fallback='forbid'`).
    pub no_fallback: bool,
    /// The architecture, which a host's names.
    pub arch: Option<String>,
    /// The vendor, by libvirt's name.
    pub vendor: Option<String>,
    /// The model.
    pub model: Option<String>,
    /// The features, by libvirt's names; those of a host as required.
    pub features: BTreeMap<String, Policy>,
}

/// A name that a release of libvirt does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("libvirt {release} has no CPU {} `{name}`{}", if *model { "model" } else { "feature" }, hint.as_ref().map_or(String::new(), |hint| format!(" ({hint})")))]
pub struct Unknown {
    /// Whether it is a model's, and not a feature's.
    pub model: bool,
    /// The name.
    pub name: String,
    /// The release's label.
    pub release: &'static str,
    /// What may have been meant.
    pub hint: Option<String>,
}

impl Unknown {
    fn model(name: &str, release: usize) -> Self {
        let elsewhere = (0..RELEASES.len()).find(|&other| libvirt::model(other, name).is_some());
        let hint = match elsewhere {
            Some(other) => Some(format!("libvirt {} has it", label(other))),
            None => libvirt::similar_model(release, name).map(|other| format!("it has `{other}`")),
        };
        Self { model: true, name: name.to_owned(), release: label(release), hint }
    }

    fn feature(name: &str, release: usize) -> Self {
        let elsewhere = (0..RELEASES.len()).find(|&other| libvirt::feature(other, name).is_some());
        let places = x86::resolve(name).into_iter().flat_map(|feature| feature.places);
        let called = places.filter_map(|&place| libvirt::at(release, place)).find_map(|at| FEATURES.get(at));
        let hint = match (elsewhere, called) {
            (Some(other), _) => Some(format!("libvirt {} has it", label(other))),
            (None, Some(feature)) => Some(format!("it calls that `{}`", feature.name())),
            (None, None) => libvirt::similar_feature(release, name).map(|other| format!("it has `{other}`")),
        };
        Self { model: false, name: name.to_owned(), release: label(release), hint }
    }
}

fn label(release: usize) -> &'static str {
    RELEASES.get(release).map_or("", |known| known.label)
}

/// cpusieve's id of a feature of the map: as Linux prints it, and libvirt's name where nobody else has one, or where one
/// name stands for several bits of which this is not the first.
#[must_use]
pub fn id(feature: usize) -> &'static str {
    let Some(known) = FEATURES.get(feature) else { return "" };
    let shares = |place: &Place| *place < known.place && FEATURES.iter().any(|other| other.place == *place);
    let named = x86::by_place(known.place).filter(|named| !named.places.iter().any(shares));
    named.map_or(known.name(), |named| named.id)
}

/// The ids of a set.
pub(super) fn ids(set: &Set) -> Ids {
    set.iter().map(id).collect()
}

impl Cpu {
    /// What a `<cpu>` says, as `cpusieve_formats` keeps it; `None` if it is something else.
    #[must_use]
    pub fn of_expansion(seen: &ModelExpansion) -> Option<Self> {
        let text = |key: &str| seen.other.get(key).map(|text| text.trim_matches('"').to_owned());
        let kind = text("libvirt-cpu")?;
        let mut features: BTreeMap<String, Policy> = BTreeMap::new();
        for (name, text) in &seen.other {
            let policy = Policy::ALL.into_iter().find(|policy| text.trim_matches('"') == policy.name());
            if let Some(policy) = policy.filter(|_| !name.starts_with("libvirt-")) {
                features.insert(name.clone(), policy);
            }
        }
        for (name, &is_on) in &seen.flags {
            let plain = if is_on { Policy::Require } else { Policy::Disable };
            let told = features.entry(name.clone()).or_insert(plain);
            if *told == Policy::Optional {
                *told = plain;
            }
        }
        Some(Self {
            guest: kind != "host",
            mode: match text("libvirt-mode").as_deref() {
                Some("host-model") => Mode::HostModel,
                Some("host-passthrough") => Mode::HostPassthrough,
                Some("maximum") => Mode::Maximum,
                _ => Mode::Custom,
            },
            matching: match text("libvirt-match").as_deref() {
                Some("minimum") => Match::Minimum,
                Some("strict") => Match::Strict,
                _ => Match::Exact,
            },
            no_fallback: text("libvirt-fallback").as_deref() == Some("forbid"),
            arch: text("libvirt-arch"),
            vendor: text("libvirt-vendor"),
            model: (!seen.name.is_empty()).then(|| seen.name.clone()),
            features,
        })
    }

    /// The model in the map.
    ///
    /// # Errors
    /// The release has none of that name.
    pub fn model(&self, release: usize) -> Result<Option<&'static Model>, Unknown> {
        let Some(name) = &self.model else { return Ok(None) };
        libvirt::model(release, name).map(Some).ok_or_else(|| Unknown::model(name, release))
    }

    /// The features with a policy, without the model's.
    ///
    /// # Errors
    /// The release does not know one of them.
    pub fn with_policy(&self, policy: Policy, release: usize) -> Result<Set, Unknown> {
        let named = self.features.iter().filter(|(_, known)| **known == policy);
        named.map(|(name, _)| position(name, release)).collect()
    }

    /// What it has: the model's features and those that are required and forced, without those that are disabled and
    /// forbidden (`x86ModelFromCPU` of every policy).
    ///
    /// # Errors
    /// The release does not know the model or a feature that counts.
    pub fn expanded(&self, release: usize) -> Result<Set, Unknown> {
        let of = |policy| self.with_policy(policy, release);
        let model = self.model(release)?.map_or(Set::EMPTY, |model| model.data);
        let has = model.union(&of(Policy::Require)?).union(&of(Policy::Force)?);
        Ok(has.minus(&of(Policy::Disable)?).minus(&of(Policy::Forbid)?))
    }

    /// Whether it has a feature (`virCPUx86CheckFeature`).
    ///
    /// # Errors
    /// The release does not know the feature, or a name of the definition.
    pub fn has(&self, feature: &str, release: usize) -> Result<bool, Unknown> {
        let feature = position(feature, release)?;
        Ok(self.expanded(release)?.contains(feature))
    }

    /// What is compared before any name is looked up: architecture, vendor, and what kind of definition it is.
    #[must_use]
    pub fn head(&self) -> Definition {
        Definition {
            arch: self.arch.clone(),
            vendor: self.vendor.clone(),
            strict: self.matching == Match::Strict,
            guest: self.guest,
            ..Definition::default()
        }
    }

    /// The same with its features, those of the model among the required ones.
    ///
    /// # Errors
    /// The release does not know the model or a feature.
    pub fn definition(&self, release: usize) -> Result<Definition, Unknown> {
        let of = |policy| self.with_policy(policy, release);
        let model = self.model(release)?.map_or(Set::EMPTY, |model| model.data);
        Ok(Definition {
            require: ids(&model.union(&of(Policy::Require)?)),
            force: ids(&of(Policy::Force)?),
            optional: ids(&of(Policy::Optional)?),
            disable: ids(&of(Policy::Disable)?),
            forbid: ids(&of(Policy::Forbid)?),
            ..self.head()
        })
    }

    /// Sets the policy of each feature of a set.
    pub(super) fn put(&mut self, features: &Set, policy: Policy) {
        self.features.extend(features.names().map(|name| (name.to_owned(), policy)));
    }

    /// The element, as libvirt writes it.
    #[must_use]
    pub fn to_xml(&self) -> String {
        let mut xml = String::from(if self.guest { "<cpu mode='custom' match='exact'>\n" } else { "<cpu>\n" });
        if let Some(arch) = &self.arch {
            let _ = writeln!(xml, "  <arch>{}</arch>", escaped(arch));
        }
        if let Some(model) = &self.model {
            let fallback = if self.no_fallback { "forbid" } else { "allow" };
            let fallback = if self.guest { format!(" fallback='{fallback}'") } else { String::new() };
            let _ = writeln!(xml, "  <model{fallback}>{}</model>", escaped(model));
        }
        if let Some(vendor) = &self.vendor {
            let _ = writeln!(xml, "  <vendor>{}</vendor>", escaped(vendor));
        }
        let of = |wanted: Policy| self.features.iter().filter(move |(_, policy)| **policy == wanted);
        for (name, policy) in Policy::ALL.into_iter().flat_map(of) {
            let policy = if self.guest { format!("policy='{}' ", policy.name()) } else { String::new() };
            let _ = writeln!(xml, "  <feature {policy}name='{}'/>", escaped(name));
        }
        xml.push_str("</cpu>\n");
        xml
    }
}

/// Names come from files.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;")
}

/// The position of a feature that is named.
fn position(name: &str, release: usize) -> Result<usize, Unknown> {
    libvirt::feature(release, name).ok_or_else(|| Unknown::feature(name, release))
}
