//! A CPU object until realize: model, version, accelerator's defaults, machine type, `-cpu`
//! (`target/i386/cpu.c:x86_cpu_initfn`, `x86_cpu_load_model`; `hw/core/qdev.c:device_post_init`).

use std::borrow::Cow;

use cpusieve_knowledge::qemu::{self, Condition, Resolved, WORD_COUNT};
use cpusieve_model::{Register, Registers};

use super::cpu::{Accelerator, COMPONENTS, Cpu, Irqchip, Question, XsaveArea};
use super::featurestr::{Argument, Arguments};
use super::history::{History, Phase};
use super::program::Program;
use super::properties::Properties;
use super::refusal::{Refusal, releases_with};
use super::release;
use super::supported::Offer;
use super::words::{FEAT_1_ECX, Words};

/// HYPERVISOR, which load sets in every built-in model.
const HYPERVISOR: u64 = 1 << 31;
/// AVX10 in 7.1.EDX.
pub(super) const AVX10: u64 = 1 << 19;

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
            self.set_avx10_version(model.avx10_version).ok();
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

/// Leaves 80000002H to 80000004H of the host, up to the first zero byte.
fn host_cpu_fill_model_id(offer: &Offer<'_>) -> Vec<u8> {
    let leaves = (0x8000_0002..=0x8000_0004).map(|leaf| offer.host.cpuid(leaf, 0));
    let registers = leaves.flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]);
    registers.flat_map(u32::to_le_bytes).take_while(|&byte| byte != 0).collect()
}
