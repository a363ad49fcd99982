//! The whole way: from a host's silicon, through its kernel, KVM and QEMU, to what a guest's kernel prints.
//!
//! ```
//! use cpusieve_answers::predict::way::{Route, until_guest};
//! use cpusieve_model::{Cpu, Registers, Snapshot};
//!
//! // AuthenticAMD, family 19H, with FPU, CMOV and SVM.
//! let mut cpu = Cpu::default();
//! cpu.cpuid.insert(0, 0, Registers { eax: 1, ebx: 0x6874_7541, ecx: 0x444d_4163, edx: 0x6974_6e65 });
//! cpu.cpuid.insert(1, 0, Registers { eax: 0x00a2_0f12, edx: 0x0000_8001, ..Registers::default() });
//! cpu.cpuid.insert(0x8000_0000, 0, Registers { eax: 0x8000_0001, ..Registers::default() });
//! cpu.cpuid.insert(0x8000_0001, 0, Registers { ecx: 1 << 2, edx: 1 << 29, ..Registers::default() });
//! let machine = Snapshot { cpus: vec![cpu], ..Snapshot::default() };
//!
//! let route = Route::default();
//! let found = until_guest(&machine, &route).unwrap();
//! assert!(found.guest.boot.flags.contains(&"hypervisor"));
//! assert!(found.vcpu.assumed.iter().any(|assumed| assumed.what == "-cpu" && assumed.value == "host"));
//! ```

mod ends;

use std::collections::BTreeMap;

use cpusieve_knowledge::linux::TREES;
use cpusieve_knowledge::qemu::{self, Fit, Machine, RELEASES, UnknownMachine};
use cpusieve_model::{CpuidTable, MsrReading, MsrTable, Snapshot, Stage};
use cpusieve_stages::linux::boot::{Input, Unlisted};
use cpusieve_stages::qemu::{Accelerator, Irqchip, Output, Protected, Question, Smp, realize};
use cpusieve_stages::vcpu::guest;

use super::kvm::{self, KvmPrediction};
use super::{Assumption, Chosen, Kernel, NoPrediction, Prediction, asked_for, choose, of_kernel};
use crate::oddity::oddities;

/// The machine type that QEMU takes if none is given.
const DEFAULT_MACHINE: &str = "pc";

/// What executes the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accel {
    /// The host's KVM.
    #[default]
    Kvm,
    /// QEMU's own emulation.
    Tcg,
}

/// One virtual machine, as QEMU's command line gives it; what is `None` is assumed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vm<'a> {
    /// `-accel`
    pub accel: Accel,
    /// The QEMU's version: `7.2`, `10.0.13`.
    pub qemu: Option<&'a str>,
    /// `-machine`: its type, and `kernel-irqchip=` if that is given: `q35,kernel-irqchip=split`.
    pub machine: Option<&'a str>,
    /// `-cpu`
    pub cpu: Option<&'a str>,
    /// `-smp`
    pub smp: Option<&'a str>,
    /// Whether `-overcommit cpu-pm=on` is given.
    pub cpu_pm: bool,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    /// The host's kernel and its KVM.
    pub kvm: kvm::Question<'a>,
    /// The virtual machine.
    pub vm: Vm<'a>,
    /// The guest's kernel; without a release, it is the host's.
    pub guest: Kernel<'a>,
}

impl Default for Route<'_> {
    /// The host as the input shows it, its first QEMU with `-cpu host`, and the host's own kernel in the guest.
    fn default() -> Self {
        Self { kvm: kvm::Question::new(Kernel::new(Stage::Host)), vm: Vm::default(), guest: Kernel::new(Stage::Guest) }
    }
}

/// What QEMU gives to the first vCPU.
#[derive(Clone, Debug)]
pub struct VcpuPrediction {
    /// The host's kernel and KVM; `None` under TCG, which asks neither.
    pub kvm: Option<KvmPrediction>,
    /// The QEMU release: a position in [`RELEASES`].
    pub release: usize,
    /// The machine type.
    pub machine: &'static Machine,
    /// Where its interrupt controllers are.
    pub irqchip: Irqchip,
    /// The text of `-cpu`.
    pub cpu: String,
    /// `-smp`, all parts filled in.
    pub smp: Smp,
    /// Whether `-overcommit cpu-pm=on` is given.
    pub cpu_pm: bool,
    /// QEMU's table, its warnings, its error.
    pub qemu: Output,
    /// What was assumed, of the host first.
    pub assumed: Vec<Assumption>,
}

/// What a guest's kernel prints.
#[derive(Clone, Debug)]
pub struct GuestPrediction {
    /// What the vCPU is.
    pub vcpu: VcpuPrediction,
    /// What CPUID returns to the guest, once its kernel runs.
    pub cpuid: CpuidTable,
    /// What its kernel reads of MSRs, as far as that is known.
    pub msrs: MsrTable,
    /// The guest's kernel; its assumptions are those of the whole way.
    pub guest: Prediction,
}

/// Why the way ends before its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoWay {
    /// The host's kernel or KVM cannot be predicted.
    #[error(transparent)]
    Host(#[from] NoPrediction),
    /// What was given as QEMU's version is none.
    #[error("`{0}` is no QEMU version; expected one such as 7.2 or 10.0.13")]
    NoQemu(String),
    /// What was given as another VMM's version is none.
    #[error("`{version}` is no version of {vmm}; expected one such as 1.12")]
    NoVersion {
        /// The VMM's name.
        vmm: &'static str,
        /// What was given.
        version: String,
    },
    /// QEMU has no such machine type.
    #[error(transparent)]
    NoMachine(#[from] UnknownMachine),
    /// What was given with `-machine` beside the type is not known to change CPUID, or is nothing that QEMU takes.
    #[error("of -machine's options kernel-irqchip=on, off or split alone is read here, and `{0}` is none of these")]
    NoMachineOption(String),
    /// QEMU refuses what was given with `-smp`.
    #[error("-smp {text}: {message}")]
    NoSmp {
        /// What was given.
        text: String,
        /// QEMU's words.
        message: String,
    },
    /// There is nothing to run a guest with.
    #[error("KVM offers nothing on this host: {0}")]
    NoKvm(String),
    /// QEMU ends with an error instead of starting the guest.
    #[error("QEMU {release} ends instead of starting the guest: {message}")]
    Refused {
        /// The release.
        release: &'static str,
        /// QEMU's words.
        message: String,
    },
}

/// The vCPU that QEMU makes on the machine that an input shows.
///
/// # Errors
/// If there is no prediction of the host, or QEMU's version, machine type or `-smp` are none. An error of QEMU's about
/// `-cpu` is an answer: [`Output::error`].
pub fn until_vcpu(snapshot: &Snapshot, route: &Route<'_>) -> Result<VcpuPrediction, NoWay> {
    let mut assumed = Vec::new();
    let release = release(snapshot, route.vm.qemu, &mut assumed)?;
    let machine = route.vm.machine.unwrap_or_else(|| {
        assumed.push(of("-machine", DEFAULT_MACHINE, "none was given; it is QEMU's default"));
        DEFAULT_MACHINE
    });
    let (machine, irqchip) = machine_and_irqchip(release, machine)?;
    let (smp, smp_warning) = smp(release, machine, route.vm.smp)?;
    let cpu = route.vm.cpu.unwrap_or_else(|| {
        let model = if route.vm.accel == Accel::Kvm { "host" } else { "max" };
        assumed.push(of("-cpu", model, "none was given; this one takes all that there is"));
        model
    });
    let ask = |accelerator| {
        // The option is the accelerator's: QEMU drops it under TCG.
        let irqchip = if route.vm.accel == Accel::Tcg { Irqchip::of(machine) } else { irqchip };
        let cpu_pm = route.vm.cpu_pm;
        let protected = Protected::default();
        realize(Question { release, machine, accelerator, cpu, smp, cpu_pm, irqchip, protected })
    };
    let (kvm, mut qemu) = match route.vm.accel {
        Accel::Tcg => (None, ask(Accelerator::Tcg)),
        Accel::Kvm => {
            let found = kvm::predict(snapshot, &route.kvm)?;
            if found.view.supported.is_none() {
                let findings: Vec<String> = found.findings.iter().map(ToString::to_string).collect();
                return Err(NoWay::NoKvm(findings.join("; ")));
            }
            let host = snapshot.first_cpuid().map(|cpu| &cpu.cpuid).ok_or(NoPrediction::NoCpuid)?;
            let qemu = ask(Accelerator::Kvm { host, kvm: &found.view });
            (Some(found), qemu)
        }
    };
    // QEMU reads `-smp` before all that it warns of otherwise.
    smp_warning.into_iter().for_each(|warning| qemu.warnings.insert(0, warning));
    let of_host = kvm.iter().flat_map(|found| found.assumed.clone());
    let assumed = of_host.chain(assumed).chain(qemu.assumed.iter().map(Assumption::from)).collect();
    let (cpu, cpu_pm) = (cpu.to_owned(), route.vm.cpu_pm);
    Ok(VcpuPrediction { kvm, release, machine, irqchip, cpu, smp, cpu_pm, qemu, assumed })
}

/// The guest's kernel on that vCPU.
///
/// # Errors
/// As [`until_vcpu`], and if QEMU ends with an error, or the guest's kernel release is none.
pub fn until_guest(snapshot: &Snapshot, route: &Route<'_>) -> Result<GuestPrediction, NoWay> {
    guest_of(snapshot, route, until_vcpu(snapshot, route)?)
}

/// The guest's kernel on a vCPU that [`until_vcpu`] found for the same input and route.
///
/// # Errors
/// If QEMU ended with an error, or the guest's kernel release is none.
pub fn guest_of(snapshot: &Snapshot, route: &Route<'_>, vcpu: VcpuPrediction) -> Result<GuestPrediction, NoWay> {
    guest_with(snapshot, route, vcpu, None)
}

/// The same, of a guest's kernel whose configuration is known; it stands instead of the one of the input.
///
/// # Errors
/// As [`guest_of`].
pub fn guest_with(
    snapshot: &Snapshot,
    route: &Route<'_>,
    vcpu: VcpuPrediction,
    known: Option<&BTreeMap<String, String>>,
) -> Result<GuestPrediction, NoWay> {
    if let Some(error) = &vcpu.qemu.error {
        let release = RELEASES.get(vcpu.release).map_or("", |release| release.label);
        return Err(NoWay::Refused { release, message: error.message.clone() });
    }
    let table = guest::table(&vcpu.qemu.cpuid);
    let mut msrs = guest::msrs(&vcpu.qemu.msrs, vcpu.kvm.as_ref().is_none_or(ignores_msrs));
    for (index, value) in reset_msrs(&vcpu, &table) {
        msrs.insert(index, MsrReading::Value(value));
    }
    let unlisted = match route.vm.accel {
        Accel::Kvm => Unlisted::NotSeen,
        Accel::Tcg => Unlisted::Zero,
    };
    let given = Given { table, msrs, unlisted, config: known };
    let host_tree = vcpu.kvm.as_ref().map_or(TREES.len() - 1, |kvm| kvm.host.tree);
    let (cpuid, guest) = boot_guest(snapshot, route.kvm.kernel, route.guest, &given, host_tree, &vcpu.assumed)?;
    Ok(GuestPrediction { vcpu, cpuid, msrs: given.msrs, guest })
}

/// What a VMM gave to a vCPU, and what is known of the kernel on it.
pub(super) struct Given<'a> {
    /// The table of `KVM_SET_CPUID2`.
    pub table: CpuidTable,
    /// What the guest reads of MSRs.
    pub msrs: MsrTable,
    /// What is to be thought of the others.
    pub unlisted: Unlisted,
    /// The configuration of the guest's kernel; `None` for the input's, if it is of the same tree.
    pub config: Option<&'a BTreeMap<String, String>>,
}

/// Boots the guest's kernel; its assumptions follow those that were made before.
pub(super) fn boot_guest(
    snapshot: &Snapshot,
    host: Kernel<'_>,
    kernel: Kernel<'_>,
    given: &Given<'_>,
    host_tree: usize,
    before: &[Assumption],
) -> Result<(CpuidTable, Prediction), NoPrediction> {
    let Chosen { tree, config, assumed } = guest_kernel(snapshot, host, kernel, host_tree)?;
    let input = Input {
        of: Stage::Guest.name(),
        at: Stage::Guest,
        cpuid: &given.table,
        msrs: &given.msrs,
        unlisted: given.unlisted,
        microcode: None,
        cmdline: kernel.cmdline,
        config: given.config.or(config),
    };
    let guest::Booted { cpuid, boot } = guest::boot(&input, tree, host_tree);
    let of_guest = boot.assumed.iter().map(Assumption::from);
    let of_guest = of_guest.map(|assumed| Assumption { what: format!("guest: {}", assumed.what), ..assumed });
    let assumed = before.iter().cloned().chain(assumed).chain(of_guest).collect();
    let odd = oddities(&cpuid, tree);
    Ok((cpuid, Prediction { tree, boot, assumed, odd }))
}

/// Whether KVM answers zero for MSRs that it does not know (`kvm.ignore_msrs`).
pub(super) fn ignores_msrs(kvm: &KvmPrediction) -> bool {
    kvm.view.params.get("kvm.ignore_msrs").is_some_and(|value| matches!(value.as_str(), "1" | "Y" | "y"))
}

/// What QEMU resets MSRs to (`target/i386/cpu.c:x86_cpu_reset_hold`): fast strings are on, and MWAIT if the CPU has it. Of
/// the MSRs that KVM answers by itself, TCG answers zero for all others (`tcg/system/misc_helper.c:helper_rdmsr`).
fn reset_msrs(vcpu: &VcpuPrediction, table: &CpuidTable) -> impl Iterator<Item = (u32, u64)> {
    const MISC_ENABLE: u32 = 0x1a0;
    const PLATFORM_INFO: u32 = 0xce;
    const FAST_STRINGS: u64 = 1;
    const MWAIT: u64 = 1 << 18;
    let monitor = table.get(1, 0).is_some_and(|leaf| leaf.ecx >> 3 & 1 == 1);
    let misc = (MISC_ENABLE, FAST_STRINGS | if monitor { MWAIT } else { 0 });
    [misc].into_iter().chain(vcpu.kvm.is_none().then_some((PLATFORM_INFO, 0)))
}

pub(super) fn of(what: &str, value: &str, because: &str) -> Assumption {
    let (what, value, because) = (what.to_owned(), value.to_owned(), because.to_owned());
    Assumption { what, value, because, hangs: Vec::new() }
}

/// The release that was asked for, or the input's first, or the newest known.
pub(crate) fn release(snapshot: &Snapshot, asked: Option<&str>, assumed: &mut Vec<Assumption>) -> Result<usize, NoWay> {
    let found = snapshot.qemu.first().map(|binary| binary.version.as_str());
    let Some(version) = asked.or(found) else {
        let newest = RELEASES.len() - 1;
        assumed.push(of("QEMU", RELEASES[newest].label, "none was named or found; this is the newest known"));
        return Ok(newest);
    };
    let nearest = qemu::nearest(version);
    let label = RELEASES.get(nearest.release).map_or("", |release| release.label);
    match nearest.fit {
        Fit::Unreadable => return Err(NoWay::NoQemu(version.to_owned())),
        Fit::Same if asked.is_some() => {}
        Fit::Same => assumed.push(of("QEMU", version, "none was named; this is the first that the input lists")),
        Fit::Older => {
            assumed.push(of("QEMU", label, &format!("the nearest known release that is older than {version}")))
        }
        Fit::Oldest => {
            assumed.push(of("QEMU", label, &format!("no known release is as old as {version}; this is the oldest")));
        }
    }
    Ok(nearest.release)
}

/// The machine type of `-machine TYPE,kernel-irqchip=split`, and where its interrupt controllers then are.
fn machine_and_irqchip(release: usize, text: &str) -> Result<(&'static Machine, Irqchip), NoWay> {
    let mut parts = text.split(',');
    let machine = qemu::machine(release, parts.next().unwrap_or_default())?;
    let irqchip = parts.try_fold(Irqchip::of(machine), |_, option| match option.split_once('=') {
        Some(("kernel-irqchip" | "kernel_irqchip", "on")) => Ok(Irqchip::Kernel),
        Some(("kernel-irqchip" | "kernel_irqchip", "off")) => Ok(Irqchip::Off),
        Some(("kernel-irqchip" | "kernel_irqchip", "split")) => Ok(Irqchip::Split),
        _ => Err(NoWay::NoMachineOption(option.to_owned())),
    })?;
    Ok((machine, irqchip))
}

/// The topology that is asked for, and what QEMU warns of.
fn smp(release: usize, machine: &Machine, text: Option<&str>) -> Result<(Smp, Option<String>), NoWay> {
    let Some(text) = text else { return Ok((Smp::default(), None)) };
    let parsed = Smp::parse(release, machine, text);
    let failed =
        |error: cpusieve_stages::qemu::SmpError| NoWay::NoSmp { text: text.to_owned(), message: error.message };
    parsed.map_err(failed)
}

/// The guest's kernel: what was asked for, else the host's.
fn guest_kernel<'a>(
    snapshot: &'a Snapshot,
    host: Kernel<'a>,
    kernel: Kernel<'_>,
    host_tree: usize,
) -> Result<Chosen<'a>, NoPrediction> {
    if let Some(release) = kernel.release {
        return asked_for("guest", release, snapshot);
    }
    let because = "none was named; the host's stands for it".to_owned();
    let config: Option<&BTreeMap<String, String>> = match choose(snapshot, &host) {
        Ok((_, chosen)) if chosen.tree == host_tree => chosen.config,
        _ => None,
    };
    Ok(Chosen { tree: host_tree, config, assumed: Some(of_kernel("guest", host_tree, because)) })
}
