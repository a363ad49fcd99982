//! `import`, for programs.

use cpusieve_answers::trees::{Difference, InKvm, Known, Need};
use cpusieve_import::stored::StoredTree;
use cpusieve_knowledge::{linux, own};
use cpusieve_probe::config::Trees;
use serde_json::{Value, json};

use super::Imported;
use super::text::{op, site};
use crate::trees::Unusable;

pub(super) fn imported(found: &Imported<'_>) -> Value {
    let differences = &found.differences;
    let flags = |rows: &[Difference]| rows.iter().map(difference).collect::<Vec<_>>();
    let dependency =
        |&(feature, needs, is_new): &(&str, &str, bool)| json!({"macro": feature, "needs": needs, "new": is_new});
    let mut value = head(found.label, found.stored, &found.file, nearest(found.tree));
    let rest = json!({
        "features": flags(&differences.features),
        "bugs": flags(&differences.bugs),
        "vmx_flags": flags(&differences.vmx_flags),
        "dependencies": differences.dependencies.iter().map(dependency).collect::<Vec<_>>(),
        "kvm": differences.kvm.iter().map(in_kvm).collect::<Vec<_>>(),
        "needs": differences.needs.iter().map(need).collect::<Vec<_>>(),
        "doubts": differences.doubts,
        "missing": found.no_kvm,
    });
    if let (Some(value), Value::Object(rest)) = (value.as_object_mut(), rest) {
        value.insert("format".to_owned(), json!(1));
        value.extend(rest);
    }
    value
}

/// The label of the compiled-in tree that stands behind a tree.
fn nearest(tree: usize) -> &'static str {
    linux::TREES.get(own::compiled(tree)).map_or("", |tree| tree.label)
}

fn head(label: &str, stored: &StoredTree, file: &str, nearest: &str) -> Value {
    let halves = [("linux", stored.linux.is_some()), ("kvm", stored.kvm.is_some())];
    let halves: Vec<&str> = halves.iter().filter(|(_, there)| *there).map(|(half, _)| *half).collect();
    json!({"format": 1, "name": label, "version": stored.version, "release": stored.release, "source": stored.source,
        "file": file, "halves": halves, "nearest": nearest})
}

fn difference(row: &Difference) -> Value {
    let side = |known: &Option<Known>| {
        known.as_ref().map(|known| {
            let (word, bit) = known.position;
            let bits: Vec<String> = known.places.iter().map(ToString::to_string).collect();
            json!({"feature": known.id, "printed": known.shown, "word": word, "bit": bit, "bits": bits})
        })
    };
    json!({"macro": row.macro_name, "before": side(&row.before), "after": side(&row.after)})
}

fn in_kvm(row: &InKvm) -> Value {
    let kind = |kind| cpusieve_answers::name::kind(kind);
    match *row {
        InKvm::Bit { bit, macro_name, before, after } => {
            json!({"what": "bit", "macro": macro_name, "bit": bit.to_string(), "before": before.map(kind), "after": after.map(kind)})
        }
        InKvm::Adjustment { bit, macro_name, by, op: does, conditions, is_new } => {
            json!({"what": "adjustment", "macro": macro_name, "bit": bit.to_string(), "by": site(by), "does": op(does),
                "if": conditions, "new": is_new})
        }
        InKvm::Limit { leaf, before, after } => {
            let hexadecimal = |value: Option<u32>| value.map(|value| format!("0x{value:08x}"));
            json!({"what": "limit", "leaf": format!("0x{leaf:08x}"), "before": hexadecimal(before), "after": hexadecimal(after)})
        }
        InKvm::Paravirtual { bit, name, is_new } => {
            json!({"what": "paravirtual", "macro": name, "bit": bit, "new": is_new})
        }
        InKvm::Leaf { leaf, is_new } => json!({"what": "leaf", "leaf": format!("0x{leaf:08x}"), "new": is_new}),
    }
}

fn need(need: &Need) -> Value {
    json!({"feature": need.feature, "bit": need.bit.to_string(), "who": need.who.name(), "met": need.is_met,
        "text": need.text, "cite": need.cite})
}

pub(super) fn list(trees: &Trees, all: &[(&str, Result<StoredTree, Unusable>)]) -> Value {
    let rows = all.iter().map(|(label, stored)| {
        let file = trees.path(label).display().to_string();
        match stored {
            Ok(stored) => {
                let mut row = head(label, stored, &file, linux::nearest(&stored.version).tree().label);
                row.as_object_mut().map(|row| row.remove("format"));
                row
            }
            Err(error) => json!({"name": label, "file": file, "error": error.to_string()}),
        }
    });
    json!({"format": 1, "trees": rows.collect::<Vec<_>>()})
}
