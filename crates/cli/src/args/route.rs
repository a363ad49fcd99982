//! Options of `predict`, and those that say what stands between the silicon and a guest's flags line.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use cpusieve_answers::predict::way::{self, Route, Vm};
use cpusieve_answers::predict::{Kernel, kvm};
use cpusieve_model::Stage;
use cpusieve_stages::linux::boot::Unlisted;

pub(super) const PREDICT_EXAMPLES: &str = "\
The input is anything with CPUID in it: a cpusieve record, cpuid -r, kcpuid -r, AIDA64/InstLatx64
and libcpuid dumps, libvirt's CPUID XML. What it lacks (kernels, command lines, MSRs, microcode) and
what was not given is assumed, and each assumption is listed with the flags that hang on it.

Examples:
  cpusieve predict --until host host.json                      the kernel of the record itself
  cpusieve predict --until host --host-kernel 6.12 host.json   this machine under another kernel
  cpusieve predict --until kvm --kvm-param nested=0 host.json  what KVM offers, as registers
  cpusieve predict --until vcpu --qemu 10.0 --machine q35 --cpu EPYC,+invtsc host.json
  cpusieve predict --until guest --cpu host,migratable=off --guest-kernel 6.12 host.json
  cpusieve predict --until guest --vmm firecracker --template T2 host.json
  cpusieve predict --from vcpu --until guest --guest-kernel 6.1 guest.json
  cpusieve predict --until guest host.json --json | jq -r '.guest.flags[]'";

/// Options of `predict`.
#[derive(Debug, Args)]
pub(crate) struct PredictOptions {
    /// Whose CPUID the input shows
    #[arg(long, value_name = "STAGE", default_value = "silicon")]
    pub(crate) from: From,
    /// The stage whose result is wanted
    #[arg(long, value_name = "STAGE")]
    pub(crate) until: Until,
    #[command(flatten)]
    pub(crate) route: RouteOptions,
    #[command(flatten)]
    pub(crate) price: PriceFile,
    /// A file with CPUID in it; `-` is standard input
    #[arg(value_name = "INPUT")]
    pub(crate) input: PathBuf,
}

/// What features are worth.
#[derive(Clone, Debug, Args)]
pub(crate) struct PriceFile {
    /// What `price --json` measured, for the worth of features; else the table that ships with cpusieve
    #[arg(long = "price", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// The software between the silicon and the guest's flags line.
#[derive(Debug, Args)]
pub(crate) struct RouteOptions {
    /// The host's kernel, such as 6.1 or 6.1.0-56-cloud-amd64; else the input's own
    #[arg(long, value_name = "RELEASE")]
    pub(crate) host_kernel: Option<String>,
    /// The command line of the host's kernel; else the input's own
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) host_cmdline: Option<String>,
    /// A parameter of KVM's modules, such as nested=1 or kvm_amd.nested=1; else the input's own
    #[arg(long = "kvm-param", value_name = "NAME=VALUE", value_parser = param)]
    pub(crate) kvm_params: Vec<(String, String)>,
    /// Whether KVM's answer that the input holds is used
    #[arg(long, value_name = "HOW", default_value = "seen")]
    pub(crate) kvm: KvmAnswer,
    /// What executes the guest
    #[arg(long, value_name = "NAME", default_value = "kvm")]
    pub(crate) accel: Accel,
    /// What makes the virtual machine
    #[arg(long, value_name = "NAME", default_value = "qemu")]
    pub(crate) vmm: VmmName,
    /// The version of a VMM other than QEMU, such as 1.12; else the newest known
    #[arg(long, value_name = "VERSION")]
    pub(crate) vmm_version: Option<String>,
    /// Firecracker's CPU template: T2, T2S, T2CL, T2A, C3, or a file
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) template: Option<String>,
    /// The version of QEMU, such as 7.2; else the first of the input
    #[arg(long, value_name = "VERSION")]
    pub(crate) qemu: Option<String>,
    /// QEMU's -machine, such as q35 or pc-q35-6.2,kernel-irqchip=split; else QEMU's default
    #[arg(long, value_name = "TYPE")]
    pub(crate) machine: Option<String>,
    /// QEMU's -cpu, such as host or EPYC,+invtsc; else host, under TCG max
    #[arg(long, value_name = "TEXT")]
    pub(crate) cpu: Option<String>,
    /// QEMU's -smp, such as 4,sockets=1,cores=2,threads=2, or another VMM's number of vCPUs; else one
    #[arg(long, value_name = "TEXT")]
    pub(crate) smp: Option<String>,
    /// QEMU's -overcommit cpu-pm=on: the guest may halt and wait by itself
    #[arg(long)]
    pub(crate) cpu_pm: bool,
    /// The guest's kernel; else the input's own, which may be the host's
    #[arg(long, value_name = "RELEASE")]
    pub(crate) guest_kernel: Option<String>,
    /// The command line of the guest's kernel; else a stock one, with --from vcpu the input's own
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) guest_cmdline: Option<String>,
}

impl RouteOptions {
    /// The route from a host's silicon; `unlisted` says what is to be thought of an MSR that the input does not list.
    pub(crate) fn route(&self, unlisted: Unlisted) -> Route<'_> {
        let host = Kernel {
            at: Stage::Host,
            release: self.host_kernel.as_deref(),
            cmdline: self.host_cmdline.as_deref(),
            unlisted,
        };
        let vm = Vm {
            accel: match self.accel {
                Accel::Kvm => way::Accel::Kvm,
                Accel::Tcg => way::Accel::Tcg,
            },
            qemu: self.qemu.as_deref(),
            machine: self.machine.as_deref(),
            cpu: self.cpu.as_deref(),
            smp: self.smp.as_deref(),
            cpu_pm: self.cpu_pm,
        };
        let guest = Kernel {
            release: self.guest_kernel.as_deref(),
            cmdline: self.guest_cmdline.as_deref(),
            ..Kernel::new(Stage::Guest)
        };
        let predicted = self.kvm == KvmAnswer::Predicted;
        Route { kvm: kvm::Question { params: &self.kvm_params, predicted, ..kvm::Question::new(host) }, vm, guest }
    }

    /// The options that were given, by the stage that they are about.
    pub(crate) fn given(&self) -> impl Iterator<Item = (Stage, &'static str)> {
        let all = [
            (Stage::Host, "host-kernel", self.host_kernel.is_some()),
            (Stage::Host, "host-cmdline", self.host_cmdline.is_some()),
            (Stage::Kvm, "kvm-param", !self.kvm_params.is_empty()),
            (Stage::Kvm, "kvm", self.kvm == KvmAnswer::Predicted),
            (Stage::Qemu, "vmm", self.vmm != VmmName::Qemu),
            (Stage::Qemu, "vmm-version", self.vmm_version.is_some()),
            (Stage::Qemu, "template", self.template.is_some()),
            (Stage::Qemu, "accel", self.accel == Accel::Tcg),
            (Stage::Qemu, "qemu", self.qemu.is_some()),
            (Stage::Qemu, "machine", self.machine.is_some()),
            (Stage::Qemu, "cpu", self.cpu.is_some()),
            (Stage::Qemu, "smp", self.smp.is_some()),
            (Stage::Qemu, "cpu-pm", self.cpu_pm),
            (Stage::Guest, "guest-kernel", self.guest_kernel.is_some()),
            (Stage::Guest, "guest-cmdline", self.guest_cmdline.is_some()),
        ];
        all.into_iter().filter(|(.., given)| *given).map(|(stage, name, _)| (stage, name))
    }
}

/// What makes a virtual machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum VmmName {
    /// QEMU
    Qemu,
    /// Firecracker, which hands on what KVM offers, less a CPU template
    Firecracker,
    /// Cloud Hypervisor, which hands on what KVM offers
    CloudHypervisor,
}

/// What executes a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Accel {
    /// The host's KVM
    Kvm,
    /// QEMU's own emulation, which asks neither host nor KVM
    Tcg,
}

/// `name=value`
pub(super) fn param(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not of the form NAME=VALUE")),
    }
}

/// Whose answer is KVM's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KvmAnswer {
    /// The input's own where it holds one, else the predicted one
    Seen,
    /// The predicted one
    Predicted,
}

/// Where a prediction begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum From {
    /// The CPU's own
    Silicon,
    /// A vCPU's, as its guest sees it
    Vcpu,
}

/// Where a prediction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Until {
    /// The host's kernel
    Host,
    /// What KVM offers
    Kvm,
    /// The table that QEMU gives to the vCPU
    Vcpu,
    /// The guest's kernel
    Guest,
}
