//! The Linux stage: which kernel it is, what it makes of CPUID, what it prints.

pub mod boot;
pub mod booted;
pub mod conditions;
pub mod kernel;
pub mod kinds;
pub mod setup;
