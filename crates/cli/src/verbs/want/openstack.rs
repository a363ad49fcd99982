//! OpenStack Nova: the compute host's `nova.conf`, and properties of a flavor.

use std::fmt::Write as _;

use cpusieve_answers::predict::way::Accel;

use super::domain::{Domain, Element};
use super::paste::{Paste, Target};

const NOTE: &str =
    "nova.conf decides for every guest of the compute host; nova-compute is started again after a change";

/// The sections and properties.
pub(super) fn configuration(target: &Target<'_>) -> Paste {
    let cpu = target.settings.cpu();
    let domain = Domain::of(&cpu);
    let mut beyond = Vec::new();
    let (mode, model) = match cpu.model.as_str() {
        "host" => ("host-passthrough", None),
        "max" => {
            beyond.push("Nova has no word for the model max".to_owned());
            ("host-passthrough", None)
        }
        model => ("custom", Some(model)),
    };
    let mut text = "# /etc/nova/nova.conf\n".to_owned();
    text.push_str(&cpusieve_fleet::openstack(mode, model, domain.features));
    let machine = target.settings.machine.as_deref().unwrap_or(target.guest.vcpu.machine.name);
    let (machine, options) = machine.split_once(',').unwrap_or((machine, ""));
    let _ = writeln!(text, "hw_machine_type = x86_64={machine}");
    if target.settings.accel == Accel::Tcg {
        text.push_str("virt_type = qemu\n");
    }
    let mut flavor: Vec<String> = Vec::new();
    for element in &domain.elements {
        // nova/api/validation/extra_specs/hw.py
        match element {
            Element::Kvm(on) => flavor.push(format!("hw:hide_hypervisor_id={}", !on)),
            Element::Pmu(on) => flavor.push(format!("hw:pmu={on}")),
            Element::HostPhysBits => flavor.push("hw:maxphysaddr_mode=passthrough".to_owned()),
            Element::PhysBits(bits) => {
                flavor.extend(["hw:maxphysaddr_mode=emulate".to_owned(), format!("hw:maxphysaddr_bits={bits}")]);
            }
            other => beyond.push(format!("Nova has no setting for {} of -cpu", other.property())),
        }
    }
    if !flavor.is_empty() {
        let _ = writeln!(text, "\n# openstack flavor set FLAVOR --property ...\n{}", flavor.join("\n"));
    }
    beyond.extend(domain.unknown.iter().map(|part| format!("Nova has no setting for {part} of -cpu")));
    if !options.is_empty() {
        beyond.push(format!("Nova has no setting for the machine's options `{options}`"));
    }
    if target.settings.cpu_pm {
        beyond.push("Nova has no setting for -overcommit cpu-pm=on".to_owned());
    }
    let topology = |smp| format!("the flavor's vcpus and hw:cpu_sockets, _cores, _threads must be as -smp {smp}");
    beyond.extend(target.settings.smp.as_ref().map(topology));
    Paste { text, beyond, note: Some(NOTE), impossible: false }
}
