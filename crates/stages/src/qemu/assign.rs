//! Properties are set: by model, accelerator, machine type and `-cpu` alike (`qom/object.c:object_property_parse`,
//! `object_property_set_bool`; `target/i386/cpu.c:x86_cpu_set_bit_prop`).

use std::borrow::Cow;

use cpusieve_knowledge::qemu::{self, PropertyKind};
use cpusieve_model::Place;

use super::featurestr::Argument;
use super::fields::{Field, field};
use super::instance::{AVX10, Instance};
use super::properties::OnOffAuto;
use super::release;
use super::value::{Reader, Value};
use super::words::{FEAT_7_1_EDX, FEAT_24_0_EBX, FEAT_24_1_ECX, W};

/// The three vector lengths of AVX10 in 24.0.EBX.
const AVX10_LENGTHS: u64 = 7 << 16;
/// The newest version of AVX10 that 11.1 knows.
const NEWEST_AVX10: u8 = 2;
/// AVX10_VNNI_INT in 24.1.ECX.
const AVX10_VNNI_INT: u64 = 1 << 2;

impl<'a> Instance<'a> {
    /// Sets a property that the tables say exists: laws of the knowledge test that.
    pub(super) fn set_known(&mut self, name: &'static str, value: &'static str) {
        let known =
            Argument { name: Cow::Borrowed(name), value: Value::Text(value), shown: Cow::Borrowed(value), offset: 0 };
        self.set(&known).ok();
    }

    /// `object_property_parse` and `object_property_set_bool`.
    pub(super) fn set(&mut self, argument: &Argument<'a>) -> Result<(), String> {
        let (release, name) = (self.release(), argument.name.as_ref());
        // Before 6.0 or so an alias hands the value on under the name behind it.
        let behind = if release < release::V7_2 { qemu::property(release, name) } else { None };
        let reader = Reader { release, name: behind.map_or(name, |property| property.name) };
        let mut places = qemu::places(release, name).peekable();
        if places.peek().is_some() {
            let on = reader.boolean(argument.value)?;
            for place in places {
                self.x86_cpu_set_bit_prop(place, on);
            }
            return Ok(());
        }
        let property = qemu::property(release, name).filter(|property| !property.max_only || self.is_max());
        let Some(property) = property else {
            return Err(format!("Property '{}-x86_64-cpu.{name}' not found", self.arguments.name));
        };
        match field(property.name) {
            Some(field) => self.set_field(field, &reader, argument.value),
            None => check(property.kind, &reader, argument.value),
        }
    }

    fn x86_cpu_set_bit_prop(&mut self, place: Place, on: bool) {
        let bit = match place {
            Place::Cpuid(bit) => bit.bit,
            Place::Msr(bit) => bit.bit,
            Place::Linux(_) => return,
        };
        let at = qemu::Word::of(place).and_then(qemu::word_position);
        let Some(at) = at else { return };
        let mask = 1 << bit;
        let slot = self.cpu.feature_mut(W(at));
        *slot = if on { *slot | mask } else { *slot & !mask };
        if let Some(user) = self.user.get_mut(at) {
            *user |= mask;
        }
    }

    fn set_field(&mut self, field: Field, reader: &Reader<'_>, value: Value<'a>) -> Result<(), String> {
        let properties = &mut self.cpu.properties;
        match field {
            Field::Bool(of) => *of(properties) = reader.boolean(value)?,
            Field::U8(of) => *of(properties) = reader.unsigned(value, 8)? as u8,
            Field::U16(of) => *of(properties) = reader.unsigned(value, 16)? as u16,
            Field::U32(of) => *of(properties) = reader.unsigned(value, 32)? as u32,
            Field::U64(of) => *of(properties) = reader.unsigned(value, 64)?,
            Field::I32(of) => *of(properties) = reader.signed(value, 32)? as i32,
            Field::OnOffAuto(of) => *of(properties) = on_off_auto(reader, value)?,
            Field::Hyperv(bit) => {
                let mask = 1 << bit;
                let features = &mut properties.hyperv.features;
                *features = if reader.boolean(value)? { *features | mask } else { *features & !mask };
            }
            Field::Identity(of, maximum) => *of(properties) = reader.identity(value, maximum)?,
            Field::Masked(of, mask) => *of(properties) = reader.masked(value, mask)?,
            Field::TscFrequency => properties.tsc_frequency = reader.frequency(value)?,
            Field::Vendor => properties.vendor = reader.vendor(value)?,
            Field::ModelId => properties.model_id = Cow::Borrowed(model_id(reader.text(value)?)),
            Field::HypervVendor => properties.hyperv.vendor = Some(reader.text(value)?),
            Field::Avx10Version => {
                let version = reader.unsigned(value, 8)? as u8;
                self.set_avx10_version(version)?;
            }
        }
        Ok(())
    }

    /// The property `avx10-version` (`x86_cpu_apply_avx10_features`): since 11.0 it turns on what the versions up to this
    /// one hold; in 10.0 it is a number.
    pub(super) fn set_avx10_version(&mut self, version: u8) -> Result<(), String> {
        if self.release() < release::V11_1 || version <= NEWEST_AVX10 {
            self.cpu.properties.avx10_version = version;
        }
        if self.release() < release::V11_1 {
            return Ok(());
        }
        if version == 0 {
            self.cpu.avx10_max_subleaf = 0;
        }
        if version >= 1 {
            *self.cpu.feature_mut(FEAT_7_1_EDX) |= AVX10;
            *self.cpu.feature_mut(FEAT_24_0_EBX) |= AVX10_LENGTHS;
            self.cpu.avx10_max_subleaf = 0;
        }
        if version >= 2 {
            *self.cpu.feature_mut(FEAT_24_1_ECX) |= AVX10_VNNI_INT;
            self.cpu.avx10_max_subleaf = 1;
        }
        if version > NEWEST_AVX10 {
            return Err(format!("avx10-version can be at most {NEWEST_AVX10}"));
        }
        Ok(())
    }
}

/// Reads a value for a property on which nothing depends here, for its refusal.
fn check(kind: PropertyKind, reader: &Reader<'_>, value: Value<'_>) -> Result<(), String> {
    match kind {
        PropertyKind::Feature | PropertyKind::Bool => reader.boolean(value).map(drop),
        PropertyKind::Uint { bits } => reader.unsigned(value, u32::from(bits)).map(drop),
        PropertyKind::Int { bits } => reader.signed(value, u32::from(bits)).map(drop),
        PropertyKind::Str | PropertyKind::Link => reader.text(value).map(drop),
        PropertyKind::OnOffAuto => on_off_auto(reader, value).map(drop),
        PropertyKind::ReadOnly => Err("Insufficient permission to perform this operation".to_owned()),
    }
}

fn on_off_auto(reader: &Reader<'_>, value: Value<'_>) -> Result<OnOffAuto, String> {
    match reader.text(value)? {
        "on" => Ok(OnOffAuto::On),
        "off" => Ok(OnOffAuto::Off),
        "auto" => Ok(OnOffAuto::Auto),
        other => Err(format!("Parameter '{}' does not accept value '{other}'", reader.name)),
    }
}

/// The first 48 bytes (`x86_cpuid_set_model_id`).
fn model_id(text: &str) -> &[u8] {
    let bytes = text.as_bytes();
    bytes.get(..48).unwrap_or(bytes)
}
