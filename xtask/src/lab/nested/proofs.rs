//! What the program told inside a host, held against what the laboratory counted there by itself, and against predictions.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use cpusieve_stages::kvm::answer::calls::by_qemu;
use serde_json::Value;

use super::compare::{Asking, Verdict};
use super::matrix::{self, Job};

type Sections = BTreeMap<String, String>;

/// Counts by words.
type Table = BTreeMap<Vec<String>, u64>;

/// Every proof of a job, from the host's report.
pub(super) fn proofs(sections: &Sections, asking: &Option<Asking>, job: &Job<'_>) -> Vec<Verdict> {
    let mut verdicts = vec![by_probe(sections), by_functions(sections)];
    verdicts.extend(as_in_corpus(sections, job));
    verdicts.push(match asking {
        Some(asking) => by_way_of_qemu(sections, asking),
        None => Verdict::failed("trace host of QEMU", "nothing is predicted"),
    });
    if !job.guests.is_empty() {
        for name in ["hist", "events"] {
            verdicts.push(guests(sections, name));
        }
        verdicts.push(starved(sections));
    }
    verdicts.extend(verify(sections, job.parts));
    verdicts.extend([kills(sections, job), vanishes(sections)]);
    verdicts
}

/// What a run of the program printed as JSON.
fn printed(sections: &Sections, name: &str) -> Result<Value, String> {
    let ended = sections.get(&format!("{name}.ended")).ok_or("it was not run, or did not begin")?;
    let why = || ended.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = sections.get(name).map(String::as_str).unwrap_or_default();
    let value: Value = serde_json::from_str(text).map_err(|error| format!("{error}; exit status {}", why()))?;
    match value.get("refused").and_then(Value::as_str) {
        Some(refused) => Err(refused.to_owned()),
        None => Ok(value),
    }
}

/// The table of a section whose lines are `COUNT WORD...`.
fn table(sections: &Sections, name: &str) -> Option<Table> {
    let line = |line: &str| {
        let (count, words) = line.split_once(' ')?;
        Some((words.split(' ').map(str::to_owned).collect(), count.parse().ok()?))
    };
    sections.get(name).map(|text| text.lines().filter_map(line).collect())
}

/// The rows whose first word is this one, without it.
fn rows(table: &Table, kind: &str) -> Table {
    let of = table.iter().filter(|(words, _)| words.first().is_some_and(|word| word == kind));
    of.map(|(words, count)| (words.get(1..).unwrap_or_default().to_vec(), *count)).collect()
}

fn sum(table: &Table) -> u64 {
    table.values().sum()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// A field that is a list.
fn list<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value[name].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A leaf that the program printed, as a number.
fn leaf(row: &Value) -> Option<u32> {
    row["leaf"].as_str().and_then(|text| u32::from_str_radix(text.trim_start_matches("0x"), 16).ok())
}

/// A line for each key whose counts differ.
fn different(what: &str, raw: &Table, told: &Table) -> Vec<String> {
    let keys: BTreeSet<_> = raw.keys().chain(told.keys()).collect();
    let of = |table: &Table, key: &Vec<String>| table.get(key).copied().unwrap_or(0);
    let differing = keys.into_iter().filter(|key| of(raw, key) != of(told, key));
    differing
        .map(|key| format!("{what} {}: raw text {}, trace {}", key.join(" "), of(raw, key), of(told, key)))
        .collect()
}

fn unequal(what: &str, raw: u64, told: u64) -> Option<String> {
    (raw != told).then(|| format!("{what}: raw text {raw}, trace {told}"))
}

/// The calls of one ioctl as another laboratory counted them (`corpus/guests-kvm`), where it had this processor and kernel.
fn as_in_corpus(sections: &Sections, job: &Job<'_>) -> Option<Verdict> {
    let path = crate::root().join(format!("corpus/guests-kvm/k{}-max.json", job.kernel));
    let text = fs::read_to_string(path).ok().filter(|_| job.cpu == matrix::LONG)?;
    let what = "do_host_cpuid as in the corpus";
    let Ok(capture) = serde_json::from_str::<Value>(&text) else {
        return Some(Verdict::failed(what, "the corpus cannot be read"));
    };
    let theirs: Vec<&str> = list(&capture, "supported_cpuid_calls").iter().filter_map(Value::as_str).collect();
    let ours: Vec<&str> = sections.get("calls").map(|text| text.lines().collect()).unwrap_or_default();
    let first = (0..ours.len().max(theirs.len())).find(|&place| ours.get(place) != theirs.get(place));
    let differences = first.map(|place| {
        let of = |calls: &[&str]| calls.get(place).map_or_else(|| "none".to_owned(), ToString::to_string);
        format!("call {}: {}, in the corpus {}", place + 1, of(&ours), of(&theirs))
    });
    Some(Verdict::new(what, format!("{} calls in the same order", ours.len()), differences.into_iter().collect()))
}

/// The calls of a section, as counts by leaf.
fn calls_by_leaf(sections: &Sections, name: &str) -> Table {
    let mut counts = Table::new();
    for line in sections.get(name).map(String::as_str).unwrap_or_default().lines() {
        let leaf = line.split('/').next().unwrap_or_default().trim_start_matches("0x");
        *counts.entry(vec![leaf.to_owned()]).or_default() += 1;
    }
    counts
}

/// The calls that the program counted, by leaf.
fn told_by_leaf(told: &Value) -> Table {
    let mut counts = Table::new();
    for row in list(&told["host"], "leaves") {
        let leaf = leaf(row).map_or_else(String::new, |leaf| format!("{leaf:x}"));
        *counts.entry(vec![leaf]).or_default() += number(&row["count"]);
    }
    counts
}

/// The stacks that the program counted.
fn told_stacks(told: &Value) -> Table {
    let mut counts = Table::new();
    for row in list(&told["host"], "stacks") {
        let frames: Vec<_> = list(row, "stack").iter().filter_map(Value::as_str).collect();
        *counts.entry(vec![frames.join(";")]).or_default() += number(&row["count"]);
    }
    counts
}

/// `trace host` while KVM is asked once, against the raw text of another kprobe: leaves, stacks, and the prediction.
fn by_probe(sections: &Sections) -> Verdict {
    let what = "trace host (kprobe)";
    let told = match printed(sections, "watch.probe") {
        Ok(told) => told,
        Err(error) => return Verdict::failed(what, error),
    };
    let raw = calls_by_leaf(sections, "calls");
    let stacks = table(sections, "stacks").unwrap_or_default();
    let mut differences = different("leaf", &raw, &told_by_leaf(&told));
    differences.extend(different("stack", &stacks, &told_stacks(&told)));
    let ioctls = &told["host"]["predicted"];
    if number(&ioctls["complete"]) != 1 || !list(ioctls, "other").is_empty() {
        differences.push(format!("not one complete ioctl as predicted: {ioctls}"));
    }
    differences.extend(lost(&told));
    Verdict::new(
        what,
        format!("{} calls, {} different stacks as in the raw text", sum(&raw), stacks.len()),
        differences,
    )
}

/// The same by the function tracer, which knows arguments or stacks.
fn by_functions(sections: &Sections) -> Verdict {
    let what = "trace host --functions";
    let told = match printed(sections, "watch.functions") {
        Ok(told) => told,
        Err(error) => return Verdict::failed(what, error),
    };
    let raw = calls_by_leaf(sections, "calls");
    let leaves = told_by_leaf(&told);
    let host = &told["host"];
    let mut differences: Vec<_> = unequal("calls", sum(&raw), number(&host["calls"])).into_iter().collect();
    if told["source"] != "function tracer" {
        differences.push(format!("counted by {}", told["source"]));
    }
    let knows = if leaves.is_empty() {
        // The tracer's own frames may be in front; how often and from where is the same.
        let stacks: u64 = list(host, "stacks").iter().map(|row| number(&row["count"])).sum();
        differences.extend(unequal("stacks", sum(&raw), stacks));
        let from = |row: &Value| list(row, "stack").iter().any(|frame| frame == "kvm_dev_ioctl_get_cpuid");
        if !list(host, "stacks").iter().all(from) {
            differences.push(format!("a stack without kvm_dev_ioctl_get_cpuid: {}", host["stacks"]));
        }
        "stacks"
    } else {
        differences.extend(different("leaf", &raw, &leaves));
        "leaves"
    };
    differences.extend(lost(&told));
    Verdict::new(what, format!("{} calls with {knows} as in the raw text", sum(&raw)), differences)
}

/// `trace host` while QEMU learns what KVM offers, against the raw text and against the prediction of QEMU's attempts.
fn by_way_of_qemu(sections: &Sections, asking: &Asking) -> Verdict {
    let what = "trace host of QEMU";
    let told = match printed(sections, "watch.qemu") {
        Ok(told) => told,
        Err(error) => return Verdict::failed(what, error),
    };
    let raw = calls_by_leaf(sections, "calls.qemu");
    let mut differences = different("leaf", &raw, &told_by_leaf(&told));
    let predicted = by_qemu(&asking.calls, asking.entries, asking.tree);
    let predicted: Table =
        predicted.into_iter().map(|(leaf, count)| (vec![format!("{leaf:x}")], count as u64)).collect();
    if predicted != raw {
        let lines = different("predicted leaf", &raw, &predicted);
        differences.extend(lines.iter().map(|line| line.replace("trace", "prediction")));
    }
    let ioctls = &told["host"]["predicted"];
    if number(&ioctls["complete"]) == 0 || !list(ioctls, "other").is_empty() {
        differences.push(format!("not as predicted: {ioctls}"));
    }
    differences.extend(lost(&told));
    let short = list(ioctls, "short").len();
    Verdict::new(what, format!("{} calls as predicted, {short} attempts with too little room", sum(&raw)), differences)
}

/// Events that were lost where none should be.
fn lost(told: &Value) -> Option<String> {
    let lost = &told["lost"];
    (number(&lost["events"]) != 0 || lost["more"] == true).then(|| format!("events were lost: {lost}"))
}

/// `trace guests` of a whole boot, against the raw text: CPUIDs by thread and leaf, exits, and where they came from.
fn guests(sections: &Sections, name: &str) -> Verdict {
    let what = format!("trace guests ({name})");
    let (told, raw) = match (printed(sections, &format!("watch.{name}")), table(sections, "raw")) {
        (Ok(told), Some(raw)) => (told, raw),
        (Err(error), _) => return Verdict::failed(&what, error),
        (_, None) => return Verdict::failed(&what, "nobody counted the raw text"),
    };
    let seen = &told["guests"];
    let cpuid = rows(&raw, "cpuid");
    let mut differences = by_vcpu(&cpuid, seen);
    let exits = rows(&raw, "exit");
    differences.extend(unequal("exits", sum(&exits), number(&seen["exits"])));
    differences.extend(unequal("CPUIDs", sum(&cpuid), number(&seen["cpuid"])));
    let rip = |row: &Value| Some((vec![row["rip"].as_str()?.to_owned()], number(&row["count"])));
    let told_rips: Table = list(seen, "rips").iter().filter_map(rip).collect();
    differences.extend(different("RIP", &rows(&raw, "rip"), &told_rips));
    let missing = list(seen, "leaves").iter().map(|row| number(&row["not_found"])).sum();
    differences.extend(unequal("not in the table", sum(&rows(&raw, "missing")), missing));
    differences.extend(vcpus(&exits, seen));
    differences.extend(lost(&told));
    let text_lost = sum(&rows(&raw, "lost"));
    if text_lost > 0 {
        differences.push(format!("the raw text itself lacks {text_lost} events"));
    }
    let threads: BTreeSet<_> = cpuid.keys().filter_map(|words| words.first()).collect();
    let said = format!("{} CPUIDs of {} vCPUs in {} exits", sum(&cpuid), threads.len(), sum(&exits));
    Verdict::new(&what, said, differences)
}

/// The counts of each thread and leaf; subleaves where the program tells them.
fn by_vcpu(cpuid: &Table, seen: &Value) -> Vec<String> {
    let (mut raw, mut told) = (Table::new(), Table::new());
    let mut exact = BTreeSet::new();
    for row in list(seen, "by_vcpu") {
        let (pid, leaf) = (row["pid"].to_string(), leaf(row).map_or_else(String::new, |leaf| format!("{leaf:x}")));
        let mut key = vec![pid, leaf.clone()];
        if let Some(subleaf) = row["subleaf"].as_u64() {
            exact.insert(leaf);
            key.push(format!("{subleaf:x}"));
        }
        *told.entry(key).or_default() += number(&row["count"]);
    }
    for (words, count) in cpuid {
        let leaf = words.get(1).map(String::as_str).unwrap_or_default();
        let length = if exact.contains(leaf) { 3 } else { 2 };
        *raw.entry(words.iter().take(length).cloned().collect()).or_default() += count;
    }
    different("thread and leaf", &raw, &told)
}

/// Which thread ran which vCPU, where the program knows it.
fn vcpus(exits: &Table, seen: &Value) -> Vec<String> {
    let known = list(seen, "vcpus").iter().filter(|row| row["vcpu"].is_u64());
    let wrong = known.filter(|row| !exits.contains_key(&vec![row["pid"].to_string(), row["vcpu"].to_string()]));
    wrong.map(|row| format!("thread {} did not run vCPU {}", row["pid"], row["vcpu"])).collect()
}

/// The same by a reader that had no time to read: what it counted and what it says that it lost is what there was.
fn starved(sections: &Sections) -> Verdict {
    let what = "trace guests (events lost)";
    let (told, raw) = match (printed(sections, "watch.starved"), table(sections, "raw")) {
        (Ok(told), Some(raw)) => (told, raw),
        (Err(error), _) => return Verdict::failed(what, error),
        (_, None) => return Verdict::failed(what, "nobody counted the raw text"),
    };
    let there = sum(&rows(&raw, "cpuid")) + sum(&rows(&raw, "rip"));
    let seen = &told["guests"];
    let rips: u64 = list(seen, "rips").iter().map(|row| number(&row["count"])).sum();
    let (counted, lost) = (number(&seen["cpuid"]) + rips, number(&told["lost"]["events"]));
    let mut differences: Vec<_> = unequal("counted and lost", there, counted + lost).into_iter().collect();
    if lost == 0 || list(&told, "doubts").is_empty() {
        differences.push("nothing was lost, or the loss is not told as a doubt".to_owned());
    }
    differences.extend(unequal("exits", sum(&rows(&raw, "exit")), number(&seen["exits"])));
    Verdict::new(what, format!("{counted} counted and {lost} lost of {there}"), differences)
}

/// The parts of `verify`.
fn verify(sections: &Sections, parts: &[&str]) -> Vec<Verdict> {
    let found = match printed(sections, "verify") {
        Ok(found) => found,
        Err(error) => return vec![Verdict::failed("verify", error)],
    };
    let mut verdicts = Vec::new();
    for part in list(&found, "parts") {
        let what = format!("verify {}", part["part"].as_str().unwrap_or_default());
        let of = list(&found, "differences").iter().filter(|one| one["part"] == part["part"]);
        let mut differences: Vec<String> = Vec::new();
        if number(&part["differences"]) > 0 {
            let line = |one: &Value| format!("{}: predicted {}, real {}", one["what"], one["predicted"], one["real"]);
            differences.extend(of.map(line));
        }
        let unseen = list(part, "unseen").iter().filter_map(Value::as_str);
        differences.extend(unseen.map(|unseen| format!("not compared: {unseen}")));
        let took = part["microseconds"].as_u64();
        let took = took.map_or_else(String::new, |took| format!(" in {:.1} s of the emulator's", took as f64 / 1e6));
        let (of, counted) = (part["of"].as_str().unwrap_or_default(), part["counted"].as_str().unwrap_or_default());
        let plural = counted.strip_suffix('y').map_or_else(|| format!("{counted}s"), |stem| format!("{stem}ies"));
        let said = format!("{of}: {} {plural}{took}", number(&part["compared"]));
        // What had no time proves nothing against the prediction.
        let late = differences.iter().any(|line| line.contains("did not end within"));
        verdicts.push(match number(&part["compared"]) {
            0 => Verdict { late, ..Verdict::failed(&what, differences.join("; ")) },
            _ => Verdict::new(&what, said, differences),
        });
    }
    for name in parts {
        if !list(&found, "parts").iter().any(|part| part["part"] == *name) {
            verdicts.push(Verdict::failed(&format!("verify {name}"), "it is not in the answer"));
        }
    }
    verdicts
}

/// What is left in tracefs after kills and one more start.
fn kills(sections: &Sections, job: &Job<'_>) -> Verdict {
    let what = "tracefs after kills";
    let Some(text) = sections.get("kills") else { return Verdict::failed(what, "it was not tried") };
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u32>().ok());
    let (killed, left) = (value("killed "), value("left ").unwrap_or(0));
    let lines = text.lines().filter(|line| !line.starts_with("killed ") && !line.starts_with("left "));
    let mut differences: Vec<String> = lines.map(str::to_owned).collect();
    if killed != Some(job.kills) || left == 0 {
        differences.push(format!("{killed:?} kills, of which {left} left anything: that proves nothing"));
    }
    Verdict::new(what, format!("{} kills, {left} left something, nothing is left", job.kills), differences)
}

/// What is left, and what was missed, if the mount or the instance goes away.
fn vanishes(sections: &Sections) -> Verdict {
    let what = "tracefs vanishes meanwhile";
    let Some(text) = sections.get("vanishes") else { return Verdict::failed(what, "it was not tried") };
    Verdict::new(
        what,
        "five watches ended as they should, nothing is left".to_owned(),
        text.lines().map(str::to_owned).collect(),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Two vCPUs: leaf 7 with its subleaves, leaf 1, whose ECX is chance, and one exit more.
    const RAW: &str = "2 cpuid 208 1 57\n1 cpuid 208 1 58\n4 cpuid 209 7 1\n4 missing 7 1\n3 exit 208 0\n5 exit 209 1\n7 rip 0x10\n0 lost\n";

    fn told() -> Value {
        json!({
            "lost": {"events": 0, "more": false},
            "doubts": [],
            "guests": {
                "cpuid": 7, "exits": 8,
                "vcpus": [{"pid": 208, "vcpu": null}, {"pid": 209, "vcpu": 1}],
                "leaves": [{"leaf": "0x00000001", "not_found": 0}, {"leaf": "0x00000007", "subleaf": 1, "not_found": 4}],
                "by_vcpu": [
                    {"leaf": "0x00000001", "subleaf": null, "pid": 208, "count": 3},
                    {"leaf": "0x00000007", "subleaf": 1, "pid": 209, "count": 4},
                ],
                "rips": [{"rip": "0x10", "count": 7}],
            },
        })
    }

    fn sections(name: &str, told: &Value) -> Sections {
        let section = |name: String, text: String| (name, text);
        Sections::from([
            section("raw".to_owned(), RAW.to_owned()),
            section(format!("{name}.ended"), "0\n".to_owned()),
            section(name.to_owned(), told.to_string()),
        ])
    }

    #[test]
    fn equal_counts_are_no_difference_and_every_other_count_is_one() {
        let verdict = guests(&sections("watch.hist", &told()), "hist");
        assert_eq!((verdict.differences, verdict.said.as_str()), (Vec::new(), "7 CPUIDs of 2 vCPUs in 8 exits"));
        let places =
            ["/guests/cpuid", "/guests/exits", "/guests/by_vcpu/1/count", "/guests/by_vcpu/0/pid", "/lost/events"];
        let more = ["/guests/rips/0/count", "/guests/leaves/1/not_found", "/guests/vcpus/1/vcpu"];
        for place in places.into_iter().chain(more) {
            let mut other = told();
            *other.pointer_mut(place).unwrap() = json!(77);
            assert!(!guests(&sections("watch.hist", &other), "hist").differences.is_empty(), "{place}");
        }
    }

    #[test]
    fn what_was_counted_and_lost_is_what_there_was() {
        let mut few = told();
        few["guests"]["cpuid"] = json!(2);
        few["guests"]["rips"] = json!([]);
        few["lost"]["events"] = json!(12);
        few["doubts"] = json!(["12 events were lost: the counts are too low"]);
        assert_eq!(starved(&sections("watch.starved", &few)).differences, Vec::<String>::new());
        few["lost"]["events"] = json!(11);
        assert_eq!(starved(&sections("watch.starved", &few)).differences, ["counted and lost: raw text 14, trace 13"]);
    }

    #[test]
    fn what_was_not_run_or_was_refused_proves_nothing() {
        let refused = json!({"refused": "no tracefs"});
        assert!(!guests(&sections("watch.hist", &refused), "hist").compared);
        assert!(proofs(&Sections::new(), &None, &matrix::all()[4]).iter().all(|one| !one.compared));
    }
}
