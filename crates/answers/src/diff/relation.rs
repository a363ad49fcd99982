//! What two ends are to each other.

use cpusieve_model::State;
use cpusieve_stages::Machine;

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
            Self::DifferentVendors => "CPUs of different vendors: neither can be the other's host",
            Self::Equal => "both show the same flags",
        }
    }
}

/// Judges by vendor and the hypervisor bit.
pub(super) fn between(first: &Machine<'_>, second: &Machine<'_>) -> Relation {
    if first.flags() == second.flags() {
        return Relation::Equal;
    }
    if let (Some(one), Some(other)) = (first.vendor(), second.vendor())
        && one != other
    {
        return Relation::DifferentVendors;
    }
    match (first.is_vm(), second.is_vm()) {
        (State::Absent, State::Present) => Relation::HostAndGuest,
        (State::Present, State::Absent) => Relation::GuestAndHost,
        (State::Present, State::Present) => Relation::Guests,
        _ => Relation::Hosts,
    }
}

/// Two guests may be a guest and a guest inside it: the outer one needs KVM, or the vmx or svm flag.
pub(super) fn may_be_nested(outer: &Machine<'_>) -> bool {
    outer.kvm_supported().is_some() || ["vmx", "svm"].iter().any(|flag| outer.prints(flag) == Some(true))
}
