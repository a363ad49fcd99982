//! A packed fleet is the fleet: what is read back is what was written, sums are ANDs, and the laws of baselines hold on
//! the way through the file. Damaged files are errors, never panics.
#![allow(clippy::unwrap_used, reason = "a test that cannot write to memory has failed")]

use std::sync::Arc;

use cpusieve_fleet::{Assumed, Catalogue, Fleet, Ground, Kind, Member, Offer, Software, Words, features};
use cpusieve_knowledge::qemu::{RELEASES, WORD_COUNT, WORD_ORDER, Word};
use cpusieve_model::{CpuidTable, KvmView, Registers, Vendor};
use cpusieve_store::{Error, Packed, Stamp, Writer, columns, from_parquet, pack};
use proptest::prelude::*;

fn words() -> impl Strategy<Value = Words> {
    let word = (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(one, two, three)| one | two | three);
    proptest::collection::vec(word, WORD_COUNT).prop_map(|words| {
        let mut words: Words = words.try_into().unwrap();
        // CPUID's registers have 32 bits.
        for (word, which) in words.iter_mut().zip(WORD_ORDER) {
            *word &= if matches!(which, Word::Msr { .. }) { u64::MAX } else { u64::from(u32::MAX) };
        }
        words
    })
}

fn vendor() -> impl Strategy<Value = Vendor> {
    prop_oneof![Just(Vendor::Intel), Just(Vendor::Amd), Just(Vendor::Hygon), Just(Vendor::Other)]
}

fn ground(vendor: Vendor) -> Ground {
    let mut cpuid = CpuidTable::default();
    let (ebx, edx, ecx) = match vendor {
        Vendor::Intel => (0x756e_6547, 0x4965_6e69, 0x6c65_746e),
        Vendor::Amd => (0x6874_7541, 0x6974_6e65, 0x444d_4163),
        Vendor::Hygon => (0x6f67_7948, 0x6e65_476e, 0x656e_6975),
        _ => (0, 0, 0),
    };
    cpuid.insert(0, 0, Registers { eax: 1, ebx, ecx, edx });
    let view = KvmView { supported: Some(Vec::new()), tsc_khz: Some(2_000_000), ..KvmView::default() };
    Ground { cpuid, view, vendor }
}

fn member(number: usize) -> Member {
    let params = [("kvm.nested".to_owned(), number.to_string())];
    let software = Software {
        kernel: number.is_multiple_of(2).then(|| format!("6.{number}")),
        cmdline: number.is_multiple_of(3).then(|| "quiet \"mitigations=off\"".to_owned()),
        microcode: (!number.is_multiple_of(5)).then_some(0x0a00_1234 + number as u64),
        params: if number.is_multiple_of(4) { params.into() } else { Default::default() },
    };
    Member {
        name: format!("rack/höst-{number}"),
        kind: 0,
        tsc_khz: (!number.is_multiple_of(7)).then_some(2_000_000 + number as u64),
        nested: number % 3 == 1,
        software: Arc::new(software),
    }
}

fn fleets() -> impl Strategy<Value = Fleet> {
    let offer = (words(), words(), words(), 32_u8..=52);
    let kind = (offer, vendor(), any::<u32>(), 1_usize..4, any::<bool>());
    proptest::collection::vec(kind, 1..12).prop_map(|kinds| {
        let mut fleet = Fleet::default();
        let mut number = 0;
        for ((words, own, kvm, phys_bits), vendor, signature, hosts, grounded) in kinds {
            let offer = Offer { words, own, kvm, phys_bits };
            let ground = grounded.then(|| ground(vendor));
            fleet.push_kind(
                Kind { offer, vendor, signature, ground, hosts },
                (0..hosts).map(|one| member(number + one)),
            );
            number += hosts;
        }
        fleet.assume(Assumed { what: "a".into(), value: "b".into(), because: "\"c\"".into(), hosts: 2 });
        fleet
    })
}

fn stamp() -> Stamp {
    let params = vec![("kvm_intel.nested".to_owned(), "0".to_owned())];
    Stamp { qemu: "10.0".into(), machine: "pc".into(), kernel: Some("6.12".into()), params, nested: true }
}

fn packed(fleet: &Fleet) -> Packed {
    Packed::open(pack(fleet, Writer::arrow(Vec::new(), &stamp()).unwrap()).unwrap().into()).unwrap()
}

/// Reads a fleet back, host by host.
fn unpacked(packed: &Packed) -> Fleet {
    let mut fleet = Fleet::default();
    let mut rows = packed.iter().unwrap();
    while let Some(row) = rows.next_row() {
        assert_eq!(row.unnamed(usize::MAX), None);
        fleet.push_kind(row.kind(true), row.members(usize::MAX));
    }
    packed.assumed().iter().for_each(|assumed| fleet.assume(assumed.clone()));
    fleet
}

fn same(one: &Fleet, other: &Fleet) -> Result<(), TestCaseError> {
    prop_assert_eq!(one.kinds().len(), other.kinds().len());
    for (one, other) in one.kinds().iter().zip(other.kinds()) {
        let facts = |kind: &Kind| (kind.offer.clone(), kind.vendor, kind.signature, kind.hosts);
        prop_assert_eq!(facts(one), facts(other));
        let ground = |kind: &Kind| kind.ground.as_ref().map(|ground| (ground.cpuid.clone(), ground.view.clone()));
        prop_assert_eq!(ground(one), ground(other));
    }
    let facts = |member: &Member| {
        let Member { name, kind, tsc_khz, nested, software } = member.clone();
        (name, kind, tsc_khz, nested, software)
    };
    let facts = |fleet: &Fleet| fleet.members().iter().map(facts).collect::<Vec<_>>();
    prop_assert_eq!(facts(one), facts(other));
    prop_assert_eq!(one.assumed(), other.assumed());
    Ok(())
}

fn is_part(part: &Words, whole: &Words) -> bool {
    part.iter().zip(whole).all(|(part, whole)| part & !whole == 0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_is_read_is_what_was_written(fleet in fleets()) {
        let packed = packed(&fleet);
        prop_assert_eq!(packed.stamp(), &stamp());
        prop_assert_eq!(packed.hosts().unwrap(), fleet.hosts() as u64);
        same(&fleet, &unpacked(&packed))?;
        let parquet = pack(&fleet, Writer::parquet(Vec::new(), &stamp()).unwrap()).unwrap();
        same(&fleet, &unpacked(&from_parquet(parquet.into()).unwrap()))?;
    }

    #[test]
    fn a_sum_is_the_and_of_its_hosts(fleet in fleets()) {
        let packed = packed(&fleet);
        let sum = packed.sum().unwrap().rest;
        prop_assert_eq!(&sum.all, &Fleet::common(fleet.kinds()).unwrap());
        prop_assert_eq!((sum.hosts, sum.rows), (fleet.hosts() as u64, fleet.kinds().len()));
        prop_assert_eq!(sum.vendors.into_iter().map(|(vendor, hosts)| (vendor, hosts as usize)).collect::<Vec<_>>(),
            fleet.vendors().into_iter().collect::<Vec<_>>());
        for (&(at, bit), &without) in &sum.without {
            let lacks = |kind: &&Kind| kind.offer.own[at] >> bit & 1 == 0;
            prop_assert_eq!(without, fleet.kinds().iter().filter(lacks).map(|kind| kind.hosts as u64).sum::<u64>());
        }
        let catalogue = Catalogue::of(RELEASES.len() - 1);
        for property in catalogue.properties() {
            let who = packed.who(property).unwrap();
            let having = fleet.kinds().iter().filter(|kind| property.is_in(&kind.offer.own)).map(|kind| kind.hosts);
            prop_assert_eq!((who.hosts, who.having), (fleet.hosts() as u64, having.sum::<usize>() as u64));
        }
    }

    #[test]
    fn the_laws_hold_through_the_file(one in fleets(), other in fleets()) {
        let sum = |fleets: &[&Fleet]| {
            let mut all = Fleet::default();
            for fleet in fleets {
                all.push_rest(packed(fleet).sum().unwrap().rest);
            }
            all
        };
        let (a, b, both, back) = (sum(&[&one]), sum(&[&other]), sum(&[&one, &other]), sum(&[&other, &one]));
        prop_assert_eq!(both.offer(), back.offer());
        prop_assert_eq!(both.offer().unwrap(), a.offer().unwrap().and(&b.offer().unwrap()));
        prop_assert_eq!(sum(&[&one, &one]).offer(), a.offer());
        prop_assert_eq!(&both.rest().unwrap().without, &back.rest().unwrap().without);
        // One file with the hosts of both says what two files say.
        let mut merged = Fleet::default();
        for fleet in [&one, &other] {
            for kind in fleet.kinds() {
                merged.push_kind(kind.clone(), []);
            }
        }
        let merged = packed(&merged).sum().unwrap().rest;
        prop_assert_eq!(&merged.all, &both.offer().unwrap());
        prop_assert_eq!(&merged.without, &both.rest().unwrap().without);
        // Another host never adds a feature.
        let catalogue = Catalogue::of(RELEASES.len() - 1);
        let features = |fleet: &Fleet| features(&fleet.offer().unwrap(), &catalogue, true);
        prop_assert!(is_part(&features(&both), &features(&a)));
    }

    #[test]
    fn damage_is_an_error(fleet in fleets(), cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in any::<prop::sample::Index>()) {
        let whole = pack(&fleet, Writer::arrow(Vec::new(), &stamp()).unwrap()).unwrap();
        let mut bytes = whole.clone();
        for (at, value) in cuts {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        look(bytes);
        look(whole[..cut.index(whole.len())].to_vec());
        // The footer is what leads elsewhere: damage it on purpose.
        let mut footer = whole.clone();
        let near = whole.len() - 1 - cut.index(whole.len().min(30_000));
        footer[near] ^= 0x55;
        look(footer);
    }
}

/// Looks at everything in a file; what comes out does not matter.
fn look(bytes: Vec<u8>) {
    let Ok(packed) = Packed::open(bytes.into()) else { return };
    let _ = packed.sum();
    let _ = packed.hosts();
    for property in Catalogue::of(RELEASES.len() - 1).properties().iter().take(3) {
        let _ = packed.who(property);
    }
    if let Ok(mut rows) = packed.iter() {
        while let Some(row) = rows.next_row() {
            let _ = (row.kind(true), row.members(usize::MAX).count(), row.unnamed(1));
        }
    }
}

#[test]
fn other_software_and_other_files_are_named() {
    let fleet = Fleet::default();
    let nothing = packed(&fleet);
    assert_eq!((nothing.rows(), nothing.hosts().unwrap(), nothing.sum().unwrap().rest.hosts), (0, 0, 0));
    let asked = Stamp { qemu: "7.2".into(), ..stamp() };
    let error = nothing.stamp().answers(&asked).unwrap_err().to_string();
    assert!(
        error.contains("QEMU 10.0") && error.contains("QEMU 7.2") && error.contains("kvm_intel.nested=0"),
        "{error}"
    );
    assert!(
        nothing.stamp().answers(&Stamp { nested: false, ..stamp() }).is_ok(),
        "that was decided when it was packed"
    );
    assert!(matches!(Packed::open(b"ARROW1".to_vec().into()), Err(Error::Damaged(_))));
    assert!(Packed::open(Vec::new().into()).is_err());
    assert!(from_parquet(b"PAR1PAR1".to_vec().into()).is_err());
}

#[test]
fn names_of_columns_are_a_stored_format() {
    let names: Vec<&str> = columns().iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names[..3], ["host_1_0_edx", "host_1_0_ecx", "host_7_0_ebx"]);
    for name in ["supported_80000001_0_ecx", "kvm_msr_10a_lo", "kvm_msr_10a_hi", "host_d_0_eax", "host_40000001_0_eax"]
    {
        assert!(names.contains(&name), "{name}");
    }
    let mut once = names.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), names.len());
}
