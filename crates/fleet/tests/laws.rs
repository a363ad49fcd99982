//! The laws of baselines: order and grouping of the hosts do not matter, a host twice is a host once, and another host
//! never adds a feature.
#![allow(clippy::unwrap_used, reason = "a test that cannot read its tables has failed")]

use cpusieve_fleet::{Catalogue, Offer, Words, and, closed, features};
use cpusieve_knowledge::qemu::{RELEASES, WORD_COUNT};
use proptest::prelude::*;

fn words() -> impl Strategy<Value = Words> {
    // Most bits set: real hosts share most of what they have.
    let word = (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(one, two, three)| one | two | three);
    proptest::collection::vec(word, WORD_COUNT).prop_map(|words| words.try_into().unwrap())
}

fn offer() -> impl Strategy<Value = Offer> {
    (words(), words(), words(), 32_u8..=52).prop_map(|(words, own, kvm, phys_bits)| Offer {
        words,
        own,
        kvm,
        phys_bits,
    })
}

fn is_part(part: &Words, whole: &Words) -> bool {
    part.iter().zip(whole).all(|(part, whole)| part & !whole == 0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_hosts_offer_together_is_a_semilattice(a in offer(), b in offer(), c in offer()) {
        prop_assert_eq!(a.and(&b), b.and(&a));
        prop_assert_eq!(a.and(&b).and(&c), a.and(&b.and(&c)));
        prop_assert_eq!(a.and(&a), a);
    }

    #[test]
    fn closing_keeps_the_laws(a in words(), b in words(), release in 0..RELEASES.len()) {
        let close = |words| closed(words, release);
        let one = close(a);
        prop_assert!(is_part(&one, &a));
        prop_assert_eq!(close(one), one);
        // Closing each side first changes nothing: baselines of baselines are baselines.
        prop_assert_eq!(close(and(&close(a), &close(b))), close(and(&a, &b)));
    }

    #[test]
    fn another_host_never_adds_a_feature(a in offer(), b in offer(), release in 0..RELEASES.len(), migratable: bool) {
        let catalogue = Catalogue::of(release);
        let (alone, both) = (features(&a, &catalogue, migratable), features(&a.and(&b), &catalogue, migratable));
        prop_assert!(is_part(&both, &alone));
        let names = |words: &Words| catalogue.in_words(words).map(|property| property.name).collect::<Vec<_>>();
        let of_one = names(&alone);
        prop_assert!(names(&both).iter().all(|name| of_one.contains(name)));
        // What is common of what each may have is what both may have.
        let other = features(&b, &catalogue, migratable);
        prop_assert_eq!(closed(and(&alone, &other), release), both);
    }
}
