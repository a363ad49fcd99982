//! What a kernel has in the end, printed or not: the bits that KVM asks for.

use super::Output;
use super::program::{NO_FEATURE, Program, WORDS};

/// `boot_cpu_data.x86_capability` with its bugs, as far as one tree knows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub(super) words: [u32; WORDS],
    /// By position in the tree's list of bugs.
    pub(super) bugs: u64,
}

impl Capabilities {
    /// What all CPUs have (capabilities), or any has (bugs); `None` if nothing was booted.
    ///
    /// `arch/x86/kernel/cpu/common.c:identify_cpu` joins the CPUs in this way.
    #[must_use]
    pub fn of_all(boots: &[Output]) -> Option<Self> {
        let mut all = boots.iter().map(|boot| boot.capabilities);
        let first = all.next()?;
        Some(all.fold(first, |mut so_far, next| {
            so_far.words.iter_mut().zip(next.words).for_each(|(word, other)| *word &= other);
            so_far.bugs |= next.bugs;
            so_far
        }))
    }

    /// `boot_cpu_has`, by the macro without `X86_FEATURE_`; false if this tree has no such macro.
    #[must_use]
    pub fn has(&self, tree: usize, macro_name: &str) -> bool {
        self.bit(Program::of(tree).number(macro_name))
    }

    /// `boot_cpu_has_bug`, by the macro without `X86_BUG_`; false if this tree has no such macro.
    #[must_use]
    pub fn has_bug(&self, tree: usize, macro_name: &str) -> bool {
        self.bugs & Program::of(tree).bug(macro_name) != 0
    }

    /// Whether there is a bug, by [`bug`].
    pub(crate) const fn any_bug(&self, bug: u64) -> bool {
        self.bugs & bug != 0
    }

    /// Adds a capability, by its macro.
    pub(crate) fn set(&mut self, tree: usize, macro_name: &str) {
        self.put(Program::of(tree).number(macro_name), true);
    }

    /// Adds or removes the capability at word and bit, counted through.
    pub(crate) fn put(&mut self, number: u16, has: bool) {
        if let Some(word) = self.words.get_mut(usize::from(number) / 32) {
            let mask = 1 << (number % 32);
            *word = if has { *word | mask } else { *word & !mask };
        }
    }

    /// The capability at word and bit, counted through.
    pub(crate) fn bit(&self, number: u16) -> bool {
        let word = self.words.get(usize::from(number) / 32);
        number != NO_FEATURE && word.is_some_and(|word| word >> (number % 32) & 1 == 1)
    }
}

/// The number of a capability of a tree by its macro without `X86_FEATURE_`; `u16::MAX` if there is none.
pub(crate) fn number(tree: usize, macro_name: &str) -> u16 {
    Program::of(tree).number(macro_name)
}

/// The bit of a bug of a tree by its macro without `X86_BUG_`, to be asked of [`Capabilities`]; 0 if there is none.
pub(crate) fn bug(tree: usize, macro_name: &str) -> u64 {
    Program::of(tree).bug(macro_name)
}
