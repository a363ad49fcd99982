//! Places as the tables write them: `1.EDX[22]`, `7.0.EBX[16]`, `MSR 10A[1]`; without `[bit]`, a register.

use cpusieve_model::{Register, has_subleaves};

use crate::Result;

/// A register that features live in, read out of a table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Word {
    Cpuid { leaf: u32, subleaf: u32, register: Register },
    Msr { index: u32 },
}

/// A bit of such a register. Sorts as `cpusieve_model::Place` does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bit {
    pub(crate) word: Word,
    pub(crate) bit: u8,
}

impl Word {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = || format!("`{text}` is no register: expected `1.EDX`, `7.0.EBX` or `MSR 10A`");
        if let Some(index) = text.strip_prefix("MSR ") {
            return Ok(Self::Msr { index: u32::from_str_radix(index, 16).map_err(|_| wrong())? });
        }
        let parts: Vec<&str> = text.split('.').collect();
        let (leaf, subleaf, register) = match parts[..] {
            [leaf, register] => (leaf, None, register),
            [leaf, subleaf, register] => (leaf, Some(subleaf), register),
            _ => return Err(wrong().into()),
        };
        let leaf = u32::from_str_radix(leaf, 16).map_err(|_| wrong())?;
        if has_subleaves(leaf) != subleaf.is_some() {
            return Err(format!(
                "`{text}`: leaf {leaf:X} wants {} subleaf",
                if subleaf.is_some() { "no" } else { "a" }
            )
            .into());
        }
        let subleaf = u32::from_str_radix(subleaf.unwrap_or("0"), 16).map_err(|_| wrong())?;
        let register = Register::from_name(register).ok_or_else(wrong)?;
        Ok(Self::Cpuid { leaf, subleaf, register })
    }

    /// The expression of a `qemu::Word`.
    pub(crate) fn expression(self) -> String {
        match self {
            Self::Cpuid { leaf, subleaf, register } => {
                let register = register_expression(register);
                format!("Word::Cpuid {{ leaf: {leaf:#x}, subleaf: {subleaf:#x}, register: {register} }}")
            }
            Self::Msr { index } => format!("Word::Msr {{ index: {index:#x} }}"),
        }
    }
}

impl Bit {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = || format!("`{text}` is no bit: expected `1.EDX[22]`, `7.0.EBX[16]` or `MSR 10A[1]`");
        let (word, bit) = text.strip_suffix(']').and_then(|text| text.split_once('[')).ok_or_else(wrong)?;
        let word = Word::parse(word)?;
        let bit = bit.parse().map_err(|_| wrong())?;
        let width = if matches!(word, Word::Msr { .. }) { 64 } else { 32 };
        if bit >= width {
            return Err(wrong().into());
        }
        Ok(Self { word, bit })
    }

    /// The expression of a `cpusieve_model::Place`.
    pub(crate) fn expression(self) -> String {
        let bit = self.bit;
        match self.word {
            Word::Cpuid { leaf, subleaf, register } => {
                format!(
                    "Place::Cpuid(CpuidBit::new({leaf:#x}, {subleaf:#x}, {}, {bit}))",
                    register_expression(register)
                )
            }
            Word::Msr { index } => format!("Place::Msr(MsrBit {{ index: {index:#x}, bit: {bit} }})"),
        }
    }
}

fn register_expression(register: Register) -> &'static str {
    match register {
        Register::Eax => "Register::Eax",
        Register::Ebx => "Register::Ebx",
        Register::Ecx => "Register::Ecx",
        Register::Edx => "Register::Edx",
    }
}
