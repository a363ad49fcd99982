//! Options of `price`.

use std::path::PathBuf;

use clap::Args;

/// Options of `price`.
#[derive(Debug, Args)]
pub(crate) struct PriceOptions {
    #[command(flatten)]
    pub(crate) guests: PriceGuestOptions,
}

/// Options of `price` for guests.
#[derive(Debug, Args)]
pub(crate) struct PriceGuestOptions {
    /// Boot a guest with this -cpu, which measures itself; twice, to compare two
    #[arg(long, value_name = "TEXT")]
    pub(crate) cpu: Vec<String>,
    /// The QEMU of the guests; else the first on the search path
    #[arg(long, value_name = "FILE", requires = "cpu")]
    pub(crate) qemu: Option<PathBuf>,
    /// The kernel image of the guests; else the running one, else the newest in /boot
    #[arg(long, value_name = "FILE", requires = "cpu")]
    pub(crate) kernel: Option<PathBuf>,
}
