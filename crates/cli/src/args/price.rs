//! Options of `price`, which measures.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

pub(super) const PRICE_EXAMPLES: &str = "\
Each feature is priced by real work done with it and without it in one process, in turn, again and
again. \"Without\" is the best way known that does not use the feature. Each result is checked before
anything is timed; what this CPU lacks is not run. The interval holds the true ratio in 95 of 100 runs.

Examples:
  cpusieve price                     everything that this machine can price, the most worth first
  cpusieve price aes sha_ni          two features
  cpusieve price avx512f --for 10    in ten seconds
  cpusieve price --list              the work, and what this CPU lacks for it
  cpusieve price --json > here.json  as data; predict --price here.json shows it
  cpusieve price --only exits        what CPUID, clocks, calls and faults cost here
  cpusieve price --cpu qemu64 --cpu host   two guests under KVM measure themselves

Without FEATURE all parts are done; exits (2 s) and programs (some 40 s) come on top of --for.

Exit status 3: a feature that was named could not be priced, or the run was cut short.";

/// Options of `price`.
#[derive(Debug, Args)]
pub(crate) struct PriceOptions {
    /// Features, in any system's spelling; else all that have work
    #[arg(value_name = "FEATURE")]
    pub(crate) features: Vec<String>,
    /// The longest that measuring may take
    #[arg(long = "for", value_name = "SECONDS", default_value = "75", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
    /// Show the work instead of doing it
    #[arg(long)]
    pub(crate) list: bool,
    /// One part alone
    #[arg(long, value_name = "PART", conflicts_with_all = ["features", "list"])]
    pub(crate) only: Option<PricePart>,
    #[command(flatten)]
    pub(crate) guests: PriceGuestOptions,
}

/// A part of what `price` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PricePart {
    /// Work with a feature and without it
    Features,
    /// What leaving costs: CPUID, clocks, system calls, faults
    Exits,
    /// What glibc and OpenSSL choose, and the same work by them without a feature
    Programs,
}

/// Options of `price` for guests.
#[derive(Debug, Args)]
pub(crate) struct PriceGuestOptions {
    /// Boot a guest with this -cpu, which measures itself for a quarter of --for; twice, to compare two
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["features", "list", "only"])]
    pub(crate) cpu: Vec<String>,
    /// The QEMU of the guests; else the first on the search path
    #[arg(long, value_name = "FILE", requires = "cpu")]
    pub(crate) qemu: Option<PathBuf>,
    /// The kernel image of the guests; else the running one, else the newest in /boot
    #[arg(long, value_name = "FILE", requires = "cpu")]
    pub(crate) kernel: Option<PathBuf>,
}
