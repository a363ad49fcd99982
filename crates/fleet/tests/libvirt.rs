//! libvirt's own cases of comparing and of baselines: sets of features as it has them, where the case file holds enough.
//!
//! The case file names most inputs of libvirt's tests by file. Those that it shows as the result of another case are
//! rebuilt from there; those of which nothing is shown cannot be judged, and are counted.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests read files and say what they saw"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cpusieve_fleet::{Answer, Definition, answer, feature, newest};
use cpusieve_model::ModelExpansion;
use serde_json::Value;

fn shared() -> PathBuf {
    let folder = std::env::var_os("CPUSIEVE_SHARED").map(PathBuf::from);
    folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"))
}

fn cases() -> Option<Vec<Value>> {
    let file = shared().join("facts/libvirt-baseline-cases.json");
    let Ok(text) = std::fs::read_to_string(&file) else {
        eprintln!("skipped: {} is not there", file.display());
        return None;
    };
    Some(serde_json::from_str::<Value>(&text).unwrap()["cases"].as_array().unwrap().clone())
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().map(|list| list.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

/// A `<cpu>` as the case file tells it of a result.
fn definition(told: &Value) -> Option<Definition> {
    let name = told["model"].as_str()?.to_owned();
    let mut expansion = ModelExpansion { name, ..ModelExpansion::default() };
    for (policy, is_on) in [("require", true), ("disable", false)] {
        for name in strings(&told[policy]) {
            expansion.flags.insert(name.to_owned(), is_on);
        }
    }
    for (field, key) in [("vendor", "libvirt-vendor"), ("match", "libvirt-match")] {
        if let Some(text) = told[field].as_str() {
            expansion.other.insert(key.to_owned(), format!("\"{text}\""));
        }
    }
    let kind = if told["mode"].is_null() { "host" } else { "guest" };
    expansion.other.insert("libvirt-cpu".to_owned(), format!("\"{kind}\""));
    Definition::of_expansion(&expansion).map_err(|error| eprintln!("{}: {error}", told["file"])).ok()
}

/// Every definition that a case shows as its result, by file.
fn results(cases: &[Value]) -> BTreeMap<String, Definition> {
    let fields = ["expected", "expected_host", "expected_guest", "expected_json"];
    let shown = cases.iter().flat_map(|case| fields.iter().map(|field| &case[*field]));
    shown.filter_map(|told| Some((told["file"].as_str()?.to_owned(), definition(told)?))).collect()
}

fn ids<'n>(names: impl IntoIterator<Item = &'n str>) -> BTreeSet<&'static str> {
    let catalogue = newest();
    names.into_iter().map(|name| feature(name, &catalogue).unwrap_or_else(|| panic!("{name}"))).collect()
}

/// Features that QEMU's newest definitions of models have and libvirt's map does not count as part of them: put into QEMU's
/// models, and marked `added` or left out of the map so that running guests keep their definition
/// (`src/cpu_map/x86_*.xml`).
const NOT_IN_THE_MAP: [&str; 6] = ["vme", "arat", "pclmulqdq", "topoext", "pku", "xsaveopt"];

/// What one side has and the other has not: what nothing explains, and what libvirt's map leaves out of models. Of its own
/// sets libvirt leaves these out; of two definitions expanded by our tables, either may have them.
struct Differences {
    unexplained: Vec<String>,
    marks: BTreeSet<&'static str>,
}

impl Differences {
    fn of(one: &BTreeSet<&'static str>, other: &BTreeSet<&'static str>, both_expanded: bool) -> Self {
        let marked = |id: &&str| NOT_IN_THE_MAP.contains(id);
        let (mut unexplained, mut marks) = (Vec::new(), BTreeSet::new());
        for id in one.difference(other) {
            if marked(id) { _ = marks.insert(*id) } else { unexplained.push(format!("+{id}")) }
        }
        for id in other.difference(one) {
            if both_expanded && marked(id) { _ = marks.insert(*id) } else { unexplained.push(format!("-{id}")) }
        }
        Self { unexplained, marks }
    }

    fn verdict(self) -> Verdict {
        let marks: Vec<&str> = self.marks.into_iter().collect();
        match (self.unexplained.is_empty(), marks.is_empty()) {
            (true, true) => Agrees,
            (true, false) => {
                Listed(format!("in QEMU's model, added later or not at all in libvirt's map: {}", marks.join(" ")))
            }
            (false, _) => Differs(self.unexplained.join(" ")),
        }
    }
}

/// What came of a case.
enum Verdict {
    Agrees,
    /// The sets differ, for a reason of libvirt's own.
    Listed(String),
    Differs(String),
    /// Not judged, and why.
    Open(String),
}

use Verdict::{Agrees, Differs, Listed, Open};

/// Everything that cases are judged by.
struct Court {
    cases: Vec<Value>,
    /// Definitions that some case shows as its result, by file.
    known: BTreeMap<String, Definition>,
}

fn text<'v>(case: &'v Value, field: &str) -> &'v str {
    case[field].as_str().unwrap_or("")
}

impl Court {
    fn judge(&self, case: &Value) -> Verdict {
        match text(case, "kind") {
            "baseline" | "cpuid-baseline" => self.baseline(case),
            "cpuid" => cpuid(case),
            "compare" => self.compare(case),
            "has-feature" => self.has_feature(case),
            "update" => self.update(case),
            "guest-cpu" => self.guest_cpu(case),
            kind => Differs(format!("a kind of case that is not known: {kind}")),
        }
    }

    fn missing(files: &[&str]) -> Verdict {
        Open(format!("what is in {} is not among the facts", files.join(" and ")))
    }

    /// The intersection of the inputs, or where they are only counted, libvirt's own result expanded by our tables.
    fn baseline(&self, case: &Value) -> Verdict {
        let inputs: Option<Vec<Definition>> = match case["inputs"].as_array() {
            Some(files) => files.iter().map(|file| self.known.get(file.as_str().unwrap()).cloned()).collect(),
            // Features beside the model are only counted there.
            None => {
                let cpus = case["cpus"].as_array().unwrap().iter();
                cpus.map(|cpu| if cpu["features"] == 0 { definition(cpu) } else { None }).collect()
            }
        };
        let mut libvirts = ids(strings(&case["sets"]["intersection"]));
        let ours = match (inputs, definition(&case["expected"])) {
            (Some(inputs), _) => {
                let mut all = inputs.iter().map(Definition::expanded);
                let first = all.next().unwrap();
                all.fold(first, |all, one| all.intersection(&one).copied().collect())
            }
            (None, Some(result)) => {
                if case["migratable"] == true {
                    libvirts.remove("invtsc");
                }
                result.expanded()
            }
            (None, None) => return Open("neither its inputs nor its result are among the facts".to_owned()),
        };
        Differences::of(&ours, &libvirts, false).verdict()
    }

    fn compare(&self, case: &Value) -> Verdict {
        let (host, cpu) = (text(case, "host"), text(case, "cpu"));
        let (Some(known_host), Some(known_cpu)) = (self.known.get(host), self.known.get(cpu)) else {
            let missing: Vec<&str> = [host, cpu].into_iter().filter(|file| !self.known.contains_key(*file)).collect();
            return Self::missing(&missing);
        };
        let ours = match answer(known_host, known_cpu) {
            Answer::Identical => "IDENTICAL",
            Answer::Superset => "SUPERSET",
            Answer::Incompatible => "INCOMPATIBLE",
        };
        if case["expected"] == ours { Agrees } else { Differs(format!("{ours} here")) }
    }

    fn has_feature(&self, case: &Value) -> Verdict {
        let Some(host) = self.known.get(text(case, "host")) else { return Self::missing(&[text(case, "host")]) };
        let found = feature(text(case, "feature"), &newest()).map(|id| host.expanded().contains(id));
        if found == case["expected"].as_bool() { Agrees } else { Differs(format!("{found:?} here")) }
    }

    /// A host-model, and a guest that takes at least something (`match='minimum'`), become what the host is.
    fn update(&self, case: &Value) -> Verdict {
        let Some(result) = definition(&case["expected"]) else {
            return Open("a host-passthrough names no model, so there is no set to compare".to_owned());
        };
        let becomes_the_host = ["x86_64-min.xml", "x86_64-pentium3.xml"].contains(&text(case, "cpu"))
            || text(case, "cpu").starts_with("x86_64-host-model");
        match self.known.get(text(case, "host")) {
            Some(host) if becomes_the_host => Differences::of(&result.expanded(), &host.expanded(), true).verdict(),
            Some(_) => self.same_as_others(case, &result),
            None => Self::missing(&[text(case, "host")]),
        }
    }

    /// To give a CPU another model does not change what it has, so results for one CPU on one host have one set.
    fn guest_cpu(&self, case: &Value) -> Verdict {
        let allowed = strings(&case["allowed_models"]);
        if case["expected"] != "error" {
            return definition(&case["expected"]).map_or_else(
                || Open("the result is not among the facts".to_owned()),
                |result| self.same_as_others(case, &result),
            );
        }
        let release = newest().release;
        if allowed.iter().all(|name| cpusieve_knowledge::qemu::resolve(release, name).is_none()) {
            // None of the models that would be allowed is one.
            return Agrees;
        }
        let shown = self.cases.iter().map(|other| &other["expected"]).find(|told| told["file"] == case["cpu"]);
        match shown {
            Some(told) if told["fallback"] == "forbid" && !allowed.contains(&text(told, "model")) => Agrees,
            Some(told) => Differs(format!("{} could be another model here", told["file"])),
            None => Self::missing(&[text(case, "cpu")]),
        }
    }

    /// The results of other cases for the same CPU on the same host, or that CPU itself.
    fn same_as_others(&self, case: &Value, result: &Definition) -> Verdict {
        let same = |other: &&Value| {
            other["id"] != case["id"] && (&other["host"], &other["cpu"]) == (&case["host"], &case["cpu"])
        };
        let others = self.cases.iter().filter(|other| ["update", "guest-cpu"].contains(&text(other, "kind")));
        let mut others: Vec<Definition> =
            others.filter(same).filter_map(|other| definition(&other["expected"])).collect();
        if text(case, "kind") == "guest-cpu" {
            others.extend(self.known.get(text(case, "cpu")).cloned());
        }
        if others.is_empty() {
            return Self::missing(&[text(case, "cpu")]);
        }
        let ours = result.expanded();
        let mut sum = Differences { unexplained: Vec::new(), marks: BTreeSet::new() };
        for other in &others {
            let one = Differences::of(&ours, &other.expanded(), true);
            sum.unexplained.extend(one.unexplained);
            sum.marks.extend(one.marks);
        }
        // QEMU's qemu64 has SVM, which it takes from every guest of KVM (`target/i386/kvm/kvm-cpu.c:kvm_default_props`);
        // libvirt's results name it neither as had nor as disabled.
        if sum.unexplained.iter().all(|differs| differs.ends_with("svm")) && !sum.unexplained.is_empty() {
            return Listed("svm, in QEMU's qemu64 and off under KVM, is not named when that model is taken".to_owned());
        }
        sum.verdict()
    }
}

/// One CPU under two names, libvirt's for hosts and its for guests: both expand to one set. Where QEMU's reply is at hand,
/// libvirt's definition of what QEMU provides has nothing in it that QEMU said is off.
fn cpuid(case: &Value) -> Verdict {
    let (Some(host), Some(guest)) = (definition(&case["expected_host"]), definition(&case["expected_guest"])) else {
        return Open("its definitions are not among the facts".to_owned());
    };
    let mut differ = Differences::of(&guest.expanded(), &host.expanded(), true);
    // What QEMU says is not available with the guest's model is disabled in the guest's definition, whatever the host has
    // (the blockers of `src/cpu/cpu_x86.c`): the same is disabled in the definition of what QEMU provides.
    let disabled = ids(strings(&case["expected_json"]["disable"]));
    let blocked = |differs: &String| differs.strip_prefix('-').is_some_and(|id| disabled.contains(id));
    let (blocked, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut differ.unexplained).into_iter().partition(blocked);
    differ.unexplained = rest;
    let reply = case["qemu_json"].as_str().map(|file| shared().join("corpus/libvirt").join(file));
    if let (Some(bytes), Some(told)) =
        (reply.and_then(|file| std::fs::read(file).ok()), definition(&case["expected_json"]))
    {
        let seen = cpusieve_formats::read("reply", &bytes).snapshot;
        let flags = &seen.expansions.first().unwrap().flags;
        let catalogue = newest();
        // What this QEMU does not know is neither on nor off.
        let off = |id: &&str| {
            let mut names = catalogue.properties().iter().filter(|property| property.id == *id);
            names.find_map(|property| flags.get(property.name).copied()) == Some(false)
        };
        let wrong: Vec<_> = told.expanded().into_iter().filter(|id| off(id) && !NOT_IN_THE_MAP.contains(id)).collect();
        differ.unexplained.extend(wrong.iter().map(|id| format!("off in QEMU: {id}")));
    }
    match differ.verdict() {
        Agrees if !blocked.is_empty() => {
            Listed(format!("QEMU has it not with this model, so libvirt disables it for guests: {}", blocked.join(" ")))
        }
        verdict => verdict,
    }
}

#[test]
fn every_case_is_judged_or_said_why_not() {
    let Some(cases) = cases() else { return };
    let mut known = results(&cases);
    // libvirt's test host is what host-model becomes on it.
    if let Some(host) = known.get("x86_64-host+host-model.xml").cloned() {
        known.insert("x86_64-host.xml".to_owned(), Definition { guest: false, strict: false, ..host });
    }
    let court = Court { cases, known };
    let (mut tally, mut wrong) = (BTreeMap::<&str, [usize; 3]>::new(), Vec::new());
    for case in &court.cases {
        let counts = tally.entry(text(case, "kind")).or_default();
        match court.judge(case) {
            Agrees => counts[0] += 1,
            Listed(why) => {
                counts[1] += 1;
                eprintln!("{}: {why}", text(case, "id"));
            }
            Open(why) => {
                counts[2] += 1;
                eprintln!("{}: not judged: {why}", text(case, "id"));
            }
            Differs(what) => wrong.push(format!("{}: {what}", text(case, "id"))),
        }
    }
    eprintln!("{:<16} {:>6} {:>7} {:>10}", "kind", "agree", "listed", "not judged");
    let mut sum = [0; 3];
    for (kind, counts) in &tally {
        eprintln!("{kind:<16} {:>6} {:>7} {:>10}", counts[0], counts[1], counts[2]);
        (0..3).for_each(|at| sum[at] += counts[at]);
    }
    eprintln!("{:<16} {:>6} {:>7} {:>10}", "all", sum[0], sum[1], sum[2]);
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(sum[0] + sum[1] >= 100, "more than two thirds of the cases have what they need among the facts: {sum:?}");
}
