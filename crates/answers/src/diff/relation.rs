//! What two ends are to each other.

use cpusieve_knowledge::kvm::{self, CapKind, Op};
use cpusieve_knowledge::qemu::{self, FixupEffect};
use cpusieve_knowledge::{TreeSet, linux};
use cpusieve_model::{CpuidBit, FlagList, Place, State};
use cpusieve_stages::linux::conditions::Observed;
use cpusieve_stages::linux::kernel;
use cpusieve_stages::linux::setup::{self, Ruling};
use cpusieve_stages::{Hypervisor, Machine};

/// Of the features that neither KVM nor QEMU gives to a guest whose host lacks them, a guest may show this many all the
/// same: `x-force-features`, a kernel whose patches the tables do not know.
const HANDFUL: usize = 5;

/// A guest in a guest shows hardly any feature that the outer one lacks.
const HARDLY_ANY: usize = 2;

/// What two ends are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Relation {
    /// The first is a host, the second its guest.
    HostAndGuest,
    /// The first is a guest, the second its host.
    GuestAndHost,
    /// Neither is a guest: two machines, or one under two kernels.
    Hosts,
    /// Both are guests.
    Guests,
    /// Both are guests, and the second may run inside the first.
    OuterAndInner,
    /// Both are guests, and the first may run inside the second.
    InnerAndOuter,
    /// One is a guest and the other is not, but KVM on the other cannot have made it.
    Strangers,
    /// CPUs of different vendors: neither can be the other's host.
    DifferentVendors,
    /// They show the same flags.
    Equal,
}

impl Relation {
    /// A sentence for people.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::HostAndGuest => "the first is a host, the second its guest",
            Self::GuestAndHost => "the first is a guest, the second its host",
            Self::Hosts => "neither is a guest: two machines, or one machine under two kernels",
            Self::Guests => "both are guests",
            Self::OuterAndInner => "both are guests, and the second may run inside the first",
            Self::InnerAndOuter => "both are guests, and the first may run inside the second",
            Self::Strangers => "one is a guest, but KVM on the other cannot have made it",
            Self::DifferentVendors => "CPUs of different vendors: neither can be the other's host",
            Self::Equal => "both show the same flags",
        }
    }
}

/// Judges by vendor, by who is a guest, and by what a host's KVM can give.
pub(super) fn between(first: &Machine<'_>, second: &Machine<'_>) -> Relation {
    if first.flags() == second.flags() {
        return Relation::Equal;
    }
    if let (Some(one), Some(other)) = (first.vendor(), second.vendor())
        && one != other
    {
        return Relation::DifferentVendors;
    }
    match (first.is_guest(), second.is_guest()) {
        (State::Absent, State::Present) if can_host(first, second) => Relation::HostAndGuest,
        (State::Present, State::Absent) if can_host(second, first) => Relation::GuestAndHost,
        (State::Absent, State::Present) | (State::Present, State::Absent) => Relation::Strangers,
        (State::Present, State::Present) => between_guests(first, second),
        _ => Relation::Hosts,
    }
}

/// Two guests may be a guest and a guest inside it, whichever of them was given first.
fn between_guests(first: &Machine<'_>, second: &Machine<'_>) -> Relation {
    match (may_be_nested(first, second), may_be_nested(second, first)) {
        (true, false) => Relation::OuterAndInner,
        (false, true) => Relation::InnerAndOuter,
        (false, false) => Relation::Guests,
        // The inner one has less of what nothing but a CPU gives.
        (true, true) if unaccounted(first, second) <= unaccounted(second, first) => Relation::OuterAndInner,
        (true, true) => Relation::InnerAndOuter,
    }
}

/// What speaks against `inner` running inside `outer`, the weightiest first.
fn unaccounted(outer: &Machine<'_>, inner: &Machine<'_>) -> (bool, usize, usize) {
    (outer.kvm_supported().is_none(), not_given(outer, inner, usize::MAX), flags(inner).count())
}

/// Whether `inner` may run inside `outer`: the outer one's KVM was seen; or it could have one, is the same CPU, and has a
/// feature that the inner one's kernel would show (else it is rather one guest under two kernels).
fn may_be_nested(outer: &Machine<'_>, inner: &Machine<'_>) -> bool {
    if !can_host(outer, inner) {
        return false;
    }
    if outer.kvm_supported().is_some() {
        return true;
    }
    let can_nest = ["vmx", "svm"].iter().any(|flag| outer.prints(flag) == Some(true));
    let same = outer.family_model().is_some() && outer.family_model() == inner.family_model();
    let mut lost = flags(outer).filter(|name| inner.prints(name) == Some(false));
    can_nest
        && same
        && not_given(outer, inner, HARDLY_ANY) <= HARDLY_ANY
        && lost.any(|name| announced(inner, name).is_some() && shows(inner, name, |ruling| ruling.perhaps.is_empty()))
}

/// Whether KVM on `host` can have made `guest`.
fn can_host(host: &Machine<'_>, guest: &Machine<'_>) -> bool {
    guest.hypervisor() != Some(Hypervisor::Other) && not_given(host, guest, HANDFUL) <= HANDFUL
}

/// How many features a guest shows that its host surely lacks and that KVM and QEMU give to no guest by themselves;
/// counted up to one more than `limit`.
fn not_given(host: &Machine<'_>, guest: &Machine<'_>, limit: usize) -> usize {
    let gained = flags(guest).filter(|name| host.prints(name) == Some(false));
    gained.filter(|name| surely_lacks(host, name)).take(limit.saturating_add(1)).count()
}

fn flags<'a>(machine: &'a Machine<'_>) -> impl Iterator<Item = &'a str> {
    machine.flags().into_iter().flat_map(FlagList::iter)
}

/// Whether the host's kernel has cleared the feature, or would print the flag if its CPU had the bit, and nothing below
/// the guest adds the bit.
fn surely_lacks(host: &Machine<'_>, flag: &str) -> bool {
    let Some(bit) = announced(host, flag) else { return false };
    let cleared = |tree| host.exactly(tree, flag, true) == State::Absent;
    (host.kernels().iter().all(cleared) || shows(host, flag, |_| true)) && !added_to_guests(host.trees(), bit)
}

/// The CPUID bit that a flag is to these kernels.
fn announced(machine: &Machine<'_>, flag: &str) -> Option<CpuidBit> {
    let row = |tree| linux::feature_by_id(tree, flag).and_then(|row| linux::place(tree, row));
    machine.kernels().iter().find_map(row)?.cpuid()
}

/// Whether each of these kernels prints the flag of a bit that is set: no rule drops it, and the ruling is good
/// enough.
fn shows(machine: &Machine<'_>, flag: &str, enough: impl Fn(&Ruling) -> bool) -> bool {
    machine.kernels().iter().all(|tree| {
        let ruling = setup::announced(&Observed { machine, tree }, tree, flag, State::Present);
        kernel::prints(tree, flag) && ruling.state == State::Present && enough(&ruling)
    })
}

/// Whether no KVM offers a bit and no QEMU adds it: a guest of KVM that lacks it is like every other.
pub(super) fn never_given(bit: CpuidBit) -> bool {
    kvm::trees_offering(bit).is_empty() && !added_to_guests(TreeSet(u64::MAX), bit)
}

/// Whether KVM of some tree, or some QEMU, shows a bit to guests though the host's CPU does not have it.
fn added_to_guests(trees: TreeSet, bit: CpuidBit) -> bool {
    use CapKind::{Emulated, Runtime, Synthesized, SynthesizedUnconditional};
    let by_kvm = trees.iter().any(|tree| {
        let Some(cap) = kvm::cap(tree, bit) else { return false };
        let mut of_bit = kvm::adjustments_of(tree, cap.macro_name).filter(|adjust| adjust.place == bit);
        matches!(cap.kind, Emulated | Synthesized | SynthesizedUnconditional | Runtime)
            || of_bit.any(|adjust| adjust.op == Op::Set)
    });
    let place = Place::Cpuid(bit);
    let by_qemu = (0..qemu::RELEASES.len())
        .any(|release| qemu::fixups(release, place).any(|fixup| fixup.effect != FixupEffect::Removes));
    by_kvm || by_qemu
}
