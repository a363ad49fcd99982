//! Which CPUs may this line come from, and do they have cores of different kinds? Linux hides the bit that says so.

use cpusieve_knowledge::linux;
use cpusieve_knowledge::x86::{self, Guess, Known};
use cpusieve_model::{FlagList, State};

use crate::Machine;

/// The CPU generations that a machine's flags may come from, the likeliest first.
pub(crate) fn guess(machine: &Machine<'_>) -> Vec<Guess> {
    let kernel = machine.trees().last().and_then(|tree| linux::TREES.get(tree));
    let known = Known {
        vendor: machine.vendor(),
        signature: machine.family_model(),
        stepping: machine.stepping(),
        kernel: kernel.map(|tree| (u32::from(tree.release.0), u32::from(tree.release.1))),
    };
    x86::guess(machine.flags().into_iter().flat_map(FlagList::iter), known)
}

/// Whether the likeliest generations are hybrid: unknown if they do not agree.
pub(crate) fn is_hybrid(guesses: &[Guess]) -> State {
    /// Generations less probable than this do not count.
    const PLAUSIBLE: f64 = 0.2;
    let mut plausible = guesses.iter().filter(|guess| guess.score >= PLAUSIBLE).map(|guess| guess.generation.hybrid);
    match plausible.next() {
        Some(first) if plausible.all(|other| other == first) => State::from_bit(first),
        _ => State::Unknown,
    }
}
