//! Options of `price`, which measures.

use clap::Args;

pub(super) const PRICE_EXAMPLES: &str = "\
Each feature is priced by real work done with it and without it in one process, in turn, again and
again. \"Without\" is the best way known that does not use the feature. Each result is checked before
anything is timed; what this CPU lacks is not run. The interval holds the true ratio in 95 of 100 runs.

Examples:
  cpusieve price                     everything that this machine can price, the most worth first
  cpusieve price aes sha_ni          two features
  cpusieve price avx512f --for 10    in ten seconds
  cpusieve price --list              the work, and what this CPU lacks for it
  cpusieve price --json > here.json  as data

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
}
