//! Why KVM does not offer a bit, and what would make it: another kernel, a module parameter, the host's own flags.

use cpusieve_knowledge::kvm::{self, parameters};
use cpusieve_knowledge::rules::{self, Software};
use cpusieve_knowledge::{linux, x86};
use cpusieve_model::{CpuidBit, Place, Stage, Vendor};

use super::{Aim, Proposer};
use crate::reason;
use crate::want::change::Change;

/// Leaf 0AH: all that it says of performance counters hangs on the virtual PMU.
const PMU_LEAF: u32 = 0xa;

impl Proposer<'_> {
    /// KVM does not offer a bit that it should.
    pub(super) fn offer(&mut self, bit: CpuidBit) {
        let Some((tree, boot)) = self.view.kernel(Stage::Host) else { return };
        if !kvm::offers(tree, bit) {
            let since = reason::offered_since(bit, tree);
            self.kernels_since(Stage::Host, |other| kvm::offers(other, bit), since);
        }
        let mut words: Vec<&'static str> = Vec::new();
        if let Some(cap) = kvm::cap(tree, bit) {
            let adjusted = kvm::adjustments_of(tree, cap.macro_name).flat_map(|adjust| adjust.conditions);
            let conditions = adjusted.copied().chain(cap.condition).filter_map(|c| rules::kvm_condition(c, tree));
            words.extend(conditions.filter_map(|condition| Some(condition.remedy?.text)));
            let missing = !boot.capabilities().has(tree, cap.macro_name);
            if let Some(row) = linux::feature(tree, cap.macro_name).filter(|_| missing) {
                self.aim(Aim::Flag { at: Stage::Host, id: row.id(), on: true });
            }
        }
        if let Some(feature) = x86::by_place(Place::Cpuid(bit)) {
            let own = rules::of_feature(Software::Kvm, feature.id).filter(|rule| rule.trees.contains(tree));
            words.extend(own.filter_map(|rule| Some(rule.remedy?.text)));
        }
        let step = self.view.kvm_step(bit).map(|step| step.rule.0);
        words.extend(step.and_then(|id| Some(rules::rule(id)?.remedy?.text)));
        words.extend(step.and_then(|id| Some(rules::condition(id)?.remedy?.text)));
        if bit.leaf == PMU_LEAF {
            words.extend(rules::generic(Software::Kvm, "pmu-leaf").and_then(|rule| Some(rule.remedy?.text)));
        }
        words.into_iter().for_each(|text| self.parameters(tree, text));
    }

    /// The settings of module parameters, `name=value`, that a remedy's words name.
    fn parameters(&mut self, tree: usize, text: &str) {
        let vendor = match self.snapshot.vendor() {
            Some(Vendor::Amd | Vendor::Hygon) => "kvm_amd",
            _ => "kvm_intel",
        };
        let is_end = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '.' | '=');
        for (name, value) in text.split(is_end).filter_map(|word| word.split_once('=')) {
            let (module, bare) = name.split_once('.').map_or((None, name), |(module, bare)| (Some(module), bare));
            let fits = |known: &&parameters::Parameter| {
                known.name == bare
                    && [vendor, "kvm"].contains(&known.module)
                    && module.is_none_or(|m| m == known.module)
            };
            let Some(known) = parameters::of_tree(tree).find(fits) else { continue };
            let name = format!("{}.{}", known.module, known.name);
            if self.parameter(&name).is_none_or(|now| now != value) {
                self.change(Change::Param { name, value: value.to_owned() });
            }
        }
    }

    /// The value of a parameter, as far as it was given or seen.
    fn parameter(&self, name: &str) -> Option<&str> {
        self.view.found.vcpu.kvm.as_ref()?.view.params.get(name).map(String::as_str)
    }
}
