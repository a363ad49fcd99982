//! Which features a configuration requires or compiles out.
//!
//! Up to 6.14 two headers build the masks with `#ifdef`; from 6.15 on Kconfig has one option a feature.

use super::{Mask, MaskKind, ReadError, text};
use crate::SourceTree;
use crate::c::{self, Conditions};

const KCONFIG: &str = "arch/x86/Kconfig.cpufeatures";
const REQUIRED: &str = "arch/x86/include/asm/required-features.h";
const DISABLED: &str = "arch/x86/include/asm/disabled-features.h";

pub(super) fn read(tree: &dyn SourceTree) -> Result<Vec<Mask>, ReadError> {
    let mut masks = match tree.read(KCONFIG) {
        Some(text) => kconfig(&text),
        None => {
            let mut masks = header(&text(tree, REQUIRED)?, MaskKind::Required, "NEED_");
            masks.extend(header(&text(tree, DISABLED)?, MaskKind::Disabled, "DISABLE_"));
            masks
        }
    };
    masks.sort();
    Ok(masks)
}

/// Options `X86_REQUIRED_FEATURE_*` and `X86_DISABLED_FEATURE_*` with what they depend on.
fn kconfig(text: &str) -> Vec<Mask> {
    let kinds = [("X86_REQUIRED_FEATURE_", MaskKind::Required), ("X86_DISABLED_FEATURE_", MaskKind::Disabled)];
    let mut masks: Vec<Mask> = Vec::new();
    // Lines of any other option must not count for the mask before it.
    let mut open = false;
    for line in c::logical_lines(text) {
        let line = line.text.split('#').next().unwrap_or("").trim();
        if let Some(option) = line.strip_prefix("config ") {
            let feature = kinds.iter().find_map(|(prefix, kind)| Some((*kind, option.trim().strip_prefix(prefix)?)));
            open = feature.is_some();
            masks.extend(feature.map(|(kind, feature)| Mask {
                kind,
                feature: feature.to_owned(),
                condition: "y".to_owned(),
            }));
        } else if let (true, Some(mask)) = (open, masks.last_mut()) {
            let condition = line.strip_prefix("depends on ").or_else(|| line.strip_prefix("def_bool "));
            if let Some(condition) = condition.map(str::trim).filter(|&condition| condition != "y") {
                mask.condition = and(&mask.condition, condition);
            }
        }
    }
    masks
}

/// Both conditions.
fn and(one: &str, other: &str) -> String {
    let part = |text: &str| if text.contains("||") { format!("({text})") } else { text.to_owned() };
    if one == "y" { other.to_owned() } else { format!("{} && {}", part(one), part(other)) }
}

/// Macros with a prefix whose value names features, with the `#if` branches around them.
fn header(text: &str, kind: MaskKind, prefix: &str) -> Vec<Mask> {
    let mut conditions = Conditions::default();
    let mut masks: Vec<Mask> = Vec::new();
    for line in c::logical_lines(&c::without_comments(text)) {
        conditions.step(&line.text);
        let Some((name, value)) = c::define(&line.text) else { continue };
        if !name.starts_with(prefix) {
            continue;
        }
        for feature in c::words_with(value, "X86_FEATURE_") {
            let condition = conditions.text();
            match masks.iter_mut().find(|mask| mask.feature == feature) {
                Some(mask) => mask.condition = format!("{} || {condition}", mask.condition),
                None => masks.push(Mask { kind, feature: feature.to_owned(), condition }),
            }
        }
    }
    masks
}
