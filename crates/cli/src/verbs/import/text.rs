//! `import`, for people.

use cpusieve_answers::name::kind;
use cpusieve_answers::trees::{Difference, InKvm, Known, Need};
use cpusieve_import::stored::StoredTree;
use cpusieve_knowledge::kvm::{By, Op};
use cpusieve_knowledge::{linux, own};
use cpusieve_model::Place;

use super::Imported;
use crate::page::{self, DOUBT, GAINED, HEAD, LOST, QUIET, styled, wrap};
use crate::trees::Unusable;

/// How many rows of one kind are shown; the JSON has all.
const SHOWN: usize = 12;
/// Columns of the labels at the left.
const LABELS: usize = 9;

pub(super) fn imported(found: &Imported<'_>, width: usize) -> String {
    let (stored, differences) = (found.stored, &found.differences);
    let Some(nearest) = linux::TREES.get(own::compiled(found.tree)) else { return String::new() };
    let release = stored.release.as_ref().map_or(String::new(), |release| format!(", uname -r {release}"));
    let title = format!("Linux {}{release}, from {}", stored.version, found.folder);
    let mut text = wrap(&page::tame(&title), &format!("{}: ", styled(HEAD, found.label)), "  ", width);
    text.push_str(&wrap(&halves(stored, nearest.label), "  ", "  ", width));
    text.push_str(&wrap(&found.file, &format!("  {}", styled(QUIET, "stored in ")), "  ", width));
    if let Some(why) = &found.no_kvm {
        text.push_str(&wrap(&page::tame(why), &format!("  {}: ", styled(DOUBT, "KVM was not read")), "    ", width));
    }
    text.push_str(&format!("\n{}\n", styled(HEAD, format!("Against Linux {} ({})", nearest.label, nearest.version))));
    if differences.is_empty() {
        text.push_str("  the same tables\n");
    }
    section(&mut text, "flags", differences.features.iter().map(|row| flag(row, "X86_FEATURE_")), width);
    section(&mut text, "bugs", differences.bugs.iter().map(|row| flag(row, "X86_BUG_")), width);
    section(&mut text, "vmx", differences.vmx_flags.iter().map(|row| flag(row, "VMX_FEATURE_")), width);
    let pairs = differences.dependencies.iter().map(|&(feature, needs, is_new)| {
        (sign(is_new), format!("X86_FEATURE_{feature} is cleared with X86_FEATURE_{needs}"))
    });
    section(&mut text, "deps", pairs, width);
    section(&mut text, "KVM", differences.kvm.iter().map(in_kvm), width);
    needs(&mut text, &differences.needs, width);
    if !differences.doubts.is_empty() {
        text.push_str(&format!("\n{}\n", styled(HEAD, "What the tables leave open")));
        differences.doubts.iter().for_each(|doubt| text.push_str(&wrap(&page::tame(doubt), "  ", "    ", width)));
    }
    if !differences.is_empty() {
        asked_next(&mut text, found.label, nearest.label);
    }
    text
}

/// What can be asked of a tree that differs.
fn asked_next(text: &mut String, label: &str, nearest: &str) {
    text.push_str(&format!("\n{}\n", styled(HEAD, "What it does to a host and its guests")));
    let ask = [
        format!("rehearse --host-kernel {nearest}..{label} host.json"),
        format!("predict --until guest --guest-kernel {label} host.json"),
    ];
    ask.iter().for_each(|question| text.push_str(&format!("  cpusieve {question}\n")));
}

/// What was read, and what is taken from the nearest known tree.
fn halves(stored: &StoredTree, nearest: &str) -> String {
    let read = match (&stored.linux, &stored.kvm) {
        (Some(_), Some(_)) => "tables of Linux and KVM; all else is taken from",
        (Some(_), None) => "tables of Linux; KVM and all else are taken from",
        _ => "tables of KVM; Linux and all else are taken from",
    };
    format!("{read} the nearest known tree, {nearest}")
}

/// A sign in its colour.
fn sign(is_new: bool) -> String {
    if is_new { styled(GAINED, "+") } else { styled(LOST, "-") }
}

/// Rows behind a label: a sign, and what is said.
fn section(text: &mut String, label: &str, rows: impl Iterator<Item = (String, String)>, width: usize) {
    let (mut number, mut label) = (0, label);
    for (sign, words) in rows {
        number += 1;
        if number <= SHOWN {
            let first = format!("  {label:<LABELS$}{sign} ");
            text.push_str(&wrap(&words, &first, &" ".repeat(LABELS + 4), width));
            label = "";
        }
    }
    if number > SHOWN {
        let more = styled(QUIET, format!("and {} more; --json has all", number - SHOWN));
        text.push_str(&format!("  {:<LABELS$}  {more}\n", ""));
    }
}

fn flag(row: &Difference, prefix: &str) -> (String, String) {
    let name = |known: &Known| known.shown.map_or_else(|| format!("{} (hidden)", known.id), str::to_owned);
    let bits = |known: &Known| {
        let bits = known.places.iter().filter(|place| !matches!(place, Place::Linux(_)));
        let bits: Vec<String> = bits.map(|place| format!("{place:#}")).collect();
        if bits.is_empty() { String::new() } else { format!(", {}", bits.join(" and ")) }
    };
    let macro_name = styled(QUIET, format!("{prefix}{}", row.macro_name));
    match (&row.before, &row.after) {
        (Some(before), Some(after)) => {
            let was = |known: &Known| format!("{}{}", name(known), bits(known));
            (styled(DOUBT, "~"), format!("{}; was {} {macro_name}", was(after), was(before)))
        }
        (before, after) => {
            let known = after.as_ref().or(before.as_ref());
            let words = known.map_or(String::new(), |known| format!("{}{}", name(known), bits(known)));
            (sign(after.is_some()), format!("{words} {macro_name}"))
        }
    }
}

fn in_kvm(row: &InKvm) -> (String, String) {
    let changed = || styled(DOUBT, "~");
    match *row {
        InKvm::Bit { bit, macro_name, before, after } => {
            let how = match (before, after) {
                (Some(before), Some(after)) if before != after => {
                    format!("{}; was offered {}", kind(after), kind(before))
                }
                (Some(kept), Some(_)) => format!("{}; its condition changed", kind(kept)),
                (Some(one), None) | (None, Some(one)) => kind(one).to_owned(),
                (None, None) => String::new(),
            };
            let words = format!("{macro_name}, {:#}: offered {how}", Place::Cpuid(bit));
            (if before.is_some() && after.is_some() { changed() } else { sign(after.is_some()) }, words)
        }
        InKvm::Adjustment { bit, macro_name, by, op: does, conditions, is_new } => {
            let when = if conditions.is_empty() { String::new() } else { format!(" if {}", conditions.join(" and ")) };
            let words = format!("{macro_name}, {:#}: {} by {}{when}", Place::Cpuid(bit), op(does), site(by));
            (sign(is_new), page::tame(&words))
        }
        InKvm::Limit { leaf, before, after } => {
            let limit = |value: Option<u32>| value.map_or("no limit".to_owned(), |value| format!("at most {value:X}H"));
            (changed(), format!("leaf {leaf:X}H announces {}; was {}", limit(after), limit(before)))
        }
        InKvm::Paravirtual { bit, name, is_new } => {
            (sign(is_new), page::tame(&format!("KVM_FEATURE_{name}, bit {bit} of 40000001H:EAX")))
        }
        InKvm::Leaf { leaf, is_new } => (sign(is_new), format!("leaf {leaf:X}H has a case of its own")),
    }
}

/// What an adjustment does, in words.
pub(super) const fn op(op: Op) -> &'static str {
    match op {
        Op::Set => "set",
        Op::Clear => "cleared",
        Op::CheckAndSet => "set where the kernel has it",
        Op::SetFromRaw => "set where the CPU has it",
    }
}

/// Whose code adjusts, in words.
pub(super) const fn site(by: By) -> &'static str {
    match by {
        By::Common | By::CommonLate => "kvm",
        By::Intel => "kvm_intel",
        By::Amd => "kvm_amd",
    }
}

/// What must change elsewhere so that what is new reaches a guest.
fn needs(text: &mut String, needs: &[Need], width: usize) {
    if needs.is_empty() {
        return;
    }
    text.push_str(&format!("\n{}\n", styled(HEAD, "What else must change, so that guests get what is new")));
    let mut shown = 0;
    for same in needs.chunk_by(|one, next| one.bit == next.bit) {
        shown += 1;
        let Some(first) = same.first().filter(|_| shown <= SHOWN) else { continue };
        text.push_str(&format!("  {} {:#}\n", first.feature, Place::Cpuid(first.bit)));
        for need in same {
            let mark = if need.is_met { styled(GAINED, "ok") } else { styled(LOST, "!!") };
            let words = format!("{} {}", need.text, styled(QUIET, need.cite));
            text.push_str(&wrap(&words, &format!("    {mark} {:<6} ", need.who.name()), "              ", width));
        }
    }
    if shown > SHOWN {
        text.push_str(&format!("  {}\n", styled(QUIET, format!("and {} more; --json has all", shown - SHOWN))));
    }
}

pub(super) fn list(all: &[(&str, Result<StoredTree, Unusable>)], width: usize) -> String {
    if all.is_empty() {
        return "No kernel tree was imported.\n".to_owned();
    }
    let row = |(label, stored): &(&str, Result<StoredTree, Unusable>)| {
        let first = format!("{}  ", styled(HEAD, label));
        match stored {
            Ok(stored) => {
                let nearest = linux::nearest(&stored.version).tree().label;
                let release = stored.release.as_ref().map_or(String::new(), |release| format!(" (uname -r {release})"));
                let words =
                    format!("Linux {}{release}: {}; from {}", stored.version, halves(stored, nearest), stored.source);
                wrap(&page::tame(&words), &first, "  ", width)
            }
            Err(error) => wrap(&page::tame(&error.to_string()), &first, "  ", width),
        }
    };
    all.iter().map(row).collect()
}
