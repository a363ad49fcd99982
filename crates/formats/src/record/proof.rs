//! What a proof asked beyond what a machine shows by itself, beside the record in one file.

use cpusieve_model::{Captures, CpuidEntry, GuestCapture, MachineCapture, Snapshot, SurveyCapture, VcpuCapture};
use serde_json::{Map, Value as Json, json};

use super::read::{expansion, kvm_entries, list, record};
use super::write::{self, entry, object};
use crate::diagnostic::Log;
use crate::json::{Document, Fields, Value};
use crate::limits::{MAX_ENTRIES, MAX_FIELDS, MAX_MSRS};

/// The text of a record with what a proof asked. [`parse`](super::parse) reads the record, [`captures`] the rest.
#[must_use]
pub fn print_with(snapshot: &Snapshot, captures: &Captures) -> String {
    let mut text = write::print(snapshot);
    text.truncate(text.trim_end().len().saturating_sub(1));
    let mut proof = Map::new();
    if let Some(seen) = &captures.vcpu {
        proof.insert("vcpu".to_owned(), vcpu(seen));
    }
    if !captures.surveys.is_empty() {
        proof.insert("surveys".to_owned(), captures.surveys.iter().map(survey).collect());
    }
    text.push_str(",\n \"proof\":{");
    let parts = proof.iter().map(|(name, value)| format!("\n  {}:{value}", Json::from(name.as_str())));
    let guest = captures.guest.iter().map(|seen| format!("\n  \"guest\":{}", guest(seen)));
    text.push_str(&parts.chain(guest).collect::<Vec<_>>().join(","));
    text.push_str("}}\n");
    text
}

fn vcpu(seen: &VcpuCapture) -> Json {
    let answer = |answer: &CpuidEntry| entry(answer.leaf, answer.subleaf, None, answer.registers);
    object([
        ("table", Some(seen.table.iter().map(|e| entry(e.leaf, e.subleaf, Some(e.flags), e.registers)).collect())),
        ("refused", seen.refused.as_deref().map(Json::from)),
        ("answers", Some(seen.answers.iter().map(answer).collect())),
        ("failed", seen.failed.as_deref().map(Json::from)),
        (
            "msrs",
            Some(
                seen.msrs
                    .iter()
                    .map(|(index, value, taken)| {
                        json!({"index": format!("{index:#010x}"), "value": format!("{value:#018x}"), "taken": taken})
                    })
                    .collect(),
            ),
        ),
    ])
}

fn survey(seen: &SurveyCapture) -> Json {
    let machine = |seen: &MachineCapture| {
        let properties = seen.properties.iter().map(|(name, on)| (name.clone(), Json::from(*on)));
        object([
            ("machine", Some(Json::from(seen.machine.as_str()))),
            ("cpu", Some(Json::from(seen.cpu.as_str()))),
            ("properties", Some(properties.collect::<Map<_, _>>().into())),
            ("lines", Some(json!(seen.lines))),
            ("failed", seen.failed.as_deref().map(Json::from)),
        ])
    };
    json!({
        "version": seen.version,
        "kvm": seen.kvm,
        "expansions": seen.expansions.iter().map(write::expansion).collect::<Vec<_>>(),
        "machines": seen.machines.iter().map(machine).collect::<Vec<_>>(),
    })
}

/// A guest is a record in the record.
fn guest(seen: &GuestCapture) -> String {
    let head = json!({"version": seen.version, "kvm": seen.kvm, "machine": seen.machine, "cpu": seen.cpu}).to_string();
    let head = head.strip_suffix('}').unwrap_or_default();
    format!("{head},\"record\":{}}}", write::print(&seen.snapshot).trim_end())
}

/// Reads what a proof asked from a record; nothing if there is none in it. What is wrong with the record itself
/// [`parse`](super::parse) says.
#[must_use]
pub fn captures(name: &str, bytes: &[u8]) -> Captures {
    let mut log = Log::new(name);
    let bytes = crate::text::prepare(&mut log, bytes);
    let document = Document::read(&bytes, &mut log);
    let proof = document.roots().next().and_then(|root| root.get("proof"));
    let Some(proof) = proof else { return Captures::default() };
    let mut fields = Fields::new(&mut log);
    let mut captures = Captures::default();
    fields.each(proof, "proof", |fields, key, value| {
        match key {
            "vcpu" => captures.vcpu = read_vcpu(fields, value),
            "surveys" => captures.surveys = list(fields, value, MAX_FIELDS, read_survey),
            "guest" => captures.guest = read_guest(fields, value),
            _ => return false,
        }
        true
    });
    captures
}

fn read_vcpu(fields: &mut Fields<'_>, object: Value<'_>) -> Option<VcpuCapture> {
    let mut seen = VcpuCapture::default();
    let is_object = fields.each(object, "proof.vcpu", |fields, key, value| {
        match key {
            "table" => seen.table = kvm_entries(fields, value, "proof.vcpu.table[]").unwrap_or_default(),
            "refused" => seen.refused = fields.text(value),
            "answers" => {
                let answers =
                    list(fields, value, MAX_ENTRIES, |fields, item| fields.entry(item, "proof.vcpu.answers[]"));
                let plain = answers.into_iter().map(|e| CpuidEntry {
                    leaf: e.leaf,
                    subleaf: e.subleaf,
                    registers: e.registers,
                });
                seen.answers = plain.collect();
            }
            "failed" => seen.failed = fields.text(value),
            "msrs" => seen.msrs = list(fields, value, MAX_MSRS, read_msr),
            _ => return false,
        }
        true
    });
    is_object.then_some(seen)
}

fn read_msr(fields: &mut Fields<'_>, object: Value<'_>) -> Option<(u32, u64, bool)> {
    let mut parts = (None, None, None);
    fields.each(object, "proof.vcpu.msrs[]", |fields, key, value| {
        match key {
            "index" => parts.0 = fields.hex32(value),
            "value" => parts.1 = fields.hex64(value),
            "taken" => parts.2 = fields.bool(value),
            _ => return false,
        }
        true
    });
    Some((parts.0?, parts.1?, parts.2?))
}

fn read_survey(fields: &mut Fields<'_>, object: Value<'_>) -> Option<SurveyCapture> {
    let mut seen = SurveyCapture::default();
    let is_object = fields.each(object, "proof.surveys[]", |fields, key, value| {
        match key {
            "version" => seen.version = fields.text(value).unwrap_or_default(),
            "kvm" => seen.kvm = fields.bool(value).unwrap_or_default(),
            "expansions" => seen.expansions = list(fields, value, MAX_ENTRIES, expansion),
            "machines" => seen.machines = list(fields, value, MAX_FIELDS, read_machine),
            _ => return false,
        }
        true
    });
    is_object.then_some(seen)
}

fn read_machine(fields: &mut Fields<'_>, object: Value<'_>) -> Option<MachineCapture> {
    let mut seen = MachineCapture::default();
    let is_object = fields.each(object, "proof.surveys[].machines[]", |fields, key, value| {
        match key {
            "machine" => seen.machine = fields.text(value).unwrap_or_default(),
            "cpu" => seen.cpu = fields.text(value).unwrap_or_default(),
            "properties" => {
                let properties = fields.map(value, |fields, key, value| Some((key.to_owned(), fields.bool(value)?)));
                seen.properties = properties.unwrap_or_default();
            }
            "lines" => seen.lines = list(fields, value, MAX_ENTRIES, |fields, line| fields.text(line)),
            "failed" => seen.failed = fields.text(value),
            _ => return false,
        }
        true
    });
    is_object.then_some(seen)
}

fn read_guest(fields: &mut Fields<'_>, object: Value<'_>) -> Option<GuestCapture> {
    let mut seen = GuestCapture::default();
    let is_object = fields.each(object, "proof.guest", |fields, key, value| {
        match key {
            "version" => seen.version = fields.text(value).unwrap_or_default(),
            "kvm" => seen.kvm = fields.bool(value).unwrap_or_default(),
            "machine" => seen.machine = fields.text(value).unwrap_or_default(),
            "cpu" => seen.cpu = fields.text(value).unwrap_or_default(),
            "record" => seen.snapshot = record(fields, value),
            _ => return false,
        }
        true
    });
    is_object.then_some(seen)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cpusieve_model::{Cpu, KvmCpuidEntry, ModelExpansion, Registers};

    use super::*;
    use crate::record::parse;

    #[test]
    fn what_is_written_is_read_back_and_the_record_stays_a_record() {
        let registers = Registers { eax: 7, ebx: 1, ecx: 2, edx: 3 };
        let mut cpu = Cpu::default();
        cpu.cpuid.insert(0, 0, registers);
        let snapshot = Snapshot { cpus: vec![cpu], ..Snapshot::default() };
        let captures = Captures {
            vcpu: Some(VcpuCapture {
                table: vec![KvmCpuidEntry { leaf: 7, subleaf: 1, flags: 1, registers }],
                refused: None,
                answers: vec![CpuidEntry { leaf: 7, subleaf: 1, registers }],
                failed: Some("late".to_owned()),
                msrs: vec![(0x10a, 0x69, false)],
            }),
            surveys: vec![SurveyCapture {
                version: "7.2.22".to_owned(),
                kvm: true,
                expansions: vec![ModelExpansion { name: "max".to_owned(), ..ModelExpansion::default() }],
                machines: vec![MachineCapture {
                    machine: "pc".to_owned(),
                    cpu: "host".to_owned(),
                    properties: BTreeMap::from([("aes".to_owned(), true)]),
                    lines: vec!["warning: \"x\"".to_owned()],
                    failed: None,
                }],
            }],
            guest: Some(GuestCapture {
                version: "7.2.22".to_owned(),
                kvm: false,
                machine: "pc".to_owned(),
                cpu: "max".to_owned(),
                snapshot: snapshot.clone(),
            }),
        };
        let text = print_with(&snapshot, &captures);
        let parsed = parse("proof", text.as_bytes());
        assert_eq!((parsed.diagnostics, parsed.snapshot), (Vec::new(), snapshot.clone()));
        assert_eq!(super::captures("proof", text.as_bytes()), captures);
        let plain = print_with(&snapshot, &Captures::default());
        assert_eq!(super::captures("proof", plain.as_bytes()), Captures::default());
        for end in (0..text.len()).step_by(7) {
            let _whatever = super::captures("cut", &text.as_bytes()[..end]);
        }
    }
}
