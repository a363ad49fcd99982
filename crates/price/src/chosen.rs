//! What programs that others wrote make of the flags: which levels of x86-64 the dynamic linker of glibc takes libraries
//! from, which capabilities OpenSSL works with, and what the same work costs them when they are told not to use a feature.
//!
//! Both are predicted from CPUID and then asked; that they agree says that this program reads the flags as others do.
//! Both can be told to overlook features (`GLIBC_TUNABLES`, `OPENSSL_ia32cap`), which prices a feature by somebody else's code.
//! What is not installed is left out with the reason.

mod ask;
pub mod glibc;
pub mod openssl;
pub mod trial;

use crate::flags::Flags;

/// What was found; every part may be missing, with the reason.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The dynamic linker.
    pub glibc: Result<glibc::Linker, String>,
    /// OpenSSL.
    pub openssl: Result<openssl::Capabilities, String>,
}

/// Asks the programs of this machine. `flags` are those of a CPU of this machine.
#[must_use]
pub fn look(flags: &Flags) -> Chosen {
    Chosen { glibc: glibc::ask(flags), openssl: openssl::ask(flags) }
}
