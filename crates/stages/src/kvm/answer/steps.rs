//! One step for each feature bit that goes in or comes out, by the rules that also decide single bits.

use cpusieve_knowledge::kvm::Cap;
use cpusieve_knowledge::linux;
use cpusieve_model::Place;

/// The name of a feature of KVM's lists: the kernel's id where the kernel knows the bit, else the macro in lower case.
pub(super) fn name_of(tree: usize, cap: &Cap) -> &'static str {
    let known = linux::at(tree, Place::Cpuid(cap.place)).or_else(|| linux::by_macro(cap.macro_name).next());
    known.map_or(cap.macro_name, |feature| feature.id())
}

pub(super) fn steps(_module: &super::Module<'_>, _entries: &[cpusieve_model::KvmCpuidEntry]) -> Vec<cpusieve_model::Step> {
    Vec::new()
}
