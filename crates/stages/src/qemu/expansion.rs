//! QMP's `query-cpu-model-expansion` (`target/i386/cpu-system.c`): a model without machine, vCPU or filter.

use std::collections::BTreeMap;

use cpusieve_knowledge::qemu::{self, Property, PropertyKind};

use super::cpu::{Accelerator, Irqchip, Question, Smp};
use super::featurestr::Arguments;
use super::fields::{Field, field};
use super::instance::Instance;
use super::leaves::Protected;
use super::output::has;
use super::properties::{OnOffAuto, Properties};
use super::refusal::Refusal;

/// How much `query-cpu-model-expansion` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expansion {
    /// Every property that can be set, aliases included.
    Full,
    /// Every feature, and what identifies a model beside them.
    Static,
}

/// The value of a property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PropertyValue {
    /// A switch.
    Bool(bool),
    /// A number.
    Number(i128),
    /// Text, or the name of a choice.
    Text(String),
}

/// What a static expansion shows beside features (`x86_cpu_static_props`).
const STATIC: [&str; 8] = ["min-level", "min-xlevel", "family", "model", "stepping", "model-id", "vendor", "lmce"];

/// The properties of `model` (`-cpu`'s text) as a QEMU under `-machine none` tells them. Bits are in it that a guest
/// would not get, because nothing is filtered.
///
/// # Errors
/// The release has no such model or property, or KVM lacks a Hyper-V enlightenment.
pub fn expansion(
    release: usize,
    accelerator: Accelerator<'_>,
    model: &str,
    expansion: Expansion,
) -> Result<BTreeMap<&'static str, PropertyValue>, Refusal> {
    let machine = qemu::machine(release, "none").map_err(|unknown| Refusal::plain(unknown.to_string()))?;
    let irqchip = Irqchip::of(machine);
    let smp = Smp::default();
    let question = Question {
        release,
        machine,
        accelerator,
        cpu: model,
        smp,
        cpu_pm: false,
        irqchip,
        protected: Protected::default(),
    };
    let mut arguments = Arguments::parse(release, model);
    if let Some(refusal) = arguments.refusal.take() {
        return Err(refusal);
    }
    let mut instance = Instance::new(question, arguments)?;
    instance.device_post_init()?;
    instance.x86_cpu_expand_features()?;
    Ok(values(&mut instance, expansion))
}

pub(super) fn values(instance: &mut Instance<'_>, expansion: Expansion) -> BTreeMap<&'static str, PropertyValue> {
    let release = instance.release();
    let mut values = BTreeMap::new();
    for property in qemu::properties(release) {
        let shown = match expansion {
            Expansion::Full => settable(&property) && (!property.max_only || instance.is_max()),
            Expansion::Static => property.kind == PropertyKind::Feature || STATIC.contains(&property.name),
        };
        if shown {
            values.insert(property.name, value(instance, &property));
        }
    }
    if expansion == Expansion::Full {
        for &(alias, _) in qemu::aliases() {
            if let Some(target) = qemu::property(release, alias)
                && let Some(value) = values.get(target.name).cloned()
            {
                values.insert(alias, value);
            }
        }
        for (alias, target) in qemu::property_aliases(release) {
            if let Some(value) = values.get(target).cloned() {
                values.insert(alias, value);
            }
        }
    }
    values
}

/// Whether `x86_cpu_to_dict_full` shows it: not what cannot be set, and not `hotplugged`. Links to other objects, which
/// say nothing of the CPU, are left out here.
fn settable(property: &Property) -> bool {
    !matches!(property.kind, PropertyKind::ReadOnly | PropertyKind::Link)
        && !matches!(property.name, "hotplugged" | "legacy-memory")
}

fn value(instance: &mut Instance<'_>, property: &Property) -> PropertyValue {
    if property.kind == PropertyKind::Feature {
        let mut places = qemu::places(instance.release(), property.name);
        return PropertyValue::Bool(places.all(|place| has(&instance.cpu.words, place)));
    }
    let cpu = &mut instance.cpu;
    // Expansion settles the levels.
    for (name, level) in [("level", cpu.level), ("xlevel", cpu.xlevel), ("xlevel2", cpu.xlevel2)] {
        if property.name == name {
            return PropertyValue::Number(level.into());
        }
    }
    if property.name == "level-func7" {
        return PropertyValue::Number(cpu.level_func7.into());
    }
    match field(property.name) {
        Some(field) => of_field(&mut cpu.properties, field),
        None => of_default(property),
    }
}

fn of_field(properties: &mut Properties<'_>, field: Field) -> PropertyValue {
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        PropertyValue::Text(String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned())
    };
    match field {
        Field::Bool(of) => PropertyValue::Bool(*of(properties)),
        Field::U8(of) => PropertyValue::Number((*of(properties)).into()),
        Field::U16(of) => PropertyValue::Number((*of(properties)).into()),
        Field::U32(of) | Field::Identity(of, _) => PropertyValue::Number((*of(properties)).into()),
        Field::U64(of) | Field::Masked(of, _) => PropertyValue::Number((*of(properties)).into()),
        Field::I32(of) => PropertyValue::Number((*of(properties)).into()),
        Field::OnOffAuto(of) => PropertyValue::Text(of(properties).name().to_owned()),
        Field::Hyperv(bit) => PropertyValue::Bool(properties.hyperv.features >> bit & 1 == 1),
        // Kept in kilohertz.
        Field::TscFrequency => PropertyValue::Number((properties.tsc_frequency / 1000 * 1000).into()),
        Field::Vendor => text(&properties.vendor),
        Field::ModelId => text(&properties.model_id),
        Field::HypervVendor => PropertyValue::Text(properties.hyperv.vendor.unwrap_or_default().to_owned()),
        Field::Avx10Version => PropertyValue::Number(properties.avx10_version.into()),
    }
}

/// A property on which nothing depends here keeps its default.
fn of_default(property: &Property) -> PropertyValue {
    let default = property.default.unwrap_or_default();
    match property.kind {
        PropertyKind::Bool | PropertyKind::Feature => PropertyValue::Bool(default == "on"),
        PropertyKind::Uint { .. } | PropertyKind::Int { .. } => {
            PropertyValue::Number(default.parse().unwrap_or_default())
        }
        _ => PropertyValue::Text(default.to_owned()),
    }
}

impl OnOffAuto {
    const fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Auto => "auto",
        }
    }
}
