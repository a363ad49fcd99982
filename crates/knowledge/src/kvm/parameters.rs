//! The parameters of KVM's modules, kernel tree by kernel tree.
//!
//! ```
//! use cpusieve_knowledge::{kvm::parameters, linux};
//!
//! let tree = linux::nearest("6.1").tree;
//! assert!(parameters::of_tree(tree).any(|parameter| (parameter.module, parameter.name) == ("kvm_amd", "nested")));
//! assert!(!parameters::of_tree(tree).any(|parameter| parameter.name == "gmet"));
//! ```

use super::in_tree;
use crate::TreeSet;

/// A parameter of `kvm`, `kvm_intel` or `kvm_amd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// The module.
    pub module: &'static str,
    /// Its name, as it stands in `/sys/module/MODULE/parameters`.
    pub name: &'static str,
    /// The trees whose module has it.
    pub trees: TreeSet,
}

include!(concat!(env!("OUT_DIR"), "/parameters.rs"));

/// The parameters of this tree's modules.
pub fn of_tree(tree: usize) -> impl Iterator<Item = &'static Parameter> {
    in_tree(PARAMETERS, tree, |parameter| parameter.trees)
}
