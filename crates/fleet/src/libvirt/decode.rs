//! A name for a set of features: a model, and what is to be added to it and taken from it.

use cpusieve_knowledge::libvirt::{self, FEATURES, Model, Set};

use super::cpu::{Cpu, Policy};
use super::data::Data;

/// A model that a hypervisor has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Its name.
    pub name: String,
    /// The features of the hypervisor's model that it cannot give now, by libvirt's names: they are disabled.
    pub blockers: Vec<String>,
}

/// What decides about a name, beside the features.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wish<'a> {
    /// The models that may be named; `None` for all.
    pub(super) allowed: Option<&'a [Allowed]>,
    /// The models that the inputs named.
    pub(super) preferred: &'a [&'a str],
}

/// A model on trial.
struct Candidate {
    model: &'static Model,
    require: Set,
    disable: Set,
}

impl Candidate {
    /// `x86DataToCPU`: for guests, what was removed from the model is turned off by name.
    fn of(model: &'static Model, data: &Data, blockers: &[String], guest: bool, release: usize) -> Self {
        let require = data.features.minus(&model.data);
        let mut disable = model.data.minus(&data.features);
        let blocked: Set = blockers.iter().filter_map(|name| libvirt::feature(release, name)).collect();
        disable = disable.union(&blocked.minus(&require));
        if guest {
            disable = disable.union(&model.removed.minus(&require));
        }
        Self { model, require, disable }
    }

    /// What a name costs, and what of that is for disabled features (`virCPUx86CompareCandidateFeatureList`).
    ///
    /// The function counts features in their order, the disabled last, up to the number of those that it has not yet found
    /// to be disabled: so it meets every other disabled feature, and the rest costs one each like an enabled one.
    fn cost(&self, guest: bool) -> (usize, usize) {
        const BASE_PENALTY: usize = 2;
        let all = self.require.len() + self.disable.len();
        if !guest {
            return (all, 0);
        }
        let met = self.disable.len().div_ceil(2);
        let penalties: usize = (0..met).map(|number| BASE_PENALTY + number).sum();
        (all - met + penalties, penalties)
    }

    /// Whether it stands for the CPU of a signature.
    fn stands_for(&self, data: &Data) -> bool {
        let (family, model, stepping) = data.family_model_stepping();
        self.model.stands_for(family, model, stepping)
    }
}

/// The definition that libvirt makes of what a CPU shows (`x86Decode`): a host's, or a guest's from the models that a
/// hypervisor has. `None` if no model fits.
#[must_use]
pub fn decode(data: &Data, guest: bool, allowed: Option<&[Allowed]>, release: usize) -> Option<Cpu> {
    named(data, guest, Wish { allowed, preferred: &[] }, release)
}

/// The same with models that are preferred.
pub(super) fn named(data: &Data, guest: bool, wish: Wish<'_>, release: usize) -> Option<Cpu> {
    let data = data.without_broken_tsx(release);
    let mut best: Option<Candidate> = None;
    // The newest models stand last in the map, and are looked at first.
    for model in libvirt::models(release).iter().rev() {
        let known = wish.allowed.map(|allowed| allowed.iter().find(|allowed| allowed.name == model.name()));
        let blockers = match known {
            Some(None) => continue,
            Some(Some(allowed)) => allowed.blockers.as_slice(),
            None => &[],
        };
        if data.vendor.is_some() && model.vendor().is_some() && data.vendor != model.vendor() {
            continue;
        }
        let candidate = Candidate::of(model, &data, blockers, guest, release);
        match choice(best.as_ref(), &candidate, &data, guest, wish.preferred) {
            Choice::Current => {}
            Choice::Candidate => best = Some(candidate),
            Choice::Last => {
                best = Some(candidate);
                break;
            }
        }
    }
    let Candidate { model, require, disable } = best?;
    let mut cpu = Cpu {
        guest,
        vendor: data.vendor.map(|vendor| vendor.name.to_owned()),
        model: Some(model.name().to_owned()),
        ..Cpu::default()
    };
    cpu.put(&require, Policy::Require);
    cpu.put(&disable, Policy::Disable);
    Some(cpu)
}

/// Which of two models is the better name.
enum Choice {
    Current,
    Candidate,
    /// The candidate, and nothing else is looked at.
    Last,
}

/// `x86DecodeUseCandidate`
fn choice(current: Option<&Candidate>, candidate: &Candidate, data: &Data, guest: bool, preferred: &[&str]) -> Choice {
    let may_be_named = if guest { candidate.model.guest } else { candidate.model.host };
    // A host's definition cannot say that something of the model is missing.
    if !may_be_named || !guest && !candidate.disable.is_empty() {
        return Choice::Current;
    }
    let is_preferred = preferred.contains(&candidate.model.name());
    if is_preferred && preferred.len() == 1 {
        return Choice::Last;
    }
    let Some(current) = current else { return Choice::Candidate };
    if data.signature != 0 {
        match (current.stands_for(data), candidate.stands_for(data)) {
            (true, false) => return Choice::Current,
            (false, true) => return Choice::Candidate,
            _ => {}
        }
    }
    let ((now, of_disabled_now), (new, of_disabled)) = (current.cost(guest), candidate.cost(guest));
    let is_cheaper = new < now || new == now && of_disabled < of_disabled_now;
    if is_cheaper || is_preferred && of_disabled < of_disabled_now { Choice::Candidate } else { Choice::Current }
}

/// Takes out the explicit features that libvirt does not migrate (`x86Decode` with `migratable`); those of the model stay.
pub(super) fn without_blockers(cpu: &mut Cpu) {
    let blocks = |name: &str| FEATURES.iter().any(|feature| !feature.migratable && feature.name() == name);
    cpu.features.retain(|name, _| !blocks(name));
}
