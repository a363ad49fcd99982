//! What an upgrade of kernel, KVM, QEMU or another VMM changes for guests, before it is made.
//!
//! Every guest is put to the stages on the software before and after, with each part of the upgrade alone, and on every
//! known release on the way: so it is known which sieve gives or takes a bit, which part of the upgrade does it, and since
//! when. Whether a running guest can be started again or migrated is read off the tables of both ends, and what keeps its
//! CPU as it is was tried.
//!
//! ```
//! use cpusieve_answers::rehearse::{Guest, Host, Question, Range, Upgrade, rehearse};
//! use cpusieve_model::{Cpu, Registers, Snapshot};
//! use cpusieve_stages::linux::boot::Unlisted;
//!
//! // AuthenticAMD, family 19H, with FPU, CMOV, SVM and LFENCE that serializes (80000021H.EAX[2]).
//! let mut cpu = Cpu::default();
//! cpu.cpuid.insert(0, 0, Registers { eax: 1, ebx: 0x6874_7541, ecx: 0x444d_4163, edx: 0x6974_6e65 });
//! cpu.cpuid.insert(1, 0, Registers { eax: 0x00a2_0f12, edx: 0x0000_8001, ..Registers::default() });
//! cpu.cpuid.insert(0x8000_0000, 0, Registers { eax: 0x8000_0021, ..Registers::default() });
//! cpu.cpuid.insert(0x8000_0001, 0, Registers { ecx: 1 << 2, edx: 1 << 29, ..Registers::default() });
//! cpu.cpuid.insert(0x8000_0021, 0, Registers { eax: 1 << 2, ..Registers::default() });
//! let host = Snapshot { cpus: vec![cpu], ..Snapshot::default() };
//!
//! let upgrade =
//!     Upgrade { host_kernel: Range::parse("5.10..6.12"), vmm: Range::parse("10.0.."), ..Upgrade::default() };
//! let guests = [Guest::of_cpu("host")];
//! let question = Question { upgrade, options: None, guests: &guests, guest_kernel: None };
//! let hosts = [Host { name: "one", snapshot: &host, unlisted: Unlisted::NotSeen }];
//! let found = rehearse(&hosts, &question);
//! let guest = &found.hosts[0].as_ref().unwrap().guests[0];
//! let change = guest.changes.iter().find(|change| change.feature == Some("lfence_rdtsc")).unwrap();
//! assert!(change.gained);
//! // The whole leaf was not there before.
//! assert!(guest.pinned.guest.cpu().ends_with(",xlevel=0x8000001f"));
//! assert!(guest.pinned.same && guest.pinned.left.is_empty());
//! ```

mod bench;
mod change;
mod commands;
pub mod domain;
mod guest;
mod moves;
mod order;
mod pin;
mod stack;
mod view;

use cpusieve_knowledge::linux::{self, TREES};
use cpusieve_knowledge::qemu::RELEASES;
use cpusieve_model::{Snapshot, Stage};
use cpusieve_stages::linux::boot::Unlisted;
use cpusieve_stages::vmm::Options;

use crate::predict::way::NoWay;
use crate::predict::{Assumption, Kernel, NoPrediction, kvm};
use bench::Bench;
use change::{Between, Waypoint};
pub use change::{Cause, Change, Since, Value};
pub use commands::{Command, Phase, commands};
pub use guest::{Check, Guest};
pub use moves::Verdict;
pub use order::Order;
pub use pin::{Kind, Pin, Pinned};
pub use stack::{Range, Stack, Upgrade};
pub use view::View;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// What is upgraded.
    pub upgrade: Upgrade,
    /// A VMM other than QEMU.
    pub options: Option<Options<'a>>,
    /// The guests; each is tried on every host.
    pub guests: &'a [Guest],
    /// The kernel in all guests, before and after; `None` for that of each host before.
    pub guest_kernel: Option<&'a str>,
}

/// A host as it was seen.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    /// What the user calls it.
    pub name: &'a str,
    /// What was seen.
    pub snapshot: &'a Snapshot,
    /// What is to be thought of an MSR that is not listed.
    pub unlisted: Unlisted,
}

/// Why an input is no host to rehearse on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAHost {
    /// Nothing can be predicted of it.
    #[error(transparent)]
    NoPrediction(#[from] NoPrediction),
    /// It is a guest, and what its own KVM offers was not seen.
    #[error(
        "this is a guest's CPUID (the hypervisor bit is set), in which what the host's kernel and VMM hold back is missing; \
         the host's own is needed"
    )]
    Guest,
    /// It does not show the software that is upgraded.
    #[error("nothing tells which {what} is upgraded; say from which: {option} A..B")]
    NotShown {
        /// Which software.
        what: &'static str,
        /// The option that names it.
        option: &'static str,
    },
}

/// The answer.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    /// What makes the virtual machines: `QEMU`, or another VMM's name.
    pub vmm: &'static str,
    /// The software before.
    pub before: Stack,
    /// The software after.
    pub after: Stack,
    /// The hosts, in their order, or why one of them is none.
    pub hosts: Vec<Result<OnHost, (String, NotAHost)>>,
    /// In which order the hosts are to be upgraded; `None` for one host.
    pub order: Option<Order>,
}

/// What happens on one host.
#[derive(Clone, Debug)]
pub struct OnHost {
    /// What the user calls it.
    pub name: String,
    /// What the host's own `/proc/cpuinfo` gains and loses.
    pub flags: Flags,
    /// What is to be doubted, as sentences.
    pub doubts: Vec<String>,
    /// The guests, in the order of the question.
    pub guests: Vec<OnGuest>,
}

/// What changes in the flags that a kernel prints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Names that are printed after and not before.
    pub gained: Vec<&'static str>,
    /// Names that are printed before and not after.
    pub lost: Vec<&'static str>,
    /// The same bit under another name: before and after.
    pub renamed: Vec<(&'static str, &'static str)>,
}

/// What happens to one guest on one host.
#[derive(Clone, Debug)]
pub struct OnGuest {
    /// The guest.
    pub guest: Guest,
    /// What it is before, or why it cannot be.
    pub before: Result<View, NoWay>,
    /// What it is after, powered off and started again with its definition as it is.
    pub after: Result<View, NoWay>,
    /// What it is after, if it was migrated there while it ran: on the machine type that it has before.
    pub arrives_at: Result<View, NoWay>,
    /// The bits that it gains and loses when it is started again.
    pub changes: Vec<Change>,
    /// The registers that are no sets of features and have other values then.
    pub values: Vec<Value>,
    /// What its kernel prints then.
    pub flags: Flags,
    /// Whether it starts before.
    pub start_before: Verdict,
    /// Whether it starts after.
    pub start: Verdict,
    /// Whether it can be migrated from the old stack to the new one while it runs; `None` if it does not start before.
    pub forth: Option<Verdict>,
    /// Whether it can come back once it was started on the new stack; `None` if it does not start there.
    pub back: Option<Verdict>,
    /// What keeps its CPU as it is.
    pub pinned: Pinned,
    /// What was assumed, on either end.
    pub assumed: Vec<Assumption>,
}

impl OnGuest {
    /// Whether the upgrade leaves the guest alone: its CPU, its start, and both directions of a migration. One that starts
    /// neither before nor after stays as it is, too.
    #[must_use]
    pub fn stays(&self) -> bool {
        if !self.start_before.possible {
            return !self.start.possible;
        }
        let moves = [self.forth.as_ref(), self.back.as_ref()];
        self.changes.is_empty()
            && self.values.is_empty()
            && self.start.possible
            && moves.into_iter().flatten().all(|verdict| verdict.possible)
    }
}

/// Rehearses an upgrade.
#[must_use]
pub fn rehearse(hosts: &[Host<'_>], question: &Question<'_>) -> Rehearsal {
    let (before, after) = question.upgrade.ends();
    let hosts: Vec<_> = hosts
        .iter()
        .map(|host| on_host(host, question, (&before, &after)).map_err(|why| (host.name.to_owned(), why)))
        .collect();
    let order = order::order(&hosts);
    let vmm = question.options.as_ref().map_or("QEMU", |options| options.vmm().name());
    Rehearsal { vmm, before, after, hosts, order }
}

fn on_host(host: &Host<'_>, question: &Question<'_>, ends: (&Stack, &Stack)) -> Result<OnHost, NotAHost> {
    if Bench::is_guest(host.snapshot) {
        return Err(NotAHost::Guest);
    }
    let (before, after) = ends;
    let Host { name, snapshot, unlisted } = *host;
    shown(snapshot, question)?;
    let bench = Bench::new(snapshot, unlisted, before, question.guest_kernel, question.options)?;
    let guests: Vec<OnGuest> = question.guests.iter().map(|guest| on_guest(&bench, guest, question, ends)).collect();
    let host_of = |stack: &Stack| {
        let kernel = Kernel { release: stack.kernel.as_deref(), unlisted, ..Kernel::new(Stage::Host) };
        crate::predict::predict(&stack.of(snapshot), &kernel)
    };
    let (was, is) = (host_of(before)?, host_of(after)?);
    let flags = flags((&was.boot.flags, was.tree), (&is.boot.flags, is.tree));
    let mut doubts = doubts(&bench, &question.upgrade, before)?;
    for (when, kernel) in [("before", &was), ("after", &is)] {
        let stands = kernel.assumed.iter().filter(|assumed| assumed.what == "host kernel");
        doubts.extend(stands.map(|assumed| format!("{when}, Linux {}: {}", assumed.value, assumed.because)));
    }
    Ok(OnHost { name: name.to_owned(), flags, doubts, guests })
}

/// Whether an input shows what the upgrade starts from, where that was not named.
fn shown(snapshot: &Snapshot, question: &Question<'_>) -> Result<(), NotAHost> {
    let starts_there = |range: &Range| range.before.is_none() && range.after.is_some();
    let kernel = snapshot.linux.as_ref().is_some_and(|linux| linux.release.is_some()) || snapshot.flags().is_some();
    let (what, option, seen) = match &question.options {
        None => ("QEMU", "--qemu", !snapshot.qemu.is_empty()),
        Some(options) => (options.vmm().name(), "--vmm-version", false),
    };
    let sides = [
        ("kernel", "--host-kernel", &question.upgrade.host_kernel, kernel),
        (what, option, &question.upgrade.vmm, seen),
    ];
    match sides.into_iter().find(|(_, _, range, seen)| starts_there(range) && !seen) {
        Some((what, option, ..)) => Err(NotAHost::NotShown { what, option }),
        None => Ok(()),
    }
}

/// What one line of flags lacks of another and has beyond it, and what only changed its name.
fn flags(was: (&[&'static str], usize), is: (&[&'static str], usize)) -> Flags {
    let only = |one: &[&'static str], other: &[&'static str]| -> Vec<&'static str> {
        one.iter().filter(|flag| !other.contains(flag)).copied().collect()
    };
    let (mut lost, mut gained) = (only(was.0, is.0), only(is.0, was.0));
    let place = |flag: &str, tree: usize| linux::by_shown(flag).find_map(|row| linux::place(tree, row));
    let mut renamed = Vec::new();
    for &flag in &lost {
        let same = |other: &&&str| place(flag, was.1).is_some() && place(flag, was.1) == place(other, is.1);
        renamed.extend(gained.iter().find(same).map(|&other| (flag, other)));
    }
    lost.retain(|flag| !renamed.iter().any(|(old, _)| old == flag));
    gained.retain(|flag| !renamed.iter().any(|(_, new)| new == flag));
    Flags { gained, lost, renamed }
}

/// What is known badly: a host whose own KVM answers otherwise than its release would, and microcode.
fn doubts(bench: &Bench<'_>, upgrade: &Upgrade, before: &Stack) -> Result<Vec<String>, NoPrediction> {
    let mut doubts = Vec::new();
    let seen = bench.snapshot.kvm.as_ref().and_then(|kvm| kvm.supported_table());
    let own = bench.snapshot.linux.as_ref().and_then(|linux| linux.release.as_deref());
    let tree = |release: &str| linux::nearest(release).tree;
    let as_seen = before.kernel.as_deref().is_none_or(|kernel| own.is_some_and(|own| tree(own) == tree(kernel)));
    if let Some(seen) = seen.filter(|_| as_seen && before.predicted) {
        let kernel = Kernel { unlisted: bench.unlisted, ..Kernel::new(Stage::Host) };
        let question = kvm::Question { predicted: true, ..kvm::Question::new(kernel) };
        let made = kvm::predict(bench.snapshot, &question)?.view.supported_table().unwrap_or_default();
        let differs =
            |entry: &&cpusieve_model::CpuidEntry| made.get(entry.leaf, entry.subleaf) != Some(entry.registers);
        let count = seen.entries().iter().filter(differs).count();
        if count > 0 {
            doubts.push(format!(
                "this host's own KVM answers otherwise than its release would, in {count} entries: what another release \
                 would do here, nobody can say for sure"
            ));
        }
    }
    if upgrade.microcode != (None, None) {
        doubts.push(
            "of a microcode revision, only what kernels decide by its number is known; what it changes in CPUID and MSRs \
             is not"
                .to_owned(),
        );
    }
    Ok(doubts)
}

fn on_guest(bench: &Bench<'_>, guest: &Guest, question: &Question<'_>, ends: (&Stack, &Stack)) -> OnGuest {
    let (old, new) = ends;
    let (before, after) = (bench.view(guest, old), bench.view(guest, new));
    let start_before = moves::start(guest, &before);
    let start = moves::start(guest, &after);
    let mut found = OnGuest {
        guest: guest.clone(),
        changes: Vec::new(),
        values: Vec::new(),
        flags: Flags::default(),
        start_before,
        start,
        forth: None,
        back: None,
        pinned: Pinned { guest: guest.clone(), ..Pinned::default() },
        assumed: Vec::new(),
        arrives_at: after.clone(),
        before,
        after,
    };
    let Some(was) = found.before.as_ref().ok().filter(|view| view.error.is_none()).cloned() else { return found };
    found.pinned = match question.options {
        None => pin::pins(bench, guest, &was, ends),
        Some(_) => pin::template(bench, guest, &was, ends),
    };
    let on_machine = |view: &View, stack: &Stack| {
        let machine = view.machine.map(|machine| machine.name.to_owned());
        bench.view(&Guest { machine: machine.or_else(|| guest.machine.clone()), ..guest.clone() }, stack)
    };
    let written_out = guest.is_written_out();
    found.arrives_at = if written_out { bench.view(&found.pinned.guest, new) } else { on_machine(&was, new) };
    found.forth = Some(moves::migrate(guest, &was, &found.arrives_at));
    if let Some(is) = found.after.as_ref().ok().filter(|view| view.error.is_none()).cloned() {
        found.back = Some(moves::migrate(guest, &is, &on_machine(&is, old)));
        let same_machine = was.machine.map(|machine| machine.name) == is.machine.map(|machine| machine.name);
        let on_machine = if same_machine { None } else { on_machine(&was, new).ok() };
        (found.changes, found.values) = changes(bench, guest, question, ends, (was.clone(), is.clone(), on_machine));
        if let (Some(was), Some(is)) = (&was.guest, &is.guest) {
            found.flags = flags((&was.boot.flags, was.tree), (&is.boot.flags, is.tree));
        }
        found.assumed = was.assumed.clone();
        found.assumed.extend(is.assumed.iter().filter(|assumed| !was.assumed.contains(assumed)).cloned());
    }
    found
}

/// What changes between the ends, by whom and since when.
fn changes(
    bench: &Bench<'_>,
    guest: &Guest,
    question: &Question<'_>,
    (old, new): (&Stack, &Stack),
    (before, after, on_machine): (View, View, Option<View>),
) -> (Vec<Change>, Vec<Value>) {
    let upgrade = &question.upgrade;
    let host = upgrade.is_of_host().then(|| bench.view(guest, &old.with_host_of(new)).ok()).flatten();
    let vmm = (upgrade.vmm != Range::default()).then(|| bench.view(guest, &new.with_host_of(old)).ok()).flatten();
    let between = Between { before, after, on_machine, host, vmm };
    let (mut changes, values) = between.changes();
    let is = |cause: Cause| changes.iter().any(|change| change.cause == cause);
    let kernels = if is(Cause::Host) { kernels(bench, guest, new, &between) } else { Vec::new() };
    let vmms = if is(Cause::Vmm) { vmms(bench, guest, new, &between, question.options.as_ref()) } else { Vec::new() };
    between.date(&mut changes, &kernels, &vmms);
    (changes, values)
}

/// The guest on every kernel from before to after.
fn kernels(bench: &Bench<'_>, guest: &Guest, new: &Stack, between: &Between) -> Vec<Waypoint> {
    let (Some(from), Some(to)) = (between.before.tree, between.after.tree) else { return Vec::new() };
    let on = |tree: usize| {
        let stack = Stack { kernel: Some(linux::release_of(tree).to_owned()), ..new.clone() };
        let tree = TREES.get(tree)?;
        // A distribution's tree of the same number has the plain label.
        Some((tree.label.trim_end_matches("vanilla").to_owned(), bench.view(guest, &stack).ok()?))
    };
    change::kernels(from, to).into_iter().filter_map(on).collect()
}

/// The guest under every VMM from before to after.
fn vmms(
    bench: &Bench<'_>,
    guest: &Guest,
    new: &Stack,
    between: &Between,
    options: Option<&Options<'_>>,
) -> Vec<Waypoint> {
    let releases: Vec<&'static str> = match options {
        Some(options) => options.vmm().releases().iter().map(|release| release.label).collect(),
        None => RELEASES.iter().map(|release| release.label).collect(),
    };
    let position = |view: &View| releases.iter().position(|label| **label == view.vmm);
    let (Some(from), Some(to)) = (position(&between.before), position(&between.after)) else { return Vec::new() };
    let on = |release: usize| {
        let label = releases.get(release)?;
        let stack = Stack { vmm: Some((*label).to_owned()), ..new.clone() };
        Some(((*label).to_owned(), bench.view(guest, &stack).ok()?))
    };
    change::way(from, to).filter_map(on).collect()
}
