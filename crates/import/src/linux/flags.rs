//! `cpufeatures.h` and `vmxfeatures.h`: bits and macros; `mkcapflags.sh`: the names that are printed for them.

use std::collections::BTreeMap;

use super::{Flag, NamingRule, ReadError, Shown, text};
use crate::SourceTree;
use crate::c::{self, Conditions};

const CPUFEATURES: &str = "arch/x86/include/asm/cpufeatures.h";
const VMXFEATURES: &str = "arch/x86/include/asm/vmxfeatures.h";
const MKCAPFLAGS: &str = "arch/x86/kernel/cpu/mkcapflags.sh";

/// What the two headers and the script say.
pub(super) struct Flags {
    pub(super) naming: NamingRule,
    pub(super) ncapints: u8,
    pub(super) nbugints: u8,
    pub(super) nvmxints: u8,
    pub(super) features: Vec<Flag>,
    pub(super) bugs: Vec<Flag>,
    pub(super) vmx_flags: Vec<Flag>,
}

pub(super) fn read(tree: &dyn SourceTree) -> Result<Flags, ReadError> {
    let naming = naming_rule(&text(tree, MKCAPFLAGS)?)?;
    let header = Header { file: CPUFEATURES, text: &text(tree, CPUFEATURES)?, naming };
    let (mut nvmxints, mut vmx_flags) = (0, Vec::new());
    // Before 5.6 there is no vmxfeatures.h, and cpuinfo has no line `vmx flags`.
    if let Some(text) = tree.read(VMXFEATURES) {
        let header = Header { file: VMXFEATURES, text: &text, naming };
        nvmxints = header.count("NVMXINTS")?;
        vmx_flags = header.flags("VMX_FEATURE_", nvmxints)?;
    }
    let (ncapints, nbugints) = (header.count("NCAPINTS")?, header.count("NBUGINTS")?);
    Ok(Flags {
        naming,
        ncapints,
        nbugints,
        nvmxints,
        features: header.flags("X86_FEATURE_", ncapints)?,
        bugs: header.flags("X86_BUG_", nbugints)?,
        vmx_flags,
    })
}

/// Reads the rule off the script itself: what it does when the comment gave no value. No release number decides this,
/// as either script may be in a patched tree.
fn naming_rule(script: &str) -> Result<NamingRule, ReadError> {
    let code = || script.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    if code().any(|line| line.contains(r#"VALUE="\"$NAME\"""#)) {
        return Ok(NamingRule::MacroUnlessQuoted);
    }
    let no_value = |line: &str| line.contains(r#"[ ! "$VALUE" ]"#) || line.contains(r#"[ -z "$VALUE" ]"#);
    if code().any(|line| no_value(line) && line.contains("continue")) {
        return Ok(NamingRule::HiddenUnlessQuoted);
    }
    Err(ReadError::NotFound { file: MKCAPFLAGS, expected: "what is done with an empty $VALUE".to_owned() })
}

struct Header<'a> {
    file: &'static str,
    text: &'a str,
    naming: NamingRule,
}

impl Header<'_> {
    /// The number of words that a macro such as `NCAPINTS` gives.
    fn count(&self, name: &str) -> Result<u8, ReadError> {
        let code = c::without_comments(self.text);
        let value = code.lines().filter_map(c::define).find(|(defined, _)| *defined == name).map(|(_, value)| value);
        let count = value.and_then(c::sum).and_then(|count| u8::try_from(count).ok());
        count.ok_or_else(|| ReadError::NotFound { file: self.file, expected: format!("#define {name} and a number") })
    }

    /// All macros with a prefix, as the script finds them: one a line, in whatever branch of an `#if`.
    fn flags(&self, prefix: &str, words: u8) -> Result<Vec<Flag>, ReadError> {
        let code = c::without_comments(self.text);
        let mut conditions = Conditions::default();
        let mut bits = BTreeMap::new();
        let mut flags = Vec::new();
        for (index, (line, source)) in code.lines().zip(self.text.lines()).enumerate() {
            conditions.step(line);
            let Some((name, value)) = c::define(line) else { continue };
            let Some(macro_name) = name.strip_prefix(prefix) else { continue };
            let fail = |expected| ReadError::Unexpected {
                file: self.file,
                line: index + 1,
                expected,
                found: source.trim().to_owned(),
            };
            let number = number(value, prefix, &bits).ok_or_else(|| fail("a bit such as ( 9*32+ 5)"))?;
            bits.insert(macro_name.to_owned(), number);
            let word = u8::try_from(number / 32).ok().filter(|&word| word < words);
            let only_if = Some(conditions.text()).filter(|condition| condition != "y");
            flags.push(Flag {
                word: word.ok_or_else(|| fail("a word below the number of words"))?,
                bit: (number % 32) as u8,
                macro_name: macro_name.to_owned(),
                shown: shown(source, macro_name, self.naming),
                only_if,
            });
        }
        shadow(&mut flags);
        flags.sort();
        Ok(flags)
    }
}

/// The bit that a value stands for: `( 9*32+ 5)`, `X86_BUG( 1*32+ 3)`, or another macro of the same header. A bug's
/// number counts from the first bug word.
fn number(value: &str, prefix: &str, earlier: &BTreeMap<String, u32>) -> Option<u32> {
    let value = value.strip_prefix("X86_BUG(").and_then(|bug| bug.strip_suffix(')')).unwrap_or(value);
    c::sum(value).or_else(|| earlier.get(value.strip_prefix(prefix)?).copied())
}

/// The name by which the script lets `/proc/cpuinfo` print a macro; `source` is the line with its comment.
fn shown(source: &str, macro_name: &str, naming: NamingRule) -> Shown {
    let name = match (quoted(source), naming) {
        (Some(name), _) => name,
        (None, NamingRule::MacroUnlessQuoted) => macro_name,
        (None, NamingRule::HiddenUnlessQuoted) => "",
    };
    // The newer script would print an empty name as one blank more: no word either way.
    if name.is_empty() { Shown::Hidden } else { Shown::Name(name.to_ascii_lowercase()) }
}

/// The string in quotes right behind the last `/*` of the line that has one, if the comment ends on the same line
/// (`.*/\* *\("[^"]*"\).*\*/`). So a comment of several lines gives no name.
fn quoted(line: &str) -> Option<&str> {
    line.rmatch_indices("/*").find_map(|(at, _)| {
        let comment = line.get(at + 2..)?.trim_start_matches([' ', '\t']);
        let (name, after) = comment.strip_prefix('"')?.split_once('"')?;
        after.contains("*/").then_some(name)
    })
}

/// Two macros may share a bit; the later initializer of the array of names wins, and a hidden macro has none.
fn shadow(flags: &mut [Flag]) {
    let mut named = BTreeMap::new();
    for flag in flags.iter_mut().rev() {
        let Shown::Name(name) = &flag.shown else { continue };
        if named.insert((flag.word, flag.bit), ()).is_some() {
            flag.shown = Shown::Shadowed(name.clone());
        }
    }
}
