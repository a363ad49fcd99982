//! The command line, as data.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use cpusieve_answers::predict::way::{self, Route, Vm};
use cpusieve_answers::predict::{Kernel, kvm};
use cpusieve_model::Stage;
use cpusieve_stages::linux::boot::Unlisted;

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
  cpusieve want nonstop_tsc host.json       how a guest gets it
  cpusieve name invtsc                      its names in all systems
  cpusieve predict --until guest host.json  what a guest here will print
  cpusieve models                           which CPU models run here
  cpusieve record -o host.json              all that this machine shows
  cpusieve trace guests --for 10s           guests' CPUIDs by vCPU and leaf

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
    Predict(Box<PredictOptions>),
    /// QEMU's CPU models: what runs here, what a name means, what differs
    #[command(after_help = MODELS_EXAMPLES)]
    Models(ModelsOptions),
    /// How to get flags: the smallest change that gives them to a guest, proven, and what it costs
    #[command(after_help = WANT_EXAMPLES)]
    Want(Box<WantOptions>),
    /// Predictions held against this kernel, KVM, a vCPU, QEMU and a guest
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(VerifyOptions),
    /// CPUID live: guests' exits, KVM's own calls, the instructions of a program
    #[command(after_help = TRACE_EXAMPLES)]
    Trace(TraceOptions),
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
  cpusieve predict --until guest --vmm firecracker --template T2 host.json
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

const MODELS_EXAMPLES: &str = "\
Without a name: all models. With one: that model. With two: what differs. NAME is what -cpu takes, with
properties if need be; NAME@RELEASE asks another QEMU than --qemu. Without --host this machine is the host.

Examples:
  cpusieve models                                     which run here, and which is the best
  cpusieve models --host host.json --qemu 10.0        on a recorded host
  cpusieve models SandyBridge --machine q35           one model: its meaning, features, what is taken
  cpusieve models SandyBridge SandyBridge-IBRS        what differs
  cpusieve models EPYC-Milan@7.2 EPYC-Milan@10.0      what an upgrade of QEMU changes

Exit status 1 says that the model lacks something here, or that the two differ.";

/// Options of `models`.
#[derive(Debug, Args)]
pub(crate) struct ModelsOptions {
    /// A model, version or alias, as -cpu takes it
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Another, to compare with
    #[arg(value_name = "NAME2")]
    pub(crate) other: Option<String>,
    /// QEMU's release, such as 7.2 or 10.0.13; else the host's own, else the newest known
    #[arg(long, value_name = "RELEASE")]
    pub(crate) qemu: Option<String>,
    /// The machine type; QEMU's own default is pc
    #[arg(long, value_name = "TYPE", default_value = "pc")]
    pub(crate) machine: String,
    /// What runs the guest
    #[arg(long, value_name = "NAME", default_value = "kvm")]
    pub(crate) accel: ModelsAccel,
    /// The host: a file with CPUID in it; `-` is standard input
    #[arg(long, value_name = "INPUT")]
    pub(crate) host: Option<PathBuf>,
}

/// What runs a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModelsAccel {
    /// The host's KVM
    Kvm,
    /// QEMU's own emulation
    Tcg,
}

const WANT_EXAMPLES: &str = "\
The options tell how the guest is started now; what is not given is assumed as by `predict`. INPUT is
the host: a cpusieve record, or anything else with CPUID in it. Exit status 1: it cannot be had.

Examples:
  cpusieve want nonstop_tsc host.json                          from -cpu host
  cpusieve want avx512f la57 --cpu Skylake-Server host.json    two flags for a named model
  cpusieve want svm --without avx2 --cpu EPYC host.json        one flag, and not another
  cpusieve want invtsc --to libvirt host.json > cpu.xml        ready to paste";

/// Options of `want`.
#[derive(Debug, Args)]
pub(crate) struct WantOptions {
    /// The flags that the guest should show, in any system's spelling, and then the host: a file, `-` is standard input
    #[arg(value_name = "FLAG... INPUT", required = true, num_args = 1..)]
    pub(crate) flags_and_input: Vec<PathBuf>,
    /// A flag that the guest should not show
    #[arg(long, value_name = "FLAG")]
    pub(crate) without: Vec<String>,
    #[command(flatten)]
    pub(crate) route: RouteOptions,
    /// Print what is to be pasted, and nothing else; the rest goes to standard error
    #[arg(long, value_name = "SYSTEM")]
    pub(crate) to: Option<To>,
}

/// A system that starts guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum To {
    /// Part of QEMU's command line
    Qemu,
    /// Elements of libvirt's domain XML
    Libvirt,
    /// A custom CPU template of Firecracker
    Firecracker,
    /// Proxmox VE's cpu-models.conf and the guest's configuration
    Proxmox,
}

const VERIFY_EXAMPLES: &str = "\
Predicts, asks the real thing, and compares: what this kernel prints of its own CPUs (host), what KVM
offers (kvm), what a vCPU made by cpusieve itself reads and which MSRs it takes (vcpu), what every
installed QEMU says of its models and of a paused machine (qemu), and what a Linux guest that QEMU boots
sees (guest; under KVM where stock kernels run there, else under TCG). Without a selection all parts
are asked; one that this machine does not allow is named with what helps. Nothing is left running.

A record is compared without asking; --keep writes one that holds what was asked.

Examples:
  cpusieve verify                          everything; as root, so that MSRs can be read
  cpusieve verify --vcpu                   does KVM give a guest what its table says?
  cpusieve verify --guest --kernel /boot/vmlinuz-6.12.0-1-amd64
  cpusieve verify --keep proof.json        keep all answers as a regression test
  cpusieve verify proof.json               compare them again";

/// Options of `verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyOptions {
    /// This machine's own kernel: flags, bugs and vmx flags of every CPU
    #[arg(long)]
    pub(crate) host: bool,
    /// What /dev/kvm offers
    #[arg(long)]
    pub(crate) kvm: bool,
    /// A vCPU of our own that executes CPUID, and the MSRs that QEMU would write
    #[arg(long)]
    pub(crate) vcpu: bool,
    /// Every installed QEMU, over QMP
    #[arg(long)]
    pub(crate) qemu: bool,
    /// A guest that QEMU boots
    #[arg(long)]
    pub(crate) guest: bool,
    /// The kernel image of the guest; else the running one, else the newest in /boot
    #[arg(long, value_name = "FILE", conflicts_with = "record")]
    pub(crate) kernel: Option<PathBuf>,
    /// The longest that QEMU may take for an answer, and a guest for its boot
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) limit: u64,
    /// Write a record with all that was asked to FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) keep: Option<PathBuf>,
    /// A record with CPUID and captured answers; else this machine
    #[arg(value_name = "RECORD")]
    pub(crate) record: Option<PathBuf>,
}

const TRACE_EXAMPLES: &str = "\
guests and host use tracefs alone, in an instance of their own that is removed at the end, also after
Ctrl-C; what a SIGKILL leaves there is removed by the next start. exec single-steps nothing: it uses
CPUID faulting where the CPU has it, else breakpoints; what the program prints goes to standard error.

Examples:
  cpusieve trace                           guests' CPUIDs by vCPU and leaf, until Ctrl-C
  cpusieve trace guests --for 10s --json   the same for ten seconds, as JSON
  cpusieve trace host                      what KVM asks the CPU, by leaf and kernel stack
  cpusieve trace exec -- /bin/true         the CPUIDs of one program, by leaf and library
  cpusieve trace --from trace.txt          trace_pipe, perf script, trace-cmd report, stackcount, bpftrace";

/// Options of `trace`.
#[derive(Debug, Args)]
pub(crate) struct TraceOptions {
    /// Whose CPUIDs
    #[arg(value_name = "WHOSE", default_value = "guests")]
    pub(crate) whose: Whose,
    /// How long, such as 10s, 500ms or 2m; else until Ctrl-C
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub(crate) duration: Option<Duration>,
    /// Read what another program printed of the same events; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["duration", "command"])]
    pub(crate) from: Option<PathBuf>,
    /// The host whose KVM is compared with; else this machine, with --from none
    #[arg(long, value_name = "RECORD")]
    pub(crate) host: Option<PathBuf>,
    /// Read guests' events one by one even where the kernel can count them itself
    #[arg(long)]
    pub(crate) events: bool,
    /// The program of exec, and its arguments
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// Whose CPUIDs are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Whose {
    /// Those that guests execute and KVM answers
    Guests,
    /// Those that KVM itself executes to learn what the CPU has
    Host,
    /// Those of the program behind `--`
    Exec,
}

/// `10s`, `500ms`, `2m`, or seconds without a unit.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let milliseconds = match text.get(digits.len()..) {
        Some("" | "s") => Some(1000),
        Some("ms") => Some(1),
        Some("m") => Some(60_000),
        _ => None,
    };
    let number = digits.parse::<u64>().ok().zip(milliseconds).and_then(|(number, unit)| number.checked_mul(unit));
    // Later moments cannot be told any more.
    let bounded = number.filter(|&milliseconds| milliseconds > 0 && milliseconds <= 365 * 86_400_000);
    bounded.map(Duration::from_millis).ok_or_else(|| format!("`{text}` is no time such as 10s, 500ms or 2m"))
}
