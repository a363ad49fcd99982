//! Machine types, and what they and the accelerator set on CPUs.

use super::{COMPAT, Condition, DEFAULTS, MACHINE_NAMES, MACHINES, MAX_PROPERTIES, RELEASES};
use crate::TreeSet;

/// The family of a machine type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MachineKind {
    /// The i440FX board, `pc-i440fx-*` and `pc-1.*`.
    Pc,
    /// The Q35 board, `pc-q35-*`.
    Q35,
    /// `microvm`.
    Microvm,
    /// `isapc`.
    Isapc,
    /// `none`, which has no CPU.
    None,
    /// The i440FX board under Xen, `xenfv-*`.
    Xenfv,
    /// Any other.
    Other,
}

/// The version that a model named without one has on a machine (`target/i386/cpu.c:default_cpu_version`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DefaultCpuVersion {
    /// The definition without any version's properties.
    Legacy,
    /// Version 1.
    One,
    /// The newest version.
    Latest,
}

/// A machine type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The name: `pc-q35-9.2`.
    pub name: &'static str,
    /// Names that also stand for it: `q35`.
    pub aliases: &'static [&'static str],
    /// The family.
    pub kind: MachineKind,
    /// The QEMU release that it behaves like; `None` for families that change with QEMU.
    pub version: Option<(u16, u16)>,
    /// The version of models named without one.
    pub default_cpu_version: DefaultCpuVersion,
    /// The CPU without `-cpu`, as `-cpu` names it; `None` where there is none.
    pub default_cpu: Option<&'static str>,
    /// Why it is deprecated, in the words with which QEMU ends `Machine type 'NAME' is deprecated: `.
    pub deprecated: Option<&'static str>,
    /// Whether KVM's interrupt controller is split between kernel and QEMU unless `kernel-irqchip` says otherwise.
    pub irqchip_split_default: bool,
    /// The most CPUs.
    pub max_cpus: u32,
    /// The releases in which it is so.
    pub releases: TreeSet,
}

impl Machine {
    /// Whether it is a PC machine in QEMU's sense (`hw/i386/pc.c:TYPE_PC_MACHINE`).
    #[must_use]
    pub const fn is_pc(&self) -> bool {
        matches!(self.kind, MachineKind::Pc | MachineKind::Q35 | MachineKind::Isapc | MachineKind::Xenfv)
    }
}

/// A machine type that a release does not have. Displays with those that it has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("QEMU {label} has no machine type `{name}`; it has {known}", label = label(*release), known = known(*release))]
pub struct UnknownMachine {
    /// The name that was asked for.
    pub name: String,
    /// The position of the release in [`RELEASES`].
    pub release: usize,
}

fn label(release: usize) -> &'static str {
    RELEASES.get(release).map_or("?", |release| release.label)
}

fn known(release: usize) -> String {
    machines(release).map(|machine| machine.name).collect::<Vec<_>>().join(", ")
}

/// The machine types of a release: i440FX boards, Q35 boards, then the others, each newest first.
pub fn machines(release: usize) -> impl Iterator<Item = &'static Machine> {
    MACHINES.iter().filter(move |machine| machine.releases.contains(release))
}

/// The machine type of this name or alias.
///
/// # Errors
/// The release has none of this name.
pub fn machine(release: usize, name: &str) -> Result<&'static Machine, UnknownMachine> {
    let start = MACHINE_NAMES.partition_point(|(known, _)| *known < name);
    let rows = MACHINE_NAMES.get(start..).unwrap_or(&[]).iter().take_while(|(known, _)| *known == name);
    let mut found = rows.filter_map(|&(_, index)| MACHINES.get(usize::from(index)));
    let found = found.find(|machine| machine.releases.contains(release));
    found.ok_or_else(|| UnknownMachine { name: name.to_owned(), release })
}

/// A property of CPUs that machine types set (`hw/i386/pc.c:pc_compat_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompatProperty {
    /// The table that it stands in: machines of this version and older have it.
    pub table: (u16, u16),
    /// The CPU type that it is for, as `-cpu` names it; empty for every type. `EPYC` is not `EPYC-v1`.
    pub driver: &'static str,
    /// The property.
    pub property: &'static str,
    /// The value.
    pub value: &'static str,
    /// The releases whose machines set it.
    pub releases: TreeSet,
}

/// What a machine sets on CPUs, in the order in which it is applied: the newest table first, older ones later, so that
/// the oldest wins.
pub fn compat(release: usize, machine: &Machine) -> impl Iterator<Item = &'static CompatProperty> + use<> {
    let versioned = matches!(machine.kind, MachineKind::Pc | MachineKind::Q35 | MachineKind::Xenfv);
    let version = machine.version.filter(|_| versioned);
    COMPAT.iter().filter(move |property| {
        property.releases.contains(release) && version.is_some_and(|version| property.table >= version)
    })
}

/// What runs the guest's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accelerator {
    /// Linux's KVM.
    Kvm,
    /// QEMU's own translator.
    Tcg,
}

/// A property that an accelerator sets on built-in models (`target/i386/kvm/kvm-cpu.c:kvm_default_props`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultProperty {
    /// The accelerator.
    pub accelerator: Accelerator,
    /// The property.
    pub property: &'static str,
    /// The value.
    pub value: &'static str,
    /// What must hold, of [`Condition::IrqchipSplit`] and [`Condition::IrqchipInKernel`].
    pub conditions: &'static [Condition],
    /// i440FX machines of this version and older do not set it (`hw/i386/pc_piix.c:pc_compat_2_1_fn` and others).
    pub except_i440fx_up_to: Option<(u16, u16)>,
    /// The releases that set it.
    pub releases: TreeSet,
}

/// What an accelerator sets on built-in models on a machine, in order: of two for one property the later wins. Their
/// conditions are the caller's to decide.
pub fn default_properties(
    release: usize,
    accelerator: Accelerator,
    machine: &Machine,
) -> impl Iterator<Item = &'static DefaultProperty> + use<> {
    let old = machine.version.filter(|_| machine.kind == MachineKind::Pc);
    DEFAULTS.iter().filter(move |default| {
        let taken_back = old.zip(default.except_i440fx_up_to).is_some_and(|(version, last)| version <= last);
        default.accelerator == accelerator && default.releases.contains(release) && !taken_back
    })
}

/// When `-cpu max` has one of its properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MaxMoment {
    /// From the start: machine and `-cpu` may change it.
    Init,
    /// When it is realized, if its family is still 0 then (`target/i386/cpu.c:max_x86_cpu_realize`).
    FamilyUnset {
        /// Whether the property `lm` is on by then: `lm=on` was given. `+lm` comes too late, as do max's own features.
        lm: bool,
    },
}

/// A property that `-cpu max` and `host` have of themselves (`target/i386/cpu.c:max_x86_cpu_initfn`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxProperty {
    /// The accelerator. Under KVM vendor, family, model, stepping and model id are the host's, and not here.
    pub accelerator: Accelerator,
    /// The property.
    pub property: &'static str,
    /// The value.
    pub value: &'static str,
    /// When it is set.
    pub moment: MaxMoment,
    /// The releases that set it.
    pub releases: TreeSet,
}

/// What `-cpu max`, and `host` with it, has of itself.
pub fn max_properties(release: usize, accelerator: Accelerator) -> impl Iterator<Item = &'static MaxProperty> {
    MAX_PROPERTIES.iter().filter(move |row| row.accelerator == accelerator && row.releases.contains(release))
}
