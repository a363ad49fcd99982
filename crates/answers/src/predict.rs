//! What a kernel prints of CPUID and MSRs: the flags, the hidden capabilities, the bugs, and why.
//!
//! ```
//! use cpusieve_answers::predict::{Kernel, predict};
//! use cpusieve_model::{Cpu, Registers, Snapshot, Stage};
//!
//! // GenuineIntel, family 6 model 9EH, with FPU, MSR, CMOV and SSE2.
//! let mut cpu = Cpu::default();
//! cpu.cpuid.insert(0, 0, Registers { eax: 1, ebx: 0x756e_6547, ecx: 0x6c65_746e, edx: 0x4965_6e69 });
//! cpu.cpuid.insert(1, 0, Registers { eax: 0x0009_06ed, edx: 0x0700_8021, ..Registers::default() });
//! let machine = Snapshot { cpus: vec![cpu], ..Snapshot::default() };
//!
//! let kernel = Kernel { release: Some("6.12"), ..Kernel::new(Stage::Host) };
//! let found = predict(&machine, &kernel).unwrap();
//! assert!(found.boot.flags.contains(&"sse2"));
//! assert!(found.assumed.iter().any(|assumed| assumed.what == "MSR 1A0H"));
//! ```

pub mod kvm;
pub mod pass_through;
pub mod way;

use std::collections::BTreeMap;

use cpusieve_knowledge::linux::{self, Distance};
use cpusieve_knowledge::own;
use cpusieve_model::{Cpu, CpuidBit, CpuidTable, Register, Registers, Snapshot, Stage, State, Vendor};
use cpusieve_stages::Machine;
use cpusieve_stages::linux::boot::{self, Input, Output, Unlisted};

use crate::oddity::oddities;

/// The kernel that is to boot on what the input shows.
#[derive(Clone, Copy, Debug)]
pub struct Kernel<'a> {
    /// Whose it is: [`Stage::Host`] or [`Stage::Guest`].
    pub at: Stage,
    /// Its release, `6.1` or in full; `None` for that of the input.
    pub release: Option<&'a str>,
    /// Its command line; `None` for that of the input.
    pub cmdline: Option<&'a str>,
    /// What is to be thought of an MSR that the input does not list.
    pub unlisted: Unlisted,
}

impl Kernel<'_> {
    /// The kernel that the input shows, of the host or the guest.
    #[must_use]
    pub const fn new(at: Stage) -> Self {
        Self { at, release: None, cmdline: None, unlisted: Unlisted::NotSeen }
    }
}

/// What a kernel prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// The kernel's tree: a position in [`linux::TREES`].
    pub tree: usize,
    /// Its lines, and the steps that led to them.
    pub boot: Output,
    /// What was assumed: first of the kernel, then of the rest.
    pub assumed: Vec<Assumption>,
    /// What hardly any CPU says, and the input says all the same.
    pub odd: Vec<String>,
}

/// Something that the input does not say, and that the prediction rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assumption {
    /// What.
    pub what: String,
    /// What was assumed.
    pub value: String,
    /// Why.
    pub because: String,
    /// The capabilities and bugs that might have come out otherwise; empty if that may be any.
    pub hangs: Vec<&'static str>,
}

/// Why there is no prediction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPrediction {
    /// The input holds no CPUID.
    #[error("no CPUID is in it, and a prediction begins with CPUID; `cpusieve record` and `cpuid -r` show it")]
    NoCpuid,
    /// What was given as a release is none.
    #[error("`{0}` is no kernel release; expected one such as 6.1 or 6.1.0-56-cloud-amd64{imported}", imported = or_imported())]
    NoRelease(String),
    /// What was given as a parameter is none of KVM's modules.
    #[error("`{name}` is no parameter of KVM's modules in Linux {release}; known are {}", known.join(", "))]
    NoParameter {
        /// What was given.
        name: String,
        /// The kernel tree.
        release: &'static str,
        /// The parameters that this tree has.
        known: Vec<String>,
    },
}

/// Boots a kernel on the first CPU of which the input shows CPUID.
///
/// # Errors
/// If the input shows no CPUID, or the release that was asked for is none.
pub fn predict(snapshot: &Snapshot, kernel: &Kernel<'_>) -> Result<Prediction, NoPrediction> {
    let (seen, chosen) = choose(snapshot, kernel)?;
    let in_long_mode = in_long_mode(snapshot, seen.cpuid);
    Ok(booted(seen, in_long_mode.as_ref(), chosen))
}

/// Boots the kernel that was chosen; `in_long_mode` is CPUID as it sees it, if it was dumped in another mode.
fn booted(
    seen: Input<'_>,
    in_long_mode: Option<&CpuidTable>,
    Chosen { tree, config, assumed }: Chosen<'_>,
) -> Prediction {
    let cpuid = in_long_mode.unwrap_or(seen.cpuid);
    let boot = boot::boot(&Input { config, cpuid, ..seen }, tree);
    let assumed = assumed
        .into_iter()
        .chain(in_long_mode.is_some().then(of_syscall))
        .chain(boot.assumed.iter().map(Assumption::from))
        .collect();
    Prediction { tree, boot, assumed, odd: oddities(cpuid, tree) }
}

/// Boots a kernel on every CPU of which the input shows CPUID, each as if it were the first; by the CPUs' numbers.
///
/// # Errors
/// As [`predict`].
pub fn predict_each(snapshot: &Snapshot, kernel: &Kernel<'_>) -> Result<Vec<(u32, Output)>, NoPrediction> {
    let (first, Chosen { tree, config, .. }) = choose(snapshot, kernel)?;
    let boot = |cpu: &Cpu| {
        let in_long_mode = in_long_mode(snapshot, &cpu.cpuid);
        let cpuid = in_long_mode.as_ref().unwrap_or(&cpu.cpuid);
        let microcode = cpu.cpuinfo.as_ref().and_then(|cpuinfo| cpuinfo.identity.microcode).or(first.microcode);
        (cpu.id, boot::boot(&Input { config, cpuid, msrs: &cpu.msrs, microcode, ..first }, tree))
    };
    Ok(snapshot.cpus.iter().filter(|cpu| !cpu.cpuid.is_empty()).map(boot).collect())
}

/// What the kernel finds on the first CPU of which the input shows CPUID, and which kernel it is.
fn choose<'a>(snapshot: &'a Snapshot, kernel: &Kernel<'a>) -> Result<(Input<'a>, Chosen<'a>), NoPrediction> {
    let of = kernel.at.name();
    let seen = Input::of_snapshot(of, kernel.at, snapshot).ok_or(NoPrediction::NoCpuid)?;
    let own = snapshot.linux.as_ref().and_then(|linux| linux.release.as_deref());
    let chosen = match kernel.release {
        Some(release) if Some(release) != own => asked_for(of, release, snapshot)?,
        _ => shown(of, snapshot),
    };
    Ok((Input { unlisted: kernel.unlisted, cmdline: kernel.cmdline.or(seen.cmdline), ..seen }, chosen))
}

/// SYSCALL: 80000001H.EDX\[11\]. Intel CPUs set it in 64-bit mode alone (SDM volume 2A, CPUID, 80000001H).
const SYSCALL: CpuidBit = CpuidBit::new(0x8000_0001, 0, Register::Edx, 11);

/// Long mode: 80000001H.EDX\[29\].
const LONG_MODE: CpuidBit = CpuidBit::new(0x8000_0001, 0, Register::Edx, 29);

/// CPUID of an Intel CPU as 64-bit Linux sees it, if it was dumped in another mode; `None` if it is as it should be.
fn in_long_mode(snapshot: &Snapshot, cpuid: &CpuidTable) -> Option<CpuidTable> {
    let other_mode = snapshot.linux.is_none()
        && cpuid.vendor() == Some(Vendor::Intel)
        && cpuid.state(LONG_MODE) == State::Present
        && cpuid.state(SYSCALL) == State::Absent;
    let leaf = cpuid.get(SYSCALL.leaf, SYSCALL.subleaf).filter(|_| other_mode)?;
    let mut table = cpuid.clone();
    table.insert(SYSCALL.leaf, SYSCALL.subleaf, Registers { edx: leaf.edx | 1 << SYSCALL.bit, ..leaf });
    Some(table)
}

fn of_syscall() -> Assumption {
    Assumption {
        what: SYSCALL.to_string(),
        value: "1".to_owned(),
        because: "Intel CPUs with long mode set it in 64-bit mode alone, and this was dumped in another".to_owned(),
        hangs: vec!["syscall"],
    }
}

impl From<&boot::Assumption> for Assumption {
    fn from(assumed: &boot::Assumption) -> Self {
        Self {
            what: assumed.what.to_string(),
            value: assumed.value.to_string(),
            because: assumed.because.to_owned(),
            hangs: assumed.hangs.clone(),
        }
    }
}

/// A kernel tree, the configuration that belongs to it, and what was assumed of it.
struct Chosen<'a> {
    tree: usize,
    config: Option<&'a BTreeMap<String, String>>,
    assumed: Option<Assumption>,
}

/// The tree of a release that was asked for. The input's configuration is another kernel's unless it is the same tree.
fn asked_for<'a>(of: &str, release: &str, snapshot: &'a Snapshot) -> Result<Chosen<'a>, NoPrediction> {
    let nearest = linux::nearest(release);
    if nearest.distance == Distance::Unread {
        return Err(NoPrediction::NoRelease(release.to_owned()));
    }
    let same = |own: &&str| linux::nearest(own).tree == nearest.tree;
    let linux = snapshot.linux.as_ref().filter(|linux| linux.release.as_deref().filter(same).is_some());
    let config = linux.and_then(|linux| linux.config.as_ref());
    Ok(Chosen { tree: nearest.tree, config, assumed: stands_for(of, release, nearest.tree, nearest.distance) })
}

/// The tree of the kernel that the input shows: its flags line decides before its release does, because stable releases
/// carry backports.
fn shown<'a>(of: &'static str, snapshot: &'a Snapshot) -> Chosen<'a> {
    let config = snapshot.linux.as_ref().and_then(|linux| linux.config.as_ref());
    let named = snapshot.linux.as_ref().and_then(|linux| linux.release.as_deref());
    let named = named.map(|release| (release, linux::nearest(release)));
    let named = named.filter(|(_, nearest)| nearest.distance != Distance::Unread);
    // The very release is believed whatever the line says.
    let sure = named.is_some_and(|(_, nearest)| nearest.distance == Distance::Same);
    let may_be = (!sure && snapshot.flags().is_some()).then(|| Machine::new(of, snapshot).kernel);
    if let Some((release, nearest)) = named
        && may_be.as_ref().is_none_or(|kernel| kernel.trees.contains(nearest.tree))
    {
        return Chosen { tree: nearest.tree, config, assumed: stands_for(of, release, nearest.tree, nearest.distance) };
    }
    let newest = linux::TREES.len() - 1;
    let (tree, because) = match (may_be, named) {
        (Some(kernel), Some((release, _))) => (
            kernel.standing_for(release),
            "the flags line is not what the release of its name prints; this is the nearest tree that it fits",
        ),
        (Some(kernel), None) => (
            kernel.trees.last().unwrap_or(newest),
            "nothing tells the release; this is the newest tree that its flags line fits",
        ),
        (None, _) => (newest, "nothing tells the release; this is the newest known tree"),
    };
    Chosen { tree, config, assumed: Some(of_kernel(of, tree, because.to_owned())) }
}

/// That a tree stands for a release; `None` if it is the very release.
fn stands_for(of: &str, release: &str, tree: usize, distance: Distance) -> Option<Assumption> {
    let release = release.trim();
    let version = linux::TREES.get(tree).map_or("", |tree| tree.version);
    let because = match distance {
        Distance::Same if own::is_own(tree) => imported(tree),
        Distance::Same => return None,
        Distance::SameRelease => format!("its tree {version} stands for {release}; stable releases carry backports"),
        Distance::Older => format!("the nearest known tree that is older than {release}"),
        Distance::Oldest | Distance::Unread => format!("no known tree is as old as {release}; this is the oldest"),
    };
    Some(of_kernel(of, tree, because))
}

/// The names of the trees that were imported, for who mistypes one.
fn or_imported() -> String {
    let labels: Vec<&str> = own::positions().filter_map(|tree| Some(linux::TREES.get(tree)?.label)).collect();
    if labels.is_empty() { String::new() } else { format!(", or an imported tree: {}", labels.join(", ")) }
}

/// What is not the user's own of a tree that was imported.
pub(crate) fn imported(tree: usize) -> String {
    let base = linux::TREES.get(own::compiled(tree)).map_or("", |tree| tree.label);
    let tables = match own::halves(tree) {
        (true, true) => "its tables were imported",
        (true, false) => "Linux's tables were imported, not KVM's",
        _ => "KVM's tables were imported, not Linux's",
    };
    let undecided = crate::trees::undecided(tree);
    let doubt = match undecided.len() {
        0 => String::new(),
        number => format!("; {number} conditions of its KVM cannot be decided and are taken not to hold"),
    };
    format!("{tables}; everything else is that of {base}{doubt}")
}

fn of_kernel(of: &str, tree: usize, because: String) -> Assumption {
    let value = linux::TREES.get(tree).map_or("", |tree| tree.label).to_owned();
    Assumption { what: format!("{of} kernel"), value, because, hangs: Vec::new() }
}
