//! What one kernel tree does otherwise than another, and who else must know of it.
//!
//! Read off the tables: what functions do beside them is not compared. The question behind it is "I changed the kernel;
//! what else must change?", asked of a tree that was imported ([`cpusieve_knowledge::own`]).

mod kvm;
mod needs;

use std::collections::BTreeMap;

use cpusieve_knowledge::linux::{self, Feature, NamedBit};
use cpusieve_model::Place;

pub use kvm::{InKvm, undecided};
pub use needs::{Need, Who};

/// What a tree does otherwise than another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Features, in the order of the flags line.
    pub features: Vec<Difference>,
    /// Bugs, in the order of their line.
    pub bugs: Vec<Difference>,
    /// VMX features, in the order of their line.
    pub vmx_flags: Vec<Difference>,
    /// Features that are cleared together with another in one tree alone: the feature, what it needs, whether it is new.
    pub dependencies: Vec<(&'static str, &'static str, bool)>,
    /// What KVM offers otherwise.
    pub kvm: Vec<InKvm>,
    /// What follows for other software.
    pub needs: Vec<Need>,
    /// What cannot be told from the tables.
    pub doubts: Vec<String>,
}

/// One feature, bug or VMX feature that differs; at least one side has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The macro, without its prefix.
    pub macro_name: &'static str,
    /// What it is in the older tree.
    pub before: Option<Known>,
    /// What it is in the newer one.
    pub after: Option<Known>,
}

/// What a tree knows of a macro.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The word by which cpusieve calls it.
    pub id: &'static str,
    /// The word that is printed, if any.
    pub shown: Option<&'static str>,
    /// The word and bit of Linux.
    pub position: (u8, u8),
    /// Where it comes from; empty for bugs and VMX features.
    pub places: &'static [Place],
}

impl Difference {
    /// The newer side, or the older one of what is gone.
    #[must_use]
    pub fn either(&self) -> Option<&Known> {
        self.after.as_ref().or(self.before.as_ref())
    }
}

impl Differences {
    /// Whether the two trees have the same tables.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let rows = self.features.len() + self.bugs.len() + self.vmx_flags.len();
        rows + self.dependencies.len() + self.kvm.len() == 0
    }
}

/// What a tree does otherwise than an older one (positions in [`linux::TREES`]).
#[must_use]
pub fn compare(before: usize, after: usize) -> Differences {
    let features = |tree: usize| linux::features(tree).map(move |row| (row.macro_name, of_feature(tree, row)));
    let flags = |rows: &dyn Fn(usize) -> Vec<&'static NamedBit>| {
        let side = |tree: usize| rows(tree).into_iter().map(|row| (row.macro_name, of_bit(row))).collect::<Vec<_>>();
        differing(side(before), side(after))
    };
    let mut found = Differences {
        features: differing(features(before).collect(), features(after).collect()),
        bugs: flags(&|tree| linux::bugs(tree).collect()),
        vmx_flags: flags(&|tree| linux::vmx_flags(tree).collect()),
        dependencies: dependencies(before, after),
        kvm: kvm::compare(before, after),
        needs: Vec::new(),
        doubts: kvm::doubts(before, after),
    };
    found.needs = needs::of(after, &found);
    found
}

fn of_feature(tree: usize, row: &'static Feature) -> Known {
    Known { id: row.id(), shown: row.shown, position: (row.word, row.bit), places: linux::places(tree, row) }
}

fn of_bit(row: &'static NamedBit) -> Known {
    Known { id: row.shown.unwrap_or(row.macro_name), shown: row.shown, position: (row.word, row.bit), places: &[] }
}

/// The macros of which two trees know different things, in the order of word and bit. Where a bit of Linux's own lies is
/// nobody else's matter: that alone is no difference.
fn differing(before: Vec<(&'static str, Known)>, after: Vec<(&'static str, Known)>) -> Vec<Difference> {
    let mut all = BTreeMap::<&'static str, (Option<Known>, Option<Known>)>::new();
    before.into_iter().for_each(|(name, known)| all.entry(name).or_default().0 = Some(known));
    after.into_iter().for_each(|(name, known)| all.entry(name).or_default().1 = Some(known));
    let places = |known: &Known| {
        known.places.iter().filter(|place| !matches!(place, Place::Linux(_))).copied().collect::<Vec<Place>>()
    };
    let gist = |known: &Option<Known>| known.as_ref().map(|known| (known.shown, places(known)));
    let differ = all.into_iter().filter(|(_, (before, after))| gist(before) != gist(after));
    let mut found: Vec<Difference> =
        differ.map(|(macro_name, (before, after))| Difference { macro_name, before, after }).collect();
    found.sort_by_key(|difference| difference.either().map(|known| known.position));
    found
}

fn dependencies(before: usize, after: usize) -> Vec<(&'static str, &'static str, bool)> {
    let pairs = |tree| linux::dependencies(tree).map(|pair| (pair.feature, pair.needs)).collect::<Vec<_>>();
    let (old, new) = (pairs(before), pairs(after));
    let gone = old.iter().filter(|pair| !new.contains(pair)).map(|&(feature, needs)| (feature, needs, false));
    let added = new.iter().filter(|pair| !old.contains(pair)).map(|&(feature, needs)| (feature, needs, true));
    gone.chain(added).collect()
}
