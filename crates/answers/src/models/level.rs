//! Levels of x86-64 (System V psABI, x86-64 supplement, "Micro-Architecture Levels").

use std::fmt;
use std::sync::LazyLock;

use cpusieve_knowledge::x86;
use cpusieve_model::Place;

/// A level; each has all features of those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// The baseline.
    V1,
    /// With SSE4.2.
    V2,
    /// With AVX2.
    V3,
    /// With AVX-512.
    V4,
}

impl Level {
    /// `x86-64-v2`
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V1 => "x86-64-v1",
            Self::V2 => "x86-64-v2",
            Self::V3 => "x86-64-v3",
            Self::V4 => "x86-64-v4",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What each level adds, by the kernel's names. OSFXSR and OSXSAVE are the operating system's: their place is taken by
/// the features that let it switch them on. `lm` is no part of the psABI's list, which speaks of 64-bit programs.
const ADDS: [(Level, &[&str]); 4] = [
    (Level::V1, &["lm", "cmov", "cx8", "fpu", "fxsr", "mmx", "syscall", "sse", "sse2"]),
    (Level::V2, &["cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"]),
    (Level::V3, &["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"]),
    (Level::V4, &["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"]),
];

/// The same as bits.
static PLACES: LazyLock<[(Level, Vec<Place>); 4]> = LazyLock::new(|| {
    ADDS.map(|(level, names)| (level, names.iter().filter_map(|name| x86::feature(name)?.place()).collect()))
});

/// The highest level all of whose features are there; `None` if not even the baseline is.
pub(crate) fn of(has: impl Fn(Place) -> bool) -> Option<Level> {
    let reached = PLACES.iter().take_while(|(_, places)| places.iter().all(|&place| has(place)));
    reached.last().map(|(level, _)| *level)
}

/// The level that adds a feature.
pub(crate) fn that_adds(id: &str) -> Option<Level> {
    ADDS.iter().find(|(_, names)| names.contains(&id)).map(|(level, _)| *level)
}

/// The features that a level adds to the one before, by the kernel's names.
pub(crate) fn added(level: Level) -> &'static [&'static str] {
    ADDS.iter().find(|(known, _)| *known == level).map_or(&[], |(_, names)| names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_is_known_and_levels_build_on_each_other() {
        for ((_, places), (_, names)) in PLACES.iter().zip(ADDS) {
            assert_eq!(places.len(), names.len());
        }
        assert_eq!(of(|_| false), None);
        assert_eq!(of(|_| true), Some(Level::V4));
        let v3 = &PLACES[2].1;
        assert_eq!(of(|place| place != v3[0]), Some(Level::V2), "AVX-512 without AVX is no level 3");
    }
}
