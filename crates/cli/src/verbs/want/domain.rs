//! A text of `-cpu` in libvirt's terms: what its features and elements say, and what they have no word for. KubeVirt and
//! Nova hand on to libvirt, and have words for a part of these.

use cpusieve_answers::rehearse::domain::in_libvirt;
use cpusieve_answers::want::CpuText;

/// A property of `-cpu` that is no CPU feature for libvirt but an element or an attribute elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// `kvm=`: KVM's leaves are shown, or hidden.
    Kvm(bool),
    /// `pmu=`
    Pmu(bool),
    /// `kvm-pv-unhalt=`
    Pvspinlock(bool),
    /// `kvm-pv-eoi=`
    Eoi(bool),
    /// `kvmclock=`
    Kvmclock(bool),
    /// `migratable=`
    Migratable(bool),
    /// `host-phys-bits=on`
    HostPhysBits,
    /// `phys-bits=`
    PhysBits(String),
    /// `host-cache-info=on`
    HostCaches,
    /// `tsc-frequency=`
    TscFrequency(String),
}

impl Element {
    /// The part of `-cpu` that it stands for.
    pub(super) fn property(&self) -> String {
        let switch = |name: &str, on: &bool| format!("{name}={}", state(*on));
        match self {
            Self::Kvm(on) => switch("kvm", on),
            Self::Pmu(on) => switch("pmu", on),
            Self::Pvspinlock(on) => switch("kvm-pv-unhalt", on),
            Self::Eoi(on) => switch("kvm-pv-eoi", on),
            Self::Kvmclock(on) => switch("kvmclock", on),
            Self::Migratable(on) => switch("migratable", on),
            Self::HostPhysBits => switch("host-phys-bits", &true),
            Self::PhysBits(bits) => format!("phys-bits={bits}"),
            Self::HostCaches => switch("host-cache-info", &true),
            Self::TscFrequency(frequency) => format!("tsc-frequency={frequency}"),
        }
    }
}

/// `on` or `off`.
pub(super) const fn state(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// The CPU of a domain.
#[derive(Debug, Default)]
pub(super) struct Domain {
    /// The features, by libvirt's names, and whether each is required or disabled.
    pub(super) features: Vec<(bool, String)>,
    pub(super) elements: Vec<Element>,
    /// Properties of `-cpu` that libvirt has no word for.
    pub(super) unknown: Vec<String>,
}

impl Domain {
    /// What a text of `-cpu` asks for.
    pub(super) fn of(cpu: &CpuText) -> Self {
        let mut domain = Self::default();
        for (name, on) in cpu.switches() {
            domain.switch(&name, on);
        }
        for (name, value) in cpu.values() {
            match name.as_str() {
                "tsc-frequency" => domain.elements.push(Element::TscFrequency(value.to_owned())),
                "phys-bits" => domain.elements.push(Element::PhysBits(value.to_owned())),
                _ => domain.unknown.push(format!("{name}={value}")),
            }
        }
        domain
    }

    fn switch(&mut self, name: &str, on: bool) {
        let element = match (name, on) {
            ("kvm", _) => Element::Kvm(on),
            ("pmu", _) => Element::Pmu(on),
            ("kvm-pv-unhalt", _) => Element::Pvspinlock(on),
            ("kvm-pv-eoi", _) => Element::Eoi(on),
            ("kvmclock", _) => Element::Kvmclock(on),
            ("migratable", _) => Element::Migratable(on),
            ("host-phys-bits", true) => Element::HostPhysBits,
            ("host-cache-info", true) => Element::HostCaches,
            _ if is_feature(name) => {
                self.features.push((on, in_libvirt(name).into_owned()));
                return;
            }
            _ => {
                self.unknown.push(format!("{name}={}", state(on)));
                return;
            }
        };
        self.elements.push(element);
    }
}

/// Whether libvirt takes it for a CPU feature: QEMU has a bit for it, outside of KVM's and Hyper-V's leaves.
fn is_feature(name: &str) -> bool {
    let outside = |bit: &cpusieve_knowledge::qemu::Bit| bit.place.cpuid().is_none_or(|bit| bit.leaf >> 16 != 0x4000);
    cpusieve_knowledge::qemu::by_name(name).next().is_some_and(outside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_become_what_libvirt_has() {
        let cpu = "host,+invtsc,pclmulqdq=off,kvm=off,pmu=on,tsc-frequency=2000000000,migratable=off,x-foo=3";
        let domain = Domain::of(&CpuText::parse(cpu));
        assert_eq!(domain.features, [(true, "invtsc".to_owned()), (false, "pclmuldq".to_owned())]);
        let elements: Vec<String> = domain.elements.iter().map(Element::property).collect();
        assert_eq!(elements, ["kvm=off", "pmu=on", "migratable=off", "tsc-frequency=2000000000"]);
        assert_eq!(domain.unknown, ["x-foo=3"]);
    }
}
