//! What differs between two CPUs of `-cpu`.

use std::collections::BTreeSet;

use cpusieve_knowledge::qemu::{self, Caches};
use cpusieve_model::Place;
use cpusieve_stages::qemu::{Definition, PropertyValue};

use super::card::define;
use super::level::{self, Level};
use super::{NoModel, Setting, is_component, name_of};

/// A bit and what QEMU calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// QEMU's name; of a bit without one the feature's id, or where it is.
    pub name: String,
    /// The bit.
    pub place: Place,
}

/// What differs between two CPUs, before anything is filtered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// The bits that the left one alone has.
    pub left: Vec<Feature>,
    /// The bits that the right one alone has.
    pub right: Vec<Feature>,
    /// How many bits both have.
    pub both: usize,
    /// The other properties that differ, by name.
    pub properties: Vec<Changed>,
    /// The cache tables, if they differ; `None` inside is the legacy ones.
    pub caches: Option<[Option<&'static Caches>; 2]>,
    /// The levels of x86-64.
    pub levels: [Option<Level>; 2],
}

/// A property with two values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The property.
    pub property: &'static str,
    /// The values, as `-cpu` takes them; `None` where a release has no such property.
    pub values: [Option<String>; 2],
}

impl Comparison {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.left.is_empty() && self.right.is_empty() && self.properties.is_empty() && self.caches.is_none()
    }
}

/// What expansion derives from other properties that are shown themselves, and the vendor, which KVM replaces: the
/// models' own are compared instead.
const DERIVED: [&str; 4] = ["min-level", "min-xlevel", "min-xlevel2", "vendor"];

/// Compares two CPUs, each in its own setting.
///
/// # Errors
/// A release does not have the model, or QEMU refuses the properties behind it.
pub fn compare(
    left_setting: &Setting<'_>,
    left: &str,
    right_setting: &Setting<'_>,
    right: &str,
) -> Result<Comparison, NoModel> {
    let sides =
        [(left_setting, left, define(left_setting, left)?), (right_setting, right, define(right_setting, right)?)];
    let [(_, _, one), (_, _, other)] = &sides;
    let only = |these: &Definition, those: &Definition, setting: &Setting<'_>| {
        features(setting.release, these.features().filter(|&place| !those.has(place)))
    };
    let mut names: BTreeSet<&'static str> = one.properties.keys().chain(other.properties.keys()).copied().collect();
    names.retain(|name| !DERIVED.contains(name));
    let values = |name| sides.each_ref().map(|(_, _, defined)| defined.properties.get(name).map(shown));
    let changed = names.into_iter().filter_map(|property| {
        let values = values(property);
        (values[0] != values[1] && !unspoken(property, &values, &sides)).then_some(Changed { property, values })
    });
    let mut properties: Vec<Changed> = changed.collect();
    let vendors = sides.each_ref().map(|(setting, cpu, _)| vendor(setting.release, cpu));
    if vendors[0] != vendors[1] && vendors.iter().all(Option::is_some) {
        properties.push(Changed { property: "vendor", values: vendors.map(|vendor| vendor.map(str::to_owned)) });
    }
    Ok(Comparison {
        left: only(one, other, left_setting),
        right: only(other, one, right_setting),
        both: one.features().filter(|&place| other.has(place)).count(),
        properties,
        caches: (!same_caches(one.caches, other.caches)).then_some([one.caches, other.caches]),
        levels: [one, other].map(|defined| level::of(|place| defined.has(place))),
    })
}

/// Bits with their names; a property of two bits stands twice. XSAVE's state components, which follow from features and
/// from the host, are left out.
pub(super) fn features(release: usize, places: impl Iterator<Item = Place>) -> Vec<Feature> {
    let own = places.filter(|place| place.cpuid().is_none_or(|bit| !is_component(bit)));
    own.map(|place| Feature { name: name_of(release, place), place }).collect()
}

/// Whether one release alone has the property, and leaves it at its default.
fn unspoken(property: &str, values: &[Option<String>; 2], sides: &[(&Setting<'_>, &str, Definition); 2]) -> bool {
    let default = |release| qemu::property(release, property).and_then(|property| property.default);
    match values {
        [Some(value), None] => default(sides[0].0.release).is_none_or(|default| default == value),
        [None, Some(value)] => default(sides[1].0.release).is_none_or(|default| default == value),
        _ => false,
    }
}

/// The vendor that a model's definition names; `None` for what is no built-in model.
fn vendor(release: usize, cpu: &str) -> Option<&'static str> {
    let name = cpu.split_once(',').map_or(cpu, |(name, _)| name);
    qemu::resolve(release, name).map(|resolved| resolved.model.vendor)
}

/// Tables of two releases are equal if their caches are.
fn same_caches(one: Option<&Caches>, other: Option<&Caches>) -> bool {
    let caches = |table: &Caches| [table.l1d, table.l1i, table.l2, table.l3];
    one.map(caches) == other.map(caches)
}

/// A value as `-cpu` takes it.
#[must_use]
pub fn shown(value: &PropertyValue) -> String {
    match value {
        PropertyValue::Bool(true) => "on".to_owned(),
        PropertyValue::Bool(false) => "off".to_owned(),
        PropertyValue::Number(number) => number.to_string(),
        PropertyValue::Text(text) => text.clone(),
    }
}
