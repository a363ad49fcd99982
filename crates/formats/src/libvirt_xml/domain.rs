//! `<domain>`: the machine type, the vCPUs and the CPU of a virtual machine, and what else changes its CPUID.
//!
//! Devices and all else that leaves the CPU alone is passed over. `virsh dumpxml` of a running domain shows what libvirt
//! made of the definition when it started the guest, with the model and all features that differ from it.

use std::collections::BTreeMap;

use cpusieve_model::{Domain, DomainCpu, DomainFeature, DomainPolicy, DomainTimer, DomainTopology};
use roxmltree::Node;

use super::Elements;
use crate::diagnostic::quote;
use crate::limits::{MAX_DOMAIN_ARGUMENTS, MAX_ENTRIES};

/// The name space of `<qemu:commandline>`.
const QEMU: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

/// Reads `<domain>`, also inside of `<domstatus>`, in which libvirt keeps running ones.
pub(super) fn read(root: Node<'_, '_>, elements: &mut Elements<'_, '_>) -> Option<Domain> {
    let domain = match root.tag_name().name() {
        "domain" => Some(root),
        "domstatus" => child(root, "domain"),
        _ => None,
    };
    let Some(domain) = domain else {
        let what = format!("the root element is {}", quote(root.tag_name().name().as_bytes()));
        elements.log.error_expected(elements.line(root), what, "domain, as `virsh dumpxml` prints it");
        return None;
    };
    let mut read = Domain { kind: attribute(domain, "type"), ..Domain::default() };
    for node in domain.children().filter(Node::is_element) {
        match node.tag_name().name() {
            "name" => read.name = text(node),
            "os" => os(node, &mut read),
            "vcpu" => {
                read.vcpus = count(elements, node, node.text());
                read.current = node.attribute("current").and_then(|current| count(elements, node, Some(current)));
            }
            "cpu" => read.cpu = Some(cpu(node, elements)),
            "features" => features(node, elements, &mut read.features),
            "clock" => clock(node, elements, &mut read.timers),
            "commandline" if node.tag_name().namespace() == Some(QEMU) => {
                arguments(node, elements, &mut read.arguments)
            }
            _ => elements.log.ignored.values += 1,
        }
    }
    if let Some(arch) = read.arch.as_deref().filter(|arch| !matches!(*arch, "x86_64" | "i686")) {
        let what = format!("a domain of another architecture: {}", quote(arch.as_bytes()));
        elements.log.error_expected(elements.line(domain), what, "arch='x86_64'");
        return None;
    }
    Some(read)
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|child| child.has_tag_name(name))
}

fn attribute(node: Node<'_, '_>, name: &str) -> Option<String> {
    node.attribute(name).map(printable)
}

fn text(node: Node<'_, '_>) -> Option<String> {
    node.text().map(str::trim).filter(|text| !text.is_empty()).map(printable)
}

/// Whoever wrote the file does not talk to the reader's terminal.
fn printable(text: &str) -> String {
    text.replace(char::is_control, "?")
}

/// A number of vCPUs, or of their parts; says so if it is none.
fn count(elements: &mut Elements<'_, '_>, node: Node<'_, '_>, text: Option<&str>) -> Option<u32> {
    let text = text.unwrap_or_default().trim();
    let number = text.parse().ok().filter(|&number: &u32| number > 0);
    if number.is_none() {
        let what = format!("<{}> holds {}", node.tag_name().name(), quote(text.as_bytes()));
        elements.log.warning_expected(elements.line(node), what, "a number of at least 1");
    }
    number
}

/// `yes` and `on`, `no` and `off`; says so if it is neither.
fn switch(elements: &mut Elements<'_, '_>, node: Node<'_, '_>, name: &str) -> Option<bool> {
    match node.attribute(name)? {
        "on" | "yes" => Some(true),
        "off" | "no" => Some(false),
        other => {
            let what = format!("{name} of <{}> is {}", node.tag_name().name(), quote(other.as_bytes()));
            elements.log.warning_expected(elements.line(node), what, "on or off");
            None
        }
    }
}

fn os(node: Node<'_, '_>, domain: &mut Domain) {
    if let Some(kind) = child(node, "type") {
        (domain.machine, domain.arch) = (attribute(kind, "machine"), attribute(kind, "arch"));
    }
}

fn cpu(node: Node<'_, '_>, elements: &mut Elements<'_, '_>) -> DomainCpu {
    let mut cpu = DomainCpu {
        mode: attribute(node, "mode"),
        check: attribute(node, "check"),
        migratable: switch(elements, node, "migratable"),
        ..DomainCpu::default()
    };
    for part in node.children().filter(Node::is_element) {
        let number = |elements: &mut Elements<'_, '_>, name| elements.number(part, name).ok().flatten();
        let mode = || attribute(part, "mode").unwrap_or_default();
        match part.tag_name().name() {
            "model" => cpu.model = text(part),
            "feature" => feature(part, elements, &mut cpu.features),
            "topology" => cpu.topology = Some(topology(part, elements)),
            "maxphysaddr" => {
                let bits = number(elements, "bits").or_else(|| number(elements, "limit"));
                cpu.phys_bits = Some((mode(), bits));
            }
            "cache" => cpu.cache = Some((mode(), number(elements, "level"))),
            // Whose CPU it is to be compared with, and how memory is divided.
            "vendor" | "numa" => elements.log.ignored.values += 1,
            _ => elements.unknown(part),
        }
    }
    cpu
}

fn topology(node: Node<'_, '_>, elements: &mut Elements<'_, '_>) -> DomainTopology {
    let mut part = |name| node.attribute(name).and_then(|text| count(elements, node, Some(text))).unwrap_or(1);
    DomainTopology {
        sockets: part("sockets"),
        dies: part("dies"),
        clusters: part("clusters"),
        cores: part("cores"),
        threads: part("threads"),
    }
}

fn feature(node: Node<'_, '_>, elements: &mut Elements<'_, '_>, features: &mut Vec<(String, DomainPolicy)>) {
    let Some(name) = attribute(node, "name") else {
        elements.log.warning_expected(elements.line(node), "<feature> without a name", "name='..'");
        return;
    };
    let policy = match node.attribute("policy") {
        None | Some("require") => DomainPolicy::Require,
        Some("force") => DomainPolicy::Force,
        Some("optional") => DomainPolicy::Optional,
        Some("disable") => DomainPolicy::Disable,
        Some("forbid") => DomainPolicy::Forbid,
        Some(other) => {
            let what = format!("the policy of {} is {}", quote(name.as_bytes()), quote(other.as_bytes()));
            elements.log.warning_expected(elements.line(node), what, "require, force, optional, disable or forbid");
            return;
        }
    };
    if features.iter().any(|(known, _)| *known == name) {
        elements.log.ignored.values += 1;
        let what = format!("the feature {} stands twice; the first counts", quote(name.as_bytes()));
        elements.log.warning(elements.line(node), what);
    } else if features.len() >= MAX_ENTRIES {
        elements.log.ignored.values += 1;
        elements.log.warning_expected(elements.line(node), "too many <feature>", format!("at most {MAX_ENTRIES}"));
    } else {
        features.push((name, policy));
    }
}

/// `<features>`: those that are words of the CPU, with those of KVM and Hyper-V under their paths.
fn features(node: Node<'_, '_>, elements: &mut Elements<'_, '_>, read: &mut BTreeMap<String, DomainFeature>) {
    for part in node.children().filter(Node::is_element) {
        let name = part.tag_name().name();
        let mut put = |path: String, feature: DomainFeature| {
            if read.len() < MAX_ENTRIES {
                read.insert(path, feature);
            }
        };
        match name {
            "pmu" | "pvspinlock" => {
                put(name.to_owned(), DomainFeature { state: switch(elements, part, "state"), value: None });
            }
            "apic" => put(name.to_owned(), DomainFeature { state: switch(elements, part, "eoi"), value: None }),
            "kvm" | "hyperv" => {
                let mode = attribute(part, "mode");
                if mode.is_some() {
                    put(name.to_owned(), DomainFeature { state: None, value: mode });
                }
                for inner in part.children().filter(Node::is_element) {
                    let value = ["retries", "value"].into_iter().find_map(|name| attribute(inner, name));
                    let state = switch(elements, inner, "state");
                    let path = format!("{name}/{}", printable(inner.tag_name().name()));
                    for finer in inner.children().filter(Node::is_element) {
                        let state = switch(elements, finer, "state");
                        put(
                            format!("{path}/{}", printable(finer.tag_name().name())),
                            DomainFeature { state, value: None },
                        );
                    }
                    put(path, DomainFeature { state, value });
                }
            }
            _ => elements.log.ignored.values += 1,
        }
    }
}

fn clock(node: Node<'_, '_>, elements: &mut Elements<'_, '_>, timers: &mut BTreeMap<String, DomainTimer>) {
    for timer in node.children().filter(|node| node.has_tag_name("timer")) {
        let Some(name) = attribute(timer, "name").filter(|_| timers.len() < MAX_ENTRIES) else { continue };
        let frequency = timer.attribute("frequency").and_then(|text| {
            let number = text.parse().ok();
            if number.is_none() {
                let what = format!("frequency of <timer> is {}", quote(text.as_bytes()));
                elements.log.warning_expected(elements.line(timer), what, "a number of Hz");
            }
            number
        });
        timers.insert(name, DomainTimer { present: switch(elements, timer, "present"), frequency });
    }
}

fn arguments(node: Node<'_, '_>, elements: &mut Elements<'_, '_>, read: &mut Vec<String>) {
    for argument in node.children().filter(|node| node.is_element() && node.tag_name().name() == "arg") {
        if read.len() >= MAX_DOMAIN_ARGUMENTS {
            elements.log.ignored.values += 1;
            let most = format!("at most {MAX_DOMAIN_ARGUMENTS}");
            elements.log.warning_expected(elements.line(argument), "too many <qemu:arg>", most);
            return;
        }
        read.extend(attribute(argument, "value"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libvirt_xml::domain as parse;

    const RUNNING: &str = "<domain type='kvm' id='3' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>web1</name>
  <vcpu placement='static' current='2'>4</vcpu>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
  <features>
    <acpi/><apic eoi='on'/><pmu state='off'/>
    <hyperv mode='custom'><relaxed state='on'/><spinlocks state='on' retries='8191'/>
      <stimer state='on'><direct state='on'/></stimer></hyperv>
    <kvm><hidden state='on'/></kvm>
  </features>
  <cpu mode='custom' match='exact' check='full'>
    <model fallback='forbid'>EPYC-Rome</model>
    <topology sockets='1' dies='1' cores='2' threads='2'/>
    <maxphysaddr mode='emulate' bits='42'/>
    <feature policy='require' name='x2apic'/><feature policy='disable' name='svm'/>
    <feature policy='maybe' name='avx'/>
  </cpu>
  <clock offset='utc'><timer name='tsc' frequency='2400000000'/><timer name='kvmclock' present='no'/></clock>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator></devices>
  <qemu:commandline><qemu:arg value='-cpu'/><qemu:arg value='host'/></qemu:commandline>
</domain>";

    #[test]
    fn what_the_cpu_hangs_on_is_read_and_the_rest_is_passed_over() {
        let (domain, diagnostics) = parse("web1.xml", RUNNING.as_bytes());
        let domain = domain.unwrap();
        assert_eq!((domain.name.as_deref(), domain.machine.as_deref()), (Some("web1"), Some("pc-q35-7.2")));
        assert_eq!((domain.vcpus, domain.current), (Some(4), Some(2)));
        let cpu = domain.cpu.unwrap();
        assert_eq!((cpu.model.as_deref(), cpu.check.as_deref()), (Some("EPYC-Rome"), Some("full")));
        assert_eq!(cpu.features, [("x2apic".into(), DomainPolicy::Require), ("svm".into(), DomainPolicy::Disable)]);
        assert_eq!(cpu.topology.unwrap().threads, 2);
        assert_eq!(cpu.phys_bits, Some(("emulate".into(), Some(42))));
        assert_eq!(domain.features["apic"].state, Some(true));
        assert_eq!(domain.features["hyperv/spinlocks"].value.as_deref(), Some("8191"));
        assert_eq!(domain.features["hyperv/stimer/direct"].state, Some(true));
        assert_eq!(domain.timers["tsc"].frequency, Some(2_400_000_000));
        assert_eq!(domain.timers["kvmclock"].present, Some(false));
        assert_eq!(domain.arguments, ["-cpu", "host"]);
        assert_eq!(diagnostics.len(), 1, "{diagnostics:?}");
        assert_eq!(diagnostics[0].line, 16);
    }

    #[test]
    fn what_is_no_domain_is_said_with_its_line() {
        for (text, line) in [("<cpu/>", 1), ("<domain><os><type arch='aarch64'/></os></domain>", 1), ("<domain>\n<", 2)]
        {
            let (domain, diagnostics) = parse("x", text.as_bytes());
            assert_eq!(domain, None, "{text}");
            assert_eq!(diagnostics[0].line, line, "{text}: {diagnostics:?}");
        }
    }
}
