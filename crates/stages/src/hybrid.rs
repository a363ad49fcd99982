//! Is this a CPU with cores of different kinds? Linux hides the bit that says so; the other flags betray it.

use cpusieve_knowledge::x86;
use cpusieve_model::State;

use crate::Machine;

/// What the flags line says of it.
pub(crate) fn from_flags(machine: &Machine<'_>) -> State {
    let Some(flags) = machine.flags() else { return State::Unknown };
    let guesses = x86::guess(machine.vendor(), machine.family_model(), &mut |name| flags.contains(name));
    match guesses.first() {
        Some(best) => State::from_bit(best.generation.hybrid),
        None => State::Unknown,
    }
}
