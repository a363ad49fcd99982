//! `fleet`: many hosts at once.

mod baseline;
mod compare;
mod definitions;
mod drift;
mod load;
#[cfg(feature = "store")]
mod pack;
#[cfg_attr(not(feature = "store"), path = "unpacked.rs")]
mod packed;
mod pools;
pub(super) mod report;
pub(super) mod sources;
#[cfg(feature = "store")]
mod sql;
#[cfg(feature = "store")]
mod who;

use std::path::PathBuf;

use cpusieve_answers::predict::Assumption;
use cpusieve_fleet::{Fleet, Setting};
use cpusieve_knowledge::libvirt;
use cpusieve_knowledge::qemu::{self, Fit, RELEASES};
use serde_json::{Value, json};

use super::{Done, Failure};
use crate::args::{FleetOptions, FleetSetting, FleetVerb};

pub(crate) fn run(options: &FleetOptions, as_json: bool) -> Result<Done, Failure> {
    match &options.verb {
        FleetVerb::Baseline(options) => baseline::run(options, as_json),
        FleetVerb::Compare(options) => compare::run(options, as_json),
        FleetVerb::Pools(options) => pools::run(options, as_json),
        FleetVerb::Drift(options) => drift::run(options, as_json),
        #[cfg(feature = "store")]
        FleetVerb::Pack(options) => pack::run(options, as_json),
        #[cfg(feature = "store")]
        FleetVerb::Who(options) => who::run(options, as_json),
        #[cfg(feature = "store")]
        FleetVerb::Sql(options) => sql::run(options, as_json),
    }
}

/// What was asked of the software, and what a packed file among the inputs told of the rest.
struct Asked {
    options: FleetSetting,
    taken: Option<Assumption>,
}

impl Asked {
    fn of<'p>(options: &FleetSetting, inputs: impl IntoIterator<Item = &'p PathBuf>) -> Self {
        let mut options = options.clone();
        let taken = packed::adopt(&mut options, inputs.into_iter().map(PathBuf::as_path));
        Self { options, taken }
    }
}

/// The software of the fleet, and what was assumed of it.
fn setting(asked: &Asked) -> Result<(Setting<'_>, Vec<Assumption>), Failure> {
    let Asked { options, taken } = asked;
    let mut assumed: Vec<Assumption> = taken.iter().cloned().collect();
    let mut assume = |value: &str, because: String| {
        assumed.push(Assumption { what: "QEMU".to_owned(), value: value.to_owned(), because, hangs: Vec::new() });
    };
    let release = match &options.qemu {
        None => {
            let newest = RELEASES.len() - 1;
            assume(label(newest), "none was named; this is the newest known".to_owned());
            newest
        }
        Some(version) => {
            let nearest = qemu::nearest(version);
            match nearest.fit {
                Fit::Unreadable => {
                    return Err(format!("`{version}` is no QEMU version; expected one such as 7.2 or 10.0.13").into());
                }
                Fit::Same => {}
                Fit::Older => {
                    assume(label(nearest.release), format!("the nearest known release that is older than {version}"));
                }
                Fit::Oldest => assume(
                    label(nearest.release),
                    format!("no known release is as old as {version}; this is the oldest"),
                ),
            }
            nearest.release
        }
    };
    let machine = qemu::machine(release, options.machine.as_deref().unwrap_or("pc"))?;
    let kernel = options.host_kernel.as_deref();
    Ok((Setting { release, machine, kernel, params: &options.kvm_params, nested: options.nested }, assumed))
}

/// The release of libvirt whose CPU map counts, and what was assumed of it.
fn libvirt(version: Option<&str>) -> Result<(usize, Option<Assumption>), Failure> {
    let assumed = |release: usize, because: String| {
        let value = libvirt::RELEASES.get(release).map_or("", |known| known.label).to_owned();
        (release, Some(Assumption { what: "libvirt".to_owned(), value, because, hangs: Vec::new() }))
    };
    let Some(version) = version else {
        return Ok(assumed(libvirt::newest(), "none was named; this is the newest known".to_owned()));
    };
    Ok(match libvirt::nearest(version) {
        (_, Fit::Unreadable) => {
            return Err(format!("`{version}` is no libvirt version; expected one such as 9.0 or 11.3.0").into());
        }
        (release, Fit::Same) => (release, None),
        (release, Fit::Older) => assumed(release, format!("the nearest known release that is older than {version}")),
        (release, Fit::Oldest) => {
            assumed(release, format!("no known release is as old as {version}; this is the oldest"))
        }
    })
}

fn label(release: usize) -> &'static str {
    RELEASES.get(release).map_or("", |release| release.label)
}

/// What was assumed, of the software first, then of hosts.
fn assumptions(of_software: &[Assumption], fleet: &Fleet) -> Vec<Value> {
    let first = of_software
        .iter()
        .map(|assumed| json!({"what": assumed.what, "value": assumed.value, "because": assumed.because}));
    let of_hosts = fleet.assumed().into_iter().map(|assumed| {
        json!({
            "what": assumed.what, "value": assumed.value, "because": assumed.because, "hosts": assumed.hosts,
        })
    });
    first.chain(of_hosts).collect()
}
