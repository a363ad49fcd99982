//! Where a feature lives: a bit of CPUID, a bit of an MSR, or a bit that Linux made up.

use std::cmp::Ordering;
use std::fmt::{self, Write as _};

use crate::{Register, digits, has_subleaves};

/// A bit of CPUID output.
///
/// Displays as in Intel's manual, `CPUID.01H:EDX[22]` or `CPUID.(EAX=07H,ECX=0):EBX[16]`; with `{:#}` in the short
/// form `1.EDX[22]`, `7.0.EBX[16]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CpuidBit {
    /// EAX on input.
    pub leaf: u32,
    /// ECX on input; 0 for leaves that do not look at it.
    pub subleaf: u32,
    /// The output register.
    pub register: Register,
    /// The bit, 0 to 31.
    pub bit: u8,
}

impl CpuidBit {
    /// The bit `bit` (0 to 31) of a register of a leaf and subleaf.
    #[must_use]
    pub const fn new(leaf: u32, subleaf: u32, register: Register, bit: u8) -> Self {
        Self { leaf, subleaf, register, bit }
    }
}

impl Ord for CpuidBit {
    /// By leaf, subleaf, register and bit: as two numbers, for tables are searched by it all the time.
    fn cmp(&self, other: &Self) -> Ordering {
        let entry = |place: &Self| u64::from(place.leaf) << 32 | u64::from(place.subleaf);
        let bit = |place: &Self| u16::from(place.register as u8) << 8 | u16::from(place.bit);
        entry(self).cmp(&entry(other)).then_with(|| bit(self).cmp(&bit(other)))
    }
}

impl PartialOrd for CpuidBit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl CpuidBit {
    /// Writes it as the manual does.
    fn write(self, to: &mut impl fmt::Write) -> fmt::Result {
        let indexed = has_subleaves(self.leaf);
        to.write_str(if indexed { "CPUID.(EAX=" } else { "CPUID." })?;
        digits::hex(to, self.leaf.into(), 2)?;
        if indexed {
            to.write_str("H,ECX=")?;
            digits::hex(to, self.subleaf.into(), 1)?;
            to.write_str("):")?;
        } else {
            to.write_str("H:")?;
        }
        to.write_str(self.register.name())?;
        digits::in_brackets(to, self.bit)
    }

    /// Writes the short form: `1.EDX[22]`, `7.0.EBX[16]`.
    fn write_short(self, to: &mut impl fmt::Write) -> fmt::Result {
        self.write_register(to)?;
        digits::in_brackets(to, self.bit)
    }

    /// Writes the short form of its register: `1.EDX`, `7.0.EBX`.
    pub(crate) fn write_register(self, to: &mut impl fmt::Write) -> fmt::Result {
        digits::hex(to, self.leaf.into(), 1)?;
        if has_subleaves(self.leaf) {
            to.write_char('.')?;
            digits::hex(to, self.subleaf.into(), 1)?;
        }
        to.write_char('.')?;
        to.write_str(self.register.name())
    }
}

impl fmt::Display for CpuidBit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() { self.write_short(f) } else { self.write(f) }
    }
}

/// A bit of a model-specific register. Displays as `MSR 10AH[1]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MsrBit {
    /// The MSR's index (ECX of RDMSR).
    pub index: u32,
    /// The bit, 0 to 63.
    pub bit: u8,
}

impl MsrBit {
    /// Writes it as the manual does.
    fn write(self, to: &mut impl fmt::Write) -> fmt::Result {
        to.write_str("MSR ")?;
        digits::hex(to, self.index.into(), 1)?;
        to.write_char('H')?;
        digits::in_brackets(to, self.bit)
    }
}

impl fmt::Display for MsrBit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f)
    }
}

/// The name of an MSR, as the manuals write its number: `MSR 10AH`.
#[must_use]
pub fn msr_name(index: u32) -> String {
    let mut text = String::with_capacity(16);
    text.push_str("MSR ");
    // A text takes everything.
    let _ = digits::hex(&mut text, index.into(), 1);
    text.push('H');
    text
}

/// A bit of a capability word that only Linux fills, as `cpufeatures.h` writes it: `3*32+24`.
///
/// Words and bits differ between kernel releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinuxBit {
    /// The index into `x86_capability`.
    pub word: u8,
    /// The bit, 0 to 31.
    pub bit: u8,
}

impl fmt::Display for LinuxBit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Linux {}*32+{}", self.word, self.bit)
    }
}

/// Where a feature lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A bit that CPUID returns.
    Cpuid(CpuidBit),
    /// A bit of an MSR.
    Msr(MsrBit),
    /// A flag that Linux invents: no instruction returns it.
    Linux(LinuxBit),
}

impl Place {
    /// The CPUID bit, if it is one.
    #[must_use]
    pub const fn cpuid(self) -> Option<CpuidBit> {
        match self {
            Self::Cpuid(bit) => Some(bit),
            Self::Msr(_) | Self::Linux(_) => None,
        }
    }

    /// The short form, as it displays with `{:#}`.
    #[must_use]
    pub fn short(self) -> String {
        let mut text = String::with_capacity(24);
        // A text takes everything.
        let _ = match self {
            Self::Cpuid(bit) => bit.write_short(&mut text),
            Self::Msr(bit) => bit.write(&mut text),
            Self::Linux(bit) => write!(text, "{bit}"),
        };
        text
    }

    /// Adds it to a text, as it displays. Explanations name thousands of places, and a formatter would take longer than
    /// what they explain.
    pub fn append_to(self, text: &mut String) {
        // A text takes everything.
        let _ = match self {
            Self::Cpuid(bit) => bit.write(text),
            Self::Msr(bit) => bit.write(text),
            Self::Linux(bit) => write!(text, "{bit}"),
        };
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpuid(bit) => bit.fmt(f),
            Self::Msr(bit) => bit.fmt(f),
            Self::Linux(bit) => bit.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_print_as_the_manuals_do() {
        let acpi = CpuidBit::new(1, 0, Register::Edx, 22);
        let avx512f = CpuidBit::new(7, 0, Register::Ebx, 16);
        let invtsc = CpuidBit::new(0x8000_0007, 0, Register::Edx, 8);
        assert_eq!(acpi.to_string(), "CPUID.01H:EDX[22]");
        assert_eq!(format!("{acpi:#}"), "1.EDX[22]");
        assert_eq!(avx512f.to_string(), "CPUID.(EAX=07H,ECX=0):EBX[16]");
        assert_eq!(format!("{:#}", Place::Cpuid(avx512f)), "7.0.EBX[16]");
        assert_eq!(invtsc.to_string(), "CPUID.80000007H:EDX[8]");
        assert_eq!(Place::Msr(MsrBit { index: 0x10a, bit: 1 }).to_string(), "MSR 10AH[1]");
        assert_eq!(Place::Linux(LinuxBit { word: 3, bit: 24 }).to_string(), "Linux 3*32+24");
        assert_eq!(msr_name(0xc001_0015), "MSR C0010015H");
    }

    #[test]
    fn bits_stand_in_the_order_of_leaf_subleaf_register_and_bit() {
        let sorted = [
            CpuidBit::new(1, 0, Register::Ecx, 31),
            CpuidBit::new(1, 0, Register::Edx, 0),
            CpuidBit::new(1, 0, Register::Edx, 22),
            CpuidBit::new(7, 0, Register::Ebx, 5),
            CpuidBit::new(7, 1, Register::Eax, 0),
            CpuidBit::new(0x8000_0001, 0, Register::Eax, 0),
        ];
        assert!(sorted.is_sorted());
        let fields = |bit: &CpuidBit| (bit.leaf, bit.subleaf, bit.register, bit.bit);
        for (one, other) in sorted.iter().flat_map(|one| sorted.iter().map(move |other| (one, other))) {
            assert_eq!(one.cmp(other), fields(one).cmp(&fields(other)));
        }
    }

    #[test]
    fn what_is_added_to_a_text_is_what_displays() {
        let bits = [CpuidBit::new(1, 0, Register::Edx, 22), CpuidBit::new(0x8000_0026, 0xa5, Register::Ecx, 7)];
        let others = [Place::Msr(MsrBit { index: 0xc001_0015, bit: 63 }), Place::Linux(LinuxBit { word: 3, bit: 24 })];
        for place in bits.map(Place::Cpuid).into_iter().chain(others) {
            let mut text = "at ".to_owned();
            place.append_to(&mut text);
            assert_eq!(text, format!("at {place}"));
            assert_eq!(place.short(), format!("{place:#}"));
        }
    }
}
