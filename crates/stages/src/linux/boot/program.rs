//! One tree's tables, looked up once: rules by the function that they cite, features by number.

use std::sync::OnceLock;

use cpusieve_knowledge::linux::{self, Feature, NamedBit, TREES, WordSource};
use cpusieve_knowledge::rules::{Condition, Need, RULES, Rule, RuleEffect, Software};
use cpusieve_model::{CpuidBit, Place};

use super::words::{Decide, decide};

/// The greatest number of capability words that the tables have room for.
pub(super) const WORDS: usize = 32;
/// The greatest number of capabilities.
pub(super) const CAPS: usize = WORDS * 32;
/// A capability that the tree does not know.
pub(super) const NO_FEATURE: u16 = u16::MAX;

/// What one tree does, ready to run.
pub(super) struct Program {
    /// Functions that rules cite, sorted by name, with their rules in order of identity.
    functions: Vec<(&'static str, Vec<Compiled>)>,
    /// All features, in order.
    pub(super) features: Vec<Row>,
    /// Position in `features` by number; [`NO_FEATURE`] if there is none.
    pub(super) by_number: Vec<u16>,
    /// Capability words that are CPUID registers: the word, the register.
    pub(super) words: Vec<(usize, WordSource)>,
    /// Bits that the kernel copies one by one: the feature's number, the place.
    pub(super) scattered: Vec<(u16, CpuidBit)>,
    /// Features that need a leaf: the number, the leaf.
    pub(super) levels: Vec<(u16, u32)>,
    /// The bugs, in order.
    pub(super) bugs: Vec<&'static NamedBit>,
    /// The VMX features, in order.
    pub(super) vmx: Vec<&'static NamedBit>,
    /// Capabilities by macro that code of this crate asks for by name, sorted.
    by_macro: Vec<(&'static str, u16)>,
}

/// A feature of a tree.
pub(super) struct Row {
    pub(super) feature: &'static Feature,
    pub(super) number: u16,
    pub(super) place: Option<Place>,
    /// What is cleared along with it.
    pub(super) dependents: Vec<u16>,
}

/// A rule with the numbers of its features and conditions.
pub(super) struct Compiled {
    pub(super) rule: &'static Rule,
    /// Its position in [`RULES`].
    pub(super) index: u16,
    pub(super) effect: RuleEffect,
    pub(super) features: Vec<u16>,
    pub(super) needs: Vec<Test>,
}

/// One condition, ready to be tested.
pub(super) struct Test {
    pub(super) need: &'static Need,
    /// The number of the capability that a condition `flag` asks for.
    pub(super) flag: u16,
    /// How words are decided.
    pub(super) words: Decide,
}

impl Program {
    /// The program of a tree; compiled when it is first asked for.
    pub(super) fn of(tree: usize) -> &'static Self {
        static PROGRAMS: [OnceLock<Program>; 64] = [const { OnceLock::new() }; 64];
        let tree = tree.min(TREES.len() - 1);
        PROGRAMS[tree % PROGRAMS.len()].get_or_init(|| Self::compile(tree))
    }

    fn compile(tree: usize) -> Self {
        let mut by_macro: Vec<(&'static str, u16)> =
            linux::features(tree).map(|feature| (feature.macro_name, feature.number() as u16)).collect();
        by_macro.sort_unstable();
        let number = |macro_name: &str| lookup(&by_macro, macro_name);
        let features: Vec<Row> = linux::features(tree)
            .map(|feature| Row {
                feature,
                number: feature.number() as u16,
                place: linux::place(tree, feature),
                dependents: linux::dependents(tree, feature.macro_name).iter().map(|name| number(name)).collect(),
            })
            .collect();
        let mut by_number = vec![NO_FEATURE; CAPS];
        for (index, row) in features.iter().enumerate() {
            if let Some(slot) = by_number.get_mut(usize::from(row.number))
                && (*slot == NO_FEATURE || row.feature.shown.is_some())
            {
                *slot = index as u16;
            }
        }
        let words = linux::words(tree).filter_map(|word| Some((usize::from(word.index), word.source?))).collect();
        Self {
            functions: functions(tree),
            words,
            scattered: linux::scattered(tree).map(|bit| (number(bit.macro_name), bit.place)).collect(),
            levels: linux_levels(tree, number),
            bugs: linux::bugs(tree).collect(),
            vmx: linux::vmx_flags(tree).collect(),
            features,
            by_number,
            by_macro,
        }
    }

    /// The rules that cite a function.
    pub(super) fn rules(&self, function: &str) -> &[Compiled] {
        let found = self.functions.binary_search_by(|(name, _)| (*name).cmp(function));
        found.map_or(&[], |index| self.functions[index].1.as_slice())
    }

    /// The functions that rules of this tree cite.
    #[cfg(test)]
    pub(super) fn cited(&self) -> impl Iterator<Item = &'static str> {
        self.functions.iter().map(|(name, _)| *name)
    }

    /// The number of a capability by its macro, without `X86_FEATURE_`; [`NO_FEATURE`] if the tree has none.
    pub(super) fn number(&self, macro_name: &str) -> u16 {
        lookup(&self.by_macro, macro_name)
    }

    /// The feature with a number.
    pub(super) fn row(&self, number: u16) -> Option<&Row> {
        self.features.get(usize::from(*self.by_number.get(usize::from(number))?))
    }
}

fn lookup(by_macro: &[(&'static str, u16)], macro_name: &str) -> u16 {
    by_macro.binary_search_by(|(name, _)| (*name).cmp(macro_name)).map_or(NO_FEATURE, |index| by_macro[index].1)
}

fn linux_levels(tree: usize, number: impl Fn(&str) -> u16) -> Vec<(u16, u32)> {
    let levels = linux::LEVELS.iter().filter(|level| level.trees.contains(tree));
    levels.map(|level| (number(level.macro_name), level.leaf)).collect()
}

/// A tree's rules, by function.
fn functions(tree: usize) -> Vec<(&'static str, Vec<Compiled>)> {
    let mut functions: Vec<(&'static str, Vec<Compiled>)> = Vec::new();
    for (index, rule) in RULES.iter().enumerate() {
        let here = rule.software == Software::Linux && rule.trees.contains(tree);
        if !here || rule.features.is_empty() || rule.when.is_some() || rule.only.is_some() {
            continue;
        }
        let compiled = compile(tree, index, rule);
        let name = rule.cite.function();
        match functions.binary_search_by(|(other, _)| (*other).cmp(name)) {
            Ok(found) => functions[found].1.push(compiled),
            Err(place) => functions.insert(place, (name, vec![compiled])),
        }
    }
    functions
}

fn compile(tree: usize, index: usize, rule: &'static Rule) -> Compiled {
    let by_id = |id: &str| linux::feature_by_id(tree, id).map_or(NO_FEATURE, |feature| feature.number() as u16);
    let needs = rule.needs.iter().map(|need| Test {
        need,
        flag: if let Condition::Flag(id) = need.condition { by_id(id) } else { NO_FEATURE },
        words: match need.condition {
            Condition::Other(words) | Condition::Model(words) => decide(words),
            _ => Decide::Normally(false),
        },
    });
    Compiled {
        rule,
        index: index as u16,
        effect: rule.effect,
        features: rule.features.iter().map(|id| by_id(id)).filter(|&number| number != NO_FEATURE).collect(),
        needs: needs.collect(),
    }
}
