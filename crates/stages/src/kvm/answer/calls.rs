//! What KVM asks the processor: the calls of `do_host_cpuid`, for one ioctl and for a VMM that has to try several times.

use std::collections::BTreeMap;

/// One call of `do_host_cpuid` (`do_cpuid_1_ent` before 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// The leaf that is asked for.
    pub leaf: u32,
    /// The subleaf.
    pub subleaf: u32,
    /// Whether the CPUID instruction is executed: not for KVM's own leaves, nor above the CPU's highest extended leaf (from
    /// 6.0 on).
    pub executes: bool,
    /// The entries that stood in the answer before.
    pub before: usize,
}

/// The calls of one ioctl whose caller has room for this many entries.
///
/// If that is too little, the last call finds no room, and the ioctl fails with `E2BIG`; up to 5.6 that call is not made.
pub fn within(calls: &[Call], room: usize, tree: usize) -> impl Iterator<Item = &Call> {
    let tries = super::release(tree) >= (5, 7);
    let end = calls.iter().position(|call| call.before >= room).map_or(calls.len(), |end| end + usize::from(tries));
    calls.iter().take(end)
}

/// The calls that QEMU causes while it learns what KVM offers, by leaf.
///
/// QEMU does not know how many entries there are: it tries with room for 1, 2, 4, 8, ... until the answer leaves room unused
/// (`target/i386/kvm/kvm.c:get_supported_cpuid`). So the first leaves are asked for many times.
#[must_use]
pub fn by_qemu(calls: &[Call], entries: usize, tree: usize) -> BTreeMap<u32, usize> {
    let rooms = std::iter::successors(Some(1_usize), |room| room.checked_mul(2).filter(|_| *room <= entries));
    let mut counts = BTreeMap::new();
    for call in rooms.flat_map(|room| within(calls, room, tree)) {
        *counts.entry(call.leaf).or_default() += 1;
    }
    counts
}

/// The calls of one complete ioctl, by leaf.
#[must_use]
pub fn by_leaf(calls: &[Call]) -> BTreeMap<u32, usize> {
    let mut counts = BTreeMap::new();
    for call in calls {
        *counts.entry(call.leaf).or_default() += 1;
    }
    counts
}
