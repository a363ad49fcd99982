//! The question put to QEMU, and one `X86CPU` as realize leaves it and as `cpu_x86_cpuid` reads it.

use cpusieve_knowledge::qemu::{self, Caches, Machine, Word};
use cpusieve_model::{CpuidTable, KvmView, Place, Registers};

use super::leaves::Protected;
use super::properties::Properties;
use super::words::{W, Words};

/// Everything that decides what QEMU gives to a vCPU.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The release, a position in [`qemu::RELEASES`].
    pub release: usize,
    /// The machine type of `-machine`.
    pub machine: &'static Machine,
    /// What executes the guest.
    pub accelerator: Accelerator<'a>,
    /// The whole text of `-cpu`: `EPYC,+invtsc,kvm=off`.
    pub cpu: &'a str,
    /// The CPUs of `-smp`.
    pub smp: Smp,
    /// Whether `-overcommit cpu-pm=on` was given.
    pub cpu_pm: bool,
    /// `-machine kernel-irqchip=`; [`Irqchip::of`] is the machine type's default.
    pub irqchip: Irqchip,
    /// Memory that the host cannot read.
    pub protected: Protected<'a>,
}

/// What executes the guest, and what is known of it.
#[derive(Clone, Copy, Debug)]
pub enum Accelerator<'a> {
    /// KVM, and the host that it runs on.
    Kvm {
        /// The host's own CPUID.
        host: &'a CpuidTable,
        /// The answers of `/dev/kvm`.
        kvm: &'a KvmView,
    },
    /// QEMU's own emulation: its offer does not depend on the host.
    Tcg,
}

impl Accelerator<'_> {
    /// Whether KVM executes the guest.
    #[must_use]
    pub const fn is_kvm(&self) -> bool {
        matches!(self, Self::Kvm { .. })
    }
}

/// Where the interrupt controllers are (`-machine kernel-irqchip=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Irqchip {
    /// All in KVM.
    #[default]
    Kernel,
    /// The local APICs in KVM, the IOAPIC in QEMU.
    Split,
    /// All in QEMU.
    Off,
}

impl Irqchip {
    /// The default of a machine type.
    #[must_use]
    pub const fn of(machine: &Machine) -> Self {
        if machine.irqchip_split_default { Self::Split } else { Self::Kernel }
    }
}

/// The topology of `-smp`, all parts filled in; each is at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Smp {
    /// CPUs present at start.
    pub cpus: u32,
    /// Sockets of the machine.
    pub sockets: u32,
    /// Dies in a socket.
    pub dies: u32,
    /// Modules in a die.
    pub modules: u32,
    /// Cores in a module.
    pub cores: u32,
    /// Threads in a core.
    pub threads: u32,
}

impl Default for Smp {
    fn default() -> Self {
        Self { cpus: 1, sockets: 1, dies: 1, modules: 1, cores: 1, threads: 1 }
    }
}

impl Smp {
    /// Threads in a package (`target/i386/cpu.c`, `threads_per_pkg`).
    #[must_use]
    pub const fn threads_per_package(&self) -> u32 {
        self.dies.saturating_mul(self.modules).saturating_mul(self.cores).saturating_mul(self.threads)
    }

    /// CPUs that the machine can hold (`-smp maxcpus=`).
    #[must_use]
    pub const fn max_cpus(&self) -> u32 {
        self.sockets.saturating_mul(self.threads_per_package())
    }
}

/// One state component of XSAVE as this QEMU uses it (`x86_ext_save_areas`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct XsaveArea {
    /// Bytes; 0 if the component is never enabled.
    pub size: u32,
    /// Offset in the standard form, in bytes.
    pub offset: u32,
    /// ECX of the host's subleaf: bit 0 supervisor state, bit 1 aligned, bit 2 XFD.
    pub flags: u32,
}

/// State components: bits of XCR0 and IA32_XSS.
pub(crate) const COMPONENTS: usize = 20;

/// One `X86CPU` as realize leaves it: vCPU 0, apic id 0.
#[derive(Clone, Debug)]
pub(crate) struct Cpu<'a> {
    /// What was asked.
    pub question: Question<'a>,
    /// `env->features`.
    pub words: Words,
    /// Every other property, with its value at the end of realize.
    pub properties: Properties<'a>,
    /// `env->cpuid_level`, never "unset" after realize.
    pub level: u32,
    /// `env->cpuid_xlevel`.
    pub xlevel: u32,
    /// `env->cpuid_xlevel2`; 0 if there are no leaves at C0000000H.
    pub xlevel2: u32,
    /// `env->cpuid_level_func7`.
    pub level_func7: u32,
    /// `cpu->phys_bits` after realize.
    pub phys_bits: u32,
    /// `cpu->guest_phys_bits` after realize; 0 if not told.
    pub guest_phys_bits: u32,
    /// The cache table of the model or of its version; `None` for the tables of `legacy-cache`.
    pub caches: Option<&'static Caches>,
    /// The state components, by bit.
    pub xsave: [XsaveArea; COMPONENTS],
    /// Leaf 5 with `-overcommit cpu-pm=on` (`cpu->mwait`); else EAX, EBX 0, ECX 3, EDX 0.
    pub mwait: Registers,
    /// `env->tsc_khz`: KVM's, or that of `tsc-frequency`; 0 if unknown.
    pub tsc_khz: u64,
    /// Highest subleaf of leaf 24H (from 11.1).
    pub avx10_max_subleaf: u32,
}

impl<'a> Cpu<'a> {
    /// The value of a feature word that the code names; 0 if no release has it.
    pub(super) fn feature(&self, at: W) -> u64 {
        self.words.get(at.0).copied().unwrap_or(0)
    }

    /// A feature word, to be changed. A word that no release has is the last one of the table, which nothing names.
    pub(super) fn feature_mut(&mut self, at: W) -> &mut u64 {
        let last = self.words.len().saturating_sub(1);
        &mut self.words[at.0.min(last)]
    }

    /// The value of a feature word; 0 if no release has it.
    pub(super) fn word(&self, word: Word) -> u64 {
        qemu::word_position(word).map_or(0, |position| self.feature(W(position)))
    }

    /// Whether a feature bit is on.
    pub(super) fn has(&self, place: Place) -> bool {
        let bit = match place {
            Place::Cpuid(bit) => bit.bit,
            Place::Msr(bit) => bit.bit,
            Place::Linux(_) => return false,
        };
        Word::of(place).is_some_and(|word| self.word(word) >> bit & 1 == 1)
    }

    /// `IS_AMD_CPU`: the guest's vendor is AMD.
    pub(super) fn is_amd(&self) -> bool {
        self.properties.vendor == *b"AuthenticAMD"
    }

    /// `IS_INTEL_CPU`: the guest's vendor is Intel.
    pub(super) fn is_intel(&self) -> bool {
        self.properties.vendor == *b"GenuineIntel"
    }

    /// `IS_ZHAOXIN_CPU`: the guest's vendor is one of Zhaoxin's two.
    pub(super) fn is_zhaoxin(&self) -> bool {
        matches!(&self.properties.vendor, b"  Shanghai  " | b"CentaurHauls")
    }
}
