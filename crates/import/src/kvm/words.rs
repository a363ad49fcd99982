//! Where features live: KVM's capability words, and the macros that name their bits.

use std::collections::{BTreeMap, BTreeSet};

use cpusieve_model::{CpuidBit, Register};

use super::statements::closing;
use super::{File, KvmError};
use crate::{SourceTree, c};

/// KVM's capability words, by name, and the macros.
pub(super) struct Words {
    /// `reverse_cpuid[]`: the leaf, subleaf and register of a word.
    registers: BTreeMap<String, WordRegister>,
    /// The words that Linux has too, in Linux' order.
    linux: Vec<String>,
    /// `X86_FEATURE_*` of Linux: word and bit.
    features: BTreeMap<String, (String, u8)>,
    /// `KVM_X86_FEATURE_*`, and `X86_FEATURE_*` that only KVM knows: word and bit.
    kvm: BTreeMap<String, (String, u8)>,
}

/// The leaf, subleaf and register whose bits a word holds.
type WordRegister = (u32, u32, Register);

/// The names of bits that code writes as numbers, as later releases call them (`cpufeatures.h` of 6.3 and later).
const NAMED_LATER: [(u32, Register, u8, &str); 4] = [
    (0x8000_0021, Register::Eax, 0, "NO_NESTED_DATA_BP"),
    (0x8000_0021, Register::Eax, 2, "LFENCE_RDTSC"),
    (0x8000_0021, Register::Eax, 6, "NULL_SEL_CLR_BASE"),
    (0x8000_0021, Register::Eax, 9, "NO_SMM_CTL_MSR"),
];

impl Words {
    pub(super) fn read(tree: &dyn SourceTree) -> Result<Self, KvmError> {
        let leafs = File::read(tree, &["arch/x86/include/asm/cpufeature.h"])?;
        let features = File::read(tree, &["arch/x86/include/asm/cpufeatures.h"])?;
        let own = File::read(tree, &["arch/x86/kvm/cpuid.h"])?;
        let reverse = File::read(tree, &["arch/x86/kvm/reverse_cpuid.h"]).ok();
        let cpuid = File::read(tree, &["arch/x86/kvm/cpuid.c"])?;
        let linux = linux_words(&leafs)?;
        let mut words = Self { registers: BTreeMap::new(), linux, features: BTreeMap::new(), kvm: BTreeMap::new() };
        for file in [Some(&own), reverse.as_ref(), Some(&cpuid)].into_iter().flatten() {
            words.registers.extend(registers(file)?);
            for (name, word, bit) in definitions(file) {
                if let Some(word) = words.word(&word) {
                    words.kvm.insert(name.trim_start_matches("KVM_").to_owned(), (word, bit));
                }
            }
        }
        if words.registers.is_empty() {
            return Err(own.unexpected(0, "expected the table reverse_cpuid[]".to_owned()));
        }
        for (name, word, bit) in definitions(&features) {
            if let Some(word) = words.word(&word) {
                words.features.insert(name, (word, bit));
            }
        }
        Ok(words)
    }

    /// The name of a word that is given by name or by number.
    fn word(&self, word: &str) -> Option<String> {
        match word.parse::<usize>() {
            Ok(number) => self.linux.get(number).cloned(),
            Err(_) => Some(word.to_owned()),
        }
    }

    /// The place of bit `bit` of a word, if the word is a CPUID register.
    pub(super) fn place(&self, word: &str, bit: u8) -> Option<CpuidBit> {
        let &(leaf, subleaf, register) = self.registers.get(word)?;
        Some(CpuidBit::new(leaf, subleaf, register, bit))
    }

    /// The word and bit that KVM uses for a macro without `X86_FEATURE_`.
    pub(super) fn find(&self, macro_name: &str) -> Option<(&str, u8)> {
        let key = format!("X86_FEATURE_{macro_name}");
        let (word, bit) = self.kvm.get(&key).or_else(|| self.features.get(&key))?;
        Some((word, *bit))
    }

    /// The place that KVM uses for a macro without `X86_FEATURE_`.
    pub(super) fn place_of(&self, macro_name: &str) -> Option<CpuidBit> {
        let (word, bit) = self.find(macro_name)?;
        self.place(word, bit)
    }

    /// The macros of Linux in a word, without `X86_FEATURE_`, and their bits.
    pub(super) fn linux_features(&self, word: &str) -> impl Iterator<Item = (String, u8)> {
        let of_word = self.features.iter().filter(move |(_, (own, _))| own == word);
        of_word.map(|(name, (_, bit))| (name.trim_start_matches("X86_FEATURE_").to_owned(), *bit))
    }

    /// Whether Linux has a word of this name, so that the host kernel's capabilities have a say.
    pub(super) fn in_linux(&self, word: &str) -> bool {
        self.linux.iter().any(|linux| linux == word)
    }

    /// The macro, without `X86_FEATURE_`, of a place that code writes as a number.
    pub(super) fn macro_at(&self, place: CpuidBit) -> Option<String> {
        let later = NAMED_LATER
            .iter()
            .find(|(leaf, register, bit, _)| (*leaf, *register, *bit) == (place.leaf, place.register, place.bit))
            .map(|(.., name)| (*name).to_owned());
        later.or_else(|| {
            let mut all = self.features.iter().chain(&self.kvm);
            let found = all.find(|(_, (word, bit))| self.place(word, *bit) == Some(place));
            found.map(|(name, _)| name.trim_start_matches("X86_FEATURE_").to_owned())
        })
    }
}

/// `enum cpuid_leafs`: the kernel's capability words in order.
fn linux_words(file: &File) -> Result<Vec<String>, KvmError> {
    let missing = || file.unexpected(0, "expected enum cpuid_leafs".to_owned());
    let start = file.code.find("enum cpuid_leafs").ok_or_else(missing)?;
    let rest = file.code.get(start..).unwrap_or("");
    let open = rest.find('{').ok_or_else(missing)?;
    let close = closing(rest, open).ok_or_else(missing)?;
    let names = rest.get(open + 1..close).unwrap_or("").split(',');
    let names = names.map(|name| name.split('=').next().unwrap_or("").trim().to_owned());
    Ok(names.filter(|name| !name.is_empty()).collect())
}

/// `reverse_cpuid[]`: rows `[WORD] = { leaf, subleaf, CPUID_EDX }`. None if the file does not have it.
fn registers(file: &File) -> Result<Vec<(String, WordRegister)>, KvmError> {
    let Some(start) = file.code.find("reverse_cpuid[] =") else { return Ok(Vec::new()) };
    let rest = file.code.get(start + "reverse_cpuid[]".len()..).unwrap_or("");
    let bad = |what: &str| {
        file.unexpected(
            0,
            format!("reverse_cpuid[]: expected `[WORD] = {{ leaf, subleaf, register }}`, found `{what}`"),
        )
    };
    let open = rest.find('{').ok_or_else(|| bad(""))?;
    let close = closing(rest, open).ok_or_else(|| bad(""))?;
    let mut found = Vec::new();
    for row in rest.get(open + 1..close).unwrap_or("").split('[').skip(1) {
        let (word, row) = row.split_once(']').ok_or_else(|| bad(row))?;
        let cells: Vec<&str> =
            row.trim_matches(|c: char| !c.is_ascii_alphanumeric()).split(',').map(str::trim).collect();
        let [leaf, subleaf, register] = cells[..] else { return Err(bad(row)) };
        let register = register.strip_prefix("CPUID_").and_then(Register::from_name).ok_or_else(|| bad(row))?;
        let leaf = number(leaf).ok_or_else(|| bad(row))?;
        let subleaf = number(subleaf).ok_or_else(|| bad(row))?;
        found.push((word.to_owned(), (leaf, subleaf, register)));
    }
    Ok(found)
}

/// The `#define`s of feature macros: name, word (by name or number) and bit.
fn definitions(file: &File) -> Vec<(String, String, u8)> {
    let mut seen = BTreeSet::new();
    let lines = file.code.lines().filter_map(|line| {
        let (name, value) = c::define(line)?;
        if !(name.starts_with("X86_FEATURE_") || name.starts_with("KVM_X86_FEATURE_")) {
            return None;
        }
        let value = value.trim();
        let (word, bit) = match value.strip_prefix("KVM_X86_FEATURE(") {
            Some(inside) => inside.strip_suffix(')')?.split_once(',')?,
            None => {
                let (word, bit) = value.strip_prefix('(')?.strip_suffix(')')?.split_once('+')?;
                (word.trim().strip_suffix("32")?.trim().strip_suffix('*')?, bit)
            }
        };
        let bit = bit.trim().parse().ok().filter(|bit| *bit < 32)?;
        Some((name.to_owned(), word.trim().to_owned(), bit))
    });
    // A name that is defined twice keeps its first place, as the preprocessor would complain about the second.
    lines.filter(|(name, ..)| seen.insert(name.clone())).collect()
}

/// A C integer, with or without a suffix and a cast.
pub(super) fn number(text: &str) -> Option<u32> {
    c::number(text.trim().trim_start_matches("(u32)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_c() {
        assert_eq!(number("0x1fU"), Some(0x1f));
        assert_eq!(number("(u32)0xd"), Some(0xd));
        assert_eq!(number(" 2u"), Some(2));
        assert_eq!(number("x"), None);
    }
}
