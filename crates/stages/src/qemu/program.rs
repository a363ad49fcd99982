//! One release's tables of words and dependencies, looked up once.

use std::sync::OnceLock;

use cpusieve_knowledge::qemu::{self, Fixup, RELEASES, WORD_COUNT, WORD_ORDER, Word};

use super::supported::made_in_cpu;
use super::words::{W, Words};

/// What one release knows of its feature words.
pub(crate) struct Program {
    words: [Row; WORD_COUNT],
    /// `feature_dependencies`, in table order.
    pub dependencies: Vec<Dependency>,
}

/// One feature word.
struct Row {
    exists: bool,
    tcg: u64,
    migratable: u64,
    no_autoenable: u64,
    cpu_fixups: Vec<&'static Fixup>,
}

/// When none of the bits of `from` is set, those of `to` are cleared.
pub(crate) struct Dependency {
    pub from: (W, u64),
    pub to: (W, u64),
}

impl Program {
    /// The tables of a release; looked up when they are first asked for.
    pub(super) fn of(release: usize) -> &'static Self {
        static PROGRAMS: [OnceLock<Program>; 64] = [const { OnceLock::new() }; 64];
        let release = release.min(RELEASES.len().saturating_sub(1));
        PROGRAMS[release % PROGRAMS.len()].get_or_init(|| Self::compile(release))
    }

    fn compile(release: usize) -> Self {
        let mut words = [const { Row::EMPTY }; WORD_COUNT];
        for (position, (row, word)) in words.iter_mut().zip(WORD_ORDER).enumerate() {
            if qemu::has_word(release, position) {
                *row = Row {
                    exists: true,
                    tcg: word.tcg_mask(release),
                    migratable: word.migratable_mask(release),
                    no_autoenable: word.no_autoenable_mask(release),
                    cpu_fixups: qemu::word_fixups(release, word).filter(|fixup| made_in_cpu(fixup)).collect(),
                };
            }
        }
        let at = |(word, mask): (Word, u64)| qemu::word_position(word).map(|position| (W(position), mask));
        let dependencies = qemu::dependencies(release)
            .filter_map(|row| Some(Dependency { from: at(row.from)?, to: at(row.to)? }))
            .collect();
        Self { words, dependencies }
    }

    fn row(&self, at: W) -> &Row {
        static NONE: Row = Row::EMPTY;
        self.words.get(at.0).unwrap_or(&NONE)
    }

    /// Whether the release has this word.
    pub(super) fn has(&self, at: W) -> bool {
        self.row(at).exists
    }

    /// The bits that TCG implements.
    pub(super) fn tcg(&self, at: W) -> u64 {
        self.row(at).tcg
    }

    /// The bits that `migratable=on` keeps.
    pub(super) fn migratable(&self, at: W) -> u64 {
        self.row(at).migratable
    }

    /// The bits that `host` and `max` do not turn on by themselves.
    pub(super) fn no_autoenable(&self) -> Words {
        std::array::from_fn(|position| self.row(W(position)).no_autoenable)
    }

    /// The changes that `x86_cpu_get_supported_feature_word` itself makes to a word.
    pub(super) fn cpu_fixups(&self, at: W) -> &[&'static Fixup] {
        &self.row(at).cpu_fixups
    }
}

impl Row {
    const EMPTY: Self = Self { exists: false, tcg: 0, migratable: 0, no_autoenable: 0, cpu_fixups: Vec::new() };
}
