//! The kernel's C arrays: words, power flags, scattered bits, dependencies, leaves that features need.

use cpusieve_model::{CpuidBit, Register};

use super::{Dependency, Level, ReadError, Scattered, Word, text};
use crate::SourceTree;
use crate::c::{self, Piece};

const CPUFEATURE: &str = "arch/x86/include/asm/cpufeature.h";
const POWERFLAGS: &str = "arch/x86/kernel/cpu/powerflags.c";
const SCATTERED: &str = "arch/x86/kernel/cpu/scattered.c";
const CPUID_DEPS: &str = "arch/x86/kernel/cpu/cpuid-deps.c";
const COMMON: &str = "arch/x86/kernel/cpu/common.c";
/// Whose code copies registers into capability words.
const FILLERS: [&str; 4] =
    [COMMON, "arch/x86/kernel/cpu/centaur.c", "arch/x86/kernel/cpu/transmeta.c", "arch/x86/kernel/cpu/zhaoxin.c"];
/// What is added to the name of a word that nobody fills.
const UNFILLED: &str = "_UNFILLED";
/// Where `CPUID_LEAF_*` are defined, by release.
const LEAF_NAMES: [&str; 2] = ["arch/x86/include/asm/cpuid/types.h", "arch/x86/include/asm/cpuid.h"];

const FEATURE: &str = "X86_FEATURE_";

/// `enum cpuid_leafs`: one name a word, up to `NR_CPUID_WORDS` where there is one.
///
/// A word that has the name of a register but that nothing fills from it holds only what the kernel itself sets: a
/// backport to 5.10.y added `CPUID_8000_0021_ECX` for KVM's sake and left `get_cpu_cap` as it was.
pub(super) fn words(tree: &dyn SourceTree) -> Result<Vec<Word>, ReadError> {
    let mut words = Vec::new();
    let fillers: Vec<String> =
        FILLERS.iter().filter_map(|file| tree.read(file)).map(|text| c::without_comments(&text)).collect();
    let code = |part: &str| fillers.iter().any(|code| code.contains(part));
    // A tree that says it in another way is believed.
    let by_name = code("x86_capability[CPUID_");
    let filled = |name: &str| !by_name || code(&format!("x86_capability[{name}]"));
    for piece in list(tree, CPUFEATURE, "enum cpuid_leafs")? {
        let name = piece.text.split('=').next().unwrap_or("").trim();
        if name == "NR_CPUID_WORDS" {
            break;
        }
        let index = u8::try_from(words.len()).ok().filter(|_| name.starts_with("CPUID_"));
        let index = index.ok_or_else(|| unexpected(CPUFEATURE, &piece, "a name such as CPUID_7_ECX"))?;
        let mut word = Word { index, name: name.to_owned() };
        if word.source().is_some() && !filled(name) {
            word.name.push_str(UNFILLED);
        }
        words.push(word);
    }
    Ok(words)
}

/// `x86_power_flags`: one string a bit.
pub(super) fn power_flags(tree: &dyn SourceTree) -> Result<Vec<String>, ReadError> {
    let name = |piece: &Piece| {
        let name = piece.text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        name.map(str::to_owned).ok_or_else(|| unexpected(POWERFLAGS, piece, "a string"))
    };
    list(tree, POWERFLAGS, "x86_power_flags[32] =")?.iter().map(name).collect()
}

/// `cpuid_bits`: feature, register, bit, leaf, subleaf.
pub(super) fn scattered(tree: &dyn SourceTree) -> Result<Vec<Scattered>, ReadError> {
    let leaves = LeafNames::read(tree);
    let mut all = Vec::new();
    for piece in rows(tree, SCATTERED, "cpuid_bits[] =")? {
        let read = || {
            let [feature, register, bit, leaf, subleaf] = c::fields(&piece.text)?[..] else { return None };
            let register = Register::from_name(register.strip_prefix("CPUID_")?)?;
            let bit = u8::try_from(c::number(bit)?).ok().filter(|&bit| bit < 32)?;
            let place = CpuidBit::new(leaves.value(leaf)?, c::number(subleaf)?, register, bit);
            Some(Scattered { macro_name: feature.strip_prefix(FEATURE)?.to_owned(), place })
        };
        all.push(read().ok_or_else(|| unexpected(SCATTERED, &piece, "{ feature, register, bit, leaf, subleaf }"))?);
    }
    Ok(all)
}

/// `cpuid_deps`: feature, and what it needs.
pub(super) fn dependencies(tree: &dyn SourceTree) -> Result<Vec<Dependency>, ReadError> {
    let mut all = Vec::new();
    for piece in rows(tree, CPUID_DEPS, "cpuid_deps[] =")? {
        let read = || {
            let [feature, needs] = c::fields(&piece.text)?[..] else { return None };
            let name = |text: &str| text.strip_prefix(FEATURE).map(str::to_owned);
            Some(Dependency { feature: name(feature)?, needs: name(needs)? })
        };
        all.push(read().ok_or_else(|| unexpected(CPUID_DEPS, &piece, "{ feature, feature }"))?);
    }
    Ok(all)
}

/// `cpuid_dependent_features`: feature, and the leaf it needs.
pub(super) fn levels(tree: &dyn SourceTree) -> Result<Vec<Level>, ReadError> {
    let leaves = LeafNames::read(tree);
    let mut all = Vec::new();
    for piece in rows(tree, COMMON, "cpuid_dependent_features[] =")? {
        let read = || {
            let [feature, leaf] = c::fields(&piece.text)?[..] else { return None };
            Some(Level { feature: feature.strip_prefix(FEATURE)?.to_owned(), leaf: leaves.value(leaf)? })
        };
        all.push(read().ok_or_else(|| unexpected(COMMON, &piece, "{ feature, leaf }"))?);
    }
    Ok(all)
}

/// Numbers that stand under a name in arrays from 6.15 on.
struct LeafNames(Vec<(String, u32)>);

impl LeafNames {
    fn read(tree: &dyn SourceTree) -> Self {
        let mut names = Vec::new();
        for text in LEAF_NAMES.iter().filter_map(|file| tree.read(file)) {
            let code = c::without_comments(&text);
            let named = |line| c::define(line).and_then(|(name, value)| Some((name.to_owned(), c::number(value)?)));
            names.extend(code.lines().filter_map(named));
        }
        Self(names)
    }

    fn value(&self, text: &str) -> Option<u32> {
        c::number(text).or_else(|| self.0.iter().find(|(name, _)| name == text).map(|&(_, value)| value))
    }
}

fn list(tree: &dyn SourceTree, file: &'static str, head: &str) -> Result<Vec<Piece>, ReadError> {
    let code = c::without_comments(&text(tree, file)?);
    c::braced_list(&code, head).ok_or_else(|| ReadError::NotFound { file, expected: format!("`{head}` and its list") })
}

/// The rows of an array of structures, up to the row of zeros that ends it.
fn rows(tree: &dyn SourceTree, file: &'static str, head: &str) -> Result<Vec<Piece>, ReadError> {
    let mut rows = list(tree, file, head)?;
    let ends = |piece: &Piece| c::fields(&piece.text).is_some_and(|fields| fields.iter().all(|&field| field == "0"));
    if let Some(end) = rows.iter().position(ends) {
        rows.truncate(end);
    }
    Ok(rows)
}

fn unexpected(file: &'static str, piece: &Piece, expected: &'static str) -> ReadError {
    let found = piece.text.split_whitespace().collect::<Vec<_>>().join(" ");
    ReadError::Unexpected { file, line: piece.line, expected, found }
}
