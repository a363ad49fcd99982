//! A piece of work that can be done with a feature and without it.

use thiserror::Error;

use crate::flags::Flags;

/// What a rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes of input.
    Bytes,
    /// Things done, named in the plural: `multiplications`.
    Operations(&'static str),
}

/// One way to do a piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// At most ten words for people: `SSSE3 vector permute, 4 blocks at once`.
    pub name: &'static str,
    /// The ids of the features that it needs.
    pub needs: &'static [&'static str],
}

/// A piece of work, as a row of a table. Works are equal if their ids are.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// The id, unique: `aes-256-gcm`.
    pub id: &'static str,
    /// The id of the feature that it prices.
    pub feature: &'static str,
    /// At most 32 characters for people: `AES-256-XTS, 4 KiB sectors`.
    pub title: &'static str,
    /// The way that uses the feature.
    pub with: Way,
    /// The best way known that does not.
    pub without: Way,
    /// What the rate counts.
    pub unit: Unit,
    /// How much of it one run does.
    pub amount: u64,
    /// Makes the work ready in fresh memory.
    ///
    /// # Safety
    ///
    /// The CPU must have all that both ways need.
    pub(crate) make: unsafe fn() -> Result<Box<dyn Pair>, Refused>,
}

/// Why a machine that has the features still cannot do a work.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Refused(pub &'static str);

impl Work {
    /// The features that either way needs and a program may not use here, each once.
    #[must_use]
    pub fn missing(&self, flags: &Flags) -> Vec<&'static str> {
        let mut missing = flags.missing(self.with.needs);
        for id in flags.missing(self.without.needs) {
            if !missing.contains(&id) {
                missing.push(id);
            }
        }
        missing
    }

    /// Makes the work ready in fresh memory; `None` if a program may not use here what one of the ways needs.
    ///
    /// # Errors
    ///
    /// If the kernel or the machine refuses the work in spite of the features.
    pub fn ready(&self, flags: &Flags) -> Option<Result<Box<dyn Pair>, Refused>> {
        // SAFETY: the CPU has all that both ways need.
        self.missing(flags).is_empty().then(|| unsafe { (self.make)() })
    }
}

/// A way's result that is not the reference's: nothing is timed then.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{way}: the result is not that of the reference")]
pub struct Wrong {
    /// Which way.
    pub way: &'static str,
}

impl Wrong {
    /// An error unless `right`.
    ///
    /// # Errors
    ///
    /// If the result is not right.
    pub fn unless(right: bool, way: &'static str) -> Result<(), Self> {
        if right { Ok(()) } else { Err(Self { way }) }
    }
}

/// Which of the two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// With the feature.
    With,
    /// Without it.
    Without,
}

/// The two ways to do one piece of work, in memory of their own.
pub trait Pair {
    /// Compares what both ways make of the same input with what a plain reference makes of it.
    ///
    /// # Errors
    ///
    /// If one of them differs.
    fn check(&mut self) -> Result<(), Wrong>;

    /// Does the work once. Both ways read the same input.
    fn run(&mut self, side: Side);

    /// Called before the runs of a sample, untimed.
    fn enter(&mut self, _side: Side) {}

    /// Called after the runs of a sample, untimed.
    fn leave(&mut self, _side: Side) {}

    /// Whether the work itself gives the CPU away, so that time without the CPU does not mean that somebody took it.
    fn waits(&self) -> bool {
        false
    }
}

/// The usual [`Pair`]: two functions over the same kind of input, and what the input holds afterwards.
pub(crate) struct Kernel<I, O> {
    /// What the work reads and writes.
    pub(crate) state: I,
    /// The same input again, in other memory.
    pub(crate) fresh: fn() -> I,
    /// The way with the feature. It may need what [`Work::with`] names.
    pub(crate) with: unsafe fn(&mut I),
    /// The way without. It may need what [`Work::without`] names.
    pub(crate) without: unsafe fn(&mut I),
    /// What a way has made of the input.
    pub(crate) result: fn(&I) -> O,
    /// What it should have made, in the plainest way.
    pub(crate) reference: fn(&I) -> O,
}

impl<I: 'static, O: PartialEq + 'static> Kernel<I, O> {
    /// Makes it ready. To be called from [`Work::make`] alone, whose caller has checked what the ways need.
    pub(crate) fn boxed(
        fresh: fn() -> I,
        with: unsafe fn(&mut I),
        without: unsafe fn(&mut I),
        result: fn(&I) -> O,
        reference: fn(&I) -> O,
    ) -> Result<Box<dyn Pair>, Refused> {
        Ok(Box::new(Self { state: fresh(), fresh, with, without, result, reference }))
    }

    fn way(&self, side: Side) -> unsafe fn(&mut I) {
        match side {
            Side::With => self.with,
            Side::Without => self.without,
        }
    }
}

impl<I: 'static, O: PartialEq + 'static> Pair for Kernel<I, O> {
    fn check(&mut self) -> Result<(), Wrong> {
        for (side, name) in [(Side::With, "the way with it"), (Side::Without, "the way without it")] {
            // In other memory, so that no way is judged by what another one has left there.
            let mut state = (self.fresh)();
            let expected = (self.reference)(&state);
            // SAFETY: whoever made this has checked what the ways need, see `Work::make`.
            unsafe { self.way(side)(&mut state) };
            Wrong::unless((self.result)(&state) == expected, name)?;
        }
        Ok(())
    }

    fn run(&mut self, side: Side) {
        // SAFETY: as in `check`.
        unsafe { self.way(side)(&mut self.state) };
    }
}

/// Numbers that look random and are always the same (SplitMix64).
pub(crate) fn noise(seed: u64) -> impl Iterator<Item = u64> {
    (1..).map(move |index: u64| {
        let mut z = seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    })
}

/// Bytes that look random and are always the same.
pub(crate) fn noise_bytes(seed: u64, length: usize) -> Vec<u8> {
    noise(seed).flat_map(u64::to_le_bytes).take(length).collect()
}
