//! Elements of libvirt's domain XML.

use std::fmt::Write as _;

use super::domain::{Domain, Element, state};
use super::paste::{Paste, Target};

/// The elements of a domain, by where they stand.
#[derive(Default)]
struct Elements {
    /// Attributes of `<cpu>`.
    attributes: String,
    /// Within `<cpu>`.
    cpu: Vec<String>,
    features: Vec<String>,
    kvm: Vec<String>,
    clock: Vec<String>,
}

impl Elements {
    fn of(domain: &Domain) -> Self {
        let mut elements = Self::default();
        for (on, name) in &domain.features {
            let policy = if *on { "require" } else { "disable" };
            elements.cpu.push(format!("<feature policy='{policy}' name='{}'/>", escaped(name)));
        }
        for element in &domain.elements {
            match element {
                Element::Kvm(on) => elements.kvm.push(format!("<hidden state='{}'/>", state(!on))),
                Element::Pmu(on) => elements.features.push(format!("<pmu state='{}'/>", state(*on))),
                Element::Pvspinlock(on) => elements.features.push(format!("<pvspinlock state='{}'/>", state(*on))),
                Element::Eoi(on) => elements.features.push(format!("<apic eoi='{}'/>", state(*on))),
                Element::Kvmclock(on) => {
                    let present = if *on { "yes" } else { "no" };
                    elements.clock.push(format!("<timer name='kvmclock' present='{present}'/>"));
                }
                Element::Migratable(on) => elements.attributes = format!(" migratable='{}'", state(*on)),
                Element::HostPhysBits => elements.cpu.push("<maxphysaddr mode='passthrough'/>".to_owned()),
                Element::PhysBits(bits) => {
                    elements.cpu.push(format!("<maxphysaddr mode='emulate' bits='{}'/>", escaped(bits)));
                }
                Element::HostCaches => elements.cpu.push("<cache mode='passthrough'/>".to_owned()),
                Element::TscFrequency(frequency) => {
                    elements.clock.push(format!("<timer name='tsc' frequency='{}'/>", escaped(frequency)));
                }
            }
        }
        elements
    }
}

/// The elements to paste into a domain.
pub(super) fn xml(target: &Target<'_>) -> Paste {
    let cpu = target.settings.cpu();
    let domain = Domain::of(&cpu);
    let elements = Elements::of(&domain);
    let mut text = String::new();
    let machine = target.settings.machine.as_deref().unwrap_or(target.guest.vcpu.machine.name);
    let (machine, options) = machine.split_once(',').map_or((machine, None), |(machine, rest)| (machine, Some(rest)));
    let _ = writeln!(text, "<os>\n  <type arch='x86_64' machine='{}'>hvm</type>\n</os>", escaped(machine));
    let attributes = &elements.attributes;
    let (open, model) = match cpu.model.as_str() {
        "host" => (format!("<cpu mode='host-passthrough' check='none'{attributes}"), None),
        "max" => (format!("<cpu mode='maximum' check='none'{attributes}"), None),
        model => ("<cpu mode='custom' match='exact' check='partial'".to_owned(), Some(model)),
    };
    let model = model.map(|model| format!("<model fallback='forbid'>{}</model>", escaped(model)));
    let inside: Vec<String> = model.into_iter().chain(elements.cpu).collect();
    element(&mut text, &open, "cpu", &inside);
    let mut features = elements.features;
    if !elements.kvm.is_empty() {
        features.push(format!("<kvm>{}</kvm>", elements.kvm.concat()));
    }
    if !features.is_empty() {
        element(&mut text, "<features", "features", &features);
    }
    if !elements.clock.is_empty() {
        element(&mut text, "<clock offset='utc'", "clock", &elements.clock);
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
    fn nothing_breaks_out_of_xml() {
        assert_eq!(escaped("a'><b & \"c\"\u{1b}"), "a&apos;&gt;&lt;b &amp; &quot;c&quot;");
    }
}
