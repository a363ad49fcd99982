//! The arguments of `report`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{FleetSetting, PredictOptions};

const REPORT_EXAMPLES: &str = "\
The page is one file: it loads nothing, works from a disk, holds the answer's JSON, and can be \
printed. Keys: / to search, arrows to move, Enter to choose, Esc to close.

Examples:
  cpusieve report diff host.cpuinfo guest.cpuinfo -o report.html
  cpusieve report predict --until guest --cpu EPYC host.json -o report.html
  cpusieve report fleet hosts/ -o fleet.html
  cpusieve rehearse --qemu 7.2..10.0 host.json --json | cpusieve report rehearse -o upgrade.html
  cpusieve price --json | cpusieve report price -o price.html
  cpusieve report diff host.cpuinfo guest.cpuinfo --svg -o sieve.svg";

/// Options of `report`.
#[derive(Debug, Args)]
#[command(after_help = REPORT_EXAMPLES)]
pub(crate) struct ReportOptions {
    /// What to show.
    #[command(subcommand)]
    pub(crate) verb: ReportVerb,
}

/// What can be shown.
#[derive(Debug, Subcommand)]
pub(crate) enum ReportVerb {
    /// Flags lost and gained between two ends
    Diff(ReportDiffOptions),
    /// What comes out of each sieve on the way to a guest
    Predict(Box<ReportPredictOptions>),
    /// An upgrade that was rehearsed: the answer of `rehearse --json`
    Rehearse(ReportRehearseOptions),
    /// Many hosts: what each offers, the baseline, and pools
    Fleet(ReportFleetOptions),
    /// What features are worth, as a chart: the answer of `price --json`
    Price(ReportPriceOptions),
}

/// Where a page goes.
#[derive(Debug, Args)]
pub(crate) struct Output {
    /// Write to FILE instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Write the picture alone, as SVG
    #[arg(long)]
    pub(crate) svg: bool,
}

/// Options of `report diff`.
#[derive(Debug, Args)]
pub(crate) struct ReportDiffOptions {
    /// The host, or the machine before; `-` is standard input
    pub(crate) a: PathBuf,
    /// The guest, or the machine after; `-` is standard input
    pub(crate) b: PathBuf,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Options of `report predict`.
#[derive(Debug, Args)]
pub(crate) struct ReportPredictOptions {
    #[command(flatten)]
    pub(crate) predict: PredictOptions,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Options of `report rehearse`.
#[derive(Debug, Args)]
pub(crate) struct ReportRehearseOptions {
    #[command(flatten)]
    pub(crate) output: Output,
    /// What `cpusieve rehearse --json` printed; `-` is standard input
    #[arg(value_name = "JSON", default_value = "-")]
    pub(crate) input: PathBuf,
}

/// Options of `report price`.
#[derive(Debug, Args)]
pub(crate) struct ReportPriceOptions {
    #[command(flatten)]
    pub(crate) output: Output,
    /// What `cpusieve price --json` printed; `-` is standard input
    #[arg(value_name = "JSON", default_value = "-")]
    pub(crate) input: PathBuf,
}

/// Options of `report fleet`.
#[derive(Debug, Args)]
pub(crate) struct ReportFleetOptions {
    #[command(flatten)]
    pub(crate) setting: FleetSetting,
    /// The most pools to look for; 1 for none
    #[arg(long = "k", value_name = "N", default_value = "4", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) most: u16,
    #[command(flatten)]
    pub(crate) output: Output,
    /// Files, folders, or `-` for standard input
    #[arg(value_name = "INPUT", default_value = "-")]
    pub(crate) inputs: Vec<PathBuf>,
}
