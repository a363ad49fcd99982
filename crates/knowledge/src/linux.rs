//! What Linux knows about CPU features, tree by tree: bits, macros, printed names, and what hangs on what.
//!
//! A macro is a feature's name in the kernel's source, here without `X86_FEATURE_`; its *id* is the word by which
//! cpusieve calls it everywhere. A tree is given by its position in [`TREES`]; [`nearest`] finds it. Trees of a user's own
//! ([`crate::own`]) have positions too.
//!
//! ```
//! use cpusieve_knowledge::linux;
//!
//! let tree = linux::nearest("6.12").tree;
//! let ds = linux::feature(tree, "DS").unwrap();
//! assert_eq!((ds.id(), ds.shown), ("dts", Some("dts")));
//! assert_eq!(linux::place(tree, ds).unwrap().to_string(), "CPUID.01H:EDX[21]");
//! // 7.0.EDX[26] is never printed; what is printed, `ibrs`, is a bit of Linux's own.
//! let spec_ctrl = linux::feature(tree, "SPEC_CTRL").unwrap();
//! assert_eq!((spec_ctrl.id(), spec_ctrl.shown), ("spec_ctrl", None));
//! assert!(linux::dependents(tree, "AVX").contains(&"AVX2"));
//! ```

mod nearest;
mod trees;

use cpusieve_model::{CpuidBit, LinuxBit, Place, Register};

use crate::slots::Slots;
use crate::{TreeSet, own};
pub use nearest::{Distance, Nearest, nearest, release_of};
pub(crate) use nearest::{nearest_compiled, numbers};
pub use trees::{TREES, Trees};

include!(concat!(env!("OUT_DIR"), "/linux.rs"));

/// A kernel source tree that the tables were read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The name by which the tables call it: `6.1`.
    pub label: &'static str,
    /// The full version: `6.1.176`.
    pub version: &'static str,
    /// Where it comes from: `Debian linux-source-6.1`.
    pub source: &'static str,
    /// The first two numbers of the version.
    pub release: (u16, u16),
    /// What is printed for macros without a name in quotes.
    pub naming: NamingRule,
    /// Capability words (`NCAPINTS`).
    pub ncapints: u8,
    /// Bug words (`NBUGINTS`).
    pub nbugints: u8,
    /// Words of VMX features (`NVMXINTS`); 0 where there is no line `vmx flags`.
    pub nvmxints: u8,
}

/// What `mkcapflags.sh` does with a macro whose comment has no name in quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamingRule {
    /// It is printed as the macro in lower case, unless the quotes are empty. Up to 6.10.
    MacroUnlessQuoted,
    /// It is not printed. From 6.11 on.
    HiddenUnlessQuoted,
}

/// A capability bit as some trees know it (`X86_FEATURE_*` of `arch/x86/include/asm/cpufeatures.h`).
///
/// Where trees disagree about the bit or about what is printed, a macro has several of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// The macro, without `X86_FEATURE_`.
    pub macro_name: &'static str,
    /// The capability word.
    pub word: u8,
    /// The bit in it, 0 to 31.
    pub bit: u8,
    /// What `/proc/cpuinfo` prints for it, if anything.
    pub shown: Option<&'static str>,
    /// Whether it would be printed if a later macro had not claimed the same bit.
    pub shadowed: bool,
    /// The trees for which this holds.
    pub trees: TreeSet,
    id: &'static str,
    places: &'static [(TreeSet, &'static [Place])],
}

impl Feature {
    /// The word by which cpusieve calls the feature: the name that trees print, or, if none does, the macro in lower
    /// case. The same for a macro in all trees.
    #[must_use]
    pub const fn id(&self) -> &'static str {
        self.id
    }

    /// The bit's index into the line `flags`: word times 32 plus bit.
    #[must_use]
    pub const fn number(&self) -> usize {
        self.word as usize * 32 + self.bit as usize
    }

    /// A feature of a registered tree: macro and id, word and bit, printed name and whether another shadows it.
    pub(crate) const fn imported(
        (macro_name, id): (&'static str, &'static str),
        (word, bit): (u8, u8),
        (shown, shadowed): (Option<&'static str>, bool),
        trees: TreeSet,
        places: &'static [(TreeSet, &'static [Place])],
    ) -> Self {
        Self { macro_name, word, bit, shown, shadowed, trees, id, places }
    }

    /// Where it comes from, for sets of trees.
    pub(crate) fn all_places(&self) -> impl Iterator<Item = (TreeSet, &'static [Place])> {
        self.places.iter().copied()
    }
}

/// A bug or a VMX feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedBit {
    /// The macro, without `X86_BUG_` or `VMX_FEATURE_`.
    pub macro_name: &'static str,
    /// The word; bugs count from the first bug word.
    pub word: u8,
    /// The bit in it, 0 to 31.
    pub bit: u8,
    /// What `/proc/cpuinfo` prints for it, if anything.
    pub shown: Option<&'static str>,
    /// The kernel option without which it does not exist, as Kconfig says it: `X86_32`.
    pub only_if: Option<&'static str>,
    /// The trees for which this holds.
    pub trees: TreeSet,
}

/// A capability word (`enum cpuid_leafs` of `arch/x86/include/asm/cpufeature.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// Its index.
    pub index: u8,
    /// Its name in the enum.
    pub name: &'static str,
    /// The register that it is; none if Linux fills it.
    pub source: Option<WordSource>,
    /// The trees for which this holds.
    pub trees: TreeSet,
}

/// The CPUID register that is a capability word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WordSource {
    /// EAX on input.
    pub leaf: u32,
    /// ECX on input.
    pub subleaf: u32,
    /// The register.
    pub register: Register,
}

/// The name of a bit of 80000007.EDX on the line `power management` (`powerflags.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerFlag {
    /// The bit.
    pub bit: u8,
    /// Its name; empty for a bit for which nothing at all is printed.
    pub name: &'static str,
    /// The trees for which this holds.
    pub trees: TreeSet,
}

/// A CPUID bit that the kernel copies into a word of its own (`scattered.c`).
///
/// The kernel reads it if its leaf is not above the maximum of its range; it does not ask how many subleaves there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scattered {
    /// The feature's macro.
    pub macro_name: &'static str,
    /// The bit it is read from.
    pub place: CpuidBit,
    /// The trees for which this holds.
    pub trees: TreeSet,
}

/// One feature needs another: whenever the other is cleared, it is cleared too (`cpuid-deps.c`).
///
/// A feature whose need is missing from CPUID stays: only clearing follows this table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The macro of the feature that goes.
    pub feature: &'static str,
    /// The macro of the feature on which it hangs.
    pub needs: &'static str,
    /// The trees for which this holds.
    pub trees: TreeSet,
}

/// A feature that is cleared if leaf 0 announces fewer leaves (`cpuid_dependent_features` of `common.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// The feature's macro.
    pub macro_name: &'static str,
    /// The leaf that must exist.
    pub leaf: u32,
    /// The trees for which this holds.
    pub trees: TreeSet,
}

/// Whether a kernel configuration takes a feature for granted or compiles it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaskKind {
    /// The kernel does not boot without it, and its code takes it for granted.
    Required,
    /// The kernel's code takes it for absent; the bit and its name in `/proc/cpuinfo` stay.
    Disabled,
}

/// A feature in a compile-time mask. No mask changes what `/proc/cpuinfo` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mask {
    /// Which mask.
    pub kind: MaskKind,
    /// The feature's macro. In 7.3 the mask of `UP` has outlived the feature.
    pub macro_name: &'static str,
    /// For which configurations, as Kconfig says it; `y` for all, `?` where it was not read.
    pub condition: &'static str,
    /// The trees for which this holds.
    pub trees: TreeSet,
}

/// What goes when a feature is cleared.
struct Dependents {
    macro_name: &'static str,
    trees: TreeSet,
    all: &'static [&'static str],
}

/// A tree's rows of a table: those that were imported for a registered tree, else those of the compiled-in one.
fn of_tree<T>(
    tree: usize,
    imported: impl FnOnce(&'static own::OwnLinux) -> &'static [T],
    compiled: &'static [T],
    trees: impl Fn(&T) -> TreeSet,
) -> impl Iterator<Item = &'static T> {
    let (table, tree) = own::linux(tree).map_or((compiled, own::compiled(tree)), |own| (imported(own), tree));
    table.iter().filter(move |row| trees(row).contains(tree))
}

/// The features of a tree, in word and bit order: the order of the line `flags`.
pub fn features(tree: usize) -> impl Iterator<Item = &'static Feature> {
    of_tree(tree, |own| own.features, FEATURES, |feature| feature.trees)
}

/// The bugs of a tree, in the order of the line `bugs`.
pub fn bugs(tree: usize) -> impl Iterator<Item = &'static NamedBit> {
    of_tree(tree, |own| own.bugs, BUGS, |bug| bug.trees)
}

/// The VMX features of a tree, in the order of the line `vmx flags`.
pub fn vmx_flags(tree: usize) -> impl Iterator<Item = &'static NamedBit> {
    of_tree(tree, |own| own.vmx_flags, VMX_FLAGS, |flag| flag.trees)
}

/// The capability words of a tree, by index. Words that have no name in the tree are not among them.
pub fn words(tree: usize) -> impl Iterator<Item = &'static Word> {
    of_tree(tree, |own| own.words, WORDS, |word| word.trees)
}

/// The scattered bits of a tree, in the order in which it reads them.
pub fn scattered(tree: usize) -> impl Iterator<Item = &'static Scattered> {
    of_tree(tree, |own| own.scattered, SCATTERED, |bit| bit.trees)
}

/// The dependencies of a tree, in its order.
pub fn dependencies(tree: usize) -> impl Iterator<Item = &'static Dependency> {
    of_tree(tree, |own| own.dependencies, DEPENDENCIES, |pair| pair.trees)
}

/// The features of a tree that need a basic leaf, in its order.
pub fn levels(tree: usize) -> impl Iterator<Item = &'static Level> {
    of_tree(tree, |own| own.levels, LEVELS, |level| level.trees)
}

/// Everything that a tree clears along with a feature (a macro), in the order in which it does.
#[must_use]
pub fn dependents(tree: usize, macro_name: &str) -> &'static [&'static str] {
    if let Some(own) = own::linux(tree) {
        return own.dependents(macro_name);
    }
    let tree = own::compiled(tree);
    let named = |position: usize| DEPENDENTS.get(position).map(|entry| entry.macro_name);
    let first = DEPENDENTS_SLOTS.find(macro_name, named).unwrap_or(DEPENDENTS.len());
    let same = DEPENDENTS[first..].iter().take_while(|entry| entry.macro_name == macro_name);
    same.into_iter().find(|entry| entry.trees.contains(tree)).map_or(&[], |entry| entry.all)
}

/// The features that some tree prints as `name`, those of registered trees last.
pub fn by_shown(name: &str) -> impl Iterator<Item = &'static Feature> {
    let here = |feature: &&Feature| feature.shown == Some(name);
    equal(BY_SHOWN, BY_SHOWN_SLOTS, name, |feature| feature.shown.unwrap_or("")).chain(imported().filter(here))
}

/// The features with an id, [`Feature::id`], those of registered trees last.
pub fn by_id(id: &str) -> impl Iterator<Item = &'static Feature> {
    compiled_by_id(id).chain(imported().filter(move |feature| feature.id == id))
}

/// The features with a macro, given without `X86_FEATURE_`, those of registered trees last.
pub fn by_macro(macro_name: &str) -> impl Iterator<Item = &'static Feature> {
    compiled_by_macro(macro_name).chain(imported().filter(move |feature| feature.macro_name == macro_name))
}

/// The features of all registered trees.
fn imported() -> impl Iterator<Item = &'static Feature> {
    own::all().filter_map(|(_, own)| own.linux.as_ref()).flat_map(|own| own.features)
}

fn compiled_by_id(id: &str) -> impl Iterator<Item = &'static Feature> {
    equal(BY_ID, BY_ID_SLOTS, id, |feature| feature.id)
}

/// The features of compiled-in trees with a macro.
pub(crate) fn compiled_by_macro(macro_name: &str) -> impl Iterator<Item = &'static Feature> {
    equal(BY_MACRO, BY_MACRO_SLOTS, macro_name, |feature| feature.macro_name)
}

/// A tree's feature with a macro.
#[must_use]
pub fn feature(tree: usize, macro_name: &str) -> Option<&'static Feature> {
    if let Some(own) = own::linux(tree) {
        return own.feature(macro_name);
    }
    let tree = own::compiled(tree);
    compiled_by_macro(macro_name).find(|feature| feature.trees.contains(tree))
}

/// A tree's feature with an id.
#[must_use]
pub fn feature_by_id(tree: usize, id: &str) -> Option<&'static Feature> {
    if let Some(own) = own::linux(tree) {
        return own.feature_by_id(id);
    }
    let tree = own::compiled(tree);
    compiled_by_id(id).find(|feature| feature.trees.contains(tree))
}

/// The feature that a tree prints as `name`.
#[must_use]
pub fn printed(tree: usize, name: &str) -> Option<&'static Feature> {
    if let Some(own) = own::linux(tree) {
        return own.features.iter().find(|feature| feature.shown == Some(name));
    }
    let tree = own::compiled(tree);
    let compiled = equal(BY_SHOWN, BY_SHOWN_SLOTS, name, |feature| feature.shown.unwrap_or(""));
    compiled.into_iter().find(|feature| feature.trees.contains(tree))
}

/// The part of an index whose features have this key.
fn equal(
    index: &'static [u16],
    slots: Slots,
    key: &str,
    of: impl Fn(&Feature) -> &'static str + Copy,
) -> impl Iterator<Item = &'static Feature> {
    let at = |position: &u16| &FEATURES[usize::from(*position)];
    let first = slots.find(key, |position| index.get(position).map(|position| of(at(position))));
    index[first.unwrap_or(index.len())..].iter().map(at).take_while(move |feature| of(feature) == key)
}

/// Where a tree's feature comes from: a CPUID bit, through its word or scattered, or else the bit of Linux itself.
///
/// None if the feature is not of this tree. If there are several places ([`places`]), the first in the tree's order.
#[must_use]
pub fn place(tree: usize, feature: &Feature) -> Option<Place> {
    places(tree, feature).first().copied()
}

/// All places from which a tree takes a feature; more than one for `mba`, which Intel and AMD announce in different
/// leaves. Empty if the feature is not of this tree.
#[must_use]
pub fn places(tree: usize, feature: &Feature) -> &'static [Place] {
    let of = |tree: usize| feature.places.iter().find(|(trees, _)| trees.contains(tree)).map(|(_, places)| *places);
    // A registered tree of which only KVM was imported has the features of its compiled-in tree.
    let inherited = || if tree < own::FIRST || own::linux(tree).is_some() { None } else { of(own::compiled(tree)) };
    of(tree).or_else(inherited).unwrap_or(&[])
}

/// The feature that a tree takes from a place; if it takes several from there, one that it prints.
#[must_use]
pub fn at(tree: usize, place: Place) -> Option<&'static Feature> {
    if let Some(own) = own::linux(tree) {
        return own.at(place);
    }
    let tree = own::compiled(tree);
    let first = BY_PLACE.partition_point(|(other, ..)| *other < place);
    let same = BY_PLACE[first..].iter().take_while(|(other, ..)| *other == place);
    let here = same.filter(|(_, trees, _)| trees.contains(tree)).map(|(.., index)| &FEATURES[usize::from(*index)]);
    here.max_by_key(|feature| feature.shown.is_some())
}

#[cfg(test)]
mod tests;
