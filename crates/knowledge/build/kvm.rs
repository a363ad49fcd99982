//! `knowledge/kvm/*.tsv`: what KVM offers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cpusieve_import::kvm::{AdjustOp, CapKind, KvmAdjust, KvmCap};
use cpusieve_import::tables::facts::Row;
use cpusieve_import::tables::kvm::KvmTables;
use cpusieve_import::tables::linux::parse_bit;
use cpusieve_import::tables::{TreeList, TreeSet, rows};
use cpusieve_model::{CpuidBit, Register};

use crate::{Result, Tables};

const LEAVES: &str = "kvm/leaves.tsv";
const SINCE: &str = "kvm/since.tsv";

/// One register of one leaf, as `leaves.tsv` says it is answered.
struct Answer {
    leaf: u32,
    first: u32,
    last: u32,
    register: Register,
    handling: String,
    gates: Vec<String>,
    trees: TreeSet,
}

pub(crate) fn generate(tables: &Tables) -> Result<String> {
    let trees = TreeList::parse("linux/trees.tsv", &tables.read("linux/trees.tsv")?)?;
    let kvm = KvmTables::parse(&trees, |file| tables.read(&format!("kvm/{file}")))?;
    let answers = answers(&trees, &tables.read(LEAVES)?)?;
    let mut text = String::new();
    print_caps(&mut text, &kvm);
    print_adjusts(&mut text, &kvm)?;
    print_offered(&mut text, &kvm, &answers);
    print_small_tables(&mut text, &kvm);
    print_answers(&mut text, &answers);
    print_since(&mut text, &tables.read(SINCE)?)?;
    Ok(text)
}

fn bit(place: CpuidBit) -> String {
    let CpuidBit { leaf, subleaf, register, bit } = place;
    format!("CpuidBit::new({leaf:#x}, {subleaf:#x}, Register::{register:?}, {bit})")
}

fn print_caps(text: &mut String, kvm: &KvmTables) {
    text.push_str(
        "/// Every bit that KVM can offer in any tree, in the order of places.\npub static CAPS: &[Cap] = &[\n",
    );
    for Row { fact: KvmCap { place, macro_name, kind, condition }, trees } in &kvm.caps {
        let place = bit(*place);
        let adjusted = kvm.adjusts.iter().any(|row| {
            row.fact.macro_name == *macro_name && !row.fact.conditions.is_empty() && row.trees.0 & trees.0 != 0
        });
        let conditional = condition.is_some() || (adjusted && *kind != CapKind::Alias1Edx);
        let _ = writeln!(
            text,
            "Cap {{ macro_name: {macro_name:?}, place: {place}, kind: CapKind::{kind:?}, condition: {condition:?}, \
             conditional: {conditional}, trees: TreeSet({:#x}) }},",
            trees.0
        );
    }
    text.push_str("];\n");
}

fn print_adjusts(text: &mut String, kvm: &KvmTables) -> Result<()> {
    text.push_str("/// All adjustments; those of one tree stand in the order of its source.\n");
    text.push_str("pub static ADJUSTS: &[Adjust] = &[\n");
    for Row { fact, trees } in &kvm.adjusts {
        let KvmAdjust { site, op, macro_name, conditions } = fact;
        let place = bit(place_of(kvm, macro_name, *trees)?);
        let _ = writeln!(
            text,
            "Adjust {{ by: By::{site:?}, op: Op::{op:?}, macro_name: {macro_name:?}, place: {place}, \
             conditions: &{conditions:?}, trees: TreeSet({:#x}) }},",
            trees.0
        );
    }
    text.push_str("];\n");
    let mut by_macro: Vec<(&str, usize)> =
        kvm.adjusts.iter().enumerate().map(|(index, row)| (row.fact.macro_name.as_str(), index)).collect();
    by_macro.sort_unstable();
    let _ = writeln!(text, "static ADJUSTS_BY_MACRO: &[(&str, u16)] = &{by_macro:?};");
    Ok(())
}

/// The place of an adjusted macro, which must be the same in all these trees.
fn place_of(kvm: &KvmTables, macro_name: &str, trees: TreeSet) -> Result<CpuidBit> {
    let mut found = kvm.caps.iter().filter(|row| {
        row.fact.macro_name == macro_name && row.fact.kind != CapKind::Alias1Edx && row.trees.0 & trees.0 != 0
    });
    let place = found.next().map(|row| row.fact.place);
    match place {
        Some(place) if found.all(|row| row.fact.place == place) => Ok(place),
        _ => Err(format!("kvm/adjusts.tsv: {macro_name} has not one place in kvm/caps.tsv").into()),
    }
}

/// For each place, the trees that offer it under some condition.
/// The bits of a capability word that a handling keeps.
fn kept(handling: &str) -> u32 {
    let mask = handling.strip_prefix("CapsAnd(0x").and_then(|rest| rest.strip_suffix(')'));
    mask.and_then(|mask| u32::from_str_radix(mask, 16).ok()).unwrap_or(u32::MAX)
}

fn print_offered(text: &mut String, kvm: &KvmTables, answers: &[Answer]) {
    let mut offered: BTreeMap<CpuidBit, u64> = BTreeMap::new();
    for Row { fact: cap, trees } in &kvm.caps {
        let added =
            kvm.adjusts.iter().filter(|row| row.fact.op != AdjustOp::Clear && row.fact.macro_name == cap.macro_name);
        let added = added.fold(0, |set, row| set | row.trees.0);
        let reached = answers.iter().filter(|answer| {
            answer.leaf == cap.place.leaf
                && (answer.first..=answer.last).contains(&cap.place.subleaf)
                && answer.register == cap.place.register
                && kept(&answer.handling) >> cap.place.bit & 1 == 1
        });
        let reached = reached.fold(0, |set, answer| set | answer.trees.0);
        let by_itself = match cap.kind {
            CapKind::Runtime => 0,
            CapKind::Vendor | CapKind::AdjustOnly => added,
            _ => u64::MAX,
        };
        *offered.entry(cap.place).or_default() |= trees.0 & by_itself & reached;
    }
    text.push_str("static OFFERED: &[(CpuidBit, TreeSet)] = &[\n");
    for (place, trees) in offered {
        let _ = writeln!(text, "({}, TreeSet({trees:#x})),", bit(place));
    }
    text.push_str("];\n");
}

fn print_small_tables(text: &mut String, kvm: &KvmTables) {
    text.push_str("static SHAPES: &[(Shape, TreeSet)] = &[\n");
    for Row { fact, trees } in &kvm.shapes {
        let _ = writeln!(text, "(Shape::{fact:?}, TreeSet({:#x})),", trees.0);
    }
    text.push_str("];\n/// The limits on EAX of all trees.\npub static LIMITS: &[Limit] = &[\n");
    for Row { fact, trees } in &kvm.limits {
        let (leaf, bound, value) = (fact.leaf, fact.bound, fact.value);
        let _ = writeln!(
            text,
            "Limit {{ leaf: {leaf:#x}, bound: Bound::{bound:?}, value: {value:#x}, trees: TreeSet({:#x}) }},",
            trees.0
        );
    }
    text.push_str("];\n/// The paravirtual features of all trees.\npub static PV_FEATURES: &[PvFeature] = &[\n");
    for Row { fact, trees } in &kvm.pv {
        let _ = writeln!(
            text,
            "PvFeature {{ bit: {}, name: {:?}, condition: {:?}, trees: TreeSet({:#x}) }},",
            fact.bit, fact.name, fact.condition, trees.0
        );
    }
    text.push_str("];\nstatic HANDLED: &[(u32, TreeSet)] = &[\n");
    for Row { fact, trees } in &kvm.handled {
        let _ = writeln!(text, "({:#x}, TreeSet({:#x})),", fact.0, trees.0);
    }
    text.push_str("];\n");
}

/// The rows of `leaves.tsv`, one a register.
fn answers(trees: &TreeList, text: &str) -> Result<Vec<Answer>> {
    let mut answers = Vec::new();
    for (line, cells) in rows(text) {
        let fail = |what: String| format!("{LEAVES}:{line}: {what}");
        let [leaf, subleaf, registers, handling, gates, set] = cells[..] else {
            return Err(fail("expected leaf, subleaf, registers, handling, gates and trees".to_owned()).into());
        };
        let hex = |text: &str| {
            let digits = text.strip_prefix("0x").and_then(|digits| u32::from_str_radix(digits, 16).ok());
            digits.ok_or_else(|| fail(format!("`{text}` is not a number")))
        };
        let (first, last) = match (subleaf, subleaf.strip_suffix("..")) {
            ("*", _) => (0, u32::MAX),
            (_, Some(first)) => (first.parse()?, u32::MAX),
            (one, None) => (one.parse()?, one.parse()?),
        };
        let set = trees.parse_set(set).map_err(|error| fail(error.to_string()))?;
        for register in registers.split(',') {
            let register = Register::from_name(register).ok_or_else(|| fail(format!("`{register}` is no register")))?;
            let handling = match handling.split_once(':') {
                Some(("and", value)) => format!("RawAnd({:#x})", hex(value)?),
                Some(("caps-and", value)) => format!("CapsAnd({:#x})", hex(value)?),
                Some(("is", value)) => format!("Constant({:#x})", hex(value)?),
                _ => word(handling).ok_or_else(|| fail(format!("`{handling}` is no handling")))?.to_owned(),
            };
            let gates = gates
                .split(',')
                .filter(|gate| *gate != "-")
                .map(|gate| gate_of(gate).ok_or_else(|| fail(format!("`{gate}` is no gate"))));
            let gates = gates.collect::<std::result::Result<_, _>>()?;
            answers.push(Answer { leaf: hex(leaf)?, first, last, register, handling, gates, trees: set });
        }
    }
    answers.sort_by_key(|answer| (answer.leaf, answer.first, answer.register, answer.trees.0.trailing_zeros()));
    Ok(answers)
}

fn word(handling: &str) -> Option<&'static str> {
    Some(match handling {
        "raw" => "Raw",
        "raw-ebx" => "RawEbx",
        "caps" => "Caps",
        "limit" => "Limited",
        "pmu" => "Pmu",
        "pv" => "Paravirtual",
        "xcr0" => "Xcr0Low",
        "xcr0-high" => "Xcr0High",
        "xss" => "XssLow",
        "xss-high" => "XssHigh",
        "xsave-size" => "XsaveSize",
        "xsave-size-compact" => "XsaveSizeCompacted",
        "state" => "StateComponent",
        "address-bits" => "AddressBits",
        "avx10-version" => "Avx10Version",
        _ => return None,
    })
}

fn gate_of(gate: &str) -> Option<String> {
    Some(match gate.split_once(':') {
        Some(("cap", name)) => format!("Gate::Cap({name:?})"),
        Some(("flag", name)) => format!("Gate::HostFlag({name:?})"),
        Some(("vendor", "amd")) => "Gate::AmdModule".to_owned(),
        None if gate == "pmu" => "Gate::Pmu".to_owned(),
        None if gate == "else" => "Gate::Otherwise".to_owned(),
        _ => return None,
    })
}

fn print_answers(text: &mut String, answers: &[Answer]) {
    text.push_str("/// How every register is answered that is not zero, in the order of leaves.\n");
    text.push_str("pub static ANSWERS: &[Answer] = &[\n");
    for Answer { leaf, first, last, register, handling, gates, trees } in answers {
        let gates = gates.join(", ");
        let _ = writeln!(
            text,
            "Answer {{ leaf: {leaf:#x}, first_subleaf: {first:#x}, last_subleaf: {last:#x}, \
             register: Register::{register:?}, how: How::{handling}, gates: &[{gates}], \
             trees: TreeSet({:#x}) }},",
            trees.0
        );
    }
    text.push_str("];\n");
}

fn print_since(text: &mut String, table: &str) -> Result<()> {
    let mut releases = BTreeMap::new();
    for (line, cells) in rows(table) {
        let [place, _, release] = cells[..] else {
            return Err(format!("{SINCE}:{line}: expected place, macro and release").into());
        };
        let place = parse_bit(place).ok_or_else(|| format!("{SINCE}:{line}: `{place}` is not a CPUID bit"))?;
        releases.insert(place, release.to_owned());
    }
    text.push_str("static RELEASES: &[(CpuidBit, &str)] = &[\n");
    for (place, release) in releases {
        let _ = writeln!(text, "({}, {release:?}),", bit(place));
    }
    text.push_str("];\n");
    Ok(())
}
