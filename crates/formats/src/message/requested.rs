//! The places in QEMU's warnings, in the spelling of every release (`target/i386/cpu.c:feature_word_description`).

use cpusieve_model::Register;

/// What a warning asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requested {
    /// Where the bit is, as far as the line says.
    pub place: Where,
    /// QEMU's name of the bit.
    pub name: Option<String>,
    /// The bit.
    pub bit: Option<u8>,
}

/// Where a bit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// A register of CPUID. Releases before 10.1 do not tell the subleaf; shortened lines not even the leaf.
    Cpuid {
        /// EAX on input.
        leaf: Option<u32>,
        /// ECX on input.
        subleaf: Option<u32>,
        /// The output register.
        register: Register,
    },
    /// A model-specific register.
    Msr(u32),
}

/// Reads `CPUID.01H:ECX.pcid [bit 17]`, `CPUID[eax=07h,ecx=00h].EBX.avx512f [bit 16]`, `MSR(10AH).taa-no [bit 8]` and
/// what people leave of them, at the beginning of a text.
///
/// ```
/// use cpusieve_formats::message::{Where, requested};
///
/// let asked = requested(" CPUID.0DH:EAX [bit 2]").unwrap();
/// assert!(matches!(asked.place, Where::Cpuid { leaf: Some(0xd), subleaf: None, .. }));
/// assert_eq!((asked.name, asked.bit), (None, Some(2)));
/// assert!(requested("nothing").is_none());
/// ```
#[must_use]
pub fn requested(text: &str) -> Option<Requested> {
    let text = text.trim_start();
    let lower = text.get(..text.len().min(200)).unwrap_or(text).to_ascii_lowercase();
    let (place, rest) = if let Some(rest) = lower.strip_prefix("msr(") {
        let (index, rest) = hexadecimal(rest)?;
        (Where::Msr(index), rest.strip_prefix("h").unwrap_or(rest).strip_prefix(')')?)
    } else {
        cpuid(lower.strip_prefix("cpuid")?)?
    };
    let (name, rest) = match rest.strip_prefix('.') {
        Some(rest) => {
            let end =
                rest.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.')).unwrap_or(rest.len());
            let (name, rest) = rest.split_at(end);
            (Some(name.trim_end_matches('.').to_owned()).filter(|name| !name.is_empty()), rest)
        }
        None => (None, rest),
    };
    let bit = rest.trim_start().strip_prefix("[bit ").and_then(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        rest.get(..end)?.parse().ok().filter(|bit| *bit < 64)
    });
    (name.is_some() || bit.is_some()).then_some(Requested { place, name, bit })
}

fn cpuid(rest: &str) -> Option<(Where, &str)> {
    let (leaf, subleaf, rest) = if let Some(rest) = rest.strip_prefix("[eax=") {
        let (leaf, rest) = hexadecimal(rest)?;
        let rest = rest.strip_prefix('h').unwrap_or(rest);
        let (subleaf, rest) = match rest.strip_prefix(",ecx=").and_then(hexadecimal) {
            Some((subleaf, rest)) => (Some(subleaf), rest.strip_prefix('h').unwrap_or(rest)),
            None => (None, rest),
        };
        // The leaf's other subleaves have a line of their own in these releases.
        (Some(leaf), subleaf, rest.strip_prefix("].")?)
    } else {
        let rest = rest.trim_start_matches('.');
        match hexadecimal(rest)
            .and_then(|(leaf, rest)| Some((leaf, rest.strip_prefix("h:").or(rest.strip_prefix(':'))?)))
        {
            Some((leaf, rest)) => (Some(leaf), None, rest),
            None => (None, None, rest),
        }
    };
    let register = Register::from_name(&rest.get(..3)?.to_ascii_uppercase())?;
    Some((Where::Cpuid { leaf, subleaf, register }, rest.get(3..)?))
}

fn hexadecimal(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((u32::from_str_radix(digits, 16).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_release_is_read() {
        let place = |leaf, subleaf, register| Where::Cpuid { leaf, subleaf, register };
        for (text, where_, name, bit) in [
            ("CPUID.01H:ECX.pcid [bit 17]", place(Some(1), None, Register::Ecx), Some("pcid"), Some(17)),
            ("CPUID.07H:EBX [bit 4]", place(Some(7), None, Register::Ebx), None, Some(4)),
            (
                "CPUID.80000001H:EDX.rdtscp [bit 27]",
                place(Some(0x8000_0001), None, Register::Edx),
                Some("rdtscp"),
                Some(27),
            ),
            (
                "CPUID[eax=80000001h].ECX.svm [bit 2]",
                place(Some(0x8000_0001), None, Register::Ecx),
                Some("svm"),
                Some(2),
            ),
            (
                "CPUID[eax=07h,ecx=01h].EAX.avx-vnni [bit 4]",
                place(Some(7), Some(1), Register::Eax),
                Some("avx-vnni"),
                Some(4),
            ),
            ("CPUID[eax=0Dh,ecx=00h].EAX [bit 9]\"", place(Some(13), Some(0), Register::Eax), None, Some(9)),
            ("MSR(10AH).taa-no [bit 8]", Where::Msr(0x10a), Some("taa-no"), Some(8)),
            ("MSR(48BH) [bit 8]", Where::Msr(0x48b), None, Some(8)),
            ("CPUID...ECX.aes", place(None, None, Register::Ecx), Some("aes"), None),
            ("CPUID.01H:ECX.sse4.1|sse4_1 [bit 19]", place(Some(1), None, Register::Ecx), Some("sse4.1"), None),
        ] {
            let asked = requested(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((asked.place, asked.name.as_deref(), asked.bit), (where_, name, bit), "{text}");
        }
        for text in ["", "CPUID", "CPUID.01H:EFX.x [bit 1]", "MSR(zzH).x", "CPUID.01H:ECX", "CPUID.01H:ECX [bit 77]"] {
            assert_eq!(requested(text), None, "{text}");
        }
    }
}
