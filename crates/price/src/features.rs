//! The work that features are priced with, one file a kind of work.
//!
//! Each file has a table of [`Work`] and the ways to do it. "Without" is what good software does on a CPU that lacks the
//! feature and has everything older: AES without AES-NI is a vector permutation, not a table lookup a byte; AVX-512 is held
//! against AVX2. All kernels are compiled for the features that their way names, and for nothing else.

mod aes;
mod bits;
mod crc;
mod galois;
mod numbers;
mod sha;
mod sort;
mod text;
mod vectors;

use crate::work::Work;

/// All work, feature by feature.
#[must_use]
pub fn works() -> Vec<&'static Work> {
    [
        aes::WORKS,
        sha::WORKS,
        crc::WORKS,
        bits::WORKS,
        numbers::WORKS,
        vectors::FLOATS,
        vectors::BYTES,
        galois::WORKS,
        text::WORKS,
        sort::WORKS,
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{Flags, place};

    #[test]
    fn ids_are_unique_and_features_known() {
        let works = works();
        for work in &works {
            assert_eq!(works.iter().filter(|other| other.id == work.id).count(), 1, "{}", work.id);
            let needs = work.with.needs.iter().chain(work.without.needs);
            for id in needs.chain([&work.feature]) {
                assert!(place(id).is_some(), "{}: {id} is no feature with a bit of CPUID", work.id);
            }
            assert!(work.with.needs.contains(&work.feature), "{}", work.id);
            assert!(!work.without.needs.contains(&work.feature), "{}", work.id);
            assert!(work.amount > 0);
        }
    }

    #[test]
    fn both_ways_agree_with_the_reference() {
        let flags = Flags::here();
        for work in works() {
            match work.ready(&flags) {
                None => eprintln!("{}: skipped, this CPU lacks {}", work.id, work.missing(&flags).join(", ")),
                Some(Err(refused)) => eprintln!("{}: skipped, {refused}", work.id),
                Some(Ok(mut pair)) => assert_eq!(pair.check(), Ok(()), "{}", work.id),
            }
        }
    }
}
