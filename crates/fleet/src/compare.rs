//! Two CPUs against each other, as libvirt compares them (`src/cpu/cpu_x86.c:x86Compute`), in both directions.

use crate::definition::{Definition, Ids};

/// What the first of two CPUs is to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Both have the same.
    Identical,
    /// The first has all that the second has, and more.
    Superset,
    /// The second has all that the first has, and more.
    Subset,
    /// Each lacks something of the other, or they exclude each other.
    Incompatible,
}

impl Relation {
    /// A word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identical => "identical",
            Self::Superset => "superset",
            Self::Subset => "subset",
            Self::Incompatible => "incompatible",
        }
    }
}

/// What came out of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// What the first is to the second.
    pub relation: Relation,
    /// Whether a guest with all of the second runs on the first: libvirt's answer of `IDENTICAL` or `SUPERSET`.
    pub second_on_first: bool,
    /// Whether a guest with all of the first runs on the second.
    pub first_on_second: bool,
    /// The ids of the features that the first alone has.
    pub only_first: Vec<&'static str>,
    /// The ids of the features that the second alone has, and needs.
    pub only_second: Vec<&'static str>,
    /// How many features both have.
    pub common: usize,
    /// Why they exclude each other beside features, as sentences.
    pub why: Vec<String>,
}

/// What libvirt answers for a host and a CPU that is to run on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The host has exactly what the CPU has.
    Identical,
    /// The host has more.
    Superset,
    /// The CPU does not run there.
    Incompatible,
}

/// Compares in both directions. What the second merely allows counts as its own where the first has it.
#[must_use]
pub fn compare(first: &Definition, second: &Definition) -> Comparison {
    let mut why = Vec::new();
    let answer = run(first, second, &mut why);
    let back = run(second, first, &mut Vec::new());
    let (one, other) = (first.expanded(), second.expanded());
    let only_first: Vec<_> = one.difference(&other).filter(|id| !second.optional.contains(*id)).copied().collect();
    let only_second = needs(second).difference(&one).copied().collect();
    let relation = match (answer, back) {
        (Answer::Identical, _) => Relation::Identical,
        (Answer::Superset, _) => Relation::Superset,
        (Answer::Incompatible, Answer::Superset) if why.is_empty() => Relation::Subset,
        (Answer::Incompatible, _) => Relation::Incompatible,
    };
    Comparison {
        relation,
        second_on_first: answer != Answer::Incompatible,
        first_on_second: back != Answer::Incompatible,
        common: one.intersection(&other).count(),
        only_first,
        only_second,
        why,
    }
}

/// libvirt's answer alone.
#[must_use]
pub fn answer(host: &Definition, cpu: &Definition) -> Answer {
    run(host, cpu, &mut Vec::new())
}

/// What a host must have: the required features that are not forced, optional or disabled too. What is forbidden is
/// needed all the same if the model has it (`x86Compute`).
fn needs(cpu: &Definition) -> Ids {
    let others = [&cpu.force, &cpu.optional, &cpu.disable];
    cpu.require.iter().filter(|id| others.iter().all(|policy| !policy.contains(*id))).copied().collect()
}

/// Why a CPU is none for a host, whatever its features are: the architecture, then the vendor.
fn foreign(host: &Definition, cpu: &Definition) -> Option<String> {
    let x86 = ["x86_64", "i686", "x86"];
    if let Some(arch) = cpu.arch.as_deref().filter(|arch| !x86.contains(arch)) {
        return Some(format!("another architecture: {arch}"));
    }
    let vendor = cpu.vendor.as_ref().filter(|vendor| host.vendor.as_ref() != Some(vendor))?;
    let own = host.vendor.as_deref().unwrap_or("not known");
    Some(format!("the vendor must be {vendor}, and is {own}"))
}

/// The comparison of two of which the second is none for the first, before features are looked at; `None` if these decide.
#[must_use]
pub fn apart(first: &Definition, second: &Definition) -> Option<Comparison> {
    let why = vec![foreign(first, second)?];
    let (only_first, only_second) = (Vec::new(), Vec::new());
    let (second_on_first, first_on_second) = (false, false);
    let relation = Relation::Incompatible;
    Some(Comparison { relation, second_on_first, first_on_second, only_first, only_second, common: 0, why })
}

fn run(host: &Definition, cpu: &Definition, why: &mut Vec<String>) -> Answer {
    if let Some(foreign) = foreign(host, cpu) {
        why.push(foreign);
        return Answer::Incompatible;
    }
    let has = host.expanded();
    let forbidden: Vec<&str> = cpu.forbid.intersection(&has).copied().collect();
    if !forbidden.is_empty() {
        why.push(format!("forbidden, and there: {}", forbidden.join(" ")));
        return Answer::Incompatible;
    }
    if !needs(cpu).is_subset(&has) {
        return Answer::Incompatible;
    }
    let named = [&cpu.require, &cpu.force, &cpu.optional, &cpu.disable];
    let more = has.iter().any(|id| named.iter().all(|policy| !policy.contains(id)));
    match more {
        true if cpu.guest && cpu.strict => {
            why.push("the guest must not have more (match='strict'), and the host has".to_owned());
            Answer::Incompatible
        }
        true => Answer::Superset,
        false => Answer::Identical,
    }
}
