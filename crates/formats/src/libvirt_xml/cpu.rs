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

/// Reads the `<cpu>` of a root element.
pub(super) fn read(root: Node<'_, '_>, elements: &mut Elements<'_, '_>) -> Snapshot {
    let Some((cpu, kind)) = find(root) else {
        elements.log.error_expected(elements.line(root), "no <cpu> that names a model", "<cpu> with <model>");
        return Snapshot::default();
    };
    let mut expansion = ModelExpansion::default();
    let mut other = |name: &str, text: &str| {
        expansion.other.insert(name.to_owned(), serde_json::Value::from(text).to_string());
    };
    other("libvirt-cpu", kind);
    for (attribute, name) in [("mode", "libvirt-mode"), ("match", "libvirt-match")] {
        if let Some(text) = cpu.attribute(attribute) {
            other(name, text);
        }
    }
    for node in cpu.children().filter(Node::is_element) {
        let text = node.text().unwrap_or_default().trim();
        match node.tag_name().name() {
            "model" if expansion.name.is_empty() => text.clone_into(&mut expansion.name),
            "vendor" => {
                _ = expansion.other.insert("libvirt-vendor".to_owned(), serde_json::Value::from(text).to_string())
            }
            "feature" => feature(elements, node, &mut expansion),
            "arch" => _ = expansion.other.insert("libvirt-arch".to_owned(), serde_json::Value::from(text).to_string()),
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
    let title = (!expansion.name.is_empty()).then(|| expansion.name.clone());
    Snapshot { title, expansions: vec![expansion], ..Snapshot::default() }
}

/// The element whose children are the model and its features, and whose it is.
fn find<'a, 'i>(root: Node<'a, 'i>) -> Option<(Node<'a, 'i>, &'static str)> {
    let child = |node: Node<'a, 'i>, name: &str| node.children().find(|child| child.has_tag_name(name));
    match root.tag_name().name() {
        "cpu" if root.has_attribute("mode") || root.has_attribute("match") => Some((root, "guest")),
        "cpu" => Some((root, "host")),
        "capabilities" => Some((child(child(root, "host")?, "cpu")?, "host")),
        "domain" => Some((child(root, "cpu")?, "guest")),
        _ => {
            let mut modes = child(root, "cpu")?.children();
            let mode = modes.find(|mode| mode.attribute("name") == Some("host-model"))?;
            Some((mode, "host-model"))
        }
    }
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
