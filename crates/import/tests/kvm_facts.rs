//! The stored KVM tables against facts that somebody else extracted from the same trees.
//!
//! The facts lie beside the repository (`CPUSIEVE_SHARED`, default `../shared`), one file a tree; where they are missing
//! this test says so and passes. Where the two differ, the source was asked, and the difference stands in [`KNOWN`].
#![allow(clippy::disallowed_methods, clippy::print_stderr, reason = "a test reads files and says why it is skipped")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cpusieve_import::kvm::{Bound, KvmFacts};
use cpusieve_import::tables::facts::Fact;
use cpusieve_import::tables::kvm::KvmTables;
use cpusieve_import::tables::{TableError, TreeList};
use serde_json::Value;

/// What the tables have and the facts have not (or the other way round), with the reason, which is the source's text.
const KNOWN: [(&str, &str, &str); 9] = [
    ("5.4", "7.1.EAX[5] AVX512_BF16 raw -", "do_cpuid_7_mask() applies no cpuid_mask() to leaf 7.1"),
    ("5.4", "7.1.EAX[5] AVX512_BF16 plain -", "the same"),
    ("6.0", "80000021.EAX[0] NO_NESTED_DATA_BP raw -", "__do_cpuid_func() masks this register with numbers"),
    ("6.0", "80000021.EAX[2] LFENCE_RDTSC raw -", "the same"),
    ("6.0", "80000021.EAX[6] NULL_SEL_CLR_BASE raw -", "the same"),
    ("6.0", "common set LFENCE_RDTSC static_cpu_has(X86_FEATURE_LFENCE_RDTSC)", "and sets two of the bits"),
    ("6.0", "common set NULL_SEL_CLR_BASE !static_cpu_has_bug(X86_BUG_NULL_SEG)", "the same"),
    (
        "6.18",
        "common-late clear SHSTK (kvm_caps.supported_xss & XFEATURE_MASK_CET_ALL) != XFEATURE_MASK_CET_ALL",
        "stands in x86.c, in the function that loads the vendor module",
    ),
    (
        "6.18",
        "common-late clear IBT (kvm_caps.supported_xss & XFEATURE_MASK_CET_ALL) != XFEATURE_MASK_CET_ALL",
        "the same",
    ),
];

fn shared() -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    std::env::var_os("CPUSIEVE_SHARED").map_or_else(beside, PathBuf::from)
}

fn stored(path: &str) -> Option<String> {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../knowledge").join(path)).ok()
}

/// Every fact of a tree as a line, in order.
fn ours(facts: &KvmFacts) -> Vec<String> {
    let mut lines: Vec<String> = facts.caps.iter().map(|cap| cap.cells().join(" ")).collect();
    lines.extend(facts.adjusts.iter().map(|adjust| adjust.cells().join(" ")));
    let limits = facts.leaf_caps.iter();
    lines.extend(limits.map(|limit| format!("{:#x} {:?} {:#x}", limit.leaf, limit.bound, limit.value)));
    lines.extend(facts.pv.iter().map(|feature| format!("pv {}", feature.name)));
    lines.extend(facts.handled.iter().map(|leaf| format!("case {leaf:#x}")));
    lines
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("-")
}

fn number(text: &str) -> u32 {
    match (text, text.strip_prefix("0x")) {
        ("KVM_CPUID_SIGNATURE", _) => 0x4000_0000,
        ("KVM_CPUID_FEATURES", _) => 0x4000_0001,
        (_, Some(digits)) => u32::from_str_radix(digits, 16).unwrap_or_default(),
        (_, None) => text.parse().unwrap_or_default(),
    }
}

/// The macro as the tables have it: bits that old code writes as numbers or variables have their later names.
fn macro_name(name: &str) -> &str {
    match name {
        "f_la57" => "LA57",
        name if name.contains("invariant TSC") => "CONSTANT_TSC",
        name => name.trim_start_matches("X86_FEATURE_"),
    }
}

/// The same lines out of the facts; which leaf a statement answers is no condition in the tables.
fn theirs(facts: &Value) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut lines = Vec::new();
    for feature in list(&facts["features"]) {
        let (leaf, subleaf) = (number(text(&feature, "leaf")), feature["subleaf"].as_u64().unwrap_or_default());
        let with_subleaf = subleaf != 0 || cpusieve_model::has_subleaves(leaf);
        let subleaf = if with_subleaf { format!(".{subleaf:X}") } else { String::new() };
        let register = text(&feature, "reg").to_uppercase();
        let kind = match text(&feature, "kind") {
            "x86_64" => "x86_64".to_owned(),
            kind => kind.replace('_', "-"),
        };
        let condition = feature["mask_cond"][0].as_str().unwrap_or("-");
        let name = macro_name(text(&feature, "macro"));
        lines.push(format!("{leaf:X}{subleaf}.{register}[{}] {name} {kind} {condition}", feature["bit"]));
    }
    for adjust in list(&facts["adjust_in_order"]) {
        let site = text(&adjust, "by").split(':').next().unwrap_or("");
        let conditions = list(&adjust["cond"]);
        let conditions = conditions.iter().filter_map(Value::as_str);
        let conditions = conditions.filter(|condition| !condition.starts_with("@case") && *condition != "index == 0");
        let conditions: Vec<&str> = conditions.map(|condition| condition.trim_start_matches("func == 1 && ")).collect();
        let conditions = if conditions.is_empty() { "-".to_owned() } else { conditions.join("; ") };
        let name = macro_name(text(&adjust, "macro"));
        lines.push(format!("{site} {} {name} {conditions}", text(&adjust, "op").replace('_', "-")));
    }
    for (leaf, value) in facts["cpuid_leaf_caps"].as_object().into_iter().flatten() {
        let bound = if leaf.ends_with(":max") { Bound::AtLeast } else { Bound::AtMost };
        let leaf = number(&leaf.to_lowercase().replace(":max", ""));
        lines.push(format!("{leaf:#x} {bound:?} {:#x}", number(&value.as_str().unwrap_or("").to_lowercase())));
    }
    lines.extend(
        list(&facts["kvm_features_0x40000001_eax"]).iter().filter_map(Value::as_str).map(|name| format!("pv {name}")),
    );
    let leaves = list(&facts["handled_leaves"]);
    lines.extend(leaves.iter().filter_map(Value::as_str).map(|leaf| format!("case {:#x}", number(leaf))));
    lines
}

#[test]
fn the_tables_agree_with_facts_extracted_by_others() {
    let trees = TreeList::parse("trees.tsv", &stored("linux/trees.tsv").unwrap()).unwrap();
    let tables = KvmTables::parse(&trees, |file| Ok::<_, TableError>(stored(&format!("kvm/{file}")).unwrap())).unwrap();
    let mut compared = 0;
    for (index, tree) in trees.trees.iter().enumerate() {
        let path = shared().join(format!("facts/kvm-caps-{}.json", tree.label));
        let Ok(json) = fs::read_to_string(&path) else {
            eprintln!("skipped {tree}: {} is missing (CPUSIEVE_SHARED names the folder)", path.display());
            continue;
        };
        let facts = serde_json::from_str(&json).unwrap();
        let (ours, theirs) = (ours(&tables.facts(index).unwrap()), theirs(&facts));
        let known: BTreeSet<&str> =
            KNOWN.iter().filter(|(label, ..)| *label == tree.label).map(|(_, line, _)| *line).collect();
        let (a, b): (BTreeSet<&str>, BTreeSet<&str>) =
            (ours.iter().map(String::as_str).collect(), theirs.iter().map(String::as_str).collect());
        let differing: BTreeSet<&str> = a.symmetric_difference(&b).copied().collect();
        assert_eq!(differing, known, "{tree}");
        // The order of adjustments, which carries meaning.
        let order = |lines: &[String]| -> Vec<String> {
            let sites = ["common ", "common-late ", "intel ", "amd "];
            let adjusts = lines.iter().filter(|line| sites.iter().any(|site| line.starts_with(site)));
            adjusts.filter(|line| !known.contains(line.as_str())).cloned().collect()
        };
        assert_eq!(order(&ours), order(&theirs), "{tree}");
        compared += 1;
    }
    eprintln!("compared {compared} of {} trees", trees.trees.len());
}
