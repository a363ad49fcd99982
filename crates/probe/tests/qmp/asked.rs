//! What the recorded QEMUs were asked.

/// Without hardware, so that every machine's QEMU of the same release says the same.
pub(crate) const ACCELERATOR: &str = "tcg";

/// Models that are expanded: an alias with a deprecated spelling, and the one that depends on the accelerator alone.
pub(crate) const MODELS: [&str; 2] = ["SandyBridge-IBRS", "max"];

/// A machine that all have.
pub(crate) const MACHINE: &str = "pc";

/// A CPU of which every TCG lacks something.
pub(crate) const CPU: &str = "Haswell,+x2apic";
