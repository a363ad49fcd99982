//! The command line, as data.

mod automate;
mod choose;
mod fleet;
mod import;
mod live;
mod price;
mod rehearse;
mod report;
mod route;
mod version;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use automate::{CHECK_EXAMPLES, KEY_EXAMPLES, MANUAL_EXAMPLES};
use choose::{MODELS_EXAMPLES, WANT_EXAMPLES};
use import::IMPORT_EXAMPLES;
use live::{DOCTOR_EXAMPLES, TRACE_EXAMPLES, VERIFY_EXAMPLES};
use price::PRICE_EXAMPLES;
use rehearse::REHEARSE_EXAMPLES;
use route::{PREDICT_EXAMPLES, PriceFile};

pub(crate) use automate::{CheckOptions, KeyOptions, LevelName, ManualKind, ManualOptions, Purpose};
pub(crate) use choose::{ModelsOptions, To, WantOptions};
pub(crate) use fleet::{
    BaselineOptions, CompareOptions, DriftOptions, FleetOptions, FleetSetting, FleetVerb, PoolsOptions, Switch,
};
#[cfg(feature = "store")]
pub(crate) use fleet::{Engine, PackOptions, SqlOptions, SqlQuestion, WhoOptions};
pub(crate) use import::{ImportOptions, ImportVerb, ReadOptions};
pub(crate) use live::{DoctorOptions, TraceOptions, VerifyOptions, Whose};
pub(crate) use price::{PriceGuestOptions, PriceOptions, PricePart};
pub(crate) use rehearse::RehearseOptions;
pub(crate) use report::{Output, ReportDiffOptions, ReportFleetOptions, ReportOptions, ReportVerb};
pub(crate) use route::{Accel, From, PredictOptions, RouteOptions, Until, VmmName};

/// Where did my CPU flag go, and how do I get it back?
///
/// CPU features pass six sieves between the silicon and a guest's /proc/cpuinfo: silicon, host kernel, KVM, QEMU, vCPU,
/// guest kernel. cpusieve knows what each one does in which release. Without a verb it says what this machine is and
/// what a guest started here with `-cpu host` would lose and gain.
#[derive(Debug, Parser)]
#[command(version = version::short(), long_version = version::long(), max_term_width = 100, after_help = EXAMPLES, subcommand_value_name = "VERB", subcommand_help_heading = "Verbs")]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
    /// Print JSON (format 1) instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The folder with imported kernel trees; the help of `import` says where it is otherwise.
    #[arg(long, global = true, value_name = "DIR", hide = true)]
    pub(crate) config: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  cpusieve                                  what a guest here would get
  cpusieve diff host.cpuinfo guest.cpuinfo  who took which flags
  cpusieve why nonstop_tsc                  one flag through every sieve
  cpusieve why --file qemu.log              what errors mean, and the remedy
  cpusieve want nonstop_tsc host.json       how a guest gets it
  cpusieve name invtsc                      its names in all systems
  cpusieve predict --until guest host.json  what a guest here will print
  cpusieve models                           which CPU models run here
  cpusieve record -o host.json              all that this machine shows
  cpusieve trace guests --for 10s           guests' CPUIDs by vCPU and leaf
  cpusieve report predict --until guest host.json -o r.html   the same, to look at
  cpusieve price aes                        what a flag is worth here

Exit status:
  0  done, and the same or compatible
  1  done, and different or incompatible
  2  wrong usage or input, nothing done
  3  done in part; what is missing is named";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Flags lost and gained between two ends, by whom, and what brings them back
    #[command(after_help = DIFF_EXAMPLES)]
    Diff(DiffOptions),
    /// One flag through every stage; or what a pasted error means
    #[command(after_help = WHY_EXAMPLES)]
    Why(WhyOptions),
    /// A feature's names in every system, its bit, and the releases it needs
    #[command(after_help = NAME_EXAMPLES)]
    Name(NameOptions),
    /// What a kernel will print and what KVM will offer, and why
    #[command(after_help = PREDICT_EXAMPLES)]
    Predict(Box<PredictOptions>),
    /// How to get flags: the smallest change that gives them to a guest, proven, and what it costs
    #[command(after_help = WANT_EXAMPLES)]
    Want(Box<WantOptions>),
    /// QEMU's CPU models: what runs here, what a name means, what differs
    #[command(after_help = MODELS_EXAMPLES)]
    Models(ModelsOptions),
    /// What an upgrade of kernel, KVM or QEMU changes for guests, what breaks, and what keeps it as it is
    #[command(after_help = REHEARSE_EXAMPLES)]
    Rehearse(Box<RehearseOptions>),
    /// Many hosts at once: what a guest may have on all of them
    Fleet(FleetOptions),
    /// A page to look at: the sieve picture and every answer behind it, in one HTML file
    Report(Box<ReportOptions>),
    /// Write one file with all that this machine's stages show
    #[command(after_help = RECORD_EXAMPLES)]
    Record(RecordOptions),
    /// Predictions held against this kernel, KVM, a vCPU, QEMU and a guest
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(VerifyOptions),
    /// CPUID live: guests' exits, KVM's own calls, the instructions of a program
    #[command(after_help = TRACE_EXAMPLES)]
    Trace(TraceOptions),
    /// What CPU features are worth here, what leaving costs, and what other programs choose
    #[command(after_help = PRICE_EXAMPLES)]
    Price(Box<PriceOptions>),
    /// Whether this machine is a good host: what is switched off or missing, and what helps
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(DoctorOptions),
    /// One line and one status for monitoring: whether a machine has what is asked of it
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckOptions),
    /// A short key of what programs or snapshots rely on, for caches and pools
    #[command(after_help = KEY_EXAMPLES)]
    Key(KeyOptions),
    /// A kernel tree of your own, for all verbs to use: what it changes, and what else must change
    #[command(after_help = IMPORT_EXAMPLES)]
    Import(ImportOptions),
    /// Shell completions or man pages, made from the same table as this help
    #[command(after_help = MANUAL_EXAMPLES)]
    Manual(ManualOptions),
}

const RECORD_EXAMPLES: &str = "\
Examples:
  cpusieve record -o host.json            as root: with MSRs and KVM's answers
  cpusieve record --only cpuid            CPUID of every CPU, nothing else
  cpusieve record --anonymous             without serial numbers and host names
  cpusieve record --prometheus -o /var/lib/node_exporter/cpusieve.prom
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
    /// Write metrics for Prometheus' textfile collector instead of a record
    #[arg(long, conflicts_with = "only")]
    pub(crate) prometheus: bool,
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
    #[command(flatten)]
    pub(crate) price: PriceFile,
}

const WHY_EXAMPLES: &str = "\
A paste may have any number of lines: QEMU's warnings, `failed to set MSR`, libvirt's, KubeVirt's and
Nova's errors, kernel logs, \"Illegal instruction\" with the instruction or its bytes, programs that
miss an instruction set. Lines that say nothing of CPUs are ignored and counted.

Examples:
  cpusieve why acpi                        who takes it, in which releases
  cpusieve why spec_ctrl                   a feature that no kernel prints
  cpusieve why ibt --host host.json        on this host
  cpusieve why avx512f --host host.cpuinfo --guest guest.cpuinfo
  cpusieve why 'error: failed to set MSR 0x48b to 0x137bff00000000'
  journalctl -u libvirtd | cpusieve why -
  cpusieve why --file qemu.log --host host.json
  cpusieve why c4 e2 7d 78 c0              the bytes of an illegal instruction";

/// Options of `why`.
#[derive(Debug, Args)]
pub(crate) struct WhyOptions {
    /// A flag in any system's spelling; or an error as it was printed, a file with such lines, or `-` for standard input
    #[arg(value_name = "FLAG|ERROR", required_unless_present = "file", num_args = 1..)]
    pub(crate) things: Vec<String>,
    /// Read the error from FILE
    #[arg(long, value_name = "FILE", conflicts_with = "things")]
    pub(crate) file: Option<PathBuf>,
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
