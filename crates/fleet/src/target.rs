//! A baseline in the words of those who start the guests.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use cpusieve_answers::rehearse::domain::in_libvirt;
use cpusieve_knowledge::libvirt;
use cpusieve_knowledge::qemu::{self, WORD_ORDER, Word};
use cpusieve_model::{Vendor, has_subleaves};

use crate::baseline::Baseline;
use crate::fleet::Fleet;
use crate::naming::Named;

/// IA32_ARCH_CAPABILITIES, the feature MSR that templates may write.
const ARCH_CAPABILITIES: u32 = 0x10a;

/// Software that starts guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// QEMU's command line.
    Qemu,
    /// libvirt's domain XML.
    Libvirt,
    /// A Firecracker CPU template.
    Firecracker,
    /// Proxmox VE's `cpu-models.conf`.
    Proxmox,
    /// A KubeVirt virtual machine.
    Kubevirt,
    /// OpenStack Nova's configuration.
    Openstack,
}

impl Target {
    /// The baseline, ready to paste; `None` where it needs a model and there is none. For libvirt in the names of its
    /// `libvirt` release; `qemu` is the one for which the model was named.
    #[must_use]
    pub fn print(self, found: &Baseline, fleet: &Fleet, qemu: usize, libvirt: usize) -> Option<String> {
        if self == Self::Firecracker {
            return Some(template(found, fleet));
        }
        let model = found.model.as_ref()?;
        let bits = found.common.phys_bits;
        Some(match self {
            Self::Qemu => format!("-cpu {},host-phys-bits=on,host-phys-bits-limit={bits}\n", model.cpu),
            Self::Libvirt => in_xml(found, model, qemu, libvirt),
            Self::Proxmox => proxmox(model, bits),
            Self::Kubevirt => kubevirt(&model.name, handed_on(model)),
            Self::Openstack => openstack("custom", Some(&model.name), handed_on(model)),
            Self::Firecracker => return None,
        })
    }
}

impl Target {
    /// A model alone, ready to paste; `None` where more is needed: the width of physical addresses, or registers.
    #[must_use]
    pub fn print_model(self, model: &Named) -> Option<String> {
        match self {
            Self::Qemu => Some(format!("-cpu {}\n", model.cpu)),
            Self::Kubevirt => Some(kubevirt(&model.name, handed_on(model))),
            Self::Openstack => Some(openstack("custom", Some(&model.name), handed_on(model))),
            Self::Libvirt | Self::Firecracker | Self::Proxmox => None,
        }
    }
}

/// The differences of a model, by libvirt's names: `true` for a feature that is added. KVM's own are no CPU features for
/// libvirt.
fn handed_on(model: &Named) -> impl Iterator<Item = (bool, Cow<'static, str>)> {
    let plus = model.plus.iter().map(|name| (true, in_libvirt(name)));
    let both = plus.chain(model.minus.iter().map(|name| (false, in_libvirt(name))));
    both.filter(|(_, name)| !name.starts_with("kvm"))
}

/// libvirt's word for a feature that is there, or is not.
const fn policy(on: bool) -> &'static str {
    if on { "require" } else { "disable" }
}

/// The model by a name that a release of libvirt knows; `None` if it knows none. QEMU's versions have names of their own
/// (`Skylake-Server-IBRS` is version 2), and a name without a version is the first.
fn name_in_libvirt(name: &str, qemu_release: usize, release: usize) -> Option<&str> {
    if libvirt::model(release, name).is_some() {
        return Some(name);
    }
    let found = qemu::resolve(qemu_release, name)?;
    let number = found.version.unwrap_or(1);
    let version = found.model.versions(qemu_release).find(|version| version.number == number);
    let plain = (number == 1).then_some(found.model.name);
    version.and_then(|version| version.alias).or(plain).filter(|name| libvirt::model(release, name).is_some())
}

fn in_xml(found: &Baseline, model: &Named, qemu_release: usize, release: usize) -> String {
    let name = name_in_libvirt(&model.name, qemu_release, release);
    let mut text = format!(
        "<cpu mode='custom' match='exact' check='partial'>\n  <model fallback='forbid'>{}</model>\n",
        name.unwrap_or(&model.name)
    );
    let vendors: Vec<Vendor> = found.vendors.iter().map(|(vendor, _)| *vendor).collect();
    if let [vendor @ (Vendor::Intel | Vendor::Amd | Vendor::Hygon)] = vendors[..] {
        let _ = writeln!(text, "  <vendor>{}</vendor>", vendor.name());
    }
    let _ = writeln!(text, "  <maxphysaddr mode='passthrough' limit='{}'/>", found.common.phys_bits);
    let mut unknown = Vec::new();
    if name.is_none() {
        unknown.push(format!("the model {}", model.name));
    }
    for (on, name) in handed_on(model) {
        if libvirt::feature(release, &name).is_some() {
            let _ = writeln!(text, "  <feature policy='{}' name='{name}'/>", policy(on));
        } else {
            unknown.push(format!("{} {name}", policy(on)));
        }
    }
    if !unknown.is_empty() {
        let label = libvirt::RELEASES.get(release).map_or("", |known| known.label);
        let _ = writeln!(text, "  <!-- libvirt {label} has no name for: {} -->", unknown.join(", "));
    }
    text.push_str("</cpu>\n");
    text
}

fn proxmox(model: &Named, bits: u8) -> String {
    let flags = model.plus.iter().map(|name| format!("+{name}"));
    let flags: Vec<String> = flags.chain(model.minus.iter().map(|name| format!("-{name}"))).collect();
    let flags = if flags.is_empty() { String::new() } else { format!("    flags {}\n", flags.join(";")) };
    format!("cpu-model: fleet\n{flags}    phys-bits {bits}\n    reported-model {}\n", model.name)
}

/// The `cpu` of a KubeVirt VirtualMachineInstance, up to the end of its last feature; what else belongs to `domain` may
/// follow with four spaces. Features are libvirt's names, `true` for one that is required and `false` for one that is
/// disabled (`pkg/virt-launcher/virtwrap/converter/compute/cpu.go:Configure`).
pub fn kubevirt<N: Display>(model: &str, features: impl IntoIterator<Item = (bool, N)>) -> String {
    let mut text = format!("spec:\n  domain:\n    cpu:\n      model: {model}\n");
    let mut head = "      features:\n";
    for (on, name) in features {
        let _ = write!(text, "{head}        - name: \"{name}\"\n          policy: {}\n", policy(on));
        head = "";
    }
    text
}

/// The section of Nova's `nova.conf` that makes guests of this CPU mode (`custom` with a model, else `host-passthrough`
/// or `host-model`); features as for [`kubevirt`] (`nova/conf/libvirt.py:libvirt_general_opts`).
pub fn openstack<N: Display>(mode: &str, model: Option<&str>, features: impl IntoIterator<Item = (bool, N)>) -> String {
    let mut text = format!("[libvirt]\ncpu_mode = {mode}\n");
    if let Some(model) = model {
        let _ = writeln!(text, "cpu_models = {model}");
    }
    let flags = features.into_iter().map(|(on, name)| format!("{}{name}", if on { '+' } else { '-' }));
    let flags: Vec<String> = flags.collect();
    if !flags.is_empty() {
        let _ = writeln!(text, "cpu_model_extra_flags = {}", flags.join(","));
    }
    text
}

/// Firecracker passes on what KVM offers, so its template clears what some hosts' KVM offers and not all.
fn template(found: &Baseline, fleet: &Fleet) -> String {
    let mut leaves: BTreeMap<(u32, u32), Vec<String>> = BTreeMap::new();
    let mut msrs = Vec::new();
    for (at, word) in WORD_ORDER.into_iter().enumerate() {
        let rest = fleet.rest().map_or(0, |rest| rest.any_kvm[at]);
        let some = fleet.kinds().iter().fold(rest, |some, kind| some | kind.offer.kvm[at]);
        let takes = some & !found.common.kvm[at];
        match word {
            _ if takes == 0 => {}
            // KVM's own leaves are no silicon's.
            Word::Cpuid { leaf, .. } if leaf >> 16 == 0x4000 => {}
            Word::Cpuid { leaf, subleaf, register } => {
                let name = register.name().to_lowercase();
                let modifier = format!("{{\"register\": \"{name}\", \"bitmap\": \"{}\"}}", bitmap(takes, 32));
                leaves.entry((leaf, subleaf)).or_default().push(modifier);
            }
            Word::Msr { index: ARCH_CAPABILITIES } => {
                msrs.push(format!(
                    "    {{\"addr\": \"{ARCH_CAPABILITIES:#x}\", \"bitmap\": \"{}\"}}",
                    bitmap(takes, 64)
                ));
            }
            Word::Msr { .. } => {}
        }
    }
    let leaf = |((leaf, subleaf), modifiers): ((u32, u32), Vec<String>)| {
        let flags = u8::from(has_subleaves(leaf));
        let key = format!("\"leaf\": \"{leaf:#x}\", \"subleaf\": \"{subleaf:#x}\", \"flags\": {flags}");
        format!("    {{{key}, \"modifiers\": [{}]}}", modifiers.join(", "))
    };
    let leaves: Vec<String> = leaves.into_iter().map(leaf).collect();
    let list = |name: &str, items: &[String]| match items {
        [] => format!("  \"{name}\": []"),
        items => format!("  \"{name}\": [\n{}\n  ]", items.join(",\n")),
    };
    format!("{{\n{},\n{}\n}}\n", list("cpuid_modifiers", &leaves), list("msr_modifiers", &msrs))
}

/// Bits from the highest to bit 0: `0` where one is cleared, `x` where it stays.
fn bitmap(cleared: u64, bits: u32) -> String {
    let digits = (0..bits).rev().map(|bit| if cleared >> bit & 1 == 1 { '0' } else { 'x' });
    "0b".chars().chain(digits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libvirt_has_names_of_its_own() {
        let known = ["pclmulqdq", "tsc-adjust", "cmp-legacy", "lahf-lm", "arch-capabilities", "sse4.1", "nrip-save"];
        let names = ["pclmuldq", "tsc_adjust", "cmp_legacy", "lahf_lm", "arch-capabilities", "sse4.1", "nrip-save"];
        assert_eq!(known.map(in_libvirt), names);
    }

    #[test]
    fn a_bitmap_begins_with_the_highest_bit() {
        assert_eq!(bitmap(0b101, 4), "0bx0x0");
    }
}
