//! The command line, as data.

mod fleet;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use cpusieve_answers::predict::way::{self, Route, Vm};
use cpusieve_answers::predict::{Kernel, kvm};
use cpusieve_model::Stage;
use cpusieve_stages::linux::boot::Unlisted;

pub(crate) use fleet::{
    BaselineOptions, CompareOptions, DriftOptions, FleetOptions, FleetSetting, FleetVerb, PoolsOptions, Switch, To,
};

/// Where did my CPU flag go, and how do I get it back?
///
/// CPU features pass six sieves between the silicon and a guest's /proc/cpuinfo: silicon, host kernel, KVM, QEMU, vCPU,
/// guest kernel. cpusieve knows what each one does in which release. Without a verb it says what this machine is and
/// what a guest started here with `-cpu host` would lose and gain.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXAMPLES, subcommand_value_name = "VERB", subcommand_help_heading = "Verbs")]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
    /// Print JSON (format 1) instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

const EXAMPLES: &str = "\
Examples:
  cpusieve                                  what a guest here would get
  cpusieve diff host.cpuinfo guest.cpuinfo  who took which flags
  cpusieve why nonstop_tsc                  one flag through every sieve
  cpusieve name invtsc                      its names in all systems
  cpusieve predict --until guest host.json  what a guest here will print
  cpusieve record -o host.json              all that this machine shows

Exit status:
  0  done, and the same or compatible
  1  done, and different or incompatible
  2  wrong usage or input, nothing done
  3  done in part; what is missing is named";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Write one file with all that this machine's stages show
    #[command(after_help = RECORD_EXAMPLES)]
    Record(RecordOptions),
    /// Flags lost and gained between two ends, by whom, and what brings them back
    #[command(after_help = DIFF_EXAMPLES)]
    Diff(DiffOptions),
    /// One flag through every stage
    #[command(after_help = WHY_EXAMPLES)]
    Why(WhyOptions),
    /// A feature's names in every system, its bit, and the releases it needs
    #[command(after_help = NAME_EXAMPLES)]
    Name(NameOptions),
    /// What a kernel will print and what KVM will offer, and why
    #[command(after_help = PREDICT_EXAMPLES)]
    Predict(PredictOptions),
    /// The prediction held against the real thing
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(VerifyOptions),
    /// Many hosts at once: what a guest may have on all of them
    Fleet(FleetOptions),
}

const RECORD_EXAMPLES: &str = "\
Examples:
  cpusieve record -o host.json            as root: with MSRs and KVM's answers
  cpusieve record --only cpuid            CPUID of every CPU, nothing else
  cpusieve record --anonymous             without serial numbers and host names
  ssh HOST cpusieve record > host.json    of another machine";

/// Options of `record`.
#[derive(Debug, Args)]
pub(crate) struct RecordOptions {
    /// Write to FILE instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Record one part alone
    #[arg(long, value_name = "PART")]
    pub(crate) only: Option<Part>,
    /// Leave out serial numbers, host names and what else names this machine
    #[arg(long)]
    pub(crate) anonymous: bool,
}

/// A part of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// CPUID of every CPU
    Cpuid,
}

const DIFF_EXAMPLES: &str = "\
Ends are recognised by content: a cpusieve record, /proc/cpuinfo, one bare flags line, lscpu (text or \
-J), cpuid -r, kcpuid -r, AIDA64/InstLatx64 and libcpuid dumps, libvirt XML, Firecracker fingerprints.

Examples:
  cpusieve diff host.cpuinfo guest.cpuinfo
  ssh GUEST cat /proc/cpuinfo | cpusieve diff /proc/cpuinfo -
  cpusieve diff host.json guest.json --json | jq '.lost[] | {flag, at, remedy}'";

/// Options of `diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffOptions {
    /// The host, or the machine before; `-` is standard input
    pub(crate) a: PathBuf,
    /// The guest, or the machine after; `-` is standard input
    pub(crate) b: PathBuf,
    /// Show for every flag its bit, its cause and its other possible causes
    #[arg(short, long)]
    pub(crate) long: bool,
}

const WHY_EXAMPLES: &str = "\
Examples:
  cpusieve why acpi                        who takes it, in which releases
  cpusieve why spec_ctrl                   a feature that no kernel prints
  cpusieve why ibt --host host.json        on this host
  cpusieve why avx512f --host host.cpuinfo --guest guest.cpuinfo";

/// Options of `why`.
#[derive(Debug, Args)]
pub(crate) struct WhyOptions {
    /// The flag, in any system's spelling
    #[arg(value_name = "FLAG")]
    pub(crate) flag: String,
    /// What is known of the host: any input that `diff` reads
    #[arg(long, value_name = "FILE")]
    pub(crate) host: Option<PathBuf>,
    /// What is known of the guest
    #[arg(long, value_name = "FILE", requires = "host")]
    pub(crate) guest: Option<PathBuf>,
}

const NAME_EXAMPLES: &str = "\
Examples:
  cpusieve name pni
  cpusieve name sse4.1
  cpusieve name invtsc --json";

/// Options of `name`.
#[derive(Debug, Args)]
pub(crate) struct NameOptions {
    /// The feature, in any system's spelling
    #[arg(value_name = "FLAG")]
    pub(crate) flag: String,
}

const PREDICT_EXAMPLES: &str = "\
The input is anything with CPUID in it: a cpusieve record, cpuid -r, kcpuid -r, AIDA64/InstLatx64
and libcpuid dumps, libvirt's CPUID XML. What it lacks (kernels, command lines, MSRs, microcode) and
what was not given is assumed, and each assumption is listed with the flags that hang on it.

Examples:
  cpusieve predict --until host host.json                     the kernel of the record itself
  cpusieve predict --until host --host-kernel 6.12 host.json  this machine under another kernel
  cpusieve predict --until kvm --kvm-param nested=0 host.json what KVM offers, as registers
  cpusieve predict --until vcpu --qemu 10.0 --machine q35 --cpu EPYC,+invtsc host.json
  cpusieve predict --until guest --cpu host,migratable=off --guest-kernel 6.12 host.json
  cpusieve predict --from vcpu --until guest --guest-kernel 6.1 guest.cpuid
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
    /// A file with CPUID in it; `-` is standard input
    #[arg(value_name = "INPUT")]
    pub(crate) input: PathBuf,
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
    /// The version of QEMU, such as 7.2; else the first of the input
    #[arg(long, value_name = "VERSION")]
    pub(crate) qemu: Option<String>,
    /// QEMU's -machine, such as q35 or pc-q35-6.2,kernel-irqchip=split; else QEMU's default
    #[arg(long, value_name = "TYPE")]
    pub(crate) machine: Option<String>,
    /// QEMU's -cpu, such as host or EPYC,+invtsc; else host, under TCG max
    #[arg(long, value_name = "TEXT")]
    pub(crate) cpu: Option<String>,
    /// QEMU's -smp, such as 4,sockets=1,cores=2,threads=2; else one CPU
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

/// What executes a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Accel {
    /// The host's KVM
    Kvm,
    /// QEMU's own emulation, which asks neither host nor KVM
    Tcg,
}

/// `name=value`
fn param(text: &str) -> Result<(String, String), String> {
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

const VERIFY_EXAMPLES: &str = "\
Predicts what KVM answers from this machine's CPUID, MSRs and kernel, asks KVM itself, and compares
every register. A record that holds both is compared without asking.

Examples:
  cpusieve verify                  this machine's KVM; as root, so that MSRs can be read
  cpusieve verify --kvm host.json  the KVM of a record";

/// Options of `verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyOptions {
    /// Verify KVM; the default, as there is nothing else to verify yet
    #[arg(long)]
    pub(crate) kvm: bool,
    /// A record with CPUID and KVM's answers; else this machine
    #[arg(value_name = "RECORD")]
    pub(crate) record: Option<PathBuf>,
}
