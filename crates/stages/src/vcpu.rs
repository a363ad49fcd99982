//! What KVM edits while the guest runs: bits that only mirror what the guest's kernel switched on. [`running`] edits a
//! whole table, [`edit`] answers for one bit where no table is known.

pub mod guest;
mod running;

use cpusieve_knowledge::rules::{self, Software};
use cpusieve_model::{CpuidBit, Effect, Grounds, Place, Register, Stage, State, Step};

use crate::kvm::Decision;
use crate::machine::known_name;
pub use running::{Running, read, running};

/// The bits that mirror a bit of CR4 (`arch/x86/kvm/cpuid.c:kvm_update_cpuid_runtime`), and the bit that lets a kernel set
/// that one: OSXSAVE mirrors CR4.OSXSAVE, OSPKE mirrors CR4.PKE.
const MIRRORS: [(CpuidBit, CpuidBit); 2] = [
    (CpuidBit::new(1, 0, Register::Ecx, 27), CpuidBit::new(1, 0, Register::Ecx, 26)),
    (CpuidBit::new(7, 0, Register::Ecx, 4), CpuidBit::new(7, 0, Register::Ecx, 3)),
];

/// The bit without which a guest's kernel cannot make KVM set this one; none if KVM leaves this one alone.
#[must_use]
pub fn mirrored(bit: CpuidBit) -> Option<CpuidBit> {
    MIRRORS.iter().find(|(mirror, _)| *mirror == bit).map(|(_, source)| *source)
}

/// A bit that mirrors what the guest's kernel may switch on, if it has the feature for it.
#[must_use]
pub fn edit(feature: &str, bit: CpuidBit, source: State) -> Decision {
    let state = if source.known() == Some(false) { State::Absent } else { State::Unknown };
    let rule = rules::generic(Software::Kvm, "runtime");
    let step = Step {
        feature: known_name(feature),
        place: Some(Place::Cpuid(bit)),
        at: Stage::Vcpu,
        effect: if state == State::Absent { Effect::Dropped } else { Effect::Unknown },
        rule: rule.map_or(cpusieve_model::RuleId(""), |rule| rule.id),
        cite: rule.map_or(cpusieve_model::Cite(""), |rule| rule.cite),
        because: Grounds::NONE,
    };
    Decision { state, open: false, step }
}
