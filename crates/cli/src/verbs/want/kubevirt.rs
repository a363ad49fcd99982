//! The part of a KubeVirt virtual machine that decides its CPU.

use std::fmt::Write as _;

use cpusieve_answers::predict::way::Accel;

use super::domain::{Domain, Element};
use super::paste::{Paste, Target};

const NOTE: &str = "spec is a VirtualMachineInstance's; in a VirtualMachine it stands below spec.template. KubeVirt brings its \
     own QEMU, and takes the machine types that its setting emulatedMachines names (q35 alone by default)";

/// The `domain` of the machine.
pub(super) fn machine(target: &Target<'_>) -> Paste {
    let cpu = target.settings.cpu();
    let domain = Domain::of(&cpu);
    let mut beyond = Vec::new();
    let model = match cpu.model.as_str() {
        "host" => "host-passthrough",
        "max" => {
            beyond.push("KubeVirt has no word for the model max".to_owned());
            "host-passthrough"
        }
        model => model,
    };
    let mut text = cpusieve_fleet::kubevirt(model, domain.features);
    let mut features = String::new();
    let mut clock = String::new();
    for element in &domain.elements {
        // pkg/virt-launcher/virtwrap/converter/compute/hypervisor_features.go and clock.go
        let _ = match element {
            Element::Kvm(on) => writeln!(features, "      kvm:\n        hidden: {}", !on),
            Element::Pvspinlock(on) => writeln!(features, "      pvspinlock:\n        enabled: {on}"),
            Element::Eoi(on) => writeln!(features, "      apic:\n        endOfInterrupt: {on}"),
            Element::Kvmclock(on) => {
                writeln!(clock, "      utc: {{}}\n      timer:\n        kvm:\n          present: {on}")
            }
            other => {
                beyond.push(format!("KubeVirt has no field for {} of -cpu", other.property()));
                Ok(())
            }
        };
    }
    for (name, lines) in [("features", features), ("clock", clock)] {
        if !lines.is_empty() {
            let _ = write!(text, "    {name}:\n{lines}");
        }
    }
    let machine = target.settings.machine.as_deref().unwrap_or(target.guest.vcpu.machine.name);
    let (machine, options) = machine.split_once(',').unwrap_or((machine, ""));
    let _ = writeln!(text, "    machine:\n      type: {machine}");
    beyond.extend(domain.unknown.iter().map(|part| format!("KubeVirt has no field for {part} of -cpu")));
    if !options.is_empty() {
        beyond.push(format!("KubeVirt has no field for the machine's options `{options}`"));
    }
    if target.settings.cpu_pm {
        beyond.push("KubeVirt has no field for -overcommit cpu-pm=on".to_owned());
    }
    if target.settings.accel == Accel::Tcg {
        beyond.push("emulation is a setting of the cluster: developerConfiguration.useEmulation".to_owned());
    }
    beyond.extend(
        target.settings.smp.as_ref().map(|smp| format!("cpu.sockets, cores and threads must be as -smp {smp}")),
    );
    Paste { text, beyond, note: Some(NOTE), impossible: false }
}
