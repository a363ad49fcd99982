//! What is said of one feature beside a message: its bit, its level, the CPUs that have it, its names.

use cpusieve_knowledge::messages::{self, At, Brand, Class, Spot};
use cpusieve_knowledge::qemu;
use cpusieve_knowledge::x86::{self, Feature, GENERATIONS, Generation, System, TELLING, Trait};
use cpusieve_model::{CpuidBit, MsrBit, Place, Register, Vendor};

use crate::models::level;

/// A feature that a message is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The feature; `None` if nobody knows the name or the bit.
    pub feature: Option<&'static Feature>,
    /// The id, else the name as the message has it; empty for a bit without a name.
    pub name: String,
    /// Where it is.
    pub spot: Option<Spot>,
    /// What it is, in a few words.
    pub title: String,
    /// `x86-64-v2`, and the first CPUs that have it; empty if that is not known.
    pub since: String,
    /// Its names elsewhere: `QEMU sse4.2, libvirt sse4.2, Intel SSE4.2`.
    pub names: String,
    /// Who took it on the given host, by the sieves; `None` without a host.
    pub on_host: Option<(String, String)>,
}

/// The components of XCR0, by bit, and the feature whose instructions need them.
const XCR0: [(u8, &str, &str); 13] = [
    (0, "x87", "xsave"),
    (1, "SSE", "xsave"),
    (2, "YMM, upper halves of AVX", "avx"),
    (3, "BNDREGS of MPX", "mpx"),
    (4, "BNDCSR of MPX", "mpx"),
    (5, "opmask of AVX-512", "avx512f"),
    (6, "ZMM_Hi256 of AVX-512", "avx512f"),
    (7, "Hi16_ZMM of AVX-512", "avx512f"),
    (9, "PKRU of protection keys", "pku"),
    (11, "CET_U", "shstk"),
    (12, "CET_S", "shstk"),
    (17, "XTILECFG of AMX", "amx_tile"),
    (18, "XTILEDATA of AMX", "amx_tile"),
];

impl Subject {
    /// A feature that is known.
    pub(super) fn of(feature: &'static Feature) -> Self {
        Self {
            feature: Some(feature),
            name: feature.id.to_owned(),
            spot: feature.place().and_then(spot),
            title: feature.title.to_owned(),
            since: since(feature),
            names: names(feature),
            on_host: None,
        }
    }

    /// A name that nobody knows.
    pub(super) fn unknown(name: &str) -> Self {
        let title = "a name that no system known here has".to_owned();
        Self {
            feature: None,
            name: name.to_owned(),
            spot: None,
            title,
            since: String::new(),
            names: String::new(),
            on_host: None,
        }
    }

    /// A bit without a name.
    pub(super) fn bit(spot: Spot) -> Self {
        let title = match spot {
            Spot::Xcr0(bit) => {
                let component =
                    XCR0.iter().find(|(known, ..)| *known == bit).map_or("a component", |(_, name, _)| name);
                format!("state in XCR0: {component}")
            }
            _ => "a bit without a name".to_owned(),
        };
        Self {
            feature: None,
            name: String::new(),
            spot: Some(spot),
            title,
            since: String::new(),
            names: String::new(),
            on_host: None,
        }
    }

    /// The kind of the feature; a component of XCR0 goes with the instructions that need it.
    pub(super) fn class(&self) -> Option<&'static Class> {
        match (self.feature, self.spot) {
            (Some(feature), _) => messages::class(feature),
            (None, Some(Spot::Xcr0(bit))) => {
                let user = XCR0.iter().find(|(known, ..)| *known == bit)?.2;
                messages::class(x86::feature(user)?)
            }
            _ => None,
        }
    }
}

/// A place as messages have it.
pub(super) fn spot(place: Place) -> Option<Spot> {
    match place {
        Place::Cpuid(CpuidBit { leaf, subleaf, register, bit }) => {
            Some(Spot::Cpuid { leaf, subleaf, register, bits: Some((bit, bit)) })
        }
        Place::Msr(MsrBit { index, bit }) => Some(Spot::Msr { index, bits: Some((bit, bit)) }),
        Place::Linux(_) => None,
    }
}

/// The level of x86-64 that a name means: `x86-64-v3`, `X86_V2`.
pub(super) fn level(name: &str) -> Option<level::Level> {
    match x86::fold(name).trim_start_matches("x8664").trim_start_matches("x86") {
        "v2" => Some(level::Level::V2),
        "v3" => Some(level::Level::V3),
        "v4" => Some(level::Level::V4),
        _ => None,
    }
}

/// The features that a name in a message means: the first, and where Linux makes that one up, the bit of the same name.
pub(super) fn named(name: &str) -> Vec<&'static Feature> {
    let name = name.trim_start_matches(['+', '-']);
    let mut found = x86::resolve(name);
    let made_up = |feature: &&'static Feature| feature.place().and_then(spot).is_none();
    let keep = if found.first().is_some_and(made_up) { 2 } else { 1 };
    if keep == 2 && found.get(1).is_some_and(made_up) {
        found.truncate(1);
    }
    found.truncate(keep);
    found
}

/// The feature at a place, preferring the one with this name where several leaves share it.
pub(super) fn at(
    leaf: Option<u32>,
    subleaf: Option<u32>,
    register: Register,
    bit: Option<u8>,
    name: Option<&str>,
) -> Option<(CpuidBit, Option<&'static Feature>)> {
    let fits = |place: &CpuidBit| {
        leaf.is_none_or(|leaf| place.leaf == leaf)
            && subleaf.is_none_or(|subleaf| place.subleaf == subleaf)
            && place.register == register
            && bit.is_none_or(|bit| place.bit == bit)
    };
    if let Some(name) = name {
        let by_qemu = qemu::by_name(qemu::canonical(name)).filter_map(|known| known.place.cpuid()).find(fits);
        let places =
            x86::resolve(name).into_iter().flat_map(|feature| feature.places).filter_map(|place| place.cpuid());
        if let Some(place) = by_qemu.or_else(|| places.into_iter().find(fits)) {
            return Some((place, x86::by_place(Place::Cpuid(place))));
        }
    }
    let (leaf, bit) = (leaf?, bit.filter(|bit| *bit < 32)?);
    let subleaf = subleaf.unwrap_or(u32::from(leaf == 7 && register == Register::Eax || leaf == 0xd && name.is_some()));
    let place = CpuidBit { leaf, subleaf, register, bit };
    Some((place, x86::by_place(Place::Cpuid(place))))
}

/// `x86-64-v2; Intel since Nehalem (2008), AMD since Bulldozer (2011)`
fn since(feature: &Feature) -> String {
    let mut parts: Vec<String> = level::that_adds(feature.id).map(|level| level.to_string()).into_iter().collect();
    let first = |vendor: Vendor, says: Trait| {
        let index = TELLING.iter().position(|telling| telling.flag == feature.id)?;
        let has = |one: &&Generation| one.vendor == vendor && one.traits.get(index) == Some(&says);
        GENERATIONS.iter().filter(has).min_by_key(|one| one.year)
    };
    for (vendor, name) in [(Vendor::Intel, "Intel"), (Vendor::Amd, "AMD")] {
        let word = |generation: &Generation| {
            // `(server)` tells apart; longer additions only list products.
            let short = match generation.name.split_once(" (") {
                Some((short, more)) if more.len() > 8 => short,
                _ => generation.name,
            };
            format!("{short} {}", generation.year)
        };
        if let Some(generation) = first(vendor, Trait::Has) {
            parts.push(format!("{name} since {}", word(generation)));
        } else if let Some(generation) = first(vendor, Trait::May) {
            parts.push(format!("some {name} since {}", word(generation)));
        } else if TELLING.iter().any(|telling| telling.flag == feature.id) {
            parts.push(format!("no {name}"));
        }
    }
    parts.join(", ")
}

fn names(feature: &Feature) -> String {
    let mut parts = Vec::new();
    let place = feature.place();
    if let Some(name) = place.and_then(qemu::bit).and_then(|bit| bit.name) {
        parts.push(format!("QEMU {name}"));
    }
    for (system, label) in [(System::Libvirt, "libvirt"), (System::Intel, "Intel"), (System::Amd, "AMD")] {
        if let Some(name) = feature.names_in(system).next() {
            parts.push(format!("{label} {name}"));
        }
    }
    parts.join(", ")
}

/// QEMU's name of a feature for `-cpu`.
pub(super) fn qemu_name(feature: &Feature) -> Option<&'static str> {
    feature.places.iter().find_map(|&place| qemu::bit(place)?.name)
}

/// Whether CPUs of a brand have a feature; `None` if that is not known or differs between them.
pub(super) fn brand_has(brand: &Brand, feature: &Feature) -> Option<bool> {
    if level::that_adds(feature.id) == Some(level::Level::V1) {
        return Some(true);
    }
    let index = TELLING.iter().position(|telling| telling.flag == feature.id)?;
    let generation = GENERATIONS.iter().find(|generation| generation.id == brand.generation)?;
    match generation.traits.get(index)? {
        Trait::Has => Some(true),
        Trait::May => None,
        Trait::Lacks => Some(false),
    }
}

/// Whether virtually every host has a feature, so that a program that misses it is most likely in a VM that hides it:
/// all of x86-64-v2, and AVX.
pub(super) fn everywhere(feature: &Feature) -> bool {
    feature.id == "avx"
        || matches!(level::that_adds(feature.id), Some(level::Level::V1 | level::Level::V2))
        || matches!(feature.id, "nx" | "pae" | "aes" | "pclmulqdq" | "3dnowprefetch")
}

/// The stage that a program's complaint points to.
pub(super) fn stage_of_program(features: &[&'static Feature], brand: Option<&Brand>, in_vm: bool) -> At {
    let by_brand: Vec<Option<bool>> =
        features.iter().map(|feature| brand.and_then(|brand| brand_has(brand, feature))).collect();
    if by_brand.contains(&Some(false)) {
        At::Silicon
    } else if features.is_empty()
        || in_vm
        || (!by_brand.is_empty() && by_brand.iter().all(|has| *has == Some(true)))
        || (!features.is_empty() && features.iter().all(|feature| everywhere(feature)))
    {
        At::Management
    } else {
        At::Silicon
    }
}
