//! `kvm_hyperv_properties`.

use super::initializer::{Element, field, list, nested};
use super::{Hyperv, Result, Source, no_table, unreadable_in};

const KVM: &str = "target/i386/kvm/kvm.c";

/// The feature words that 5.2 had for the registers; later releases name leaf and register.
const WORDS: [(&str, &str); 3] =
    [("FEAT_HYPERV_EAX", "40000003.EAX"), ("FEAT_HYPERV_EDX", "40000003.EDX"), ("FEAT_HV_RECOMM_EAX", "40000004.EAX")];

pub(super) fn read(source: &Source, kvm: &str) -> Result<Vec<Hyperv>> {
    let table = "kvm_hyperv_properties[] =";
    let rows = list(kvm, table).ok_or_else(|| no_table(KVM, table))?;
    let mut names = Vec::new();
    for row in &rows {
        names.push(name(row).ok_or_else(|| unreadable_in(KVM, table, row.value))?);
    }
    let find = |id: &str| names.iter().find(|(known, ..)| *known == id).map(|(_, name, _)| name.as_str());
    let mut found = Vec::new();
    for (row, (_, name, description)) in rows.iter().zip(&names) {
        let wrong = || unreadable_in(KVM, table, row.value);
        let fields = nested(row.value).ok_or_else(wrong)?;
        let bits = bits(source, &fields).ok_or_else(wrong)?;
        let mut needs = Vec::new();
        for part in field(&fields, ".dependencies").unwrap_or_default().split('|').filter(|part| !part.is_empty()) {
            let id = part.trim().strip_prefix("BIT(").and_then(|id| id.strip_suffix(')'));
            needs.push(id.and_then(find).ok_or_else(wrong)?);
        }
        let needs = if needs.is_empty() { "-".to_owned() } else { needs.join(" ") };
        let skips = field(&fields, ".skip_passthrough").is_some_and(|value| value == "true");
        let passthrough = if skips { "-" } else { "yes" }.to_owned();
        found.push(Hyperv { cells: [name.clone(), bits, needs, passthrough, description.clone()] });
    }
    Ok(found)
}

/// The row's id, its property, which its description names in parentheses, and the description.
fn name<'a>(row: &Element<'a>) -> Option<(&'a str, String, String)> {
    let id = row.designator.strip_prefix('[')?.strip_suffix(']')?;
    let fields = nested(row.value)?;
    let description = field(&fields, ".desc")?.strip_prefix('"')?.strip_suffix('"')?;
    let (_, inside) = description.rsplit_once('(')?;
    let property = inside.split(['/', ')']).next()?;
    Some((id, property.to_owned(), description.to_owned()))
}

/// The bits of all registers: `40000003.EAX[1] 40000003.EAX[9]`.
fn bits(source: &Source, fields: &[Element<'_>]) -> Option<String> {
    let mut found = Vec::new();
    for flag in nested(field(fields, ".flags")?)? {
        let flag = nested(flag.value)?;
        let register = match (field(&flag, ".fw"), field(&flag, ".func"), field(&flag, ".reg")) {
            (Some(word), None, None) => WORDS.iter().find(|(name, _)| *name == word)?.1.to_owned(),
            (None, Some(leaf), Some(register)) => {
                format!("{:X}.{}", source.macros.value(leaf)?, register.strip_prefix("R_")?)
            }
            _ => return None,
        };
        let mask = source.macros.value(field(&flag, ".bits")?)?;
        found.extend((0..32).filter(|bit| mask >> bit & 1 == 1).map(|bit| format!("{register}[{bit}]")));
    }
    Some(found.join(" "))
}
