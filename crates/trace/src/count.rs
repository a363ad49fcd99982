//! What is counted: guests' CPUIDs and exits by vCPU, KVM's own CPUIDs by leaf and stack, each table bounded.

use std::collections::BTreeMap;

use cpusieve_probe::cpuid;

use crate::event::{Event, What};

/// Rows of one table. A guest chooses leaves, subleaves and instruction pointers, so that a hostile one could fill memory.
pub const MAX_ROWS: usize = 1 << 14;

/// Ioctls whose calls are kept one by one; later ones are counted in the tables alone.
pub const MAX_IOCTLS: usize = 1 << 12;

/// Calls that are kept of one ioctl: KVM's tables have room for 256 entries (`arch/x86/kvm/cpuid.c`,
/// `KVM_MAX_CPUID_ENTRIES`).
pub const MAX_CALLS: usize = 512;

/// Counts by key, of at most [`MAX_ROWS`] keys; what comes with a further key is counted as `other`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally<K> {
    rows: BTreeMap<K, u64>,
    other: u64,
}

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), other: 0 }
    }
}

impl<K: Ord> Tally<K> {
    /// Counts `count` more of `key`.
    pub fn add(&mut self, key: K, count: u64) {
        let full = self.rows.len() >= MAX_ROWS;
        if let Some(row) = self.rows.get_mut(&key) {
            *row = row.saturating_add(count);
        } else if full {
            self.other = self.other.saturating_add(count);
        } else {
            self.rows.insert(key, count);
        }
    }

    /// Counts `count` more that have no row of their own.
    pub fn add_other(&mut self, count: u64) {
        self.other = self.other.saturating_add(count);
    }

    /// The count of one key.
    #[must_use]
    pub fn get(&self, key: &K) -> u64 {
        self.rows.get(key).copied().unwrap_or(0)
    }

    /// The rows in ascending order of their keys.
    pub fn rows(&self) -> impl Iterator<Item = (&K, u64)> {
        self.rows.iter().map(|(key, &count)| (key, count))
    }

    /// The rows with the highest count first; equal ones in ascending order of their keys.
    #[must_use]
    pub fn most(&self) -> Vec<(&K, u64)> {
        let mut rows: Vec<_> = self.rows().collect();
        rows.sort_by(|(_, a), (_, b)| b.cmp(a));
        rows
    }

    /// What had no row any more.
    #[must_use]
    pub const fn other(&self) -> u64 {
        self.other
    }

    /// The sum of everything.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.rows.values().fold(self.other, |sum, &count| sum.saturating_add(count))
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.other == 0
    }
}

/// A leaf, and the subleaf where the leaf has subleaves: elsewhere ECX is what happened to be in the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asked {
    /// EAX before the instruction.
    pub leaf: u32,
    /// ECX before the instruction; `None` where the leaf does not look at it, or the source does not say.
    pub subleaf: Option<u32>,
}

impl Asked {
    /// The question that EAX and ECX ask.
    #[must_use]
    pub fn new(leaf: u32, ecx: u32) -> Self {
        Self { leaf, subleaf: cpuid::has_subleaves(leaf).then_some(ecx) }
    }
}

/// A thread's number; `None` where the source does not say whose an event was.
pub type Pid = Option<u32>;

/// A thread that ran a vCPU or called KVM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// Its name: QEMU's vCPUs are called `CPU 0/KVM`.
    pub comm: String,
    /// The number of the vCPU that it ran last, where an exit told it (kernels from 5.10 on).
    pub vcpu: Option<u32>,
}

/// What guests did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guests {
    /// CPUIDs that KVM answered, by thread and question (`kvm:kvm_cpuid`).
    pub cpuid: Tally<(Pid, Asked)>,
    /// Those of them for which the vCPU's table has no entry.
    pub not_found: Tally<Asked>,
    /// Exits by thread and reason, where every exit was seen (`kvm:kvm_exit`).
    pub exits: Tally<(Pid, String)>,
    /// Guest instruction pointers of the exits for CPUID.
    pub rips: Tally<u64>,
    /// All exits of all guests, where they were counted without a reason.
    pub all_exits: Option<u64>,
}

impl Guests {
    /// All exits, if they were counted. What only holds the exits for CPUID says nothing of the others, and fewer exits than
    /// CPUIDs were not all exits: some KVM backends leave `kvm_exit` out.
    #[must_use]
    pub fn exit_count(&self) -> Option<u64> {
        let other_reasons = self.exits.rows().any(|((_, reason), _)| !is_cpuid(reason));
        let counted = self.all_exits.or_else(|| other_reasons.then(|| self.exits.total()));
        counted.filter(|&exits| exits >= self.cpuid.total())
    }

    /// The CPUIDs of each thread.
    #[must_use]
    pub fn by_task(&self) -> BTreeMap<Pid, u64> {
        let mut sums = BTreeMap::new();
        for (&(pid, _), count) in self.cpuid.rows() {
            *sums.entry(pid).or_default() += count;
        }
        sums
    }

    /// The CPUIDs of all threads, by question.
    #[must_use]
    pub fn by_question(&self) -> Tally<Asked> {
        let mut sums = Tally::default();
        for (&(_, asked), count) in self.cpuid.rows() {
            sums.add(asked, count);
        }
        sums
    }
}

/// Whether this is the reason of an exit for CPUID, as Intel's (`CPUID`) or AMD's (`cpuid`) module prints it.
#[must_use]
pub fn is_cpuid(reason: &str) -> bool {
    reason.eq_ignore_ascii_case("cpuid")
}

/// What KVM asked the host's CPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Calls of `do_host_cpuid` by question.
    pub calls: Tally<Asked>,
    /// Calls of which only the stack, or nothing, is known.
    pub without_leaf: u64,
    /// Calls by kernel stack, innermost function first, and thread.
    pub stacks: Tally<(Vec<String>, Pid)>,
    /// The calls of each pass over all leaves, in order: a pass begins with leaf 0
    /// (`arch/x86/kvm/cpuid.c:kvm_dev_ioctl_get_cpuid`).
    pub ioctls: Vec<Ioctl>,
}

/// One `KVM_GET_SUPPORTED_CPUID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ioctl {
    /// The thread that called it.
    pub pid: Pid,
    /// Leaf and subleaf of each call, at most [`MAX_CALLS`].
    pub calls: Vec<(u32, u32)>,
}

/// How the ioctls that were seen compare with the calls that one complete ioctl must make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Ioctls with all calls, in order.
    pub complete: usize,
    /// Ioctls that stopped early: the caller's buffer was too small, and it will have tried again. The number of calls that
    /// each made.
    pub short: Vec<usize>,
    /// Ioctls that called something else, with the number of calls that were as predicted.
    pub other: Vec<(Ioctl, usize)>,
}

impl Host {
    /// Compares with the calls of one complete ioctl, as the KVM stage predicts them.
    #[must_use]
    pub fn against(&self, predicted: &[(u32, u32)]) -> Compared {
        let mut compared = Compared::default();
        for ioctl in &self.ioctls {
            let same = ioctl.calls.iter().zip(predicted).take_while(|(seen, expected)| seen == expected).count();
            match (same == ioctl.calls.len(), same == predicted.len()) {
                (true, true) => compared.complete += 1,
                (true, false) => compared.short.push(same),
                (false, _) => compared.other.push((ioctl.clone(), same)),
            }
        }
        compared
    }
}

/// Events that were not seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// How many are known to be lost.
    pub events: u64,
    /// Whether there were losses without a number.
    pub more: bool,
}

impl Lost {
    /// Whether anything was lost.
    #[must_use]
    pub const fn any(self) -> bool {
        self.events > 0 || self.more
    }
}

/// All that was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The threads.
    pub tasks: BTreeMap<u32, Task>,
    /// What guests did.
    pub guests: Guests,
    /// What KVM asked the host's CPU.
    pub host: Host,
    /// Events that were not seen.
    pub lost: Lost,
    /// Events of other kinds.
    pub others: u64,
}

impl Counts {
    /// Counts one event.
    pub fn add(&mut self, event: &Event<'_>) {
        self.add_many(event, 1);
    }

    /// Counts `count` events of one kind, as aggregated sources give them.
    pub fn add_many(&mut self, event: &Event<'_>, count: u64) {
        let pid = event.pid.filter(|&pid| self.know(pid, event.comm));
        match event.what {
            What::Cpuid { leaf, subleaf, found } => {
                let asked = subleaf.map_or(Asked { leaf, subleaf: None }, |subleaf| Asked::new(leaf, subleaf));
                self.guests.cpuid.add((pid, asked), count);
                if found == Some(false) {
                    self.guests.not_found.add(asked, count);
                }
            }
            What::NotFound { leaf, subleaf } => self.guests.not_found.add(Asked::new(leaf, subleaf), count),
            What::Exit { vcpu, reason, rip } => self.exit(pid, vcpu, reason, rip, count),
            What::Rip(rip) => self.guests.rips.add(rip, count),
            What::HostCpuid { asked, stack } => {
                match asked {
                    Some((leaf, subleaf)) => self.host_call(pid, leaf, subleaf, count),
                    None => self.host.without_leaf = self.host.without_leaf.saturating_add(count),
                }
                if !stack.is_empty() {
                    self.host.stacks.add((stack.to_vec(), pid), count);
                }
            }
            What::Stack(stack) => self.host.stacks.add((stack.to_vec(), pid), count),
            What::Lost(Some(events)) => self.lost.events = self.lost.events.saturating_add(events),
            What::Lost(None) => self.lost.more = true,
            What::Other => self.others = self.others.saturating_add(count),
        }
    }

    /// Remembers a thread's name; false if there are too many threads.
    fn know(&mut self, pid: u32, comm: &str) -> bool {
        let full = self.tasks.len() >= MAX_ROWS;
        match self.tasks.get_mut(&pid) {
            // Names change: QEMU names a vCPU's thread after it was started.
            Some(task) if task.comm != comm && !comm.is_empty() && comm != "<...>" => task.comm = comm.to_owned(),
            Some(_) => {}
            None if full => return false,
            None => drop(self.tasks.insert(pid, Task { comm: comm.to_owned(), vcpu: None })),
        }
        true
    }

    fn exit(&mut self, pid: Pid, vcpu: Option<u32>, reason: &str, rip: Option<u64>, count: u64) {
        if let (Some(vcpu), Some(task)) = (vcpu, pid.and_then(|pid| self.tasks.get_mut(&pid))) {
            task.vcpu = Some(vcpu);
        }
        if let Some(rip) = rip.filter(|_| is_cpuid(reason)) {
            self.guests.rips.add(rip, count);
        }
        self.guests.exits.add((pid, reason.to_owned()), count);
    }

    fn host_call(&mut self, pid: Pid, leaf: u32, subleaf: Option<u32>, count: u64) {
        let asked = subleaf.map_or(Asked { leaf, subleaf: None }, |subleaf| Asked::new(leaf, subleaf));
        self.host.calls.add(asked, count);
        // An aggregated count has no order.
        let Some(subleaf) = subleaf.filter(|_| count == 1) else { return };
        if leaf == 0 && self.host.ioctls.len() < MAX_IOCTLS {
            self.host.ioctls.push(Ioctl { pid, calls: Vec::new() });
        }
        // A call without a first one belongs to a pass that began before the watch did.
        let open = self.host.ioctls.iter_mut().rev().find(|ioctl| ioctl.pid == pid);
        if let Some(ioctl) = open.filter(|ioctl| ioctl.calls.len() < MAX_CALLS) {
            ioctl.calls.push((leaf, subleaf));
        }
    }
}
