//! One tree's tables, looked up once: rules by the function that they cite, features by number.

use std::sync::OnceLock;

use cpusieve_knowledge::linux::{self, Feature, NamedBit, TREES, WordSource};
use cpusieve_knowledge::rules::{self, Condition, Need, RULES, Rule, RuleEffect, Software, generic};
use cpusieve_model::{CpuidBit, LinuxBit, Place};

use super::words::{Decide, decide};
use crate::names::Names;

/// The greatest number of capability words that the tables have room for.
pub(super) const WORDS: usize = 24;
/// The greatest number of capabilities.
pub(super) const CAPS: usize = WORDS * 32;
/// A capability that the tree does not know.
pub(super) const NO_FEATURE: u16 = u16::MAX;

/// What one tree does, ready to run.
pub(super) struct Program {
    tree: usize,
    /// The rules that cite a function, in order of identity; by the position in [`rules::functions`], compiled when the
    /// function is first called: no boot calls all of them.
    functions: Vec<OnceLock<Vec<Compiled>>>,
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
    /// Bits of bugs, by macro and by printed word; the 64 first.
    bugs_by_macro: Names<u64>,
    bugs_by_word: Names<u64>,
    /// The VMX features, in order.
    pub(super) vmx: Vec<&'static NamedBit>,
    /// 1.ECX\[31\].
    pub(super) hypervisor: u16,
    pub(super) generic: Generic,
}

/// The generic rules: what happens to any feature in a situation.
pub(super) struct Generic {
    pub(super) word: Option<&'static Rule>,
    pub(super) scattered: Option<&'static Rule>,
    pub(super) dependency: Option<&'static Rule>,
    pub(super) level: Option<&'static Rule>,
    pub(super) clearcpuid: Option<&'static Rule>,
    pub(super) setcpuid: Option<&'static Rule>,
}

impl Generic {
    fn new() -> Self {
        let of = |when: &str| generic(Software::Linux, when);
        Self {
            word: of("word"),
            scattered: of("scattered"),
            dependency: of("dependency"),
            level: of("level"),
            clearcpuid: of("clearcpuid"),
            setcpuid: of("setcpuid"),
        }
    }
}

/// A feature of a tree.
pub(super) struct Row {
    pub(super) feature: &'static Feature,
    pub(super) number: u16,
    pub(super) place: Place,
}

/// A rule with the numbers of its features and conditions.
pub(super) struct Compiled {
    /// Its position in [`RULES`].
    pub(super) index: u16,
    pub(super) effect: RuleEffect,
    /// What it sets or clears.
    pub(super) features: Vec<u16>,
    pub(super) needs: Vec<Test>,
}

/// One condition, ready to be tested.
pub(super) struct Test {
    pub(super) need: &'static Need,
    /// The number of the capability that a condition `flag` asks for.
    pub(super) flag: u16,
    /// How words are decided.
    pub(super) words: &'static Decide,
}

impl Program {
    /// The program of a tree; compiled when it is first asked for.
    pub(super) fn of(tree: usize) -> &'static Self {
        static PROGRAMS: [OnceLock<Program>; 64] = [const { OnceLock::new() }; 64];
        let tree = if TREES.get(tree).is_some() { tree } else { TREES.len() - 1 };
        PROGRAMS[tree % PROGRAMS.len()].get_or_init(|| Self::compile(tree))
    }

    fn compile(tree: usize) -> Self {
        let number = |macro_name: &str| number(tree, macro_name);
        let own = |feature: &Feature| Place::Linux(LinuxBit { word: feature.word, bit: feature.bit });
        let row = |feature: &'static Feature| Row {
            feature,
            number: feature.number() as u16,
            place: linux::place(tree, feature).unwrap_or(own(feature)),
        };
        let features: Vec<Row> = linux::features(tree).map(row).collect();
        let mut by_number = vec![NO_FEATURE; CAPS];
        for (index, row) in features.iter().enumerate() {
            if let Some(slot) = by_number.get_mut(usize::from(row.number))
                && (*slot == NO_FEATURE || row.feature.shown.is_some())
            {
                *slot = index as u16;
            }
        }
        let bugs = || (0..64).map(|index| 1 << index).zip(linux::bugs(tree));
        let words = linux::words(tree).filter_map(|word| Some((usize::from(word.index), word.source?))).collect();
        Self {
            tree,
            functions: rules::functions().iter().map(|_| OnceLock::new()).collect(),
            hypervisor: number("HYPERVISOR"),
            generic: Generic::new(),
            words,
            scattered: linux::scattered(tree).map(|bit| (number(bit.macro_name), bit.place)).collect(),
            levels: linux_levels(tree, number),
            bugs_by_macro: Names::new(bugs().map(|(bit, bug)| (bug.macro_name, bit))),
            bugs_by_word: Names::new(bugs().filter_map(|(bit, bug)| Some((bug.shown?, bit)))),
            bugs: linux::bugs(tree).collect(),
            vmx: linux::vmx_flags(tree).collect(),
            features,
            by_number,
        }
    }

    /// The rules that cite a function.
    pub(super) fn rules(&self, function: &str) -> &[Compiled] {
        let compiled = rules::function(function).and_then(|position| self.compiled(position));
        compiled.map_or(&[], Vec::as_slice)
    }

    fn compiled(&self, position: usize) -> Option<&Vec<Compiled>> {
        let compile = || rules::functions().get(position).map_or(Vec::new(), |(_, rules)| compiled(self.tree, rules));
        Some(self.functions.get(position)?.get_or_init(compile))
    }

    /// The functions that rules of this tree cite.
    #[cfg(test)]
    pub(super) fn cited(&self) -> impl Iterator<Item = &'static str> {
        let names = rules::functions().iter().map(|(name, _)| *name);
        names.filter(|name| !self.rules(name).is_empty())
    }

    /// The number of a capability by its macro, without `X86_FEATURE_`; [`NO_FEATURE`] if the tree has none.
    pub(super) fn number(&self, macro_name: &str) -> u16 {
        number(self.tree, macro_name)
    }

    /// The bit of a bug by its macro, without `X86_BUG_`; 0 if the tree has none.
    pub(super) fn bug(&self, macro_name: &str) -> u64 {
        self.bugs_by_macro.get(macro_name).copied().unwrap_or(0)
    }

    /// The bit of a bug by the word that is printed; 0 if the tree has none.
    pub(super) fn bug_shown(&self, word: &str) -> u64 {
        self.bugs_by_word.get(word).copied().unwrap_or(0)
    }

    /// What is cleared along with a feature, in the kernel's order.
    pub(super) fn dependents(&self, number: u16) -> impl Iterator<Item = u16> {
        let named = self.row(number).map(|row| linux::dependents(self.tree, row.feature.macro_name));
        named.unwrap_or_default().iter().map(|name| self.number(name))
    }

    /// The feature with a number.
    pub(super) fn row(&self, number: u16) -> Option<&Row> {
        self.features.get(usize::from(*self.by_number.get(usize::from(number))?))
    }
}

fn number(tree: usize, macro_name: &str) -> u16 {
    linux::feature(tree, macro_name).map_or(NO_FEATURE, |feature| feature.number() as u16)
}

fn linux_levels(tree: usize, number: impl Fn(&str) -> u16) -> Vec<(u16, u32)> {
    linux::levels(tree).map(|level| (number(level.macro_name), level.leaf)).collect()
}

/// Those of some rules that hold for a tree and say what happens to features there.
fn compiled(tree: usize, rules: &[u16]) -> Vec<Compiled> {
    let rule = |&index: &u16| Some((usize::from(index), RULES.get(usize::from(index))?));
    let here = |(_, rule): &(usize, &'static Rule)| {
        let speaks = rule.trees.contains(tree) && !rule.features.is_empty();
        speaks && rule.when.is_none() && rule.only.is_none()
    };
    rules.iter().filter_map(rule).filter(here).map(|(index, rule)| compile(tree, index, rule)).collect()
}

fn compile(tree: usize, index: usize, rule: &'static Rule) -> Compiled {
    let by_id = |id: &str| linux::feature_by_id(tree, id).map_or(NO_FEATURE, |feature| feature.number() as u16);
    let needs: Vec<Test> = rule
        .needs
        .iter()
        .map(|need| Test {
            need,
            flag: if let Condition::Flag(id) = need.condition { by_id(id) } else { NO_FEATURE },
            words: match need.condition {
                Condition::Other(words) | Condition::Model(words) => decide(words),
                _ => &Decide::Normally(false),
            },
        })
        .collect();
    Compiled {
        index: index as u16,
        effect: rule.effect,
        features: rule.features.iter().map(|id| by_id(id)).filter(|&number| number != NO_FEATURE).collect(),
        needs,
    }
}

#[cfg(test)]
mod tests {
    use super::super::sequence::TOO_LATE;
    use super::*;

    /// The code that calls functions by name.
    const CALLERS: [&str; 3] = [include_str!("sequence.rs"), include_str!("bugs.rs"), include_str!("vmx.rs")];

    #[test]
    fn every_function_that_a_rule_cites_is_called() {
        for (tree, known) in TREES.iter().enumerate() {
            for function in Program::of(tree).cited() {
                let quoted = format!("{function:?}");
                let late = TOO_LATE.contains(&function);
                let called = late || CALLERS.iter().any(|source| source.contains(&quoted));
                assert!(called, "{}: nothing calls {function}", known.label);
            }
        }
    }

    #[test]
    fn all_words_of_rules_are_decided() {
        assert_eq!(super::super::words::undecided().collect::<Vec<_>>(), Vec::<&str>::new());
    }

    #[test]
    fn capabilities_fit_into_the_words() {
        for tree in TREES {
            assert!(usize::from(tree.ncapints) <= WORDS, "{}", tree.label);
        }
    }
}
