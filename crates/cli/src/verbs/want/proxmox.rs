//! Proxmox VE: a stanza of `/etc/pve/virtual-guest/cpu-models.conf`, and lines of the guest's configuration.

use std::fmt::Write as _;

use cpusieve_knowledge::qemu as known;

use super::paste::{Paste, Target};
use super::qemu::quoted;

/// The name of the custom model; Proxmox puts `custom-` before it.
const NAME: &str = "cpusieve";

/// The stanza and the lines.
pub(super) fn configuration(target: &Target<'_>) -> Paste {
    let cpu = target.settings.cpu();
    let mut flags: Vec<String> = Vec::new();
    let mut hidden = false;
    let mut rest = false;
    for (name, on) in cpu.switches() {
        match (name.as_str(), on) {
            ("kvm", false) => hidden = true,
            _ if known::by_name(&name).next().is_some() => flags.push(format!("{}{name}", if on { '+' } else { '-' })),
            _ => rest = true,
        }
    }
    rest |= cpu.values().next().is_some();
    let mut text = String::new();
    if flags.is_empty() && !hidden || rest {
        let _ = writeln!(text, "# /etc/pve/qemu-server/VMID.conf\ncpu: {}", cpu.model);
    } else {
        let _ = writeln!(text, "# /etc/pve/virtual-guest/cpu-models.conf\ncpu-model: {NAME}");
        if !flags.is_empty() {
            let _ = writeln!(text, "\tflags {}", flags.join(";"));
        }
        if hidden {
            text.push_str("\thidden 1\n");
        }
        let _ = writeln!(text, "\treported-model {}", cpu.model);
        let _ = writeln!(text, "\n# /etc/pve/qemu-server/VMID.conf\ncpu: custom-{NAME}");
    }
    if let Some(machine) = &target.settings.machine {
        let _ = writeln!(text, "machine: {}", machine.split(',').next().unwrap_or_default());
    }
    if let Some(smp) = &target.settings.smp {
        let _ = writeln!(text, "# sockets: and cores: must be as -smp {smp}");
    }
    // A second -cpu replaces the one that Proxmox writes.
    let mut arguments = Vec::new();
    if rest {
        arguments.push(format!("-cpu {}", quoted(&cpu.to_string())));
    }
    if target.settings.cpu_pm {
        arguments.push("-overcommit cpu-pm=on".to_owned());
    }
    if !arguments.is_empty() {
        let _ = writeln!(text, "args: {}", arguments.join(" "));
    }
    let note = "Proxmox adds flags of its own to -cpu (such as +kvm_pv_unhalt,+kvm_pv_eoi), which were not predicted";
    Paste { text, note: (!rest).then_some(note), ..Paste::default() }
}
