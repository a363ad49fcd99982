//! What a name in `-cpu` defines on a machine type, before a host takes anything of it.

use std::collections::BTreeMap;

use cpusieve_knowledge::qemu::{self, Caches, PropertyKind};
use cpusieve_model::Place;

use super::cpu::Question;
use super::expansion::{Expansion, PropertyValue, values};
use super::featurestr::Arguments;
use super::instance::Instance;
use super::output::{has, set_bits};
use super::refusal::Refusal;
use super::words::Words;

/// A CPU as model, version, accelerator's defaults, machine type and `-cpu` define it, with the features that depend on
/// others settled; nothing is filtered.
#[derive(Clone, Debug)]
pub struct Definition {
    words: Words,
    /// Every property that can be set and is no feature, by the name that is no alias.
    pub properties: BTreeMap<&'static str, PropertyValue>,
    /// The cache table of the model; `None` if it shows the legacy ones.
    pub caches: Option<&'static Caches>,
}

impl Definition {
    /// The bits of QEMU's words that it has, in the order of the words.
    pub fn features(&self) -> impl Iterator<Item = Place> {
        set_bits(&self.words)
    }

    /// Whether it has this bit.
    #[must_use]
    pub fn has(&self, place: Place) -> bool {
        has(&self.words, place)
    }
}

/// What `question` defines: what `query-cpu-model-expansion` would tell on that machine type. The host matters for `max`
/// and `host` alone, and for the vendor, which KVM replaces.
///
/// # Errors
/// The release has no such model or property.
pub fn definition(question: Question<'_>) -> Result<Definition, Refusal> {
    let mut arguments = Arguments::parse(question.release, question.cpu);
    if let Some(refusal) = arguments.refusal.take() {
        return Err(refusal);
    }
    let mut instance = Instance::new(question, arguments)?;
    instance.device_post_init()?;
    instance.x86_cpu_expand_features()?;
    let mut properties = values(&mut instance, Expansion::Full);
    properties.retain(|name, _| {
        let known = qemu::property(question.release, name);
        known.is_some_and(|known| known.name == *name && known.kind != PropertyKind::Feature)
    });
    Ok(Definition { words: instance.cpu.words, properties, caches: instance.cpu.caches })
}
