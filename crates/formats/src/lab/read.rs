//! The fields of a capture.

use std::collections::BTreeMap;

use cpusieve_model::{
    CpuidTable, KvmCpuidEntry, KvmView, LinuxView, MsrReading, MsrTable, Register, Registers, Snapshot,
};

use super::{Capture, Guest, Setup};
use crate::Format;
use crate::diagnostic::Log;
use crate::json::{Document, Fields, Kind, Value, hex};
use crate::limits::{MAX_ENTRIES, MAX_FIELDS, MAX_MSRS};
use crate::record;

/// Fields that say how the capture went, or hold what a snapshot has no place for: kernel messages, mitigations, what
/// CPUID answers beyond its limits, XCR0, what a vCPU of the laboratory's own had before and after `KVM_SET_CPUID2`.
const LEFT_OUT: [&str; 22] = [
    "caps_failed",
    "console_tail",
    "cpuid_beyond_limits",
    "dmesg",
    "kernel_config_path",
    "kernel_version",
    "kvm_hv_cpuid_system",
    "kvm_hv_cpuid_vcpu",
    "kvm_trace_counts",
    "l1_seconds",
    "opts",
    "rc",
    "seconds",
    "stderr",
    "vcpu_get_cpuid2_after_set",
    "vcpu_hv_cpuid",
    "vcpu_msr_features",
    "vcpu_msrs",
    "vm_caps",
    "vulnerabilities",
    "xgetbv",
    "cpu_options",
];

pub(super) fn capture(name: &str, bytes: &[u8]) -> Capture {
    let mut log = Log::new(name);
    let bytes = crate::text::prepare(&mut log, bytes);
    let document = Document::read(&bytes, &mut log);
    let mut fields = Fields::new(&mut log);
    let mut all = Nest::default();
    if let Some(root) = document.roots().next() {
        if root.get("l1").is_some() {
            all = nest(&mut fields, root);
        } else {
            all.outer = guest(&mut fields, root, "");
        }
    }
    fields.finish();
    let Nest { outer: Guest { setup, mut snapshot }, nested, calls: host_cpuid_calls, qemu } = all;
    snapshot.title = (!setup.id.is_empty()).then(|| setup.id.clone());
    if snapshot.cpus.is_empty() {
        log.warning(0, "no CPU was captured: the guest did not boot, or this is no capture");
    }
    Capture { parsed: log.finish(Format::LabCapture, snapshot), setup, nested, host_cpuid_calls, qemu }
}

/// The guests of one capture.
#[derive(Default)]
struct Nest {
    outer: Guest,
    nested: Vec<Guest>,
    calls: Vec<(u32, u32)>,
    qemu: Vec<Snapshot>,
}

/// `{"id":..,"supported_cpuid_calls":["0x7/1"],"l1":{..},"qmp":{"7.2":{"replies":[..]}},"l2":[{..}]}`
fn nest(fields: &mut Fields<'_>, root: Value<'_>) -> Nest {
    let mut nest = Nest::default();
    let mut id = String::new();
    fields.each(root, "", |fields, key, value| {
        match key {
            "id" => id = fields.text(value).unwrap_or_default(),
            "supported_cpuid_calls" => nest.calls = calls(fields, value),
            "l1" => nest.outer = guest(fields, value, "l1"),
            "l2" if fields.is_array(value) => {
                nest.nested = value.items().take(MAX_FIELDS).map(|item| guest(fields, item, "l2[]")).collect();
            }
            "l2" => {}
            "qmp" => {
                for (_, transcript) in value.members().take(MAX_FIELDS) {
                    let mut told = Snapshot::default();
                    let replies = transcript.get("replies").into_iter().flat_map(Value::items);
                    replies.for_each(|reply| crate::qmp::message(fields, reply, &mut told));
                    nest.qemu.push(told);
                }
            }
            _ => return left_out(fields, key),
        }
        true
    });
    nest.outer.setup.id = id;
    nest.outer.snapshot.qemu = nest.qemu.iter().flat_map(|told| told.qemu.clone()).collect();
    nest
}

/// Whether a field is one of those that are left out on purpose; counts it.
fn left_out(fields: &mut Fields<'_>, key: &str) -> bool {
    let known = LEFT_OUT.contains(&key);
    fields.log.ignored.values += u64::from(known);
    known
}

/// What is gathered of one guest before its parts are put together.
#[derive(Default)]
struct Parts<'d> {
    setup: Setup,
    linux: LinuxView,
    text_at: Option<Value<'d>>,
    cpuid: CpuidTable,
    msrs: MsrTable,
    kvm: KvmView,
}

fn guest<'d>(fields: &mut Fields<'_>, object: Value<'d>, place: &str) -> Guest {
    let mut parts = Parts::default();
    if object.kind() != Kind::Object {
        fields.wrong(object, "an object");
        return Guest::default();
    }
    for (key, value) in object.members().filter(|(_, value)| value.kind() != Kind::Null) {
        let known = setup(fields, &key, value, &mut parts.setup)
            || seen(fields, &key, value, &mut parts)
            || kvm(fields, &key, value, &mut parts.kvm)
            || left_out(fields, &key);
        if !known {
            fields.unknown(place, &key, value);
        }
    }
    let Parts { setup, linux, text_at, cpuid, msrs, kvm } = parts;
    let text = linux.cpuinfo.as_deref().zip(text_at);
    let mut cpus = text.map(|(text, at)| record::cpuinfo_text(fields, text, at)).unwrap_or_default();
    if cpus.is_empty() && !(cpuid.is_empty() && msrs.is_empty()) {
        cpus.push(cpusieve_model::Cpu::default());
    }
    if let Some(first) = cpus.first_mut() {
        (first.cpuid, first.msrs) = (cpuid, msrs);
    }
    let snapshot = Snapshot {
        cpus,
        linux: (linux != LinuxView::default()).then_some(linux),
        kvm: (kvm != KvmView::default()).then_some(kvm),
        ..Snapshot::default()
    };
    Guest { setup, snapshot }
}

/// A field that says how the guest was started.
fn setup(fields: &mut Fields<'_>, key: &str, value: Value<'_>, setup: &mut Setup) -> bool {
    let text = match key {
        "id" => &mut setup.id,
        "accel" => &mut setup.accel,
        "qemu_version" | "emulator" => &mut setup.emulator,
        "machine" => &mut setup.machine,
        "smp" => &mut setup.smp,
        "cpu_arg" | "qemu_cpu_arg" => &mut setup.cpu,
        "kernel" => &mut setup.kernel,
        "cmdline" => &mut setup.cmdline,
        "kvm_module_options" => &mut setup.kvm_options,
        "status" => &mut setup.status,
        "extra_args" => {
            setup.extra = texts(fields, value);
            return true;
        }
        "extra" => {
            let text = fields.text(value).unwrap_or_default();
            setup.extra = text.split_ascii_whitespace().map(str::to_owned).collect();
            return true;
        }
        "qemu_warnings" | "warnings" => {
            setup.warnings = texts(fields, value);
            return true;
        }
        _ => return false,
    };
    *text = fields.text(value).unwrap_or_default();
    true
}

/// A field that the guest itself saw.
fn seen<'d>(fields: &mut Fields<'_>, key: &str, value: Value<'d>, parts: &mut Parts<'d>) -> bool {
    match key {
        "kernel_release" => parts.linux.release = fields.text(value),
        "proc_cmdline" => parts.linux.cmdline = fields.text(value),
        "config" => {
            let option =
                |fields: &mut Fields<'_>, key: &str, value: Value<'_>| Some((key.to_owned(), fields.text(value)?));
            parts.linux.config = fields.map(value, option);
        }
        "cpuinfo" => {
            parts.linux.cpuinfo = fields.text(value);
            parts.text_at = Some(value);
        }
        "cpuid" => {
            for (entry, at) in entries(fields, value) {
                fields.insert(&mut parts.cpuid, entry, at);
            }
        }
        "garbled_cpuid_lines" => {
            let count = value.items().count();
            fields.log.ignored.lines += count as u64;
            fields.warn(value, |path| format!("{path}: {count} lines of CPUID were spoilt on the console"), None);
        }
        "msrs" => {
            for (index, reading) in record::msrs(fields, value).iter() {
                parts.msrs.insert(index, reading);
            }
        }
        "msrs_failed" => {
            for index in indices(fields, value) {
                parts.msrs.insert(index, MsrReading::Unreadable);
            }
        }
        _ => return false,
    }
    true
}

/// A field that KVM in the guest answered.
fn kvm(fields: &mut Fields<'_>, key: &str, value: Value<'_>, kvm: &mut KvmView) -> bool {
    let only = |(entry, _)| entry;
    match key {
        "kvm_supported_cpuid" => kvm.supported = Some(entries(fields, value).into_iter().map(only).collect()),
        "kvm_emulated_cpuid" => kvm.emulated = Some(entries(fields, value).into_iter().map(only).collect()),
        "msr_features" => kvm.msr_features = record::features(fields, value),
        "msr_index_list" => kvm.msr_index = Some(indices(fields, value)),
        "caps" => kvm.caps = record::caps(fields, value),
        "kvm_parameters" => kvm.params = parameters(fields, value),
        "kvmdump_lines" => {
            for line in texts(fields, value) {
                let mut words = line.split_ascii_whitespace();
                match (words.next(), words.next_back()) {
                    (Some("XCOMP_GUEST_SUPP"), Some(number)) => kvm.xcomp_guest_supp = hex(number),
                    (Some("TSC_KHZ"), Some(number)) => kvm.tsc_khz = number.parse().ok(),
                    _ => {}
                }
            }
        }
        _ => return false,
    }
    true
}

fn texts(fields: &mut Fields<'_>, array: Value<'_>) -> Vec<String> {
    if !fields.is_array(array) {
        return Vec::new();
    }
    array.items().take(MAX_FIELDS).filter_map(|item| fields.text(item)).collect()
}

/// `["0x7/1"]`: leaf in hexadecimal, subleaf in decimal.
fn calls(fields: &mut Fields<'_>, array: Value<'_>) -> Vec<(u32, u32)> {
    if !fields.is_array(array) {
        return Vec::new();
    }
    let call = |text: &str| {
        let (leaf, subleaf) = text.split_once('/')?;
        Some((u32::try_from(hex(leaf)?).ok()?, subleaf.parse().ok()?))
    };
    let mut calls = Vec::new();
    for item in array.items().take(MAX_ENTRIES) {
        match item.text().and_then(|text| call(&text)) {
            Some(call) => calls.push(call),
            None => fields.wrong(item, "\"0x7/1\""),
        }
    }
    calls
}

/// `["0x00000174"]`
fn indices(fields: &mut Fields<'_>, array: Value<'_>) -> Vec<u32> {
    if !fields.is_array(array) {
        return Vec::new();
    }
    array.items().take(MAX_MSRS).filter_map(|item| fields.hex32(item)).collect()
}

/// `{"/sys/module/kvm_amd/parameters/nested":"1"}` as `kvm_amd.nested`.
fn parameters(fields: &mut Fields<'_>, object: Value<'_>) -> BTreeMap<String, String> {
    let mut parameters = BTreeMap::new();
    for (path, value) in object.members() {
        let name = path.strip_prefix("/sys/module/").and_then(|name| name.split_once("/parameters/"));
        match (name, fields.text(value)) {
            (Some((module, name)), Some(text)) => _ = parameters.insert(format!("{module}.{name}"), text),
            _ => fields.log.ignored.fields += 1,
        }
    }
    parameters
}

/// `["0x00000007 0x01: flags=0x1 eax=0x00000000 ebx=.. ecx=.. edx=.."]`, where `flags` may be missing.
fn entries<'d>(fields: &mut Fields<'_>, array: Value<'d>) -> Vec<(KvmCpuidEntry, Value<'d>)> {
    if !fields.is_array(array) {
        return Vec::new();
    }
    let mut entries = Vec::new();
    for item in array.items().take(MAX_ENTRIES) {
        match item.text().and_then(|text| entry(&text)) {
            Some(entry) => entries.push((entry, item)),
            None => {
                fields.log.ignored.values += 1;
                fields.wrong(item, "\"0x00000007 0x00: eax=0x.. ebx=0x.. ecx=0x.. edx=0x..\"");
            }
        }
    }
    entries
}

fn entry(line: &str) -> Option<KvmCpuidEntry> {
    let number = |text: &str| u32::try_from(hex(text)?).ok();
    let (key, values) = line.split_once(':')?;
    let (leaf, subleaf) = key.trim().split_once(' ')?;
    let mut registers = Registers::default();
    let (mut flags, mut seen) = (0, 0);
    for word in values.split_ascii_whitespace() {
        let (name, value) = word.split_once('=')?;
        let value = number(value)?;
        if name == "flags" {
            flags = value;
        } else {
            let register = Register::from_name(name)?;
            *registers.get_mut(register) = value;
            seen |= 1 << register as u32;
        }
    }
    if seen != 0b1111 {
        return None;
    }
    Some(KvmCpuidEntry { leaf: number(leaf)?, subleaf: number(subleaf.trim())?, flags, registers })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_needs_all_four_registers() {
        let line = "0x00000007 0x01: flags=0x1 eax=0x00000002 ebx=0x3 ecx=0x4 edx=0xffffffff";
        let registers = Registers { eax: 2, ebx: 3, ecx: 4, edx: u32::MAX };
        assert_eq!(entry(line), Some(KvmCpuidEntry { leaf: 7, subleaf: 1, flags: 1, registers }));
        for end in 0..line.len() - 9 {
            assert_eq!(entry(&line[..end]), None, "{end}");
        }
    }
}
