//! `rehearse`: what an upgrade changes for guests.

mod inputs;
mod json;
mod text;

use cpusieve_answers::predict::way::NoWay;
use cpusieve_answers::rehearse::{Guest, Host, NotAHost, OnGuest, Question, Range, Upgrade, rehearse};
use cpusieve_model::CpuTemplate;
use cpusieve_stages::vmm::{Options, cloud_hypervisor, firecracker};

use super::{Done, Failure, template};
use crate::args::{RehearseOptions, VmmName};
use crate::page;

/// Why a question is not asked.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// An option that the VMM does not have.
    #[error("--{0} is for QEMU; this VMM hands on what KVM offers")]
    QemuOnly(&'static str),
    /// An option of another VMM.
    #[error("--{0} is not for QEMU; name the VMM with --vmm")]
    NotQemu(&'static str),
    /// Not a number.
    #[error("--smp {0}: expected a number of vCPUs")]
    NoCount(String),
    /// Not a revision.
    #[error("--microcode {0}: expected revisions such as 0xa0011d1..0xa0011de")]
    NoRevision(String),
    /// Nothing to do.
    #[error(
        "nothing is upgraded: name what changes with --host-kernel, --qemu, --vmm-version, --kvm-param, --microcode or \
         --machine"
    )]
    NoUpgrade,
}

pub(crate) fn run(options: &RehearseOptions, as_json: bool) -> Result<Done, Failure> {
    let upgrade = upgrade(options)?;
    let custom = template::custom(options.template.as_deref(), options.vmm)?;
    let (guests, mut skipped) = guests(options)?;
    let (hosts, unusable) = inputs::hosts(&options.records)?;
    skipped.extend(unusable);
    let hosts: Vec<Host<'_>> =
        hosts.iter().map(|host| Host { name: &host.name, snapshot: &host.snapshot, unlisted: host.unlisted }).collect();
    let question = Question {
        upgrade,
        options: vmm_options(options, custom.as_ref()),
        guests: &guests,
        guest_kernel: options.guest_kernel.as_deref(),
    };
    let found = rehearse(&hosts, &question);
    let refused: Vec<&(String, NotAHost)> = found.hosts.iter().filter_map(|host| host.as_ref().err()).collect();
    if refused.len() == found.hosts.len() {
        let first = refused.first().map(|(name, why)| format!("{name}: {why}"));
        return Err(first.unwrap_or_else(|| "none of the inputs is a host".to_owned()).into());
    }
    for (name, why) in refused {
        page::warn(&format!("{name}: {why}; it is left out"));
        skipped.push((name.clone(), why.to_string()));
    }
    if let Some(why) = mistaken(found.hosts.iter().flatten().flat_map(|host| &host.guests)) {
        return Err(why.into());
    }
    page::print(&if as_json {
        json::answer(&found, &skipped)
    } else {
        text::answer(&found, options.long, page::width())
    })?;
    let stays = found.hosts.iter().flatten().flat_map(|host| &host.guests).all(OnGuest::stays);
    Ok(match (skipped.is_empty(), stays) {
        (false, _) => Done::InPart,
        (true, true) => Done::Same,
        (true, false) => Done::Different,
    })
}

/// What was asked for and does not exist: no finding, but wrong usage.
fn mistaken<'a>(guests: impl Iterator<Item = &'a OnGuest>) -> Option<String> {
    let mut errors = guests.flat_map(|guest| [&guest.before, &guest.after]).filter_map(|view| view.as_ref().err());
    let wrong = |error: &&NoWay| !matches!(error, NoWay::NoMachine(_) | NoWay::NoKvm(_) | NoWay::Refused { .. });
    errors.find(wrong).map(ToString::to_string)
}

fn upgrade(options: &RehearseOptions) -> Result<Upgrade, Failure> {
    let range = |text: &Option<String>| text.as_deref().map(Range::parse).unwrap_or_default();
    let of_qemu = options.vmm == VmmName::Qemu;
    let vmm = match (of_qemu, &options.qemu, &options.vmm_version) {
        (true, _, Some(_)) => return Err(Refusal::NotQemu("vmm-version").into()),
        (false, Some(_), _) => return Err(Refusal::QemuOnly("qemu").into()),
        (true, qemu, _) => range(qemu),
        (false, _, version) => range(version),
    };
    let given = [
        ("machine", options.machine.is_some()),
        ("cpu", !options.cpu.is_empty()),
        ("guests", !options.guests.is_empty()),
    ];
    if let Some((name, _)) = given.into_iter().find(|(_, given)| *given && !of_qemu) {
        return Err(Refusal::QemuOnly(name).into());
    }
    let upgrade = Upgrade {
        host_kernel: range(&options.host_kernel),
        vmm,
        machine: range(&options.machine),
        microcode: microcode(options.microcode.as_deref())?,
        params: options.kvm_params.iter().map(|(name, value)| (name.clone(), Range::parse(value))).collect(),
    };
    let (before, after) = upgrade.ends();
    if before == after { Err(Refusal::NoUpgrade.into()) } else { Ok(upgrade) }
}

fn microcode(text: Option<&str>) -> Result<(Option<u64>, Option<u64>), Refusal> {
    let Some(text) = text else { return Ok((None, None)) };
    let Range { before, after } = Range::parse(text);
    let number = |side: Option<String>| {
        let Some(side) = side else { return Ok(None) };
        let digits = side.strip_prefix("0x").unwrap_or(&side);
        u64::from_str_radix(digits, 16).map(Some).map_err(|_| Refusal::NoRevision(page::tame(text)))
    };
    Ok((number(before)?, number(after)?))
}

/// The guests, and files that hold none.
fn guests(options: &RehearseOptions) -> Result<(Vec<Guest>, inputs::Skipped), Failure> {
    let (mut guests, skipped) = inputs::domains(&options.guests)?;
    if options.vmm != VmmName::Qemu {
        let smp = options.smp.clone();
        if let Some(text) = smp.as_deref().filter(|text| text.parse::<u32>().map_or(true, |count| count == 0)) {
            return Err(Refusal::NoCount(page::tame(text)).into());
        }
        return Ok((vec![Guest { name: "microVM".to_owned(), smp, ..Guest::default() }], skipped));
    }
    let given = options.cpu.iter().map(|cpu| Guest { smp: options.smp.clone(), ..Guest::of_cpu(cpu) });
    guests.extend(given);
    if guests.is_empty() && skipped.is_empty() {
        guests.push(Guest { smp: options.smp.clone(), ..Guest::of_cpu("host") });
    }
    if guests.is_empty() { Err("there is no guest to rehearse with".into()) } else { Ok((guests, skipped)) }
}

fn vmm_options<'a>(options: &'a RehearseOptions, custom: Option<&'a CpuTemplate>) -> Option<Options<'a>> {
    Some(match options.vmm {
        VmmName::Qemu => return None,
        VmmName::CloudHypervisor => Options::CloudHypervisor(cloud_hypervisor::Options::default()),
        VmmName::Firecracker => {
            let template = template::chosen(options.template.as_deref(), custom);
            Options::Firecracker(firecracker::Options { smt: false, template })
        }
    })
}
