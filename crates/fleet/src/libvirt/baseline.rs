//! One definition for several: `virsh cpu-baseline`.

use cpusieve_knowledge::libvirt::{Set, VENDORS, Vendor};

use super::cpu::{Cpu, Unknown, id};
use super::data::Data;
use super::decode::{Wish, named, without_blockers};
use crate::baseline::Cost;

/// Why there is no baseline. The inputs count from 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BaselineError {
    /// There is no input.
    #[error("there are no CPUs")]
    NoCpus,
    /// An input names no model.
    #[error("it names no CPU model")]
    NoModel {
        /// The input.
        input: usize,
    },
    /// An input has a name that libvirt does not know.
    #[error("{unknown}")]
    Unknown {
        /// The input.
        input: usize,
        /// The name.
        unknown: Unknown,
    },
    /// An input has a vendor that libvirt does not know.
    #[error("libvirt has no CPU vendor `{vendor}`")]
    UnknownVendor {
        /// The input.
        input: usize,
        /// The vendor.
        vendor: String,
    },
    /// An input's vendor is not its model's.
    #[error("the vendor is {vendor}, and that of the model {model} is {of_model}")]
    VendorOfModel {
        /// The input.
        input: usize,
        /// The vendor.
        vendor: String,
        /// The model.
        model: String,
        /// The model's vendor.
        of_model: &'static str,
    },
    /// The inputs are of two vendors.
    #[error("CPU vendors do not match: {vendor} here, and {before} before it")]
    Vendors {
        /// The first input of the other vendor.
        input: usize,
        /// Its vendor.
        vendor: String,
        /// That of the inputs before it.
        before: String,
    },
    /// The inputs have nothing in common.
    #[error("the CPUs have no feature in common")]
    Nothing,
    /// No model can be named.
    #[error("no CPU model of libvirt fits")]
    NoName,
}

impl BaselineError {
    /// The input that is to blame, if it is one.
    #[must_use]
    pub fn input(&self) -> Option<usize> {
        match self {
            Self::NoModel { input }
            | Self::Unknown { input, .. }
            | Self::UnknownVendor { input, .. }
            | Self::VendorOfModel { input, .. }
            | Self::Vendors { input, .. } => Some(*input),
            Self::NoCpus | Self::Nothing | Self::NoName => None,
        }
    }
}

/// The definition that runs on all of several (`virCPUx86Baseline`); with `migratable`, without features that libvirt does
/// not migrate, as far as they are not the model's.
///
/// # Errors
/// What libvirt refuses: see [`BaselineError`].
pub fn baseline(cpus: &[Cpu], release: usize, migratable: bool) -> Result<Cpu, BaselineError> {
    let no_model = cpus.iter().position(|cpu| cpu.model.is_none());
    if let Some(input) = no_model {
        return Err(BaselineError::NoModel { input });
    }
    let mut common = None;
    let mut vendor = None;
    let mut names: Vec<&str> = Vec::new();
    for (input, cpu) in cpus.iter().enumerate() {
        let unknown = |unknown| BaselineError::Unknown { input, unknown };
        let has = cpu.expanded(release).map_err(unknown)?;
        common = Some(common.map_or(has, |common: Set| common.intersection(&has)));
        vendor = with_vendor(vendor, input, cpu, release)?;
        names.extend(cpu.model.as_deref().filter(|name| !names.contains(name)));
    }
    let features = common.ok_or(BaselineError::NoCpus)?;
    if features.is_empty() {
        return Err(BaselineError::Nothing);
    }
    let wish = Wish { allowed: None, preferred: &names };
    let mut cpu = named(&Data { features, vendor, signature: 0 }, true, wish, release).ok_or(BaselineError::NoName)?;
    if migratable {
        without_blockers(&mut cpu);
    }
    cpu.no_fallback = names.len() == 1 && cpu.model.as_deref() == names.first().copied();
    if cpus.iter().any(|cpu| cpu.vendor.is_none()) {
        cpu.vendor = None;
    }
    Ok(cpu)
}

/// What each of some CPUs takes from the others: the features that it lacks and another has. One that lacks none is not in
/// it. Names and sets in the order of the inputs.
#[must_use]
pub fn costs(cpus: &[(&str, Set)]) -> Vec<Cost> {
    let any = cpus.iter().fold(Set::EMPTY, |any, (_, set)| any.union(set));
    let lack: Vec<(usize, usize)> =
        any.iter().map(|feature| (feature, cpus.iter().filter(|(_, set)| !set.contains(feature)).count())).collect();
    let cost = |(name, set): &(&str, Set)| {
        let lacks = lack.iter().filter(|(feature, _)| !set.contains(*feature));
        let alike = cpus.iter().filter(|(_, other)| other == set).count();
        let alone = lacks.clone().filter(|(_, count)| *count == alike).map(|(feature, _)| id(*feature)).collect();
        let features: Vec<_> = lacks.map(|(feature, _)| id(*feature)).collect();
        (!features.is_empty()).then(|| Cost { host: (*name).to_owned(), features, alone, alike, unnamed: 0 })
    };
    cpus.iter().filter_map(cost).collect()
}

/// The vendor so far, with one more input: its own, or that of its model; of the first input, only its own.
fn with_vendor(
    known: Option<&'static Vendor>,
    input: usize,
    cpu: &Cpu,
    release: usize,
) -> Result<Option<&'static Vendor>, BaselineError> {
    let model = cpu.model(release).map_err(|unknown| BaselineError::Unknown { input, unknown })?;
    let of_model = model.and_then(|model| model.vendor()).filter(|_| input > 0);
    if let (Some(own), Some(of_model), Some(model)) = (&cpu.vendor, of_model, &cpu.model)
        && own != of_model.name
    {
        let (vendor, model, of_model) = (own.clone(), model.clone(), of_model.name);
        return Err(BaselineError::VendorOfModel { input, vendor, model, of_model });
    }
    let Some(name) = cpu.vendor.as_deref().or(of_model.map(|vendor| vendor.name)) else { return Ok(known) };
    match known {
        Some(before) if before.name == name => Ok(known),
        Some(before) => Err(BaselineError::Vendors { input, vendor: name.to_owned(), before: before.name.to_owned() }),
        None => {
            let found = VENDORS.iter().find(|vendor| vendor.name == name);
            found.map(Some).ok_or_else(|| BaselineError::UnknownVendor { input, vendor: name.to_owned() })
        }
    }
}
