//! A record to text: pretty where people look, one CPUID entry a line.

use std::fmt::Write as _;

use cpusieve_model::{Cpu, CpuIdentity, Cpuinfo, FlagList, KvmCpuidEntry, KvmView, LinuxView, ModelExpansion};
use cpusieve_model::{MsrReading, Registers, Snapshot};
use serde_json::{Map, Value, json};

use super::{FORMAT, KIND, blocks};

/// The text of a record. [`parse`](super::parse) reads it back as it was.
///
/// A snapshot without CPUs, whose `/proc/cpuinfo` text names some, is read back with these.
#[must_use]
pub fn print(snapshot: &Snapshot) -> String {
    // An entry takes about 110 bytes, and a CPU has fewer than 100 of them.
    let mut out = String::with_capacity(4096 + snapshot.cpus.iter().map(|cpu| cpu.cpuid.len() * 120).sum::<usize>());
    let _ = write!(out, "{{\"format\":{FORMAT},\"kind\":\"{KIND}\"");
    if let Some(title) = &snapshot.title {
        let _ = write!(out, ",\n \"title\":{}", Value::from(title.as_str()));
    }
    if !snapshot.cpus.is_empty() {
        cpus(&mut out, snapshot);
    }
    if let Some(linux) = &snapshot.linux {
        let _ = write!(out, ",\n \"linux\":{}", linux_view(linux));
    }
    if let Some(kvm) = &snapshot.kvm {
        kvm_view(&mut out, kvm);
    }
    if !snapshot.qemu.is_empty() {
        let qemu = snapshot.qemu.iter().map(|qemu| json!({"version": qemu.version, "path": qemu.path}));
        let _ = write!(out, ",\n \"qemu\":{}", Value::from_iter(qemu));
    }
    if !snapshot.expansions.is_empty() {
        let _ = write!(out, ",\n \"expansions\":{}", Value::from_iter(snapshot.expansions.iter().map(expansion)));
    }
    if !snapshot.missing.is_empty() {
        let missing = snapshot.missing.iter().map(|part| {
            object([
                ("what", Some(Value::from(part.what.as_str()))),
                ("why", Some(Value::from(part.why.as_str()))),
                ("remedy", part.remedy.as_deref().map(Value::from)),
            ])
        });
        let _ = write!(out, ",\n \"missing\":{}", Value::from_iter(missing));
    }
    out.push_str("}\n");
    out
}

fn cpus(out: &mut String, snapshot: &Snapshot) {
    let text = snapshot.linux.as_ref().and_then(|linux| linux.cpuinfo.as_deref());
    let told = text.map(|text| blocks(crate::cpuinfo::parse("", text.as_bytes()).snapshot.cpus)).unwrap_or_default();
    out.push_str(",\n \"cpus\":[");
    for (number, cpu) in snapshot.cpus.iter().enumerate() {
        let comma = if number == 0 { "" } else { "," };
        let _ = write!(out, "{comma}\n  {{\"cpu\":{},\"cpuid\":[", cpu.id);
        for (number, entry) in cpu.cpuid.entries().iter().enumerate() {
            out.push_str(if number == 0 { "\n   {" } else { ",\n   {" });
            leaf(out, entry.leaf, entry.subleaf);
            registers(out, entry.registers);
        }
        out.push(']');
        msrs(out, cpu);
        let follows = told.get(&cpu.id);
        if cpu.cpuinfo.as_ref() != follows {
            // A CPU of which the text says something that was not kept is told from one that it does not name.
            let block = cpu.cpuinfo.as_ref().map_or(Value::Bool(false), block);
            let _ = write!(out, ",\n   \"cpuinfo\":{block}");
        }
        out.push('}');
    }
    out.push(']');
}

fn msrs(out: &mut String, cpu: &Cpu) {
    if cpu.msrs.is_empty() {
        return;
    }
    out.push_str(",\n   \"msrs\":{");
    for (number, (index, reading)) in cpu.msrs.iter().enumerate() {
        let comma = if number == 0 { "" } else { "," };
        let _ = match reading {
            MsrReading::Value(value) => write!(out, "{comma}\n    \"{index:#010x}\":\"{value:#018x}\""),
            MsrReading::Unreadable => write!(out, "{comma}\n    \"{index:#010x}\":null"),
        };
    }
    out.push('}');
}

fn leaf(out: &mut String, leaf: u32, subleaf: u32) {
    hexadecimal(out, "\"leaf\":\"0x", leaf);
    let _ = write!(out, "\",\"subleaf\":{subleaf}");
}

fn registers(out: &mut String, registers: Registers) {
    hexadecimal(out, ",\"eax\":\"0x", registers.eax);
    hexadecimal(out, "\",\"ebx\":\"0x", registers.ebx);
    hexadecimal(out, "\",\"ecx\":\"0x", registers.ecx);
    hexadecimal(out, "\",\"edx\":\"0x", registers.edx);
    out.push_str("\"}");
}

/// Eight digits by hand: records of hosts with hundreds of CPUs hold hundreds of thousands of them.
fn hexadecimal(out: &mut String, before: &str, value: u32) {
    out.push_str(before);
    for shift in (0..8).rev() {
        out.push(char::from_digit(value >> (shift * 4) & 0xf, 16).unwrap_or('0'));
    }
}

/// An object of the fields that are there.
pub(super) fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect::<Map<_, _>>().into()
}

fn block(block: &Cpuinfo) -> Value {
    let CpuIdentity { vendor, family, model, stepping, brand, microcode } = &block.identity;
    let words = |list: &Option<FlagList>| Some(Value::from_iter(list.as_ref()?.iter()));
    let other = block.other.iter().map(|(name, value)| json!([name, value]));
    object([
        ("vendor", vendor.as_deref().map(Value::from)),
        ("family", family.map(Value::from)),
        ("model", model.map(Value::from)),
        ("stepping", stepping.map(Value::from)),
        ("brand", brand.as_deref().map(Value::from)),
        ("microcode", microcode.map(|revision| Value::from(format!("{revision:#x}")))),
        ("flags", words(&block.flags)),
        ("vmx_flags", words(&block.vmx_flags)),
        ("bugs", words(&block.bugs)),
        ("other", (!block.other.is_empty()).then(|| other.collect())),
    ])
}

fn linux_view(linux: &LinuxView) -> Value {
    let config = linux.config.as_ref();
    let config = config.map(|config| config.iter().map(|(name, value)| (name.clone(), value.as_str().into())));
    object([
        ("release", linux.release.as_deref().map(Value::from)),
        ("cmdline", linux.cmdline.as_deref().map(Value::from)),
        ("cpuinfo", linux.cpuinfo.as_deref().map(Value::from)),
        ("config", config.map(|config| config.collect::<Map<String, Value>>().into())),
    ])
}

fn kvm_view(out: &mut String, kvm: &KvmView) {
    out.push_str(",\n \"kvm\":{");
    // Each part starts with the comma that the part before it needs; the first comma is cut out below.
    let start = out.len();
    for (name, entries) in [("supported", &kvm.supported), ("emulated", &kvm.emulated), ("hyperv", &kvm.hyperv)] {
        if let Some(entries) = entries {
            let _ = write!(out, ",\n  \"{name}\":[");
            kvm_entries(out, entries);
        }
    }
    if let Some(features) = &kvm.msr_features {
        let features =
            features.iter().map(|(index, value)| (format!("{index:#010x}"), format!("{value:#018x}").into()));
        let _ = write!(out, ",\n  \"msr_features\":{}", Value::Object(features.collect()));
    }
    if let Some(indices) = &kvm.msr_index {
        let indices = indices.iter().map(|index| format!("{index:#010x}"));
        let _ = write!(out, ",\n  \"msr_index\":{}", Value::from_iter(indices));
    }
    if !kvm.caps.is_empty() {
        let caps = kvm.caps.iter().map(|(number, value)| (number.to_string(), Value::from(*value)));
        let _ = write!(out, ",\n  \"caps\":{}", Value::Object(caps.collect()));
    }
    if let Some(components) = kvm.xcomp_guest_supp {
        let _ = write!(out, ",\n  \"xcomp_guest_supp\":\"{components:#x}\"");
    }
    if let Some(khz) = kvm.tsc_khz {
        let _ = write!(out, ",\n  \"tsc_khz\":{khz}");
    }
    if !kvm.params.is_empty() {
        let params = kvm.params.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
        let _ = write!(out, ",\n  \"params\":{}", Value::Object(params.collect()));
    }
    if out.len() > start {
        out.remove(start);
    }
    out.push('}');
}

fn kvm_entries(out: &mut String, entries: &[KvmCpuidEntry]) {
    for (number, entry) in entries.iter().enumerate() {
        out.push_str(if number == 0 { "\n   {" } else { ",\n   {" });
        leaf(out, entry.leaf, entry.subleaf);
        let _ = write!(out, ",\"flags\":{}", entry.flags);
        registers(out, entry.registers);
    }
    out.push(']');
}

pub(super) fn expansion(expansion: &ModelExpansion) -> Value {
    let flags = expansion.flags.iter().map(|(name, value)| (name.clone(), Value::from(*value)));
    // The text is kept as text: it need not be what a JSON writer would have written.
    let other = expansion.other.iter().map(|(name, text)| (name.clone(), Value::from(text.as_str())));
    json!({
        "name": expansion.name,
        "flags": flags.collect::<Map<_, _>>(),
        "other": other.collect::<Map<_, _>>(),
    })
}

/// An entry as a value.
pub(super) fn entry(leaf: u32, subleaf: u32, flags: Option<u32>, registers: Registers) -> Value {
    let hex = |value: u32| Some(Value::from(format!("{value:#010x}")));
    object([
        ("leaf", hex(leaf)),
        ("subleaf", Some(subleaf.into())),
        ("flags", flags.map(Value::from)),
        ("eax", hex(registers.eax)),
        ("ebx", hex(registers.ebx)),
        ("ecx", hex(registers.ecx)),
        ("edx", hex(registers.edx)),
    ])
}
