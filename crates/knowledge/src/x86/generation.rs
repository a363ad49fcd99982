//! CPU generations, and which of them a bare `flags` line comes from.
//!
//! Each generation says of every telling flag whether its CPUs have it, may have it, or lack it. A line is judged by
//! how probable it is under each generation, flag by flag, as if flags were independent; since they come in groups,
//! the sum is damped. The result is a probability among the generations known here, not a proof.

use cpusieve_model::Vendor;

use super::{GENERATIONS, TELLING};

/// CPUs that flags do not tell apart, or hardly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Generation {
    /// The id: `alderlake`.
    pub id: &'static str,
    /// The name for people: `Alder Lake or Raptor Lake (hybrid)`.
    pub name: &'static str,
    /// Who makes them.
    pub vendor: Vendor,
    /// When the first was sold.
    pub year: u16,
    /// Whether chips mix core types.
    pub hybrid: bool,
    /// The members, by family and model.
    pub members: &'static [Member],
    /// What is said of each flag of [`TELLING`], in its order.
    pub traits: &'static [Trait],
}

/// What family and model tell apart within a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The name: `Raptor Lake`.
    pub name: &'static str,
    /// The display family.
    pub family: u32,
    /// Ranges of display models, ends included.
    pub models: &'static [(u32, u32)],
    /// The range of steppings, ends included.
    pub steppings: (u32, u32),
}

/// What a generation says of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trait {
    /// Every CPU of it shows the flag, on a bare-metal kernel that knows the flag.
    Has,
    /// Some show it: parts, firmware and microcode differ.
    May,
    /// None shows it.
    Lacks,
}

/// A flag that generations are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Telling {
    /// The name that Linux prints.
    pub flag: &'static str,
    /// Whether KVM and QEMU keep it from guests whatever the CPU, or do so by default.
    pub host_only: bool,
    /// The first kernel that prints it, if that is not one of the oldest known.
    pub since: Option<(u32, u32)>,
}

impl Generation {
    /// The telling flags that every CPU of the generation shows.
    pub fn has(&self) -> impl Iterator<Item = &'static str> {
        self.flags(Trait::Has)
    }

    /// The telling flags that no CPU of the generation shows.
    pub fn lacks(&self) -> impl Iterator<Item = &'static str> {
        self.flags(Trait::Lacks)
    }

    fn flags(&self, says: Trait) -> impl Iterator<Item = &'static str> {
        TELLING.iter().zip(self.traits).filter(move |(_, found)| **found == says).map(|(telling, _)| telling.flag)
    }

    /// The member with this family, model and stepping. Without a stepping, the first that family and model allow.
    #[must_use]
    pub fn member(&self, family: u32, model: u32, stepping: Option<u32>) -> Option<&'static Member> {
        self.members.iter().find(|member| {
            let within = |value: u32, range: &(u32, u32)| range.0 <= value && value <= range.1;
            member.family == family
                && member.models.iter().any(|range| within(model, range))
                && stepping.is_none_or(|stepping| within(stepping, &member.steppings))
        })
    }
}

/// What else is known of the machine whose flags are judged. Nothing has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The vendor that leaf 0 or `vendor_id` names.
    pub vendor: Option<Vendor>,
    /// Display family and model.
    pub signature: Option<(u32, u32)>,
    /// The stepping; Skylake-SP, Cascade Lake and Cooper Lake share a model.
    pub stepping: Option<u32>,
    /// The kernel that printed the line, major and minor.
    pub kernel: Option<(u32, u32)>,
}

/// One possible origin of a `flags` line.
#[derive(Clone, Debug, PartialEq)]
pub struct Guess {
    /// The generation.
    pub generation: &'static Generation,
    /// The probability among all known generations, 0 to 1.
    pub score: f64,
    /// What decided, the weightiest first: for it, and against it where that is all there is.
    pub because: Vec<Reason>,
}

/// One thing that speaks for or against a guess, compared with the other likely generations.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// Family and model are those of this member.
    Signature(&'static Member),
    /// A flag is there, or is not.
    Flag {
        /// The flag.
        flag: &'static str,
        /// Whether the line has it.
        present: bool,
        /// How much it speaks for the guess, in nats of likelihood; negative: against it.
        weight: f64,
    },
}

/// How probable it is that a flag of the CPU is shown on bare metal. The rest is firmware, boot parameters and fused
/// parts.
const SHOWN_ON_HOST: f64 = 0.96;
/// The same in a guest, where KVM, QEMU or the user take flags away.
const SHOWN_IN_GUEST: f64 = 0.85;
/// How probable it is that a flag is shown which the CPU lacks: the tables may be wrong, or a hypervisor invents it.
const INVENTED: f64 = 0.01;
/// How probable a flag is that may be younger than a kernel that nobody named.
const MAYBE_TOO_YOUNG: f64 = 0.5;
/// Flags come in groups, so that their evidence counts by this factor only.
const DAMPING: f64 = 0.5;
/// What family and model weigh, in nats: on bare metal they decide, a hypervisor may invent them.
const SIGNATURE_ON_HOST: f64 = 500.0;
/// See [`SIGNATURE_ON_HOST`].
const SIGNATURE_IN_GUEST: f64 = 6.0;
/// Guesses below this probability are not told.
const WORTH_TELLING: f64 = 0.01;
/// No line with fewer telling flags is judged.
const FEWEST_FLAGS: usize = 3;
/// How many reasons are told.
const REASONS: usize = 8;

/// What a line shows of the telling flags, and what that is worth.
struct Line {
    present: Vec<bool>,
    guest: bool,
    /// By telling flag, the logarithm of the probability of what the line shows, if a generation [`Trait::Has`],
    /// [`Trait::May`] have or [`Trait::Lacks`] it; 0 if it says nothing.
    weights: Vec<[f64; 3]>,
}

impl Line {
    fn read<'a>(flags: impl IntoIterator<Item = &'a str>, kernel: Option<(u32, u32)>) -> Self {
        let mut sorted: Vec<&str> = flags.into_iter().collect();
        sorted.sort_unstable();
        let shows = |flag: &str| sorted.binary_search(&flag).is_ok();
        let guest = shows("hypervisor");
        let present: Vec<bool> = TELLING.iter().map(|telling| shows(telling.flag)).collect();
        let shown = TELLING.iter().zip(&present).filter(|(_, present)| **present);
        // The kernel is at least as young as the youngest flag that the line shows.
        let youngest = shown.filter_map(|(telling, _)| telling.since).max().unwrap_or((0, 0));
        let weigh = |(telling, present): (&Telling, &bool)| weigh(telling, *present, guest, kernel, youngest);
        let weights = TELLING.iter().zip(&present).map(weigh).collect();
        Self { present, guest, weights }
    }

    fn each(&self, generation: &Generation) -> impl Iterator<Item = f64> {
        self.weights.iter().zip(generation.traits).map(|(weights, says)| weights[*says as usize] * DAMPING)
    }
}

/// What one flag's presence or absence is worth, by [`Trait`].
fn weigh(telling: &Telling, present: bool, guest: bool, kernel: Option<(u32, u32)>, youngest: (u32, u32)) -> [f64; 3] {
    if guest && telling.host_only {
        return [0.0; 3];
    }
    let since = telling.since.unwrap_or((0, 0));
    let shown = match kernel {
        Some(kernel) if since > kernel && !present => return [0.0; 3],
        None if since > youngest => MAYBE_TOO_YOUNG,
        _ if guest => SHOWN_IN_GUEST,
        _ => SHOWN_ON_HOST,
    };
    [shown, shown / 2.0, INVENTED].map(|probability: f64| if present { probability } else { 1.0 - probability }.ln())
}

/// The generations that a `flags` line may come from, the likeliest first; of equals, the first in [`GENERATIONS`].
///
/// Empty if the line has fewer than three flags that tell anything. At most those with one per cent or more are given.
#[must_use]
pub fn guess<'a>(flags: impl IntoIterator<Item = &'a str>, known: Known) -> Vec<Guess> {
    let line = Line::read(flags, known.kernel);
    if line.present.iter().filter(|present| **present).count() < FEWEST_FLAGS {
        return Vec::new();
    }
    let signed = |generation: &Generation| {
        let (family, model) = known.signature?;
        known.vendor.is_none_or(|vendor| same_maker(vendor, generation.vendor)).then_some(())?;
        generation.member(family, model, known.stepping)
    };
    let mut scored: Vec<(f64, &'static Generation)> = GENERATIONS
        .iter()
        .filter(|generation| known.vendor.is_none_or(|vendor| same_maker(vendor, generation.vendor)))
        .map(|generation| {
            let bonus = match (signed(generation), line.guest) {
                (None, _) => 0.0,
                (Some(_), false) => SIGNATURE_ON_HOST,
                (Some(_), true) => SIGNATURE_IN_GUEST,
            };
            (line.each(generation).sum::<f64>() + bonus, generation)
        })
        .collect();
    let best = scored.iter().map(|(score, _)| *score).fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scored.iter().map(|(score, _)| (score - best).exp()).sum();
    for (score, _) in &mut scored {
        *score = (*score - best).exp() / sum;
    }
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    let told = scored.iter().filter(|(score, _)| *score >= WORTH_TELLING);
    told.map(|&(score, generation)| Guess {
        generation,
        score,
        because: reasons(&line, generation, &scored, signed(generation)),
    })
    .collect()
}

/// How many of the other likely generations a guess is compared with.
const RIVALS: usize = 3;

fn reasons(
    line: &Line,
    generation: &'static Generation,
    scored: &[(f64, &'static Generation)],
    signed: Option<&'static Member>,
) -> Vec<Reason> {
    let rivals: Vec<Vec<f64>> = scored
        .iter()
        .filter(|(_, other)| other.id != generation.id)
        .take(RIVALS)
        .map(|(_, other)| line.each(other).collect())
        .collect();
    let mut weighed: Vec<(f64, &'static str, bool)> = Vec::new();
    for (index, (own, telling)) in line.each(generation).zip(TELLING).enumerate() {
        let others = rivals.iter().filter_map(|rival| rival.get(index));
        let weight = own - others.sum::<f64>() / rivals.len().max(1) as f64;
        let present = line.present.get(index).copied().unwrap_or_default();
        if weight.abs() > 0.1 {
            weighed.push((weight, telling.flag, present));
        }
    }
    weighed.sort_by(|a, b| b.0.total_cmp(&a.0));
    let flags = weighed.into_iter().take(REASONS);
    let flags = flags.map(|(weight, flag, present)| Reason::Flag { flag, present, weight });
    signed.map(Reason::Signature).into_iter().chain(flags).collect()
}

/// Centaur and Zhaoxin sell the same CPUs under two vendor strings.
fn same_maker(a: Vendor, b: Vendor) -> bool {
    let fold = |vendor| if vendor == Vendor::Centaur { Vendor::Zhaoxin } else { vendor };
    fold(a) == fold(b)
}

/// The generation with this id.
#[must_use]
pub fn generation(id: &str) -> Option<&'static Generation> {
    GENERATIONS.iter().find(|generation| generation.id == id)
}

/// The generations and members with this vendor, family and model; several only if a stepping would decide and none was
/// given.
#[must_use]
pub fn by_signature(
    vendor: Vendor,
    family: u32,
    model: u32,
    stepping: Option<u32>,
) -> Vec<(&'static Generation, &'static Member)> {
    let makers = GENERATIONS.iter().filter(|generation| same_maker(vendor, generation.vendor));
    makers.filter_map(|generation| Some((generation, generation.member(family, model, stepping)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_generations_share_a_signature() {
        for vendor in [Vendor::Intel, Vendor::Amd, Vendor::Hygon, Vendor::Zhaoxin] {
            for (family, model) in (0..=27).flat_map(|family| (0..=255).map(move |model| (family, model))) {
                for stepping in 0..16 {
                    let found = by_signature(vendor, family, model, Some(stepping));
                    assert!(found.len() <= 1, "{vendor:?} {family} {model:#x} {stepping}: {found:?}");
                }
            }
        }
    }

    #[test]
    fn signatures_find_members() {
        let name = |vendor, family, model, stepping| {
            let found = by_signature(vendor, family, model, stepping);
            found.iter().map(|(generation, member)| (generation.id, member.name)).collect::<Vec<_>>()
        };
        assert_eq!(name(Vendor::Intel, 6, 0xb7, None), [("alderlake", "Raptor Lake")]);
        assert_eq!(name(Vendor::Intel, 6, 0x55, Some(7)), [("cascadelake", "Cascade Lake")]);
        assert_eq!(name(Vendor::Intel, 6, 0x55, None).len(), 3);
        assert_eq!(name(Vendor::Amd, 0x19, 0x11, None), [("zen4", "Zen 4")]);
        assert_eq!(name(Vendor::Amd, 6, 0xb7, None), []);
        assert_eq!(name(Vendor::Centaur, 7, 0x5b, None), [("yongfeng", "YongFeng")]);
    }

    #[test]
    fn traits_cover_the_telling_flags() {
        for generation in GENERATIONS {
            assert_eq!(generation.traits.len(), TELLING.len(), "{}", generation.id);
        }
    }

    #[test]
    fn nothing_is_guessed_from_nothing() {
        assert_eq!(guess([], Known::default()), []);
        assert_eq!(guess(["fpu", "vme", "avx2", "nonsense"], Known::default()), []);
    }

    #[test]
    fn a_known_signature_decides_on_bare_metal() {
        let flags = ["pni", "ssse3", "avx", "avx2", "svm", "sse4a"];
        let known = Known { vendor: Some(Vendor::Amd), signature: Some((0x17, 0x31)), ..Known::default() };
        let best = guess(flags, known).into_iter().next().unwrap();
        assert_eq!(best.generation.id, "zen2");
        assert!(matches!(best.because[..], [Reason::Signature(member), ..] if member.name == "Zen 2"));
    }
}
