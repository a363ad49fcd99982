//! `<cpu>`: a model by name, with features that are added to it or taken from it.
//!
//! Kept as a [`ModelExpansion`] of the model's name, in which only the features that the file lists stand: `require` and
//! `force` as true, `disable` and `forbid` as false, and those of a host, which have no policy, as true. What libvirt
//! itself says beside features is among the other properties, under names that start with `libvirt-`; a policy that true
//! and false do not tell (`force`, `forbid`, `optional`) stands there under the feature's name.

use std::collections::BTreeMap;

use cpusieve_model::{ModelExpansion, Snapshot};
use roxmltree::Node;

use super::Elements;
use crate::diagnostic::quote;
use crate::limits::MAX_ENTRIES;

/// CPUs that are read of one file.
const MAX_CPUS: usize = 1024;

/// Reads the `<cpu>` of a root element, or all of a list of them.
pub(super) fn read(root: Node<'_, '_>, elements: &mut Elements<'_, '_>) -> Snapshot {
    let found = find(root);
    if found.is_empty() {
        elements.log.error_expected(elements.line(root), "no <cpu> that names a model", "<cpu> with <model>");
        return Snapshot::default();
    }
    let mut expansions = Vec::new();
    for (at, (cpu, kind)) in found.into_iter().enumerate() {
        if at == MAX_CPUS {
            elements.log.ignored.values += 1;
            elements.log.warning_expected(elements.line(cpu), "too many <cpu>", format!("at most {MAX_CPUS}"));
            break;
        }
        expansions.push(one(cpu, kind, elements));
    }
    let title = expansions.first().map(|expansion| expansion.name.clone()).filter(|name| !name.is_empty());
    Snapshot { title, expansions, ..Snapshot::default() }
}

fn one(cpu: Node<'_, '_>, kind: &str, elements: &mut Elements<'_, '_>) -> ModelExpansion {
    let mut expansion = ModelExpansion::default();
    let other = |expansion: &mut ModelExpansion, name: &str, text: &str| {
        expansion.other.insert(name.to_owned(), serde_json::Value::from(text).to_string());
    };
    other(&mut expansion, "libvirt-cpu", kind);
    for (attribute, name) in [("mode", "libvirt-mode"), ("match", "libvirt-match")] {
        if let Some(text) = cpu.attribute(attribute) {
            other(&mut expansion, name, text);
        }
    }
    for node in cpu.children().filter(Node::is_element) {
        let text = node.text().unwrap_or_default().trim();
        match node.tag_name().name() {
            "model" if expansion.name.is_empty() => {
                text.clone_into(&mut expansion.name);
                if let Some(fallback) = node.attribute("fallback") {
                    other(&mut expansion, "libvirt-fallback", fallback);
                }
            }
            "vendor" => other(&mut expansion, "libvirt-vendor", text),
            "feature" => feature(elements, node, &mut expansion),
            "arch" => other(&mut expansion, "libvirt-arch", text),
            // How the CPU is made and not what it can.
            "topology" | "cache" | "numa" | "maxphysaddr" | "counter" | "microcode" | "signature" | "pages" => {
                elements.log.ignored.values += 1;
            }
            _ => elements.unknown(node),
        }
    }
    if expansion.name.is_empty() {
        let mode = quote(cpu.attribute("mode").unwrap_or("custom").as_bytes());
        let what = format!("<cpu> of mode {mode} names no model: what a guest gets depends on its host");
        elements.log.warning(elements.line(cpu), what);
    } else {
        let what = format!(
            "{} is the name of a CPU model, not CPUID: its own features are not in the file",
            quote(expansion.name.as_bytes())
        );
        elements.log.note(elements.line(cpu), what);
    }
    expansion
}

/// The elements whose children are a model and its features, and whose they are.
fn find<'a, 'i>(root: Node<'a, 'i>) -> Vec<(Node<'a, 'i>, &'static str)> {
    let child = |node: Node<'a, 'i>, name: &str| node.children().find(|child| child.has_tag_name(name));
    let found = match root.tag_name().name() {
        "cpu" => Some((root, whose(root))),
        "capabilities" => child(root, "host").and_then(|host| child(host, "cpu")).map(|cpu| (cpu, "host")),
        "domain" => child(root, "cpu").map(|cpu| (cpu, "guest")),
        "domainCapabilities" => {
            let host_model =
                |cpu: Node<'a, 'i>| cpu.children().find(|mode| mode.attribute("name") == Some("host-model"));
            child(root, "cpu").and_then(host_model).map(|mode| (mode, "host-model"))
        }
        // Several CPUs in one file, as libvirt's own tests have them.
        _ => return root.children().filter(|child| child.has_tag_name("cpu")).map(|cpu| (cpu, whose(cpu))).collect(),
    };
    found.into_iter().collect()
}

/// Whose a `<cpu>` is that stands alone: a host's names its architecture (`src/conf/cpu_conf.c:virCPUDefParseXML`).
fn whose(cpu: Node<'_, '_>) -> &'static str {
    if cpu.children().any(|child| child.has_tag_name("arch")) { "host" } else { "guest" }
}

fn feature(elements: &mut Elements<'_, '_>, node: Node<'_, '_>, expansion: &mut ModelExpansion) {
    let Some(name) = node.attribute("name") else {
        elements.log.warning_expected(elements.line(node), "<feature> without a name", "name='..'");
        return;
    };
    if expansion.flags.len() >= MAX_ENTRIES {
        elements.log.ignored.values += 1;
        elements.log.warning_expected(elements.line(node), "too many <feature>", format!("at most {MAX_ENTRIES}"));
        return;
    }
    let is_on = match node.attribute("policy") {
        None | Some("require" | "force") => true,
        Some("disable" | "forbid") => false,
        Some("optional") => {
            policy(&mut expansion.other, name, "optional");
            return;
        }
        Some(policy) => {
            let what = format!("the policy of {} is {}", quote(name.as_bytes()), quote(policy.as_bytes()));
            elements.log.warning_expected(elements.line(node), what, "require, force, optional, disable or forbid");
            return;
        }
    };
    if let Some(told @ ("force" | "forbid")) = node.attribute("policy") {
        policy(&mut expansion.other, name, told);
    }
    if expansion.flags.insert(name.to_owned(), is_on).is_some_and(|before| before != is_on) {
        let what = format!("the feature {} is both required and disabled; the last counts", quote(name.as_bytes()));
        elements.log.warning(elements.line(node), what);
    }
}

/// Keeps a policy that is more than true or false.
fn policy(other: &mut BTreeMap<String, String>, name: &str, policy: &str) {
    other.insert(name.to_owned(), format!("\"{policy}\""));
}
