//! `predict --vmm firecracker` and `--vmm cloud-hypervisor`: VMMs that hand on what KVM offers.

use std::fmt::Write as _;

use cpusieve_answers::predict::Prediction;
use cpusieve_answers::predict::pass_through::{Route, VcpuPrediction, guest_of, until_vcpu};
use cpusieve_answers::predict::way;
use cpusieve_model::{CpuTemplate, Snapshot};
use cpusieve_stages::vmm::{Options, cloud_hypervisor, firecracker};
use serde_json::json;

use super::{assumed_briefly, assumptions, kvm, label, lines, price, with_steps, words, words_text, worth_text};
use crate::args::{PredictOptions, RouteOptions, Until, VmmName};
use crate::input;
use crate::json::layout::Layout;
use crate::page::{self, HEAD, LOST, styled};
use crate::verbs::{Done, Failure, template};
use crate::worth::Worths;

/// What is asked of QEMU alone.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// An option that this VMM does not have.
    #[error("--{0} is for QEMU; this VMM hands on what KVM offers")]
    QemuOnly(&'static str),
    /// More than a number.
    #[error("--smp {0}: expected a number of vCPUs")]
    NoNumber(String),
}

pub(super) fn run(
    options: &PredictOptions,
    snapshot: &Snapshot,
    route: &way::Route<'_>,
    worths: &Worths,
    as_json: bool,
) -> Result<Done, Failure> {
    let (vcpu, guest) = found(options, snapshot, route)?;
    page::print(&if as_json {
        as_text(&vcpu, guest.as_ref(), worths)
    } else {
        text(&vcpu, guest.as_ref(), worths, page::width())
    })?;
    Ok(if vcpu.output.error.is_some() { Done::Different } else { Done::Same })
}

/// The vCPU, and the kernel on it if that was asked for and the VMM starts the guest.
pub(super) fn found(
    options: &PredictOptions,
    snapshot: &Snapshot,
    route: &way::Route<'_>,
) -> Result<(VcpuPrediction, Option<Prediction>), Failure> {
    let asked = &options.route;
    let custom = template::custom(asked.template.as_deref(), asked.vmm)?;
    let route = Route {
        kvm: route.kvm,
        options: vmm_options(asked, custom.as_ref())?,
        version: asked.vmm_version.as_deref(),
        cpus: cpus(asked)?,
        guest: route.guest,
    };
    let name = input::name(&options.input);
    let vcpu = until_vcpu(snapshot, &route).map_err(|refusal| format!("{name}: {refusal}"))?;
    let guest = match options.until {
        Until::Guest if vcpu.output.error.is_none() => {
            Some(guest_of(snapshot, &route, &vcpu).map_err(|refusal| format!("{name}: {refusal}"))?.1)
        }
        _ => None,
    };
    Ok((vcpu, guest))
}

fn vmm_options<'a>(asked: &'a RouteOptions, custom: Option<&'a CpuTemplate>) -> Result<Options<'a>, Refusal> {
    let of_qemu = [
        ("qemu", asked.qemu.is_some()),
        ("machine", asked.machine.is_some()),
        ("cpu", asked.cpu.is_some()),
        ("cpu-pm", asked.cpu_pm),
        ("accel tcg", asked.accel == crate::args::Accel::Tcg),
    ];
    if let Some((name, _)) = of_qemu.into_iter().find(|(_, given)| *given) {
        return Err(Refusal::QemuOnly(name));
    }
    Ok(match asked.vmm {
        VmmName::CloudHypervisor | VmmName::Qemu => Options::CloudHypervisor(cloud_hypervisor::Options::default()),
        VmmName::Firecracker => {
            let template = template::chosen(asked.template.as_deref(), custom);
            Options::Firecracker(firecracker::Options { smt: false, template })
        }
    })
}

fn cpus(asked: &RouteOptions) -> Result<u32, Refusal> {
    let Some(text) = asked.smp.as_deref() else { return Ok(1) };
    text.parse().ok().filter(|&count| count > 0).ok_or_else(|| Refusal::NoNumber(text.to_owned()))
}

pub(super) fn as_text(vcpu: &VcpuPrediction, guest: Option<&Prediction>, worths: &Worths) -> String {
    let output = &vcpu.output;
    let head = |json: &mut Layout<'_>| {
        json.key("format").value(&json!(1));
        kvm::offer(json, &vcpu.kvm);
        json.key("vcpu").object(|json| {
            json.key("vmm").string(vcpu.vmm.name());
            json.key("release").string(vcpu.label());
            json.key("cpuid").list(|json| kvm::entries(json, &output.cpuid));
            json.key("msrs").object(|json| {
                kvm::msrs(json, output.msrs.iter().map(|(&index, &value)| (index, Some(value))));
            });
            json.key("warnings").list(|json| words(json, &output.warnings));
            json.key("error").value(&json!(output.error.as_ref().map(ToString::to_string)));
        });
        json.key("assumed").value(&assumptions(guest.map_or(&vcpu.assumed, |guest| &guest.assumed)));
        if let Some(guest) = guest {
            json.key("odd").list(|json| words(json, &guest.odd));
            json.key("guest").object(|json| lines(json, guest));
            json.key("price").value(&price(guest, worths));
        }
    };
    let of_guest = guest.into_iter().flat_map(|guest| &guest.boot.steps);
    let steps = vcpu.kvm.host.boot.steps.iter().chain(&vcpu.kvm.steps).chain(&output.steps).chain(of_guest);
    with_steps(head, steps)
}

fn text(vcpu: &VcpuPrediction, guest: Option<&Prediction>, worths: &Worths, width: usize) -> String {
    let mut page = String::new();
    let setup = format!("{} {}, KVM of Linux {}", vcpu.vmm.name(), vcpu.label(), label(&vcpu.kvm.host));
    let heading = match guest {
        Some(guest) => format!("What Linux {} prints in a guest of {setup}", label(guest)),
        None => format!("What {setup} gives to a vCPU"),
    };
    page.push_str(&page::wrap(&styled(HEAD, heading), "", "  ", width));
    match guest {
        Some(guest) => {
            words_text(&mut page, guest, width);
            worth_text(&mut page, guest, worths, width);
        }
        None => kvm::table(&mut page, "cpuid", vcpu.cpuid(), width),
    }
    for line in &vcpu.output.warnings {
        page.push_str(&page::wrap(&page::tame(line), "  ! ", "    ", width));
    }
    if let Some(error) = &vcpu.output.error {
        let _ = writeln!(page, "\n{}", styled(HEAD, "The guest does not start"));
        page.push_str(&page::wrap(&styled(LOST, page::tame(&error.to_string())), "  ", "    ", width));
    }
    assumed_briefly(&mut page, guest.map_or(&vcpu.assumed, |guest| &guest.assumed), width);
    page
}
