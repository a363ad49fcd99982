//! Capabilities, names, dependencies, read out of `arch/x86/`.
