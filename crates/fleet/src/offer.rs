//! What one host offers to the guests of one QEMU, and what several hosts offer together.

use cpusieve_knowledge::qemu::{self, WORD_COUNT, WORD_ORDER, Word};
use cpusieve_model::{CpuidBit, Place, Register};

/// Feature words, by position in [`WORD_ORDER`].
pub type Words = [u64; WORD_COUNT];

/// VMX: 1.ECX\[5\].
pub(crate) const VMX: Place = Place::Cpuid(CpuidBit::new(1, 0, Register::Ecx, 5));

/// What every one of some hosts offers: bit by bit the smaller of each pair.
///
/// [`Offer::and`] is commutative, associative and idempotent; no bit of the result is missing in either side.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Offer {
    /// The bits that QEMU lets a named model have there (`x86_cpu_get_supported_feature_word`).
    pub words: Words,
    /// The bits that QEMU gives with `-cpu host,migratable=off`: without those that it turns on only if asked by name, or
    /// that it holds back from CPUs of this vendor.
    pub own: Words,
    /// The bits that KVM itself offers: what a VMM passes on that changes nothing.
    pub kvm: Words,
    /// Bits of a physical address, 80000008H.EAX\[7:0\], 36 where the leaf is missing (`host_cpu_phys_bits`).
    pub phys_bits: u8,
}

impl Offer {
    /// What both offer.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            words: and(&self.words, &other.words),
            own: and(&self.own, &other.own),
            kvm: and(&self.kvm, &other.kvm),
            phys_bits: self.phys_bits.min(other.phys_bits),
        }
    }

    /// The state components of XCR0 that a guest can turn on: bit 0 is x87.
    #[must_use]
    pub fn xcr0(&self) -> u64 {
        let word = |register| word(&self.words, Word::Cpuid { leaf: 0xd, subleaf: 0, register });
        word(Register::Edx) << 32 | word(Register::Eax) & u64::from(u32::MAX)
    }

    /// The words of feature MSRs in `release` that are not zero: index and bits. Of a VMX control the bits that may be 1
    /// and may be 0.
    pub fn msrs(&self, release: usize) -> impl Iterator<Item = (u32, u64)> {
        WORD_ORDER.into_iter().zip(self.words).enumerate().filter_map(move |(position, (word, value))| match word {
            Word::Msr { index } if value != 0 && qemu::has_word(release, position) => Some((index, value)),
            _ => None,
        })
    }
}

/// Bit by bit.
#[must_use]
pub fn and(one: &Words, other: &Words) -> Words {
    std::array::from_fn(|at| one[at] & other[at])
}

/// One word; zero if no release has it.
fn word(words: &Words, word: Word) -> u64 {
    qemu::word_position(word).and_then(|at| words.get(at)).copied().unwrap_or(0)
}

/// The largest part of some words that QEMU leaves as it is: without features whose parents are missing
/// (`target/i386/cpu.c:feature_dependencies`), and without those whose state cannot be enabled in XCR0.
///
/// What is cleared depends on nothing but missing bits, so closing commutes with [`Offer::and`].
#[must_use]
pub fn closed(mut words: Words, release: usize) -> Words {
    let at = |row: (Word, u64)| qemu::word_position(row.0).map(|position| (position, row.1));
    let rows: Vec<_> = qemu::dependencies(release)
        .filter_map(|row| Some((at(row.from)?, at(row.to)?)))
        .chain(components(release))
        .collect();
    loop {
        let before = words;
        for &((from, parent), (to, child)) in &rows {
            if words[from] & parent == 0 {
                words[to] &= !child;
            }
        }
        if words == before {
            return words;
        }
    }
}

/// A word's position in [`WORD_ORDER`], and bits of it.
type Bits = (usize, u64);

/// The state components above x87 and SSE, and the features that are nothing without them.
fn components(release: usize) -> impl Iterator<Item = (Bits, Bits)> {
    let areas = qemu::ext_save_areas(release).filter(|area| !area.supervisor && (2..64).contains(&area.bit));
    areas.flat_map(|area| {
        let register = if area.bit < 32 { Register::Eax } else { Register::Edx };
        let from = qemu::word_position(Word::Cpuid { leaf: 0xd, subleaf: 0, register });
        let from = from.map(|position| (position, 1 << (area.bit % 32)));
        area.features.iter().filter_map(move |&place| Some((from?, bit(place)?)))
    })
}

/// Where a bit stands among the words; `None` if it is in none of any release.
pub(crate) fn bit(place: Place) -> Option<Bits> {
    let bit = match place {
        Place::Cpuid(bit) => bit.bit,
        Place::Msr(bit) => bit.bit,
        Place::Linux(_) => return None,
    };
    Some((qemu::word_position(Word::of(place)?)?, 1 << bit))
}
