//! `knowledge/kvm/feature_msrs.tsv`, `feature_bits.tsv`: what KVM makes of the feature MSRs; and `params.tsv`.

use std::fmt::Write as _;

use cpusieve_import::tables::{TreeList, rows};

use crate::{Result, Tables};

const LIST: &str = "kvm/feature_msrs.tsv";
const BITS: &str = "kvm/feature_bits.tsv";
const PARAMS: &str = "kvm/params.tsv";

/// Conditions that are a word alone.
const WORDS: [(&str, &str); 6] = [
    ("module:intel", "Need::IntelModule"),
    ("module:amd", "Need::AmdModule"),
    ("l1d-flush", "Need::L1dFlush"),
    ("gds-microcode", "Need::GdsMicrocode"),
    ("lbr", "Need::Lbr"),
    ("lbr-callstack", "Need::LbrCallStack"),
];

/// Conditions that name something.
const NAMED: [(&str, &str); 4] = [("flag", "Flag"), ("bug", "Bug"), ("cap", "Cap"), ("param", "Param")];

/// Conditions that name a bit of an MSR.
const OF_MSR: [(&str, &str); 2] = [("hardware", "Hardware"), ("so-far", "SoFar")];

pub(crate) fn generate(tables: &Tables) -> Result<String> {
    let trees = TreeList::parse("linux/trees.tsv", &tables.read("linux/trees.tsv")?)?;
    let mut text = String::new();
    print_list(&mut text, &trees, &tables.read(LIST)?)?;
    print_bits(&mut text, &trees, &tables.read(BITS)?)?;
    Ok(text)
}

/// The Rust text of the parameters of KVM's modules.
pub(crate) fn parameters(tables: &Tables) -> Result<String> {
    let trees = TreeList::parse("linux/trees.tsv", &tables.read("linux/trees.tsv")?)?;
    let mut text = String::from("/// The parameters of KVM's modules in all trees, by module and name.\n");
    text.push_str("pub static PARAMETERS: &[Parameter] = &[\n");
    for (line, cells) in rows(&tables.read(PARAMS)?) {
        let [module, name, set] = cells[..] else {
            return Err(format!("{PARAMS}:{line}: expected module, parameter and trees").into());
        };
        let set = trees.parse_set(set).map_err(|error| format!("{PARAMS}:{line}: {error}"))?;
        let _ = writeln!(text, "Parameter {{ module: {module:?}, name: {name:?}, trees: TreeSet({:#x}) }},", set.0);
    }
    text.push_str("];\n");
    Ok(text)
}

fn print_list(text: &mut String, trees: &TreeList, table: &str) -> Result<()> {
    text.push_str("/// The feature MSRs of all trees; those of one tree stand in KVM's order.\n");
    text.push_str("pub static FEATURE_MSRS: &[FeatureMsr] = &[\n");
    for (line, cells) in rows(table) {
        let fail = |what: String| format!("{LIST}:{line}: {what}");
        let [index, name, needs, set] = cells[..] else {
            return Err(fail("expected index, macro, conditions and trees".to_owned()).into());
        };
        let index = hex(index).ok_or_else(|| fail(format!("`{index}` is no MSR")))?;
        let needs = conditions(needs).map_err(fail)?;
        let set = trees.parse_set(set).map_err(|error| fail(error.to_string()))?;
        let _ = writeln!(
            text,
            "FeatureMsr {{ index: {index:#x}, name: {name:?}, needs: &[{needs}], trees: TreeSet({:#x}) }},",
            set.0
        );
    }
    text.push_str("];\n");
    Ok(())
}

fn print_bits(text: &mut String, trees: &TreeList, table: &str) -> Result<()> {
    let mut printed = Vec::new();
    for (line, cells) in rows(table) {
        let fail = |what: String| format!("{BITS}:{line}: {what}");
        let [index, bits, name, effect, from, needs, set] = cells[..] else {
            return Err(fail("expected MSR, bits, name, effect, source, conditions and trees".to_owned()).into());
        };
        let index = hex(index).ok_or_else(|| fail(format!("`{index}` is no MSR")))?;
        let mask = mask(bits).ok_or_else(|| fail(format!("`{bits}` are no bits")))?;
        let from = hex(from);
        let effect = match (effect, from) {
            ("keep", Some(from)) => format!("Keep({from:#x})"),
            ("copy", Some(from)) => format!("Copy({from:#x})"),
            ("set", None) => "Set".to_owned(),
            ("clear", None) => "Clear".to_owned(),
            _ => return Err(fail(format!("`{effect}` with this source is no effect")).into()),
        };
        let needs = conditions(needs).map_err(fail)?;
        let set = trees.parse_set(set).map_err(|error| fail(error.to_string()))?;
        let name = if name == "-" { "" } else { name };
        let row = format!(
            "FeatureBits {{ index: {index:#x}, mask: {mask:#x}, name: {name:?}, effect: MsrEffect::{effect}, \
             needs: &[{needs}], trees: TreeSet({:#x}) }},",
            set.0
        );
        printed.push((index, row));
    }
    // Stable: rows of one MSR keep their order.
    printed.sort_by_key(|(index, _)| *index);
    text.push_str("/// How each feature MSR is made; sorted by MSR, rows of one in the order in which they apply.\n");
    text.push_str("pub static FEATURE_BITS: &[FeatureBits] = &[\n");
    printed.iter().for_each(|(_, row)| _ = writeln!(text, "{row}"));
    text.push_str("];\n");
    Ok(())
}

fn hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 16).ok()
}

/// `6`, `8..11` or `0x1600000000`.
fn mask(bits: &str) -> Option<u64> {
    if let Some(digits) = bits.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok();
    }
    let (first, last): (u32, u32) = match bits.split_once("..") {
        Some((first, last)) => (first.parse().ok()?, last.parse().ok()?),
        None => (bits.parse().ok()?, bits.parse().ok()?),
    };
    (first <= last && last < 64).then(|| (u64::MAX >> (63 - last)) & (u64::MAX << first))
}

fn conditions(text: &str) -> std::result::Result<String, String> {
    let mut printed = String::new();
    for condition in text.split(',').filter(|condition| *condition != "-") {
        let (holds, atom) = match condition.strip_prefix('!') {
            Some(atom) => (false, atom),
            None => (true, condition),
        };
        let need = need(atom).ok_or_else(|| format!("`{condition}` is no condition"))?;
        let _ = write!(printed, "({need}, {holds}), ");
    }
    Ok(printed)
}

fn need(atom: &str) -> Option<String> {
    if let Some((_, need)) = WORDS.iter().find(|(word, _)| *word == atom) {
        return Some((*need).to_owned());
    }
    let (kind, name) = atom.split_once(':')?;
    if let Some((_, need)) = NAMED.iter().find(|(word, _)| *word == kind) {
        return Some(format!("Need::{need}({name:?})"));
    }
    let (_, need) = OF_MSR.iter().find(|(word, _)| *word == kind)?;
    let (index, bit) = name.strip_suffix(']')?.split_once('[')?;
    let (index, bit) = (hex(index)?, bit.parse::<u8>().ok().filter(|bit| *bit < 64)?);
    Some(format!("Need::{need}(MsrBit {{ index: {index:#x}, bit: {bit} }})"))
}
