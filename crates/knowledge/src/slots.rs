//! Names found in one or two steps: a prediction looks hundreds up, and a search through sorted names compares ten of them
//! for each.

use crate::hash::hash;

/// For each slot where the entries of a name begin in a list, plus one; 0 for an empty slot. The length is a power of two,
/// and a name stands in the slot of its hash or in the next that was free.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slots(pub(crate) &'static [u16]);

impl Slots {
    /// Where the entries of a name begin; `named` tells the name at a position.
    pub(crate) fn find(self, name: &str, named: impl Fn(usize) -> Option<&'static str>) -> Option<usize> {
        let mask = self.0.len().checked_sub(1)?;
        let first = hash(name) & mask;
        for slot in (first..self.0.len()).chain(0..first) {
            let position = usize::from(*self.0.get(slot)?).checked_sub(1)?;
            if named(position) == Some(name) {
                return Some(position);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use crate::linux::{self, FEATURES};
    use crate::qemu;
    use crate::rules::{self, RULES};

    #[test]
    fn every_name_is_found_and_no_other() {
        for feature in FEATURES {
            assert!(linux::by_macro(feature.macro_name).any(|found| found == feature));
            assert!(linux::by_id(feature.id()).any(|found| found == feature));
            let shown = |name| linux::by_shown(name).any(|found| found == feature);
            assert!(feature.shown.is_none_or(shown), "{}", feature.macro_name);
        }
        for rule in RULES {
            let found = |feature: &&&str| rules::of_feature(rule.software, feature).any(|found| found == rule);
            assert_eq!(rule.features.iter().filter(found).count(), rule.features.len(), "{}", rule.id);
            assert_eq!(rules::rule(rule.id.0), Some(rule));
            let is_generic = rule.when.filter(|_| rule.features.is_empty());
            assert!(is_generic.is_none_or(|when| rules::generic(rule.software, when) == Some(rule)), "{}", rule.id);
        }
        for (position, (name, _)) in rules::functions().iter().enumerate() {
            assert_eq!(rules::function(name), Some(position));
        }
        assert!(qemu::named_bits().all(|(name, bit)| qemu::by_name(name).any(|found| found == bit)));
        for other in ["", "nosuchflag", "NO_SUCH_MACRO", "avx512fx", "AVX512"] {
            assert_eq!(linux::by_shown(other).chain(linux::by_id(other)).chain(linux::by_macro(other)).next(), None);
            assert_eq!(rules::function(other), None);
            assert_eq!((rules::rule(other), rules::generic(rules::Software::Linux, other)), (None, None));
            assert_eq!(qemu::by_name(other).next(), None);
        }
        let empty = super::Slots(&[]);
        assert_eq!(empty.find("fpu", |_| Some("fpu")), None);
    }
}
