//! Elements of libvirt's domain XML.

use std::fmt::Write as _;

use cpusieve_answers::want::CpuText;

use super::paste::{Paste, Target};

/// Features whose name in libvirt's `x86_features.xml` differs from QEMU's: QEMU's, libvirt's.
const NAMES: [(&str, &str); 10] = [
    ("cmp-legacy", "cmp_legacy"),
    ("ds-cpl", "ds_cpl"),
    ("fxsr-opt", "fxsr_opt"),
    ("lahf-lm", "lahf_lm"),
    ("nodeid-msr", "nodeid_msr"),
    ("pclmulqdq", "pclmuldq"),
    ("perfctr-core", "perfctr_core"),
    ("perfctr-nb", "perfctr_nb"),
    ("tsc-adjust", "tsc_adjust"),
    ("xd", "nx"),
];

/// Properties that are no CPU features for libvirt but elements elsewhere: the name, and the element by its state.
type Element = fn(bool) -> (Place, String);

/// Where an element stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// `<features>`
    Features,
    /// `<features><kvm>`
    Kvm,
    /// `<clock>`
    Clock,
}

const ELEMENTS: [(&str, Element); 5] = [
    ("kvm", |on| (Place::Kvm, format!("<hidden state='{}'/>", state(!on)))),
    ("pmu", |on| (Place::Features, format!("<pmu state='{}'/>", state(on)))),
    ("kvm-pv-unhalt", |on| (Place::Features, format!("<pvspinlock state='{}'/>", state(on)))),
    ("kvm-pv-eoi", |on| (Place::Features, format!("<apic eoi='{}'/>", state(on)))),
    ("kvmclock", |on| (Place::Clock, format!("<timer name='kvmclock' present='{}'/>", if on { "yes" } else { "no" }))),
];

const fn state(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// The elements of a domain.
#[derive(Default)]
struct Domain {
    /// Within `<cpu>`.
    cpu: Vec<String>,
    features: Vec<String>,
    kvm: Vec<String>,
    clock: Vec<String>,
    migratable: Option<bool>,
    /// Properties of `-cpu` that libvirt has no word for.
    unknown: Vec<String>,
}

impl Domain {
    fn of(cpu: &CpuText) -> Self {
        let mut domain = Self::default();
        for (name, on) in cpu.switches() {
            domain.switch(&name, on);
        }
        for (name, value) in cpu.values() {
            match name.as_str() {
                "tsc-frequency" => domain.clock.push(format!("<timer name='tsc' frequency='{}'/>", escaped(value))),
                "phys-bits" => domain.cpu.push(format!("<maxphysaddr mode='emulate' bits='{}'/>", escaped(value))),
                _ => domain.unknown.push(format!("{name}={value}")),
            }
        }
        domain
    }

    fn switch(&mut self, name: &str, on: bool) {
        if let Some((place, element)) = ELEMENTS.iter().find(|(known, _)| *known == name).map(|(_, of)| of(on)) {
            match place {
                Place::Features => self.features.push(element),
                Place::Kvm => self.kvm.push(element),
                Place::Clock => self.clock.push(element),
            }
            return;
        }
        match (name, on) {
            ("migratable", _) => self.migratable = Some(on),
            ("host-phys-bits", true) => self.cpu.push("<maxphysaddr mode='passthrough'/>".to_owned()),
            ("host-cache-info", true) => self.cpu.push("<cache mode='passthrough'/>".to_owned()),
            _ if is_feature(name) => {
                let known = NAMES.iter().find(|(qemu, _)| *qemu == name).map_or(name, |(_, libvirt)| libvirt);
                let policy = if on { "require" } else { "disable" };
                self.cpu.push(format!("<feature policy='{policy}' name='{}'/>", escaped(known)));
            }
            _ => self.unknown.push(format!("{name}={}", state(on))),
        }
    }
}

/// Whether libvirt takes it for a CPU feature: QEMU has a bit for it, outside of KVM's and Hyper-V's leaves.
fn is_feature(name: &str) -> bool {
    let outside = |bit: &cpusieve_knowledge::qemu::Bit| bit.place.cpuid().is_none_or(|bit| bit.leaf >> 16 != 0x4000);
    cpusieve_knowledge::qemu::by_name(name).next().is_some_and(outside)
}

/// The elements to paste into a domain.
pub(super) fn xml(target: &Target<'_>) -> Paste {
    let cpu = target.settings.cpu();
    let domain = Domain::of(&cpu);
    let mut text = String::new();
    let machine = target.settings.machine.as_deref().unwrap_or(target.guest.vcpu.machine.name);
    let (machine, options) = machine.split_once(',').map_or((machine, None), |(machine, rest)| (machine, Some(rest)));
    let _ = writeln!(text, "<os>\n  <type arch='x86_64' machine='{}'>hvm</type>\n</os>", escaped(machine));
    let migratable = domain.migratable.map(|on| format!(" migratable='{}'", state(on))).unwrap_or_default();
    let (open, model) = match cpu.model.as_str() {
        "host" => (format!("<cpu mode='host-passthrough' check='none'{migratable}"), None),
        "max" => (format!("<cpu mode='maximum' check='none'{migratable}"), None),
        model => ("<cpu mode='custom' match='exact' check='partial'".to_owned(), Some(model)),
    };
    let model = model.map(|model| format!("<model fallback='forbid'>{}</model>", escaped(model)));
    let inside: Vec<String> = model.into_iter().chain(domain.cpu).collect();
    element(&mut text, &open, "cpu", &inside);
    let mut features = domain.features;
    if !domain.kvm.is_empty() {
        features.push(format!("<kvm>{}</kvm>", domain.kvm.concat()));
    }
    if !features.is_empty() {
        element(&mut text, "<features", "features", &features);
    }
    if !domain.clock.is_empty() {
        element(&mut text, "<clock offset='utc'", "clock", &domain.clock);
    }
    if target.settings.cpu_pm {
        text.push_str("<!-- needs xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' in <domain> -->\n");
        let arguments = ["-overcommit", "cpu-pm=on"].map(|word| format!("<qemu:arg value='{word}'/>"));
        element(&mut text, "<qemu:commandline", "qemu:commandline", &arguments);
    }
    let unknown = domain.unknown.iter().map(|part| format!("libvirt has no element for {part} of -cpu"));
    let options =
        options.map(|options| format!("the machine's options `{options}` are elements of their own in libvirt"));
    let smp = target.settings.smp.as_ref().map(|smp| format!("<vcpu> and <topology> must be as -smp {smp}"));
    Paste { text, beyond: unknown.chain(options).chain(smp).collect(), ..Paste::default() }
}

/// An element with what is inside, a line each; closed at once if there is nothing.
fn element(text: &mut String, open: &str, name: &str, inside: &[String]) {
    if inside.is_empty() {
        let _ = writeln!(text, "{open}/>");
        return;
    }
    let _ = writeln!(text, "{open}>");
    for line in inside {
        let _ = writeln!(text, "  {line}");
    }
    let _ = writeln!(text, "</{name}>");
}

/// A text as it stands in XML, in an attribute or between tags; control characters, which XML does not have, are gone.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\'' => escaped.push_str("&apos;"),
            '"' => escaped.push_str("&quot;"),
            control if control.is_control() => {}
            plain => escaped.push(plain),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_become_the_elements_that_libvirt_has() {
        let cpu =
            CpuText::parse("host,+invtsc,pclmulqdq=off,kvm=off,pmu=on,tsc-frequency=2000000000,migratable=off,x-foo=3");
        let domain = Domain::of(&cpu);
        assert_eq!(
            domain.cpu,
            ["<feature policy='require' name='invtsc'/>", "<feature policy='disable' name='pclmuldq'/>"]
        );
        assert_eq!(domain.kvm, ["<hidden state='on'/>"]);
        assert_eq!(domain.features, ["<pmu state='on'/>"]);
        assert_eq!(domain.clock, ["<timer name='tsc' frequency='2000000000'/>"]);
        assert_eq!(domain.migratable, Some(false));
        assert_eq!(domain.unknown, ["x-foo=3"]);
    }

    #[test]
    fn nothing_breaks_out_of_xml() {
        assert_eq!(escaped("a'><b & \"c\"\u{1b}"), "a&apos;&gt;&lt;b &amp; &quot;c&quot;");
    }
}
