//! The clocks that things are timed with, and how far they can be trusted.

use std::arch::asm;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::stats::median;

/// Where the kernel says which clock source it reads.
const SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// How often the clock is read to learn its step and its cost.
const READINGS: usize = 2000;

/// `CLOCK_MONOTONIC`, as it is here.
#[derive(Clone, Debug, PartialEq)]
pub struct Clock {
    /// The kernel's clock source: `tsc`, `kvm-clock`, `hpet`; `None` if the kernel does not tell.
    pub source: Option<String>,
    /// What one reading costs, in nanoseconds: the median.
    pub cost: f64,
    /// The smallest step seen between two readings that differ, in nanoseconds.
    pub step: f64,
}

impl Clock {
    /// Reads the clock some thousand times.
    #[must_use]
    pub fn look() -> Self {
        let mut differences = Vec::with_capacity(READINGS);
        let mut before = Instant::now();
        let start = before;
        for _ in 0..READINGS {
            let now = Instant::now();
            differences.push(nanoseconds(now - before));
            before = now;
        }
        let mean = nanoseconds(before - start) / READINGS as f64;
        let step = differences.iter().copied().filter(|&difference| difference > 0.0).fold(f64::INFINITY, f64::min);
        // A coarse clock stands still at most readings: then the mean tells what one costs.
        let cost = median(&differences).filter(|&median| median > 0.0).unwrap_or(mean);
        let source = std::fs::read_to_string(SOURCE).ok().map(|source| source.trim().to_owned());
        Self { source, cost, step }
    }

    /// Whether a sample of this length can be told to within one part in a hundred.
    #[must_use]
    pub fn resolves(&self, sample: Duration) -> bool {
        (self.cost + self.step) * 100.0 <= nanoseconds(sample)
    }
}

/// A duration in nanoseconds.
#[must_use]
pub fn nanoseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

/// The time that this thread has run on a CPU, by the kernel's account.
#[must_use]
pub fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// How many multiplications in a row one call of [`multiply`] does.
const MULTIPLICATIONS: u32 = 64;

/// The cycles of one `imul` of 64-bit registers on every Intel CPU since Nehalem and every AMD CPU since Zen.
const CYCLES: f64 = 3.0;

/// Multiplications each of which waits for the one before: their time is a number of the core's cycles.
fn multiply(mut value: u64) -> u64 {
    // SAFETY: reads and writes one register that the compiler gave; no memory, no stack, flags are declared clobbered.
    unsafe {
        asm!(".rept 64", "imul {value}, {value}", ".endr", value = inout(reg) value, options(nomem, nostack));
    }
    value
}

/// The core's clock in GHz just now, as told by a chain of multiplications; on CPUs whose `imul` does not take three
/// cycles the number is off by a constant factor, and still shows whether the clock moves. Takes some 20 µs.
#[must_use]
pub fn core_ghz() -> Option<f64> {
    let mut value = 3;
    let mut best = f64::INFINITY;
    for _ in 0..4 {
        let start = Instant::now();
        for _ in 0..100 {
            value = multiply(value);
        }
        // What interrupts only makes it slower: the fastest is the clock.
        best = best.min(nanoseconds(start.elapsed()));
    }
    std::hint::black_box(value);
    let ghz = f64::from(MULTIPLICATIONS) * 100.0 * CYCLES / best;
    ghz.is_finite().then_some(ghz)
}

/// Additions that do not wait for each other: how many a core does at once depends on who else uses it.
fn add() {
    // SAFETY: writes four registers that are declared as outputs; no memory, no stack, flags are declared clobbered.
    unsafe {
        asm!(
            "xor {a:e}, {a:e}", "xor {b:e}, {b:e}", "xor {c:e}, {c:e}", "xor {d:e}, {d:e}",
            ".rept 64", "inc {a}", "inc {b}", "inc {c}", "inc {d}", ".endr",
            a = out(reg) _, b = out(reg) _, c = out(reg) _, d = out(reg) _,
            options(nomem, nostack)
        );
    }
}

/// How much of the core is to be had just now: additions in a nanosecond. Another program on the core's other thread,
/// which no account of the kernel shows, takes about half of it. Takes some 15 µs.
#[must_use]
pub fn core_room() -> f64 {
    const CALLS: u32 = 300;
    let start = Instant::now();
    for _ in 0..CALLS {
        add();
    }
    f64::from(CALLS * 256) / nanoseconds(start.elapsed()).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coarse_clock_does_not_resolve_short_samples() {
        let clock = Clock { source: None, cost: 30.0, step: 10.0 };
        assert!(clock.resolves(Duration::from_micros(250)));
        assert!(!clock.resolves(Duration::from_micros(1)));
        let coarse = Clock { cost: 900.0, step: 4e6, ..clock };
        assert!(!coarse.resolves(Duration::from_micros(250)));
    }

    #[test]
    fn this_machine_has_a_clock() {
        let clock = Clock::look();
        assert!(clock.cost > 0.0 && clock.step > 0.0);
        assert!(core_ghz().is_some_and(|ghz| ghz > 0.0));
        assert!(core_room() > 0.0);
    }
}
