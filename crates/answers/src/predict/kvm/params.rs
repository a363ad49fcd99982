//! Module parameters: those of the input, under those that were given.

use std::collections::BTreeMap;

use cpusieve_knowledge::kvm::parameters::{self, Parameter};
use cpusieve_knowledge::linux;
use cpusieve_model::{Snapshot, Vendor};

use crate::predict::NoPrediction;

/// The parameters of the input, and over them those that were given, by their full names.
pub(super) fn merged(
    snapshot: &Snapshot,
    given: &[(String, String)],
    tree: usize,
) -> Result<BTreeMap<String, String>, NoPrediction> {
    let mut params = snapshot.kvm.as_ref().map(|kvm| kvm.params.clone()).unwrap_or_default();
    for (name, value) in given {
        params.insert(full_name(snapshot, name, tree)?, value.clone());
    }
    Ok(params)
}

/// `kvm_amd.nested`, for `nested` on a host with an AMD CPU. The kernel takes `-` for `_` in names
/// (`kernel/params.c:dash2underscore`).
fn full_name(snapshot: &Snapshot, given: &str, tree: usize) -> Result<String, NoPrediction> {
    let name = given.replace('-', "_");
    let vendor = match snapshot.vendor() {
        Some(Vendor::Amd | Vendor::Hygon) => "kvm_amd",
        _ => "kvm_intel",
    };
    let (module, bare) = name.split_once('.').map_or((None, name.as_str()), |(module, bare)| (Some(module), bare));
    let of =
        |wanted: &str| parameters::of_tree(tree).find(|parameter| parameter.name == bare && parameter.module == wanted);
    let found = match module {
        Some(module) => of(module),
        // A parameter that the other vendor's module alone has is named so, and the stage says that it has no effect.
        None => [vendor, "kvm", "kvm_intel", "kvm_amd"].into_iter().find_map(of),
    };
    match found {
        Some(parameter) => Ok(full(parameter)),
        None => Err(NoPrediction::NoParameter {
            name: given.to_owned(),
            release: linux::TREES.get(tree).map_or("", |tree| tree.label),
            known: parameters::of_tree(tree)
                .filter(|known| ["kvm", vendor].contains(&known.module))
                .map(full)
                .collect(),
        }),
    }
}

fn full(parameter: &Parameter) -> String {
    format!("{}.{}", parameter.module, parameter.name)
}
