//! Which features a program may use here: CPUID and, for state that the kernel must save, XCR0.

use std::arch::asm;

use cpusieve_knowledge::x86;
use cpusieve_model::{CpuidTable, Place, Register, State};

/// What the CPU offers programs.
#[derive(Clone, Debug)]
pub struct Flags {
    cpuid: CpuidTable,
    /// The state components that the kernel has enabled; `None` if it has not enabled XSAVE.
    xcr0: Option<u64>,
}

/// State components that the flags with these beginnings need in XCR0: SSE, AVX, the three of AVX-512, those of AMX.
const STATES: [(&str, u64); 5] = [("avx512", 0xe6), ("avx10", 0xe6), ("avx", 0x6), ("amx", 0x60000), ("apx", 0x80000)];

/// Flags that need AVX's state and do not say so in their name.
const NEED_AVX: [&str; 5] = ["fma", "f16c", "vaes", "vpclmulqdq", "xop"];

impl Flags {
    /// Those of the CPU on which this thread runs.
    #[must_use]
    pub fn here() -> Self {
        let cpuid = cpusieve_probe::cpuid::enumerate_here().table;
        let osxsave = cpuid.get(1, 0).is_some_and(|leaf| leaf.ecx >> 27 & 1 == 1);
        Self { cpuid, xcr0: osxsave.then(xgetbv) }
    }

    /// Those of a CPU that is not here.
    #[must_use]
    pub fn of(cpuid: CpuidTable, xcr0: Option<u64>) -> Self {
        Self { cpuid, xcr0 }
    }

    /// The CPU's answers.
    #[must_use]
    pub fn cpuid(&self) -> &CpuidTable {
        &self.cpuid
    }

    /// XCR0: the state components that the kernel has enabled; `None` if it has not enabled XSAVE.
    #[must_use]
    pub fn xcr0(&self) -> Option<u64> {
        self.xcr0
    }

    /// What is known of the feature with this id. A bit in CPUID whose state the kernel has not enabled is absent.
    #[must_use]
    pub fn state(&self, id: &str) -> State {
        let Some(feature) = x86::feature(id) else { return State::Unknown };
        let mut found = State::Unknown;
        for place in feature.places {
            let Place::Cpuid(bit) = place else { continue };
            match self.cpuid.state(*bit) {
                State::Present if self.enabled(id) => return State::Present,
                State::Present => found = State::Absent,
                state if found == State::Unknown => found = state,
                _ => {}
            }
        }
        found
    }

    /// Whether a program may use the feature.
    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        self.state(id) == State::Present
    }

    /// Those of `ids` that a program may not use.
    #[must_use]
    pub fn missing(&self, ids: &[&'static str]) -> Vec<&'static str> {
        ids.iter().copied().filter(|id| !self.has(id)).collect()
    }

    /// Whether CPUID has the feature and the kernel has not enabled its state.
    #[must_use]
    pub fn is_without_state(&self, id: &str) -> bool {
        !self.enabled(id) && Self { cpuid: self.cpuid.clone(), xcr0: Some(u64::MAX) }.has(id)
    }

    /// The state components that XSAVE would save, in bytes, for those that are enabled now: CPUID.0DH.0:EBX.
    #[must_use]
    pub fn xsave_bytes(&self) -> Option<u32> {
        self.cpuid.get(0xd, 0).map(|leaf| leaf.ebx).filter(|&bytes| bytes > 0)
    }

    fn enabled(&self, id: &str) -> bool {
        let by_name = STATES.iter().find(|(beginning, _)| id.starts_with(beginning)).map(|(_, mask)| *mask);
        let mask = by_name.or_else(|| NEED_AVX.contains(&id).then_some(0x6)).unwrap_or(0);
        self.xcr0.unwrap_or(0) & mask == mask
    }
}

/// Reads XCR0. To be called only where CPUID.1:ECX\[27\] (OSXSAVE) is set.
fn xgetbv() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: XGETBV with ECX = 0 is allowed in user mode wherever OSXSAVE is set, which the only caller has checked.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// The register and bit of a place in CPUID, for messages.
#[must_use]
pub fn place(id: &str) -> Option<(u32, u32, Register, u8)> {
    x86::feature(id)?.places.iter().find_map(|place| match place {
        Place::Cpuid(bit) => Some((bit.leaf, bit.subleaf, bit.register, bit.bit)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use cpusieve_model::Registers;

    use super::*;

    #[test]
    fn a_bit_without_its_state_is_absent() {
        let mut cpuid = CpuidTable::default();
        cpuid.insert(0, 0, Registers { eax: 7, ..Registers::default() });
        cpuid.insert(7, 0, Registers { ebx: 1 << 16 | 1 << 29, ..Registers::default() });
        let flags = Flags::of(cpuid.clone(), Some(7));
        assert_eq!(flags.state("avx512f"), State::Absent);
        assert!(flags.is_without_state("avx512f"));
        assert!(flags.has("sha_ni"));
        assert!(Flags::of(cpuid.clone(), Some(0xe7)).has("avx512f"));
        assert_eq!(Flags::of(cpuid, None).missing(&["sha_ni", "avx512f", "avx2"]), ["avx512f", "avx2"]);
    }
}
