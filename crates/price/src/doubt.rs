//! What may be wrong with a measurement: printed under the numbers, never left out.

use std::fmt;

/// A reason to doubt a measurement.
#[derive(Clone, Debug, PartialEq)]
pub enum Doubt {
    /// The core's clock was not the same all the time: the slowest and the fastest tenth, in GHz.
    ClockMoved {
        /// The slowest tenth.
        low: f64,
        /// The fastest tenth.
        high: f64,
    },
    /// A sample is not much longer than what the clock can tell.
    CoarseClock {
        /// The clock's source, if it is known.
        source: Option<String>,
        /// Its step, in nanoseconds.
        step: f64,
    },
    /// Other programs took the CPU in this share of the blocks (0 to 1), which were dropped.
    Preempted(f64),
    /// Somebody else used the core in this share of the visits (0 to 1), by its room; they were left out where enough others
    /// were there.
    SharedCore(f64),
    /// There is one CPU alone: whatever else runs here runs in between.
    OneCpu,
    /// The hypervisor ran others on this CPU for this share of the time (0 to 1), by the kernel's account.
    Stolen(f64),
    /// A hypervisor stands below: what it does is not seen from here.
    Guest(String),
    /// Core types differ on this CPU; this one was measured.
    Hybrid {
        /// The CPU on which it ran.
        cpu: u32,
    },
    /// The time was up before these works had samples enough, or narrow intervals.
    Wide(Vec<&'static str>),
    /// The code was built without optimisation.
    Unoptimised,
}

impl Doubt {
    /// The name in JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::ClockMoved { .. } => "clock-moved",
            Self::CoarseClock { .. } => "coarse-clock",
            Self::Preempted(_) => "preempted",
            Self::SharedCore(_) => "shared-core",
            Self::OneCpu => "one-cpu",
            Self::Stolen(_) => "stolen",
            Self::Guest(_) => "guest",
            Self::Hybrid { .. } => "hybrid",
            Self::Wide(_) => "wide",
            Self::Unoptimised => "unoptimised",
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClockMoved { low, high } => {
                write!(f, "the core's clock moved between {low:.2} and {high:.2} GHz; ratios suffer less than rates")
            }
            Self::CoarseClock { source, step } => {
                let source = source.as_deref().unwrap_or("of unknown source");
                write!(f, "the clock ({source}) moves in steps of {step:.0} ns: short samples are rough")
            }
            Self::Preempted(share) => {
                write!(f, "other programs took the CPU in {:.0} % of the blocks, which were dropped", share * 100.0)
            }
            Self::SharedCore(share) => {
                write!(
                    f,
                    "somebody else used the core, likely its other thread, in {:.0} % of the visits",
                    share * 100.0
                )
            }
            Self::OneCpu => f.write_str("there is one CPU alone: whatever else runs here runs in between"),
            Self::Stolen(share) => {
                write!(f, "the hypervisor gave this CPU to others for {:.1} % of the time", share * 100.0)
            }
            Self::Guest(hypervisor) => {
                write!(f, "this is a guest of {hypervisor}: what its neighbours do is not seen from here")
            }
            Self::Hybrid { cpu } => write!(f, "cores differ on this machine: these numbers are CPU {cpu}'s"),
            Self::Wide(rows) => {
                write!(f, "the time was up before these had six samples and were within 2 %: {}", rows.join(", "))
            }
            Self::Unoptimised => f.write_str("built without optimisation: these numbers say nothing"),
        }
    }
}
