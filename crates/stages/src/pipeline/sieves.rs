//! KVM and QEMU on the way of one bit: run whole where the host's CPUID is known, asked bit by bit elsewhere.

use std::rc::Rc;

use cpusieve_model::{CpuidBit, CpuidTable, Evidence, KvmView, State};

use super::{Way, World};
use crate::kvm::{self, Decision};
use crate::qemu::{self, Command, Qemu, Realized};

impl<'a> World<'a> {
    /// The KVM that runs on the host, whole; `None` where no CPUID of the host was seen.
    pub(super) fn answered(&self) -> Option<&'a kvm::answered::Answered> {
        self.host.answered(self.host_tree).filter(|_| self.whole)
    }

    /// All that KVM answers on the host: its own answers, or those of the whole KVM.
    fn kvm_view(&self) -> Option<&'a KvmView> {
        let captured = || self.host.snapshot.kvm.as_ref().filter(|kvm| kvm.supported.is_some());
        self.answered().map(|answered| &answered.view).or_else(captured)
    }

    /// KVM's table: its own, or that of the whole KVM; with whether it was captured.
    pub(super) fn kvm_table(&self) -> Option<(&'a CpuidTable, bool)> {
        let own = self.host.kvm_supported().filter(|table| !table.is_empty()).map(|table| (table, true));
        own.or_else(|| Some((&self.answered()?.predicted, false)))
    }

    /// The QEMU that was started, or is supposed to have been, whole; `None` where no CPUID of the host was seen, or
    /// nothing is known of `-cpu` but that it is not `host`.
    pub(super) fn realized(&self) -> Option<Rc<Realized>> {
        let host = self.host.cpuid().filter(|_| self.whole)?;
        let command = self.command.or_else(|| Command::supposed(self.qemu, self.cpu))?;
        let on = (self.qemu, self.host_tree);
        if let Some(known) = self.host.realized.borrow().iter().find(|known| known.is(on, &command)) {
            return Some(Rc::clone(known));
        }
        let realized = Rc::new(Realized::new(host, self.kvm_view()?, on, &command));
        self.host.realized.borrow_mut().push(Rc::clone(&realized));
        Some(realized)
    }
}

impl Way<'_> {
    /// What KVM offers of a bit.
    pub(super) fn offered(&self, id: &str, bit: CpuidBit, incoming: State) -> Decision {
        let World { host, host_tree, whole, .. } = self.world;
        let offer = if whole { kvm::offer_exactly } else { kvm::offer };
        offer(host, host_tree, id, bit, incoming)
    }

    /// What QEMU gives of a bit, whatever was seen of the guest.
    ///
    /// Of a command line that is supposed, not known, `-smp` and the machine type are the usual ones: what may hang on
    /// them stays open.
    pub(super) fn given(&self, id: &str, bit: CpuidBit, offered: State) -> Decision {
        let World { host, qemu: release, cpu, command, .. } = self.world;
        let by_the_bit = qemu::give(Qemu { release, cpu }, host, id, bit, offered);
        if command.is_none() && by_the_bit.open {
            return by_the_bit;
        }
        self.world.realized().and_then(|realized| self.whole_qemu(&realized, id, bit, offered)).unwrap_or(by_the_bit)
    }

    /// Whether a bit that did not arrive, and that KVM offers under a condition that nobody saw, was rather dropped by KVM
    /// than by QEMU: KVM lacks it if what was not seen is as on most machines, or QEMU would have passed it on.
    pub(super) fn rather_kvm(&self, id: &str, bit: CpuidBit) -> bool {
        let usual = self.world.answered().map(|answered| answered.state(bit));
        usual == Some(State::Absent) || self.given(id, bit, State::Present).state == State::Present
    }

    /// What the whole QEMU gives, if KVM offered it what it is taken to offer.
    fn whole_qemu(&self, realized: &Realized, id: &str, bit: CpuidBit, offered: State) -> Option<Decision> {
        let (table, captured) = self.world.kvm_table()?;
        let same = offered.known() == Some(table.state(bit) == State::Present);
        let mut decision = realized.decision(id, bit).filter(|_| same)?;
        if !captured {
            let because = std::mem::take(&mut decision.step.because);
            let stays = |evidence: &&Evidence| !matches!(evidence, Evidence::Register { .. });
            decision.step.because = because.iter().filter(stays).cloned().collect();
        }
        Some(decision)
    }
}
