//! Which kernel printed this line? The release string says it, or the names, their order, and what must be there.

use std::sync::OnceLock;

use cpusieve_knowledge::linux::Distance;
use cpusieve_knowledge::rules::{RuleEffect, Software};
use cpusieve_knowledge::{TreeSet, linux, rules};
use cpusieve_model::{FlagList, Place, State};

use super::conditions::{self, Observed};
use crate::Machine;

/// The kernel trees that may have printed a flags line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidates {
    /// The trees.
    pub trees: TreeSet,
    /// How we know.
    pub because: Because,
    /// Flags that no candidate prints.
    pub unknown: Vec<String>,
}

/// How we know which kernel it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Because {
    /// The input names the release; a tree of the same release is known.
    Release(String),
    /// The input names the release; the nearest older known tree stands for it.
    NearRelease(String),
    /// The names in the flags line, their order, and what must be there.
    Flags,
    /// Nothing is known.
    Nothing,
}

impl Candidates {
    /// Every tree.
    #[must_use]
    pub fn any() -> Self {
        Self { trees: TreeSet(all()), because: Because::Nothing, unknown: Vec::new() }
    }

    /// The tree that stands for a release: its own, or, where the flags line contradicts that one, the nearest of those
    /// that may be.
    #[must_use]
    pub fn standing_for(&self, release: &str) -> usize {
        let named = linux::nearest(release).tree;
        self.trees.iter().min_by_key(|tree| tree.abs_diff(named)).unwrap_or(named)
    }

    /// `6.0 .. 6.3`, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        match (&self.because, self.trees.first(), self.trees.last()) {
            (Because::Release(release) | Because::NearRelease(release), ..) => release.clone(),
            (_, Some(first), Some(last)) if first == last => linux::TREES[first].label.to_owned(),
            (_, Some(first), Some(last)) => format!("{} to {}", linux::TREES[first].label, linux::TREES[last].label),
            _ => "unknown".to_owned(),
        }
    }
}

fn all() -> u64 {
    linux::TREES.iter().enumerate().fold(0, |set, (index, _)| set | 1 << index)
}

/// The trees that fit best.
///
/// What a line shows decides before any number does: a stable release carries backports that change names and order.
#[must_use]
pub fn candidates(machine: &Machine<'_>) -> Candidates {
    let release = machine.snapshot.linux.as_ref().and_then(|linux| linux.release.as_deref());
    let named = release.map(|release| (release, linux::nearest(release)));
    let tree = named.map(|(_, nearest)| (nearest.tree, nearest.distance == Distance::Same));
    let mut found = if machine.flags().is_some() { from_flags(machine, tree) } else { Candidates::any() };
    if let Some((release, nearest)) = named {
        let same = nearest.distance <= Distance::SameRelease;
        if machine.flags().is_none() || nearest.distance == Distance::Same || found.trees.contains(nearest.tree) {
            found.trees = TreeSet(1 << nearest.tree);
            found.unknown.retain(|name| !prints(nearest.tree, name));
            found.because =
                if same { Because::Release(release.to_owned()) } else { Because::NearRelease(release.to_owned()) };
        }
    }
    found
}

/// The trees that fit the line best.
///
/// `named` is the tree that the input's release names, and whether it is the very release. If nothing in the line is
/// strange to that tree, the others are not asked: they cannot fit better.
fn from_flags(machine: &Machine<'_>, named: Option<(usize, bool)>) -> Candidates {
    let Some(flags) = machine.flags() else { return Candidates::any() };
    let (misfits, printing) = misnamed(flags);
    let named = named.filter(|(tree, _)| misfits.get(*tree) == Some(&0));
    let alone = |tree: usize| Candidates { trees: TreeSet(1 << tree), because: Because::Flags, unknown: Vec::new() };
    if let Some((tree, true)) = named {
        return alone(tree);
    }
    let trees = least(TreeSet(all()), &misfits);
    let splits_these = |told: &&Told| told.rules.iter().any(|&rule| splits(rule, trees));
    let telling: Vec<&linux::Feature> = told().iter().filter(splits_these).map(|told| told.feature).collect();
    let strange = |tree: usize| {
        let mut of_tree = telling.iter().filter(|feature| feature.trees.contains(tree));
        of_tree.any(|feature| contradicts(machine, tree, feature))
    };
    if let Some((tree, _)) = named.filter(|(tree, _)| !strange(*tree)) {
        return alone(tree);
    }
    let mut contradictions = vec![0; linux::TREES.len()];
    for tree in trees.iter() {
        let of_tree = telling.iter().filter(|feature| feature.trees.contains(tree));
        contradictions[tree] = of_tree.filter(|feature| contradicts(machine, tree, feature)).count();
    }
    let trees = least(trees, &contradictions);
    let unprinted = flags.iter().zip(printing).filter(|(_, printing)| printing.intersection(trees).is_empty());
    let unknown = unprinted.map(|(name, _)| name.to_owned()).collect();
    Candidates { trees, because: Because::Flags, unknown }
}

/// A feature that kernels print, of which rules of some trees alone speak by that name.
struct Told {
    feature: &'static linux::Feature,
    /// The trees of each such rule.
    rules: Vec<TreeSet>,
}

/// All such features, gathered once.
fn told() -> &'static [Told] {
    static TOLD: OnceLock<Vec<Told>> = OnceLock::new();
    TOLD.get_or_init(|| {
        let of_some = |rule: &&rules::Rule| rule.software == Software::Linux && splits(*rule.trees, TreeSet(all()));
        let named = rules::by_feature().flat_map(|(name, rules)| {
            let trees: Vec<TreeSet> = rules.filter(of_some).map(|rule| *rule.trees).collect();
            let spoken_of = linux::by_shown(name).filter(|_| !trees.is_empty());
            spoken_of.map(|feature| Told { feature, rules: trees.clone() }).collect::<Vec<_>>()
        });
        named.collect()
    })
}

/// Whether some of these trees set or clear a flag by other rules than the others.
#[must_use]
pub fn differs(trees: TreeSet, name: &str) -> bool {
    rules::of_feature(Software::Linux, name).any(|rule| splits(*rule.trees, trees))
}

/// Whether some of these trees are in a set, and others not.
fn splits(set: TreeSet, trees: TreeSet) -> bool {
    !set.intersection(trees).is_empty() && set.intersection(trees) != trees
}

/// Those of some trees that have the fewest misfits.
fn least(trees: TreeSet, misfits: &[usize]) -> TreeSet {
    let least = trees.iter().map(|tree| misfits[tree]).min().unwrap_or(0);
    TreeSet(trees.iter().filter(|&tree| misfits[tree] == least).fold(0, |set, tree| set | 1 << tree))
}

/// By tree, how many names in a line it does not print, twice, and how many stand out of its order; and by name, the
/// trees that print it.
fn misnamed(flags: &FlagList) -> (Vec<usize>, Vec<TreeSet>) {
    let mut misfits = vec![0; linux::TREES.len()];
    let mut last = vec![0; linux::TREES.len()];
    let printing = flags.iter().map(|name| {
        let mut printing = TreeSet::EMPTY;
        for feature in linux::by_shown(name) {
            printing = printing.union(feature.trees);
            for tree in feature.trees.iter() {
                // Registered trees are nobody's guess.
                let Some(last) = last.get_mut(tree) else { continue };
                if feature.number() < *last {
                    misfits[tree] += 1;
                } else {
                    *last = feature.number();
                }
            }
        }
        for tree in TreeSet(all() & !printing.0).iter() {
            misfits[tree] += 2;
        }
        printing
    });
    let printing = printing.collect();
    (misfits, printing)
}

/// Whether an invented flag is there though no rule sets it, or is missing though a rule surely sets it.
fn contradicts(machine: &Machine<'_>, tree: usize, feature: &linux::Feature) -> bool {
    let Some(name) = feature.shown else { return false };
    if linux::place(tree, feature).and_then(Place::cpuid).is_some() {
        return false;
    }
    let hold = |rule: &rules::Rule| conditions::all(&Observed { machine, tree }, rule.needs).state;
    let mut ways = of_tree(tree, name).filter(|rule| rule.effect != RuleEffect::Clears);
    match machine.prints(name) {
        Some(true) => {
            let ways: Vec<_> = ways.collect();
            let cannot = |rule: &&rules::Rule| hold(rule) == State::Absent || !set_together(machine, tree, rule);
            !ways.is_empty() && ways.iter().all(cannot)
        }
        Some(false) => !clearable(machine, tree, name) && ways.any(|rule| hold(rule) == State::Present),
        None => false,
    }
}

/// Whether a rule may have set what it sets together: no flag of these that would surely stay is missing.
fn set_together(machine: &Machine<'_>, tree: usize, rule: &rules::Rule) -> bool {
    let missing = |flag: &&&str| machine.prints(flag) == Some(false) && prints(tree, flag);
    !rule.features.iter().filter(missing).any(|flag| !clearable(machine, tree, flag))
}

/// Whether a rule of this tree may have cleared a flag.
fn clearable(machine: &Machine<'_>, tree: usize, name: &str) -> bool {
    let hold = |rule: &rules::Rule| conditions::all(&Observed { machine, tree }, rule.needs).state;
    of_tree(tree, name).any(|rule| rule.effect == RuleEffect::Clears && hold(rule) != State::Absent)
}

/// The rules of a tree about a flag.
fn of_tree(tree: usize, name: &str) -> impl Iterator<Item = &'static rules::Rule> {
    rules::of_feature(Software::Linux, name).filter(move |rule| rule.trees.contains(tree))
}

/// Whether a tree prints this name.
#[must_use]
pub fn prints(tree: usize, name: &str) -> bool {
    position(tree, name).is_some()
}

/// The place of a name in this tree's line: word * 32 + bit.
fn position(tree: usize, name: &str) -> Option<usize> {
    linux::printed(tree, name).map(linux::Feature::number)
}

#[cfg(test)]
mod tests {
    use cpusieve_model::{Cpu, CpuIdentity, Cpuinfo, Snapshot};

    use super::*;

    /// The trees that may have printed a line on an Intel CPU of family 6.
    fn trees(model: u32, flags: &str) -> Vec<&'static str> {
        let vendor = Some("GenuineIntel".to_owned());
        let identity = CpuIdentity { vendor, family: Some(6), model: Some(model), ..CpuIdentity::default() };
        let cpuinfo = Cpuinfo { identity, flags: Some(FlagList::from_line(flags)), ..Cpuinfo::default() };
        let snapshot = Snapshot { cpus: vec![Cpu { cpuinfo: Some(cpuinfo), ..Cpu::default() }], ..Snapshot::default() };
        let trees = Machine::new("guest", &snapshot).trees();
        trees.iter().map(|tree| linux::TREES[tree].label).collect()
    }

    #[test]
    fn what_a_rule_sets_together_is_there_together_or_another_rule_set_it() {
        // 6.16 and later set constant_tsc on Skylake (6/5e) only by the bit that brings nonstop_tsc along.
        let alone = trees(0x5e, "fpu tsc msr lm constant_tsc rep_good nopl cpuid pni hypervisor lahf_lm");
        assert!(alone.contains(&"6.14") && !alone.contains(&"6.16") && !alone.contains(&"7.3"), "{alone:?}");
        let both = trees(0x5e, "fpu tsc msr lm constant_tsc rep_good nopl nonstop_tsc cpuid pni hypervisor lahf_lm");
        assert!(both.contains(&"6.14") && both.contains(&"7.3"), "{both:?}");
    }
}
