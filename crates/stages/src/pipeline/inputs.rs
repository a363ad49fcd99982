//! What a guest's kernel looks at.

use cpusieve_knowledge::linux;
use cpusieve_knowledge::x86::Generation;
use cpusieve_model::{CpuidBit, Place, Stage, State, Vendor};

use super::{DEPTH, Way, World};
use crate::Machine;
use crate::linux::booted::Exact;
use crate::linux::conditions::{Inputs, Sight};
use crate::machine::HYPERVISOR;

/// The guest's kernel looks at what the sieves before it left; what was seen of the guest stands.
impl Inputs for Way<'_> {
    fn bit(&self, bit: CpuidBit) -> Sight {
        let World { guest, host_tree, guest_tree, .. } = self.world;
        if let Some(guest) = guest {
            let (state, evidence) = guest.bit(guest_tree, bit);
            if state != State::Unknown {
                return Sight { state, evidence };
            }
        }
        let id = linux::at(host_tree, Place::Cpuid(bit)).map_or("", linux::Feature::id);
        let incoming = self.incoming(id, bit);
        self.vcpu(id, bit, incoming).last().map_or(State::Unknown, |decision| decision.state).into()
    }

    fn capability(&self, id: &str) -> Sight {
        let seen = self.world.guest.map(|guest| guest.capability(self.world.guest_tree, id)).unwrap_or_default();
        if seen.state != State::Unknown || self.depth >= DEPTH {
            return seen;
        }
        let World { guest, guest_tree, guest_proves, .. } = self.world;
        let exact =
            guest.map(|guest| guest.exactly(guest_tree, id, guest_proves)).filter(|&state| state != State::Unknown);
        if let Some(exact) = exact {
            return exact.into();
        }
        Way { depth: self.depth + 1, ..*self }.pass(id).outcome.into()
    }

    fn exact(&self, id: &str) -> Option<Exact> {
        self.world.guest?.exact(self.world.guest_tree, id, Stage::Guest, self.world.guest_proves)
    }

    fn observed(&self) -> Option<&Machine<'_>> {
        self.world.guest
    }

    fn is_vm(&self) -> State {
        match self.world.guest.map(Machine::is_vm) {
            Some(seen) if seen != State::Unknown => seen,
            _ => self.bit(HYPERVISOR).state,
        }
    }

    fn vendor(&self) -> Option<Vendor> {
        self.world.guest.and_then(Machine::vendor).or_else(|| self.world.host.vendor())
    }

    fn generation(&self) -> Option<&'static Generation> {
        self.world.host.generation().or_else(|| self.world.guest.and_then(Machine::generation))
    }

    fn family_model(&self) -> Option<(u32, u32)> {
        self.world.guest.and_then(Machine::family_model).or_else(|| self.world.host.family_model())
    }

    /// The accelerator is KVM: QEMU puts its signature there unless `kvm=off` was given.
    fn hypervisor(&self, name: &str) -> State {
        match self.world.guest.and_then(Machine::cpuid).and_then(cpusieve_model::CpuidTable::hypervisor_signature) {
            Some(signature) => State::from_bit(name == "kvm" && signature.starts_with("KVMKVMKVM")),
            None => State::from_bit(name == "kvm"),
        }
    }
}
