//! Properties of CPU objects: what `-cpu NAME,property=value` may name.

use super::{BITS, PROPERTIES, places};
use crate::TreeSet;

/// The type of a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PropertyKind {
    /// A feature bit, or two: `on` or `off`. Its default is the model's.
    Feature,
    /// `on` or `off`.
    Bool,
    /// An unsigned number.
    Uint {
        /// Its width: 8 to 64.
        bits: u8,
    },
    /// A signed number.
    Int {
        /// Its width: 8 to 64.
        bits: u8,
    },
    /// Text.
    Str,
    /// `on`, `off` or `auto`.
    OnOffAuto,
    /// The path of another object.
    Link,
    /// Cannot be set.
    ReadOnly,
}

/// A property of a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Property {
    /// The name, which for an alias is the one behind it.
    pub name: &'static str,
    /// The type.
    pub kind: PropertyKind,
    /// The default of the class (`on`, `off`, a decimal number), before model, accelerator and machine set it; `None`
    /// where the class tells none.
    pub default: Option<&'static str>,
    /// Whether only `-cpu host` and `-cpu max` have it.
    pub max_only: bool,
}

/// A property that stands for no feature bit.
pub(super) struct OtherProperty {
    pub(super) name: &'static str,
    pub(super) alias_of: Option<&'static str>,
    pub(super) kind: PropertyKind,
    pub(super) default: Option<&'static str>,
    pub(super) max_only: bool,
    pub(super) releases: TreeSet,
}

impl OtherProperty {
    fn property(&self) -> Property {
        Property { name: self.name, kind: self.kind, default: self.default, max_only: self.max_only }
    }
}

fn other(release: usize, name: &str) -> Option<&'static OtherProperty> {
    let start = PROPERTIES.partition_point(|property| property.name < name);
    let mut rows = PROPERTIES.get(start..)?.iter().take_while(|property| property.name == name);
    rows.find(|property| property.releases.contains(release))
}

/// The property that a name or alias stands for in `release`; `None` if its CPUs have none. Names are exact: QEMU turns
/// `_` into `-` for `key=value`, but not for `+key` and `-key`.
#[must_use]
pub fn property(release: usize, name: &str) -> Option<Property> {
    if let Some(found) = other(release, name) {
        return match found.alias_of {
            Some(target) => other(release, target).map(OtherProperty::property),
            None => Some(found.property()),
        };
    }
    let place = places(release, name).next()?;
    Some(feature(super::name(release, place)?))
}

const fn feature(name: &'static str) -> Property {
    Property { name, kind: PropertyKind::Feature, default: None, max_only: false }
}

/// All properties of CPUs in `release`, without aliases: feature bits by place, then the others by name. One that stands
/// for two bits occurs twice.
pub fn properties(release: usize) -> impl Iterator<Item = Property> {
    let features = BITS.iter().filter(move |bit| bit.named.contains(release)).filter_map(|bit| bit.name).map(feature);
    let others = PROPERTIES.iter().filter(move |row| row.releases.contains(release) && row.alias_of.is_none());
    features.chain(others.map(OtherProperty::property))
}

/// The second names of properties that stand for no feature bit: alias and name. Those of feature bits are
/// [`aliases`](super::aliases).
pub fn property_aliases(release: usize) -> impl Iterator<Item = (&'static str, &'static str)> {
    let rows = PROPERTIES.iter().filter(move |row| row.releases.contains(release));
    rows.filter_map(|row| row.alias_of.map(|target| (row.name, target)))
}
