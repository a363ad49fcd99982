//! The lists of features, in all three shapes.

use cpusieve_model::{CpuidBit, Register};

use super::adjust::Found;
use super::leaves::leaf_of;
use super::statements::{Statement, Statements};
use super::words::number;
use super::{CapKind, KvmCap, KvmError, Source};

/// The words by which a list names a feature, and how it is then offered.
const NAMED: [(&str, CapKind); 12] = [
    ("F", CapKind::Plain),
    ("SF", CapKind::Scattered),
    ("SCATTERED_F", CapKind::Scattered),
    ("X86_64_F", CapKind::X86_64),
    ("EMULATED_F", CapKind::Emulated),
    ("SYNTHESIZED_F", CapKind::Synthesized),
    ("PASSTHROUGH_F", CapKind::Passthrough),
    ("ALIASED_1_EDX_F", CapKind::Alias1Edx),
    ("VENDOR_F", CapKind::Vendor),
    ("RUNTIME_F", CapKind::Runtime),
    ("feature_bit", CapKind::Plain),
    ("__feature_bit", CapKind::Plain),
];

/// One member of a list.
enum Member {
    /// `F(AVX2)`.
    Named { by: String, name: String },
    /// `BIT(6)`.
    Bit(u8),
    /// `f_nx`.
    Variable(String),
}

/// A local variable that holds a feature's bit under a condition: `unsigned f_nx = is_efer_nx() ? F(NX) : 0`.
#[derive(Debug)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) macro_name: String,
    pub(super) condition: Option<String>,
    /// Whether it is the bit that raw CPUID and the mask have (`entry->ecx & F(LA57)`).
    pub(super) from_raw: bool,
    only_64: bool,
}

/// The lists of 5.7 and later: calls of `kvm_cpu_cap_mask()`, `kvm_cpu_cap_init()` and their like.
pub(super) fn cap_lists(source: &Source) -> Result<Vec<KvmCap>, KvmError> {
    let statements = common_function(source)?;
    let variables = variables(&statements);
    let mut caps = Vec::new();
    for statement in &statements.list {
        let Some((call, arguments)) = statement.text.split_once('(') else { continue };
        if !call.starts_with("kvm_cpu_cap_init") && call != "kvm_cpu_cap_mask" {
            continue;
        }
        let arguments = arguments.trim_end_matches(')');
        let Some((word, list)) = arguments.split_once(',') else {
            return Err(source.cpuid.unexpected(statement.line, format!("{call}(): expected a word and a list")));
        };
        // trim_end_matches took the bracket of the last member too.
        let list = format!("{list})");
        caps.extend(members_of(source, statement, word.trim(), &list, &variables)?);
    }
    if caps.is_empty() {
        return Err(source.cpuid.unexpected(0, "no list of features".to_owned()));
    }
    caps.extend(invariant_tsc(source)?);
    let unlisted = unlisted(source, &statements)?;
    caps.extend(numbered(source, &unlisted)?);
    caps.extend(unlisted_words(source, &unlisted)?);
    Ok(caps)
}

/// A capability word that an answer is taken from although no list limits it: it is the kernel's own, as it was when the
/// module was loaded. Leaf 80000021H of 5.10.y.
struct Unlisted {
    word: String,
    leaf: u32,
    register: Register,
}

/// The words that `cpuid_entry_override()` reads and for which the lists have no call.
fn unlisted(source: &Source, lists: &Statements) -> Result<Vec<Unlisted>, KvmError> {
    let listed = |word: &str| {
        let own = [format!("({word},"), format!("({word})")];
        let masks = |text: &str| text.starts_with("kvm_cpu_cap_init") || text.starts_with("kvm_cpu_cap_mask");
        lists.list.iter().any(|list| masks(&list.text) && own.iter().any(|own| list.text.contains(own.as_str())))
    };
    let overrides = &source.answering()?.list;
    let words = overrides.iter().filter_map(|statement| {
        let word = statement.text.strip_prefix("cpuid_entry_override(entry, ")?.strip_suffix(')')?;
        let place = source.words.place(word, 0).filter(|_| source.words.in_linux(word) && !listed(word))?;
        Some(Unlisted { word: word.to_owned(), leaf: place.leaf, register: place.register })
    });
    Ok(words.collect())
}

/// The features of words without a list that no `entry->eax &= ...` limits either.
fn unlisted_words(source: &Source, unlisted: &[Unlisted]) -> Result<Vec<KvmCap>, KvmError> {
    let statements = source.answering()?;
    let limited = |word: &&Unlisted| {
        let change = format!("entry->{} &= BIT(", word.register.name().to_ascii_lowercase());
        statements.list.iter().any(|one| one.text.starts_with(&change) && leaf_of(one) == Some(word.leaf))
    };
    let mut caps = Vec::new();
    for word in unlisted.iter().filter(|word| !limited(word)) {
        for (macro_name, bit) in source.words.linux_features(&word.word) {
            caps.extend(cap_at(source, &word.word, bit, macro_name, CapKind::Synthesized, None));
        }
    }
    Ok(caps)
}

/// Bits that the function that answers leaves lets through by number: leaf 80000021H of 6.0, and of 5.10.y, where they
/// are the kernel's.
fn numbered(source: &Source, unlisted: &[Unlisted]) -> Result<Vec<KvmCap>, KvmError> {
    let mut caps = Vec::new();
    for statement in &source.answering()?.list {
        let Some((register, list)) =
            statement.text.strip_prefix("entry->").and_then(|text| text.split_once(" &= BIT("))
        else {
            continue;
        };
        let what = || source.cpuid.unexpected(statement.line, format!("expected bits of a register, found `{list}`"));
        let register = Register::from_name(register).ok_or_else(what)?;
        let leaf = leaf_of(statement).ok_or_else(what)?;
        for member in members(&format!("BIT({list}")) {
            let Member::Bit(bit) = member else { return Err(what()) };
            let place = CpuidBit::new(leaf, 0, register, bit);
            let macro_name = source.words.macro_at(place).ok_or_else(what)?;
            let kernels = unlisted.iter().any(|word| (word.leaf, word.register) == (leaf, register));
            let kind = if kernels { CapKind::Synthesized } else { CapKind::Raw };
            caps.push(KvmCap { place, macro_name, kind, condition: None });
        }
    }
    Ok(caps)
}

/// The function in which the common lists stand (5.7 and later).
pub(super) fn common_function(source: &Source) -> Result<Statements, KvmError> {
    let names = ["kvm_set_cpu_caps", "kvm_initialize_cpu_caps"];
    let found = names.iter().find_map(|name| source.cpuid.function(name).transpose());
    found.ok_or_else(|| source.cpuid.unexpected(0, format!("none of the functions {}", names.join(", "))))?
}

/// The constant masks before 5.7: `entry->ecx &= kvm_cpuid_1_ecx_x86_features; cpuid_mask(&entry->ecx, CPUID_1_ECX);`.
pub(super) fn const_masks(source: &Source) -> Result<Vec<KvmCap>, KvmError> {
    let mut caps = Vec::new();
    for function in const_functions(source)? {
        let variables = variables(&function);
        let lists: Vec<(&str, &str)> = function.list.iter().filter_map(|s| mask_definition(&s.text)).collect();
        for (index, mask) in function.list.iter().enumerate() {
            let Some((register, list)) = mask.text.split_once(" &= ") else { continue };
            let Some((_, members)) = lists.iter().find(|(name, _)| *name == list) else { continue };
            // 5.4 takes a copy of LA57 before the kernel has its say.
            let mut after = function.list.iter().skip(index + 1).filter(|next| !next.text.starts_with("f_"));
            let words = after.next().and_then(|next| next.text.strip_prefix("cpuid_mask(&")?.strip_suffix(')'));
            let word = words.and_then(|words| words.split_once(", ")).filter(|(changed, _)| *changed == register);
            let Some((_, word)) = word else {
                caps.extend(without_kernel(source, mask, list, members)?);
                continue;
            };
            caps.extend(members_of(source, mask, word, members, &variables)?);
        }
    }
    if caps.is_empty() {
        return Err(source.cpuid.unexpected(0, "no constant masks".to_owned()));
    }
    caps.extend(invariant_tsc(source)?);
    Ok(caps)
}

/// The features of a mask to which no `cpuid_mask()` is applied: the kernel has no say. Leaf 7.1 of 5.4.
fn without_kernel(source: &Source, mask: &Statement, name: &str, list: &str) -> Result<Vec<KvmCap>, KvmError> {
    let fail = |what: &str| source.cpuid.unexpected(mask.line, format!("{name}: {what}"));
    let (leaf, subleaf, register) = register_of(name).ok_or_else(|| fail("names no register"))?;
    let mut caps = Vec::new();
    for member in members(list) {
        let Member::Named { name: macro_name, .. } = member else { return Err(fail("expected features")) };
        let found = source.words.find(&macro_name);
        let (_, bit) = found.ok_or_else(|| fail(&format!("X86_FEATURE_{macro_name} is not defined")))?;
        let place = CpuidBit::new(leaf, subleaf, register, bit);
        caps.push(KvmCap { place, macro_name, kind: CapKind::Raw, condition: None });
    }
    Ok(caps)
}

/// The register that the name of a constant mask means: `kvm_cpuid_7_1_eax_x86_features`,
/// `kvm_cpuid_8000_0001_ecx_x86_features`.
fn register_of(name: &str) -> Option<(u32, u32, Register)> {
    let parts: Vec<&str> = name.strip_prefix("kvm_cpuid_")?.strip_suffix("_x86_features")?.split('_').collect();
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    let (leaf, subleaf, register) = match parts[..] {
        [leaf, register] => (number(leaf)?, 0, register),
        [high, low, register] if high.len() == 4 => (number(&format!("{high}{low}"))?, 0, register),
        [leaf, subleaf, register] => (number(leaf)?, number(subleaf)?, register),
        _ => return None,
    };
    Some((leaf, subleaf, Register::from_name(register)?))
}

/// The functions that answer leaves before 5.7: leaf 7 has one of its own from 5.4 on.
pub(super) fn const_functions(source: &Source) -> Result<Vec<Statements>, KvmError> {
    let leaf_7 = source.cpuid.function("do_cpuid_7_mask")?;
    let all = source.answering()?;
    Ok(leaf_7.into_iter().chain([all]).collect())
}

/// The name and the members of a constant mask.
fn mask_definition(text: &str) -> Option<(&str, &str)> {
    let (name, list) = text.strip_prefix("const u32 ")?.split_once(" = ")?;
    name.ends_with("_x86_features").then_some((name, list))
}

/// The features of one list.
fn members_of(
    source: &Source,
    statement: &Statement,
    word: &str,
    list: &str,
    variables: &[Variable],
) -> Result<Vec<KvmCap>, KvmError> {
    let fail = |what: String| source.cpuid.unexpected(statement.line, what);
    if source.words.place(word, 0).is_none() {
        return Err(fail(format!("{word} is not in reverse_cpuid[]")));
    }
    let mut caps = Vec::new();
    for member in members(list) {
        let (macro_name, kind, condition) = match member {
            Member::Named { by, name } => {
                let named = NAMED.iter().find(|(word, _)| *word == by);
                let (_, kind) = named.ok_or_else(|| fail(format!("{by}({name}): not a known kind of feature")))?;
                (name, *kind, None)
            }
            Member::Bit(bit) => {
                let place = source.words.place(word, bit).and_then(|place| source.words.macro_at(place));
                let name = place.ok_or_else(|| fail(format!("BIT({bit}) of {word} has no name")))?;
                caps.push(cap_at(source, word, bit, name, CapKind::Plain, None).ok_or_else(|| fail(word.to_owned()))?);
                continue;
            }
            Member::Variable(name) => {
                let variable = variables.iter().find(|variable| variable.name == name);
                let variable = variable.ok_or_else(|| fail(format!("{name} is not set in this function")))?;
                // What a variable passes through from raw CPUID is an adjustment.
                if variable.from_raw {
                    continue;
                }
                let x86_64 = variable.only_64 && variable.condition.is_none();
                let kind = if x86_64 { CapKind::X86_64 } else { CapKind::Plain };
                (variable.macro_name.clone(), kind, variable.condition.clone())
            }
        };
        let (own, bit) =
            source.words.find(&macro_name).ok_or_else(|| fail(format!("X86_FEATURE_{macro_name} is not defined")))?;
        let kind = refined(source, kind, word, own);
        if own != word && kind != CapKind::Alias1Edx {
            return Err(fail(format!("X86_FEATURE_{macro_name} is of {own}, but listed in {word}")));
        }
        let macro_name = macro_name.trim_start_matches("KVM_X86_FEATURE_").to_owned();
        caps.push(cap_at(source, word, bit, macro_name, kind, condition).ok_or_else(|| fail(word.to_owned()))?);
    }
    Ok(caps)
}

fn cap_at(
    source: &Source,
    word: &str,
    bit: u8,
    macro_name: String,
    kind: CapKind,
    condition: Option<String>,
) -> Option<KvmCap> {
    Some(KvmCap { place: source.words.place(word, bit)?, macro_name, kind, condition })
}

/// What the word makes of the kind that the list says.
fn refined(source: &Source, kind: CapKind, word: &str, own: &str) -> CapKind {
    match kind {
        CapKind::Plain if word == "CPUID_8000_0001_EDX" && own == "CPUID_1_EDX" => CapKind::Alias1Edx,
        CapKind::Plain if !source.words.in_linux(word) => CapKind::Raw,
        CapKind::Synthesized if !source.words.in_linux(word) && !synthesized_asks(source) => {
            CapKind::SynthesizedUnconditional
        }
        kind => kind,
    }
}

/// Whether `SYNTHESIZED_F()` itself asks the host kernel; the mask of a word that Linux has asks in any case.
fn synthesized_asks(source: &Source) -> bool {
    let code = &source.cpuid.code;
    let definition = code.split_once("#define SYNTHESIZED_F(").map_or("", |(_, rest)| rest);
    let end = definition.find("})").unwrap_or(definition.len());
    definition.get(..end).unwrap_or("").contains("boot_cpu_has(")
}

/// The members of a list, in order; zeros and operators are skipped.
fn members(list: &str) -> Vec<Member> {
    let mut members = Vec::new();
    let mut rest = list;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphanumeric() || c == '_') {
        rest = rest.get(start..).unwrap_or("");
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        if let Some(inside) = after.strip_prefix('(') {
            let (argument, after) = inside.split_once(')').unwrap_or((inside, ""));
            rest = after;
            let argument = argument.trim();
            match argument.parse() {
                Ok(bit) if word == "BIT" => members.push(Member::Bit(bit)),
                _ => members.push(Member::Named {
                    by: word.to_owned(),
                    name: argument.trim_start_matches("KVM_X86_FEATURE_").trim_start_matches("X86_FEATURE_").to_owned(),
                }),
            }
        } else if word.starts_with("f_") {
            members.push(Member::Variable(word.to_owned()));
        }
    }
    members
}

/// The variables of a function that hold a feature's bit.
pub(super) fn variables(function: &Statements) -> Vec<Variable> {
    let all = function.list.iter().filter_map(|statement| {
        let text = statement.text.as_str();
        let text = text.strip_prefix("unsigned ").map_or(text, |rest| rest.trim_start_matches("int "));
        let (name, value) = text.split_once(" = ")?;
        if !name.starts_with("f_") {
            return None;
        }
        let (condition, feature, from_raw) = match value.split_once(" ? ") {
            Some((condition, rest)) => (Some(condition.to_owned()), rest.split_once(" :")?.0, false),
            None => match value.split_once(" & ") {
                Some((_, feature)) => (None, feature, true),
                None => (None, value, false),
            },
        };
        let macro_name = feature.trim().strip_prefix("F(")?.strip_suffix(')')?.to_owned();
        let only_64 = statement.config.iter().any(|config| config == "CONFIG_X86_64");
        Some(Variable { name: name.to_owned(), macro_name, condition, from_raw, only_64 })
    });
    all.collect()
}

/// The bit of the invariant TSC, which the code wrote as a number before the word had a list (6.3).
fn invariant_tsc(source: &Source) -> Result<Option<KvmCap>, KvmError> {
    let statements = source.answering()?;
    let here = statements.list.iter().find(|statement| {
        statement.under("function", "0x80000007") && statement.text.starts_with("entry->edx &= (1 << ")
    });
    let Some(statement) = here else { return Ok(None) };
    let bit = statement.text.trim_start_matches("entry->edx &= (1 << ").trim_end_matches(')');
    let bit = number(bit).and_then(|bit| u8::try_from(bit).ok()).filter(|bit| *bit < 32);
    let bit =
        bit.ok_or_else(|| source.cpuid.unexpected(statement.line, "expected a bit of 80000007H:EDX".to_owned()))?;
    let place = CpuidBit::new(0x8000_0007, 0, Register::Edx, bit);
    Ok(Some(KvmCap { place, macro_name: "CONSTANT_TSC".to_owned(), kind: CapKind::Raw, condition: None }))
}

/// Adds the features that only adjustments name.
pub(super) fn with_adjusted(
    mut caps: Vec<KvmCap>,
    adjusts: &[Found],
    source: &Source,
) -> Result<Vec<KvmCap>, KvmError> {
    for found in adjusts {
        let name = &found.adjust.macro_name;
        let listed = caps.iter().any(|cap| cap.macro_name == *name && cap.kind != CapKind::Alias1Edx);
        if listed {
            continue;
        }
        let place = found.place.or_else(|| source.words.place_of(name));
        let place = place.ok_or_else(|| KvmError::Unexpected {
            file: found.file.clone(),
            line: found.line,
            what: format!("X86_FEATURE_{name} is adjusted, but has no CPUID bit"),
        })?;
        let kind = CapKind::AdjustOnly;
        caps.push(KvmCap { place, macro_name: name.clone(), kind, condition: None });
    }
    Ok(caps)
}
