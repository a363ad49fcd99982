//! What only a running binary tells, by its answers to QMP.

/// The answers of a binary that the tables keep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BinaryFacts {
    /// `query-machines`.
    pub machines: Vec<BinaryMachine>,
    /// `qom-list-properties` of the CPU types `max` and `qemu64`, one entry a property, the feature bits among them.
    pub properties: Vec<BinaryProperty>,
}

/// A machine type of `query-machines`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BinaryMachine {
    /// `name`.
    pub name: String,
    /// `alias`.
    pub alias: Option<String>,
    /// `cpu-max`.
    pub max_cpus: u32,
    /// `default-cpu-type`, without the type's suffix: `qemu64`.
    pub default_cpu: Option<String>,
    /// `deprecated`. Why, QMP does not say.
    pub deprecated: bool,
}

/// A property of CPU objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BinaryProperty {
    /// `name`.
    pub name: String,
    /// `type`, as QMP writes it: `bool`, `uint32`, `link<memory-region>`.
    pub kind: String,
    /// `default-value`: `on` and `off` for a boolean, a decimal number.
    pub default: Option<String>,
    /// Whether `max` has it, and `qemu64` has not.
    pub max_only: bool,
}
