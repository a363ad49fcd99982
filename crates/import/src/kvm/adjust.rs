//! What is set and cleared after the masks, and under which conditions.

use cpusieve_model::{CpuidBit, Register};

use super::caps::{Variable, common_function, const_functions, variables};
use super::statements::{Statement, Statements, all_bodies};
use super::words::number;
use super::{AdjustOp, AdjustSite, File, KvmAdjust, KvmError, Source};

/// An adjustment, with where it was found.
pub(super) struct Found {
    pub(super) adjust: KvmAdjust,
    /// The place, where the code itself says it.
    pub(super) place: Option<CpuidBit>,
    pub(super) file: String,
    pub(super) line: usize,
}

/// The functions of 5.7 and later, as calls.
const CALLS: [(&str, AdjustOp); 3] = [
    ("kvm_cpu_cap_set(", AdjustOp::Set),
    ("kvm_cpu_cap_clear(", AdjustOp::Clear),
    ("kvm_cpu_cap_check_and_set(", AdjustOp::CheckAndSet),
];

/// The adjustments of 5.7 and later.
///
/// AMD's two files are read one after the other, although `sev_set_cpu_caps()` is called from the middle of the other:
/// no feature is adjusted in both.
pub(super) fn cap_calls(source: &Source) -> Result<Vec<Found>, KvmError> {
    let mut found = Vec::new();
    let common = common_function(source)?;
    calls_in(source, &source.cpuid, &common, AdjustSite::Common, &mut found)?;
    numbered_in(source, &mut found)?;
    let files = std::iter::once((&source.vmx, AdjustSite::Intel))
        .chain(source.svm.iter().map(|file| (file, AdjustSite::Amd)))
        .chain([(&source.x86, AdjustSite::CommonLate)]);
    for (file, site) in files {
        for (start, end) in all_bodies(&file.code) {
            let body = file.code.get(start..end).unwrap_or("");
            if CALLS.iter().any(|(call, _)| body.contains(call)) {
                calls_in(source, file, &file.statements(start, end)?, site, &mut found)?;
            }
        }
    }
    Ok(found)
}

fn calls_in(
    source: &Source,
    file: &File,
    statements: &Statements,
    site: AdjustSite,
    found: &mut Vec<Found>,
) -> Result<(), KvmError> {
    for statement in &statements.list {
        let fail = |what: String| file.unexpected(statement.line, what);
        let call = CALLS.iter().find_map(|(call, op)| Some((*op, statement.text.strip_prefix(call)?)));
        let (op, macro_name, place) = if let Some((op, argument)) = call {
            let name = argument.strip_suffix(')').and_then(|name| name.strip_prefix("X86_FEATURE_"));
            let name = name.ok_or_else(|| fail(format!("expected a feature, found `{argument}`")))?;
            (op, name.to_owned(), None)
        } else if let Some((word, bit)) = set_bit(&statement.text) {
            let place = source.words.place(word, bit);
            let name = place.and_then(|place| source.words.macro_at(place));
            (AdjustOp::Set, name.ok_or_else(|| fail(format!("bit {bit} of {word} has no name")))?, place)
        } else {
            continue;
        };
        let conditions = statement.conditions.clone();
        let adjust = KvmAdjust { site, op, macro_name, conditions };
        found.push(Found { adjust, place, file: file.path.clone(), line: statement.line });
    }
    Ok(())
}

/// Bits that the function that answers leaves sets by number: leaf 80000021H of 6.0.
fn numbered_in(source: &Source, found: &mut Vec<Found>) -> Result<(), KvmError> {
    for statement in &source.answering()?.list {
        let change = register_change(&statement.text);
        let Some((register, AdjustOp::Set, value)) = change else { continue };
        let Some(bit) = value.strip_prefix("BIT(").and_then(|bit| bit.strip_suffix(')')) else { continue };
        let what = || source.cpuid.unexpected(statement.line, format!("expected a bit of {register}, found `{value}`"));
        let bit = bit.parse().ok().filter(|bit| *bit < 32).ok_or_else(what)?;
        let place = CpuidBit::new(leaf_of(statement).ok_or_else(what)?, 0, register, bit);
        let macro_name = source.words.macro_at(place).ok_or_else(what)?;
        let conditions = statement.conditions.clone();
        let adjust = KvmAdjust { site: AdjustSite::Common, op: AdjustOp::Set, macro_name, conditions };
        found.push(Found { adjust, place: Some(place), file: source.cpuid.path.clone(), line: statement.line });
    }
    Ok(())
}

/// `kvm_cpu_caps[CPUID_8000_0021_EAX] |= BIT(9)`.
fn set_bit(text: &str) -> Option<(&str, u8)> {
    let (word, bit) = text.strip_prefix("kvm_cpu_caps[")?.split_once("] |= BIT(")?;
    Some((word, bit.strip_suffix(')')?.parse().ok().filter(|bit| *bit < 32)?))
}

/// The adjustments before 5.7: registers changed after the masks, in common code and in each vendor's
/// `set_supported_cpuid()`.
pub(super) fn const_masks(source: &Source) -> Result<Vec<Found>, KvmError> {
    let mut found = Vec::new();
    for function in const_functions(source)? {
        registers_in(source, &source.cpuid, &function, AdjustSite::Common, &mut found)?;
    }
    let vendors = [(&source.vmx, "vmx_set_supported_cpuid", AdjustSite::Intel)]
        .into_iter()
        .chain(source.svm.iter().take(1).map(|file| (file, "svm_set_supported_cpuid", AdjustSite::Amd)));
    for (file, name, site) in vendors {
        let function = file.function(name)?;
        let function = function.ok_or_else(|| file.unexpected(0, format!("expected the function {name}")))?;
        registers_in(source, file, &function, site, &mut found)?;
    }
    Ok(found)
}

fn registers_in(
    source: &Source,
    file: &File,
    function: &Statements,
    site: AdjustSite,
    found: &mut Vec<Found>,
) -> Result<(), KvmError> {
    let variables = variables(function);
    for statement in &function.list {
        let Some((register, op, value)) = register_change(&statement.text) else { continue };
        // Leaf 40000001H is KVM's own: its bits are no CPU features.
        if statement.under("function", "KVM_CPUID_FEATURES") {
            continue;
        }
        let mut conditions = conditions(statement);
        let mut op = op;
        let (macro_name, place) = if let Some(variable) = variable_of(&variables, value) {
            conditions.extend(variable.condition.clone());
            if variable.from_raw {
                op = AdjustOp::SetFromRaw;
            }
            (variable.macro_name.clone(), None)
        } else if let Some(name) = feature_of(value) {
            (name, None)
        } else if let Some(bit) = number_of(value) {
            let place = leaf_of(statement).map(|leaf| CpuidBit::new(leaf, 0, register, bit));
            let name = place.and_then(|place| source.words.macro_at(place));
            let what = || format!("bit {bit} of {register} has no name");
            (name.ok_or_else(|| file.unexpected(statement.line, what()))?, place)
        } else {
            continue;
        };
        let adjust = KvmAdjust { site, op, macro_name, conditions };
        found.push(Found { adjust, place, file: file.path.clone(), line: statement.line });
    }
    Ok(())
}

/// `entry->ecx |= VALUE` or `entry->ecx &= ~VALUE`.
fn register_change(text: &str) -> Option<(Register, AdjustOp, &str)> {
    let (register, change) = text.strip_prefix("entry->")?.split_once(' ')?;
    let register = Register::from_name(register)?;
    let set = change.strip_prefix("|= ").map(|value| (register, AdjustOp::Set, value));
    set.or_else(|| change.strip_prefix("&= ~").map(|value| (register, AdjustOp::Clear, value)))
}

fn variable_of<'a>(variables: &'a [Variable], value: &str) -> Option<&'a Variable> {
    variables.iter().find(|variable| variable.name == value)
}

/// The macro of `F(X)`, `bit(X86_FEATURE_X)` or `feature_bit(X)`.
fn feature_of(value: &str) -> Option<String> {
    let (by, name) = value.strip_suffix(')')?.split_once('(')?;
    let name = match by {
        "F" | "feature_bit" => name,
        "bit" => name.strip_prefix("X86_FEATURE_")?,
        _ => return None,
    };
    Some(name.to_owned())
}

/// The bit of `(1 << 2)`, or of a name of `svm.h`.
fn number_of(value: &str) -> Option<u8> {
    let bit = match value {
        "SVM_FEATURE_NPT" => 0,
        "SVM_FEATURE_NRIP" => 3,
        value => number(value.strip_prefix("(1 << ")?.strip_suffix(')')?)?,
    };
    u8::try_from(bit).ok().filter(|bit| *bit < 32)
}

/// The leaf under whose `case` a statement stands.
fn leaf_of(statement: &Statement) -> Option<u32> {
    statement.cases.last().and_then(|label| number(&label.value))
}

/// The conditions of a statement, without those that only say which leaf and subleaf is being answered.
fn conditions(statement: &Statement) -> Vec<String> {
    let leaf = ["index == 0", "func == 1"];
    let own = statement.conditions.iter().filter(|condition| !leaf.contains(&condition.as_str()));
    own.map(|condition| condition.trim_start_matches("func == 1 && ").to_owned()).collect()
}
