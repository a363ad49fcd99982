//! Linux's half of a registered tree: the tables of [`crate::linux`], of this tree alone.

use std::collections::BTreeMap;

use cpusieve_import::linux::{self as facts, Flag, LinuxFacts, Shown};
use cpusieve_model::Place;

use super::{list, text};
use crate::linux::{Dependency, Feature, Level, NamedBit, NamingRule, Scattered, Word, WordSource, compiled_by_macro};
use crate::{TreeSet, x86};

/// The tables, each in the tree's order.
pub(crate) struct OwnLinux {
    pub(crate) features: &'static [Feature],
    pub(crate) bugs: &'static [NamedBit],
    pub(crate) vmx_flags: &'static [NamedBit],
    pub(crate) words: &'static [Word],
    pub(crate) scattered: &'static [Scattered],
    pub(crate) dependencies: &'static [Dependency],
    pub(crate) levels: &'static [Level],
    /// Features that no table has.
    pub(crate) unheard_of: &'static [x86::Feature],
    /// Positions in `features`; where two have one id, that of the printed one.
    by_macro: BTreeMap<&'static str, usize>,
    by_id: BTreeMap<&'static str, usize>,
    by_place: BTreeMap<Place, usize>,
    dependents: BTreeMap<&'static str, &'static [&'static str]>,
}

impl OwnLinux {
    pub(super) fn new(label: &str, facts: &LinuxFacts, position: usize) -> Self {
        let trees = TreeSet(1 << position);
        let features = list(facts.features.iter().map(|flag| feature(facts, flag, trees)));
        let bits = |flags: &[Flag]| list(flags.iter().map(|flag| named(flag, trees)));
        let dependency = |pair: &facts::Dependency| Dependency {
            feature: macro_name(&pair.feature),
            needs: macro_name(&pair.needs),
            trees,
        };
        let dependencies = list(facts.dependencies.iter().map(dependency));
        let gone = |pair: &Dependency| (pair.needs, list(facts.dependents(pair.needs).into_iter().map(macro_name)));
        let needed: BTreeMap<&str, &Dependency> = dependencies.iter().map(|pair| (pair.needs, pair)).collect();
        let mut own = Self {
            features,
            bugs: bits(&facts.bugs),
            vmx_flags: bits(&facts.vmx_flags),
            words: list(facts.words.iter().map(|known| word(known, trees))),
            scattered: list(facts.scattered.iter().map(|bit| Scattered {
                macro_name: macro_name(&bit.macro_name),
                place: bit.place,
                trees,
            })),
            dependents: needed.values().map(|pair| gone(pair)).collect(),
            dependencies,
            unheard_of: list(features.iter().filter_map(|feature| unheard_of(label, feature))),
            levels: list(facts.levels.iter().map(|level| Level {
                macro_name: macro_name(&level.feature),
                leaf: level.leaf,
                trees,
            })),
            by_macro: BTreeMap::new(),
            by_id: BTreeMap::new(),
            by_place: BTreeMap::new(),
        };
        own.index();
        own
    }

    fn index(&mut self) {
        // What is printed goes in last, so that it counts where two have one id or one place.
        let (hidden, shown): (Vec<_>, Vec<_>) =
            self.features.iter().enumerate().partition(|(_, feature)| feature.shown.is_none());
        for (index, feature) in hidden.into_iter().chain(shown) {
            self.by_macro.insert(feature.macro_name, index);
            self.by_id.insert(feature.id(), index);
            let places = feature.all_places().flat_map(|(_, places)| places);
            self.by_place.extend(places.map(|&place| (place, index)));
        }
    }

    pub(crate) fn feature(&self, macro_name: &str) -> Option<&'static Feature> {
        self.features.get(*self.by_macro.get(macro_name)?)
    }

    pub(crate) fn feature_by_id(&self, id: &str) -> Option<&'static Feature> {
        self.features.get(*self.by_id.get(id)?)
    }

    pub(crate) fn at(&self, place: Place) -> Option<&'static Feature> {
        self.features.get(*self.by_place.get(&place)?)
    }

    pub(crate) fn dependents(&self, macro_name: &str) -> &'static [&'static str] {
        self.dependents.get(macro_name).copied().unwrap_or(&[])
    }
}

/// The naming rule, as [`crate::linux`] says it.
pub(super) const fn naming(rule: facts::NamingRule) -> NamingRule {
    match rule {
        facts::NamingRule::MacroUnlessQuoted => NamingRule::MacroUnlessQuoted,
        facts::NamingRule::HiddenUnlessQuoted => NamingRule::HiddenUnlessQuoted,
    }
}

/// A macro's name, that of the compiled-in tables where these have it.
fn macro_name(name: &str) -> &'static str {
    compiled_by_macro(name).next().map_or_else(|| text(name), |known| known.macro_name)
}

/// A macro that compiled-in trees have keeps its id; a new one is called by its printed name, else by the macro.
fn feature(facts: &LinuxFacts, flag: &Flag, trees: TreeSet) -> Feature {
    let known = compiled_by_macro(&flag.macro_name).next();
    let shown = flag.shown.name().map(|name| match known.and_then(|known| known.shown) {
        Some(same) if same == name => same,
        _ => text(name),
    });
    let new_id = || shown.unwrap_or_else(|| text(&flag.macro_name.to_ascii_lowercase()));
    let places = list(facts.places(flag).into_iter());
    Feature::imported(
        (macro_name(&flag.macro_name), known.map_or_else(new_id, Feature::id)),
        (flag.word, flag.bit),
        (shown, matches!(flag.shown, Shown::Shadowed(_))),
        trees,
        list(std::iter::once((trees, places))),
    )
}

/// What is known of a feature that no table has: its name and its bits.
fn unheard_of(label: &str, feature: &'static Feature) -> Option<x86::Feature> {
    if x86::feature(feature.id()).is_some() {
        return None;
    }
    let places = feature.all_places().next().map_or(&[][..], |(_, places)| places);
    let linux_made = places.iter().all(|place| matches!(place, Place::Linux(_)));
    Some(x86::Feature {
        id: feature.id(),
        places: if linux_made { &[] } else { places },
        linux_made,
        vendor: x86::Scope::Any,
        group: if linux_made { x86::Group::Kernel } else { x86::Group::Misc },
        title: text(&format!("only known to the imported kernel {label}")),
        names: &[],
    })
}

fn named(flag: &Flag, trees: TreeSet) -> NamedBit {
    NamedBit {
        macro_name: text(&flag.macro_name),
        word: flag.word,
        bit: flag.bit,
        shown: flag.shown.name().map(text),
        only_if: flag.only_if.as_deref().map(text),
        trees,
    }
}

fn word(word: &facts::Word, trees: TreeSet) -> Word {
    let source = word.source().map(|(leaf, subleaf, register)| WordSource { leaf, subleaf, register });
    Word { index: word.index, name: text(&word.name), source, trees }
}
