//! Firecracker fingerprints and CPU templates.
//!
//! A *fingerprint* (`cpu-template-helper fingerprint dump`) holds the CPUID and the MSRs that a guest of Firecracker
//! sees on one host: what KVM offered, after Firecracker's normalisation and the template. Its kernel version is the
//! host's. A *template* is a list of changes to such a configuration: a bit is set, cleared, or (`x`) left as it was.
//! Where a bit is left as it was there is no value, so only registers that a template sets as a whole are kept in the
//! snapshot; [`template`] keeps every change.
//!
//! Source: Firecracker `src/vmm/src/cpu_config/templates.rs:RegisterValueFilter` (a bitmap is read from its right end;
//! `_` is nothing; bits that are not written are left as they were), `x86_64/custom_cpu_template.rs`.

use cpusieve_model::{
    BitFilter, CapabilityCheck, Cpu, CpuTemplate, CpuidModifier, KvmCpuidEntry, LinuxView, MsrModifier, MsrReading,
    Register, Registers, Snapshot,
};

use crate::diagnostic::{Log, quote};
use crate::json::{Document, Fields, Value, hex};
use crate::limits::{MAX_ENTRIES, MAX_MSRS};
use crate::{Diagnostic, Format, Parsed, Severity};

/// What was read of a configuration.
#[derive(Default)]
struct Configuration {
    /// The values that are whole.
    cpu: Cpu,
    /// Every change, whole or not.
    template: CpuTemplate,
    counts: Counts,
}

/// What was read of a configuration beside its values.
#[derive(Default)]
struct Counts {
    /// Registers of CPUID with bits that are left as they were.
    partial_registers: u64,
    /// Entries of CPUID of which not all four registers are known.
    partial_entries: u64,
    /// MSRs with bits that are left as they were.
    partial_msrs: u64,
}

/// Reads a fingerprint or a template.
#[must_use]
pub fn parse(name: &str, bytes: &[u8]) -> Parsed {
    read(name, bytes).0
}

/// Reads a template, or the configuration of a fingerprint, as the changes that it makes, in their order.
///
/// What could not be read is told and left out; Firecracker itself refuses such a template as a whole.
///
/// ```
/// let text = br#"{"msr_modifiers":[{"addr":"0x10a","bitmap":"0b0xx1"}]}"#;
/// let (template, diagnostics) = cpusieve_formats::firecracker::template("t.json", text);
/// assert_eq!(template.msrs[0].bits.apply(0b1100), 0b0101);
/// assert!(diagnostics.is_empty());
/// ```
#[must_use]
pub fn template(name: &str, bytes: &[u8]) -> (CpuTemplate, Vec<Diagnostic>) {
    let (parsed, template) = read(name, bytes);
    // What `tell` says is about values, which nobody asked for here.
    let diagnostics = parsed.diagnostics.into_iter().filter(|diagnostic| diagnostic.severity != Severity::Note);
    (template, diagnostics.collect())
}

/// A template as the JSON that Firecracker reads (`PUT /cpu-config`), with a newline at its end. Changes of one entry that
/// stand together are written together; [`template`] reads the same back.
#[must_use]
pub fn print_template(template: &CpuTemplate) -> String {
    let bitmap = |bits: BitFilter, width: u32| {
        let digit = |bit: u32| match (bits.mask >> bit & 1, bits.value >> bit & 1) {
            (0, _) => 'x',
            (_, value) => {
                if value == 1 {
                    '1'
                } else {
                    '0'
                }
            }
        };
        format!("0b{}", (0..width).rev().map(digit).collect::<String>())
    };
    let mut cpuid: Vec<((u32, u32, u32), Vec<serde_json::Value>)> = Vec::new();
    for modifier in &template.cpuid {
        let key = (modifier.leaf, modifier.subleaf, modifier.flags);
        let change = modifier.register.map(|(register, bits)| {
            let register = register.name().to_lowercase();
            serde_json::json!({"register": register, "bitmap": bitmap(bits, 32)})
        });
        match cpuid.last_mut().filter(|(last, _)| *last == key) {
            Some((_, changes)) => changes.extend(change),
            None => cpuid.push((key, change.into_iter().collect())),
        }
    }
    let cpuid = cpuid.into_iter().map(|((leaf, subleaf, flags), modifiers)| {
        let (leaf, subleaf) = (format!("{leaf:#x}"), format!("{subleaf:#x}"));
        serde_json::json!({"leaf": leaf, "subleaf": subleaf, "flags": flags, "modifiers": modifiers})
    });
    let msrs = template
        .msrs
        .iter()
        .map(|msr| serde_json::json!({"addr": format!("{:#x}", msr.index), "bitmap": bitmap(msr.bits, 64)}));
    let capabilities = template.capabilities.iter().map(|check| match check {
        CapabilityCheck::Add(number) => number.to_string(),
        CapabilityCheck::Remove(number) => format!("!{number}"),
    });
    let whole = serde_json::json!({
        "kvm_capabilities": capabilities.collect::<Vec<_>>(),
        "cpuid_modifiers": cpuid.collect::<Vec<_>>(),
        "msr_modifiers": msrs.collect::<Vec<_>>(),
    });
    let mut text = serde_json::to_string_pretty(&whole).unwrap_or_default();
    text.push('\n');
    text
}

fn read(name: &str, bytes: &[u8]) -> (Parsed, CpuTemplate) {
    let mut log = Log::new(name);
    let bytes = crate::text::prepare(&mut log, bytes);
    let document = Document::read(&bytes, &mut log);
    let mut fields = Fields::new(&mut log);
    let mut snapshot = Snapshot::default();
    let mut format = Format::FirecrackerTemplate;
    let mut read = Configuration::default();
    if let Some(root) = document.roots().next() {
        if let Some(configuration) = root.get("guest_cpu_config") {
            format = Format::FirecrackerFingerprint;
            snapshot = fingerprint(&mut fields, root);
            read = configuration_of(&mut fields, configuration);
            snapshot.cpus.push(read.cpu);
        } else {
            read = configuration_of(&mut fields, root);
            if !read.cpu.cpuid.is_empty() || !read.cpu.msrs.is_empty() {
                snapshot.cpus.push(read.cpu);
            }
        }
    }
    fields.finish();
    tell(&mut log, format, &read.counts);
    (log.finish(format, snapshot), read.template)
}

/// Says what the values mean, and what could not become one.
fn tell(log: &mut Log, format: Format, counts: &Counts) {
    let Counts { partial_registers, partial_entries, partial_msrs } = counts;
    log.ignored.values += partial_registers + partial_msrs;
    if format == Format::FirecrackerFingerprint {
        log.note(0, "CPUID and MSRs are those of a Firecracker guest; the kernel release is the host's");
    } else {
        log.note(0, "a CPU template: it changes a vCPU's CPUID and MSRs and does not hold them");
    }
    if partial_registers + partial_entries + partial_msrs > 0 {
        let what = format!(
            "{partial_registers} registers and {partial_msrs} MSRs have bits that stay as they were (x), and \
             {partial_entries} CPUID entries are not whole: these have no value and are left out"
        );
        log.note(0, what);
    }
}

/// All of a fingerprint but the configuration.
fn fingerprint(fields: &mut Fields<'_>, root: Value<'_>) -> Snapshot {
    let mut title = Vec::new();
    let mut linux = LinuxView::default();
    fields.each(root, "", |fields, key, value| {
        let before = match key {
            "guest_cpu_config" => return true,
            "firecracker_version" => "Firecracker ",
            "microcode_version" => "microcode ",
            "bios_version" => "BIOS ",
            "bios_revision" => "BIOS revision ",
            "kernel_version" => {
                linux.release = fields.text(value);
                return true;
            }
            _ => return false,
        };
        title.extend(fields.text(value).map(|text| format!("{before}{text}")));
        true
    });
    Snapshot {
        title: (!title.is_empty()).then(|| title.join(", ")),
        linux: linux.release.is_some().then_some(linux),
        ..Snapshot::default()
    }
}

fn configuration_of(fields: &mut Fields<'_>, configuration: Value<'_>) -> Configuration {
    let mut read = Configuration::default();
    fields.each(configuration, "", |fields, key, value| {
        match key {
            "cpuid_modifiers" if fields.is_array(value) => {
                for item in value.items() {
                    if let Some(entry) = cpuid_modifier(fields, item, &mut read) {
                        fields.insert(&mut read.cpu.cpuid, entry, item);
                    }
                }
            }
            "msr_modifiers" if fields.is_array(value) => {
                for item in value.items() {
                    let Some((index, value)) = msr_modifier(fields, item, &mut read) else { continue };
                    if read.cpu.msrs.len() < MAX_MSRS {
                        read.cpu.msrs.insert(index, MsrReading::Value(value));
                    } else {
                        fields.log.ignored.values += 1;
                        let most = format!("at most {MAX_MSRS} MSRs");
                        fields.warn(item, |path| format!("{path} is left out"), Some(&most));
                    }
                }
            }
            "cpuid_modifiers" | "msr_modifiers" => {}
            // Capabilities that Firecracker demands of KVM, or ("!") does not.
            "kvm_capabilities" if fields.is_array(value) => {
                for item in value.items().take(MAX_ENTRIES) {
                    read.template.capabilities.extend(capability(fields, item));
                }
                fields.log.ignored.values += value.items().count() as u64;
            }
            "kvm_capabilities" => {}
            // Parts of a template for another architecture, or for the vCPU's creation.
            "vcpu_features" | "reg_modifiers" => fields.log.ignored.values += value.items().count() as u64,
            _ => return false,
        }
        true
    });
    read
}

/// The number of a capability, `!` before it if it is not to be checked.
fn capability(fields: &mut Fields<'_>, value: Value<'_>) -> Option<CapabilityCheck> {
    let text = value.text().unwrap_or_default();
    let check = match text.strip_prefix('!') {
        Some(number) => number.parse().map(CapabilityCheck::Remove),
        None => text.parse().map(CapabilityCheck::Add),
    };
    if check.is_err() {
        fields.wrong(value, "a string with the number of a capability, perhaps after !");
    }
    check.ok()
}

/// One leaf and subleaf; none unless all four registers are known.
fn cpuid_modifier(fields: &mut Fields<'_>, object: Value<'_>, read: &mut Configuration) -> Option<KvmCpuidEntry> {
    let (mut leaf, mut subleaf, mut flags) = (None, None, 0);
    let mut changes = Vec::new();
    let mut registers = Registers::default();
    let mut known = 0;
    fields.each(object, "cpuid_modifiers[]", |fields, key, value| {
        match key {
            "leaf" => leaf = number(fields, value),
            "subleaf" => subleaf = number(fields, value),
            "flags" => flags = fields.u32(value).unwrap_or(0),
            "modifiers" if fields.is_array(value) => {
                for item in value.items() {
                    let Some((register, bits)) = register(fields, item) else { continue };
                    if changes.len() < MAX_ENTRIES {
                        changes.push((register, bits));
                    }
                    match u32::try_from(bits.value) {
                        Ok(value) if bits.mask == u64::from(u32::MAX) => {
                            *registers.get_mut(register) = value;
                            known |= 1 << register as u32;
                        }
                        _ => read.counts.partial_registers += 1,
                    }
                }
            }
            "modifiers" => {}
            _ => return false,
        }
        true
    });
    if let (Some(leaf), Some(subleaf)) = (leaf, subleaf) {
        keep_changes(fields, object, read, CpuidModifier { leaf, subleaf, flags, register: None }, &changes);
    }
    if known != 0b1111 {
        read.counts.partial_entries += 1;
        return None;
    }
    if leaf.is_none() || subleaf.is_none() {
        fields.warn(object, |path| format!("{path} is left out"), Some("leaf and subleaf"));
    }
    Some(KvmCpuidEntry { leaf: leaf?, subleaf: subleaf?, flags, registers })
}

/// Adds the changes of one entry to the template: one for each register, or one that changes its flags alone.
fn keep_changes(
    fields: &mut Fields<'_>,
    object: Value<'_>,
    read: &mut Configuration,
    entry: CpuidModifier,
    changes: &[(Register, BitFilter)],
) {
    let kept = &mut read.template.cpuid;
    if kept.len().saturating_add(changes.len()) >= MAX_ENTRIES {
        let most = format!("at most {MAX_ENTRIES} registers");
        fields.warn(object, |path| format!("{path} is left out of the template"), Some(&most));
    } else if changes.is_empty() {
        kept.push(entry);
    } else {
        kept.extend(changes.iter().map(|&change| CpuidModifier { register: Some(change), ..entry }));
    }
}

/// `{"register":"eax","bitmap":"0b.."}`
fn register(fields: &mut Fields<'_>, object: Value<'_>) -> Option<(Register, BitFilter)> {
    let (mut register, mut bits) = (None, None);
    fields.each(object, "cpuid_modifiers[].modifiers[]", |fields, key, value| {
        match key {
            "register" => {
                register = value.text().and_then(|name| Register::from_name(&name));
                if register.is_none() {
                    fields.wrong(value, "eax, ebx, ecx or edx");
                }
            }
            "bitmap" => bits = bitmap(fields, value, 32),
            _ => return false,
        }
        true
    });
    Some((register?, bits?))
}

/// `{"addr":"0x10a","bitmap":"0b.."}`
fn msr_modifier(fields: &mut Fields<'_>, object: Value<'_>, read: &mut Configuration) -> Option<(u32, u64)> {
    let (mut index, mut bits) = (None, None);
    fields.each(object, "msr_modifiers[]", |fields, key, value| {
        match key {
            "addr" => index = number(fields, value),
            "bitmap" => bits = bitmap(fields, value, 64),
            _ => return false,
        }
        true
    });
    let (index, bits) = (index?, bits?);
    if read.template.msrs.len() < MAX_MSRS {
        read.template.msrs.push(MsrModifier { index, bits });
    }
    let whole = bits.mask == u64::MAX;
    read.counts.partial_msrs += u64::from(!whole);
    whole.then_some((index, bits.value))
}

/// A number as Firecracker writes it: `0x` and hexadecimal, or `0b` and binary digits.
fn number(fields: &mut Fields<'_>, value: Value<'_>) -> Option<u32> {
    let read = |text: &str| match text.strip_prefix("0b") {
        Some(digits) if digits.bytes().all(|byte| matches!(byte, b'0' | b'1')) => u64::from_str_radix(digits, 2).ok(),
        _ => hex(text),
    };
    let number = value.text().and_then(|text| u32::try_from(read(&text)?).ok());
    if number.is_none() {
        fields.wrong(value, "a string with 0x and hexadecimal digits, or 0b and binary digits");
    }
    number
}

/// A bitmap of at most `width` bits; bits that are not written stay as they were. `None` (and a diagnostic) if it is none.
fn bitmap(fields: &mut Fields<'_>, value: Value<'_>, width: u32) -> Option<BitFilter> {
    let text = value.text().unwrap_or_default();
    let digits = text.strip_prefix("0b").unwrap_or(&text);
    let (mut filter, mut bits) = (BitFilter::default(), 0);
    for digit in digits.bytes().filter(|&digit| digit != b'_') {
        bits += 1;
        filter.mask = filter.mask << 1 | u64::from(digit != b'x');
        filter.value = filter.value << 1 | u64::from(digit == b'1');
        if bits > width || !matches!(digit, b'0' | b'1' | b'x') {
            fields.warn(
                value,
                |path| format!("{path} is {}", quote(text.as_bytes())),
                Some(&format!("a bitmap of 0, 1 and x with at most {width} bits")),
            );
            return None;
        }
    }
    if bits == 0 {
        fields.wrong(value, "a bitmap of 0, 1 and x");
        return None;
    }
    Some(filter)
}
