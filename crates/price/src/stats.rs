//! How much of a measurement is noise: medians with intervals that suppose nothing about the noise.
//!
//! On a shared machine noise is skewed, has a long tail and drifts, so means and standard deviations mislead. The median of
//! independent samples lies between two of them with a probability that depends on their number alone (the binomial
//! distribution of how many samples lie below the true median); no distribution is supposed and no random number is needed,
//! so the same samples always give the same interval.

/// The probability with which the true median lies in an [`Interval`], where there are samples enough.
pub const CONFIDENCE: f64 = 0.95;

/// From how many samples on the binomial distribution is taken for a normal one.
const MANY: usize = 400;

/// A median, and the interval in which the true one lies with a probability of at least 95 %.
///
/// With fewer than six samples no interval reaches 95 %: it is then the whole range of the samples, and
/// [`Interval::is_certain`] says so.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The median of the samples.
    pub median: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// How many samples there were.
    pub n: usize,
}

impl Interval {
    /// The interval of independent samples; those that are not finite are left out. `None` if there are none.
    #[must_use]
    pub fn of(samples: &[f64]) -> Option<Self> {
        let sorted = sorted(samples);
        let n = sorted.len();
        let below = rank(n);
        let low = sorted.get(below).copied()?;
        let high = sorted.get(n.checked_sub(below + 1)?).copied()?;
        Some(Self { median: middle(&sorted)?, low, high, n })
    }

    /// Whether there were samples enough for 95 %.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.n >= 6
    }

    /// Half the interval's width, relative to the median: 0.02 is ±2 %. Infinite if the median is zero.
    #[must_use]
    pub fn spread(&self) -> f64 {
        if self.median == 0.0 { f64::INFINITY } else { ((self.high - self.low) / 2.0 / self.median).abs() }
    }

    /// Whether two intervals have a point in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.low <= other.high && other.low <= self.high
    }

    /// Every number multiplied by a positive `factor`.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self { median: self.median * factor, low: self.low * factor, high: self.high * factor, n: self.n }
    }

    /// The interval of `amount / x` for a positive `amount`: what takes longer gets less done, so the ends change places.
    #[must_use]
    pub fn per(self, amount: f64) -> Self {
        Self { median: amount / self.median, low: amount / self.high, high: amount / self.low, n: self.n }
    }
}

/// How many of `n` sorted samples lie below the interval's lower end, and as many above its upper end: the interval misses
/// the true median on one side if no more samples than that lie on that side of it.
fn rank(n: usize) -> usize {
    let tail = (1.0 - CONFIDENCE) / 2.0;
    if n > MANY {
        let n = n as f64;
        // One more than needed is given away, since the normal distribution is but an approximation.
        return (n / 2.0 - 1.96 * n.sqrt() / 2.0 - 1.0).max(0.0) as usize;
    }
    // The probability of exactly k, then of at most k, of n samples below the median.
    let mut exactly = 0.5_f64.powi(i32::try_from(n).unwrap_or(i32::MAX));
    let mut at_most = 0.0;
    let mut k = 0;
    while k < n {
        at_most += exactly;
        if at_most > tail {
            return k.saturating_sub(1);
        }
        exactly *= (n - k) as f64 / (k + 1) as f64;
        k += 1;
    }
    0
}

fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted: Vec<f64> = samples.iter().copied().filter(|sample| sample.is_finite()).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}

fn middle(sorted: &[f64]) -> Option<f64> {
    let n = sorted.len();
    let upper = sorted.get(n / 2).copied()?;
    if n % 2 == 1 {
        return Some(upper);
    }
    let lower = sorted.get((n / 2).checked_sub(1)?).copied()?;
    Some(lower + (upper - lower) / 2.0)
}

/// The median of the samples that are finite; `None` if there are none.
#[must_use]
pub fn median(samples: &[f64]) -> Option<f64> {
    middle(&sorted(samples))
}

/// How many samples lie further from the middle half than one and a half times its width (Tukey's fences). Fewer than
/// eight samples have no outliers.
#[must_use]
pub fn outliers(samples: &[f64]) -> usize {
    let sorted = sorted(samples);
    let quartile = |quarter: usize| sorted.get(sorted.len() * quarter / 4).copied();
    let (Some(first), Some(third), true) = (quartile(1), quartile(3), sorted.len() >= 8) else { return 0 };
    let fence = 1.5 * (third - first);
    sorted.iter().filter(|&&sample| sample < first - fence || sample > third + fence).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranks_are_those_of_the_sign_test() {
        // The tables of the sign test at 5 %, two-sided.
        let known = [(5, 0), (6, 0), (8, 0), (9, 1), (12, 2), (15, 3), (20, 5), (25, 7), (30, 9), (50, 17), (100, 39)];
        for (n, below) in known {
            assert_eq!(rank(n), below, "{n} samples");
        }
        // Both ways of reckoning meet.
        assert!(rank(MANY).abs_diff(rank(MANY + 1)) <= 2);
    }

    #[test]
    fn nothing_gives_nothing() {
        assert_eq!(Interval::of(&[]), None);
        assert_eq!(Interval::of(&[f64::NAN, f64::INFINITY]), None);
        assert_eq!(median(&[]), None);
        assert_eq!(Interval::of(&[3.0]).map(|interval| (interval.low, interval.high)), Some((3.0, 3.0)));
    }

    /// Pseudo-random numbers in 0..1.
    fn uniform(state: &mut u64) -> f64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Skewed noise on a known median of 1: nothing below 0.9, and a tail that reaches into the hundreds.
    fn skewed(state: &mut u64) -> f64 {
        let p = uniform(state);
        0.9 + 0.1 * p / (1.0 - p)
    }

    #[test]
    fn intervals_hold_the_true_median_of_skewed_noise() {
        let mut state = 7;
        for n in [7, 12, 20, 60] {
            let held = (0..2000)
                .filter(|_| {
                    let samples: Vec<f64> = (0..n).map(|_| skewed(&mut state)).collect();
                    Interval::of(&samples).is_some_and(|found| found.low <= 1.0 && 1.0 <= found.high)
                })
                .count();
            assert!(held >= 1870, "{held} of 2000 with {n} samples");
        }
    }

    #[test]
    fn two_series_of_the_same_noise_overlap() {
        let mut state = 11;
        let mut series = || Interval::of(&(0..15).map(|_| skewed(&mut state)).collect::<Vec<_>>()).unwrap();
        let apart = (0..1000).filter(|_| !series().overlaps(&series())).count();
        assert!(apart <= 20, "{apart} of 1000");
    }

    #[test]
    fn far_samples_are_outliers() {
        let mut samples = vec![1.0, 1.01, 0.99, 1.02, 0.98, 1.0, 1.01, 0.99];
        assert_eq!(outliers(&samples), 0);
        samples.extend([9.0, 0.1]);
        assert_eq!(outliers(&samples), 2);
    }

    proptest! {
        #[test]
        fn order_does_not_matter(mut samples in prop::collection::vec(0.1_f64..10.0, 1..90)) {
            let before = Interval::of(&samples);
            samples.reverse();
            prop_assert_eq!(before, Interval::of(&samples));
            let interval = before.unwrap();
            prop_assert!(interval.low <= interval.median && interval.median <= interval.high);
            prop_assert!(samples.contains(&interval.low) && samples.contains(&interval.high));
        }

        #[test]
        fn one_wild_sample_moves_no_interval_far(samples in prop::collection::vec(0.9_f64..1.1, 9..60)) {
            let mut wild = samples;
            wild.push(1e9);
            let interval = Interval::of(&wild).unwrap();
            prop_assert!(interval.low >= 0.9 && interval.high <= 1.1);
        }

        #[test]
        fn units_do_not_matter(samples in prop::collection::vec(0.1_f64..10.0, 1..60), factor in 0.001_f64..1000.0) {
            let interval = Interval::of(&samples).unwrap();
            let rates: Vec<f64> = samples.iter().map(|time| factor / time).collect();
            let (of_rates, of_times) = (Interval::of(&rates).unwrap(), interval.per(factor));
            prop_assert!((of_rates.low / of_times.low - 1.0).abs() < 1e-9);
            prop_assert!((of_rates.high / of_times.high - 1.0).abs() < 1e-9);
            prop_assert!((interval.scaled(factor).spread() - interval.spread()).abs() < 1e-9);
        }
    }
}
