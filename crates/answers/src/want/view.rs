//! A virtual machine under certain settings, as the stages predict it, and what its guest shows of a feature.

use cpusieve_knowledge::linux;
use cpusieve_knowledge::qemu;
use cpusieve_knowledge::x86::Feature;
use cpusieve_model::{CpuidBit, CpuidTable, Place, Snapshot, Stage, State, Step};
use cpusieve_stages::linux::boot;

use super::Wish;
use super::settings::Settings;
use crate::predict::way::{GuestPrediction, NoWay, until_guest};

/// What comes out of the stages under some settings.
pub(super) struct View {
    pub(super) found: GuestPrediction,
    /// What QEMU did, read off only where it is looked at.
    qemu: std::cell::OnceCell<Vec<Step>>,
}

impl View {
    /// Runs the stages.
    pub(super) fn of(snapshot: &Snapshot, settings: &Settings) -> Result<Self, NoWay> {
        let found = until_guest(snapshot, &settings.route())?;
        Ok(Self { found, qemu: std::cell::OnceCell::new() })
    }

    /// The QEMU release.
    pub(super) fn release(&self) -> usize {
        self.found.vcpu.release
    }

    /// The kernel of the host or the guest: its tree and what it printed; none of a host under TCG.
    pub(super) fn kernel(&self, at: Stage) -> Option<(usize, &boot::Output)> {
        match at {
            Stage::Guest => Some((self.found.guest.tree, &self.found.guest.boot)),
            _ => self.found.vcpu.kvm.as_ref().map(|kvm| (kvm.host.tree, &kvm.host.boot)),
        }
    }

    /// What QEMU did with a bit; none if it was neither offered nor asked for.
    pub(super) fn qemu_step(&self, place: Place) -> Option<&Step> {
        self.qemu_steps().iter().find(|step| step.place == Some(place))
    }

    /// What QEMU did with every bit.
    pub(super) fn qemu_steps(&self) -> &[Step] {
        self.qemu.get_or_init(|| self.found.vcpu.qemu.steps())
    }

    /// What KVM did with a bit.
    pub(super) fn kvm_step(&self, bit: CpuidBit) -> Option<&Step> {
        let kvm = self.found.vcpu.kvm.as_ref()?;
        kvm.steps.iter().find(|step| step.place == Some(Place::Cpuid(bit)))
    }

    /// Whether KVM offers a bit.
    pub(super) fn offered(&self, bit: CpuidBit) -> bool {
        let table = self.found.vcpu.kvm.as_ref().and_then(|kvm| kvm.view.supported_table());
        table.is_some_and(|table| is_set(&table, bit))
    }

    /// Whether the vCPU has a bit, of CPUID or of a feature MSR.
    pub(super) fn vcpu_has(&self, place: Place) -> bool {
        match place {
            Place::Cpuid(bit) => {
                // With Hyper-V's leaves in their place, KVM's own start 100H higher.
                let moved = CpuidBit { leaf: bit.leaf + 0x100, ..bit };
                let own = bit.leaf >> 8 == 0x0040_0000;
                is_set(&self.found.cpuid, bit) || own && is_set(&self.found.cpuid, moved)
            }
            Place::Msr(bit) => self.found.vcpu.qemu.msrs.get(&bit.index).is_some_and(|value| value >> bit.bit & 1 == 1),
            Place::Linux(_) => false,
        }
    }

    /// Whether a kernel has a capability, printed or hidden.
    pub(super) fn has(&self, at: Stage, id: &str) -> bool {
        let Some((tree, boot)) = self.kernel(at) else { return false };
        match linux::feature_by_id(tree, id).and_then(|row| row.shown) {
            Some(shown) => boot.flags.contains(&shown),
            None => boot.hidden.contains(&id),
        }
    }

    /// Whether the guest shows a feature: its kernel prints it, if any kernel does; else it has it, or its vCPU does.
    pub(super) fn shows(&self, feature: &Feature) -> bool {
        let id = feature.id;
        let (tree, boot) = (self.found.guest.tree, &self.found.guest.boot);
        if is_printed(feature) {
            let shown = linux::feature_by_id(tree, id).and_then(|row| row.shown);
            return shown.is_some_and(|shown| boot.flags.contains(&shown));
        }
        boot.hidden.contains(&id) || feature.places.iter().any(|&place| self.vcpu_has(place))
    }

    /// Whether a 64-bit kernel boots on the vCPU and keeps what its code takes for granted.
    pub(super) fn boots(&self) -> bool {
        REQUIRED.iter().all(|id| self.found.guest.boot.flags.contains(id))
    }

    /// Whether the guest is as wished.
    pub(super) fn grants(&self, wish: Wish) -> bool {
        self.shows(wish.feature) == wish.present
    }

    /// Whether the stage `at` gives this guest or host the bit to begin with.
    pub(super) fn cpuid_of<'a>(&'a self, at: Stage, snapshot: &'a Snapshot) -> Option<&'a CpuidTable> {
        match at {
            Stage::Guest => Some(&self.found.cpuid),
            _ => snapshot.first_cpuid().map(|cpu| &cpu.cpuid),
        }
    }

    /// QEMU's name of a bit in the release at hand.
    pub(super) fn qemu_name(&self, place: Place) -> Option<&'static str> {
        qemu::name(self.release(), place)
    }
}

/// The features without which a 64-bit kernel stops (`arch/x86/kernel/verify_cpu.S` with
/// `arch/x86/include/asm/required-features.h`).
pub(super) const REQUIRED: [&str; 9] = ["fpu", "msr", "pae", "cx8", "cmov", "fxsr", "sse", "sse2", "lm"];

/// Whether any known kernel prints a feature.
pub(super) fn is_printed(feature: &Feature) -> bool {
    linux::by_id(feature.id).any(|row| row.shown.is_some())
}

/// Whether a table has a bit.
pub(super) fn is_set(table: &CpuidTable, bit: CpuidBit) -> bool {
    table.state(bit) == State::Present
}
