//! Options of `models` and `want`, which help to choose a `-cpu`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::route::{Accel, PriceFile, RouteOptions};

pub(super) const MODELS_EXAMPLES: &str = "\
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
    pub(crate) accel: Accel,
    /// The host: a file with CPUID in it; `-` is standard input
    #[arg(long, value_name = "INPUT")]
    pub(crate) host: Option<PathBuf>,
}

pub(super) const WANT_EXAMPLES: &str = "\
The options tell how the guest is started now; what is not given is assumed as by `predict`. INPUT is
the host: a cpusieve record, or anything else with CPUID in it. Exit status 1: it cannot be had.

Examples:
  cpusieve want nonstop_tsc host.json                          from -cpu host
  cpusieve want avx512f la57 --cpu Skylake-Server host.json    two flags for a named model
  cpusieve want svm --without avx2 --cpu EPYC host.json        one flag, and not another
  cpusieve want invtsc --to libvirt host.json > cpu.xml        ready to paste
  cpusieve want invtsc --to kubevirt host.json                 the same for a virtual machine of KubeVirt";

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
    #[command(flatten)]
    pub(crate) price: PriceFile,
    /// Print what is to be pasted, and nothing else; the rest goes to standard error
    #[arg(long, value_name = "SYSTEM")]
    pub(crate) to: Option<To>,
}

/// A system that starts guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum To {
    /// QEMU's command line
    Qemu,
    /// libvirt's domain XML
    Libvirt,
    /// A custom CPU template of Firecracker
    Firecracker,
    /// Proxmox VE's /etc/pve/virtual-guest/cpu-models.conf
    Proxmox,
    /// A KubeVirt virtual machine
    Kubevirt,
    /// OpenStack Nova's nova.conf
    Openstack,
}
