//! The arguments of `rehearse`.

use std::path::PathBuf;

use clap::Args;

use super::route::{VmmName, param};

pub(super) const REHEARSE_EXAMPLES: &str = "\
A..B is from A to B; B alone is from what the record shows to B. What an option does not name stays. Guests are
libvirt domains (virsh dumpxml), or texts as -cpu takes them; without either, one guest with -cpu host.

Examples:
  cpusieve rehearse --host-kernel 6.1..6.18 --qemu 7.2..10.0 host.json
  cpusieve rehearse --qemu 7.2..10.0 hosts/ --guests /etc/libvirt/qemu/*.xml
  cpusieve rehearse --host-kernel 6.18 --cpu EPYC-Milan --cpu host,migratable=off host.json
  cpusieve rehearse --qemu 10.0 --machine pc-q35-7.2..q35 --smp 4,cores=4 host.json
  cpusieve rehearse --vmm firecracker --host-kernel 5.10..6.18 --template T2CL host.json

Exit status:
  0  nothing changes for any guest
  1  something changes, or some guest no longer starts or migrates
  3  an input could not be used; the others were";

/// Options of `rehearse`.
#[derive(Debug, Args)]
pub(crate) struct RehearseOptions {
    /// The hosts: files and folders with CPUID in them, cpusieve records best; `-` is standard input
    #[arg(value_name = "RECORD", required = true, num_args = 1..)]
    pub(crate) records: Vec<PathBuf>,
    /// The hosts' kernel, such as 6.1..6.18
    #[arg(long, value_name = "A..B", help_heading = "Upgrade")]
    pub(crate) host_kernel: Option<String>,
    /// QEMU, such as 7.2..10.0
    #[arg(long, value_name = "A..B", help_heading = "Upgrade")]
    pub(crate) qemu: Option<String>,
    /// Another VMM, such as 1.11..1.16
    #[arg(long, value_name = "A..B", help_heading = "Upgrade")]
    pub(crate) vmm_version: Option<String>,
    /// A parameter of KVM's modules, such as nested=0..1
    #[arg(long = "kvm-param", value_name = "NAME=A..B", value_parser = param, help_heading = "Upgrade")]
    pub(crate) kvm_params: Vec<(String, String)>,
    /// The revision of the microcode, such as 0xa0011d1..0xa0011de: what kernels decide by it
    #[arg(long, value_name = "A..B", help_heading = "Upgrade")]
    pub(crate) microcode: Option<String>,
    /// The machine type of guests that --cpu gives, such as q35 or pc-q35-7.2..q35; else QEMU's default
    #[arg(long, value_name = "TYPE|A..B", help_heading = "Upgrade")]
    pub(crate) machine: Option<String>,
    /// Guests: libvirt domain XML, files or folders
    #[arg(long, value_name = "FILE", num_args = 1.., help_heading = "Guests")]
    pub(crate) guests: Vec<PathBuf>,
    /// A guest: the text of QEMU's -cpu, such as host or EPYC,+invtsc
    #[arg(long, value_name = "TEXT", help_heading = "Guests")]
    pub(crate) cpu: Vec<String>,
    /// The vCPUs of guests that --cpu gives: QEMU's -smp, or a number for another VMM
    #[arg(long, value_name = "TEXT", help_heading = "Guests")]
    pub(crate) smp: Option<String>,
    /// The kernel in the guests, before and after; else that of the host before
    #[arg(long, value_name = "RELEASE", help_heading = "Guests")]
    pub(crate) guest_kernel: Option<String>,
    /// What makes the virtual machines
    #[arg(long, value_name = "NAME", default_value = "qemu", help_heading = "Guests")]
    pub(crate) vmm: VmmName,
    /// Firecracker's CPU template: T2, T2S, T2CL, T2A, C3, or a file
    #[arg(long, value_name = "TEMPLATE", help_heading = "Guests")]
    pub(crate) template: Option<String>,
    /// Say for every change who did what before and after, and all that was assumed
    #[arg(short, long)]
    pub(crate) long: bool,
}
