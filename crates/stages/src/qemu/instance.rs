//! A CPU object until realize: model, version, accelerator's defaults, machine type, `-cpu`
//! (`target/i386/cpu.c:x86_cpu_initfn`, `x86_cpu_load_model`; `hw/core/qdev.c:device_post_init`).

use std::borrow::Cow;

use cpusieve_knowledge::qemu::{self, Condition, PropertyKind, Resolved, WORD_COUNT};
use cpusieve_model::{Register, Registers};

use super::cpu::{Accelerator, COMPONENTS, Cpu, Irqchip, Question, XsaveArea};
use super::featurestr::{Argument, Arguments};
use super::fields::{Field, field};
use super::history::{History, Phase};
use super::program::Program;
use super::properties::{OnOffAuto, Properties};
use super::refusal::{Refusal, releases_with};
use super::release;
use super::supported::Offer;
use super::value::{Reader, Value};
use super::words::{FEAT_1_ECX, FEAT_7_1_EDX, FEAT_24_0_EBX, FEAT_24_1_ECX, W, Words};

/// HYPERVISOR, which load sets in every built-in model.
const HYPERVISOR: u64 = 1 << 31;
/// AVX10 in 7.1.EDX, and its three vector lengths in 24.0.EBX.
pub(super) const AVX10: u64 = 1 << 19;
const AVX10_LENGTHS: u64 = 7 << 16;
const AVX10_VNNI_INT: u64 = 1 << 2;

/// The class of a CPU object.
#[derive(Clone, Copy, Debug)]
pub(super) enum Class {
    /// A built-in model.
    Model(Resolved),
    /// `max`, and `host` if it needs a host.
    Max { host: bool },
    /// `base`
    Base,
}

/// A CPU object on its way through QEMU.
pub(super) struct Instance<'a> {
    pub cpu: Cpu<'a>,
    pub class: Class,
    pub offer: Offer<'a>,
    pub program: &'static Program,
    pub arguments: Arguments<'a>,
    /// `env->user_features`: the bits that machine type or user touched.
    pub user: Words,
    /// The bits that the machine type touched.
    pub machine_touched: Words,
    /// What the accelerator supports of each word.
    pub supported: Words,
    /// `cpu->filtered_features`
    pub filtered: Words,
    pub lines: Vec<Line>,
    pub history: History,
}

/// A line that QEMU prints.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub text: String,
    /// Whether every vCPU prints it again.
    pub repeats: bool,
}

impl<'a> Instance<'a> {
    /// `cpu_class_by_name` and `x86_cpu_initfn`.
    ///
    /// # Errors
    /// The release has no such model.
    pub(super) fn new(question: Question<'a>, arguments: Arguments<'a>) -> Result<Self, Refusal> {
        let name = arguments.name;
        let class = match (name, qemu::resolve(question.release, name)) {
            (_, Some(resolved)) => Class::Model(resolved),
            ("max", None) => Class::Max { host: false },
            ("host", None) => Class::Max { host: true },
            ("base", None) => Class::Base,
            _ if question.cpu.is_empty() => return Err(Refusal::at("-cpu option cannot be empty", 0)),
            (_, None) => return Err(Refusal::unknown_model(name)),
        };
        let program = Program::of(question.release);
        let offer = Offer::of(question);
        let mut instance = Self {
            cpu: blank(question),
            class,
            offer,
            program,
            arguments,
            user: [0; WORD_COUNT],
            machine_touched: [0; WORD_COUNT],
            supported: offer.words(program),
            filtered: [0; WORD_COUNT],
            lines: Vec::new(),
            history: History::new(),
        };
        instance.x86_cpu_initfn();
        Ok(instance)
    }

    pub(super) fn release(&self) -> usize {
        self.cpu.question.release
    }

    pub(super) fn is_kvm(&self) -> bool {
        self.cpu.question.accelerator.is_kvm()
    }

    /// Keeps the words as a step of QEMU's left them.
    pub(super) fn record(&mut self, phase: Phase) {
        self.history.record(phase, &self.cpu.words);
    }

    pub(super) fn say(&mut self, text: impl Into<String>, repeats: bool) {
        self.lines.push(Line { text: text.into(), repeats });
    }

    fn x86_cpu_initfn(&mut self) {
        match self.class {
            Class::Model(resolved) => self.x86_cpu_load_model(resolved),
            Class::Max { .. } => self.max_x86_cpu_initfn(),
            Class::Base => {}
        }
        // From 10.1 on host_cpu_instance_init() gives every class the host's vendor.
        let every = self.release() >= release::V11_1 && matches!(self.class, Class::Base);
        if self.is_kvm() && (every || matches!(self.class, Class::Model(_))) {
            self.cpu.properties.vendor = self.offer.host.vendor();
        }
        if matches!(self.class, Class::Model(_)) && self.release() >= release::V7_2 {
            self.accel_default_props();
        }
    }

    fn x86_cpu_load_model(&mut self, resolved: Resolved) {
        let Resolved { model, .. } = resolved;
        let old = self.release() < release::V7_2;
        let properties = &mut self.cpu.properties;
        properties.min_level = model.level;
        properties.min_xlevel = model.xlevel;
        (properties.family, properties.model, properties.stepping) = (model.family, model.model, model.stepping);
        properties.model_id = Cow::Borrowed(model.model_id.as_bytes());
        properties.vendor = model.vendor.as_bytes().try_into().unwrap_or_default();
        for &(word, value) in model.words {
            if let Some(slot) = qemu::word_position(word).and_then(|at| self.cpu.words.get_mut(at)) {
                *slot = value;
            }
        }
        *self.cpu.feature_mut(FEAT_1_ECX) |= HYPERVISOR;
        self.record(Phase::Model);
        if old {
            self.accel_default_props();
        }
        if model.avx10_version != 0 {
            self.set_avx10_version(model.avx10_version);
        }
        self.cpu.properties.force_cpuid_0x1f = model.force_cpuid_0x1f;
        self.x86_cpu_apply_version_props(resolved);
        self.cpu.properties.legacy_cache = self.cpu.caches.is_none();
        self.user = [0; WORD_COUNT];
    }

    /// `x86_cpu_apply_version_props` and `x86_cpu_get_versioned_cache_info`: the base model's cache table alone counts
    /// before 9.0.
    fn x86_cpu_apply_version_props(&mut self, resolved: Resolved) {
        self.cpu.caches = resolved.model.caches;
        let machine = self.cpu.question.machine.default_cpu_version;
        let last = resolved.version_on(self.release(), machine).unwrap_or(0);
        for version in resolved.model.versions(self.release()).take_while(|version| version.number <= last) {
            for &(name, value) in version.properties {
                self.set_known(name, value);
            }
            if self.release() >= release::V10_0 && version.caches.is_some() {
                self.cpu.caches = version.caches;
            }
        }
        self.record(Phase::Version);
    }

    /// `x86_cpu_apply_props` with `kvm_default_props` or `x86_tcg_default_props`.
    fn accel_default_props(&mut self) {
        let question = self.cpu.question;
        let accelerator = match question.accelerator {
            Accelerator::Kvm { .. } => qemu::Accelerator::Kvm,
            Accelerator::Tcg => qemu::Accelerator::Tcg,
        };
        let holds = |condition: &Condition| match condition {
            Condition::IrqchipSplit => question.irqchip == Irqchip::Split,
            Condition::IrqchipInKernel(kernel) => (question.irqchip != Irqchip::Off) == *kernel,
            _ => false,
        };
        for default in qemu::default_properties(question.release, accelerator, question.machine) {
            if default.conditions.iter().all(holds) {
                self.set_known(default.property, default.value);
            }
        }
        self.record(Phase::Defaults);
    }

    fn max_x86_cpu_initfn(&mut self) {
        let (release, kvm) = (self.release(), self.is_kvm());
        let (offer, properties) = (self.offer, &mut self.cpu.properties);
        properties.pmu = kvm || release < release::V11_1;
        if !kvm {
            properties.vendor = *b"AuthenticAMD";
            properties.model_id = Cow::Borrowed(b"QEMU TCG CPU version 2.5+");
            (properties.family, properties.model, properties.stepping) = match release {
                0 => (6, 6, 3),
                release::V7_2 => (15, 107, 1),
                // Since 9.0 realize sets them.
                _ => (0, 0, 0),
            };
            return;
        }
        properties.vendor = offer.host.vendor();
        (properties.family, properties.model, properties.stepping) = offer.host.signature();
        properties.model_id = Cow::Owned(host_cpu_fill_model_id(&offer));
        // Since 6.0.
        properties.host_phys_bits = release >= release::V7_2;
        let level = |leaf| offer.kvm_arch_get_supported_cpuid(leaf, 0, Register::Eax);
        properties.min_level = level(0);
        properties.min_xlevel = level(0x8000_0000);
        properties.min_xlevel2 = level(0xc000_0000);
    }

    /// `object_apply_compat_props` and `object_apply_global_props`: machine type, then `-cpu`.
    ///
    /// # Errors
    /// A property is unknown, or does not take its value.
    pub(super) fn device_post_init(&mut self) -> Result<(), Refusal> {
        let question = self.cpu.question;
        let name = self.arguments.name;
        let before = std::mem::replace(&mut self.user, [0; WORD_COUNT]);
        for compat in qemu::compat(question.release, question.machine) {
            // `host` is a kind of `max`.
            if compat.driver.is_empty() || compat.driver == name || compat.driver == "max" && name == "host" {
                self.set_known(compat.property, compat.value);
            }
        }
        self.record(Phase::Machine);
        self.machine_touched = self.user;
        for (user, before) in self.user.iter_mut().zip(before) {
            *user |= before;
        }
        for argument in std::mem::take(&mut self.arguments.globals) {
            self.set(&argument).map_err(|message| {
                let Argument { name: property, shown, .. } = &argument;
                let prefix = format!("can't apply global {name}-x86_64-cpu.{property}={shown}: ");
                self.refuse(&argument, prefix + &message)
            })?;
        }
        self.record(Phase::Asked);
        Ok(())
    }

    /// The plus list, then the minus list (`x86_cpu_expand_features`).
    ///
    /// # Errors
    /// A property is unknown, or no switch.
    pub(super) fn set_plus_and_minus(&mut self) -> Result<(), Refusal> {
        let plus = std::mem::take(&mut self.arguments.plus);
        let minus = std::mem::take(&mut self.arguments.minus);
        for argument in plus.iter().chain(&minus) {
            self.set(argument).map_err(|message| self.refuse(argument, message))?;
        }
        self.record(Phase::Asked);
        Ok(())
    }

    fn refuse(&self, argument: &Argument<'_>, message: String) -> Refusal {
        let knows = |release| {
            qemu::property(release, &argument.name).is_some_and(|property| !property.max_only || self.is_max())
        };
        let known_in = if knows(self.release()) { cpusieve_knowledge::TreeSet::EMPTY } else { releases_with(knows) };
        Refusal { known_in, ..Refusal::at(message, argument.offset) }
    }

    pub(super) fn is_max(&self) -> bool {
        matches!(self.class, Class::Max { .. })
    }

    /// Sets a property that the tables say exists: laws of the knowledge test that.
    fn set_known(&mut self, name: &'static str, value: &'static str) {
        let known =
            Argument { name: Cow::Borrowed(name), value: Value::Text(value), shown: Cow::Borrowed(value), offset: 0 };
        self.set(&known).ok();
    }

    /// `object_property_parse` and `object_property_set_bool`.
    fn set(&mut self, argument: &Argument<'a>) -> Result<(), String> {
        let (release, name) = (self.release(), argument.name.as_ref());
        let reader = Reader { release, name };
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

    fn x86_cpu_set_bit_prop(&mut self, place: cpusieve_model::Place, on: bool) {
        let bit = match place {
            cpusieve_model::Place::Cpuid(bit) => bit.bit,
            cpusieve_model::Place::Msr(bit) => bit.bit,
            cpusieve_model::Place::Linux(_) => return,
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
                self.set_avx10_version(version);
            }
        }
        Ok(())
    }

    /// The property `avx10-version`: since 10.1 or so it turns on what the version holds; in 10.0 it is a number.
    pub(super) fn set_avx10_version(&mut self, version: u8) {
        self.cpu.properties.avx10_version = version;
        if self.release() < release::V11_1 {
            return;
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
    }
}

/// An object with the class's defaults.
fn blank(question: Question<'_>) -> Cpu<'_> {
    Cpu {
        question,
        words: [0; WORD_COUNT],
        properties: Properties::of(question.release),
        level: 0,
        xlevel: 0,
        xlevel2: 0,
        level_func7: 0,
        phys_bits: 0,
        guest_phys_bits: 0,
        caches: None,
        xsave: [XsaveArea::default(); COMPONENTS],
        mwait: Registers::default(),
        tsc_khz: 0,
        avx10_max_subleaf: 0,
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

/// Leaves 80000002H to 80000004H of the host, up to the first zero byte.
fn host_cpu_fill_model_id(offer: &Offer<'_>) -> Vec<u8> {
    let leaves = (0x8000_0002..=0x8000_0004).map(|leaf| offer.host.cpuid(leaf, 0));
    let registers = leaves.flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]);
    registers.flat_map(u32::to_le_bytes).take_while(|&byte| byte != 0).collect()
}
