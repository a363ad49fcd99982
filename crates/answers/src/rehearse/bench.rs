//! A host on which guests are tried.

use cpusieve_knowledge::linux::release_of;
use cpusieve_model::{CpuidBit, Register, Snapshot, Stage, State};
use cpusieve_stages::linux::boot::Unlisted;
use cpusieve_stages::vmm::Options;

use super::guest::Guest;
use super::stack::Stack;
use super::view::View;
use crate::predict::way::NoWay;
use crate::predict::{Kernel, NoPrediction, kvm};

/// The bit that hypervisors set: 1.ECX\[31\].
const HYPERVISOR: CpuidBit = CpuidBit::new(1, 0, Register::Ecx, 31);

/// One host, the kernel in its guests, and the VMM if it is not QEMU.
pub(super) struct Bench<'a> {
    pub snapshot: &'a Snapshot,
    pub unlisted: Unlisted,
    pub kernel: String,
    pub options: Option<Options<'a>>,
}

impl<'a> Bench<'a> {
    /// The host as it is before; the kernel in its guests is the one that was named, else the host's own, which stays
    /// when the host's is upgraded.
    pub(super) fn new(
        snapshot: &'a Snapshot,
        unlisted: Unlisted,
        before: &Stack,
        kernel: Option<&str>,
        options: Option<Options<'a>>,
    ) -> Result<Self, NoPrediction> {
        let kernel = match kernel {
            Some(kernel) => kernel.to_owned(),
            None => {
                let host = Kernel { release: before.kernel.as_deref(), unlisted, ..Kernel::new(Stage::Host) };
                let found = kvm::predict(snapshot, &kvm::Question::new(host))?;
                release_of(found.host.tree).to_owned()
            }
        };
        Ok(Self { snapshot, unlisted, kernel, options })
    }

    /// Whether the input shows a guest, whose own KVM was not seen: what its host offers nobody can tell from it.
    pub(super) fn is_guest(snapshot: &Snapshot) -> bool {
        let cpuid = snapshot.first_cpuid().map(|cpu| &cpu.cpuid);
        let seen = snapshot.kvm.as_ref().is_some_and(|kvm| kvm.supported.is_some());
        !seen && cpuid.is_some_and(|cpuid| cpuid.state(HYPERVISOR) == State::Present)
    }

    /// A guest on a stack.
    pub(super) fn view(&self, guest: &Guest, stack: &Stack) -> Result<View, NoWay> {
        self.view_with(guest, stack, self.options)
    }

    /// The same, with other options of the VMM.
    pub(super) fn view_with(&self, guest: &Guest, stack: &Stack, options: Option<Options<'_>>) -> Result<View, NoWay> {
        let snapshot = stack.of(self.snapshot);
        let settings = guest.settings(stack, &self.kernel, self.unlisted);
        match options {
            None => View::of_qemu(&snapshot, &settings),
            Some(options) => View::of_pass_through(&snapshot, &settings, options),
        }
    }
}
