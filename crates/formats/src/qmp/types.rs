//! What QEMU answers, by question. A member that is not known here, or whose value has another type than QEMU's schema
//! says, is kept in `other` as its JSON text.

use std::collections::BTreeMap;
use std::fmt;

use cpusieve_model::Register;

use super::text_of;
use crate::json::{Kind, Value};

/// A QEMU's version. Displays as `7.2.22`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Version {
    /// `7`
    pub major: u64,
    /// `2`
    pub minor: u64,
    /// `22`
    pub micro: u64,
    /// What the distribution calls it; empty if it says nothing: `Debian 1:7.2+dfsg-7+deb12u18+b3`.
    pub package: String,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// One CPU model of `query-cpu-definitions` (`CpuDefinitionInfo`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuDefinition {
    /// What `-cpu` calls it: `SandyBridge-IBRS`.
    pub name: String,
    /// The QOM type: `SandyBridge-IBRS-x86_64-cpu`.
    pub typename: Option<String>,
    /// The version that the name means on the machine that runs: `SandyBridge-v2`.
    pub alias_of: Option<String>,
    /// Whether the expansion depends on nothing but the name.
    pub is_static: Option<bool>,
    /// Whether a guest with this model may be migrated.
    pub migration_safe: Option<bool>,
    /// Whether QEMU advises against it.
    pub deprecated: Option<bool>,
    /// Features of the model that this host and accelerator lack. `None`: QEMU does not say.
    pub unavailable_features: Option<Vec<String>>,
    /// All else that QEMU says of it.
    pub other: BTreeMap<String, String>,
}

/// One machine type of `query-machines` (`MachineInfo`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineType {
    /// `pc-q35-7.2`
    pub name: String,
    /// A second name: `q35`.
    pub alias: Option<String>,
    /// Whether it is the one without `-machine`. QEMU names the one alone.
    pub is_default: bool,
    /// The most vCPUs it can have.
    pub cpu_max: Option<u64>,
    /// The QOM type of its CPU without `-cpu`: `qemu64-x86_64-cpu`.
    pub default_cpu_type: Option<String>,
    /// Whether QEMU advises against it.
    pub deprecated: Option<bool>,
    /// All else that QEMU says of it.
    pub other: BTreeMap<String, String>,
}

/// One property of a type or an object (`ObjectPropertyInfo`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectProperty {
    /// `hv-spinlocks`
    pub name: String,
    /// QOM's word for its type: `bool`, `uint32`, `OnOffAuto`, `child<irq>`.
    pub kind: String,
    /// What QEMU says of it.
    pub description: Option<String>,
    /// Its default, as JSON text. `None`: it has none, or this QEMU does not say.
    pub default: Option<String>,
    /// All else that QEMU says of it.
    pub other: BTreeMap<String, String>,
}

/// One register of a vCPU's `feature-words` or `filtered-features` (`X86CPUFeatureWordInfo`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeatureWord {
    /// EAX on input.
    pub leaf: u32,
    /// ECX on input, if the leaf looks at it.
    pub subleaf: Option<u32>,
    /// The output register.
    pub register: Register,
    /// The bits.
    pub bits: u32,
}

/// Where a vCPU is in the object tree (`CpuInfoFast`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VcpuPath {
    /// Its number.
    pub index: u64,
    /// `/machine/unattached/device[0]`
    pub path: String,
    /// All else that QEMU says of it.
    pub other: BTreeMap<String, String>,
}

/// The members of one object, from which those that are known are taken.
struct Members<'d>(BTreeMap<String, Value<'d>>);

impl<'d> Members<'d> {
    fn of(object: Value<'d>) -> Option<Self> {
        let members = || object.members().map(|(name, value)| (name.into_owned(), value)).collect();
        (object.kind() == Kind::Object).then(|| Self(members()))
    }

    /// Takes a member if `read` can read it.
    fn take<T>(&mut self, name: &str, read: impl FnOnce(Value<'d>) -> Option<T>) -> Option<T> {
        let value = read(*self.0.get(name)?)?;
        self.0.remove(name);
        Some(value)
    }

    /// What was not taken, as JSON texts.
    fn rest(self) -> BTreeMap<String, String> {
        self.0.into_iter().map(|(name, value)| (name, text_of(value))).collect()
    }

    fn text(&mut self, name: &str) -> Option<String> {
        self.take(name, |value| Some(value.text()?.into_owned()))
    }

    fn bool(&mut self, name: &str) -> Option<bool> {
        self.take(name, Value::bool)
    }

    fn u64(&mut self, name: &str) -> Option<u64> {
        self.take(name, Value::u64)
    }
}

/// All items of an array; `None` if it is none, or if one item cannot be read.
pub(super) fn all<'d, T>(array: Value<'d>, read: impl Fn(Value<'d>) -> Option<T>) -> Option<Vec<T>> {
    if array.kind() == Kind::Array { array.items().map(read).collect() } else { None }
}

impl Version {
    /// `{"qemu":{"micro":22,"minor":2,"major":7},"package":".."}`
    pub(super) fn read(object: Value<'_>) -> Option<Self> {
        let numbers = object.get("qemu")?;
        let part = |name| numbers.get(name).and_then(Value::u64);
        let package = object.get("package").and_then(Value::text).unwrap_or_default().trim().to_owned();
        Some(Self { major: part("major")?, minor: part("minor")?, micro: part("micro")?, package })
    }
}

impl CpuDefinition {
    pub(super) fn read(object: Value<'_>) -> Option<Self> {
        let mut members = Members::of(object)?;
        Some(Self {
            name: members.text("name")?,
            typename: members.text("typename"),
            alias_of: members.text("alias-of"),
            is_static: members.bool("static"),
            migration_safe: members.bool("migration-safe"),
            deprecated: members.bool("deprecated"),
            unavailable_features: members
                .take("unavailable-features", |list| all(list, |name| Some(name.text()?.into_owned()))),
            other: members.rest(),
        })
    }
}

impl MachineType {
    pub(super) fn read(object: Value<'_>) -> Option<Self> {
        let mut members = Members::of(object)?;
        Some(Self {
            name: members.text("name")?,
            alias: members.text("alias"),
            is_default: members.bool("is-default").unwrap_or(false),
            cpu_max: members.u64("cpu-max"),
            default_cpu_type: members.text("default-cpu-type"),
            deprecated: members.bool("deprecated"),
            other: members.rest(),
        })
    }
}

impl ObjectProperty {
    pub(super) fn read(object: Value<'_>) -> Option<Self> {
        let mut members = Members::of(object)?;
        Some(Self {
            name: members.text("name")?,
            kind: members.text("type")?,
            description: members.text("description"),
            default: members.take("default-value", |value| Some(text_of(value))),
            other: members.rest(),
        })
    }
}

impl FeatureWord {
    /// `{"cpuid-register":"EDX","cpuid-input-ecx":1,"cpuid-input-eax":13,"features":0}`
    pub(super) fn read(object: Value<'_>) -> Option<Self> {
        let number = |name| object.get(name).and_then(Value::u64).and_then(|number| u32::try_from(number).ok());
        let subleaf = match object.get("cpuid-input-ecx") {
            Some(_) => Some(number("cpuid-input-ecx")?),
            None => None,
        };
        let register = Register::from_name(&object.get("cpuid-register")?.text()?)?;
        Some(Self { leaf: number("cpuid-input-eax")?, subleaf, register, bits: number("features")? })
    }
}

impl VcpuPath {
    pub(super) fn read(object: Value<'_>) -> Option<Self> {
        let mut members = Members::of(object)?;
        Some(Self { index: members.u64("cpu-index")?, path: members.text("qom-path")?, other: members.rest() })
    }
}
