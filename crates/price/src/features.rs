//! The work that features are priced with, one file a kind of work.
//!
//! Each file has a table of [`Work`] and the ways to do it. "Without" is what good software does on a CPU that lacks the
//! feature and has everything older: AES without AES-NI is a vector permutation, not a table lookup a byte; AVX-512 is held
//! against AVX2. All kernels are compiled for the features that their way names, and for nothing else.

mod aes;
mod bits;
mod copies;
mod crc;
mod galois;
mod lines;
mod numbers;
mod sha;
mod sort;
mod system;
mod text;
mod vectors;

use crate::work::Work;

/// Features that no program can price from inside, and why.
pub const UNSEEN: &[(&str, &str)] = &[
    ("pcid", "what a kernel keeps in the TLB when it changes address spaces; two boots tell, with it and without"),
    ("invpcid", "a kernel's instruction; two boots tell, with it and without"),
    ("lam", "once allowed, a process cannot give it up again, so there is no without"),
    ("la57", "how deep page tables are is decided at boot"),
    ("pdpe1gb", "who gets pages of 1 GiB is the kernel's and the administrator's decision"),
    ("smep", "it protects, and does no work"),
    ("smap", "it protects; its cost is the kernel's"),
    ("umip", "it protects, and does no work"),
    ("ibpb", "executed by the kernel when it changes processes"),
    ("amx_tile", "tiles must be asked for with arch_prctl, and this bench has no work for them yet"),
];

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
        copies::WORKS,
        lines::WORKS,
        system::WORKS,
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use cpusieve_knowledge::x86;

    use super::*;
    use crate::flags::{Flags, place};

    #[test]
    fn ids_are_unique_and_features_known() {
        let works = works();
        for work in &works {
            assert_eq!(works.iter().filter(|other| other.id == work.id).count(), 1, "{}", work.id);
            let needs = work.with.needs.iter().chain(work.without.needs);
            for id in needs {
                assert!(place(id).is_some(), "{}: {id} is no feature with a bit of CPUID", work.id);
            }
            assert!(x86::feature(work.feature).is_some(), "{}", work.feature);
            // What needs nothing is asked of the kernel.
            assert!(work.with.needs.contains(&work.feature) || work.with.needs.is_empty(), "{}", work.id);
            assert!(!work.without.needs.contains(&work.feature), "{}", work.id);
            assert!(work.amount > 0);
            assert!(work.title.len() <= 32, "{}: too long for a table", work.title);
        }
    }

    #[test]
    fn what_cannot_be_priced_is_known_and_has_no_work() {
        for (feature, _) in UNSEEN {
            assert!(x86::feature(feature).is_some(), "{feature}");
            assert!(works().iter().all(|work| work.feature != *feature), "{feature}");
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
