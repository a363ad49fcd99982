//! What a nested job left behind, in the form of `corpus/guests-kvm`, which `cpusieve-formats` reads.

use std::collections::BTreeMap;

use cpusieve_formats::lab::seen;
use cpusieve_formats::record;
use cpusieve_model::{KvmCpuidEntry, KvmView, MissingPart, Registers};
use serde_json::{Map, Value, json};

use super::super::capture::json as outer;
use super::super::guest::{Boot, LATE, tail};
use super::WATCHED_CPUS;
use super::matrix::Job;

/// The status of a guest to which its host did not come.
pub(super) const NOT_STARTED: &str = "not started";

/// How a job was started, apart from the job itself.
pub(super) struct Started<'a> {
    pub(super) id: &'a str,
    /// The version of the QEMU that emulates the host.
    pub(super) outer: &'a str,
    /// The version of the QEMU in it.
    pub(super) inner: &'a str,
    /// The kernel's release, outside and inside.
    pub(super) release: &'a str,
    /// The command line that each guest's kernel was given.
    pub(super) inner_cmdline: &'a str,
}

/// A job as JSON, and what its KVM was asked for and did not answer.
pub(super) fn json(started: &Started<'_>, job: &Job<'_>, boot: &Boot) -> (Value, Vec<MissingPart>) {
    let section = |name: &str| boot.sections.get(name).map(String::as_str).unwrap_or_default();
    let mut host = outer(started.id, started.outer, started.release, job.cpu, boot);
    let mut missing = Vec::new();
    if let Some(fields) = host.as_object_mut() {
        fields.remove("id");
        fields.insert("kvm_module_options".to_owned(), json!(job.options));
        if boot.sections.contains_key("cpuid") {
            // A job that ran out of time has told of its host all the same.
            fields.extend(seen(&boot.sections, ""));
        }
        let told = record::parse("KVM's answers", section("record").as_bytes()).snapshot;
        missing = told.missing;
        fields.extend(told.kvm.as_ref().map(kvm).unwrap_or_default());
    }
    let guests = job.guests.iter().enumerate();
    let cpus = |number| if job.watches(number) { WATCHED_CPUS } else { 1 };
    let guests = guests.map(|(number, cpu)| guest(started, number, (cpu, cpus(number)), &boot.sections));
    let guests: Vec<Value> = guests.collect();
    let calls: Vec<&str> = section("calls").lines().collect();
    let replies: Vec<Value> = section("qmp").lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let series = started.inner.split('.').take(2).collect::<Vec<_>>().join(".");
    let seconds = tenths(boot.took.as_secs_f64());
    let capture = json!({
        "id": started.id,
        "supported_cpuid_calls": calls,
        "l1": host,
        "qmp": {series: {"replies": replies}},
        "l2": guests,
        "seconds": seconds,
    });
    (capture, missing)
}

/// What KVM answered.
fn kvm(view: &KvmView) -> Map<String, Value> {
    let entries = |entries: &Option<Vec<KvmCpuidEntry>>| entries.iter().flatten().map(entry).collect::<Vec<_>>();
    let path =
        |name: &str| name.split_once('.').map(|(module, name)| format!("/sys/module/{module}/parameters/{name}"));
    let parameters = view.params.iter().filter_map(|(name, value)| Some((path(name)?, json!(value))));
    let features = view.msr_features.iter().flatten();
    let index = view.msr_index.iter().flatten();
    let mut lines = Vec::new();
    lines.extend(view.xcomp_guest_supp.map(|bits| format!("XCOMP_GUEST_SUPP {bits:#x}")));
    lines.extend(view.tsc_khz.map(|khz| format!("TSC_KHZ {khz}")));
    let fields = [
        ("kvm_parameters", parameters.collect::<Map<_, _>>().into()),
        ("kvm_supported_cpuid", json!(entries(&view.supported))),
        ("kvm_emulated_cpuid", json!(entries(&view.emulated))),
        ("msr_features", features.map(|(index, value)| (hex32(*index), json!(format!("{value:#018x}")))).collect()),
        ("msr_index_list", index.map(|index| hex32(*index)).collect()),
        ("caps", view.caps.iter().map(|(number, value)| (number.to_string(), json!(value))).collect()),
        ("kvmdump_lines", json!(lines)),
    ];
    fields.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
}

fn entry(entry: &KvmCpuidEntry) -> String {
    let KvmCpuidEntry { leaf, subleaf, flags, registers: Registers { eax, ebx, ecx, edx } } = *entry;
    format!(
        "{leaf:#010x} {subleaf:#04x}: flags={flags:#x} eax={eax:#010x} ebx={ebx:#010x} ecx={ecx:#010x} edx={edx:#010x}"
    )
}

fn hex32(value: u32) -> String {
    format!("{value:#010x}")
}

/// A guest of the job, by its number.
fn guest(started: &Started<'_>, number: usize, (cpu, cpus): (&str, u32), sections: &BTreeMap<String, String>) -> Value {
    let prefix = format!("guest{number}.");
    let section = |name: &str| sections.get(&format!("{prefix}{name}")).map_or("", |text| text.trim());
    let whole = sections.contains_key(&format!("{prefix}end"));
    let status = match section("status") {
        "0" if whole => "ok".to_owned(),
        "0" => "fatal".to_owned(),
        "" => NOT_STARTED.to_owned(),
        LATE => LATE.to_owned(),
        code => format!("qemu-exit-{code}"),
    };
    let mut guest = json!({
        "qemu_version": started.inner,
        "machine": "pc",
        "smp": cpus.to_string(),
        "cpu_arg": cpu,
        "extra": "",
        "cmdline": started.inner_cmdline,
        "kernel": started.release,
        "warnings": section("warnings").lines().collect::<Vec<_>>(),
        "l1_seconds": section("seconds").parse::<f64>().ok().map(tenths),
        "status": status,
    });
    if let Some(fields) = guest.as_object_mut() {
        if status == "ok" {
            fields.extend(seen(sections, &prefix));
        } else {
            fields.insert("console_tail".to_owned(), json!(tail(section("console"))));
        }
    }
    guest
}

/// Seconds to a tenth: more is chance.
fn tenths(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}
