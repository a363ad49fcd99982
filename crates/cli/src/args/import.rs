//! Options of `import`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

pub(super) const IMPORT_EXAMPLES: &str = "\
What is read: the tables of arch/x86 (flags, bugs, VMX flags, capability words, dependencies) and of \
arch/x86/kvm (what KVM offers, and under which conditions). What functions do beside them is taken from \
the nearest known tree. The tree is used wherever a kernel release is named NAME, or is the tree's own: \
`uname -r` of a kernel built there, or its version. QEMU cannot be imported.

Examples:
  cpusieve import linux linux --name mine          read the source tree in the folder linux
  cpusieve import list                             what was imported
  cpusieve predict --until guest --guest-kernel mine host.json
  cpusieve predict --until kvm --host-kernel mine host.json
  cpusieve import remove mine

Trees lie in the folder of --config DIR, which every verb takes, else in $CPUSIEVE_CONFIG, \
$XDG_CONFIG_HOME/cpusieve or ~/.config/cpusieve, one file each.";

/// Options of `import`.
#[derive(Debug, Args)]
pub(crate) struct ImportOptions {
    /// What is done.
    #[command(subcommand)]
    pub(crate) verb: ImportVerb,
}

/// What `import` does.
#[derive(Debug, Subcommand)]
pub(crate) enum ImportVerb {
    /// Read a kernel's source tree: Linux, and its KVM where that is there
    Linux(ReadOptions),
    /// Read a kernel's source tree: its KVM alone
    Kvm(ReadOptions),
    /// The trees that were imported
    List,
    /// Forget a tree
    Remove {
        /// The tree's name
        #[arg(value_name = "NAME")]
        label: String,
    },
}

/// A source tree, and what it is to be called.
#[derive(Debug, Args)]
pub(crate) struct ReadOptions {
    /// The root of a kernel's source tree
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
    /// What the tree is called from now on; one of that name is replaced
    #[arg(long = "name", value_name = "NAME")]
    pub(crate) label: String,
}
