//! What features were worth, on machines that we measured: each number with its machine, date and interval.
//!
//! The tables stand in `knowledge/price/`, written by `cargo xtask import price` from what `cpusieve price --json`
//! printed; none is edited by hand, and none comes from elsewhere. A feature's worth depends on the work, the CPU and
//! what the program does without the feature, so each row says all three.
//!
//! ```
//! use cpusieve_knowledge::price;
//!
//! for machine in price::MACHINES {
//!     let best = machine.best("aes").unwrap();
//!     assert!(best.ratio.low > 2.0, "{}: {}", machine.name, best.title);
//! }
//! ```

include!(concat!(env!("OUT_DIR"), "/price.rs"));

/// A machine that was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// A short name: the CPU's generation.
    pub name: &'static str,
    /// The CPU's name for itself.
    pub brand: &'static str,
    /// Display family, model and stepping: `25/17/1`.
    pub signature: &'static str,
    /// Bare metal, or the hypervisor and VMM below.
    pub place: &'static str,
    /// The kernel's release.
    pub kernel: &'static str,
    /// `2026-11-22`
    pub date: &'static str,
    /// By feature and work.
    pub prices: &'static [Price],
}

/// One feature's worth in one piece of work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// The feature's id.
    pub feature: &'static str,
    /// The work's id.
    pub work: &'static str,
    /// The work for people.
    pub title: &'static str,
    /// How it is done with the feature.
    pub with: &'static str,
    /// How it is done without it.
    pub without: &'static str,
    /// What the rates count.
    pub unit: &'static str,
    /// The time without by the time with.
    pub ratio: Range,
    /// Units a second with the feature.
    pub rate_with: Range,
    /// Units a second without it.
    pub rate_without: Range,
    /// Samples.
    pub n: u32,
}

/// A median, and the interval in which the true one lies with a probability of at least 95 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// The median.
    pub median: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Machine {
    /// The rows of a feature.
    pub fn of(&self, feature: &str) -> impl Iterator<Item = &'static Price> {
        let start = self.prices.partition_point(|price| price.feature < feature);
        self.prices.iter().skip(start).take_while(move |price| price.feature == feature)
    }

    /// The work in which a feature is worth most.
    #[must_use]
    pub fn best(&self, feature: &str) -> Option<&'static Price> {
        self.of(feature).max_by(|a, b| a.ratio.median.total_cmp(&b.ratio.median))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x86;

    #[test]
    fn every_priced_feature_is_known_and_rows_are_sorted() {
        for machine in MACHINES {
            assert!(machine.prices.is_sorted_by_key(|price| (price.feature, price.work)));
            for price in machine.prices {
                assert!(x86::feature(price.feature).is_some(), "{}", price.feature);
                assert!(machine.of(price.feature).any(|row| row == price));
                assert!(machine.best(price.feature).unwrap().ratio.median >= price.ratio.median);
            }
        }
        assert!(MACHINES.is_sorted_by(|a, b| a.date >= b.date));
    }
}
