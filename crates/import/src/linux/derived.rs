//! What follows from a tree's tables: where a feature comes from, and what goes along with it.

use std::collections::BTreeSet;

use cpusieve_model::{CpuidBit, LinuxBit, Place};

use super::{Flag, LinuxFacts, Word};

impl LinuxFacts {
    /// Where a feature of these facts comes from: the register of its word, or its scattered bits in the kernel's order,
    /// or Linux itself.
    #[must_use]
    pub fn places(&self, flag: &Flag) -> Vec<Place> {
        if let Some((leaf, subleaf, register)) = self.words.get(usize::from(flag.word)).and_then(Word::source) {
            return vec![Place::Cpuid(CpuidBit::new(leaf, subleaf, register, flag.bit))];
        }
        let scattered = self.scattered.iter().filter(|bit| bit.macro_name == flag.macro_name);
        let places: Vec<Place> = scattered.map(|bit| Place::Cpuid(bit.place)).collect();
        if places.is_empty() { vec![Place::Linux(LinuxBit { word: flag.word, bit: flag.bit })] } else { places }
    }

    /// All macros that need a feature (a macro), through others too, in the order in which `do_clear_cpu_cap` of
    /// `cpuid-deps.c` finds them: pass after pass over the table until one finds nothing new.
    #[must_use]
    pub fn dependents<'a>(&'a self, cleared: &'a str) -> Vec<&'a str> {
        let mut gone = BTreeSet::from([cleared]);
        let mut order = Vec::new();
        loop {
            let before = order.len();
            for pair in &self.dependencies {
                if gone.contains(pair.needs.as_str()) && gone.insert(&pair.feature) {
                    order.push(pair.feature.as_str());
                }
            }
            if order.len() == before {
                return order;
            }
        }
    }
}
