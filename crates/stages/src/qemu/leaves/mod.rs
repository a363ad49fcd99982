//! `cpu_x86_cpuid`, leaf by leaf, and the table that QEMU makes of it for KVM.
//!
//! [`Instruction`] is the function itself: what the CPUID instruction returns to a guest under TCG, and what QEMU asks
//! itself under KVM. `build` asks it for every leaf in QEMU's order and gives the table of `KVM_SET_CPUID2`, entry by
//! entry. Every leaf has a function that says what each release puts there; a rule of the form "since 10.0" means "not
//! in 7.2, but in 10.0", because the releases between the known ones are not known.

mod basic;
mod caches;
mod extended;
mod hyperv;
mod hypervisor;
mod intel;
mod protected;
mod smp;
mod table;
mod topology;
mod words;
mod xsave;

use cpusieve_model::Register::{Eax, Ebx, Ecx, Edx};
use cpusieve_model::Registers;

use self::topology::{Level, Topology};
use super::cpu::{Cpu, Question, Smp};
use super::host::Host;
use super::realize;
use super::words::W;

pub use self::protected::{EpcSection, Protected, Sev};
pub use self::smp::SmpError;
pub(super) use self::table::build;

/// What of the running CPU shows in CPUID's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// The CPU's APIC id.
    pub apic_id: u32,
    /// The CPU's core within its die or module (`core-id`).
    pub core_id: u32,
    /// CR4.OSXSAVE.
    pub osxsave: bool,
    /// CR4.PKE.
    pub pke: bool,
    /// Whether the CPU is in long mode (`HF_LMA_MASK`).
    pub long_mode: bool,
    /// XCR0.
    pub xcr0: u64,
}

impl Running {
    /// vCPU 0 after reset, before any instruction: real mode, x87 state alone.
    pub const RESET: Self = Self { apic_id: 0, core_id: 0, osxsave: false, pke: false, long_mode: false, xcr0: 1 };
}

/// One CPU while its leaves are read.
struct View<'a> {
    cpu: &'a Cpu<'a>,
    host: Host<'a>,
    running: Running,
    topology: Topology,
}

impl<'a> View<'a> {
    fn new(cpu: &'a Cpu<'a>, running: Running) -> Self {
        Self { cpu, host: Host::of(&cpu.question), running, topology: Topology::of(&cpu.question.smp) }
    }

    /// Whether this release is that one or newer.
    fn since(&self, release: usize) -> bool {
        self.cpu.question.release >= release
    }

    /// A feature word of 32 bits, as the filter left it.
    fn word(&self, at: W) -> u32 {
        let word = self.cpu.words.get(at.0).copied().unwrap_or(0);
        (word & u64::from(u32::MAX)) as u32
    }

    fn is_kvm(&self) -> bool {
        self.cpu.question.accelerator.is_kvm()
    }

    /// `x86_cpu_get_supported_cpuid`: KVM's answer; zeros under TCG, and where KVM has no such entry.
    ///
    /// Of the leaves that are asked for in this way, none is changed by QEMU's fix-ups.
    fn supported(&self, leaf: u32, subleaf: u32) -> Registers {
        let register = |register| self.host.offered(leaf, subleaf, register);
        Registers { eax: register(Eax), ebx: register(Ebx), ecx: register(Ecx), edx: register(Edx) }
    }
}

/// The CPUID instruction of a virtual machine's first vCPU (`target/i386/cpu.c:cpu_x86_cpuid`): under TCG what the guest
/// executes, under KVM what QEMU asks itself to make its table.
#[derive(Clone, Debug)]
pub struct Instruction<'a> {
    cpu: Cpu<'a>,
}

impl<'a> Instruction<'a> {
    /// The instruction of the virtual machine that is asked for; `None` if QEMU ends before it has a vCPU.
    #[must_use]
    pub fn of(question: Question<'a>) -> Option<Self> {
        realize::first_vcpu(question).map(|cpu| Self { cpu })
    }

    /// What it returns to a CPU in this state.
    #[must_use]
    pub fn returns(&self, running: Running, leaf: u32, subleaf: u32) -> Registers {
        cpu_x86_cpuid(&View::new(&self.cpu, running), leaf, subleaf)
    }
}

/// What QEMU learns when it asks its first CPU itself.
pub(super) fn of_first(cpu: &Cpu<'_>, leaf: u32, subleaf: u32) -> Registers {
    cpu_x86_cpuid(&View::new(cpu, Running::RESET), leaf, subleaf)
}

/// The APIC id of the last CPU that the machine can hold (`x86_cpu_apic_id_from_index`).
pub(super) fn last_apic_id(smp: &Smp) -> u64 {
    let topology = Topology::of(smp);
    u64::from(smp.sockets.max(1) - 1) << topology.offset(Level::Socket) | u64::from(topology.last_in_package())
}

/// The dispatcher: limits, then the leaf. A leaf above its range's limit is answered with the data of leaf `level`,
/// whatever its range (which is not limited again).
fn cpu_x86_cpuid(view: &View<'_>, leaf: u32, subleaf: u32) -> Registers {
    let limit = match leaf {
        0xc000_0000.. => view.cpu.xlevel2,
        0x8000_0000.. => view.cpu.xlevel,
        0x4000_0000.. => 0x4000_0001,
        _ => view.cpu.level,
    };
    let leaf = if leaf > limit { view.cpu.level } else { leaf };
    match leaf {
        0x0 => basic::leaf_0(view),
        0x1 => basic::leaf_1(view),
        0x2 => caches::leaf_2(view),
        0x4 => caches::leaf_4(view, subleaf),
        0x5 => view.cpu.mwait,
        0x6 => basic::leaf_6(view),
        0x7 => basic::leaf_7(view, subleaf),
        0xa => basic::leaf_a(view, subleaf),
        0xb => topology::leaf_b(view, subleaf),
        0xd => xsave::leaf_d(view, subleaf),
        0x12 => protected::leaf_12(view, subleaf),
        0x14 => intel::leaf_14(view, subleaf),
        0x1c => intel::leaf_1c(view),
        0x1d => intel::leaf_1d(view, subleaf),
        0x1e => intel::leaf_1e(view, subleaf),
        0x1f => topology::leaf_1f(view, subleaf),
        0x24 => intel::leaf_24(view, subleaf),
        0x29 => intel::leaf_29(view, subleaf),
        0x4000_0000 => hypervisor::leaf_40000000(view),
        0x8000_0000 => extended::leaf_80000000(view),
        0x8000_0001 => extended::leaf_80000001(view),
        0x8000_0002..=0x8000_0004 => extended::leaf_model_id(view, leaf),
        0x8000_0005 => caches::leaf_80000005(view),
        0x8000_0006 => caches::leaf_80000006(view),
        0x8000_0007 => extended::leaf_80000007(view),
        0x8000_0008 => extended::leaf_80000008(view),
        0x8000_000a => extended::leaf_8000000a(view),
        0x8000_001d => caches::leaf_8000001d(view, subleaf),
        0x8000_001e => topology::leaf_8000001e(view),
        0x8000_001f => protected::leaf_8000001f(view),
        0x8000_0021 => extended::leaf_80000021(view),
        0x8000_0022 => extended::leaf_80000022(view),
        0xc000_0000 => Registers { eax: view.cpu.xlevel2, ..Registers::default() },
        0xc000_0001 => extended::leaf_c0000001(view),
        _ => Registers::default(),
    }
}
