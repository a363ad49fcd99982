//! The answer as JSON, format 1.

use cpusieve_answers::predict::Assumption;
use cpusieve_answers::predict::way::NoWay;
use cpusieve_answers::reason;
use cpusieve_answers::rehearse::{
    Change, Flags, OnGuest, OnHost, Order, Pinned, Rehearsal, Stack, Value as Register, Verdict, View, commands,
};
use cpusieve_formats::firecracker::print_template;
use cpusieve_model::Place;
use serde_json::{Map, Value, json};

use crate::json;

/// The whole answer.
pub(super) fn answer(found: &Rehearsal, skipped: &[(String, String)]) -> String {
    let commands = commands(found);
    let commands = commands
        .iter()
        .map(|command| json!({"when": command.phase.name(), "what": command.what, "lines": command.lines}));
    json::pretty(&json!({
        "format": 1,
        "vmm": found.vmm,
        "before": stack(&found.before),
        "after": stack(&found.after),
        "hosts": found.hosts.iter().flatten().map(host).collect::<Vec<_>>(),
        "order": found.order.as_ref().map(order),
        "commands": commands.collect::<Vec<_>>(),
        "skipped": skipped.iter().map(|(input, why)| json!({"input": input, "why": why})).collect::<Vec<_>>(),
    }))
}

fn stack(stack: &Stack) -> Value {
    let params = stack.params.iter().map(|(name, value)| (name.clone(), json!(value)));
    json!({
        "host_kernel": stack.kernel,
        "vmm": stack.vmm,
        "machine": stack.machine,
        "microcode": stack.microcode.map(|revision| format!("{revision:#x}")),
        "kvm_params": params.collect::<Map<_, _>>(),
    })
}

fn host(host: &OnHost) -> Value {
    json!({
        "host": host.name,
        "flags": flags(&host.flags),
        "doubts": host.doubts,
        "guests": host.guests.iter().map(guest).collect::<Vec<_>>(),
    })
}

fn flags(flags: &Flags) -> Value {
    let renamed = flags.renamed.iter().map(|(before, after)| json!({"before": before, "after": after}));
    json!({"gained": flags.gained, "lost": flags.lost, "renamed": renamed.collect::<Vec<_>>()})
}

fn guest(guest: &OnGuest) -> Value {
    let tree = guest.after.as_ref().ok().and_then(|view| view.tree).unwrap_or(0);
    let changes = |gained: bool| -> Vec<Value> {
        guest.changes.iter().filter(|change| change.gained == gained).map(|one| change(one, tree)).collect()
    };
    json!({
        "guest": guest.guest.name,
        "libvirt": guest.guest.libvirt,
        "cpu": guest.guest.cpu(),
        "smp": guest.guest.smp,
        "notes": guest.guest.notes,
        "stays": guest.stays(),
        "before": view(&guest.before),
        "after": view(&guest.after),
        "gained": changes(true),
        "lost": changes(false),
        "changed": guest.values.iter().map(value).collect::<Vec<_>>(),
        "flags": flags(&guest.flags),
        "start_before": verdict(&guest.start_before),
        "start": verdict(&guest.start),
        "migrate": {"forth": guest.forth.as_ref().map(verdict), "back": guest.back.as_ref().map(verdict)},
        "pinned": pinned(&guest.pinned),
        "assumed": guest.assumed.iter().map(assumption).collect::<Vec<_>>(),
    })
}

fn assumption(assumed: &Assumption) -> Value {
    json!({"what": assumed.what, "value": assumed.value, "because": assumed.because, "hangs": assumed.hangs})
}

fn view(view: &Result<View, NoWay>) -> Value {
    let view = match view {
        Ok(view) => view,
        Err(error) => return json!({"error": error.to_string()}),
    };
    let cpuid = view.table.entries().iter().map(|entry| {
        let registers = entry.registers;
        let hex = |value: u32| format!("{value:#010x}");
        json!({
            "leaf": hex(entry.leaf), "subleaf": entry.subleaf, "eax": hex(registers.eax), "ebx": hex(registers.ebx),
            "ecx": hex(registers.ecx), "edx": hex(registers.edx),
        })
    });
    let msrs = view.msrs.iter().map(|(index, value)| (format!("{index:#010x}"), json!(format!("{value:#018x}"))));
    json!({
        "vmm": view.vmm,
        "machine": view.machine.map(|machine| machine.name),
        "cpuid": cpuid.collect::<Vec<_>>(),
        "msrs": msrs.collect::<Map<_, _>>(),
        "flags": view.guest.as_ref().map(|guest| &guest.boot.flags),
        "warnings": view.warnings,
        "error": view.error,
    })
}

fn change(change: &Change, tree: usize) -> Value {
    let told = change.telling();
    let reason = told.map(|(step, _)| reason::of_step(step, tree));
    json!({
        "feature": change.feature,
        "bit": change.place.to_string(),
        "flag": change.flag,
        "property": change.property,
        "at": change.at.name(),
        "by": change.cause.name(),
        "since": change.since.as_ref().map(|since| json!({"without": since.without, "with": since.with})),
        "until_then": told.map(|(_, before)| before),
        "rule": reason.as_ref().map(|reason| reason.rule.0),
        "title": reason.as_ref().map(|reason| &reason.title),
        "cause": reason.as_ref().map(|reason| &reason.cause),
        "cite": change.cite().map(|cite| cite.0),
        "steps": {"before": change.before.as_ref().map(json::step), "after": change.after.as_ref().map(json::step)},
    })
}

fn value(value: &Register) -> Value {
    json!({
        "register": value.name(), "before": format!("{:#010x}", value.before), "after": format!("{:#010x}", value.after),
        "at": value.at.name(), "by": value.cause.name(), "cite": value.cite.map(|cite| cite.0),
    })
}

fn verdict(verdict: &Verdict) -> Value {
    json!({"possible": verdict.possible, "why": verdict.why, "missing": verdict.missing, "extra": verdict.extra})
}

fn pinned(pinned: &Pinned) -> Value {
    let pins = pinned.pins.iter().map(|pin| json!({"kind": pin.kind.name(), "name": pin.name, "value": pin.value}));
    json!({
        "pins": pins.collect::<Vec<_>>(),
        "machine": pinned.guest.machine,
        "cpu": pinned.guest.cpu(),
        "template": pinned.template.as_ref().map(print_template).and_then(|text| serde_json::from_str::<Value>(&text).ok()),
        "same": pinned.same,
        "before": pinned.before,
        "migrate": {"forth": pinned.forth.as_ref().map(verdict), "back": pinned.back.as_ref().map(verdict)},
        "left": pinned.left.iter().map(Place::to_string).collect::<Vec<_>>(),
    })
}

fn order(order: &Order) -> Value {
    let places = order
        .hosts
        .iter()
        .map(|place| json!({"host": place.host, "stuck": place.stuck, "takes": place.takes, "of": place.of}));
    Value::Array(places.collect())
}
