//! Built-in CPU models and their versions (`target/i386/cpu.c:builtin_x86_defs`).

use super::{CPU_NAMES, Caches, DefaultCpuVersion, MODELS, MODELS_BY_NAME, Word};
use crate::TreeSet;
use crate::x86::distance;

/// A CPU model as one or more releases define it, without its versions' properties.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Model {
    /// The name, without a version: `Haswell`.
    pub name: &'static str,
    /// The highest basic leaf, before features raise it.
    pub level: u32,
    /// The highest extended leaf, before features raise it; 0 if there is none.
    pub xlevel: u32,
    /// Leaf 0's vendor, 12 characters. KVM replaces it with the host's.
    pub vendor: &'static str,
    /// Display family.
    pub family: u32,
    /// Display model.
    pub model: u32,
    /// Stepping.
    pub stepping: u32,
    /// The brand string; may be empty.
    pub model_id: &'static str,
    /// The feature words that are not zero, in the order of the release's words. HYPERVISOR is not in them: load adds
    /// it (`target/i386/cpu.c:x86_cpu_load_model`).
    pub words: &'static [(Word, u64)],
    /// The cache table; without one, the legacy tables are shown.
    pub caches: Option<&'static Caches>,
    /// The AVX10 version that is set on load; 0 is none.
    pub avx10_version: u8,
    /// Whether load sets the property `x-force-cpuid-0x1f`.
    pub force_cpuid_0x1f: bool,
    /// Why the model is deprecated, in QEMU's words.
    pub deprecated: Option<&'static str>,
    /// The releases with this definition.
    pub releases: TreeSet,
    /// The versions of all releases, by number.
    pub(super) versions: &'static [Version],
}

/// A version of a CPU model (`target/i386/cpu.c:X86CPUVersionDefinition`). Version n has the properties of 1 to n.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Version {
    /// The number, from 1.
    pub number: u8,
    /// A name that means this version on every machine: `Haswell-noTSX`.
    pub alias: Option<&'static str>,
    /// What QEMU's list of models says about it.
    pub note: Option<&'static str>,
    /// Properties and values that it sets on top of the version before, in order.
    pub properties: &'static [(&'static str, &'static str)],
    /// A cache table that replaces the one before.
    pub caches: Option<&'static Caches>,
    /// The releases that have it so.
    pub releases: TreeSet,
}

/// What a name in `-cpu` stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resolved {
    /// The model.
    pub model: &'static Model,
    /// The version that the name fixes; `None` where the machine type decides.
    pub version: Option<u8>,
}

impl Resolved {
    /// The version that a guest gets on a machine in `release`; `None` is the definition without versions
    /// (`target/i386/cpu.c:x86_cpu_model_resolve_version`).
    #[must_use]
    pub fn version_on(&self, release: usize, machine: DefaultCpuVersion) -> Option<u8> {
        self.version.or_else(|| match machine {
            DefaultCpuVersion::Legacy => None,
            DefaultCpuVersion::One => Some(1),
            DefaultCpuVersion::Latest => self.model.versions(release).last().map(|version| version.number),
        })
    }
}

impl Model {
    /// Its versions in `release`, by rising number.
    pub fn versions(&self, release: usize) -> impl Iterator<Item = &'static Version> + use<> {
        self.versions.iter().filter(move |version| version.releases.contains(release))
    }

    /// The value of a feature word of its definition; 0 if it is not listed.
    #[must_use]
    pub fn word(&self, word: Word) -> u64 {
        self.words.iter().find(|(known, _)| *known == word).map_or(0, |(_, value)| *value)
    }
}

/// The built-in models of a release, in the order of its table. `base`, `max` and `host` are not among them.
pub fn models(release: usize) -> impl Iterator<Item = &'static Model> {
    MODELS.iter().filter(move |model| model.releases.contains(release))
}

/// The built-in model of this name, without a version: `Haswell`, not `Haswell-v2` or `Haswell-noTSX`.
#[must_use]
pub fn model(release: usize, base_name: &str) -> Option<&'static Model> {
    let start = MODELS_BY_NAME.partition_point(|(name, _)| *name < base_name);
    let rows = MODELS_BY_NAME.get(start..)?.iter().take_while(|(name, _)| *name == base_name);
    rows.filter_map(|&(_, index)| MODELS.get(usize::from(index))).find(|model| model.releases.contains(release))
}

/// The versions of a built-in model, by rising number. Every model has at least version 1.
pub fn versions(release: usize, base_name: &str) -> impl Iterator<Item = &'static Version> + use<> {
    model(release, base_name).into_iter().flat_map(move |model| model.versions(release))
}

/// What a name in `-cpu` stands for in `release`: a model, a model with a version, or a version's alias.
///
/// `None` also for `base`, `max` and `host`, which are no built-in models.
#[must_use]
pub fn resolve(release: usize, cpu_name: &str) -> Option<Resolved> {
    let start = CPU_NAMES.partition_point(|(name, ..)| *name < cpu_name);
    let mut rows = CPU_NAMES.get(start..)?.iter().take_while(|(name, ..)| *name == cpu_name);
    let &(_, base_name, version, _) = rows.find(|(.., releases)| releases.contains(release))?;
    Some(Resolved { model: model(release, base_name)?, version })
}

/// Every name that `-cpu` takes for a built-in model in `release`: models, versions and aliases, sorted.
pub fn cpu_names(release: usize) -> impl Iterator<Item = &'static str> {
    CPU_NAMES.iter().filter(move |(.., releases)| releases.contains(release)).map(|(name, ..)| *name)
}

/// How many names [`near_cpu_names`] gives at most.
const SUGGESTIONS: usize = 5;

/// The longest name that is compared.
const LONGEST: usize = 64;

/// Names of built-in models of any release that come near to `name`, nearest first; at most five. Upper and lower case
/// are the same here, and a name that starts with `name` is as near as one with a letter wrong.
#[must_use]
pub fn near_cpu_names(name: &str) -> Vec<&'static str> {
    let folded = name.to_ascii_lowercase();
    if folded.is_empty() || folded.len() > LONGEST {
        return Vec::new();
    }
    let limit = (folded.len() / 3).max(1);
    let far = |known: &str| {
        let known = known.to_ascii_lowercase();
        let distance = distance(folded.as_bytes(), known.as_bytes());
        if known.starts_with(&folded) { distance.min(1) } else { distance }
    };
    let mut near: Vec<(usize, usize, &str)> =
        CPU_NAMES.iter().map(|(known, ..)| (far(known), known.len(), *known)).collect();
    near.retain(|(distance, ..)| *distance <= limit);
    near.sort_unstable();
    near.dedup();
    near.truncate(SUGGESTIONS);
    near.into_iter().map(|(.., known)| known).collect()
}

#[cfg(test)]
mod tests {
    use super::near_cpu_names;

    #[test]
    fn near_names_are_those_that_were_meant() {
        assert_eq!(near_cpu_names("sandybridge").first(), Some(&"SandyBridge"));
        assert_eq!(near_cpu_names("Hasewll-noTSX").first(), Some(&"Haswell-noTSX"));
        assert!(near_cpu_names("skylake").iter().all(|name| name.starts_with("Skylake-")));
        assert!(near_cpu_names("").is_empty() && near_cpu_names(&"x".repeat(4000)).is_empty());
    }
}
