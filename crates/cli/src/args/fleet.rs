//! The arguments of `fleet`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::choose::To;
use super::route::{PriceFile, param};

const FLEET_EXAMPLES: &str = "\
Inputs are files, folders (read with all below them) and standard input (-): anything with CPUID in it,
as for predict, records one a line (NDJSON), and what fleet pack wrote. What KVM offers on each host is
taken from a record or predicted, and what cannot be used is named.

libvirt's <cpu> elements, one or several a file, have a baseline of their own, as virsh cpu-baseline makes it.

Examples:
  cpusieve fleet baseline hosts/                         what a guest may have everywhere
  cpusieve fleet baseline hosts/ --qemu 10.0 --to libvirt
  for h in $HOSTS; do ssh $h cpusieve record | jq -c .; done | cpusieve fleet baseline -";

const COMPARE_EXAMPLES: &str = "\
Each end is a host, as for baseline, or libvirt's <cpu> XML: its model is then the one of libvirt's CPU map, and its
policies count as in virsh cpu-compare.

Examples:
  cpusieve fleet compare old.json new.json   superset: what runs on the second runs on the first
  cpusieve fleet compare host.json guest.xml

Exit status:
  0  identical, or a superset
  1  a subset, or incompatible";

const POOLS_EXAMPLES: &str = "\
Each host runs guests with what its whole pool has; the best split is the one with the most features over all
hosts, each weighed by its price where one is known (how many times faster the best of its works is), else 1;
--weight says otherwise.

Examples:
  cpusieve fleet pools hosts/ --k 4
  cpusieve fleet pools hosts/ --k 2 --weight avx512f=20 --weight amx_tile=50";

const DRIFT_EXAMPLES: &str = "\
Hosts are matched by the names of their files, without the ending.

Examples:
  cpusieve fleet drift 2025-06/ 2025-07/

Exit status:
  0  no host changed what it offers
  1  a host did";

#[cfg(feature = "store")]
const PACK_EXAMPLES: &str = "\
A row for each kind of host with its feature words, the number of its hosts and their names. Such a file is
mapped and read as it lies there, by the other verbs of fleet too: a million hosts in a tenth of a second. Its words
hold for the QEMU, machine and kernel named here, which count when it is read and nothing else is named.

Examples:
  cpusieve fleet pack -o fleet.arrow hosts/ --qemu 10.0
  cpusieve fleet pack -o fleet.arrow --parquet fleet.parquet hosts/ --qemu 10.0
  cpusieve fleet baseline fleet.arrow";

#[cfg(feature = "store")]
const WHO_EXAMPLES: &str = "\
Examples:
  cpusieve fleet who avx512f hosts/
  cpusieve fleet who amx-tile fleet.arrow --qemu 10.0

Exit status:
  0  all hosts offer it
  1  some do not";

#[cfg(feature = "store")]
const SQL_EXAMPLES: &str = "\
A baseline is a bitwise AND, so other engines give the same answer over the files of fleet pack, on as many
machines as they run on. FILE is only named in the query; it is not looked at.

Examples:
  cpusieve fleet sql baseline --engine duckdb fleet.parquet | duckdb
  cpusieve fleet sql features --engine spark hdfs:///fleet.parquet
  cpusieve fleet sql who --feature avx512f --engine clickhouse fleet.arrow";

/// Options of `fleet`.
#[derive(Debug, Args)]
pub(crate) struct FleetOptions {
    /// What to do with them.
    #[command(subcommand)]
    pub(crate) verb: FleetVerb,
}

/// What can be asked of many hosts.
#[derive(Debug, Subcommand)]
pub(crate) enum FleetVerb {
    /// The best CPU that a guest may have on every host, and what each host costs
    #[command(after_help = FLEET_EXAMPLES)]
    Baseline(BaselineOptions),
    /// Whether what runs on one host runs on another
    #[command(after_help = COMPARE_EXAMPLES)]
    Compare(CompareOptions),
    /// The best split into pools, and what each further pool gains
    #[command(after_help = POOLS_EXAMPLES)]
    Pools(PoolsOptions),
    /// What changed on each host between two collections
    #[command(after_help = DRIFT_EXAMPLES)]
    Drift(DriftOptions),
    /// Write a fleet as one file of columns, to be read without decoding
    #[cfg(feature = "store")]
    #[command(after_help = PACK_EXAMPLES)]
    Pack(PackOptions),
    /// How many hosts offer a feature, and which do not
    #[cfg(feature = "store")]
    #[command(after_help = WHO_EXAMPLES)]
    Who(WhoOptions),
    /// The query with which another engine answers over packed files
    #[cfg(feature = "store")]
    #[command(after_help = SQL_EXAMPLES)]
    Sql(SqlOptions),
}

/// The software of a fleet.
#[derive(Clone, Debug, Args)]
pub(crate) struct FleetSetting {
    /// The version of QEMU on all hosts; else that of a packed file, or the newest known
    #[arg(long, value_name = "VERSION")]
    pub(crate) qemu: Option<String>,
    /// QEMU's -machine, its type alone; else pc, or that of a packed file without --qemu
    #[arg(long, value_name = "TYPE")]
    pub(crate) machine: Option<String>,
    /// The kernel of all hosts; else each input's own
    #[arg(long, value_name = "RELEASE")]
    pub(crate) host_kernel: Option<String>,
    /// A parameter of KVM's modules on all hosts; else each input's own
    #[arg(long = "kvm-param", value_name = "NAME=VALUE", value_parser = param)]
    pub(crate) kvm_params: Vec<(String, String)>,
    /// Take machines under a hypervisor for hosts although their KVM was not seen
    #[arg(long)]
    pub(crate) nested: bool,
    /// Stop at the first input that cannot be used
    #[arg(long)]
    pub(crate) strict: bool,
    /// Whether features that QEMU does not migrate, such as invtsc, are left out
    #[arg(long, value_name = "SWITCH", default_value = "on")]
    pub(crate) migratable: Switch,
    #[command(flatten)]
    pub(crate) price: PriceFile,
}

/// `on` or `off`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// Left out
    On,
    /// Kept
    Off,
}

/// Options of `fleet baseline`.
#[derive(Debug, Args)]
pub(crate) struct BaselineOptions {
    #[command(flatten)]
    pub(crate) setting: FleetSetting,
    /// Print the CPU alone, ready to paste
    #[arg(long, value_name = "SYSTEM", conflicts_with = "json")]
    pub(crate) to: Option<To>,
    /// The version of libvirt whose CPU map its definitions and --to libvirt keep to; else the newest known
    #[arg(long, value_name = "VERSION")]
    pub(crate) libvirt: Option<String>,
    /// Files, folders, or `-` for standard input
    #[arg(value_name = "INPUT", default_value = "-")]
    pub(crate) inputs: Vec<PathBuf>,
}

/// Options of `fleet compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareOptions {
    #[command(flatten)]
    pub(crate) setting: FleetSetting,
    /// The version of libvirt whose CPU map gives its definitions their meaning; else the newest known
    #[arg(long, value_name = "VERSION")]
    pub(crate) libvirt: Option<String>,
    /// The host
    pub(crate) a: PathBuf,
    /// What is to run on it: another host's guests, or a CPU's definition
    pub(crate) b: PathBuf,
}

/// Options of `fleet pools`.
#[derive(Debug, Args)]
pub(crate) struct PoolsOptions {
    #[command(flatten)]
    pub(crate) setting: FleetSetting,
    /// The most pools
    #[arg(long = "k", value_name = "N", default_value = "4", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) most: u16,
    /// What a feature is worth, such as avx512f=20; else its price, or 1
    #[arg(long = "weight", value_name = "FLAG=NUMBER", value_parser = param)]
    pub(crate) weights: Vec<(String, String)>,
    /// Files, folders, or `-` for standard input
    #[arg(value_name = "INPUT", default_value = "-")]
    pub(crate) inputs: Vec<PathBuf>,
}

/// Options of `fleet drift`.
#[derive(Debug, Args)]
pub(crate) struct DriftOptions {
    #[command(flatten)]
    pub(crate) setting: FleetSetting,
    /// The earlier collection: a folder or a file
    pub(crate) old: PathBuf,
    /// The later collection
    pub(crate) new: PathBuf,
}

/// Options of `fleet pack`.
#[cfg(feature = "store")]
#[derive(Debug, Args)]
pub(crate) struct PackOptions {
    #[command(flatten)]
    pub(crate) setting: FleetSetting,
    /// The Arrow file to write
    #[arg(short, long, value_name = "FILE", required_unless_present = "parquet")]
    pub(crate) output: Option<PathBuf>,
    /// The Parquet file to write
    #[arg(long, value_name = "FILE")]
    pub(crate) parquet: Option<PathBuf>,
    /// Files, folders, or `-` for standard input
    #[arg(value_name = "INPUT", default_value = "-")]
    pub(crate) inputs: Vec<PathBuf>,
}

/// Options of `fleet who`.
#[cfg(feature = "store")]
#[derive(Debug, Args)]
pub(crate) struct WhoOptions {
    #[command(flatten)]
    pub(crate) setting: FleetSetting,
    /// The feature, by any of its names
    pub(crate) feature: String,
    /// Files, folders, or `-` for standard input
    #[arg(value_name = "INPUT", default_value = "-")]
    pub(crate) inputs: Vec<PathBuf>,
}

/// Options of `fleet sql`.
#[cfg(feature = "store")]
#[derive(Debug, Args)]
pub(crate) struct SqlOptions {
    /// What is asked
    pub(crate) question: SqlQuestion,
    /// Who is to answer
    #[arg(long, value_name = "ENGINE")]
    pub(crate) engine: Engine,
    /// The feature of `who`
    #[arg(long, value_name = "FLAG", required_if_eq("question", "who"))]
    pub(crate) feature: Option<String>,
    /// The version of QEMU that the file was packed for; else the newest known
    #[arg(long, value_name = "VERSION")]
    pub(crate) qemu: Option<String>,
    /// The packed file, as the engine is to name it
    pub(crate) file: String,
}

/// A question that SQL can answer.
#[cfg(feature = "store")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SqlQuestion {
    /// What all hosts offer, column by column
    Baseline,
    /// How many hosts offer each feature
    Features,
    /// How many hosts there are of each vendor and signature
    Kinds,
    /// How many hosts offer one feature
    Who,
}

/// An engine that reads packed files.
#[cfg(feature = "store")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// DuckDB
    Duckdb,
    /// Apache DataFusion
    Datafusion,
    /// ClickHouse
    Clickhouse,
    /// Apache Spark
    Spark,
}
