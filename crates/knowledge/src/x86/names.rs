//! From what people type to features.

use super::{BY_NAME, FEATURES, Feature};

/// A name without case and without the characters that systems disagree about: `_`, `-`, `.` and blanks.
#[must_use]
pub fn fold(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '_' | '-' | '.' | ' ')).map(|c| c.to_ascii_lowercase()).collect()
}

/// The features that a name stands for in any system, the likeliest first: ids, then QEMU's properties, then the
/// manuals, libvirt, what people type, and Linux's macros. A place, `7.0.EBX[16]` or as Intel's manual writes it, is
/// a name too.
///
/// Empty if nobody uses the name; [`suggest`] then has near ones.
#[must_use]
pub fn resolve(name: &str) -> Vec<&'static Feature> {
    let folded = fold(name);
    let start = BY_NAME.partition_point(|(known, _, _)| *known < folded.as_str());
    let end = BY_NAME.partition_point(|(known, _, _)| *known <= folded.as_str());
    let named = BY_NAME.get(start..end).unwrap_or(&[]);
    if !named.is_empty() {
        return named.iter().filter_map(|&(_, _, index)| FEATURES.get(usize::from(index))).collect();
    }
    if !name.ends_with(']') {
        return super::imported().filter(|feature| fold(feature.id) == folded).collect();
    }
    let stands_there = |feature: &&Feature| {
        feature
            .places
            .iter()
            .any(|place| [format!("{place}"), format!("{place:#}")].iter().any(|text| fold(text) == folded))
    };
    FEATURES.iter().chain(super::imported()).filter(stands_there).collect()
}

/// How many suggestions are made at most.
const SUGGESTIONS: usize = 5;

/// The longest name that is compared; nobody mistypes longer ones by a letter or two.
const LONGEST: usize = 64;

/// The ids of features whose names come near to `name`, nearest first; at most five.
///
/// Near means: a third of the letters wrong at most, counting a letter too many, too few, another letter or two letters
/// exchanged as one each.
#[must_use]
pub fn suggest(name: &str) -> Vec<&'static str> {
    let folded: Vec<u8> = fold(name).into_bytes();
    if folded.is_empty() || folded.len() > LONGEST {
        return Vec::new();
    }
    let limit = (folded.len() / 3).max(1);
    let mut near: Vec<(usize, u8, u16)> = Vec::new();
    for &(known, rank, index) in BY_NAME {
        if known.len().abs_diff(folded.len()) > limit {
            continue;
        }
        let distance = distance(&folded, known.as_bytes());
        if distance <= limit {
            near.push((distance, rank, index));
        }
    }
    near.sort_unstable();
    let mut ids = Vec::new();
    for id in near.iter().filter_map(|&(_, _, index)| FEATURES.get(usize::from(index))).map(|feature| feature.id) {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    ids.truncate(SUGGESTIONS);
    ids
}

/// The number of edits between two names (optimal string alignment: insert, delete, replace, exchange neighbours).
pub(crate) fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &to) in b.iter().enumerate() {
            let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX - 1);
            let mut cost = (at(&last, j) + usize::from(from != to)).min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let exchanged = i > 0 && j > 0 && a.get(i - 1) == Some(&to) && b.get(j - 1) == Some(&from);
            if exchanged {
                cost = cost.min(at(&before, j - 1) + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        assert_eq!(distance(b"avx521f", b"avx512f"), 1);
        assert_eq!(distance(b"", b"avx"), 3);
        assert_eq!(distance(b"sse", b"sse2"), 1);
        assert_eq!(distance(b"vmx", b"svm"), 2);
    }

    fn ids(name: &str) -> Vec<&'static str> {
        resolve(name).iter().map(|feature| feature.id).collect()
    }

    #[test]
    fn every_systems_spelling_is_understood() {
        assert_eq!(ids("SSE3"), ["pni"]);
        assert_eq!(ids("XMM3"), ["pni"]);
        assert_eq!(ids("sse4.1"), ["sse4_1"]);
        assert_eq!(ids("tsc-deadline"), ["tsc_deadline_timer"]);
        assert_eq!(ids("AVX512_VNNI"), ["avx512_vnni"]);
        assert_eq!(ids("dts"), ["dts", "dtherm"]);
        assert_eq!(ids("ds"), ["dts"]);
        assert_eq!(ids("stibp"), ["stibp", "intel_stibp", "amd_stibp"]);
        assert_eq!(ids("spec-ctrl"), ["spec_ctrl", "v_spec_ctrl"]);
        assert_eq!(ids("xd"), ["nx"]);
        assert_eq!(ids("cet-ibt"), ["ibt"]);
        assert_eq!(ids("LZCNT"), ["abm"]);
        assert_eq!(ids("7.0.EBX[16]"), ["avx512f"]);
        assert_eq!(ids("CPUID.01H:EDX[22]"), ["acpi"]);
        assert_eq!(ids("no-such-thing"), [""; 0]);
        assert_eq!(ids("invariant-tsc"), ["invtsc"]);
    }

    #[test]
    fn near_names_are_found() {
        assert_eq!(suggest("pcdi").first(), Some(&"pcid"));
        assert!(suggest("nonstop_tcs").contains(&"nonstop_tsc"));
        assert!(suggest(&"x".repeat(4000)).is_empty());
        assert!(suggest("").is_empty());
    }
}
