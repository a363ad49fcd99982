//! From a guest's definition to the one that it is started with, on a host and a hypervisor.

use cpusieve_knowledge::libvirt::{self, Set};

use super::cpu::{Cpu, Match, Mode, Policy, Unknown};
use super::data::Data;
use super::decode::{Allowed, decode, without_blockers};

/// Why a guest cannot have its definition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// A name that libvirt does not know.
    #[error(transparent)]
    Unknown(#[from] Unknown),
    /// There is no model.
    #[error("the definition names no CPU model")]
    NoModel,
    /// The hypervisor lacks the model, and no other may stand for it.
    #[error("the hypervisor has no CPU model {0}, and the definition forbids another")]
    NotAllowed(String),
    /// The hypervisor has no model that could stand for it.
    #[error("no CPU model of the hypervisor can stand for {0}")]
    NoName(String),
}

/// A host's definition without the features that libvirt does not migrate (`virCPUx86CopyMigratable`).
#[must_use]
pub fn migratable(host: &Cpu) -> Cpu {
    let mut host = host.clone();
    without_blockers(&mut host);
    host
}

/// A guest's definition on a host (`virCPUUpdate`): what is optional becomes required or disabled, a host-model and one
/// that is to be matched as a minimum become what the host is, and what was removed from the model is turned off by name.
///
/// # Errors
/// A name that the release does not know, or no model.
pub fn update(guest: &Cpu, host: &Cpu, release: usize) -> Result<Cpu, UpdateError> {
    let mut guest = guest.clone();
    if matches!(guest.mode, Mode::HostPassthrough | Mode::Maximum) {
        return Ok(guest);
    }
    let becomes_the_host = guest.mode == Mode::HostModel || guest.matching == Match::Minimum;
    let has = host.expanded(release);
    for (name, policy) in guest.features.iter_mut().filter(|(_, policy)| **policy == Policy::Optional) {
        let feature = libvirt::feature(release, name);
        let has = has.clone()?;
        *policy = match feature {
            Some(feature) if has.contains(feature) => Policy::Require,
            Some(_) => Policy::Disable,
            None => return Err(unknown(name, release).into()),
        };
    }
    if becomes_the_host {
        has?;
        let mut features = host.features.clone();
        features.append(&mut guest.features);
        guest.features = features;
        guest.model.clone_from(&host.model);
        if guest.mode == Mode::HostModel {
            guest.vendor.clone_from(&host.vendor);
        }
        (guest.mode, guest.matching) = (Mode::Custom, Match::Exact);
    }
    let model = guest.model(release)?.ok_or(UpdateError::NoModel)?;
    disable_if_missing(&mut guest, &model.removed);
    Ok(guest)
}

fn unknown(name: &str, release: usize) -> Unknown {
    Unknown { model: false, name: name.to_owned(), release: release_label(release), hint: None }
}

fn release_label(release: usize) -> &'static str {
    libvirt::RELEASES.get(release).map_or("", |known| known.label)
}

/// `virCPUx86DisableRemovedFeatures`
fn disable_if_missing(cpu: &mut Cpu, features: &Set) {
    for name in features.names() {
        cpu.features.entry(name.to_owned()).or_insert(Policy::Disable);
    }
}

/// A guest's definition by a model that the hypervisor has (`virCPUTranslate`); `None` for all models.
///
/// # Errors
/// A name that the release does not know, or no model that may stand for the guest's.
pub fn translate(cpu: &Cpu, allowed: Option<&[Allowed]>, release: usize) -> Result<Cpu, UpdateError> {
    let name = cpu.model.clone().unwrap_or_default();
    let is_allowed = allowed.is_none_or(|allowed| allowed.iter().any(|model| model.name == name));
    if cpu.mode != Mode::Custom || is_allowed {
        return Ok(cpu.clone());
    }
    if cpu.no_fallback {
        return Err(UpdateError::NotAllowed(name));
    }
    let model = cpu.model(release)?;
    let first = model.and_then(|model| model.signatures().first());
    let data = Data {
        features: cpu.expanded(release)?,
        vendor: model.and_then(|model| model.vendor()),
        signature: first.map_or(0, |first| {
            let stepping = first.steppings.trailing_zeros();
            Data::signature_of(first.family.into(), first.model.into(), stepping)
        }),
    };
    let mut found = decode(&data, cpu.guest, allowed, release).ok_or(UpdateError::NoName(name))?;
    found.features.extend(cpu.features.iter().map(|(name, policy)| (name.clone(), *policy)));
    Ok(Cpu { model: found.model, features: found.features, ..cpu.clone() })
}

/// The definition with every feature by name, those of the model too (`virCPUx86ExpandFeatures`, `virsh cpu-baseline
/// --features`).
///
/// # Errors
/// A model that the release does not know, or no model.
pub fn expand_features(cpu: &Cpu, release: usize) -> Result<Cpu, UpdateError> {
    let model = cpu.model(release)?.ok_or(UpdateError::NoModel)?;
    let mut expanded = Cpu { features: std::collections::BTreeMap::new(), ..cpu.clone() };
    expanded.put(&model.data, Policy::Require);
    let kept = cpu.features.iter().filter(|(_, policy)| matches!(policy, Policy::Require | Policy::Disable));
    expanded.features.extend(kept.map(|(name, policy)| (name.clone(), *policy)));
    if cpu.guest {
        disable_if_missing(&mut expanded, &model.removed);
    }
    Ok(expanded)
}

/// A running guest's definition, made true by what the hypervisor says that it turned on, and off against the definition's
/// will (`virCPUx86UpdateLive` without `check='full'`).
///
/// # Errors
/// A name that the release does not know, or no model.
pub fn update_live(cpu: &Cpu, enabled: &Set, disabled: &Set, release: usize) -> Result<Cpu, UpdateError> {
    let has = cpu.expanded(release)?;
    let model = cpu.model(release)?.ok_or(UpdateError::NoModel)?;
    let mut live = cpu.clone();
    let own = cpu.with_policy(Policy::Disable, release)?;
    let passes = matches!(cpu.mode, Mode::HostPassthrough | Mode::Maximum);
    let mut put = |features: Set, policy| {
        live.features.extend(features.names().map(|name| (name.to_owned(), policy)));
    };
    // What is not the definition's is expected to be off, unless the host is passed on.
    let unexpected = if passes { enabled.intersection(&own).minus(&has) } else { enabled.minus(&has) };
    put(unexpected, Policy::Require);
    put(disabled.union(&has.minus(enabled)), Policy::Disable);
    disable_if_missing(&mut live, &model.removed);
    Ok(live)
}
