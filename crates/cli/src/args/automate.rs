//! Options of `check` and `key`, which other programs call.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

pub(super) const CHECK_EXAMPLES: &str = "\
The line and the status are those of monitoring plugins (NRPE, Icinga, Nagios), not of the other verbs.

Examples:
  cpusieve check --level x86-64-v3
  cpusieve check --features aes,avx2,invtsc --prefer sha-ni
  cpusieve check --baseline baseline.json     what fleet baseline --json found
  cpusieve check --level x86-64-v2 guest.cpuinfo

Exit status:
  0  OK
  1  WARNING: something preferred is missing
  2  CRITICAL: something wanted is missing
  3  UNKNOWN: it could not be checked, or these options make no sense";

/// Options of `check`.
#[derive(Debug, Args)]
pub(crate) struct CheckOptions {
    /// Features that must be there, in any system's spelling
    #[arg(long, value_name = "FLAG,...", value_delimiter = ',')]
    pub(crate) features: Vec<String>,
    /// Features whose absence is a warning
    #[arg(long, value_name = "FLAG,...", value_delimiter = ',')]
    pub(crate) prefer: Vec<String>,
    /// The level of x86-64 that programs here need
    #[arg(long, value_name = "LEVEL")]
    pub(crate) level: Option<LevelName>,
    /// The features of a baseline, as `fleet baseline --json` prints it
    #[arg(long, value_name = "FILE")]
    pub(crate) baseline: Option<PathBuf>,
    /// A record, or anything else that `diff` reads; else this machine
    #[arg(value_name = "INPUT")]
    pub(crate) input: Option<PathBuf>,
}

/// A level of x86-64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LevelName {
    /// SSE2
    #[value(name = "x86-64-v1")]
    V1,
    /// SSE4.2
    #[value(name = "x86-64-v2")]
    V2,
    /// AVX2
    #[value(name = "x86-64-v3")]
    V3,
    /// AVX-512
    #[value(name = "x86-64-v4")]
    V4,
}

pub(super) const KEY_EXAMPLES: &str = "\
A key is the highest level of x86-64 and a hash of what it covers: equal keys, equal features. What a key
covers changes with a new version of cpusieve only if the version says so.

Examples:
  cpusieve key                       the instructions that programs here may execute
  cpusieve key --for snapshots       all that a guest started here may rely on
  cpusieve key host.json --json      of a recorded machine, with what was hashed";

/// Options of `key`.
#[derive(Debug, Args)]
pub(crate) struct KeyOptions {
    /// What the key is for
    #[arg(long = "for", value_name = "USE", default_value = "programs")]
    pub(crate) purpose: Purpose,
    /// A record, or anything else that `diff` reads; else this machine
    #[arg(value_name = "INPUT")]
    pub(crate) input: Option<PathBuf>,
}

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Purpose {
    /// Caches of built programs: instructions that the CPU has and the kernel has not switched off
    Programs,
    /// Pools of snapshots: vendor, family, model, every named CPUID bit, state components, address widths
    Snapshots,
}

pub(super) const MANUAL_EXAMPLES: &str = "\
Examples:
  cpusieve manual bash > /etc/bash_completion.d/cpusieve
  cpusieve manual zsh > /usr/share/zsh/vendor-completions/_cpusieve
  cpusieve manual fish > ~/.config/fish/completions/cpusieve.fish
  cpusieve manual man --to /usr/local/share/man/man1     a page for each verb
  cpusieve manual man | man -l -                         the page of the program";

/// Options of `manual`.
#[derive(Debug, Args)]
pub(crate) struct ManualOptions {
    /// What is written
    #[arg(value_name = "WHAT")]
    pub(crate) what: ManualKind,
    /// Write into a folder that exists, under the usual names, instead of to standard output
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
}

/// What can be made of the table of arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ManualKind {
    /// Completions of bash
    Bash,
    /// Completions of zsh
    Zsh,
    /// Completions of fish
    Fish,
    /// Man pages: the program's, and with --to one for each verb
    Man,
}
