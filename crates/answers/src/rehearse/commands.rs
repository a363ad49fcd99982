//! What is to be typed, in its order: pins before the upgrade, the upgrade host by host, the proof after it.

use super::domain::in_libvirt;
use super::pin::Kind;
use super::{OnGuest, OnHost, Rehearsal};

/// When something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Before anything is upgraded.
    Before,
    /// The upgrade, in this order of hosts.
    Upgrade,
    /// After it.
    After,
}

impl Phase {
    /// The word of the JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::Upgrade => "upgrade",
            Self::After => "after",
        }
    }
}

/// A step for people: what it is for, and what is typed or pasted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// When.
    pub phase: Phase,
    /// What it is for.
    pub what: String,
    /// What is typed or pasted, line by line; empty if it is not ours to say.
    pub lines: Vec<String>,
}

/// All of it.
#[must_use]
pub fn commands(found: &Rehearsal) -> Vec<Command> {
    let hosts: Vec<&OnHost> = found.hosts.iter().flatten().collect();
    let mut commands: Vec<Command> = Vec::new();
    // The same lines for a guest of the same name are told once, with all hosts.
    let mut pinned: Vec<(Phase, &str, Vec<String>, Vec<&str>)> = Vec::new();
    for host in &hosts {
        for guest in &host.guests {
            let (lines, name) = (pins(guest), guest.guest.name.as_str());
            let phase = if guest.pinned.before { Phase::Before } else { Phase::After };
            let alike = |(other, known, typed, _): &&mut (Phase, &str, Vec<String>, Vec<&str>)| {
                (*other, *known) == (phase, name) && *typed == lines
            };
            match pinned.iter_mut().find(alike) {
                Some((.., on)) => on.push(&host.name),
                None if lines.is_empty() => {}
                None => pinned.push((phase, name, lines, vec![&host.name])),
            }
        }
    }
    for (phase, name, lines, on) in pinned {
        let on = if hosts.len() > 1 { format!(" on {}", on.join(", ")) } else { String::new() };
        let what = match phase {
            Phase::Before => format!("keep the CPU of {name}{on}, and power it off and on"),
            _ => format!("keep the CPU of {name}{on} when it is next started; the old software does not take it"),
        };
        commands.push(Command { phase, what, lines });
    }
    let software = software(found);
    let order: Vec<&str> = match &found.order {
        Some(order) => order.hosts.iter().map(|place| place.host.as_str()).collect(),
        None => hosts.iter().map(|host| host.name.as_str()).collect(),
    };
    for name in order {
        let Some(host) = hosts.iter().find(|host| host.name == name) else { continue };
        commands.push(Command {
            phase: Phase::Upgrade,
            what: format!("{name}: {}", leave(host, hosts.len())),
            lines: moves(host, hosts.len()),
        });
        commands.push(Command {
            phase: Phase::Upgrade,
            what: format!("{name}: install {software}, and boot it"),
            lines: Vec::new(),
        });
        let prove = vec!["cpusieve record -o after.json".to_owned(), "cpusieve verify after.json".to_owned()];
        commands.push(Command {
            phase: Phase::After,
            what: format!("{name}: hold what came against what was said"),
            lines: prove,
        });
    }
    commands.sort_by_key(|command| command.phase);
    commands
}

/// What is installed.
fn software(found: &Rehearsal) -> String {
    let mut parts = Vec::new();
    let changed = |before: &Option<String>, after: &Option<String>| after.clone().filter(|_| before != after);
    parts.extend(changed(&found.before.kernel, &found.after.kernel).map(|release| format!("Linux {release}")));
    parts.extend(changed(&found.before.vmm, &found.after.vmm).map(|version| format!("{} {version}", found.vmm)));
    parts.extend(
        found
            .after
            .microcode
            .filter(|_| found.before.microcode != found.after.microcode)
            .map(|revision| format!("microcode {revision:#x}")),
    );
    let params = found.after.params.iter().filter(|param| !found.before.params.contains(param));
    parts.extend(params.map(|(name, value)| format!("{name}={value} (KVM)")));
    if parts.is_empty() { "the other software".to_owned() } else { parts.join(", ") }
}

/// What becomes of the guests of a host while it is upgraded.
fn leave(host: &OnHost, hosts: usize) -> String {
    let running = host.guests.iter().filter(|guest| guest.start_before.possible);
    let (go, stay): (Vec<&OnGuest>, Vec<&OnGuest>) =
        running.partition(|guest| hosts > 1 && guest.forth.as_ref().is_some_and(|verdict| verdict.possible));
    let names =
        |guests: &[&OnGuest]| guests.iter().map(|guest| guest.guest.name.as_str()).collect::<Vec<_>>().join(", ");
    match (go.is_empty(), stay.is_empty()) {
        (true, true) => "it runs no guest".to_owned(),
        (false, true) => "move its guests away".to_owned(),
        (true, false) => format!("shut its guests down: {}", names(&stay)),
        (false, false) => format!("move {} away, shut down {}", names(&go), names(&stay)),
    }
}

fn moves(host: &OnHost, hosts: usize) -> Vec<String> {
    let libvirt = host.guests.iter().filter(|guest| guest.guest.libvirt && guest.start_before.possible);
    libvirt
        .map(|guest| {
            let goes = hosts > 1 && guest.forth.as_ref().is_some_and(|verdict| verdict.possible);
            let name = quoted(&guest.guest.name);
            if goes {
                format!("virsh migrate --live {name} qemu+ssh://OTHER/system")
            } else {
                format!("virsh shutdown {name}")
            }
        })
        .collect()
}

/// The pins of a guest, in the words of whoever starts it.
fn pins(guest: &OnGuest) -> Vec<String> {
    let pinned = &guest.pinned;
    if pinned.pins.is_empty() {
        return Vec::new();
    }
    if pinned.template.is_some() {
        return vec!["give Firecracker this CPU template (PUT /cpu-config); see \"template\" of --json".to_owned()];
    }
    let mut lines = Vec::new();
    if !guest.guest.libvirt {
        lines.extend(pinned.guest.machine.as_ref().map(|machine| format!("-machine {machine}")));
        lines.push(format!("-cpu {}", pinned.guest.cpu()));
        return vec![lines.join(" ")];
    }
    lines.push(format!("virsh edit {}", quoted(&guest.guest.name)));
    for pin in &pinned.pins {
        lines.push(match pin.kind {
            Kind::Machine => format!("  <type arch='x86_64' machine='{}'>hvm</type>", escaped(&pin.value)),
            Kind::Model => format!("  <model>{}</model>", escaped(&pin.value)),
            Kind::Property | Kind::Template => match pin.value.as_str() {
                "on" => format!("  <feature policy='require' name='{}'/>", escaped(&in_libvirt(&pin.name))),
                "off" => format!("  <feature policy='disable' name='{}'/>", escaped(&in_libvirt(&pin.name))),
                value => {
                    format!("  <qemu:property name='{}' type='string' value='{}'/>", escaped(&pin.name), escaped(value))
                }
            },
        });
    }
    lines
}

/// A word of the shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/+@".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// A word of XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;")
}
