//! What is pasted: one solution in the words of the system that starts the guest.

use cpusieve_answers::predict::way::GuestPrediction;
use cpusieve_answers::want::change::Change;
use cpusieve_answers::want::{Settings, Wish};
use cpusieve_model::Vendor;

use super::{firecracker, kubevirt, libvirt, openstack, proxmox, qemu};
use crate::args::To;

/// What is to be written down.
pub(super) struct Target<'a> {
    pub(super) settings: &'a Settings,
    pub(super) guest: &'a GuestPrediction,
    /// The guest before any change.
    pub(super) start: &'a GuestPrediction,
    pub(super) changes: &'a [Change],
    pub(super) wishes: &'a [Wish],
    pub(super) vendor: Option<Vendor>,
}

/// What is pasted.
#[derive(Debug, Default)]
pub(super) struct Paste {
    /// The text.
    pub(super) text: String,
    /// What must be done besides, because the text cannot say it.
    pub(super) beyond: Vec<String>,
    /// What should be known of it.
    pub(super) note: Option<&'static str>,
    /// Whether a wish is out of the system's reach.
    pub(super) impossible: bool,
}

/// One solution in the words of a system.
pub(super) fn paste(to: To, target: &Target<'_>) -> Paste {
    let mut paste = match to {
        To::Qemu => Paste { text: format!("{}\n", qemu::command(target)), ..Paste::default() },
        To::Libvirt => libvirt::xml(target),
        To::Firecracker => return firecracker::template(target),
        To::Proxmox => proxmox::configuration(target),
        To::Kubevirt => kubevirt::machine(target),
        To::Openstack => openstack::configuration(target),
    };
    paste.beyond.extend(target.changes.iter().filter(|change| is_elsewhere(change)).map(ToString::to_string));
    paste
}

/// Whether a change is made outside of what starts the guest.
pub(super) const fn is_elsewhere(change: &Change) -> bool {
    !matches!(
        change,
        Change::Model { .. }
            | Change::Property { .. }
            | Change::CpuPm
            | Change::Machine { .. }
            | Change::Smp(_)
            | Change::Kvm
    )
}
