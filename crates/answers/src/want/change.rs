//! The changes that `want` may make, what each kind costs, and what it is.

use std::fmt;

use cpusieve_knowledge::linux;
use cpusieve_knowledge::qemu::RELEASES;

/// One change of a setting. No two changes of one solution touch the same setting.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// Another model in `-cpu`, or another version of the same.
    Model {
        /// The name.
        to: String,
        /// Which way it differs.
        kind: ModelKind,
    },
    /// A property of `-cpu`.
    Property {
        /// Its name.
        name: String,
        /// Its value; none if all that `-cpu` says of it is taken out.
        value: Option<String>,
        /// Whether a guest that has it cannot be migrated.
        unmigratable: bool,
    },
    /// `-overcommit cpu-pm=on`
    CpuPm,
    /// Another machine type.
    Machine {
        /// The name.
        to: String,
        /// Whether it is newer than the one that there is.
        newer: bool,
    },
    /// KVM in the place of TCG.
    Kvm,
    /// Another `-smp`.
    Smp(String),
    /// The guest kernel's command line.
    GuestCmdline(Word),
    /// A parameter of a KVM module.
    Param {
        /// `kvm_amd.nested`
        name: String,
        /// Its value.
        value: String,
    },
    /// Another release of the guest's kernel: a position in [`linux::TREES`].
    GuestKernel {
        /// The tree.
        tree: usize,
        /// Whether it is newer than the one that there is.
        newer: bool,
        /// Whether all known newer ones are so too.
        onwards: bool,
    },
    /// The host kernel's command line.
    HostCmdline(Word),
    /// Another QEMU: a position in [`RELEASES`].
    Qemu(usize),
    /// Another release of the host's kernel: a position in [`linux::TREES`].
    HostKernel {
        /// The tree.
        tree: usize,
        /// Whether it is newer than the one that there is.
        newer: bool,
        /// Whether all known newer ones are so too.
        onwards: bool,
        /// The release since which KVM offers what is missing, if that is known and older than the tree.
        since: Option<String>,
    },
}

/// In which way a CPU model replaces another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ModelKind {
    /// Another version of the same model.
    Version,
    /// Another named model.
    Other,
    /// `host`
    Host,
}

/// A word of a kernel's command line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Word {
    /// It is added: `nosmep`.
    Add(String),
    /// It is taken out.
    Remove(String),
    /// An item is taken out of a list: `smep` of `clearcpuid=smep,pge`.
    Unlist {
        /// The parameter before the `=`.
        key: String,
        /// The item.
        item: String,
    },
}

/// What must happen before a change has an effect, and so what it disturbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Disturbance {
    /// The guest is powered off and started with another command line of QEMU.
    GuestRestart,
    /// The guest's own kernel is changed and booted again.
    GuestReboot,
    /// All guests are stopped, and KVM's modules loaded again.
    ModuleReload,
    /// The host is booted again.
    HostReboot,
    /// Other software is installed.
    Upgrade,
}

impl Disturbance {
    /// The word of the JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::GuestRestart => "guest-restart",
            Self::GuestReboot => "guest-reboot",
            Self::ModuleReload => "module-reload",
            Self::HostReboot => "host-reboot",
            Self::Upgrade => "upgrade",
        }
    }

    /// In words for people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::GuestRestart => "power the guest off and on",
            Self::GuestReboot => "boot the guest again",
            Self::ModuleReload => "stop all guests and load KVM's modules again",
            Self::HostReboot => "boot the host again",
            Self::Upgrade => "install other software",
        }
    }
}

/// What going back to an older release costs on top: it gives up fixes.
const DOWNGRADE: u32 = 60;

/// The mitigations of speculation are worth more than most flags.
const UNSAFE: u32 = 60;

impl Change {
    /// What it costs, in points: one table, so that the order of all kinds stands side by side. A change of `-cpu` is
    /// below 40, one that reaches further above; several changes add up.
    #[must_use]
    pub fn cost(&self) -> u32 {
        match self {
            Self::Property { value: None, .. } => 8,
            Self::Property { name, .. } if name == "migratable" => 30,
            Self::Property { unmigratable: true, .. } => 20,
            // The whole of KVM's help goes with either.
            Self::Property { name, value: Some(value), .. } if is_all_of_kvm(name) && value == "off" => 24,
            Self::Property { value: Some(value), .. } if value != "on" && value != "off" => 14,
            Self::Property { .. } => 10,
            Self::Model { kind: ModelKind::Version, .. } => 16,
            Self::Model { kind: ModelKind::Other, .. } => 26,
            Self::Model { kind: ModelKind::Host, .. } => 28,
            Self::CpuPm => 32,
            Self::Machine { newer: true, .. } => 35,
            Self::Machine { newer: false, .. } => 38,
            Self::Smp(_) => 36,
            Self::Kvm => 40,
            Self::GuestCmdline(word) => 45 + word.surcharge(),
            Self::Param { .. } => 50,
            Self::GuestKernel { newer, .. } => 60 + if *newer { 0 } else { DOWNGRADE },
            Self::HostCmdline(word) => 65 + word.surcharge(),
            Self::Qemu(_) => 70,
            Self::HostKernel { newer, .. } => 90 + if *newer { 0 } else { DOWNGRADE },
        }
    }

    /// What must happen before it has an effect.
    #[must_use]
    pub const fn disturbance(&self) -> Disturbance {
        match self {
            Self::Model { .. }
            | Self::Property { .. }
            | Self::CpuPm
            | Self::Machine { .. }
            | Self::Smp(_)
            | Self::Kvm => Disturbance::GuestRestart,
            Self::GuestCmdline(_) => Disturbance::GuestReboot,
            Self::Param { .. } => Disturbance::ModuleReload,
            Self::HostCmdline(_) => Disturbance::HostReboot,
            Self::GuestKernel { .. } | Self::Qemu(_) | Self::HostKernel { .. } => Disturbance::Upgrade,
        }
    }

    /// The word of the JSON for its kind.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Model { .. } => "model",
            Self::Property { .. } => "cpu-property",
            Self::CpuPm => "cpu-pm",
            Self::Machine { .. } => "machine",
            Self::Kvm => "accel",
            Self::Smp(_) => "smp",
            Self::GuestCmdline(_) => "guest-cmdline",
            Self::Param { .. } => "kvm-param",
            Self::GuestKernel { .. } => "guest-kernel",
            Self::HostCmdline(_) => "host-cmdline",
            Self::Qemu(_) => "qemu",
            Self::HostKernel { .. } => "host-kernel",
        }
    }

    /// The setting that it touches.
    #[must_use]
    pub fn slot(&self) -> String {
        let word = |word: &Word| match word {
            Word::Add(text) | Word::Remove(text) => text.clone(),
            Word::Unlist { key, item } => format!("{key}={item}"),
        };
        match self {
            Self::Property { name, .. } | Self::Param { name, .. } => format!("{} {name}", self.name()),
            Self::GuestCmdline(text) | Self::HostCmdline(text) => format!("{} {}", self.name(), word(text)),
            _ => self.name().to_owned(),
        }
    }

    /// What two solutions are the same in for people, whichever of many models or releases each names.
    #[must_use]
    pub fn gist(&self) -> String {
        match self {
            Self::Model { kind, .. } => format!("model {kind:?}"),
            _ => self.slot(),
        }
    }

    /// Whether it changes something of the host below QEMU, so that KVM's captured answer does not hold any more.
    #[must_use]
    pub const fn is_below_qemu(&self) -> bool {
        matches!(self, Self::Param { .. } | Self::HostCmdline(_) | Self::HostKernel { .. })
    }
}

impl Word {
    fn surcharge(&self) -> u32 {
        match self {
            Self::Add(word) if weakens(word) => UNSAFE,
            _ => 0,
        }
    }
}

/// Properties that hide KVM from the guest.
fn is_all_of_kvm(property: &str) -> bool {
    matches!(property, "kvm" | "hypervisor")
}

/// Whether a parameter switches off what keeps programs or guests apart.
pub(super) fn weakens(word: &str) -> bool {
    const WEAKENING: [&str; 8] =
        ["mitigations=off", "nopti", "pti=off", "nosmep", "nosmap", "nopku", "no_user_shstk", "spectre_v2=off"];
    WEAKENING.contains(&word)
}

const fn or_newer(onwards: bool) -> &'static str {
    if onwards { " or newer" } else { "" }
}

/// The label of a kernel tree.
pub(super) fn kernel(tree: usize) -> &'static str {
    linux::TREES.get(tree).map_or("", |tree| tree.label)
}

/// The label of a QEMU release.
pub(super) fn release(release: usize) -> &'static str {
    RELEASES.get(release).map_or("", |release| release.label)
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(word) => write!(f, "add `{word}` to"),
            Self::Remove(word) => write!(f, "remove `{word}` from"),
            Self::Unlist { key, item } => write!(f, "remove `{item}` from `{key}=` on"),
        }
    }
}

/// What is done, in a few words.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model { to, kind: ModelKind::Version } => write!(f, "take the model's version {to}"),
            Self::Model { to, .. } => write!(f, "take the CPU model {to}"),
            Self::Property { name, value: None, .. } => write!(f, "leave out what -cpu says of {name}"),
            Self::Property { name, value: Some(value), .. } => write!(f, "set {name}={value} in -cpu"),
            Self::CpuPm => f.write_str("add -overcommit cpu-pm=on"),
            Self::Machine { to, .. } => write!(f, "take the machine type {to}"),
            Self::Kvm => f.write_str("run the guest with KVM"),
            Self::Smp(text) => write!(f, "start the guest with -smp {text}"),
            Self::GuestCmdline(word) => write!(f, "{word} the guest kernel's command line"),
            Self::Param { name, value } => {
                let (module, parameter) = name.split_once('.').unwrap_or(("kvm", name));
                write!(f, "load {module} with {parameter}={value}")
            }
            Self::GuestKernel { tree, onwards, .. } => {
                write!(f, "boot Linux {}{} in the guest", kernel(*tree), or_newer(*onwards))
            }
            Self::HostCmdline(word) => write!(f, "{word} the host kernel's command line"),
            Self::Qemu(position) => write!(f, "take QEMU {}", release(*position)),
            Self::HostKernel { tree, onwards, since: Some(since), .. } => {
                write!(f, "boot the host with Linux {since}{} (tried: {})", or_newer(*onwards), kernel(*tree))
            }
            Self::HostKernel { tree, onwards, .. } => {
                write!(f, "boot the host with Linux {}{}", kernel(*tree), or_newer(*onwards))
            }
        }
    }
}
