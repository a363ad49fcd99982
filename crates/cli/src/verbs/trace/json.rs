//! The JSON of `trace`.

use cpusieve_trace::count::{Asked, Guests, Host, Pid, Tally};
use cpusieve_trace::tracefs::Refusal;
use serde_json::{Map, Value, json};

use super::Seen;
use crate::args::Whose;
use crate::json::pretty;

/// The answer of `trace guests` and `trace host`.
pub(super) fn counts(seen: &Seen) -> String {
    let mut fields = Map::new();
    let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
    let of_guests = seen.whose == Whose::Guests;
    put("format", json!(1));
    put("watched", json!(watched(seen.whose)));
    put("source", json!(seen.source));
    put("seconds", json!(seen.time.map(|time| time.as_secs_f64())));
    put("lost", json!({"events": seen.counts.lost.events, "more": seen.counts.lost.more}));
    put("doubts", json!(seen.doubts));
    // A file may hold both.
    if of_guests {
        put("guests", guests(seen, &seen.counts.guests));
    }
    if !of_guests || !seen.counts.host.calls.is_empty() {
        put("host", host(seen, &seen.counts.host));
    }
    pretty(&Value::Object(fields))
}

/// That nothing could be watched.
pub(super) fn refused(whose: Whose, refusal: &Refusal) -> String {
    pretty(&json!({"format": 1, "watched": watched(whose), "refused": refusal.to_string()}))
}

const fn watched(whose: Whose) -> &'static str {
    match whose {
        Whose::Guests => "guests",
        Whose::Host => "host",
        Whose::Exec => "exec",
    }
}

/// A leaf and subleaf, with further fields behind.
pub(super) fn question(asked: Asked) -> Map<String, Value> {
    let mut row = Map::new();
    row.insert("leaf".to_owned(), json!(format!("{:#010x}", asked.leaf)));
    row.insert("subleaf".to_owned(), json!(asked.subleaf));
    row
}

fn task(seen: &Seen, pid: Pid) -> Map<String, Value> {
    let task = pid.and_then(|pid| seen.counts.tasks.get(&pid));
    let mut row = Map::new();
    row.insert("pid".to_owned(), json!(pid));
    row.insert("name".to_owned(), json!(task.map(|task| &task.comm)));
    row.insert("vcpu".to_owned(), json!(task.and_then(|task| task.vcpu)));
    row
}

fn guests(seen: &Seen, guests: &Guests) -> Value {
    let total = guests.cpuid.total();
    let exits = guests.exit_count();
    let with = |mut row: Map<String, Value>, key: &str, value: Value| {
        row.insert(key.to_owned(), value);
        row
    };
    let vcpus = guests.by_task().into_iter().map(|(pid, count)| {
        let own = guests.exits.rows().filter(|((of, _), _)| *of == pid).map(|(_, count)| count).sum::<u64>();
        let own = (guests.all_exits.is_none() && exits.is_some()).then_some(own);
        with(with(task(seen, pid), "count", json!(count)), "exits", json!(own))
    });
    let by_question = guests.by_question();
    let leaves = by_question.rows().map(|(&asked, count)| {
        with(with(question(asked), "count", json!(count)), "not_found", json!(guests.not_found.get(&asked)))
    });
    let by_vcpu = guests
        .cpuid
        .rows()
        .map(|(&(pid, asked), count)| with(with(question(asked), "pid", json!(pid)), "count", json!(count)));
    let rips = guests.rips.most().into_iter().map(|(rip, count)| json!({"rip": format!("{rip:#x}"), "count": count}));
    json!({
        "cpuid": total,
        "per_second": seen.time.map(|time| total as f64 / time.as_secs_f64().max(f64::MIN_POSITIVE)),
        "exits": exits,
        "share": exits.filter(|&exits| exits > 0).map(|exits| total as f64 / exits as f64),
        "vcpus": vcpus.collect::<Vec<_>>(),
        "leaves": leaves.collect::<Vec<_>>(),
        "by_vcpu": by_vcpu.collect::<Vec<_>>(),
        "rips": rips.collect::<Vec<_>>(),
        "other": guests.cpuid.other(),
    })
}

fn host(seen: &Seen, host: &Host) -> Value {
    let leaves = rows(&host.calls);
    let stacks = host.stacks.most().into_iter().map(|((stack, pid), count)| {
        let mut row = task(seen, *pid);
        row.remove("vcpu");
        row.insert("stack".to_owned(), json!(stack));
        row.insert("count".to_owned(), json!(count));
        row
    });
    let ioctls = seen.compared.as_ref().map(|(compared, calls)| {
        let other = compared.other.iter().map(|(ioctl, same)| {
            let calls = ioctl.calls.iter().map(|(leaf, subleaf)| format!("{leaf:#x}.{subleaf:#x}"));
            json!({"pid": ioctl.pid, "as_predicted": same, "calls": calls.collect::<Vec<_>>()})
        });
        json!({
            "calls": calls, "complete": compared.complete, "short": compared.short,
            "other": other.collect::<Vec<_>>(),
        })
    });
    json!({
        "calls": host.calls.total().saturating_add(host.without_leaf),
        "without_leaf": host.without_leaf,
        "leaves": leaves,
        "stacks": stacks.collect::<Vec<_>>(),
        "predicted": ioctls,
    })
}

fn rows(tally: &Tally<Asked>) -> Vec<Map<String, Value>> {
    let rows = tally.rows().map(|(&asked, count)| {
        let mut row = question(asked);
        row.insert("count".to_owned(), json!(count));
        row
    });
    rows.collect()
}
